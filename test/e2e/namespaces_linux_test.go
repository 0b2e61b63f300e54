package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seccompgen/seccompgen/profile"
	"github.com/seccompgen/seccompgen/test/lab"
)

// TestNoNamespaces: glibc makes threads with clone3, of which no filter sees whether it makes namespaces. The profile of a
// program that makes threads opens no way to a namespace that Docker's default profile closes, whatever build's options.
func TestNoNamespaces(t *testing.T) {
	needRoot(t)
	holdBPFFS(t)
	gcc := lab.NeedTool(t, "gcc")
	rootfs := t.TempDir()
	cmd := exec.CommandContext(t.Context(), gcc, "-static", "-pthread", "-O1", "-o", filepath.Join(rootfs, "namespaces"), filepath.Join(lab.Repo, "testdata/calls/namespaces.c"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build namespaces.c: %v\n%s", err, out)
	}
	docker, err := seccomp.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, rt := range ociRuntimes {
		t.Run(rt.name, func(t *testing.T) {
			runtime, files := rt.find(t), t.TempDir()
			n := 0
			run := func(seccomp *specs.LinuxSeccomp, hooks *specs.Hooks, args ...string) string {
				n++
				b := &oracleBundle{dir: t.TempDir(), spec: specs.Spec{
					Version: "1.0.2", Root: &specs.Root{Path: rootfs},
					Process: &specs.Process{Args: append([]string{"/namespaces"}, args...), Cwd: "/", NoNewPrivileges: true},
					Mounts:  []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}, {Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=755"}}},
					Linux:   &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}}, Seccomp: seccomp},
				}}
				b.write(t, b.dir, hooks)
				out, err := exec.CommandContext(t.Context(), runtime, "--root", t.TempDir(), "run", "--bundle", b.dir, fmt.Sprintf("namespaces-%s-%d-%d", rt.name, os.Getpid(), n)).CombinedOutput()
				if err != nil {
					t.Fatalf("%v: %v: %s", args, err, out)
				}
				return string(out)
			}
			ways := map[string]string{"clone": "Operation not permitted", "clone3": "Function not implemented", "unshare": "Operation not permitted", "none": "Success"}
			all := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow}
			for way, refused := range ways {
				if out := run(all, nil, way); way != "none" && out != "a thread, "+way+": made\n" {
					t.Fatalf("without a profile this host refuses namespaces itself, and the test shows nothing: %s", out)
				}
				if out := run(docker, nil, way); out != "a thread, "+way+": "+refused+"\n" {
					t.Fatalf("under Docker's default profile: %s", out)
				}
			}
			recording := filepath.Join(files, "recording.json")
			hook := []specs.Hook{{Path: filepath.Join(binDir, "oci-hook"), Args: []string{"oci-hook", "--output", recording}}}
			if out := run(all, &specs.Hooks{CreateRuntime: hook, Poststop: hook}); out != "a thread, none: Success\n" {
				t.Fatalf("record: %s", out)
			}
			if data, err := os.ReadFile(recording); err != nil || !strings.Contains(string(data), `"clone3"`) {
				t.Fatalf("this C library makes threads without clone3, and the test shows nothing: %v", err)
			}
			for _, options := range []string{"", "--policy exact", "--args off", "--kernel 4.19..6.18", "--for runc,crun"} {
				if strings.HasPrefix(rt.name, "runc") && options == "--policy exact" {
					continue // of one run of runc's init, a Go program, it may lack calls
				}
				built := filepath.Join(files, "profile.json")
				said := seccompgen(t, 0, slices.Concat([]string{"build", "-o", built}, strings.Fields(options), []string{recording})...).stderr
				if !strings.Contains(said, "clone3 was made on X86_64, by namespaces, and is answered with ENOSYS") {
					t.Errorf("build %s does not say what becomes of clone3: %s", options, said)
				}
				p := readProfile(t, built)
				for way, refused := range ways {
					if out := run(p, nil, way); out != "a thread, "+way+": "+refused+"\n" {
						t.Errorf("build %s: %s", options, out)
					}
				}
			}
		})
	}
}

const threads = `package tiny

/*
#include <pthread.h>
static void *nothing(void *p) { return p; }
static int thread(void) { pthread_t t; return pthread_create(&t, 0, nothing, 0) || pthread_join(t, 0); }
*/
import "C"

func Thread() int { return int(C.thread()) }
`

// TestCgoThreads: a Go program with cgo makes its threads by pthread_create. Verified, nothing is denied: the answer to clone3
// is one that glibc goes on from.
func TestCgoThreads(t *testing.T) {
	needRoot(t)
	lab.NeedTool(t, "gcc")
	dir := module(t, "tiny.go", threads, "tiny_test.go", "package tiny\n\nimport \"testing\"\n\nfunc TestThread(t *testing.T) {\n\tif Thread() != 0 {\n\t\tt.Fatal(\"no thread\")\n\t}\n}\n")
	files := t.TempDir()
	recording, built := filepath.Join(files, "recording.json"), filepath.Join(files, "profile.json")
	env := []string{"CGO_ENABLED=1"}
	inModule(t, 0, dir, env, "record", "-o", recording, "--runs", "3", ".")
	inModule(t, 0, dir, env, "build", "-o", built, recording)
	if allowed := profile.Allowed(readProfile(t, built)); slices.Contains(allowed, "clone3") || !slices.Contains(allowed, "clone") {
		t.Fatalf("clone3 is to be answered with ENOSYS, and clone allowed: %v", allowed)
	}
	if said := inModule(t, 0, dir, env, "verify", "--profile", built, "--recording", recording, "--runs", "3", ".").stdout; !strings.HasPrefix(said, "pass: no denials") {
		t.Errorf("verify does not say pass:\n%s", said)
	}
	if said := inModule(t, 2, dir, env, "verify", "--profile", without(t, built, "clone"), "--recording", recording, ".").stdout; !strings.Contains(said, "clone was denied") {
		t.Errorf("without clone:\n%s", said)
	}
}
