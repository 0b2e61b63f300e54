package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seccompgen/seccompgen/profile"
	"github.com/seccompgen/seccompgen/test/lab"
)

// TestPredicted386: what a program's amd64 recording says of i386 is enough for the same program made for i386, which is
// recorded here too, and runs under that profile with no denial.
func TestPredicted386(t *testing.T) {
	needRoot(t)
	lab.NeedCompat(t)
	lab.NeedTool(t, "runc")
	dir, files := module(t, "tiny_test.go", goOracle), t.TempDir()
	amd64, i386, built := filepath.Join(files, "amd64.json"), filepath.Join(files, "386.json"), filepath.Join(files, "profile.json")
	inModule(t, 0, dir, []string{"CGO_ENABLED=0"}, "record", "--runs", "3", "-o", amd64, ".")
	env := []string{"CGO_ENABLED=0", "GOARCH=386"}
	inModule(t, 0, dir, env, "record", "--runs", "3", "-o", i386, ".")
	seccompgen(t, 0, "build", "--arch", "386", "-o", built, amd64)
	p := readProfile(t, built)
	resolved := profile.Resolve(p)
	// On i386 Go makes socket calls through socketcall; the filter tells them apart by the first argument.
	var sockets [][6]uint64
	for call := range uint64(20) {
		args := [6]uint64{call + 1}
		if resolved.Decide(specs.ArchX86, 102, args).Action == specs.ActAllow {
			sockets = append(sockets, args)
		}
	}
	n := 0
	for _, s := range lab.ReadRecording(t, i386).Syscalls {
		if s.ABI != specs.ArchX86 || s.Phase == profile.PhaseRuntime {
			continue
		}
		n++
		if s.Name == "socketcall" {
			if len(sockets) < 5 {
				t.Errorf("only %d socket calls are allowed through socketcall", len(sockets))
			}
			continue
		}
		seen := [][]uint32{nil}
		if s.Args != nil && !s.Args.Full {
			seen = s.Args.Values
		}
		for _, values := range seen {
			var args [6]uint64
			for i, v := range values {
				args[i] = uint64(v)
			}
			if got := resolved.Decide(s.ABI, s.Nr, args); got.Action != specs.ActAllow {
				t.Errorf("i386 makes %s with %#x, which the amd64 recording did not predict: %v", s.Name, values, got)
			}
		}
	}
	if n < 30 {
		t.Errorf("the i386 recording has %d calls: too few to compare with", n)
	}
	if said := inModule(t, 0, dir, env, "verify", "--profile", built, "--runs", "3", ".").stdout; !strings.HasPrefix(said, "pass: no denials") {
		t.Errorf("verify does not say pass:\n%s", said)
	}
}

func readProfile(t testing.TB, path string) *specs.LinuxSeccomp {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := profile.ReadProfile(f)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestThreadFallback: a C program that was recorded where clone3 is answered with ENOSYS, as in Docker's containers, runs
// under the profile made of it, and not under the same profile without its entry for clone3: the default's EPERM stops
// glibc. runc answers ENOSYS to numbers above the highest one that the profile lists, whatever their answer; the entries for
// newer calls are such, so that clone3 gets EPERM from it too.
func TestThreadFallback(t *testing.T) {
	needRoot(t)
	gcc := lab.NeedTool(t, "gcc")
	rootfs := t.TempDir()
	cmd := exec.CommandContext(t.Context(), gcc, "-static", "-pthread", "-O1", "-o", filepath.Join(rootfs, "thread"), filepath.Join(lab.Repo, "testdata/calls/thread.c"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build thread.c: %v\n%s", err, out)
	}
	for _, rt := range ociRuntimes {
		t.Run(rt.name, func(t *testing.T) {
			runtime, files := rt.find(t), t.TempDir()
			holdBPFFS(t)
			run := func(seccomp *specs.LinuxSeccomp, hooks *specs.Hooks) (string, error) {
				b := &oracleBundle{dir: t.TempDir(), spec: specs.Spec{
					Version: "1.0.2", Root: &specs.Root{Path: rootfs}, Hooks: hooks,
					Process: &specs.Process{Args: []string{"/thread"}, Cwd: "/", NoNewPrivileges: true},
					Mounts:  []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}, {Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=755"}}},
					Linux:   &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}}, Seccomp: seccomp},
				}}
				b.write(t, b.dir, hooks)
				out, err := exec.CommandContext(t.Context(), runtime, "--root", t.TempDir(), "run", "--bundle", b.dir, fmt.Sprintf("thread-%s-%d", filepath.Base(files), os.Getpid())).CombinedOutput()
				return string(out), err
			}
			enosys := uint(38)
			docker := &specs.LinuxSeccomp{
				DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86_64},
				Syscalls: []specs.LinuxSyscall{{Names: []string{"clone3"}, Action: specs.ActErrno, ErrnoRet: &enosys}},
			}
			recording, built := filepath.Join(files, "recording.json"), filepath.Join(files, "profile.json")
			hook := []specs.Hook{{Path: filepath.Join(binDir, "oci-hook"), Args: []string{"oci-hook", "--output", recording}}}
			if out, err := run(docker, &specs.Hooks{CreateRuntime: hook, Poststop: hook}); err != nil || out != "hello from a thread\n" {
				t.Fatalf("record: %v: %s", err, out)
			}
			seccompgen(t, 0, "build", "-o", built, recording)
			p := readProfile(t, built)
			if allowed := profile.Allowed(p); slices.Contains(allowed, "clone3") || !slices.Contains(allowed, "clone") {
				t.Fatalf("clone3 is to be denied and clone allowed: %v", allowed)
			}
			if out, err := run(p, nil); err != nil || out != "hello from a thread\n" {
				t.Errorf("under the profile: %v: %s", err, out)
			}
			if out, err := run(readProfile(t, without(t, built, "clone3")), nil); err == nil || !strings.Contains(out, "pthread_create: Operation not permitted") {
				t.Errorf("without the entry for clone3 it runs, or fails otherwise: %v: %s", err, out)
			}
		})
	}
}
