package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seccompgen/seccompgen/test/lab"
)

// TestHosts: what is recorded on each of these hosts is enough on each other.
func TestHosts(t *testing.T) {
	needRoot(t)
	lab.NeedTool(t, "runc")
	hosts := []struct {
		name   string
		sysctl map[string]string
		env    string
	}{
		{"multipath", map[string]string{"net.mptcp.enabled": "1"}, "GOGC=100"},
		{"plain", map[string]string{"net.mptcp.enabled": "0", "net.ipv6.conf.all.disable_ipv6": "1"}, "GOGC=off"},
		{"narrow", map[string]string{"net.mptcp.enabled": "0"}, "GOGC=1"},
	}
	dir := t.TempDir()
	rootfs := filepath.Join(dir, "rootfs")
	if err := os.MkdirAll(filepath.Join(rootfs, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(rootfs, "etc/hosts"), []byte("127.0.0.1 localhost\n::1 localhost\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(rootfs, "hosts"), "./testdata/hosts")
	cmd.Dir, cmd.Env = lab.Repo, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build testdata/hosts: %v\n%s", err, out)
	}
	bundle := func(name string) string { return filepath.Join(dir, name) }
	for i, h := range hosts {
		env := []string{h.env, "TMPDIR=/tmp"}
		if h.name == "narrow" {
			env = append(env, "GOMAXPROCS=1")
		}
		data, err := json.Marshal(specs.Spec{
			Version: "1.0.2", Root: &specs.Root{Path: rootfs},
			Process: &specs.Process{Args: []string{"/hosts"}, Cwd: "/", Env: env, NoNewPrivileges: true},
			Mounts: []specs.Mount{
				{Destination: "/proc", Type: "proc", Source: "proc"}, {Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=755"}},
				{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs"},
			},
			Linux: &specs.Linux{
				Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.NetworkNamespace}},
				Sysctl:     hosts[i].sysctl,
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(bundle(h.name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(bundle(h.name), "config.json"), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, from := range hosts {
		recording, built := filepath.Join(dir, from.name+".json"), filepath.Join(dir, from.name+".profile.json")
		seccompgen(t, 0, "record", "-o", recording, "--bundle", bundle(from.name))
		seccompgen(t, 0, "build", "-o", built, recording)
		for _, to := range hosts {
			if to.name == from.name {
				continue
			}
			if said := seccompgen(t, 0, "verify", "--profile", built, "--bundle", bundle(to.name)).stdout; !strings.HasPrefix(said, "pass: no denials") {
				t.Errorf("recorded on %s, on %s:\n%s", from.name, to.name, said)
			}
		}
	}
}
