package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/profile"
	"github.com/seccompgen/seccompgen/test/lab"
)

const runsDir = lab.LibDir + "/runs"

// worldEnv tells the test binary that it is in its own world already, and names the directory for it.
const worldEnv = "SECCOMPGEN_E2E_WORLD"

// binDir holds the two programs under test, first in PATH.
var binDir string

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
		if lab.Root {
			return lab.Enter(worldEnv, dir)
		}
		fmt.Fprintln(os.Stderr, "e2e: not root: everything that runs a container is skipped")
	} else if err := world(dir); err != nil {
		return 1, fmt.Errorf("make a world of our own: %w", err)
	}
	binDir = filepath.Join(dir, "bin")
	if err := errors.Join(lab.Build(binDir), os.Setenv("PATH", binDir+":"+os.Getenv("PATH"))); err != nil {
		return 1, err
	}
	status := m.Run()
	if lab.Root {
		return status, checkClean()
	}
	return status, nil
}

func world(dir string) error {
	if err := lab.Seclude(dir); err != nil {
		return err
	}
	for isBPFFS() {
		if err := unix.Unmount(lab.BPFFSDir, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", lab.BPFFSDir, err)
		}
	}
	return nil
}

func isBPFFS() bool {
	var st unix.Statfs_t
	return unix.Statfs(lab.BPFFSDir, &st) == nil && st.Type == unix.BPF_FS_MAGIC
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
		pins, _ := filepath.Glob(lab.BPFFSDir + "/seccompgen/*/*")
		errs = append(errs, fmt.Errorf("%s is still mounted, with the pins %v", lab.BPFFSDir, pins))
	}
	return errors.Join(errs...)
}

// needRoot skips a test that runs containers or loads eBPF.
func needRoot(t testing.TB) {
	t.Helper()
	if !lab.Root {
		t.Skip("SKIPPED: containers and eBPF need root")
	}
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
	{"runc", func(t testing.TB) string { return lab.NeedTool(t, "runc") }},
	{"runc-1.5", func(t testing.TB) string {
		t.Helper()
		path := os.Getenv("SECCOMPGEN_RUNC15")
		if path == "" {
			path = filepath.Join(lab.Repo, "bin/runc")
		}
		if _, err := os.Stat(path); err != nil {
			t.Skipf("SKIPPED: no second runc: %v: make bin/runc, or set SECCOMPGEN_RUNC15", err)
		}
		return path
	}},
	{"crun", findCrun},
}

func findCrun(t testing.TB) string {
	t.Helper()
	return lab.FindCrun(t, binDir)
}

// busyboxRoot makes a root file system of a static busybox.
func busyboxRoot(t testing.TB) string {
	t.Helper()
	return lab.Busybox(t, "cat", "echo", "env", "head", "id", "ls", "sh", "sleep", "true")
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
