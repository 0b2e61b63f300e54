package bundle

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestOpenRefuses(t *testing.T) {
	const rest = `"linux":{}}`
	for name, c := range map[string]struct{ config, want string }{
		"no config.json": {"", "read the bundle"},
		"no JSON":        {"{", "decode"},
		"no process":     {`{"root":{"path":"r"},` + rest, "no process.args"},
		"no root":        {`{"process":{"args":["x"]},` + rest, "no root.path"},
		"no linux":       {`{"process":{"args":["x"]},"root":{"path":"r"}}`, "no linux section"},
		"terminal":       {`{"process":{"args":["x"],"terminal":true},"root":{"path":"r"},` + rest, "process.terminal is true"},
		"root missing":   {`{"process":{"args":["x"]},"root":{"path":"gone"},` + rest, "no such file"},
		"root a file":    {`{"process":{"args":["x"]},"root":{"path":"config.json"},` + rest, "not a directory"},
	} {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "r"), 0o755); err != nil {
			t.Fatal(err)
		}
		if c.config != "" {
			if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(c.config), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Open(dir, Options{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, c.want)
		}
	}
}

func TestOptions(t *testing.T) {
	for name, c := range map[string]struct {
		o    Options
		want string
	}{
		"env":            {Options{Env: []string{"NOVALUE"}}, "NAME=VALUE"},
		"mount":          {Options{Mounts: []string{"/tmp"}}, "SRC:DST[:ro]"},
		"mount relative": {Options{Mounts: []string{"/tmp:tmp"}}, "absolute DST"},
		"mount nothing":  {Options{Mounts: []string{"/does/not/exist:/x"}}, "no such file"},
		"user":           {Options{User: "nobody"}, "UID[:GID]"},
		"user too large": {Options{User: "4294967296"}, "UID[:GID]"},
		"network":        {Options{Network: "bridge"}, `network "bridge"`},
		"rootfs":         {Options{Rootfs: "/etc/passwd"}, "not a directory"},
	} {
		if _, err := Command([]string{"/bin/true"}, c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, c.want)
		}
	}
	b, err := Command([]string{"true"}, Options{Env: []string{"A=b,c"}, Mounts: []string{"/tmp:/x:ro"}, User: "5:6", Network: "host", NoNewPrivileges: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := b.Spec.Process.Env[len(b.Spec.Process.Env)-1]; got != "A=b,c" {
		t.Errorf("environment ends with %q", got)
	}
	if m := b.Spec.Mounts[len(b.Spec.Mounts)-1]; m.Source != "/tmp" || m.Destination != "/x" || m.Options[1] != "ro" {
		t.Errorf("mount is %+v", m)
	}
	for _, n := range b.Spec.Linux.Namespaces {
		if n.Type == "network" {
			t.Error("--network host has a network namespace")
		}
	}
	if b.Workload.User != "5:6" || len(b.Workload.SHA256) != 64 || !b.Spec.Process.NoNewPrivileges || !filepath.IsAbs(b.Workload.Args[0]) {
		t.Errorf("workload is %+v", b.Workload)
	}
}

func TestTestFlags(t *testing.T) {
	got := TestFlags([]string{"-short", "--run", "TestA|TestB", "-run=X", "-test.v", "-custom", "-count=1", "-args", "-short"})
	// What follows -args is the test's own, and comes through as it is.
	want := []string{"-test.short", "-test.run", "TestA|TestB", "-test.run=X", "-test.v", "-custom", "-test.count=1", "-short"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestPackageRefuses(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for path, text := range map[string]string{
		"go.mod": "module example.com/m\ngo 1.26\n", "broken/x_test.go": "package broken\nfunc", "none/x.go": "package none\n",
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for pkg, want := range map[string]string{"./broken": "build the tests", "./none": "no tests", "./gone": "go list", "./...": "several packages"} {
		if _, err := Package(context.Background(), pkg, nil, t.TempDir(), Options{}, &strings.Builder{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error with %q", pkg, err, want)
		}
	}
	if _, err := Package(context.Background(), ".", nil, dir, Options{Rootfs: "/"}, nil); err == nil || !strings.Contains(err.Error(), "leave out --rootfs") {
		t.Errorf("--rootfs with a package: %v", err)
	}
}

// The init runs its argument as a child, and ends as it does. What it may call, test/e2e holds.
func TestInit(t *testing.T) {
	init, err := writeInit(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args []string
		want int
	}{
		"success":       {[]string{"/bin/true"}, 0},
		"status":        {[]string{"/bin/sh", "-c", "exit 7"}, 7},
		"signal":        {[]string{"/bin/sh", "-c", "kill -9 $$"}, 128 + 9},
		"no such file":  {[]string{"/does/not/exist"}, 127},
		"orphans":       {[]string{"/bin/sh", "-c", "for i in 1 2 3 4 5 6 7 8; do (sh -c 'exit 3' &) ; done; exit 5"}, 5},
		"environment":   {[]string{"/bin/sh", "-c", `test "$A" = b || exit 1`}, 0},
		"not a leader":  {[]string{"/bin/sh", "-c", `read -r _ _ _ _ _ session _ </proc/self/stat; test "$session" != $$`}, 0},
		"arguments":     {[]string{"/bin/sh", "-c", `test "$0 $1" = "x y"`, "x", "y"}, 0},
		"empty environ": {[]string{"/usr/bin/env", "-i", "/bin/true"}, 0},
	} {
		cmd := exec.Command(init, c.args...)
		cmd.Env = append(os.Environ(), "A=b")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		_ = cmd.Run()
		if got := cmd.ProcessState.ExitCode(); got != c.want {
			t.Errorf("%s: exit status %d, want %d", name, got, c.want)
		}
	}
}

// Signals of the same number are one while they wait: a child that its parent has not waited for goes to the init as the
// parent ends, and must not hide that.
func TestInitAndZombies(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: needs root, for a pid namespace")
	}
	const inside = "SECCOMPGEN_TEST_ZOMBIE"
	if os.Getenv(inside) != "" {
		p, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{})
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Waitid(unix.P_PID, p.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil { // until it is a zombie
			t.Fatal(err)
		}
		os.Exit(5)
	}
	init, err := writeInit(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, init, "/proc/self/exe", "-test.run=^TestInitAndZombies$")
	cmd.Args[1], _ = os.Executable()
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: syscall.CLONE_NEWPID}
	out, _ := cmd.CombinedOutput()
	if got := cmd.ProcessState.ExitCode(); got != 5 {
		t.Fatalf("exit status %d, want 5: %s", got, out)
	}
}
