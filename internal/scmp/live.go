package scmp

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ptraceSeccompGetFilter is PTRACE_SECCOMP_GET_FILTER (include/uapi/linux/ptrace.h).
const ptraceSeccompGetFilter = 0x420c

// LiveFilters reads the filters of a task, the oldest first: that is how the kernel counts, whatever
// ptrace(2) says. It stops the task for that time. It
// needs CAP_SYS_ADMIN, and a reader that is not under a filter itself.
func LiveFilters(pid int) (filters [][]unix.SockFilter, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // ptrace knows threads; never unlocked, so that this one ends, and with it all tracing
		filters, err = readFilters(pid)
	}()
	<-done
	return filters, err
}

func readFilters(pid int) (filters [][]unix.SockFilter, err error) {
	if err := ptrace(unix.PTRACE_SEIZE, pid, 0); err != nil {
		return nil, fmt.Errorf("seize task %d: %w", pid, err)
	}
	var status unix.WaitStatus
	defer func() {
		if e := detach(pid, status); e != nil {
			err = errors.Join(err, fmt.Errorf("detach from task %d: %w", pid, e))
		}
	}()
	if err := ptrace(unix.PTRACE_INTERRUPT, pid, 0); err != nil {
		return nil, fmt.Errorf("interrupt task %d: %w", pid, err)
	}
	for {
		_, err := unix.Wait4(pid, &status, unix.WALL, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("wait for task %d: %w", pid, err)
		}
		break
	}
	if !status.Stopped() {
		return nil, fmt.Errorf("task %d ended", pid)
	}
	for i := 0; ; i++ {
		n, err := ptraceFilter(pid, i, nil)
		if errors.Is(err, unix.ENOENT) || i == 0 && errors.Is(err, unix.EINVAL) { // EINVAL: no filter mode
			return filters, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read filter %d of task %d: %w%s", i, pid, err, hint(err))
		}
		program := make([]unix.SockFilter, n)
		if _, err := ptraceFilter(pid, i, program); err != nil {
			return nil, fmt.Errorf("read filter %d of task %d: %w", i, pid, err)
		}
		filters = append(filters, program)
	}
}

// detach lets the task go on as it was: a signal that stopped it before the interrupt did is delivered now.
func detach(pid int, status unix.WaitStatus) error {
	if !status.Stopped() {
		return nil // it ended, or was never stopped: the kernel detaches when this thread ends
	}
	signal := uintptr(0)
	if int(status)>>16 == 0 { // no event: a signal is being delivered
		signal = uintptr(status.StopSignal())
	}
	if err := ptrace(unix.PTRACE_DETACH, pid, signal); !errors.Is(err, unix.ESRCH) { // gone: killed in the meantime
		return err
	}
	return nil
}

func hint(err error) string {
	switch {
	case errors.Is(err, unix.EACCES):
		return ": it takes CAP_SYS_ADMIN, and a reader that is under no filter itself"
	case errors.Is(err, unix.EIO), errors.Is(err, unix.EMEDIUMTYPE):
		return ": this kernel was built without CONFIG_CHECKPOINT_RESTORE, or the filter is not a classic one"
	}
	return ""
}

func ptraceFilter(pid, index int, to []unix.SockFilter) (int, error) {
	var data unsafe.Pointer
	if len(to) > 0 {
		data = unsafe.Pointer(&to[0])
	}
	n, _, errno := unix.Syscall6(unix.SYS_PTRACE, ptraceSeccompGetFilter, uintptr(pid), uintptr(index), uintptr(data), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func ptrace(request, pid int, data uintptr) error {
	if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, uintptr(request), uintptr(pid), 0, data, 0, 0); errno != 0 {
		return errno
	}
	return nil
}
