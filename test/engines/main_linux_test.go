package engines

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/profile"
	"github.com/seccompgen/seccompgen/test/lab"
	"github.com/seccompgen/seccompgen/tracer"
)

const (
	recordingsDir = lab.LibDir + "/recordings"
	worldEnv      = "SECCOMPGEN_ENGINES_WORLD"
)

var overlay = flag.Bool("engines.overlay", false, "keep containers in overlay file systems, in place of copies")

// driver is the storage driver of Podman and Docker.
func driver() string {
	if *overlay {
		return "overlay"
	}
	return "vfs"
}

// snapshotter is containerd's.
func snapshotter() string {
	if *overlay {
		return "overlayfs"
	}
	return "native"
}

var (
	worldDir string
	hookPath string // the built oci-hook
	toolPath string // the built seccompgen
)

func TestMain(m *testing.M) {
	status, err := testMain(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "engines:", err)
		status = max(status, 1)
	}
	os.Exit(status)
}

func testMain(m *testing.M) (int, error) {
	if !lab.Root {
		fmt.Fprintln(os.Stderr, "engines: SKIPPED: not root: no container is run")
		return 0, nil
	}
	worldDir = os.Getenv(worldEnv)
	if worldDir == "" {
		dir, err := os.MkdirTemp("", "sge-") // short: Podman wants runroot within 50 characters
		if err != nil {
			return 1, err
		}
		defer os.RemoveAll(dir)
		if err := os.Chmod(dir, 0o755); err != nil {
			return 1, err
		}
		return lab.Enter(worldEnv, dir)
	}
	err := lab.Seclude(worldDir)
	for _, dir := range []string{"/etc", "/usr/share/containers"} {
		if err == nil {
			err = private(dir, filepath.Join(worldDir, filepath.Base(dir)))
		}
	}
	if err == nil { // where seccompgen serve listens
		err = errors.Join(os.MkdirAll("/run/seccompgen", 0o755), unix.Mount("tmpfs", "/run/seccompgen", "tmpfs", 0, "mode=0755"))
	}
	if err == nil {
		// A bpffs that stays, as where systemd mounts it: crun's wrapper, see lab.FindCrun, would keep one of ours to itself.
		err = unix.Mount("bpf", lab.BPFFSDir, "bpf", 0, "mode=0700")
	}
	if err != nil {
		return 1, fmt.Errorf("make a world of our own: %w", err)
	}
	bin := filepath.Join(worldDir, "bin")
	if err := lab.Build(bin); err != nil {
		return 1, err
	}
	hookPath, toolPath = filepath.Join(bin, "oci-hook"), filepath.Join(bin, "seccompgen")
	status := m.Run()
	_ = unix.Unmount("/run/seccompgen", unix.MNT_DETACH)
	_ = os.Remove("/run/seccompgen") // the host's, if it is empty
	list, err := tracer.List()
	if err == nil && len(list) > 0 {
		err = fmt.Errorf("recordings are left: %+v", list)
	}
	return status, err
}

// private gives this world its own copy of a directory, if there is one: what engines read is set up there as on a host.
func private(dir, copied string) error {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if out, err := exec.Command("cp", "--archive", dir, copied).CombinedOutput(); err != nil {
		return fmt.Errorf("copy %s: %w: %s", dir, err, out)
	}
	return unix.Mount(copied, dir, "", unix.MS_BIND, "")
}

// rootFS makes a root file system: a static busybox, and calls, which makes the system calls that it is told to and no
// others.
func rootFS(t testing.TB) string {
	t.Helper()
	dir := lab.Busybox(t, "cat", "echo", "env", "id", "kill", "ls", "mkdir", "rmdir", "sh", "sleep", "sync", "true")
	lab.Calls(t, filepath.Join(dir, "bin/calls"))
	return dir
}

// goTest builds the test binary of a package of the standard library.
func goTest(t testing.TB, pkg, to string) {
	t.Helper()
	cmd := exec.Command("go", "test", "-c", "-o", to, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the tests of %s: %v\n%s", pkg, err, out)
	}
}

// result is what a finished command said.
type result struct {
	args           []string
	stdout, stderr string
	exit           int
}

func (r result) String() string {
	return fmt.Sprintf("%q: exit %d\nstdout:\n%s\nstderr:\n%s", r.args, r.exit, r.stdout, r.stderr)
}

func run(t testing.TB, name string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		t.Errorf("%q: %v", cmd.Args, err)
	}
	if ctx.Err() != nil {
		t.Errorf("%q hung", cmd.Args)
	}
	return result{args, stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// hooksDir is where `seccompgen install podman` puts its files.
const hooksDir = "/etc/containers/oci/hooks.d"

// install registers the hook with an engine until the test ends; what it found is there again then.
func install(t testing.TB, engine string) {
	t.Helper()
	before := files(t)
	if r := run(t, toolPath, "install", engine); r.exit != 0 {
		t.Fatal(r)
	}
	t.Cleanup(func() {
		if r := run(t, toolPath, "uninstall", engine); r.exit != 0 {
			t.Error(r)
		}
		if diff := cmp.Diff(before, files(t)); diff != "" {
			t.Errorf("uninstall %s leaves %s", engine, diff)
		}
	})
}

// files returns all that install may touch, directories too.
func files(t testing.TB) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, dir := range []string{"/etc/containers", "/etc/docker", "/usr/share/containers"} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if path == "/etc/docker/key.json" { // dockerd makes it when it starts for the first time
				return err
			}
			if err != nil || !d.Type().IsRegular() {
				all[path] = "no file"
				return err
			}
			data, err := os.ReadFile(path)
			all[path] = string(data)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// edit changes a file that install wrote, until the test ends.
func edit(t testing.TB, path, from, to string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(data), from, to, 1)
	if text == string(data) {
		t.Fatalf("%s has no %s: %s", path, from, data)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// processes returns the pids of those that live and whose status line and command line are as wanted.
func processes(wanted func(stat []string, cmdline string) bool) []int {
	var pids []int
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		stat, err := os.ReadFile(filepath.Join(dir, "stat"))
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(stat), ") ") // state, parent, process group
		fields := strings.Fields(rest)
		cmdline, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil && len(fields) > 3 && fields[0] != "Z" && wanted(fields, string(cmdline)) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// livesIn reports whether a process group has a process that lives: nobody may be there to reap those that do not.
func livesIn(group int) bool {
	return len(processes(func(stat []string, _ string) bool { return stat[2] == strconv.Itoa(group) })) > 0
}

// clearTree removes a directory of an engine's, whatever a failed test left in it.
func clearTree(t testing.TB, dir string) {
	for _, pid := range processes(func(_ []string, cmdline string) bool { return strings.Contains(cmdline, dir) }) {
		t.Logf("killing what is left: %d", pid)
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		t.Error(err)
	}
	for _, m := range slices.Backward(mounts) {
		_ = unix.Unmount(m.Mountpoint, unix.MNT_DETACH)
	}
	wait(t, "the end of "+dir, func() bool { return os.RemoveAll(dir) == nil })
}

func removeCgroups(names ...string) {
	for _, name := range names {
		groups, _ := filepath.Glob("/sys/fs/cgroup/*/" + name)
		for _, dir := range groups {
			_ = unix.Rmdir(dir) // not if others have something in it
		}
	}
}

// wait waits until a condition holds: poststop may come after podman run has returned.
func wait(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// recordings returns the files of recordings whose name begins so, once there are n of them.
func recordings(t testing.TB, prefix string, n int) []string {
	t.Helper()
	var files []string
	wait(t, fmt.Sprintf("%d recordings %s*", n, prefix), func() bool {
		files, _ = filepath.Glob(filepath.Join(recordingsDir, prefix+"*"))
		return len(files) >= n
	})
	if len(files) != n {
		t.Fatalf("want %d recordings %s*, there are %q", n, prefix, files)
	}
	return files
}

// withRuns returns a recording once it holds n runs.
func withRuns(t testing.TB, path string, n int) *profile.Recording {
	t.Helper()
	var r *profile.Recording
	wait(t, fmt.Sprintf("%d runs in %s", n, path), func() bool {
		if _, err := os.Stat(path); err != nil {
			return false
		}
		r = lab.ReadRecording(t, path)
		return len(r.Runs) >= n
	})
	if len(r.Runs) != n {
		t.Fatalf("%s holds %d runs, want %d", path, len(r.Runs), n)
	}
	return r
}

// names returns the names of a recording's calls in some phases.
func names(r *profile.Recording, phases ...profile.Phase) []string {
	var all []string
	for _, s := range r.Syscalls {
		if slices.Contains(phases, s.Phase) && s.Denied == nil {
			all = append(all, s.Name)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// denied returns the calls that a recorded container was refused.
func denied(r *profile.Recording) []string {
	var all []string
	for _, s := range r.Syscalls {
		if s.Denied != nil {
			all = append(all, s.Name)
		}
	}
	return all
}

// noNewDenials checks that runs under a profile were refused nothing but what the recorded run was refused too.
func noNewDenials(t testing.TB, first *profile.Recording, prefix string, n int) {
	t.Helper()
	for _, path := range recordings(t, prefix, n) {
		r := lab.ReadRecording(t, path)
		for _, name := range denied(r) {
			if !slices.Contains(denied(first), name) {
				t.Errorf("%s was refused under the profile", name)
			}
		}
		if !r.Complete {
			t.Errorf("%s: %v", path, r.Dropped)
		}
	}
}

// allowed returns the names that a profile's file allows.
func allowed(t testing.TB, path string) []string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var p struct {
		Syscalls []struct {
			Names  []string
			Action string
		}
	}
	if err := json.Unmarshal(data, &p); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	var all []string
	for _, s := range p.Syscalls {
		if s.Action == "SCMP_ACT_ALLOW" {
			all = append(all, s.Names...)
		}
	}
	slices.Sort(all)
	return all
}

// noRecordings fails the test if anything is recorded, or was.
func noRecordings(t testing.TB) {
	t.Helper()
	files, err := os.ReadDir(recordingsDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	list, err := tracer.List()
	if err != nil || len(list) > 0 || len(files) > 0 {
		t.Errorf("recordings: %v, under way: %+v, %v", files, list, err)
	}
}

// clearRecordings removes the recordings of earlier tests.
func clearRecordings(t testing.TB) {
	t.Helper()
	if err := os.RemoveAll(recordingsDir); err != nil {
		t.Fatal(err)
	}
}

// runtimes are those under test.
var runtimes = []struct {
	name string
	find func(testing.TB) string
}{
	{"runc", func(t testing.TB) string { return lab.NeedTool(t, "runc") }},
	{"crun", func(t testing.TB) string { return lab.FindCrun(t, filepath.Join(worldDir, "bin")) }},
}

func eachRuntime(t *testing.T, test func(t *testing.T, runtime string)) {
	for _, r := range runtimes {
		t.Run(r.name, func(t *testing.T) {
			path := r.find(t)
			clearRecordings(t)
			test(t, path)
		})
	}
}

// contains reports whether one of several texts has a part.
func contains(part string, texts ...string) bool {
	return slices.ContainsFunc(texts, func(s string) bool { return strings.Contains(s, part) })
}
