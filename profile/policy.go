package profile

import "github.com/opencontainers/runtime-spec/specs-go"

// This file is data: what the robust policy adds to what was seen, each row with its reason. Nothing else is added.

// who limits a row of the closure to the programs that it is true for.
type who int

const (
	anyProgram who = iota // the kernel or every program's end
	goProgram             // the Go runtime's own machine code, in the workload or in runc's init
)

// closure lists the calls that can come at any moment without the program asking for them, so that one run, or ten, may
// not show them. Measured on 79 test binaries: these are the calls by which two runs of the same tests differ, and with
// them no run was killed, against 28.6 % without. Source: Go 1.26, package runtime, os_linux.go and
// sys_linux_*.s, for the functions named.
var closure = []struct {
	name string
	who  who
	text string
}{
	{"execve", anyProgram, "the runtime executes the workload under the filter"},
	{"exit", anyProgram, "a thread ends; without it the thread spins for ever (moby/moby#40205)"},
	{"exit_group", anyProgram, "the process ends; without it the process spins for ever (moby/moby#40205)"},
	{"restart_syscall", anyProgram, "the kernel itself makes it, to resume a sleep that a stop signal interrupted"},
	{"rt_sigreturn", anyProgram, "a signal handler returns"},

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
	{"write", goProgram, "a fatal error is printed (runtime.write1)"},
}

// enosys lists the calls whose callers fall back on another one when they get ENOSYS, and may not when they get the
// profile's EPERM. Where such a call was not seen the profile answers ENOSYS explicitly: runc's own rule gives ENOSYS
// only to numbers above the highest one listed, so that a listed newer call would change how these fail, and crun has
// no such rule.
var enosys = []struct{ name, text string }{
	{"clone3", "glibc's pthread_create and posix_spawn fall back on clone after ENOSYS only (glibc 2.34, sysdeps/unix/sysv/linux/clone-internal.c)"},
	{"close_range", "callers fall back on a loop of close (glibc closefrom; Python, systemd)"},
	{"copy_file_range", "Go falls back on read and write after ENOSYS or EPERM (internal/poll/copy_file_range_linux.go)"},
	{"epoll_pwait2", "callers fall back on epoll_pwait (systemd, libevent)"},
	{"faccessat2", "Go and glibc fall back on faccessat (syscall.Faccessat; glibc 2.33 faccessat.c)"},
	{"futex_waitv", "callers fall back on futex (Wine, Proton)"},
	{"io_uring_setup", "callers fall back on plain calls; io_uring's operations pass every filter unseen"},
	{"openat2", "callers fall back on openat (runc's pathrs; systemd chase)"},
	{"pidfd_open", "Go falls back on pids after any error (os/pidfd_linux.go)"},
	{"pidfd_send_signal", "Go falls back on kill after any error (os/pidfd_linux.go)"},
	{"rseq", "glibc goes without restartable sequences after any error (glibc 2.35 rseq registration)"},
	{"statx", "glibc and Rust fall back on newfstatat after ENOSYS only (glibc 2.28 statx.c; rust std sys/fs)"},
}

// defaultActions are the answers to a call that the profile does not list.
var defaultActions = map[string]specs.LinuxSeccompAction{
	"errno": specs.ActErrno,
	"kill":  specs.ActKillProcess,
	"log":   specs.ActLog,
}
