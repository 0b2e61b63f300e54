package profile

import (
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// This file is data: which calls the same program makes on another ABI or an older kernel in place of those that it was
// seen to make. Each group names the source that says so; glibc 2.42 is its commit 04e750e7 of January 2026.

// code tells whose code makes a call: Go's standard library never does what a C library does, and the other way round.
type code int

const (
	goCode code = 1 << iota
	cCode
	anyCode = goCode | cCode
)

// when limits a group.
type when int

const (
	onlyThere when = iota // the other ABI has the second call, and the recorded one has not
	notThere              // the other ABI has not the first call
	olderKern             // the kernel may be older than the first call
	always                // on the ABIs that the group names, if another one was recorded
	anywhere              // on the recorded one too
)

type alternates struct {
	when   when
	code   code
	abis   []specs.Arch // those that it is true for; nil: all
	text   string
	source string
	rows   [][]string // a call, and what is made in place of it
	only   bool       // and Go does not make the first call there, though the ABI has it
}

// widerCalls are the calls of 64-bit ABIs and their wider twins on 32-bit ones.
var widerCalls = [][]string{
	{"chown", "chown32"},
	{"fchown", "fchown32"},
	{"lchown", "lchown32"},
	{"fstat", "fstat64"},
	{"stat", "stat64"},
	{"lstat", "lstat64"},
	{"newfstatat", "fstatat64"},
	{"statfs", "statfs64"},
	{"fstatfs", "fstatfs64"},
	{"truncate", "truncate64"},
	{"ftruncate", "ftruncate64"},
	{"getuid", "getuid32"},
	{"geteuid", "geteuid32"},
	{"getgid", "getgid32"},
	{"getegid", "getegid32"},
	{"getgroups", "getgroups32"},
	{"getresuid", "getresuid32"},
	{"getresgid", "getresgid32"},
	{"setuid", "setuid32"},
	{"setgid", "setgid32"},
	{"setgroups", "setgroups32"},
	{"setreuid", "setreuid32"},
	{"setregid", "setregid32"},
	{"setresuid", "setresuid32"},
	{"setresgid", "setresgid32"},
	{"setfsuid", "setfsuid32"},
	{"setfsgid", "setfsgid32"},
	{"mmap", "mmap2"},
	{"lseek", "_llseek"},
	{"select", "_newselect"},
	{"sendfile", "sendfile64"},
	{"fadvise64", "fadvise64_64"},
	{"fadvise64", "arm_fadvise64_64"},
	{"sync_file_range", "arm_sync_file_range"},
}

// time64 are the calls with times and their twins with 64-bit times on 32-bit ABIs.
var time64 = [][]string{
	{"clock_gettime", "clock_gettime64"},
	{"clock_settime", "clock_settime64"},
	{"clock_adjtime", "clock_adjtime64"},
	{"clock_getres", "clock_getres_time64"},
	{"clock_nanosleep", "clock_nanosleep_time64"},
	{"nanosleep", "clock_nanosleep_time64"},
	{"timer_gettime", "timer_gettime64"},
	{"timer_settime", "timer_settime64"},
	{"timerfd_gettime", "timerfd_gettime64"},
	{"timerfd_settime", "timerfd_settime64"},
	{"utimensat", "utimensat_time64"},
	{"pselect6", "pselect6_time64"},
	{"select", "pselect6_time64"},
	{"ppoll", "ppoll_time64"},
	{"recvmmsg", "recvmmsg_time64"},
	{"mq_timedsend", "mq_timedsend_time64"},
	{"mq_timedreceive", "mq_timedreceive_time64"},
	{"semtimedop", "semtimedop_time64"},
	{"rt_sigtimedwait", "rt_sigtimedwait_time64"},
	{"futex", "futex_time64"},
	{"sched_rr_get_interval", "sched_rr_get_interval_time64"},
}

// old are the calls that newer ABIs (asm-generic) never had, and what is made there.
var old = [][]string{
	{"open", "openat"},
	{"creat", "openat"},
	{"access", "faccessat"},
	{"readlink", "readlinkat"},
	{"stat", "newfstatat"},
	{"lstat", "newfstatat"},
	{"mkdir", "mkdirat"},
	{"mknod", "mknodat"},
	{"rmdir", "unlinkat"},
	{"unlink", "unlinkat"},
	{"rename", "renameat"},
	{"link", "linkat"},
	{"symlink", "symlinkat"},
	{"chmod", "fchmodat"},
	{"chown", "fchownat"},
	{"lchown", "fchownat"},
	{"dup2", "dup3"},
	{"pipe", "pipe2"},
	{"poll", "ppoll"},
	{"select", "pselect6"},
	{"epoll_wait", "epoll_pwait"},
	{"epoll_create", "epoll_create1"},
	{"eventfd", "eventfd2"},
	{"signalfd", "signalfd4"},
	{"inotify_init", "inotify_init1"},
	{"fork", "clone"},
	{"vfork", "clone"},
	{"getdents", "getdents64"},
	{"getpgrp", "getpgid"},
	{"utime", "utimensat"},
	{"utimes", "utimensat"},
	{"futimesat", "utimensat"},
	{"pause", "ppoll"},
	{"alarm", "setitimer"},
	{"time", "gettimeofday"},
	{"send", "sendto"},
	{"recv", "recvfrom"},
}

// reversed swaps the calls of each row.
func reversed(rows [][]string) [][]string {
	var back [][]string
	for _, r := range rows {
		for _, to := range r[1:] {
			back = append(back, []string{to, r[0]})
		}
	}
	return back
}

var bits32 = []specs.Arch{specs.ArchX86, specs.ArchARM}

var allAlternates = []alternates{
	{
		onlyThere, anyCode, nil, "32-bit programs take the call with wider ids, sizes or offsets",
		"Go 1.26 syscall/zsyscall_linux_386.go and _arm.go, x/sys v0.49.0 the same, runtime/sys_linux_386.s (mmap2); musl 1.2.5 src/internal/syscall.h", widerCalls, true,
	},
	{notThere, anyCode, nil, "64-bit ABIs have only the plain call", "the same", reversed(widerCalls), false},
	{onlyThere, anyCode, nil, "32-bit programs lock files with wider offsets", "Go 1.26 syscall/flock_linux_32bit.go; musl 1.2.5 src/internal/syscall.h", [][]string{{"fcntl", "fcntl64"}}, false},
	{
		onlyThere, anyCode, nil, "the number of the older call means a narrower limit on some ABIs", "x/sys v0.49.0 unix/zsyscall_linux_386.go and _arm.go (getrlimit); musl 1.2.5 src/internal/syscall.h",
		[][]string{{"getrlimit", "ugetrlimit"}, {"ugetrlimit", "getrlimit"}},
		false,
	},
	{notThere, anyCode, nil, "the ABI has only the other one of the two", "the same", [][]string{{"fcntl64", "fcntl"}, {"ugetrlimit", "getrlimit"}, {"getrlimit", "ugetrlimit"}}, false},

	{
		always, goCode, bits32, "Go's runtime takes the calls with 64-bit times from Linux 5.1 on, as uname tells it",
		"Go 1.26 runtime/os_linux32.go, configure64bitsTimeOn32BitsArchitectures",
		[][]string{{"futex", "futex_time64", "uname"}, {"timer_settime", "timer_settime64"}},
		false,
	},
	{
		onlyThere, cCode, nil, "C libraries try the call with a 64-bit time first on 32-bit ABIs",
		"glibc 2.42 sysdeps/unix/sysv/linux/kernel-features.h (__ASSUME_TIME64_SYSCALLS), select.c; musl 1.2.5 src/time, src/thread/__timedwait.c", time64, false,
	},
	{notThere, anyCode, nil, "64-bit ABIs have only the plain call", "Go 1.26 runtime/sys_linux_amd64.s; include/uapi/asm-generic/unistd.h (__BITS_PER_LONG == 32)", reversed(time64), false},
	{olderKern, anyCode, bits32, "kernels before 5.1 have no 64-bit times on 32-bit ABIs", "the same as for the calls with 64-bit times", reversed(time64), false},

	{
		notThere, anyCode, nil, "this ABI never had the older call",
		"Go 1.26 syscall/syscall_linux_arm64.go; glibc 2.42 sysdeps/unix/sysv/linux/{access,dup2,poll,readlink,unlink,rename,mkdir,epoll_wait}.c; musl 1.2.5 the same (#ifdef SYS_*)", old, false,
	},
	{onlyThere, cCode, nil, "C libraries take the older call where the ABI has it", "the same, musl above all", reversed(old), false},
	{onlyThere, goCode, nil, "Go takes the older call where the ABI has it", "Go 1.26 and x/sys v0.49.0, syscall_linux_amd64.go and _386.go against _arm64.go", [][]string{
		{"epoll_pwait", "epoll_wait"},
		{"dup3", "dup2"},
		{"ppoll", "poll", "pause"},
		{"utimensat", "utime", "utimes", "futimesat"},
		{"fchownat", "lchown"},
		{"inotify_init1", "inotify_init"},
		{"pselect6", "select"},
		{"gettimeofday", "time"},
	}, false},
	{notThere, anyCode, nil, "renameat was left out of the newest ABIs", "glibc 2.42 sysdeps/unix/sysv/linux/rename.c", [][]string{{"renameat", "renameat2"}}, false},

	// The first thread's storage, and signal handlers' returns: nothing on another ABI corresponds to them but the start itself.
	{always, anyCode, []specs.Arch{specs.ArchX86_64}, "the first thread sets its thread-local storage", "Go 1.26 runtime/sys_linux_amd64.s (settls); musl 1.2.5 src/thread/x86_64/__set_thread_area.s", [][]string{{"execve", "arch_prctl"}, {"set_thread_area", "arch_prctl"}}, true},
	{always, anyCode, []specs.Arch{specs.ArchX86}, "the first thread sets its thread-local storage", "Go 1.26 runtime/sys_linux_386.s (setldt); musl 1.2.5 src/thread/i386/__set_thread_area.s", [][]string{{"execve", "set_thread_area"}, {"arch_prctl", "set_thread_area"}}, true},
	{always, goCode, bits32, "Go's runtime keeps clear of the C heap, and reads the size of huge pages", "Go 1.26 runtime/sys_linux_386.s and _arm.s (sbrk0, open)", [][]string{{"execve", "brk", "open"}}, false},
	{always, cCode, []specs.Arch{specs.ArchARM}, "the first thread sets its thread-local storage", "musl 1.2.5 src/thread/arm/__set_thread_area.c", [][]string{{"execve", "set_tls"}}, false},
	{always, cCode, bits32, "a handler without SA_SIGINFO returns so", "glibc 2.42 sysdeps/unix/sysv/linux/i386/libc_sigaction.c; musl 1.2.5 src/signal/{i386,arm}/restore.s", [][]string{{"rt_sigreturn", "sigreturn"}}, false},
	{always, cCode, bits32, "C libraries fill in 64-bit times of files from statx on 32-bit ABIs", "glibc 2.42 sysdeps/unix/sysv/linux/fstatat64.c; musl 1.2.5 src/stat/fstatat.c", [][]string{{"newfstatat", "statx"}, {"fstat", "statx"}, {"stat", "statx"}, {"lstat", "statx"}}, false},

	{
		anywhere, cCode, nil, "the vDSO makes it where the clock source cannot be read in user space, and no run elsewhere shows it",
		"Linux lib/vdso/gettimeofday.c; glibc 2.42 sysdeps/unix/sysv/linux/clock_gettime.c, gettimeofday.c",
		[][]string{{"execve", "clock_gettime", "clock_gettime64", "gettimeofday"}},
		false,
	},

	{
		olderKern, cCode, nil, "what C libraries fall back on after ENOSYS",
		"glibc 2.42 sysdeps/unix/sysv/linux: clone-internal.c, faccessat.c, closefrom_fallback.c, fstatat64.c, preadv2.c, pwritev2.c, fchmodat.c; musl 1.2.5 src/stat/fstatat.c",
		[][]string{
			{"clone3", "clone"},
			{"faccessat2", "faccessat", "newfstatat", "fstatat64", "geteuid", "getuid", "getegid", "getgid", "getgroups"},
			{"close_range", "openat", "getdents64", "lseek", "_llseek", "close"},
			{"statx", "newfstatat", "fstatat64", "fstat", "fstat64", "stat", "lstat"},
			{"preadv2", "preadv", "readv"},
			{"pwritev2", "pwritev", "writev"},
			{"fchmodat2", "fchmodat", "openat", "newfstatat", "fstatat64", "chmod", "close"},
		},
		false,
	},
	{
		olderKern, goCode, nil, "what Go falls back on",
		"Go 1.26 syscall/syscall_linux.go (Faccessat), os/pidfd_linux.go, os/exec_unix.go, os/wait_waitid.go, internal/syscall/unix/fchmodat_linux.go, internal/poll/copy_file_range_linux.go",
		[][]string{
			{"faccessat2", "newfstatat", "fstatat64", "geteuid", "capget", "getuid", "getegid", "getgid", "getgroups"},
			{"pidfd_open", "kill", "waitid", "wait4"},
			{"pidfd_send_signal", "kill", "waitid", "wait4"},
			{"fchmodat2", "openat", "newfstatat", "fstatat64", "fchmodat", "close"},
			{"copy_file_range", "read", "write"},
		},
		false,
	},
	{
		olderKern, goCode, nil, "what runc falls back on",
		"runc 1.5.1 libcontainer/utils/utils_unix.go (CloseExecFrom); filepath-securejoin pathrs-lite internal/procfs/procfs_lookup_linux.go and internal/fd/at_linux.go as vendored there",
		[][]string{
			{"openat2", "openat", "readlinkat", "fcntl", "newfstatat", "fstatat64", "fstat", "fstatfs", "close"},
			{"close_range", "openat", "getdents64", "fcntl", "newfstatat", "fstatat64", "fstat", "fstatfs", "readlinkat", "close"},
		},
		false,
	},
}

// since says in which Linux the newer calls above came. Source: man-pages syscalls(2), as of Linux 5.14; for the calls
// with 64-bit times and fchmodat2 glibc 2.42 sysdeps/unix/sysv/linux/kernel-features.h (__ASSUME_TIME64_SYSCALLS,
// __ASSUME_FCHMODAT2). Calls that do not stand here are older than all kernels that can be asked for.
var since = sync.OnceValue(func() map[string]Kernel {
	all := map[string]Kernel{
		"clone3": {5, 3}, "close_range": {5, 9}, "copy_file_range": {4, 5}, "faccessat2": {5, 8}, "fchmodat2": {6, 6}, "openat2": {5, 6},
		"pidfd_open": {5, 3}, "pidfd_send_signal": {5, 1}, "preadv2": {4, 6}, "pwritev2": {4, 6}, "statx": {4, 11},
	}
	for _, row := range time64 {
		all[row[1]] = Kernel{5, 1}
	}
	return all
})

// The kernels that can be asked for: the oldest is older than all that matters above but has all that does not stand in
// since, the newest is the one up to which the names of calls are known here (libseccomp 2.6.1 src/syscalls.csv, Linux 7.1).
var oldestKernel, newestKernel = Kernel{4, 4}, Kernel{7, 1}
