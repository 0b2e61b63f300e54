package engines

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/profile"
	"github.com/seccompgen/seccompgen/test/lab"
	"github.com/seccompgen/seccompgen/tracer"
)

// podman exec is recorded in a phase of its own; a restart is added to the recording.
func TestExecAndRestart(t *testing.T) {
	eachRuntime(t, func(t *testing.T, runtime string) {
		p, rootfs := newPodman(t, runtime), rootFS(t)
		p.ok(p.run("--detach", "--name", "c", "--annotation", record+"=web", "--rootfs", rootfs, "/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"))
		p.ok(p.do("exec", "c", "/bin/mkdir", "/made-by-exec"))
		p.ok(p.do("stop", "--time", "20", "c"))
		path := recordings(t, "web-", 1)[0]
		r := lab.ReadRecording(t, path)
		if !r.Complete || !slices.Contains(names(r, profile.PhaseExec), "mkdir") || slices.Contains(names(r, profile.PhaseWorkload), "mkdir") {
			t.Fatalf("complete %v %v, exec %q, workload %q", r.Complete, r.Dropped, names(r, profile.PhaseExec), names(r, profile.PhaseWorkload))
		}
		p.ok(p.do("start", "c"))
		p.ok(p.do("exec", "c", "/bin/rmdir", "/made-by-exec"))
		p.ok(p.do("stop", "--time", "20", "c"))
		wait(t, "the second run", func() bool { return len(lab.ReadRecording(t, path).Runs) == 2 })
		recordings(t, "web-", 1)
		if got := names(lab.ReadRecording(t, path), profile.PhaseExec); !slices.Contains(got, "mkdir") || !slices.Contains(got, "rmdir") {
			t.Errorf("after the restart: %q", got)
		}
	})
}

// The case that hung oci-seccomp-bpf-hook (its issue 36).
func TestManyWithTheHostsPids(t *testing.T) {
	eachRuntime(t, func(t *testing.T, runtime string) {
		p, rootfs := newPodman(t, runtime), rootFS(t)
		const n = 24
		began := time.Now()
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				// Every second one makes a call that the others do not.
				r := p.run("--rm", "--pid=host", "--annotation", record+"=shared", "--rootfs", rootfs, "/bin/sh", "-c", []string{"sync", "true"}[i%2]+"; ls / >/dev/null; sleep 0.2; exit 7")
				if r.exit != 7 {
					t.Error(r)
				}
			})
		}
		wg.Wait()
		ids, syncs := map[string]bool{}, 0
		for _, path := range recordings(t, "shared-", n) {
			r := lab.ReadRecording(t, path)
			if !r.Complete || len(r.Runs) != 1 {
				t.Errorf("%s: %v, %v", path, r.Dropped, r.Runs)
			}
			if filepath.Base(path) != "shared-"+r.ID+".json" {
				t.Errorf("%s is of %s", path, r.ID)
			}
			ids[r.ID] = true
			if slices.Contains(names(r, profile.PhaseWorkload), "sync") {
				syncs++
			}
		}
		if len(ids) != n || syncs != n/2 {
			t.Errorf("%d containers, %d of them with sync", len(ids), syncs)
		}
		t.Logf("%d containers in %v", n, time.Since(began))
	})
}

// Nothing of ours runs inside the container, so that its limits do not matter.
func TestLimits(t *testing.T) {
	eachRuntime(t, func(t *testing.T, runtime string) {
		p, rootfs := newPodman(t, runtime), rootFS(t)
		command := []string{"--rootfs", rootfs, "/bin/sh", "-c", "ls / >/dev/null; cat /proc/self/cgroup"}
		p.ok(p.run(slices.Concat([]string{"--rm", "--annotation", record + "=free"}, command)...))
		r := p.ok(p.run(slices.Concat([]string{"--rm", "--annotation", record + "=limited", "--memory", "32m", "--pids-limit", "8"}, command)...))
		if !strings.Contains(r.stdout, "libpod") {
			t.Errorf("the container has no cgroup of its own: %s", r)
		}
		free, limited := lab.ReadRecording(t, recordings(t, "free-", 1)[0]), lab.ReadRecording(t, recordings(t, "limited-", 1)[0])
		if a, b := names(free, profile.PhaseWorkload), names(limited, profile.PhaseWorkload); !limited.Complete || !slices.Equal(a, b) {
			t.Errorf("free: %q\nlimited: %q %v", a, b, limited.Dropped)
		}
	})
}

// Planted files in the directory of recordings: the container is refused, nothing outside is written.
func TestPlanted(t *testing.T) {
	p, rootfs := newPodman(t, lab.NeedTool(t, "runc")), rootFS(t)
	clearRecordings(t)
	precious := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(precious, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	// The id is known before the container starts.
	create := func(name string) string {
		r := p.ok(p.do("create", "--network", "none", "--annotation", record+"="+name, "--rootfs", rootfs, "/bin/true"))
		return strings.TrimSpace(r.stdout)
	}
	if err := os.MkdirAll(recordingsDir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, plant := range map[string]func(string) error{
		"symlink": func(path string) error { return os.Symlink(precious, path) },
		"fifo":    func(path string) error { return syscall.Mkfifo(path, 0o666) },
		"foreign": func(path string) error { return os.WriteFile(path, []byte("foreign"), 0o644) },
	} {
		id := create(name)
		if err := plant(filepath.Join(recordingsDir, name+"-"+id+".json")); err != nil {
			t.Fatal(err)
		}
		if r := p.do("start", "--attach", id); r.exit == 0 || !contains("is there and", r.stderr) {
			t.Errorf("%s: %s", name, r)
		}
	}
	if data, err := os.ReadFile(precious); err != nil || string(data) != "precious" {
		t.Errorf("precious is %q, %v", data, err)
	}
	if list, err := tracer.List(); err != nil || len(list) > 0 {
		t.Errorf("under way: %+v, %v", list, err)
	}
	clearRecordings(t)
}

// The container's monitor is killed, and with it whoever would have called poststop: the evidence stays in the recorder,
// whole, until status --collect writes it where the hook would have.
func TestMonitorKilled(t *testing.T) {
	eachRuntime(t, func(t *testing.T, runtime string) {
		p, rootfs := newPodman(t, runtime), rootFS(t)
		id := strings.TrimSpace(p.ok(p.run("--detach", "--annotation", record+"=killed", "--rootfs", rootfs, "/bin/sh", "-c", "while :; do sleep 0.1; done")).stdout)
		// Podman 4.3 cannot remove a container whose monitor and init are both gone; the runtime can.
		t.Cleanup(func() {
			run(t, runtime, "delete", "--force", id)
			_ = unix.Unmount(filepath.Join(p.dir, "root/vfs-containers", id, "userdata/shm"), unix.MNT_DETACH)
		})
		for pid := range strings.FieldsSeq(p.ok(p.do("inspect", "--format", "{{.State.ConmonPid}} {{.State.Pid}}", id)).stdout) {
			n, err := strconv.Atoi(pid)
			if err != nil || n <= 1 {
				t.Fatalf("pid %q", pid)
			}
			if err := syscall.Kill(n, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
		wait(t, "the recording's end", func() bool {
			list, err := tracer.List()
			return err == nil && len(list) == 1 && list[0].ID == id && list[0].State == tracer.Ended
		})
		if files, _ := os.ReadDir(recordingsDir); len(files) > 0 {
			t.Errorf("collected by whom? %v", files)
		}
		// Who clears up leaves it to a hook that comes late.
		var abort result
		var wg sync.WaitGroup
		wg.Go(func() { abort = run(t, toolPath, "status", "--abort", "--grace", "4s") })
		if said := run(t, toolPath, "status"); !strings.Contains(said.stdout, id) || !strings.Contains(said.stdout, "--collect") {
			t.Errorf("status does not say what to do: %s", said)
		}
		said := run(t, toolPath, "status", "--collect", "--grace", "0s")
		if want := "collected " + id + " into " + recordings(t, "killed-", 1)[0] + "\n"; said.exit != 0 || said.stdout != want {
			t.Fatalf("want %q: %s", want, said)
		}
		if wg.Wait(); abort.exit != 0 || abort.stdout != "nothing to clear\n" {
			t.Errorf("status --abort: %s", abort)
		}
		r := lab.ReadRecording(t, recordings(t, "killed-", 1)[0])
		ran(t, r, "/bin/busybox")
		if !r.Complete || !slices.Contains(names(r, profile.PhaseWorkload), "clone") && !slices.Contains(names(r, profile.PhaseWorkload), "fork") && !slices.Contains(names(r, profile.PhaseWorkload), "vfork") {
			t.Errorf("got %v, %q", r.Dropped, names(r, profile.PhaseWorkload))
		}
	})
}

// podman itself is killed: the monitor lives and calls poststop.
func TestEngineKilled(t *testing.T) {
	eachRuntime(t, func(t *testing.T, runtime string) {
		newPodman(t, runtime)
		rootfs := rootFS(t)
		cmd := exec.Command("podman", "run", "--network", "none", "--annotation", record+"=alone", "--rootfs", rootfs, "/bin/sh", "-c", "mkdir /started; sleep 1; sync")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		wait(t, "the workload", func() bool {
			_, err := os.Stat(filepath.Join(rootfs, "started"))
			return err == nil
		})
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if r := lab.ReadRecording(t, recordings(t, "alone-", 1)[0]); !r.Complete || !slices.Contains(names(r, profile.PhaseWorkload), "sync") {
			t.Errorf("got %v, %q", r.Dropped, names(r, profile.PhaseWorkload))
		}
	})
}

// A container that never comes to its program: no thin profile. Podman calls no poststop for it, so that the next
// recording's hook collects what is left, and the evidence says why.
func TestNeverStarted(t *testing.T) {
	eachRuntime(t, func(t *testing.T, runtime string) {
		p, rootfs := newPodman(t, runtime), rootFS(t)
		edit(t, hooksDir+"/seccompgen-record.json", `"oci-hook"`, `"oci-hook", "--grace", "0s"`)
		out := filepath.Join(t.TempDir(), "out.json")
		if err := os.WriteFile(filepath.Join(rootfs, "bin/garbage"), []byte("no program"), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, program := range []string{"/no/such/program", "/bin/garbage"} {
			if r := p.run("--rm", "--annotation", trace+"=of:"+out, "--rootfs", rootfs, program); r.exit == 0 {
				t.Fatal(r)
			}
		}
		p.ok(p.run("--rm", "--annotation", record+"=next", "--rootfs", rootfs, "/bin/true"))
		recordings(t, "next-", 1)
		wait(t, "the recordings' end", func() bool {
			list, err := tracer.List()
			return err == nil && len(list) == 0
		})
		if _, err := os.Stat(out); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a profile was written: %q", allowed(t, out))
		}
		never := 0
		for _, path := range recordings(t, "", 3) {
			if r := lab.ReadRecording(t, path); r.Dropped[profile.DropNotStarted] == 1 && !r.Complete {
				never++
			}
		}
		if never != 2 {
			t.Errorf("%d recordings say that the container never started", never)
		}
	})
}

// In a user namespace, as under a rootless engine, and without a service, the hook says in one line why it does not work;
// --optional lets the container run.
func TestNotRoot(t *testing.T) {
	bundle := t.TempDir()
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), []byte(`{"ociVersion":"1.0.2","process":{"args":["/x"]}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	state := `{"ociVersion":"1.0.2","id":"rootless","status":"creating","pid":4194304,"bundle":"` + bundle + `","annotations":{"` + record + `":"web"}}`
	for _, args := range [][]string{nil, {"--optional"}} {
		cmd := exec.Command(hookPath, slices.Concat(args, []string{"--socket", bundle + "/none", "--dir", bundle + "/recordings"})...)
		cmd.Stdin = strings.NewReader(state)
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}},
		}
		if err := os.Chmod(filepath.Dir(hookPath), 0o755); err != nil {
			t.Fatal(err)
		}
		out, err := cmd.CombinedOutput()
		if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
			t.Skipf("SKIPPED: no user namespace here: %v", err)
		}
		if (err == nil) != (args != nil) || !strings.Contains(string(out), "user namespace") || strings.Count(string(out), "\n") != 1 {
			t.Errorf("%q: %v, %q", args, err, out)
		}
	}
	// Another user.
	cmd := exec.Command(hookPath)
	cmd.Stdin = strings.NewReader(state)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "needs root") || strings.Count(string(out), "\n") != 1 {
		t.Errorf("%v, %q", err, out)
	}
}
