package profile

import (
	"slices"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// This file is data: what the robust policy adds to what was seen, each row with its reason. Nothing else is added.

// who says for whom a row of implicit is true.
type who int

const (
	anyProgram who = iota // the kernel or every program's end
	threaded              // what threads of C come to do by chance, in a workload that starts any
	goProgram             // what comes at any moment in the Go runtime's own machine code, in the workload or in runc's init
	goWorkload            // all that the Go runtime may do from its start on; for programs of the workload that were not analyzed
)

func (w who) kind() Kind {
	if w == anyProgram || w == threaded {
		return KindImplicit
	}
	return KindGoRuntime
}

// implicit lists the calls that come without the program asking for them. Those of anyProgram and goProgram can come at
// any moment, so that one run, or ten, may not show them. Measured on 79 test binaries: these are the calls by which two
// runs of the same tests differ, and with them no run was killed, against 28.6 % without. Those of goWorkload are what
// the analysis of a Go program may find beyond them. Their moment is known, but whether a recording saw it is not: one
// that an OCI hook made of a moment, or of a shell that starts the program late, did not.
// Source: Go 1.22 to 1.27, packages runtime and internal/runtime/cgroup, for the functions named; for threads of C glibc 2.42, nptl.
var implicit = []struct {
	name string
	who  who
	text string
}{
	{"execve", anyProgram, "the runtime executes the workload under the filter"},
	{"exit", anyProgram, "a thread ends; without it the thread spins for ever (moby/moby#40205)"},
	{"exit_group", anyProgram, "the process ends; without it the process spins for ever (moby/moby#40205)"},
	{"restart_syscall", anyProgram, "the kernel itself makes it, to resume a sleep that a stop signal interrupted"},
	{"rt_sigreturn", anyProgram, "a signal handler returns"},

	{"futex", threaded, "a thread waits for another one only where that one is late (pthread_join, pthread_mutex_lock)"},
	{"futex_time64", threaded, "a thread waits for another one only where that one is late, on 32-bit ABIs with a 64-bit time"},
	{"munmap", threaded, "stacks of threads that ended are kept up to 40 MiB of them; the C library aborts if it may not drop more (__nptl_free_stacks)"},

	{"clock_gettime", goProgram, "the vDSO makes it where the clock source cannot be read in user space (runtime.nanotime1, walltime)"},
	{"clone", goProgram, "the scheduler starts a thread (runtime.newosproc)"},
	{"epoll_pwait", goProgram, "sysmon and the scheduler poll the network (runtime.netpoll)"},
	{"futex", goProgram, "threads sleep and wake each other (runtime.futexsleep, futexwakeup)"},
	{"futex_time64", goProgram, "threads sleep and wake each other, on 32-bit ABIs with a 64-bit time (runtime.futexsleep)"},
	{"getpid", goProgram, "asynchronous preemption signals a thread (runtime.signalM)"},
	{"getrandom", goProgram, "the vDSO makes it to seed its state (runtime.vgetrandom)"},
	{"gettid", goProgram, "a new thread asks for its id (runtime.minit)"},
	{"madvise", goProgram, "the heap gives memory back (runtime.sysUnused)"},
	{"mmap", goProgram, "the heap grows (runtime.sysMmap)"},
	{"mmap2", goProgram, "the heap grows, on 32-bit ABIs (runtime.sysMmap)"},
	{"munmap", goProgram, "the heap trims an arena (runtime.sysFreeOS)"},
	{"nanosleep", goProgram, "sysmon sleeps (runtime.usleep)"},
	{"rt_sigprocmask", goProgram, "a new thread sets its signal mask (runtime.minitSignalMask)"},
	{"sched_yield", goProgram, "a lock is contended (runtime.osyield)"},
	{"sigaltstack", goProgram, "a new thread sets its signal stack (runtime.minitSignalStack)"},
	{"tgkill", goProgram, "asynchronous preemption signals a thread (runtime.signalM)"},

	{"arch_prctl", goWorkload, "the first thread gets its thread-local storage, on amd64 (runtime.settls)"},
	{"brk", goWorkload, "the heap keeps clear of C's, on 32-bit ABIs (runtime.sbrk0)"},
	{"close", goWorkload, "files read at the start are closed (runtime.getHugePageSize, since go1.25 internal/runtime/cgroup.FindCPU)"},
	{"epoll_create1", goWorkload, "the first timer or file sets up the poller (runtime.netpollinit)"},
	{"epoll_ctl", goWorkload, "files are added to the poller and taken from it (runtime.netpollinit, netpollopen, netpollclose)"},
	{"eventfd2", goWorkload, "the first timer or file sets up the poller, since go1.23 (runtime.netpollinit)"},
	{"fcntl", goWorkload, "standard input, output and error are checked at the start (runtime.checkfds)"},
	{"open", goWorkload, "the size of huge pages is read at the start, on 32-bit ABIs (runtime.getHugePageSize)"},
	{"openat", goWorkload, "files are read at the start: the size of huge pages and, since go1.25, the CPU limit of the cgroup (runtime.getHugePageSize, internal/runtime/cgroup.OpenCPU)"},
	{"pipe2", goWorkload, "the first timer or file sets up the poller, before go1.23 (runtime.netpollinit)"},
	{"prctl", goWorkload, "mappings get names, since go1.25 (runtime.setVMAName)"},
	{"pread64", goWorkload, "the CPU limit of the cgroup is read again and again, since go1.25 (internal/runtime/cgroup.ReadCPULimit)"},
	{"read", goWorkload, "files are read at the start, and the poller takes note that it was woken (runtime.getHugePageSize, netpoll)"},
	{"rt_sigaction", goWorkload, "signal handlers are installed (runtime.setsig)"},
	{"sched_getaffinity", goWorkload, "the processors are counted at the start, and again and again since go1.25 (runtime.getCPUCount)"},
	{"set_thread_area", goWorkload, "the first thread gets its thread-local storage, on 386 (runtime.setldt)"},
	{"uname", goWorkload, "64-bit time is chosen by the kernel's version, on 32-bit ABIs since go1.26 (runtime.getKernelVersion)"},
	{"write", goWorkload, "a thread wakes the one that waits in the poller (runtime.netpollBreak)"},
}

// onlyOn names the ABIs of those rows that are true of some alone.
var onlyOn = map[string][]specs.Arch{
	"arch_prctl":      {specs.ArchX86_64},
	"brk":             {specs.ArchX86, specs.ArchARM},
	"open":            {specs.ArchX86, specs.ArchARM},
	"set_thread_area": {specs.ArchX86},
	"uname":           {specs.ArchX86, specs.ArchARM},
}

// enosys lists the calls whose callers fall back on another one when they get ENOSYS, and may not when they get the
// profile's EPERM. Where such a call was not seen the profile answers ENOSYS explicitly: runc's own rule gives ENOSYS
// only to numbers above the highest one listed, so that a listed newer call would change how these fail, and crun has
// no such rule.
var enosys = sync.OnceValue(func() []enosysRow {
	return append([]enosysRow{
		{"clone3", "glibc's pthread_create and posix_spawn fall back on clone after ENOSYS only", "glibc 2.42 sysdeps/unix/sysv/linux/clone-internal.c, spawni.c"},
		{"close_range", "glibc's closefrom, CPython and runc close one file after the other after any error", "glibc 2.42 io/closefrom.c; CPython Modules/_posixsubprocess.c; runc 1.5.1 libcontainer/utils/utils_unix.go"},
		{"copy_file_range", "Go reads and writes after ENOSYS or EPERM, libuv sends the file after ENOSYS only", "Go 1.26 internal/poll/copy_file_range_linux.go; libuv src/unix/fs.c"},
		{"epoll_pwait2", "systemd's event loop falls back on epoll_wait", "systemd src/libsystemd/sd-event/sd-event.c, epoll_wait_usec"},
		{"faccessat2", "glibc and musl fall back on faccessat after ENOSYS only, Go after EPERM too", "glibc 2.42 sysdeps/unix/sysv/linux/faccessat.c; musl 1.2.5 src/unistd/faccessat.c; Go 1.26 syscall/syscall_linux.go"},
		{"fchmodat2", "glibc and Go fall back on a file descriptor and /proc after ENOSYS only", "glibc 2.42 sysdeps/unix/sysv/linux/fchmodat.c; Go 1.26 syscall/syscall_linux.go, internal/syscall/unix/fchmodat_linux.go"},
		{"futex_waitv", "it is what kernels before 5.16 answer", "stress-ng core-shim.c, which names the kernel"},
		{"io_uring_setup", "libuv does without after any error; io_uring's operations pass every filter unseen", "libuv src/unix/linux.c, uv__iou_init"},
		{"openat2", "runc walks the path itself after any error", "filepath-securejoin pathrs-lite/internal/linux/openat2_linux.go, as vendored in runc 1.5.1"},
		{"pidfd_open", "Go goes by process ids after any error", "Go 1.26 os/pidfd_linux.go"},
		{"pidfd_send_signal", "Go goes by process ids after any error", "Go 1.26 os/pidfd_linux.go"},
		{"preadv2", "glibc falls back on preadv after ENOSYS only", "glibc 2.42 sysdeps/unix/sysv/linux/preadv2.c"},
		{"pwritev2", "glibc falls back on pwritev after ENOSYS only", "glibc 2.42 sysdeps/unix/sysv/linux/pwritev2.c"},
		{"rseq", "glibc goes without restartable sequences after any error", "glibc 2.42 sysdeps/unix/sysv/linux/rseq-internal.h"},
		{"statx", "glibc and musl fall back on fstatat after ENOSYS only, libuv and Rust after EPERM too", "glibc 2.42 sysdeps/unix/sysv/linux/fstatat64.c; musl 1.2.5 src/stat/fstatat.c; libuv src/unix/fs.c; Rust library/std/src/sys/fs/unix.rs"},
	}, enosysTimes()...)
})

type enosysRow struct{ name, text, source string }

// enosysTimes returns the calls with 64-bit times: 32-bit ABIs alone have them.
func enosysTimes() []enosysRow {
	var rows []enosysRow
	for _, row := range time64 {
		if !slices.ContainsFunc(rows, func(r enosysRow) bool { return r.name == row[1] }) {
			rows = append(rows, enosysRow{row[1], "C libraries fall back on the call with a 32-bit time after ENOSYS only", "glibc 2.42 sysdeps/unix/sysv/linux/clock_gettime.c and others; musl 1.2.5 src/time/clock_gettime.c and others"})
		}
	}
	return rows
}

// defaultActions are the answers to a call that the profile does not list.
var defaultActions = map[string]specs.LinuxSeccompAction{
	"errno": specs.ActErrno,
	"kill":  specs.ActKillProcess,
	"log":   specs.ActLog,
}

// ImplicitCalls returns the names of the calls that can come at any moment, sorted. Tests do not notice when some of them are
// refused, and the program is worse for it.
func ImplicitCalls() []string {
	var all []string
	for _, row := range implicit {
		if row.who != goWorkload {
			all = append(all, row.name)
		}
	}
	slices.Sort(all)
	return all
}
