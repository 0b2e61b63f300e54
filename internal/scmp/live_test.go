package scmp

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

const childEnv = "SECCOMPGEN_TEST_FILTERS"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		child()
		return
	}
	os.Exit(m.Run())
}

// child installs two filters in its main thread and waits for its standard input to end.
func child() {
	runtime.LockOSThread()
	for _, program := range childFilters {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			panic(err)
		}
		prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
		const tsync = 1
		if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, 1, tsync, uintptr(unsafe.Pointer(&prog))); errno != 0 {
			panic(errno)
		}
	}
	os.Stdout.WriteString("ready\n")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	os.Stdout.WriteString("done\n")
}

var childFilters = [][]unix.SockFilter{
	{load(offsetNr), test(unix.BPF_JEQ, 9999, 0, 1), ret(retEnosys), ret(unix.SECCOMP_RET_ALLOW)},
	{ret(unix.SECCOMP_RET_ALLOW)},
}

func TestLiveFilters(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	if line, err := lines.ReadString('\n'); line != "ready\n" {
		t.Fatalf("the child says %q, %v", line, err)
	}
	for range 20 { // again and again: every time it must be left as it was
		filters, err := LiveFilters(cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		own, err := LiveFilters(os.Getpid())
		if err == nil {
			t.Errorf("a process traces itself: %v", own)
		}
		// Filters that this test itself runs under come before those of the child.
		if n := len(filters) - len(childFilters); n < 0 || !slices.EqualFunc(filters[n:], childFilters, slices.Equal) {
			t.Fatalf("got %v", filters)
		}
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil || !strings.Contains(string(status), "TracerPid:\t0") {
		t.Errorf("still traced: %v", err)
	}
	if _, err := in.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	if line, _ := lines.ReadString('\n'); line != "done\n" {
		t.Errorf("the child does not go on: %q", line)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if _, err := LiveFilters(cmd.Process.Pid); !errors.Is(err, unix.ESRCH) {
		t.Errorf("a task that is gone: got %v, want ESRCH", err)
	}
}
