//go:build amd64

package tracer

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/profile"
)

// rerun returns a command that runs one test of this binary in another process, in the same namespaces.
func rerun(t *testing.T, role, test string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+test+"$", "-test.count=1", "-test.timeout=60s", "-test.v")
	cmd.Env = append(os.Environ(), roleEnv+"="+role, "TRACER_TEST_CALLS="+program(t))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL, Setpgid: true}
	return cmd
}

// TestWorker is not a test of its own: [TestConcurrent] and others run it as other processes.
func TestWorker(t *testing.T) {
	switch os.Getenv(roleEnv) {
	case "worker":
		for range 10 {
			exact(t)
		}
	case "victim":
		for {
			exact(t)
		}
	case "stray":
		hostProcess = os.Getppid()
		c := newContainer(t, true, nil, "none", "plain", "calls", "39")
		if err := Start(c.id, c.cmd.Process.Pid, Options{}); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "mount it on the host") {
			t.Errorf("want a refusal, got %v", err)
		}
		if mounted, err := isBPFFS(); err != nil || mounted {
			t.Errorf("bpffs is mounted: %v, %v", mounted, err)
		}
		// Who says that all its hooks run here, or finds a bpffs, records.
		hold, err := Hold()
		if err != nil {
			t.Fatal(err)
		}
		exact(t)
		if err := hold.Close(); err != nil {
			t.Error(err)
		}
	default: // not a test: runs as another process, see TestConcurrent
	}
}

// exact records a container whose calls are known.
func exact(t *testing.T) {
	t.Helper()
	c := newContainer(t, true, nil, "seccomp", "plain", "forks", "39,110,102", "6")
	c.record(Options{Filter: true, Denials: true}).goOn(rule{native, 102, errno(unix.EPERM)}).wait()
	r := c.collect()
	for i := range r.Denied {
		r.Denied[i], _, _ = strings.Cut(r.Denied[i], " [")
	}
	check(t, r, result{
		Boundary: profile.BoundaryFilter, Runtime: "execve", Workload: "fork wait4 getpid getppid exit_group",
		Denied: []string{"1: workload getuid(102) errno 1 x2"},
	})
}

// TestOwnMountNamespace starts where the hook that collects would not see the pins.
func TestOwnMountNamespace(t *testing.T) {
	needRoot(t)
	cmd := rerun(t, "stray", "TestWorker")
	cmd.SysProcAttr.Unshareflags = unix.CLONE_NEWNS
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestWorker") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestConcurrent starts and collects in twenty processes at once. All of them load, or find loaded, the same set, and
// the last one takes it away.
func TestConcurrent(t *testing.T) {
	needRoot(t)
	var workers []*exec.Cmd
	var outs []*bytes.Buffer
	for range 20 {
		cmd, out := rerun(t, "worker", "TestWorker"), new(bytes.Buffer)
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		workers, outs = append(workers, cmd), append(outs, out)
	}
	for i, cmd := range workers {
		if err := cmd.Wait(); err != nil || !strings.Contains(outs[i].String(), "--- PASS: TestWorker") {
			t.Errorf("worker %d: %v\n%s", i, err, outs[i])
		}
	}
}

// TestKilled kills processes in the middle of what they do, ever later: whatever they leave behind, the next process
// records exactly, and takes all of it away. Cold, each of them loads the programs; warm, another recording keeps them.
func TestKilled(t *testing.T) {
	needRoot(t)
	for _, warm := range []bool{false, true} {
		t.Run(fmt.Sprintf("warm=%v", warm), func(t *testing.T) {
			var keeper *container
			if warm {
				keeper = newContainer(t, true, nil, "none", "plain", "await", "").record(Options{}).goOn()
			}
			began := time.Now()
			exact(t)
			span := 2 * time.Since(began)
			left := map[string]int{}
			const kills = 50
			for i := range kills {
				kill(t, span*time.Duration(i)/kills)
				pins, err := filepath.Glob(bpffs + "/*/*")
				if err != nil {
					t.Fatal(err)
				}
				for _, p := range pins {
					left[filepath.Ext(strings.Replace(p, "_", ".", 1))]++
				}
				exact(t)
				list, err := List()
				if err != nil {
					t.Fatal(err)
				}
				for _, st := range list {
					if warm && st.ID == keeper.id {
						continue
					}
					left["recording"]++
					if err := Abort(st.ID); err != nil {
						t.Error(err)
					}
				}
				if mounted, err := isBPFFS(); mounted != warm || err != nil {
					t.Fatalf("after kill %d, bpffs is mounted: %v %v", i, mounted, err)
				}
			}
			t.Logf("found, after %d kills within %v: %d whole sets, %d half-made sets, %d recordings", kills, span, left[""], left[".new"], left["recording"])
			if left["recording"]+left[".new"] == 0 {
				t.Error("no kill came in the middle of anything")
			}
			if warm {
				keeper.in.Close()
				check(t, keeper.wait().collect(), result{Boundary: profile.BoundaryExecve, Workload: "read exit_group"})
			}
		})
	}
}

// kill lets a process record, again and again, for some time.
func kill(t *testing.T, after time.Duration) {
	t.Helper()
	cmd := rerun(t, "victim", "TestWorker")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := readLine(out); err != nil || !strings.Contains(line, "RUN") {
		t.Fatalf("the victim does not begin: %q %v", line, err)
	}
	time.AfterFunc(after, func() { unix.Kill(-cmd.Process.Pid, unix.SIGKILL) })
	if err := cmd.Wait(); err == nil {
		t.Fatal("the victim ended by itself")
	}
}

// TestFull starts more recordings than there is room for.
func TestFull(t *testing.T) {
	needRoot(t)
	c := newContainer(t, true, nil, "seccomp", "plain", "calls", "39")
	for i := range int(recorderLimitsMAX_SLOTS) {
		if err := Start(fmt.Sprint(c.id, i), c.cmd.Process.Pid, Options{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := Start(c.id, c.cmd.Process.Pid, Options{}); !errors.Is(err, ErrFull) {
		t.Errorf("Start without room: %v", err)
	}
	if err := Abort(fmt.Sprint(c.id, 17)); err != nil {
		t.Fatal(err)
	}
	check(t, c.record(Options{Filter: true}).goOn().wait().collect(), result{Boundary: profile.BoundaryFilter, Runtime: "execve", Workload: "getpid exit_group"})
	if err := AbortAll(); err != nil {
		t.Error(err)
	}
}

// TestHalfMade finds the pins of processes that were killed while they made them.
func TestHalfMade(t *testing.T) {
	needRoot(t)
	hold, err := Hold()
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{pinDir(), pinDir() + halfMade} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		exact(t)
		if _, err := os.Stat(pinRoot); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", pinRoot, err)
		}
	}
	if err := hold.Close(); err != nil {
		t.Error(err)
	}
}

// TestForeignMount leaves alone what others have mounted and pinned.
func TestForeignMount(t *testing.T) {
	needRoot(t)
	if err := unix.Mount("bpffs", bpffs, "bpf", 0, "mode=0700"); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(pinRoot, "0123456789ab") // another build's
	if err := os.MkdirAll(other, 0o700); err != nil {
		t.Fatal(err)
	}
	exact(t)
	if _, err := os.Stat(other); err != nil {
		t.Errorf("the pins of another build: %v", err)
	}
	if others, err := Others(); err != nil || len(others) != 1 || others[0] != filepath.Base(other) {
		t.Errorf("other builds: %v, %v", others, err)
	}
	if err := AbortAll(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(pinRoot); !os.IsNotExist(err) {
		t.Errorf("AbortAll leaves %s: %v", pinRoot, err)
	}
	if err := unix.Unmount(bpffs, 0); err != nil {
		t.Errorf("unmount our own bpffs: %v", err)
	}
}

// TestForeignMountOverOurs leaves alone what others have mounted over a bpffs that Start had mounted, as in a mount
// namespace that was made during a recording of the host's.
func TestForeignMountOverOurs(t *testing.T) {
	needRoot(t)
	for _, source := range []string{mountedBy, "others"} {
		if err := unix.Mount(source, bpffs, "bpf", 0, "mode=0700"); err != nil {
			t.Fatal(err)
		}
	}
	exact(t)
	for _, whose := range []string{"others'", "ours"} {
		if err := unix.Unmount(bpffs, 0); err != nil {
			t.Errorf("unmount %s: %v", whose, err)
		}
	}
}

// TestStrangersLock: no other user can make a hook wait.
func TestStrangersLock(t *testing.T) {
	needRoot(t)
	if _, err := List(); err != nil { // makes the lock
		t.Fatal(err)
	}
	for _, path := range []string{lockFile, filepath.Dir(lockFile), bpffs, filepath.Dir(bpffs)} {
		cmd := exec.Command("flock", "--exclusive", "--nonblock", path, "sh", "-c", "echo locked; cat")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}, Pdeathsig: syscall.SIGKILL}
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		word := make([]byte, 16)
		n, _ := stdout.Read(word) // nothing where it may not
		if path == lockFile && n > 0 {
			t.Errorf("another user can lock %s", path)
		}
		listed := make(chan error, 1)
		go func() { _, err := List(); listed <- err }()
		select {
		case err := <-listed:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(20 * time.Second):
			t.Errorf("a user who locks %s makes us wait", path)
		}
		stdin.Close()
		_ = cmd.Wait()
	}
}

// TestAgainstStrace lets strace watch the same run of programs that nobody has written for it.
func TestAgainstStrace(t *testing.T) {
	needRoot(t)
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("NOT TESTED: strace is not installed")
	}
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string][]string{
		"ls":    {"/bin/ls", "-lR", "/etc"},
		"shell": {"/bin/sh", "-c", "for i in 1 2 3; do ls / | sort | cat & done; wait; (cd /tmp; umask); echo $(date)"},
		"perl":  {"/usr/bin/perl", "-e", "use Socket; socketpair(A, B, AF_UNIX, SOCK_STREAM, 0); fork // die; $SIG{ALRM} = sub { exit }; alarm 1; sleep 5"},
		"go":    {goTool, "env"}, // threads, signals between them
	}
	for name, args := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := os.Stat(args[0]); err != nil {
				t.Skipf("NOT TESTED: %v", err)
			}
			c := newContainer(t, false, nil, append([]string{"seccomp", "plain", "exec"}, args...)...)
			log := filepath.Join(t.TempDir(), "strace")
			strace := exec.Command("strace", "-f", "-o", log, "-p", fmt.Sprint(c.cmd.Process.Pid))
			said, err := strace.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := strace.Start(); err != nil {
				t.Fatal(err)
			}
			if line, err := readLine(said); err != nil || !strings.Contains(line, "attached") {
				t.Skipf("NOT TESTED: strace does not attach: %q %v", line, err)
			}
			c.asleep("0")
			c.record(Options{Filter: true, Denials: true}).goOn()
			go discard(c.out)
			if err := strace.Wait(); err != nil {
				t.Fatal(err)
			}
			r := c.wait().collect()
			text, err := os.ReadFile(log)
			if err != nil {
				t.Fatal(err)
			}
			must, may := straced(string(text))
			for name := range strings.FieldsSeq(r.Workload) {
				if slices.Contains(may, name) {
					must = append(must, name)
				}
			}
			slices.Sort(must)
			want := result{Boundary: profile.BoundaryFilter, Runtime: "execve", Workload: strings.Join(slices.Compact(must), " ")}
			check(t, r, want)
			if n := len(strings.Fields(r.Workload)); n < 20 {
				t.Errorf("only %d calls: %s", n, r.Workload)
			}
		})
	}
}

func readLine(from interface{ Read([]byte) (int, error) }) (string, error) {
	var line []byte
	for b := make([]byte, 1); ; {
		if n, err := from.Read(b); n == 0 || b[0] == '\n' {
			return string(line), err
		}
		line = append(line, b[0])
	}
}

func discard(f *os.File) {
	for b := make([]byte, 4096); ; {
		if _, err := f.Read(b); err != nil {
			return
		}
	}
}

var straceLine = regexp.MustCompile(`(?m)^\d+ +(?:<\.\.\. )?([a-z_0-9]+)(?:\(| resumed).*$`)

// straced returns the calls of the workload in strace's words: those after the execve of the init. Without a result
// stand calls that threads were killed in, and also those that they were killed before: they may be recorded.
func straced(log string) (must, may []string) {
	_, log, _ = strings.Cut(log, "execve(")
	_, log, _ = strings.Cut(log, "\n")
	for _, m := range straceLine.FindAllStringSubmatch(log, -1) {
		line, name := m[0], m[1]
		switch {
		case strings.HasSuffix(line, "<unfinished ...>"):
		case strings.HasSuffix(line, " = ?") && !strings.HasPrefix(name, "exit"):
			may = append(may, name)
		default:
			must = append(must, name)
		}
	}
	return must, may
}

// TestNamed checks the bits that tell the kernel side which numbers have a name.
func TestNamed(t *testing.T) {
	bits := named()
	has := func(abi int, nr uint32) bool {
		return bits[uint32(abi)*uint32(recorderLimitsNR_WORDS)+nr/64]>>(nr%64)&1 == 1
	}
	type key struct {
		ABI int
		Nr  uint32
	}
	got := map[key]bool{}
	want := map[key]bool{{0, 0}: true, {0, 59}: true, {0, 1000}: false, {1, 11}: true, {1, 1000}: false, {2, 512}: true, {0, 512}: false}
	for k := range want {
		got[k] = has(k.ABI, k.Nr)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("named (-want +got):\n%s", diff)
	}
}
