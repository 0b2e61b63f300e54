package engines

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/seccompgen/seccompgen/test/lab"
)

// podman is a Podman of the test's own.
type podman struct {
	t   testing.TB
	dir string   // of its storage
	cmd []string // podman, or what runs it as another user
}

// newPodman makes one, which `seccompgen install podman` has set up.
func newPodman(t testing.TB, runtime string) *podman {
	t.Helper()
	p := newPodmanFor(t, runtime)
	install(t, "podman")
	return p
}

// newPodmanFor makes one that knows no hooks yet. What this machine needs its administrator has configured.
func newPodmanFor(t testing.TB, runtime string) *podman {
	t.Helper()
	lab.NeedTool(t, "podman")
	dir, err := os.MkdirTemp(worldDir, "p")
	if err != nil {
		t.Fatal(err)
	}
	configure(t, dir+"/root", dir+"/run", dir+"/tmp", runtime)
	p := &podman{t, dir, []string{"podman"}}
	t.Cleanup(func() {
		p.do("rm", "--all", "--force", "--time", "0")
		removeCgroups("libpod_parent/conmon", "libpod_parent")
		// Podman's own clean-up of detached containers may still be at it.
		wait(t, "the end of Podman's clean-up", func() bool { return os.RemoveAll(dir) == nil })
	})
	return p
}

// configure is the administrator's part: where Podman keeps things, and what it cannot do here.
func configure(t testing.TB, root, run, tmp, runtime string) {
	t.Helper()
	name, _, _ := strings.Cut(filepath.Base(runtime), "-")
	for path, text := range map[string]string{
		"/etc/containers/containers.conf": fmt.Sprintf(`[containers]
default_ulimits = ["nofile=1024:20000", "nproc=4096:4096"] # no CAP_SYS_RESOURCE here
[engine]
runtime = %q
cgroup_manager = "cgroupfs" # no systemd here
events_logger = "none"
tmp_dir = %q
[engine.runtimes]
%s = [%q]
`, name, tmp, name, runtime),
		"/etc/containers/storage.conf": fmt.Sprintf("[storage]\ndriver = %q\ngraphroot = %q\nrunroot = %q\nrootless_storage_path = %q\n", driver(), root, run, root),
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func (p *podman) do(args ...string) result {
	p.t.Helper()
	return run(p.t, p.cmd[0], slices.Concat(p.cmd[1:], args)...)
}

// run runs a container; args are options, an image or --rootfs DIR, and the command.
func (p *podman) run(args ...string) result {
	p.t.Helper()
	return p.do(slices.Concat([]string{"run", "--network", "none"}, args)...)
}

// ok fails the test unless a command went well.
func (p *podman) ok(r result) result {
	p.t.Helper()
	if r.exit != 0 {
		p.t.Fatal(r)
	}
	return r
}
