package profile

import (
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// This file is data: which names each libseccomp knows. OCI runtimes leave out of a filter what theirs does not know.

// libseccompVersions are the releases whose names are known here, in the order in which their tables grew.
var libseccompVersions = []string{
	"2.3.0", "2.3.1", "2.3.2", "2.3.3", "2.4.0", "2.4.1", "2.4.2", "2.4.3", "2.4.4",
	"2.5.0", "2.5.1", "2.5.2", "2.5.3", "2.5.4", "2.5.5", "2.5.6", "2.6.0", "2.6.1",
}

// libseccompGaps tells the names that releases before one lack, on all ABIs or on one where the name stands but has no
// number. All other names in the tables here are in 2.3.0. Source: the tags of github.com/seccomp/libseccomp,
// src/arch-*-syscalls.c up to 2.4.4 and src/syscalls.csv from 2.5.0 on.
var libseccompGaps = []struct {
	abi         specs.Arch // "" for all
	from, until string     // from is "" for the oldest
	names       []string
}{
	{"", "", "2.3.2", []string{"pkey_alloc", "pkey_free", "pkey_mprotect", "preadv2", "pwritev2"}},
	{"", "", "2.3.3", []string{"get_tls", "statx"}},
	{"", "", "2.4.0", []string{"io_pgetevents", "rseq"}},
	{"", "", "2.4.2", []string{
		"clock_adjtime64", "clock_getres_time64", "clock_gettime64", "clock_nanosleep_time64", "clock_settime64", "clone3", "fsconfig", "fsmount", "fsopen", "fspick",
		"futex_time64", "io_pgetevents_time64", "io_uring_enter", "io_uring_register", "io_uring_setup", "move_mount", "mq_timedreceive_time64", "mq_timedsend_time64",
		"open_tree", "pidfd_open", "pidfd_send_signal", "ppoll_time64", "pselect6_time64", "recvmmsg_time64", "rt_sigtimedwait_time64", "sched_rr_get_interval_time64",
		"semtimedop_time64", "timer_gettime64", "timer_settime64", "timerfd_gettime64", "timerfd_settime64", "utimensat_time64",
	}},
	{"", "", "2.4.4", []string{"faccessat2", "openat2", "pidfd_getfd"}},
	{"", "", "2.5.2", []string{
		"close_range", "epoll_pwait2", "landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self", "memfd_secret", "mount_setattr", "process_madvise", "quotactl_fd",
	}},
	{"", "", "2.5.3", []string{"process_mrelease"}},
	{"", "", "2.5.4", []string{"futex_waitv", "set_mempolicy_home_node"}},
	{"", "", "2.5.5", []string{"cachestat", "fchmodat2", "futex_requeue", "futex_wait", "futex_wake", "map_shadow_stack"}},
	{"", "", "2.5.6", []string{
		"getxattrat", "listmount", "listxattrat", "lsm_get_self_attr", "lsm_list_modules", "lsm_set_self_attr", "mseal", "removexattrat", "setxattrat", "statmount", "uretprobe",
	}},
	{"", "", "2.6.1", []string{"file_getattr", "file_setattr", "listns", "open_tree_attr", "rseq_slice_yield"}},
	{specs.ArchX86, "", "2.3.3", []string{"arch_prctl"}},
	{specs.ArchX86, "", "2.4.2", []string{"msgctl", "msgget", "msgrcv", "msgsnd", "semctl", "semget", "shmat", "shmctl", "shmdt", "shmget"}},
	{specs.ArchARM, "", "2.4.2", []string{"kexec_file_load", "migrate_pages"}},
	{specs.ArchAARCH64, "", "2.4.0", []string{"kexec_file_load"}},
	{specs.ArchAARCH64, "2.4.2", "2.4.4", []string{"clone3", "getrlimit", "setrlimit"}},
}

// releasedWith tells with which libseccomp runc's own release binaries are linked; distributions link theirs with their
// own. Source: the tags of github.com/opencontainers/runc, Dockerfile, LIBSECCOMP_VERSION.
var releasedWith = []struct{ runtime, libseccomp string }{
	{"runc@1.1.0", "2.5.3"},
	{"runc@1.1.5", "2.5.4"},
	{"runc@1.1.15", "2.5.5"},
	{"runc@1.2.0", "2.5.5"},
	{"runc@1.3.0", "2.5.6"},
	{"runc@1.3.6", "2.6.0"},
	{"runc@1.4.0", "2.5.6"},
	{"runc@1.5.1", "2.6.0"},
}

// ReleasedWith returns the libseccomp in the release binaries of the oldest runtime of that name which is known, and the
// full name of that runtime; "" if none is.
func ReleasedWith(name string) (libseccomp, runtime string) {
	for _, r := range releasedWith {
		if r.runtime == name || strings.HasPrefix(r.runtime, name+".") {
			return r.libseccomp, r.runtime
		}
	}
	return "", ""
}

// UnknownTo returns the names in a profile that a release of libseccomp does not know: those that the profile allows, which
// would be denied, and those of its other entries, which would get the default action. A name that lacks its number on one
// of the profile's ABIs only comes with that ABI.
func UnknownTo(version string, p *specs.LinuxSeccomp) (allowed, others []string, err error) {
	at := slices.Index(libseccompVersions, version)
	if at < 0 {
		return nil, nil, fmt.Errorf("libseccomp %q: what it knows is not known here (known: %s)", version, strings.Join(libseccompVersions, ", "))
	}
	for _, gap := range libseccompGaps {
		if at < slices.Index(libseccompVersions, gap.from) || at >= slices.Index(libseccompVersions, gap.until) || gap.abi != "" && !slices.Contains(p.Architectures, gap.abi) {
			continue
		}
		for _, s := range p.Syscalls {
			for _, name := range s.Names {
				if !slices.Contains(gap.names, name) {
					continue
				}
				if gap.abi != "" {
					name += " on " + string(gap.abi)
				}
				if s.Action == specs.ActAllow || s.Action == specs.ActLog {
					allowed = append(allowed, name)
				} else {
					others = append(others, name)
				}
			}
		}
	}
	slices.Sort(allowed)
	slices.Sort(others)
	return slices.Compact(allowed), slices.Compact(others), nil
}
