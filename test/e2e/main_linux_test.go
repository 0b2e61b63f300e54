package e2e

import (
	"bufio"
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/profile"
)

// Where the tool keeps things on the host. The tests see private ones, see world.
const (
	libDir   = "/var/lib/seccompgen"
	runsDir  = libDir + "/runs"
	bpffsDir = "/sys/fs/bpf"
)

// worldEnv tells the test binary that it is in its own world already, and names the directory for it.
const worldEnv = "SECCOMPGEN_E2E_WORLD"

// binDir holds the two programs under test, first in PATH.
var binDir string

var (
	root = os.Geteuid() == 0
	repo = func() string {
		dir, err := filepath.Abs("../..")
		if err != nil {
			panic(err)
		}
		return dir
	}()
)

func TestMain(m *testing.M) {
	status, err := testMain(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		status = max(status, 1)
	}
	os.Exit(status)
}

func testMain(m *testing.M) (int, error) {
	dir := os.Getenv(worldEnv)
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp("", "seccompgen-e2e-"); err != nil {
			return 1, err
		}
		defer os.RemoveAll(dir)
		if err := os.Chmod(dir, 0o755); err != nil { // scripts run the programs as nobody too
			return 1, err
		}
		if root {
			return enterWorld(dir)
		}
		fmt.Fprintln(os.Stderr, "e2e: not root: everything that runs a container is skipped")
	} else if err := world(dir); err != nil {
		return 1, fmt.Errorf("make a world of our own: %w", err)
	}
	if err := buildPrograms(dir); err != nil {
		return 1, err
	}
	status := m.Run()
	if root {
		return status, checkClean()
	}
	return status, nil
}

// enterWorld runs this test binary again in a mount namespace of its own.
func enterWorld(dir string) (int, error) {
	runtime.LockOSThread() // Pdeathsig is about the thread
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), worldEnv+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return max(exit.ExitCode(), 1), nil
	}
	return 0, err
}

func world(dir string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	for isBPFFS() {
		if err := unix.Unmount(bpffsDir, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", bpffsDir, err)
		}
	}
	lib := filepath.Join(dir, "lib")
	if err := errors.Join(os.MkdirAll(libDir, 0o711), os.Mkdir(lib, 0o711)); err != nil {
		return err
	}
	return unix.Mount(lib, libDir, "", unix.MS_BIND, "")
}

func isBPFFS() bool {
	var st unix.Statfs_t
	return unix.Statfs(bpffsDir, &st) == nil && st.Type == unix.BPF_FS_MAGIC
}

func buildPrograms(dir string) error {
	binDir = filepath.Join(dir, "bin")
	for name, build := range map[string]struct{ pkg, tags, cgo string }{"seccompgen": {"seccompgen", "seccomp", "1"}, "oci-hook": {"oci-hook", "", "0"}, "seccompgen-runc": {"oci-runtime", "", "0"}} {
		cmd := exec.Command("go", "build", "-tags", build.tags, "-o", filepath.Join(binDir, name), "./cmd/"+build.pkg)
		cmd.Dir, cmd.Env = repo, append(os.Environ(), "CGO_ENABLED="+build.cgo, "GOFLAGS=")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
	}
	return os.Setenv("PATH", binDir+":"+os.Getenv("PATH"))
}

// checkClean says what the tests' runs left behind in their world.
func checkClean() error {
	var errs []error
	if entries, err := os.ReadDir(runsDir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	} else if len(entries) > 0 {
		errs = append(errs, fmt.Errorf("%s still holds %v", runsDir, entries))
	}
	if isBPFFS() {
		pins, _ := filepath.Glob(bpffsDir + "/seccompgen/*/*")
		errs = append(errs, fmt.Errorf("%s is still mounted, with the pins %v", bpffsDir, pins))
	}
	return errors.Join(errs...)
}

// needRoot skips a test that runs containers or loads eBPF.
func needRoot(t testing.TB) {
	t.Helper()
	if !root {
		t.Skip("SKIPPED: containers and eBPF need root")
	}
}

// needTool skips a test whose tool is not installed.
func needTool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("SKIPPED: %v", err)
	}
	return path
}

// result is what a finished command said.
type result struct {
	stdout, stderr string
	exit           int
}

func (r result) String() string {
	return fmt.Sprintf("exit %d\nstdout:\n%s\nstderr:\n%s", r.exit, r.stdout, r.stderr)
}

// command makes a command of seccompgen that ends with the test at the latest.
func command(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, filepath.Join(binDir, "seccompgen"), args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	return cmd
}

// finish runs a command to its end.
func finish(t testing.TB, cmd *exec.Cmd) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%q: %v", cmd.Args, err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// seccompgen runs the tool, and fails the test unless its exit status is the one expected.
func seccompgen(t testing.TB, exit int, args ...string) result {
	t.Helper()
	return expect(t, exit, command(t, args...))
}

func expect(t testing.TB, exit int, cmd *exec.Cmd) result {
	t.Helper()
	r := finish(t, cmd)
	if r.exit != exit {
		t.Fatalf("seccompgen %q: want exit status %d\n%s", cmd.Args[1:], exit, r)
	}
	return r
}

func readRecording(t testing.TB, path string) *profile.Recording {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := profile.ReadRecording(f)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return r
}

// calls lists a recording's calls of some phases, as "SCMP_ARCH_X86_64 39 getpid", sorted.
func calls(r *profile.Recording, phases ...profile.Phase) []string {
	list := []string{}
	for _, s := range r.Syscalls {
		if slices.Contains(phases, s.Phase) {
			list = append(list, fmt.Sprintf("%s %d %s", s.ABI, s.Nr, s.Name))
		}
	}
	for _, u := range r.Unknown {
		list = append(list, fmt.Sprintf("%s %d ", u.ABI, u.Nr))
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// status is what status --json prints, as far as it is of interest here.
type status struct {
	Recordings []struct {
		ID    string `json:"id"`
		Pid   int    `json:"pid"`
		State string `json:"state"`
	} `json:"recordings"`
	Leftovers []struct{ ID, Dir, Runtime string } `json:"leftovers"`
}

func readStatus(t testing.TB) *status {
	t.Helper()
	s := &status{}
	if err := json.Unmarshal([]byte(seccompgen(t, 0, "status", "--json").stdout), s); err != nil {
		t.Fatal(err)
	}
	return s
}

// nothingLeft fails a test after whose runs something stays. Only tests that do not run in parallel may ask.
func nothingLeft(t testing.TB, ids ...string) {
	t.Helper()
	if s := readStatus(t); len(s.Recordings)+len(s.Leftovers) > 0 {
		t.Errorf("status still shows %+v", s)
	}
	if err := checkClean(); err != nil {
		t.Error(err)
	}
	for _, id := range ids {
		if found := cgroups(t, id); len(found) > 0 {
			t.Errorf("cgroups of %s are left: %q", id, found)
		}
		mounts, err := filepath.Glob("/proc/[0-9]*/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range mounts {
			if data, _ := os.ReadFile(path); bytes.Contains(data, []byte(id)) { // processes end meanwhile
				t.Errorf("%s has mounts of %s", path, id)
			}
		}
	}
}

func cgroups(t testing.TB, id string) (found []string) {
	t.Helper()
	err := filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // others' come and go
			return nil
		case err != nil:
			return err
		case d.IsDir() && d.Name() == id:
			found = append(found, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// ociRuntimes returns the runtimes under test by name. A test of one that is not there is skipped.
var ociRuntimes = []struct {
	name string
	find func(testing.TB) string
}{
	{"runc", func(t testing.TB) string { return needTool(t, "runc") }},
	{"runc-1.5", func(t testing.TB) string {
		t.Helper()
		path := os.Getenv("SECCOMPGEN_RUNC15")
		if path == "" {
			path = filepath.Join(repo, "bin/runc")
		}
		if _, err := os.Stat(path); err != nil {
			t.Skipf("SKIPPED: no second runc: %v: make bin/runc, or set SECCOMPGEN_RUNC15", err)
		}
		return path
	}},
	{"crun", findCrun},
}

var crunWrapper sync.Once

// findCrun returns crun, or, where cgroup v2 is mounted beside v1, a wrapper that hides v2: crun 1.8.1 refuses the two
// together.
func findCrun(t testing.TB) string {
	t.Helper()
	crun := needTool(t, "crun")
	const unified = "/sys/fs/cgroup/unified"
	var st unix.Statfs_t
	if err := unix.Statfs(unified, &st); err != nil || st.Type != unix.CGROUP2_SUPER_MAGIC {
		return crun
	}
	path := filepath.Join(binDir, "crun-nohybrid")
	crunWrapper.Do(func() {
		script := "#!/bin/sh\nexec unshare -m --propagation private sh -c 'mount -t tmpfs none " + unified + " && exec " + crun + " \"$@\"' crun \"$@\"\n"
		if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	})
	return path
}

// busyboxRoot makes a root file system of a static busybox.
func busyboxRoot(t testing.TB) string {
	t.Helper()
	busybox := needTool(t, "busybox")
	if !isStatic(busybox) {
		t.Skipf("SKIPPED: %s is not static: apt-get install busybox-static", busybox)
	}
	dir := t.TempDir()
	copyFile(t, busybox, filepath.Join(dir, "bin/busybox"))
	for _, name := range []string{"cat", "echo", "env", "head", "id", "ls", "sh", "sleep", "true"} {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func isStatic(path string) bool {
	f, err := elf.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	return !slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, data, 0o755)); err != nil {
		t.Fatal(err)
	}
}

// callsProgram builds testdata/calls/calls.c, which makes the calls that it is told to and no others.
func callsProgram(t testing.TB, to string) {
	t.Helper()
	gcc := needTool(t, "gcc")
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), gcc, "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-fno-builtin", "-O1",
		"-o", to, filepath.Join(repo, "testdata/calls/calls.c"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build calls.c: %v\n%s", err, out)
	}
}

// module writes a Go module and returns its directory. Files are given as name, text, name, text.
func module(t testing.TB, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i := 0; i < len(files); i += 2 {
		if err := os.WriteFile(filepath.Join(dir, files[i]), []byte(files[i+1]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module example.com/tiny\n\ngo 1.26\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// running is a seccompgen whose container has said a word.
type running struct {
	cmd    *exec.Cmd
	stderr *lines
}

// start starts seccompgen and waits until the workload, or whoever, has printed the word on a line of its own.
func start(t testing.TB, word string, args ...string) *running {
	t.Helper()
	return startCommand(t, word, command(t, args...))
}

func startCommand(t testing.TB, word string, cmd *exec.Cmd) *running {
	t.Helper()
	r := &running{cmd: cmd, stderr: newLines()}
	r.cmd.Stdout = io.Discard
	r.cmd.Stderr = r.stderr
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if r.cmd.ProcessState == nil {
			_ = r.cmd.Process.Kill()
			_ = r.cmd.Wait()
		}
	})
	if word != "" && !r.stderr.await(t.Context(), word) {
		t.Fatalf("seccompgen never printed %q:\n%s", word, r.stderr)
	}
	return r
}

// wait waits for the end, and returns the exit status and standard error.
func (r *running) wait(t testing.TB) result {
	t.Helper()
	err := r.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{stderr: r.stderr.String(), exit: r.cmd.ProcessState.ExitCode()}
}

// lines keeps what is written, and tells when a line has come.
type lines struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	more chan struct{}
}

func newLines() *lines { return &lines{more: make(chan struct{}, 1)} }

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case l.more <- struct{}{}:
	default:
	}
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *lines) await(ctx context.Context, word string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		for s := bufio.NewScanner(strings.NewReader(l.String())); s.Scan(); {
			if s.Text() == word {
				return true
			}
		}
		select {
		case <-l.more:
		case <-ctx.Done():
			return false
		}
	}
}
