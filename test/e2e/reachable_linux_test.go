package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seccompgen/seccompgen/profile"
	"github.com/seccompgen/seccompgen/test/lab"
)

// TestReachable: a server that nobody recorded lives under load under the profile that is made of its machine code, in each
// runtime that the profile is for, with and without noNewPrivileges; and dies of the first call that is removed from it.
func TestReachable(t *testing.T) {
	needRoot(t)
	rootfs, files := t.TempDir(), t.TempDir()
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(rootfs, "server"), "./testdata/server")
	cmd.Dir, cmd.Env = lab.Repo, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the server: %v\n%s", err, out)
	}
	for _, rt := range ociRuntimes {
		for _, nnp := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s %t", rt.name, nnp), func(t *testing.T) {
				runtime := rt.find(t)
				built := filepath.Join(files, "profile.json")
				args := []string{"build", "--policy", "reachable", "--binary", filepath.Join(rootfs, "server"), "--deny", "kill", "-o", built}
				if nnp {
					args = append(args, "--for", strings.Split(rt.name, "-")[0], "--no-new-privileges")
				}
				seccompgen(t, 0, args...)
				run := func(p *specs.LinuxSeccomp, args ...string) (string, error) {
					b := &oracleBundle{dir: t.TempDir(), spec: specs.Spec{
						Version: "1.0.2", Root: &specs.Root{Path: rootfs},
						Process: &specs.Process{Args: append([]string{"/server"}, args...), Cwd: "/", NoNewPrivileges: nnp},
						Mounts:  []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}, {Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=755"}}},
						Linux:   &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.NetworkNamespace}}, Seccomp: p},
					}}
					b.write(t, b.dir, nil)
					out, err := exec.CommandContext(t.Context(), runtime, "--root", t.TempDir(), "run", "--bundle", b.dir, fmt.Sprintf("reachable-%s-%d", filepath.Base(b.dir), os.Getpid())).CombinedOutput()
					return string(out), err
				}
				p := readProfile(t, built)
				for range 3 {
					if out, err := run(p, "-load", "2"); err != nil {
						t.Errorf("under the profile: %v: %s", err, out)
					}
				}
				if out, err := run(readProfile(t, without(t, built, "listen")), "0.1"); err == nil {
					t.Errorf("without listen it lives: %s", out)
				}
				if n := len(profile.Allowed(p)); n > 120 {
					t.Errorf("%d calls are allowed", n)
				}
			})
		}
	}
}
