package lab

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/profile"
)

// Where the tools keep things on a host. Tests see private ones.
const (
	LibDir   = "/var/lib/seccompgen"
	BPFFSDir = "/sys/fs/bpf"
)

// Root reports whether containers and eBPF can be had.
var Root = os.Geteuid() == 0

// Repo is the directory of the module.
var Repo = func() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "../..")
}()

// Enter runs this test binary again in a mount namespace of its own, with a variable that names the directory for it.
func Enter(env, dir string) (int, error) {
	runtime.LockOSThread() // Pdeathsig is about the thread
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), env+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return max(exit.ExitCode(), 1), nil
	}
	return 0, err
}

// Seclude makes the mounts of this namespace private, and LibDir one of dir's.
func Seclude(dir string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	lib := filepath.Join(dir, "lib")
	if err := errors.Join(os.MkdirAll(LibDir, 0o711), os.Mkdir(lib, 0o711)); err != nil {
		return err
	}
	return unix.Mount(lib, LibDir, "", unix.MS_BIND, "")
}

// Build builds the programs under test into a directory.
func Build(bin string) error {
	for name, pkg := range map[string]string{"seccompgen": "seccompgen", "oci-hook": "oci-hook", "seccompgen-runc": "oci-runtime"} {
		tags, cgo := "", "0"
		if name == "seccompgen" {
			tags, cgo = "seccomp", "1"
		}
		cmd := exec.Command("go", "build", "-tags", tags, "-o", filepath.Join(bin, name), "./cmd/"+pkg)
		cmd.Dir, cmd.Env = Repo, append(os.Environ(), "CGO_ENABLED="+cgo, "GOFLAGS=")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
	}
	return nil
}

// NeedTool skips a test whose tool is not installed.
func NeedTool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("SKIPPED: %v: make test installs what the tests need", err)
	}
	return path
}

// FindCrun returns crun, or, where cgroup v2 is mounted beside v1, a wrapper in dir that hides v2: crun 1.8.1 refuses the two
// together.
func FindCrun(t testing.TB, dir string) string {
	t.Helper()
	crun := NeedTool(t, "crun")
	const unified = "/sys/fs/cgroup/unified"
	var st unix.Statfs_t
	if err := unix.Statfs(unified, &st); err != nil || st.Type != unix.CGROUP2_SUPER_MAGIC {
		return crun
	}
	path := filepath.Join(dir, "crun-nohybrid")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	script := "#!/bin/sh\nexec unshare -m --propagation private sh -c 'mount -t tmpfs none " + unified + " && exec " + crun + " \"$@\"' crun \"$@\"\n"
	tmp, err := os.CreateTemp(dir, "crun") // several tests may come here at once
	if err != nil {
		t.Fatal(err)
	}
	_, err = tmp.WriteString(script)
	if err := errors.Join(err, tmp.Chmod(0o755), tmp.Close(), os.Rename(tmp.Name(), path)); err != nil {
		t.Fatal(err)
	}
	return path
}

// Busybox makes a root file system of a static busybox, with programs of it by name.
func Busybox(t testing.TB, programs ...string) string {
	t.Helper()
	busybox := NeedTool(t, "busybox")
	if !IsStatic(busybox) {
		t.Skipf("SKIPPED: %s is not static: apt-get install busybox-static", busybox)
	}
	dir := t.TempDir()
	bin := filepath.Join(dir, "bin")
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	CopyFile(t, busybox, filepath.Join(bin, "busybox"))
	for _, name := range programs {
		if err := os.Symlink("busybox", filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// IsStatic reports whether a program needs no dynamic linker.
func IsStatic(path string) bool {
	f, err := elf.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	return !slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
}

// CopyFile copies a program, with the directories above it.
func CopyFile(t testing.TB, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err := errors.Join(err, os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, data, 0o755)); err != nil {
		t.Fatal(err)
	}
}

// Calls builds testdata/calls/calls.c, which makes the calls that it is told to and no others.
func Calls(t testing.TB, to string) {
	t.Helper()
	gcc := NeedTool(t, "gcc")
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(gcc, "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-fno-builtin", "-O1",
		"-o", to, filepath.Join(Repo, "testdata/calls/calls.c"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build calls.c: %v\n%s", err, out)
	}
}

// ReadRecording reads a recording's file.
func ReadRecording(t testing.TB, path string) *profile.Recording {
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
