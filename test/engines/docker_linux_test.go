package engines

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/seccompgen/seccompgen/profile"
	"github.com/seccompgen/seccompgen/test/lab"
	"github.com/seccompgen/seccompgen/tracer"
)

// docker is a Docker of the test's own.
type docker struct {
	t      testing.TB
	dir    string
	daemon *exec.Cmd
}

func newDocker(t *testing.T) *docker {
	t.Helper()
	lab.NeedTool(t, "dockerd")
	dir, err := os.MkdirTemp(worldDir, "d")
	if err != nil {
		t.Fatal(err)
	}
	d := &docker{t: t, dir: dir}
	t.Setenv("DOCKER_HOST", "unix://"+dir+"/sock")
	install(t, "docker")
	d.start()
	t.Cleanup(func() {
		if ids := strings.Fields(d.do("ps", "--all", "--quiet").stdout); len(ids) > 0 {
			d.do(slices.Concat([]string{"rm", "--force"}, ids)...)
		}
		d.stop(syscall.SIGTERM)
		clearTree(t, dir)
		removeCgroups("docker")
	})
	return d
}

// start starts the daemon, and waits until it answers.
func (d *docker) start() {
	d.t.Helper()
	d.daemon = exec.Command("dockerd", "--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver", strings.Replace(driver(), "overlay", "overlay2", 1),
		"--data-root", d.dir+"/root", "--exec-root", d.dir+"/exec", "--host", "unix://"+d.dir+"/sock", "--pidfile", d.dir+"/pid")
	log, err := os.OpenFile(d.dir+"/log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer log.Close()
	d.daemon.Stdout, d.daemon.Stderr = log, log
	d.daemon.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := d.daemon.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() {
		if d.t.Failed() {
			d.t.Logf("dockerd: %s", d.log())
		}
	})
	wait(d.t, "dockerd", func() bool { return exec.Command("docker", "version").Run() == nil })
}

// stop stops the daemon and its containerd, which is in its process group. The shims are not.
func (d *docker) stop(signal syscall.Signal) {
	pid := d.daemon.Process.Pid
	if signal == syscall.SIGKILL {
		pid = -pid
	}
	_ = syscall.Kill(pid, signal)
	_ = d.daemon.Wait()
	wait(d.t, "the end of Docker's containerd", func() bool { return !livesIn(d.daemon.Process.Pid) })
	_ = os.Remove(d.dir + "/exec/containerd/containerd.pid") // nobody may reap it, and dockerd takes a zombie for a living one
}

func (d *docker) do(args ...string) result {
	d.t.Helper()
	return run(d.t, "docker", args...)
}

// run runs a container of the image lab under our runtime.
func (d *docker) run(args ...string) result {
	d.t.Helper()
	return d.do(slices.Concat([]string{"run", "--network", "none", "--runtime", "seccompgen"}, args)...)
}

func (d *docker) ok(r result) result {
	d.t.Helper()
	if r.exit != 0 {
		d.t.Fatal(r)
	}
	return r
}

// log returns the end of what the daemon said.
func (d *docker) log() string {
	log, err := os.ReadFile(d.dir + "/log")
	if err != nil {
		return err.Error()
	}
	return string(log[max(0, len(log)-3000):])
}

// Under Docker: programs are recorded, their profiles built, and run again under them; who does not ask is not touched.
func TestDocker(t *testing.T) {
	d, rootfs := newDocker(t), rootFS(t)
	clearRecordings(t)
	goTest(t, "strings", filepath.Join(rootfs, "bin/tests"))
	d.ok(d.do("load", "--input", image(t, rootfs, "lab:1", "/bin/true")))

	if r := run(t, toolPath, "status", "--probe", "docker"); r.exit != 0 || !strings.Contains(r.stdout, "docker records: a container under runc") {
		t.Error(r)
	}
	if images := d.ok(d.do("images", "--quiet")).stdout; strings.Count(images, "\n") != 1 {
		t.Errorf("the probe leaves an image: %s", images)
	}
	d.ok(d.run("--rm", "lab:1", "/bin/ls", "/"))
	d.ok(d.run("--rm", "--env", "SECCOMPGEN_RECORD=false", "lab:1", "/bin/ls", "/"))
	noRecordings(t)
	if r := d.run("--rm", "--env", "SECCOMPGEN_RECORD=../../etc/x", "lab:1", "/bin/true"); r.exit == 0 || !strings.Contains(r.stderr, "seccompgen: record container") {
		t.Errorf("want a refusal, got %s", r)
	}
	noRecordings(t)

	for name, command := range map[string][]string{
		"shell": {"/bin/sh", "-c", "ls / && echo hello"},
		"go":    {"/bin/tests", "-test.run", "Builder|Reader", "-test.v"},
	} {
		first := d.ok(d.run(slices.Concat([]string{"--rm", "--env", "SECCOMPGEN_RECORD=" + name, "lab:1"}, command)...))
		path := recordings(t, name+"-", 1)[0]
		r := lab.ReadRecording(t, path)
		if !r.Complete || r.Boundary != profile.BoundaryFilter || r.Runtime.Name != "runc" || r.Runtime.Version == "" {
			t.Fatalf("%s: complete %v, boundary %s, runtime %+v, %v", name, r.Complete, r.Boundary, r.Runtime, r.Dropped)
		}
		prof := filepath.Join(t.TempDir(), "profile.json")
		if built := run(t, toolPath, "build", "--format", "docker", "-o", prof, path); built.exit != 0 {
			t.Fatal(built)
		}
		for range 10 {
			again := d.ok(d.run(slices.Concat([]string{"--rm", "--env", "SECCOMPGEN_RECORD=again-" + name, "--security-opt", "seccomp=" + prof, "lab:1"}, command)...))
			if name == "shell" && again.stdout != first.stdout {
				t.Errorf("got %q, without the profile %q", again.stdout, first.stdout)
			}
		}
		noNewDenials(t, r, "again-"+name+"-", 10)
		if r := d.run("--rm", "--security-opt", "seccomp="+prof, "lab:1", "/bin/mkdir", "/x"); r.exit == 0 {
			t.Errorf("%s: mkdir was not recorded and is let pass", name)
		}
	}
}

// docker exec is recorded in a phase of its own; a restart is added; the daemon may be killed in between.
func TestDockerExecRestartKill(t *testing.T) {
	d, rootfs := newDocker(t), rootFS(t)
	clearRecordings(t)
	d.ok(d.do("load", "--input", image(t, rootfs, "lab:1", "/bin/true")))
	id := strings.TrimSpace(d.ok(d.run("--detach", "--env", "SECCOMPGEN_RECORD=web", "lab:1", "/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done")).stdout)
	d.ok(d.do("exec", id, "/bin/mkdir", "/made-by-exec"))
	d.ok(d.do("stop", id))
	path := recordings(t, "web-"+id, 1)[0]
	if r := lab.ReadRecording(t, path); !r.Complete || !slices.Contains(names(r, profile.PhaseExec), "mkdir") || slices.Contains(names(r, profile.PhaseWorkload), "mkdir") {
		t.Fatalf("complete %v %v, exec %q, workload %q", r.Complete, r.Dropped, names(r, profile.PhaseExec), names(r, profile.PhaseWorkload))
	}
	d.ok(d.do("start", id))
	d.ok(d.do("exec", id, "/bin/rmdir", "/made-by-exec"))
	d.ok(d.do("stop", id))
	withRuns(t, path, 2)

	// Docker and its containerd are killed: nobody calls poststop when the container ends.
	d.ok(d.do("start", id))
	var pid int
	if _, err := fmt.Sscan(d.ok(d.do("inspect", "--format", "{{.State.Pid}}", id)).stdout, &pid); err != nil || pid <= 1 {
		t.Fatalf("pid %d, %v", pid, err)
	}
	d.stop(syscall.SIGKILL)
	_ = syscall.Kill(pid, syscall.SIGTERM)
	wait(t, "the recording's end", func() bool {
		list, err := tracer.List()
		return err == nil && len(list) == 1 && list[0].State == tracer.Ended
	})
	if r := run(t, toolPath, "status", "--collect", "--grace", "1s"); r.exit != 0 || !strings.Contains(r.stdout, "collected "+id) {
		t.Errorf("want %s to be collected: %s", id, r)
	}
	if n := len(lab.ReadRecording(t, path).Runs); n != 3 {
		t.Errorf("%d runs, want 3", n)
	}
	// The new daemon clears up after the old one; the hook that it calls finds that nothing is missing.
	d.start()
	wait(t, "the container's end", func() bool {
		return strings.TrimSpace(d.do("inspect", "--format", "{{.State.Running}}", id).stdout) == "false"
	})
	recordings(t, "web-", 1)
}
