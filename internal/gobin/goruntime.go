package gobin

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"
)

// A Category says when the Go runtime makes a system call of its own.
type Category string

// The categories.
const (
	Preemption Category = "preemption" // signals that stop a goroutine or reach all threads
	Scheduler  Category = "scheduler"  // threads that wait for work or for locks
	Memory     Category = "memory"     // the heap grows, shrinks, or is labelled
	Netpoll    Category = "netpoll"    // waiting for files, sockets and timers
	Threads    Category = "threads"    // threads begin and end
	Signals    Category = "signals"    // handlers are set up, masked and returned from
	VDSO       Category = "vdso"       // what the vDSO or the code around it falls back on
	CPULimit   Category = "cpulimit"   // GOMAXPROCS follows the CPU limit of the cgroup, about once in a second
	Start      Category = "start"      // before main
	Exit       Category = "exit"       // the end of the process
	Restart    Category = "restart"    // made by the kernel itself

	// These are off by default.

	Profiling Category = "profiling" // the CPU profiler was asked for
	Crash     Category = "crash"     // the process ends by a signal or a fatal error
	Debug     Category = "debug"     // a debugging setting or a missing kernel feature
	Other     Category = "other"     // made by a runtime function that this package does not know
)

// categories lists all of them; where several apply to one call, the first one names it.
var categories = []Category{
	Preemption, Scheduler, Memory, Netpoll, Threads, Signals, VDSO, CPULimit, Start, Exit, Restart,
	Profiling, Crash, Debug, Other,
}

// Default reports whether calls of the category can happen at any moment without the program asking for them.
func (c Category) Default() bool {
	switch c {
	case Profiling, Crash, Debug, Other:
		return false
	}
	return true
}

// A RuntimeCall is a system call that the Go runtime makes on its own.
type RuntimeCall struct {
	ABI      string
	Number   int
	Category Category
	Default  bool     // whether a profile should allow it even if no run has shown it
	Reason   string   // why the runtime makes it, for a person to read
	Funcs    []string // the runtime's functions that make it; empty if the kernel does
}

// why is the category of a runtime function and the reason for its calls.
type why struct {
	category Category
	reason   string
}

// runtimeFuncs says why the runtime's functions make system calls. It goes by function, not by call, so that it
// holds for every machine and follows what the linker left in the binary. It is made when first asked for, so that
// programs that link this package start no slower.
var runtimeFuncs = sync.OnceValue(func() map[string]why {
	return map[string]why{
		"runtime.tgkill": {Preemption, "the runtime signals a thread to preempt a goroutine that runs for too long"},
		"runtime.getpid": {Preemption, "signalling a thread takes the process id"},

		"runtime.osyield":      {Scheduler, "a thread that finds a lock taken yields the processor"},
		"runtime.usleep":       {Scheduler, "the monitor thread and spinning threads sleep for a moment"},
		"runtime.futex":        {Scheduler, "threads wait for work and for locks"},
		"runtime.futex_time32": {Scheduler, "threads wait for work and for locks (older kernels)"},
		"runtime.futex_time64": {Scheduler, "threads wait for work and for locks"},

		"runtime.sysMmap":    {Memory, "the heap grows"},
		"runtime.mmap":       {Memory, "the heap grows"},
		"runtime.sysMunmap":  {Memory, "the runtime gives back what it mapped unaligned"},
		"runtime.munmap":     {Memory, "the runtime gives back what it mapped unaligned"},
		"runtime.madvise":    {Memory, "the scavenger gives unused memory back to the kernel"},
		"runtime.setVMAName": {Memory, "the runtime names its mappings"},

		"internal/runtime/syscall/linux.EpollWait": {Netpoll, "the scheduler looks for files, sockets and timers that are ready"},
		// Where nothing is inlined, the calls of netpollinit, netpollopen and netpollclose are in these.
		"internal/runtime/syscall/linux.EpollCreate1": {Netpoll, "the first timer or file that can be waited for sets up the poller"},
		"internal/runtime/syscall/linux.Eventfd":      {Netpoll, "the first timer or file that can be waited for sets up the poller"},
		"internal/runtime/syscall/linux.EpollCtl":     {Netpoll, "a file is added to the poller or taken from it"},
		"runtime.netpollinit":                         {Netpoll, "the first timer or file that can be waited for sets up the poller"},
		"runtime.netpollopen":                         {Netpoll, "a file is added to the poller"},
		"runtime.netpollclose":                        {Netpoll, "a file is taken from the poller"},
		"runtime.pipe2":                               {Netpoll, "the poller sets up a pipe to be woken by (before go1.23)"},
		"runtime.read":                                {Netpoll, "the thread that waits in the poller takes note that it was woken"},
		"runtime.write1":                              {Netpoll, "a thread wakes the one that waits in the poller, or prints a message"},

		"runtime.clone":      {Threads, "the scheduler starts a thread"},
		"runtime.gettid":     {Threads, "a new thread notes its id"},
		"runtime.exitThread": {Threads, "a thread ends, as one does that was locked to a goroutine"},
		"exit1":              {Threads, "a thread ends, as one does that was locked to a goroutine"},

		"runtime.sigaltstack":          {Signals, "each thread sets up a stack for signals"},
		"runtime.rtsigprocmask":        {Signals, "signals are blocked while threads start"},
		"runtime.rt_sigaction":         {Signals, "the runtime installs its signal handlers"},
		"runtime.sigreturn__sigaction": {Signals, "a signal handler returns, as after each preemption"},

		"runtime.nanotime1": {VDSO, "reading the clock is a real call wherever the vDSO cannot do it"},
		"runtime.walltime":  {VDSO, "reading the clock is a real call wherever the vDSO cannot do it"},
		"time.now":          {VDSO, "reading the clock is a real call wherever the vDSO cannot do it"},

		"internal/runtime/syscall/linux.Pread":        {CPULimit, "the runtime reads the CPU limit of its cgroup again and again"},
		"internal/runtime/syscall/linux.Open":         {Start, "the runtime looks for the CPU limit of its cgroup"},
		"internal/runtime/syscall/linux.Read":         {Start, "the runtime looks for the CPU limit of its cgroup"},
		"internal/runtime/syscall/linux.Close":        {Start, "the runtime looks for the CPU limit of its cgroup"},
		"internal/runtime/cgroup.CPU.Close":           {Start, "the runtime looks for the CPU limit of its cgroup"},
		"internal/runtime/cgroup.FindCPUCgroup":       {Start, "the runtime looks for the CPU limit of its cgroup"},
		"internal/runtime/cgroup.FindCPUMountPoint":   {Start, "the runtime looks for the CPU limit of its cgroup"},
		"internal/runtime/cgroup.FindCPURelativePath": {Start, "the runtime looks for the CPU limit of its cgroup"},
		"runtime.open":                         {Start, "the runtime reads the size of huge pages"},
		"runtime.closefd":                      {Start, "the runtime reads the size of huge pages"},
		"runtime.fcntl":                        {Start, "the runtime checks that standard input, output and error are open"},
		"runtime.sched_getaffinity":            {Start, "the runtime counts the processors"},
		"runtime.settls":                       {Start, "the first thread gets its thread-local storage"},
		"runtime.setldt":                       {Start, "the first thread gets its thread-local storage"},
		"internal/runtime/syscall/linux.Uname": {Start, "the runtime chooses between 32-bit and 64-bit time by the kernel's version"},
		"runtime.getKernelVersion":             {Start, "the runtime chooses between 32-bit and 64-bit time by the kernel's version"},
		"runtime.sbrk0":                        {Start, "the runtime keeps clear of the C heap"},

		"runtime.exit": {Exit, "the process ends"},

		"runtime.setitimer":       {Profiling, "the CPU profiler sets its timer"},
		"runtime.timer_create":    {Profiling, "the CPU profiler sets a timer for each thread"},
		"runtime.timer_settime":   {Profiling, "the CPU profiler sets a timer for each thread"},
		"runtime.timer_settime32": {Profiling, "the CPU profiler sets a timer for each thread"},
		"runtime.timer_settime64": {Profiling, "the CPU profiler sets a timer for each thread"},
		"runtime.timer_delete":    {Profiling, "the CPU profiler removes its timers"},

		"runtime.raise":     {Crash, "the process kills itself after a fatal error or an unhandled signal"},
		"runtime.raiseproc": {Crash, "the process kills itself after a fatal error, with GOTRACEBACK=crash"},

		"runtime.mincore":    {Debug, "the size of a page is tried out where the kernel passes no auxiliary vector"},
		"runtime.mprotect":   {Debug, "memory is made to fault, by GODEBUG=efence=1 or user arenas"},
		"runtime.sysFaultOS": {Debug, "memory is made to fault, by GODEBUG=efence=1 or user arenas"},
	}
})

// newName gives a function the package that it has since go1.26.
func newName(fn string) string {
	for _, old := range [...]string{"runtime/internal/syscall.", "internal/runtime/syscall."} {
		if rest, ok := strings.CutPrefix(fn, old); ok {
			return "internal/runtime/syscall/linux." + rest
		}
	}
	return fn
}

// implied lists calls that no instruction of the binary makes, but the kernel's own code does when a function is used.
var implied = []struct {
	fn      string // a function of the binary; empty for every binary
	numbers map[string]int
	why     why
}{
	{
		"runtime.vgetrandom",
		map[string]int{ABIX8664: 318, ABIAArch64: 278},
		why{VDSO, "the vDSO gets fresh randomness from the kernel from time to time"},
	},
	// amd64 and 386 bring their own instruction for it.
	{
		"runtime.rt_sigaction",
		map[string]int{ABIAArch64: 139},
		why{Signals, "a signal handler returns through the vDSO, as after each preemption"},
	},
	{
		"",
		map[string]int{ABIX8664: 219, ABIX86: 0, ABIAArch64: 128},
		why{Restart, "the kernel takes up an interrupted sleep again in the name of the process"},
	},
}

// vdsoFuncs names the functions that [Reach].VDSO reports.
var vdsoFuncs = []string{"runtime.vgetrandom"}

// GoRuntime gives what the runtime in this binary does on its own, sorted by ABI and number: all system calls of
// the runtime's functions, and those that the kernel makes for them. Entries whose Default is set can happen at any
// moment without the program asking for them; a recording may lack them by chance, and a profile should allow them.
func GoRuntime(r *Reach) []RuntimeCall {
	type key struct {
		abi string
		nr  int
	}
	made := map[key]map[why][]string{}
	add := func(abi string, nr int, w why, fns ...string) {
		k := key{abi, nr}
		if made[k] == nil {
			made[k] = map[why][]string{}
		}
		made[k][w] = append(made[k][w], fns...)
	}
	have := map[string]bool{"": true}
	for _, fn := range r.VDSO {
		have[fn] = true
	}
	for _, c := range r.Calls {
		for _, fn := range c.RuntimeFuncs {
			have[fn] = true
			w, ok := runtimeFuncs()[newName(fn)]
			if !ok {
				w = why{Other, "a function of the runtime makes it for a reason that is not known"}
			}
			add(c.ABI, c.Number, w, fn)
		}
	}
	for _, i := range implied {
		if nr, ok := i.numbers[r.ABI]; ok && have[i.fn] {
			if i.fn == "" {
				add(r.ABI, nr, i.why)
			} else {
				add(r.ABI, nr, i.why, i.fn)
			}
		}
	}
	entries := make([]RuntimeCall, 0, len(made))
	for k, whys := range made {
		best := slices.MinFunc(slices.Collect(maps.Keys(whys)), func(a, b why) int {
			return cmp.Or(cmp.Compare(slices.Index(categories, a.category), slices.Index(categories, b.category)), cmp.Compare(a.reason, b.reason))
		})
		e := RuntimeCall{ABI: k.abi, Number: k.nr, Category: best.category, Default: best.category.Default(), Reason: best.reason}
		for _, fns := range whys {
			e.Funcs = append(e.Funcs, fns...)
		}
		slices.Sort(e.Funcs)
		e.Funcs = slices.Compact(e.Funcs)
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b RuntimeCall) int {
		return cmp.Or(cmp.Compare(a.ABI, b.ABI), cmp.Compare(a.Number, b.Number))
	})
	return entries
}
