//go:build amd64

package tracer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
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
	"github.com/google/go-cmp/cmp/cmpopts"
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

// container is a process that waits to become a container.
type container struct {
	t       *testing.T
	id      string
	cmd     *exec.Cmd
	in, out *os.File
}

// newContainer starts the program as an init that is ready to be recorded. in is a mount namespace to give it as fd 3.
func newContainer(t *testing.T, own bool, in *container, args ...string) *container {
	t.Helper()
	inR, inW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c := &container{t: t, in: inW, out: outR, cmd: exec.Command(program(t), append([]string{"init"}, args...)...)}
	c.cmd.Stdin, c.cmd.Stdout = inR, outW
	c.cmd.Dir = t.TempDir()
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if own {
		c.cmd.SysProcAttr.Unshareflags = unix.CLONE_NEWNS
	}
	ns := "/proc/self/ns/mnt"
	if in != nil {
		ns = fmt.Sprintf("/proc/%d/ns/mnt", in.cmd.Process.Pid)
	}
	f, err := os.Open(ns)
	if err != nil {
		t.Fatal(err)
	}
	c.cmd.ExtraFiles = []*os.File{f}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, f := range []*os.File{inR, outW, f} {
		f.Close()
	}
	t.Cleanup(func() {
		inW.Close()
		outR.Close()
		c.cmd.Process.Kill()
		c.cmd.Wait()
	})
	c.id = fmt.Sprintf("%s-%d-%d", t.Name(), os.Getpid(), c.cmd.Process.Pid)
	c.ready()
	return c
}

// ready waits until the init is.
func (c *container) ready() {
	c.t.Helper()
	if _, err := io.ReadFull(c.out, make([]byte, 1)); err != nil {
		c.t.Fatalf("the init does not become ready: %v", err)
	}
}

// asleep waits until all threads are in the call nr.
func (c *container) asleep(nr string) {
	c.t.Helper()
	waitFor(c.t, "call "+nr, func() bool {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", c.cmd.Process.Pid))
		for _, f := range files {
			if text, err := os.ReadFile(f); err != nil || !strings.HasPrefix(string(text), nr+" ") {
				return false
			}
		}
		return len(files) > 0
	})
}

func (c *container) record(o Options) *container {
	c.t.Helper()
	if err := Start(c.id, c.cmd.Process.Pid, o); err != nil {
		c.t.Fatal(err)
	}
	return c
}

// goOn gives the init its filter.
func (c *container) goOn(rules ...rule) *container {
	c.t.Helper()
	if _, err := c.in.Write(filter(rules...)); err != nil {
		c.t.Fatal(err)
	}
	return c
}

// wait waits for the end of all processes of the container.
func (c *container) wait() *container {
	c.t.Helper()
	if _, err := c.cmd.Process.Wait(); err != nil {
		c.t.Fatal(err)
	}
	c.in.Close()
	if _, err := io.Copy(io.Discard, c.out); err != nil {
		c.t.Fatal(err)
	}
	return c
}

func (c *container) collect() result {
	c.t.Helper()
	var r result
	if err := Collect(c.id, func(rec *profile.Recording) error { r = summary(rec); return nil }); err != nil {
		c.t.Fatal(err)
	}
	return r
}

// rule is what a filter answers to one call.
type rule struct {
	arch, nr, answer uint32
}

const (
	native = 0xc000003e // AUDIT_ARCH_X86_64
	compat = 0x40000003 // AUDIT_ARCH_I386
)

// filter assembles a filter that allows whatever no rule answers.
func filter(rules ...rule) []byte {
	var prog []unix.SockFilter
	for _, r := range rules {
		prog = append(prog,
			unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 4},
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: r.arch, Jf: 3},
			unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS},
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: r.nr, Jf: 1},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: r.answer},
		)
	}
	prog = append(prog, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0x7fff0000}) // SECCOMP_RET_ALLOW
	var b bytes.Buffer
	if err := binary.Write(&b, binary.LittleEndian, prog); err != nil {
		panic(err) // a buffer and fixed sizes: cannot happen
	}
	return b.Bytes()
}

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

// TestJoin records processes that join a container, as runc exec does.
func TestJoin(t *testing.T) {
	needRoot(t)
	const read = "read exit_group"
	tests := []struct {
		install, shape, joiner string
		exec                   string
	}{
		{"seccomp", "join", "seccomp", "execve getpid exit_group"},
		{"prctl", "join", "prctl", "execve getpid exit_group"},
		{"seccomp", "join-fork", "seccomp", "execve getpid exit_group"},
		{"seccomp", "join", "none", ""},
		{"seccomp", "plain", "seccomp", ""},
		{"none", "join", "none", "getpid exit_group"},
		{"none", "join-fork", "none", "getpid exit_group"},
		{"none", "join", "seccomp", "execve getpid exit_group"},
	}
	for _, test := range tests {
		for _, denials := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%s/%s/denials=%v", test.install, test.shape, test.joiner, denials), func(t *testing.T) {
				c := newContainer(t, true, nil, test.install, "plain", "await", "")
				c.record(Options{Filter: test.install != "none", Denials: denials}).goOn()
				joiner := newContainer(t, false, c, test.joiner, test.shape, "calls", "39")
				joiner.goOn().wait() // before or after the container's own execve: it makes no difference
				c.in.Close()
				want := result{Boundary: profile.BoundaryFilter, Runtime: "execve", Workload: read, Exec: test.exec}
				if test.install == "none" {
					want.Boundary, want.Runtime = profile.BoundaryExecve, ""
				}
				check(t, c.wait().collect(), want)
			})
		}
	}
}

// TestSharedNamespace records two containers in one mount namespace: who joins it cannot be told to belong to one.
func TestSharedNamespace(t *testing.T) {
	needRoot(t)
	keeper := newContainer(t, true, nil, "none", "plain", "await", "").record(Options{}).goOn()
	a := newContainer(t, true, nil, "none", "plain", "await", "").record(Options{}).goOn()
	b := newContainer(t, true, a, "none", "guest", "await", "").record(Options{}).goOn()
	newContainer(t, false, a, "none", "join", "calls", "39").goOn().wait()
	want := result{Boundary: profile.BoundaryExecve, Workload: "read exit_group", Dropped: map[string]uint64{profile.DropJoin: 1}}
	for _, c := range []*container{a, b} {
		c.in.Close()
		check(t, c.wait().collect(), want)
		want.Dropped = map[string]uint64{profile.DropJoin: 1}
	}
	keeper.in.Close()
	check(t, keeper.wait().collect(), result{Boundary: profile.BoundaryExecve, Workload: "read exit_group"})
}

// TestSharedNamespaceEnds records a container in a mount namespace that two others have shared before.
func TestSharedNamespaceEnds(t *testing.T) {
	needRoot(t)
	home := newContainer(t, true, nil, "none", "plain", "await", "") // not recorded
	keeper := newContainer(t, true, nil, "none", "plain", "await", "").record(Options{}).goOn()
	a := newContainer(t, true, home, "none", "guest", "calls", "").record(Options{})
	newContainer(t, true, home, "none", "guest", "calls", "").record(Options{}).goOn().wait().collect()
	a.goOn().wait().collect()
	c := newContainer(t, true, home, "none", "guest", "await", "").record(Options{}).goOn()
	newContainer(t, false, home, "none", "join", "calls", "39").goOn().wait()
	c.in.Close()
	check(t, c.wait().collect(), result{Boundary: profile.BoundaryExecve, Workload: "read exit_group", Exec: "getpid exit_group"})
	keeper.in.Close()
	keeper.wait().collect()
}

// TestReusedNamespace records a container in a mount namespace that has the number of one whose container has ended,
// and was not collected yet.
func TestReusedNamespace(t *testing.T) {
	needRoot(t)
	old := newContainer(t, true, nil, "none", "plain", "calls", "39").record(Options{})
	number, err := mountNS(old.cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	old.goOn().wait()
	for range 200 { // the kernel gives the lowest number that is free, to whoever comes first
		c := newContainer(t, true, nil, "none", "plain", "await", "")
		if n, err := mountNS(c.cmd.Process.Pid); err != nil {
			t.Fatal(err)
		} else if n != number {
			continue
		}
		c.record(Options{}).goOn()
		newContainer(t, false, c, "none", "join", "calls", "110").goOn().wait()
		check(t, old.collect(), result{Boundary: profile.BoundaryExecve, Workload: "getpid exit_group"})
		newContainer(t, false, c, "none", "join", "calls", "102").goOn().wait()
		c.in.Close()
		check(t, c.wait().collect(), result{Boundary: profile.BoundaryExecve, Workload: "read exit_group", Exec: "getppid getuid exit_group"})
		return
	}
	old.collect()
	t.Log("NOT TESTED this time: others on this host took the number of the old namespace")
}

func errno(e syscall.Errno) uint32 { return 0x00050000 | uint32(e) }

const (
	trap        = 0x00030000
	killThread  = 0
	killProcess = 0x80000000
)

// TestDenials watches what filters refuse.
func TestDenials(t *testing.T) {
	needRoot(t)
	const (
		nargs = "[ffffffffffffffff 101 102 103 104 105]"
		cargs = "[ffffffff 101 102 103 104 105]"
	)
	tests := []struct {
		name     string
		args     []string
		rules    []rule
		runtime  string
		workload string
		denied   []string
	}{
		{
			"errno",
			[]string{"calls", "39,110,39"},
			[]rule{{native, 39, errno(unix.EPERM)}},
			"execve", "getppid exit_group",
			[]string{"1: workload getpid(39) errno 1 x2 " + nargs + " calls"},
		},
		{
			"order",
			[]string{"calls", "102,39,104,102"},
			[]rule{{native, 39, errno(unix.EPERM)}, {native, 102, errno(unix.ENOSYS)}, {native, 104, errno(0)}},
			"execve", "exit_group",
			[]string{
				"1: workload getuid(102) errno 38 x2 " + nargs + " calls",
				"2: workload getpid(39) errno 1 x1 " + nargs + " calls",
				"3: workload getgid(104) errno 0 x1 " + nargs + " calls",
			},
		},
		{
			"number 0 with errno 0, number -1 with errno 1",
			[]string{"calls", "0,-1,-38"},
			[]rule{{native, 0, errno(0)}, {native, 0xffffffff, errno(1)}, {native, 0xffffffda, errno(38)}},
			"execve", "exit_group",
			[]string{
				"1: workload read(0) errno 0 x1 " + nargs + " calls",
				"2: workload (-1) errno 1 x1 [ffffffffffffffff 101 102 103 104 105] calls",
				"3: workload (-38) errno 38 x1 [ffffffffffffffff 101 102 103 104 105] calls",
			},
		},
		{
			"number 0 trapped",
			[]string{"fork", "0"},
			[]rule{{native, 0, trap}},
			"execve", "fork wait4 exit_group",
			[]string{"1: workload read(0) trap 0 x1 " + nargs + " calls"},
		},
		{
			"i386",
			[]string{"calls", "i20,20,39,i39"},
			[]rule{{compat, 20, errno(unix.EACCES)}, {native, 39, errno(unix.ENOSYS)}, {native, 20, errno(unix.EPERM)}},
			"execve", "i386:mkdir exit_group",
			[]string{
				"1: workload i386:getpid(20) errno 13 x1 " + cargs + " calls",
				"2: workload writev(20) errno 1 x1 " + nargs + " calls",
				"3: workload getpid(39) errno 38 x1 " + nargs + " calls",
			},
		},
		{
			"x32",
			[]string{"calls", "1073741863,39"},
			[]rule{{native, 0x40000027, errno(unix.EPERM)}},
			"execve", "getpid exit_group",
			[]string{"1: workload x32:getpid(39) errno 1 x1 " + nargs + " calls"},
		},
		{
			"trap kills",
			[]string{"fork", "39,110"},
			[]rule{{native, 39, trap}},
			"execve", "fork wait4 exit_group",
			[]string{"1: workload getpid(39) trap 0 x1 " + nargs + " calls"},
		},
		{
			"trap is handled",
			[]string{"handled", "39,110,39"},
			[]rule{{native, 39, trap}},
			"execve", "rt_sigaction rt_sigreturn getppid exit_group",
			[]string{"1: workload getpid(39) trap 0 x2 " + nargs + " calls"},
		},
		{
			"i386 trap",
			[]string{"fork", "i20,110"},
			[]rule{{compat, 20, trap}},
			"execve", "fork wait4 exit_group",
			[]string{"1: workload i386:getpid(20) trap 0 x1 " + cargs + " calls"},
		},
		{
			"kill process",
			[]string{"fork", "39,110"},
			[]rule{{native, 39, killProcess}},
			"execve", "fork wait4 exit_group",
			[]string{"1: workload getpid(39) kill 0 x1 " + nargs + " calls"},
		},
		{
			"kill the container",
			[]string{"calls", "110,39,102"},
			[]rule{{native, 39, killProcess}},
			"execve", "getppid",
			[]string{"1: workload getpid(39) kill 0 x1 " + nargs + " calls"},
		},
		{
			"kill the only thread",
			[]string{"fork", "39,110"},
			[]rule{{native, 39, killThread}},
			"execve", "fork wait4 exit_group",
			[]string{"1: workload getpid(39) kill 0 x1 " + nargs + " calls"},
		},
		{
			"kill a thread beside others",
			[]string{"threads", "39,110", "3"},
			[]rule{{native, 39, killThread}},
			"execve", "clone exit_group",
			[]string{"1: workload getpid(39) kill 0 x3 " + nargs + " calls"},
		},
		{
			"i386 kill a thread beside others",
			[]string{"threads", "i20,110", "3"},
			[]rule{{compat, 20, killThread}},
			"execve", "clone exit_group",
			[]string{"1: workload i386:getpid(20) kill 0 x3 " + cargs + " calls"},
		},
		{
			"kill the process of a thread",
			[]string{"threads", "39,110", "1"},
			[]rule{{native, 39, killProcess}},
			"execve", "clone",
			[]string{"1: workload getpid(39) kill 0 x1 " + nargs + " calls"},
		},
		{
			"in children",
			[]string{"forks", "39,110", "500"},
			[]rule{{native, 39, errno(unix.EPERM)}},
			"execve", "fork wait4 getppid exit_group",
			[]string{"1: workload getpid(39) errno 1 x250 " + nargs + " calls"},
		},
		{
			"by another name",
			[]string{"renamed", "39"},
			[]rule{{native, 39, errno(unix.EPERM)}},
			"execve", "prctl exit_group",
			[]string{"1: workload getpid(39) errno 1 x1 " + nargs + " runc:[2:INIT]"},
		},
		{
			"last of a thread",
			[]string{"threads", "110,39", "5"},
			[]rule{{native, 39, errno(unix.EPERM)}},
			"execve", "clone getppid exit exit_group",
			[]string{"1: workload getpid(39) errno 1 x5 " + nargs + " calls"},
		},
	}
	for _, install := range []string{"seccomp", "prctl", "tsync"} {
		for _, test := range tests {
			t.Run(test.name+"/"+install, func(t *testing.T) {
				needCompat(t, test.args...)
				other := newContainer(t, true, nil, "seccomp", "plain", "fork", "39") // wants no denials, and has some
				other.record(Options{Filter: true})
				c := newContainer(t, false, nil, append([]string{install, "plain"}, test.args...)...)
				c.record(Options{Denials: true, Filter: true}).goOn(test.rules...).wait()
				other.goOn(test.rules...).wait()
				check(t, c.collect(), result{Boundary: profile.BoundaryFilter, Runtime: test.runtime, Workload: test.workload, Denied: test.denied})
				if r := other.collect(); r.Denied != nil || r.Incomplete {
					t.Errorf("the container beside has denials: %+v", r)
				}
			})
		}
	}
}

// TestOwnFilter runs a workload with a filter of its own: what that refuses is told from what the container's refuses.
func TestOwnFilter(t *testing.T) {
	needRoot(t)
	rules := []rule{{native, 39, errno(unix.EPERM)}}
	tests := []struct {
		name, mode string
		refusals   []profile.Refusal
		denied     []string
		own        []bool
		dropped    map[string]uint64
	}{
		{"both", "own", []profile.Refusal{{Action: "errno", Errno: 1}}, []string{"getpid", "getuid"}, []bool{false, true}, nil},
		{"refusals that are not known", "own", nil, []string{"getpid", "getuid"}, []bool{false, false}, nil},
		{"another filter than the container's cannot have been", "calls", []profile.Refusal{{Action: "errno", Errno: 38}}, nil, nil, map[string]uint64{profile.DropEntry: 1}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := newContainer(t, false, nil, "seccomp", "plain", test.mode, "39,102,110")
			c.record(Options{Denials: true, Filter: true, Refusals: test.refusals}).goOn(rules...).wait()
			err := Collect(c.id, func(r *profile.Recording) error {
				var denied []string
				var own []bool
				for _, s := range r.Syscalls {
					if s.Denied != nil {
						denied, own = append(denied, s.Name), append(own, s.Denied.Own)
					}
				}
				if diff := cmp.Diff(test.denied, denied) + cmp.Diff(test.own, own) + cmp.Diff(test.dropped, r.Dropped); diff != "" {
					t.Error(diff)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestDeniedInit denies calls of the runtime: its execve, the first call of a thread that came under the filter in its sleep.
func TestDeniedInit(t *testing.T) {
	needRoot(t)
	c := newContainer(t, false, nil, "seccomp", "plain", "calls", "39").record(Options{Denials: true, Filter: true})
	r := c.goOn(rule{native, 59, errno(unix.EACCES)}).wait().collect()
	if len(r.Denied) != 1 || !strings.HasPrefix(r.Denied[0], "1: oci-runtime execve(59) errno 13 x1 [") {
		t.Errorf("denied: %q", r.Denied)
	}
	r.Denied = nil
	check(t, r, result{Boundary: profile.BoundaryFilter, Runtime: "exit_group", Dropped: map[string]uint64{profile.DropNotStarted: 1}})

	c = newContainer(t, false, nil, "tsync", "sleeper", "calls", "39")
	c.asleep("0")
	c.record(Options{Denials: true, Filter: true})
	check(t, c.goOn(rule{native, unix.SYS_GETPGRP, errno(unix.EPERM)}).wait().collect(), result{
		Boundary: profile.BoundaryFilter, Runtime: "write execve", Workload: "getpid exit_group",
		Denied: []string{"1: oci-runtime getpgrp(111) errno 1 x1 [0 0 0 0 0 0] calls"},
	})
}

// TestRestart stops and continues a process in its call: the kernel restarts it by itself.
func TestRestart(t *testing.T) {
	needRoot(t)
	c := newContainer(t, false, nil, "seccomp", "plain", "restart", "39").record(Options{Denials: true, Filter: true}).goOn()
	pid := c.cmd.Process.Pid
	c.asleep("7")
	for range 3 {
		if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		var status unix.WaitStatus
		if _, err := unix.Wait4(pid, &status, unix.WUNTRACED, nil); err != nil || !status.Stopped() {
			t.Fatalf("wait for the stop: %v %v", status, err)
		}
		if err := unix.Kill(pid, unix.SIGCONT); err != nil {
			t.Fatal(err)
		}
		c.asleep("219")
	}
	c.in.Close()
	check(t, c.wait().collect(), result{Boundary: profile.BoundaryFilter, Runtime: "execve", Workload: "poll restart_syscall getpid exit_group"})
}

// waitFor polls what nobody tells.
func waitFor(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !is(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%s does not come", what)
		}
	}
}

// TestFifty records fifty containers at once, each of which makes a call of its own.
func TestFifty(t *testing.T) {
	needRoot(t)
	numbers, names := strings.Split(fdCalls, ","), strings.Fields(fdNames)
	var all []*container
	for _, nr := range numbers {
		all = append(all, newContainer(t, true, nil, "seccomp", "plain", "calls", nr).record(Options{Filter: true, Denials: true}))
	}
	if list, err := List(); err != nil || len(list) != len(all) {
		t.Errorf("List gives %d of %d recordings: %v", len(list), len(all), err)
	}
	for _, c := range all {
		c.goOn()
	}
	for i, c := range all {
		check(t, c.wait().collect(), result{Boundary: profile.BoundaryFilter, Runtime: "execve", Workload: names[i] + " exit_group"})
	}
}

// TestBeside lets two containers and a process that is not recorded fork as fast as they can: the kernel gives the stacks
// of their dead to each other's newborn, and each recording must have its own calls and no other.
func TestBeside(t *testing.T) {
	needRoot(t)
	run := func(list string) *container {
		return newContainer(t, true, nil, "seccomp", "plain", "forks", list, "4000")
	}
	a, b, c := run("39,40,1000").record(Options{Filter: true, Denials: true}), run("110,102,48").record(Options{Filter: true}), run("104,107,1001")
	for _, c := range []*container{a, b, c} {
		c.goOn()
	}
	want := result{Boundary: profile.BoundaryFilter, Runtime: "execve", Workload: "fork wait4 exit_group getpid sendfile", Unknown: "1000*1333"}
	check(t, a.wait().collect(), want)
	want.Workload, want.Unknown = "fork wait4 exit_group getppid getuid shutdown", ""
	check(t, b.wait().collect(), want)
	c.wait()
}

// TestLife goes through what can happen to a recording beside its end.
func TestLife(t *testing.T) {
	needRoot(t)
	want := result{Boundary: profile.BoundaryFilter, Runtime: "execve", Workload: "getpid exit_group"}
	c := newContainer(t, false, nil, "seccomp", "plain", "calls", "39")
	began := time.Now()
	o := Options{Filter: true, Output: "/nowhere", Header: profile.Recording{Workload: profile.Workload{Package: "p"}}}
	c.record(o)
	if err := Start(c.id, c.cmd.Process.Pid, Options{}); err != nil {
		t.Errorf("a second Start: %v", err)
	}
	if err := Start(c.id, os.Getpid(), Options{}); !errors.Is(err, ErrExists) {
		t.Errorf("a second Start with another pid: %v", err)
	}
	list, err := List()
	if err != nil {
		t.Fatal(err)
	}
	if len(list) == 1 && (time.Since(list[0].Armed) > time.Since(began)+time.Second || time.Now().Before(list[0].Armed)) {
		t.Errorf("armed at %v, by a Start after %v", list[0].Armed, began)
	}
	if diff := cmp.Diff([]Status{{ID: c.id, Pid: c.cmd.Process.Pid, State: Armed, Options: o}}, list, cmpopts.IgnoreFields(Status{}, "Armed")); diff != "" {
		t.Errorf("List (-want +got):\n%s", diff)
	}
	c.goOn().wait()
	if list, err := List(); err != nil || len(list) != 1 || list[0].State != Ended || !list[0].Started || list[0].Stale(0) {
		t.Errorf("after its end: %+v, %v", list, err)
	}
	r, err := Peek(c.id)
	if err != nil {
		t.Fatal(err)
	}
	check(t, summary(r), want)
	full := errors.New("disk full")
	if err := Collect(c.id, func(*profile.Recording) error { return full }); !errors.Is(err, full) {
		t.Errorf("Collect that cannot be kept: %v", err)
	}
	check(t, c.collect(), want)

	for name, err := range map[string]error{
		"Collect": Collect(c.id, func(*profile.Recording) error { t.Error("there is something to keep"); return nil }),
		"Abort":   Abort(c.id),
		"Peek":    func() error { _, err := Peek(c.id); return err }(),
	} {
		if !errors.Is(err, ErrNotRecording) {
			t.Errorf("%s of what is not recorded: %v", name, err)
		}
	}
	if err := Start("gone", 1<<22+1, Options{}); err == nil || !strings.Contains(err.Error(), "process 4194305") {
		t.Errorf("Start of a process that does not exist: %v", err)
	}
	big := Options{Output: strings.Repeat("x", int(recorderLimitsMETA_SIZE))}
	if err := Start(c.id, os.Getpid(), big); err == nil {
		t.Error("Start keeps more than there is room for")
	}
}

// TestReuse aborts a recording whose tasks live on and records another in its place; then the same process again.
func TestReuse(t *testing.T) {
	needRoot(t)
	want := result{Boundary: profile.BoundaryFilter, Runtime: "execve", Workload: "read getpid exit_group"}
	old := newContainer(t, true, nil, "seccomp", "plain", "await", "110,102").record(Options{Filter: true, Denials: true}).goOn()
	waitFor(t, "the old workload", func() bool {
		r, err := Peek(old.id)
		return err == nil && strings.Contains(summary(r).Workload, "read")
	})
	keeper := newContainer(t, true, nil, "seccomp", "plain", "await", "39").record(Options{Filter: true}).goOn()
	if err := Abort(old.id); err != nil {
		t.Fatal(err)
	}
	c := newContainer(t, true, nil, "seccomp", "plain", "await", "39").record(Options{Filter: true, Denials: true}).goOn()
	old.in.Close()
	old.wait()
	for _, c := range []*container{c, keeper} {
		c.in.Close()
		check(t, c.wait().collect(), want)
	}

	keeper = newContainer(t, true, nil, "seccomp", "plain", "await", "39").record(Options{Filter: true}).goOn()
	c = newContainer(t, true, nil, "seccomp", "twice", "calls", "39").record(Options{Filter: true})
	if _, err := c.in.Write([]byte("g")); err != nil {
		t.Fatal(err)
	}
	c.ready() // and so has made calls as a member
	if err := Abort(c.id); err != nil {
		t.Fatal(err)
	}
	check(t, c.record(Options{Filter: true}).goOn().wait().collect(), result{Boundary: profile.BoundaryFilter, Runtime: "execve", Workload: "getpid exit_group"})
	keeper.in.Close()
	check(t, keeper.wait().collect(), want)
}

// TestAlive collects a container with a task that lives on, which must show.
func TestAlive(t *testing.T) {
	needRoot(t)
	c := newContainer(t, true, nil, "seccomp", "plain", "daemon", "39").record(Options{Filter: true}).goOn()
	if _, err := c.cmd.Process.Wait(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the daemon", func() bool {
		r, err := Peek(c.id)
		return err == nil && strings.Contains(summary(r).Workload, "read")
	})
	check(t, c.collect(), result{
		Boundary: profile.BoundaryFilter, Runtime: "execve", Workload: "fork setsid read wait4 exit_group",
		Dropped: map[string]uint64{profile.DropAlive: 1},
	})
}

// TestWatch counts denials of one container, and not of another, without a call of bpf(2).
func TestWatch(t *testing.T) {
	needRoot(t)
	rules := []rule{{native, 39, errno(unix.EPERM)}}
	other := newContainer(t, true, nil, "seccomp", "plain", "calls", "39").record(Options{Denials: true, Filter: true})
	c := newContainer(t, true, nil, "seccomp", "plain", "await", "39,110,39").record(Options{Denials: true, Filter: true})
	denied, err := Watch(c.id)
	if err != nil {
		t.Fatal(err)
	}
	other.goOn(rules...).wait()
	if n := denied(); n != 0 {
		t.Errorf("%d calls look denied before the container has begun", n)
	}
	c.goOn(rules...)
	c.asleep("0")
	if _, err := c.in.Write([]byte{0}); err != nil {
		t.Fatal(err)
	}
	c.wait()
	if n := denied(); n != 2 {
		t.Errorf("%d calls look denied, want 2", n)
	}
	other.collect()
	c.collect()
	if n := denied(); n != 0 {
		t.Errorf("%d calls look denied after the recording was collected", n)
	}
}
