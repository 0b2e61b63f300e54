//go:build amd64

package tracer

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/profile"
	"github.com/seccompgen/seccompgen/test/lab"
)

// roleEnv tells a process that the tests start again what it is: "" for the first one, "tests" for the one that has
// the mount namespace, or what a test wants.
const roleEnv = "TRACER_TEST_ROLE"

// TestMain runs the tests in a mount namespace of their own, in which bpffs is not mounted: they neither see nor
// disturb other recordings of this host, and can tell whether something is left behind.
func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		os.Exit(m.Run()) // skips, loudly
	}
	switch role := os.Getenv(roleEnv); role {
	case "":
		os.Exit(again())
	case "memfd", "deleted":
		fmt.Fprintln(os.Stderr, executeNameless(role))
		os.Exit(1)
	}
	hostProcess = os.Getpid() // the tests' world is a host
	if os.Getenv(roleEnv) == "tests" {
		for unix.Unmount(bpffs, unix.MNT_DETACH) == nil {
		}
	}
	code := m.Run()
	if calls.dir != "" {
		os.RemoveAll(calls.dir)
	}
	os.Exit(code)
}

func again() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), roleEnv+"=tests")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		fmt.Fprintln(os.Stderr, "run the tests in a mount namespace:", err)
		return 1
	}
	return cmd.ProcessState.ExitCode()
}

// needRoot skips a test of the kernel side, and checks at its end that nothing is left behind.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: recording needs root, run: go test -exec 'sudo -E' ./tracer")
	}
	if os.Getenv(roleEnv) != "tests" {
		return // shares the namespace
	}
	t.Cleanup(func() {
		if t.Failed() {
			if err := AbortAll(); err != nil {
				t.Errorf("AbortAll: %v", err)
			}
		}
		if mounted, err := isBPFFS(); mounted || err != nil {
			pins, _ := filepath.Glob(bpffs + "/*/*/*")
			t.Errorf("bpffs is left mounted (%v) with %q", err, pins)
			if err := AbortAll(); err != nil {
				t.Errorf("AbortAll: %v", err)
			}
		}
	})
}

// needCompat skips a test whose lists of calls hold one of i386 where the kernel runs no such program.
func needCompat(t *testing.T, lists ...string) {
	t.Helper()
	for _, list := range lists {
		for call := range strings.SplitSeq(list, ",") {
			if len(call) > 1 && call[0] == 'i' && strings.ContainsAny(call[1:2], "-0123456789") {
				lab.NeedCompat(t)
			}
		}
	}
}

// calls is the program of testdata/calls, built once.
var calls struct{ dir, path string }

func program(t *testing.T) string {
	t.Helper()
	if calls.path != "" {
		return calls.path
	}
	if path := os.Getenv("TRACER_TEST_CALLS"); path != "" {
		return path
	}
	dir, err := os.MkdirTemp("", "calls")
	if err != nil {
		t.Fatal(err)
	}
	calls.dir = dir
	path := filepath.Join(dir, "calls")
	out, err := exec.Command("gcc", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-fno-builtin", "-O1",
		"-o", path, "../testdata/calls/calls.c").CombinedOutput()
	if err != nil {
		t.Fatalf("build calls.c: %v\n%s", err, out)
	}
	calls.path = path
	return path
}

const (
	native = 0xc000003e // AUDIT_ARCH_X86_64
	compat = 0x40000003 // AUDIT_ARCH_I386
)

// result is a recording in words: calls by name, sorted; denials in order.
type result struct {
	Boundary                   profile.Boundary
	Incomplete                 bool
	Dropped                    map[string]uint64
	Runtime, Workload, Exec    string
	Unknown                    string
	Denied                     []string
	Callers, Kernel, RunsAndID string
}

var prefixes = map[specs.Arch]string{specs.ArchX86_64: "", specs.ArchX86: "i386:", specs.ArchX32: "x32:"}

func summary(r *profile.Recording) result {
	sum := result{Boundary: r.Boundary, Incomplete: !r.Complete, Dropped: r.Dropped}
	names := map[profile.Phase][]string{}
	comms := map[string]bool{}
	for _, s := range r.Syscalls {
		name := prefixes[s.ABI] + s.Name
		if s.Denied != nil {
			d := s.Denied
			sum.Denied = append(sum.Denied, fmt.Sprintf("%d: %s %s%s %s %d x%d %x %s", d.Order, s.Phase, name, fmt.Sprintf("(%d)", int32(s.Nr)),
				d.Action, d.Errno, d.Count, d.Args, s.Callers[0].Comm))
			continue
		}
		names[s.Phase] = append(names[s.Phase], name)
		for _, c := range s.Callers {
			comms[c.Comm] = true
		}
	}
	slices.Sort(sum.Denied)
	sum.Runtime = words(strings.Join(names[profile.PhaseRuntime], " "))
	sum.Workload = words(strings.Join(names[profile.PhaseWorkload], " "))
	sum.Exec = words(strings.Join(names[profile.PhaseExec], " "))
	var unknown []string
	for _, u := range r.Unknown {
		unknown = append(unknown, fmt.Sprintf("%s%d*%d", prefixes[u.ABI], u.Nr, u.Count))
	}
	sum.Unknown = words(strings.Join(unknown, " "))
	return sum
}

// words sorts words.
func words(s string) string {
	w := strings.Fields(s)
	slices.Sort(w)
	return strings.Join(w, " ")
}

func check(t *testing.T, got, want result) {
	t.Helper()
	want.Runtime, want.Workload, want.Exec, want.Unknown = words(want.Runtime), words(want.Workload), words(want.Exec), words(want.Unknown)
	want.Incomplete = want.Incomplete || len(want.Dropped) != 0
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("recording (-want +got):\n%s", diff)
	}
}

// fdCalls do nothing with an fd of -1 and pointers that lead nowhere.
const (
	fdCalls = "0,1,3,5,8,16,17,18,19,20,32,33,72,73,74,75,77,78,81,91,93,138,42,43,44,45,46,47,48,49,50,51,52,54,55," +
		"187,196,217,221,232,233,254,255,275,276,277,278,285,292,306,326"
	fdNames = "read write close fstat lseek ioctl pread64 pwrite64 readv writev dup dup2 fcntl flock fsync fdatasync ftruncate " +
		"getdents fchdir fchmod fchown fstatfs connect accept sendto recvfrom sendmsg recvmsg shutdown bind listen getsockname " +
		"getpeername setsockopt getsockopt readahead flistxattr getdents64 fadvise64 epoll_wait epoll_ctl inotify_add_watch " +
		"inotify_rm_watch splice tee sync_file_range vmsplice fallocate dup3 syncfs copy_file_range"
)

// TestModes records workloads whose calls are known, from every boundary, with and without a second tracepoint.
func TestModes(t *testing.T) {
	needRoot(t)
	init := filepath.Join(t.TempDir(), "runc:[2:INIT]")
	if err := os.Link(program(t), init); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name     string
		args     []string
		workload string
		unknown  string
	}{
		{"basic", []string{"calls", "39,110,39"}, "getpid getppid exit_group", ""},
		{"all of the descriptors", []string{"calls", fdCalls}, fdNames + " exit_group", ""},
		{"last before exit", []string{"thread-exit", "39,110"}, "getpid getppid exit", ""},
		{"i386", []string{"calls", "i20,i24,i6,i199,39"}, "i386:getpid i386:getuid i386:close i386:getuid32 getpid exit_group", ""},
		{"x32", []string{"calls", "1073741863,1073742336,110"}, "x32:getpid x32:rt_sigaction getppid exit_group", ""},
		{
			"unknown",
			[]string{"calls", "1000,1000,5000,1000,2147483647,-1,-1,1073742824,700,700"},
			"exit_group",
			"1000*3 5000*1 4294967295*2 700*2 x32:1073741823*1 x32:1000*1",
		},
		{"unknown of i386", []string{"calls", "i1000,i-1"}, "exit_group", "i386:1000*1 i386:4294967295*1"},
		{"threads", []string{"threads", "39,110", "20"}, "clone getpid getppid exit exit_group", ""},
		{"fork", []string{"fork", "39,110"}, "fork getpid getppid wait4 exit_group", ""},
		{"vfork", []string{"vfork", "39,110"}, "clone getpid getppid wait4 exit_group", ""},
		{"clone3", []string{"clone3", "39,110"}, "clone3 getpid getppid wait4 exit_group", ""},
		{"many forks", []string{"forks", fdCalls + ",700", "10000"}, fdNames + " fork wait4 exit_group", "700*192"},
		{"deep forks", []string{"deep", "39", "200"}, "fork getpid wait4 exit_group", ""},
		{"unshare", []string{"unshare", "39"}, "fork unshare getpid wait4 exit_group", ""},
		{"daemon", []string{"daemon", "39"}, "fork setsid read getpid wait4 exit_group", ""},
		{"renamed", []string{"renamed", "39"}, "prctl getpid exit_group", ""},
		{"second filter", []string{"again", "39"}, "seccomp getpid exit_group", ""},
		{"exec", []string{"exec", program(t), "run", "calls", "39"}, "execve getpid exit_group", ""},
		{"exec of runc:[2:INIT]", []string{"exec", init, "run", "calls", "39"}, "execve getpid exit_group", ""},
	}
	for _, install := range []string{"none", "seccomp", "prctl", "tsync"} {
		for _, denials := range []bool{false, true} {
			for _, test := range tests {
				t.Run(fmt.Sprintf("%s/%s/denials=%v", test.name, install, denials), func(t *testing.T) {
					needCompat(t, test.args...)
					c := newContainer(t, false, nil, append([]string{install, "plain"}, test.args...)...)
					c.record(Options{Denials: denials, Filter: install != "none"}).goOn().wait()
					want := result{Boundary: profile.BoundaryFilter, Runtime: "execve", Workload: test.workload, Unknown: test.unknown}
					if install == "none" {
						want.Boundary, want.Runtime = profile.BoundaryExecve, ""
					}
					check(t, c.collect(), want)
				})
			}
		}
	}
}

// TestArguments records calls with arguments that are known.
func TestArguments(t *testing.T) {
	needRoot(t)
	var many []string
	for option := range recorderLimitsTUPLES + 1 {
		many = append(many, fmt.Sprintf("157@%d", 1000+option))
	}
	tests := []struct{ name, mode, list, want string }{
		{"each once", "calls", "41@2@1@0,41@2@2@17,41@2@1@0", "socket [2 1 0] [2 2 17]"},
		{"masked bits", "calls", "41@2@526337@0,41@2@1@0", "socket [2 1 0]"},
		{"the upper half", "calls", "157@8589934593@9999,157@1@9999", "prctl [1]"},
		{"negative", "calls", "135@-1,72@-1@-2", "fcntl [0 4294967294], personality [4294967295]"},
		{"i386", "calls", "i55@-1@3,i359@1@1@0,i90@257,55@9@1@2", "i386:fcntl [0 3], i386:socket [1 1 0]"},
		{"x32", "calls", "1073741865@1@1@0,41@2@1@0", "socket [2 1 0], x32:socket [1 1 0]"},
		{"not its arguments", "calls", "9@0@4096@5@34@-1@0,10@0@0@3", "mmap [0 0 4], mprotect [0 0 0]"},
		{"threads and namespaces", "threads", "16@-1@21505", "clone [0], ioctl [0 21505]"},
		{"as many as can be kept", "calls", strings.Join(many[1:], ","), "prctl [1001] to [1032]"},
		{"more than can be kept", "calls", strings.Join(many, ","), "prctl full"},
		{"children", "forks", "16@-1@1,16@-1@2,16@-1@3", "ioctl [0 1] [0 2] [0 3]"},
	}
	for _, denials := range []bool{false, true} {
		for _, test := range tests {
			t.Run(fmt.Sprintf("%s/denials=%v", test.name, denials), func(t *testing.T) {
				needCompat(t, test.list)
				c := newContainer(t, false, nil, "seccomp", "plain", test.mode, test.list, "9")
				c.record(Options{Denials: denials, Filter: true}).goOn().wait()
				var got []string
				keep := func(r *profile.Recording) error {
					for _, s := range r.Syscalls {
						if s.Args == nil {
							continue
						}
						text := prefixes[s.ABI] + s.Name
						if n := len(s.Args.Values); s.Args.Full {
							text += " full"
						} else if n > 9 {
							text += fmt.Sprint(" ", s.Args.Values[0], " to ", s.Args.Values[n-1])
						} else {
							text += " " + strings.Trim(fmt.Sprint(s.Args.Values), "[]") + "]"
							text = strings.Replace(text, " ", " [", 1)
						}
						got = append(got, text)
					}
					slices.Sort(got)
					return nil
				}
				if err := Collect(c.id, keep); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(test.want, strings.Join(got, ", ")); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

// TestInits records inits that are not a single process with a single thread.
func TestInits(t *testing.T) {
	needRoot(t)
	const work = "getpid exit_group"
	tests := []struct {
		install, shape    string
		runtime, workload string
	}{
		{"seccomp", "thread", "execve", work},
		{"tsync", "thread", "execve", work},
		{"none", "thread", "", work},
		{"seccomp", "sibling", "execve", work},
		{"tsync", "sibling", "getpgrp execve", work},
		{"none", "sibling", "", work},
		{"seccomp", "sleeper", "write execve", work},
		{"tsync", "sleeper", "write getpgrp execve", work},
		{"seccomp", "fork", "execve", work},
		{"none", "fork", "", work},
		{"seccomp", "hook", "fork wait4 execve getpid exit_group", work},
		{"seccomp", "visitor", "execve", work},
		{"none", "visitor", "", work},
	}
	for _, test := range tests {
		for _, denials := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%s/denials=%v", test.shape, test.install, denials), func(t *testing.T) {
				other := newContainer(t, true, nil, "none", "plain", "await", "").record(Options{}).goOn() // so that tracing runs before the init
				c := newContainer(t, false, nil, test.install, test.shape, "calls", "39")
				if test.shape == "sleeper" {
					c.asleep("0")
				}
				c.record(Options{Denials: denials, Filter: test.install != "none"}).goOn().wait()
				want := result{Boundary: profile.BoundaryFilter, Runtime: test.runtime, Workload: test.workload}
				if test.install == "none" {
					want.Boundary = profile.BoundaryExecve
				}
				check(t, c.collect(), want)
				other.in.Close()
				check(t, other.wait().collect(), result{Boundary: profile.BoundaryExecve, Workload: "read exit_group"})
			})
		}
	}
}

// TestInit records a container whose first program is an init: what its child executes is the workload.
func TestInit(t *testing.T) {
	needRoot(t)
	args := []string{"plain", "spawn", program(t), "run", "fork", "39"}
	for _, test := range []struct {
		install string
		o       Options
		want    result
	}{
		{"seccomp", Options{Filter: true, Init: true}, result{
			Boundary: profile.BoundaryFilter, Runtime: "execve fork wait4 exit_group", Workload: "fork getpid wait4 exit_group",
		}},
		{"seccomp", Options{Filter: true}, result{
			Boundary: profile.BoundaryFilter, Runtime: "execve", Workload: "fork execve getpid wait4 exit_group",
		}},
		{"none", Options{Init: true}, result{
			Boundary: profile.BoundaryExecve, Runtime: "fork execve wait4 exit_group", Workload: "fork getpid wait4 exit_group",
		}},
	} {
		c := newContainer(t, false, nil, append([]string{test.install}, args...)...).record(test.o).goOn().wait()
		check(t, c.collect(), test.want)
	}
	args[1] = "spawn-deep" // as internal/bundle's init does
	c := newContainer(t, false, nil, append([]string{"seccomp"}, args...)...).record(Options{Filter: true, Init: true}).goOn().wait()
	check(t, c.collect(), result{
		Boundary: profile.BoundaryFilter, Runtime: "execve fork wait4 exit_group", Workload: "fork getpid wait4 exit_group",
	})
	c = newContainer(t, false, nil, "seccomp", "plain", "calls", "39").record(Options{Filter: true, Init: true}).goOn().wait()
	check(t, c.collect(), result{
		Boundary: profile.BoundaryFilter, Runtime: "execve getpid exit_group", Dropped: map[string]uint64{profile.DropNotStarted: 1},
	})
}

// TestUnfiltered executes a workload without the filter that was announced, and one that is never executed.
func TestUnfiltered(t *testing.T) {
	needRoot(t)
	c := newContainer(t, false, nil, "none", "plain", "calls", "39").record(Options{Filter: true}).goOn().wait()
	check(t, c.collect(), result{Dropped: map[string]uint64{profile.DropUnfiltered: 1, profile.DropNotStarted: 1}})
	c = newContainer(t, false, nil, "none", "plain", "calls", "39").record(Options{})
	c.cmd.Process.Kill()
	check(t, c.wait().collect(), result{Dropped: map[string]uint64{profile.DropNotStarted: 1}})
}

const (
	trap        = 0x00030000
	killThread  = 0
	killProcess = 0x80000000
)

// waitFor polls what nobody tells.
func waitFor(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !is(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%s does not come", what)
		}
	}
}
