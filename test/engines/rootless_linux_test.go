package engines

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/profile"
	"github.com/seccompgen/seccompgen/test/lab"
)

// labUser exists in this world only.
const labUser = 4242

// newRootless makes a Podman of a user's.
func newRootless(t testing.TB, runtime string) *podman {
	t.Helper()
	lab.NeedTool(t, "newuidmap")
	dir, err := os.MkdirTemp(worldDir, "u")
	if err != nil {
		t.Fatal(err)
	}
	home := filepath.Join(dir, "home")
	for file, line := range map[string]string{
		"passwd": fmt.Sprintf("lab:x:%d:%d::%s:/bin/sh", labUser, labUser, home), "group": fmt.Sprintf("lab:x:%d:", labUser), "subuid": "lab:500000:65536", "subgid": "lab:500000:65536",
	} {
		data, err := os.ReadFile("/etc/" + file)
		if err != nil {
			t.Fatal(err)
		}
		private := filepath.Join(dir, file)
		if err := errors.Join(os.WriteFile(private, append(data, line+"\n"...), 0o644), unix.Mount(private, "/etc/"+file, "", unix.MS_BIND, "")); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount("/etc/"+file, unix.MNT_DETACH) })
	}
	state := filepath.Join(dir, "run")
	configure(t, home+"/root", "", state+"/t", runtime)
	install(t, "podman")
	for _, d := range []string{home, state} {
		if err := errors.Join(os.Mkdir(d, 0o700), os.Chown(d, labUser, labUser)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	p := &podman{t, dir, []string{
		"setpriv", "--reuid", fmt.Sprint(labUser), "--regid", fmt.Sprint(labUser), "--init-groups",
		"env", "-i", "-C", home, "HOME=" + home, "XDG_RUNTIME_DIR=" + state, "PATH=" + os.Getenv("PATH"), "podman",
	}}
	t.Cleanup(func() {
		p.do("rm", "--all", "--force", "--time", "0")
		clearTree(t, dir) // with Podman's process that holds the user namespace
	})
	return p
}

// serve runs seccompgen serve until the test ends, or stop is called.
func serve(t testing.TB, args ...string) (stop func()) {
	t.Helper()
	cmd := exec.Command(toolPath, slices.Concat([]string{"serve"}, args)...)
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		_ = cmd.Process.Signal(syscall.SIGTERM)
		err := cmd.Wait()
		if said, _ := os.ReadFile(log.Name()); err != nil || t.Failed() {
			t.Errorf("seccompgen serve: %v: %s", err, said)
		}
	}
	t.Cleanup(stop)
	wait(t, "the service", func() bool {
		said, err := os.ReadFile(log.Name())
		return err == nil && strings.Contains(string(said), "listening")
	})
	return stop
}

// A user's Podman: the hook may not use eBPF there, a service of root's does it for those who own the container. The files
// are the user's own.
func TestRootless(t *testing.T) {
	eachRuntime(t, func(t *testing.T, runtime string) {
		if wrapper := filepath.Dir(runtime); strings.HasPrefix(wrapper, os.TempDir()) { // of crun: for the user too
			for d := wrapper; d != os.TempDir(); d = filepath.Dir(d) {
				if err := os.Chmod(d, 0o755); err != nil {
					t.Fatal(err)
				}
			}
		}
		p, rootfs := newRootless(t, runtime), rootFS(t)
		if r := run(t, "chown", "-R", fmt.Sprint(labUser), rootfs); r.exit != 0 {
			t.Fatal(r)
		}
		for d := rootfs; d != os.TempDir(); d = filepath.Dir(d) {
			if err := os.Chmod(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		home := filepath.Join(p.dir, "home")
		mine := filepath.Join(home, ".local/share/seccompgen/recordings")
		one := func(prefix string) (string, *profile.Recording) {
			t.Helper()
			var files []string
			wait(t, "the recording "+prefix, func() bool {
				files, _ = filepath.Glob(filepath.Join(mine, prefix+"*"))
				return len(files) == 1
			})
			return files[0], lab.ReadRecording(t, files[0])
		}

		// Nobody serves: no container that asks runs unrecorded, and the user hears why.
		stderr := filepath.Join(home, "stderr")
		refused := p.run("--rm", "--annotation", record+"=web", "--annotation", "run.oci.hooks.stderr="+stderr, "--rootfs", rootfs, "/bin/mkdir", "/ran")
		said, _ := os.ReadFile(stderr)
		if _, err := os.Stat(filepath.Join(rootfs, "ran")); refused.exit == 0 || err == nil || !contains("no service for rootless containers runs here", refused.stderr, string(said)) {
			t.Errorf("want a refusal, got %s\n%s", refused, said)
		}
		if r := p.run("--rm", "--rootfs", rootfs, "/bin/true"); r.exit != 0 {
			t.Errorf("one who does not ask: %s", r)
		}

		stop := serve(t, "--group", "lab")
		command := []string{"--rootfs", rootfs, "/bin/sh", "-c", "ls /bin && echo hello"}
		first := p.ok(p.run(slices.Concat([]string{"--rm", "--annotation", record + "=web"}, command)...))
		path, r := one("web-")
		if !r.Complete || r.Boundary != profile.BoundaryFilter || r.Runtime.Version == "" || r.Workload.Args[0] != "/bin/sh" || !slices.Contains(names(r, profile.PhaseWorkload), "getdents64") {
			t.Fatalf("complete %v %v, boundary %s, runtime %+v, workload %+v", r.Complete, r.Dropped, r.Boundary, r.Runtime, r.Workload)
		}
		ran(t, r, "/bin/busybox")
		if info, err := os.Stat(path); err != nil || info.Sys().(*syscall.Stat_t).Uid != labUser {
			t.Errorf("the file is %+v, %v", info, err)
		}
		prof := filepath.Join(p.dir, "profile.json")
		if built := run(t, toolPath, "build", "-o", prof, path); built.exit != 0 {
			t.Fatal(built)
		}
		for i := range 10 {
			name := fmt.Sprintf("again%d", i)
			again := p.run(slices.Concat([]string{"--rm", "--annotation", record + "=" + name, "--security-opt", "seccomp=" + prof}, command)...)
			if again.exit != 0 || again.stdout != first.stdout {
				t.Fatalf("under the profile of %q: %s\nwant %s", allowed(t, prof), again, first)
			}
			_, later := one(name + "-")
			for _, call := range denied(later) {
				if !slices.Contains(denied(r), call) {
					t.Errorf("%s was refused under the profile", call)
				}
			}
		}
		if blocked := p.run("--rm", "--security-opt", "seccomp="+prof, "--rootfs", rootfs, "/bin/mkdir", "/no"); blocked.exit == 0 {
			t.Errorf("the profile lets pass what was not recorded: %s", blocked)
		}

		// podman exec, and the annotation of oci-seccomp-bpf-hook: the path is the user's to choose, and to be able to write.
		id := strings.TrimSpace(p.ok(p.run("--detach", "--annotation", record+"=exec", "--rootfs", rootfs, "/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done")).stdout)
		p.ok(p.do("exec", id, "/bin/mkdir", "/made-by-exec"))
		p.ok(p.do("stop", id))
		if _, r := one("exec-" + id); !r.Complete || !slices.Contains(names(r, profile.PhaseExec), "mkdir") || slices.Contains(names(r, profile.PhaseWorkload), "mkdir") {
			t.Errorf("complete %v %v, exec %q, workload %q", r.Complete, r.Dropped, names(r, profile.PhaseExec), names(r, profile.PhaseWorkload))
		}
		p.ok(p.run("--rm", "--annotation", trace+"=of:"+home+"/traced.json", "--rootfs", rootfs, "/bin/ls", "/"))
		wait(t, "the profile", func() bool { _, err := os.Stat(home + "/traced.json"); return err == nil })
		if !slices.Contains(allowed(t, home+"/traced.json"), "getdents64") {
			t.Errorf("allowed: %q", allowed(t, home+"/traced.json"))
		}
		// Where the user may not write there is no file, and the recording is kept.
		before, _ := filepath.Glob(mine + "/*.json")
		p.ok(p.run("--rm", "--annotation", trace+"=of:/etc/traced.json", "--rootfs", rootfs, "/bin/ls", "/"))
		wait(t, "the recording", func() bool { now, _ := filepath.Glob(mine + "/*.json"); return len(now) == len(before)+1 })
		if _, err := os.Stat("/etc/traced.json"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("written as root: %v", err)
		}

		// The service ends while a container runs: the evidence is in the kernel, and one that starts again hands it over.
		id = strings.TrimSpace(p.ok(p.run("--detach", "--annotation", record+"=later", "--rootfs", rootfs, "/bin/sh", "-c", "trap 'sync; exit 0' TERM; while :; do sleep 0.1; done")).stdout)
		stop()
		stop = serve(t, "--group", "lab")
		p.ok(p.do("stop", id))
		if _, r := one("later-" + id); !r.Complete || !slices.Contains(names(r, profile.PhaseWorkload), "sync") {
			t.Errorf("complete %v %v, %q", r.Complete, r.Dropped, names(r, profile.PhaseWorkload))
		}
		noRecordings(t)

		// It does not start again: the user's file says that evidence is missing, and root has it.
		id = strings.TrimSpace(p.ok(p.run("--detach", "--annotation", record+"=never", "--rootfs", rootfs, "/bin/sh", "-c", "trap 'sync; exit 0' TERM; while :; do sleep 0.1; done")).stdout)
		stop()
		p.ok(p.do("stop", id))
		if _, r := one("never-" + id); r.Complete || r.Dropped[profile.DropCollect] == 0 {
			t.Errorf("complete %v %v", r.Complete, r.Dropped)
		}
		if r := run(t, toolPath, "status", "--collect", "--grace", "1s"); r.exit != 0 || !strings.Contains(r.stdout, fmt.Sprintf("collected %d@%s", labUser, id)) {
			t.Error(r)
		}
		if r := lab.ReadRecording(t, filepath.Join(recordingsDir, fmt.Sprintf("%d@%s.json", labUser, id))); !r.Complete || r.Runtime.Version == "" || !slices.Contains(names(r, profile.PhaseWorkload), "sync") {
			t.Errorf("complete %v %v, runtime %+v, %q", r.Complete, r.Dropped, r.Runtime, names(r, profile.PhaseWorkload))
		}
	})
}
