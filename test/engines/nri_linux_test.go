//go:build nri

package engines

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/profile"
	"github.com/seccompgen/seccompgen/test/lab"
)

const config24 = `version = 3
root = "DIR/root"
state = "DIR/state"
disabled_plugins = ["io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "DIR/sock"
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "native"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = "localhost/lab:1"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true # no CAP_SYS_RESOURCE here
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    conf_dir = "DIR/cni"
[plugins.'io.containerd.nri.v1.nri']
  socket_path = "DIR/nri.sock"
[plugins.'io.containerd.internal.v1.opt']
  path = "DIR/opt2"
`

// containerd 2 finds and starts the plugin, which gives annotated containers the hook and, where the host allows it, a
// filter.
func TestNRI(t *testing.T) {
	bin := os.Getenv("CONTAINERD2")
	if bin == "" {
		t.Fatal("CONTAINERD2 is not the directory of containerd 2: make nri")
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	cmd := exec.Command("go", "build", "-o", filepath.Join(worldDir, "bin/nri-plugin"), "./cmd/nri-plugin")
	cmd.Dir, cmd.Env = lab.Repo, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	rootfs := rootFS(t)
	goTest(t, "strings", filepath.Join(rootfs, "bin/tests"))
	// /opt is this world's own from here on, as /etc is: the plugin and its configuration lie where containerd looks by default.
	if err := unix.Mount("none", "/opt", "tmpfs", 0, ""); err != nil {
		t.Fatalf("mount over /opt: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount("/opt", 0); err != nil {
			t.Error(err)
		}
	})
	c := newContainerd(t, config24, bin, rootfs)
	clearRecordings(t)
	testPods(t, c)

	// Filters, which the configuration has to allow.
	const filter = "dev.seccompgen.filter"
	p := c.pod(map[string]string{filter: "all"})
	if _, err := p.start("web", 0, "", "/bin/true"); err == nil || !contains("filters are not allowed on this host", err.Error()) {
		t.Errorf("want a refusal, got %v", err)
	}
	c.stop()
	profiles := filepath.Join(c.dir, "profiles")
	for path, text := range map[string]string{
		"/etc/nri/conf.d/10-seccompgen.conf": `{"filters": true, "profiles": "` + profiles + `"}`,
		filepath.Join(profiles, "thin.json"): `{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],"syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}`,
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c.start()
	p = c.pod(map[string]string{record: "all", filter: "all"})
	if exit, said := p.run("web", 0, "", "/bin/sh", "-c", "mkdir /x && rmdir /x"); exit != 0 {
		t.Fatal(exit, said)
	}
	if r := lab.ReadRecording(t, recordings(t, "all-web-", 1)[0]); !r.Complete || r.Boundary != profile.BoundaryFilter || len(denied(r)) > 0 || !slices.Contains(names(r, profile.PhaseWorkload), "rmdir") {
		t.Errorf("complete %v %v, boundary %s, denied %q", r.Complete, r.Dropped, r.Boundary, denied(r))
	}
	p = c.pod(map[string]string{record: "thin", filter: "profile:thin"})
	if exit, _ := p.run("web", 0, "", "/bin/sh", "-c", "mkdir /x"); exit == 0 {
		t.Error("the profile is not in force")
	}
	if r := lab.ReadRecording(t, recordings(t, "thin-web-", 1)[0]); !r.Complete || !slices.Equal(denied(r), []string{"mkdir"}) {
		t.Errorf("complete %v %v, denied %q", r.Complete, r.Dropped, denied(r))
	}
}
