package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/profile"
	"github.com/seccompgen/seccompgen/test/lab"
)

// child returns the pid of a process's only child: that of seccompgen is the runtime.
func child(t testing.TB, pid int) int {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, path := range tasks {
		data, _ := os.ReadFile(path) // threads end meanwhile
		all = append(all, strings.Fields(string(data))...)
	}
	if len(all) != 1 {
		t.Fatalf("process %d has the children %q, want one", pid, all)
	}
	n, err := strconv.Atoi(all[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// process is a process that is not ours, so that its end cannot be waited for as a child's.
type process struct{ fd int }

func openProcess(t testing.TB, pid int) process {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatalf("pidfd_open(%d): %v", pid, err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return process{fd}
}

// ended waits a minute for the end of the process.
func (p process) ended() bool {
	for end := time.Now().Add(time.Minute); ; {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}, int(max(time.Until(end), 0).Milliseconds()))
		if !errors.Is(err, unix.EINTR) {
			return n == 1
		}
	}
}

func (p process) kill(t testing.TB) {
	t.Helper()
	if err := unix.PidfdSendSignal(p.fd, unix.SIGKILL, nil, 0); err != nil {
		t.Fatal(err)
	}
}

// shared makes a directory with the named pipes go and done, for a container and the test to wait for each other.
func shared(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"go", "done"} {
		if err := unix.Mkfifo(filepath.Join(dir, name), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// tell writes to a pipe of a container, hear reads what the container writes.
func tell(t testing.TB, path string) {
	t.Helper()
	if err := os.WriteFile(path, []byte("x\n"), 0); err != nil {
		t.Fatal(err)
	}
}

func hear(t testing.TB, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Read(make([]byte, 16)); err != nil {
		t.Fatalf("the container did not answer: %v", err)
	}
}

// sleeper starts a container that says ready, waits for go, prints a line, says done, and waits for go again.
func sleeper(t testing.TB, out, dir string, flags ...string) *running {
	t.Helper()
	args := slices.Concat([]string{"record", "-o", out, "--rootfs", busyboxRoot(t), "--mount", dir + ":/shared"}, flags,
		[]string{"--exec", "--", "/bin/sh", "-c", "echo ready; read x </shared/go; echo more; echo $? >/shared/done; read x </shared/go"})
	return start(t, "ready", args...)
}

// only returns the one recording that is under way.
func only(t testing.TB) (id string, pid int) {
	t.Helper()
	s := readStatus(t)
	if len(s.Recordings) != 1 {
		t.Fatalf("want one recording under way: %+v", s)
	}
	return s.Recordings[0].ID, s.Recordings[0].Pid
}

func absent(t testing.TB, path string) {
	t.Helper()
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s was written (%v)", path, err)
	}
}

// TestKillSeccompgen: the container does not need seccompgen, status finds what is left, status --abort clears it.
func TestKillSeccompgen(t *testing.T) {
	needRoot(t)
	for _, name := range []string{"abort at once", "abort after the container's end"} {
		t.Run(name, func(t *testing.T) {
			out, dir := filepath.Join(t.TempDir(), "r.json"), shared(t)
			r := sleeper(t, out, dir)
			id, pid := only(t)
			runtime, init := openProcess(t, child(t, r.cmd.Process.Pid)), openProcess(t, pid)
			if err := r.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			r.wait(t)

			tell(t, filepath.Join(dir, "go")) // the container goes on: it takes the word and answers
			hear(t, filepath.Join(dir, "done"))
			s := readStatus(t)
			if len(s.Recordings) != 1 || s.Recordings[0].ID != id || s.Recordings[0].State != "recording" {
				t.Errorf("status shows %+v, want %s to be recorded still", s.Recordings, id)
			}
			if len(s.Leftovers) != 2 || s.Leftovers[1].ID != id || filepath.Dir(s.Leftovers[1].Dir) != s.Leftovers[0].Dir {
				t.Fatalf("status shows %+v, want the session and the run %s as left over", s.Leftovers, id)
			}
			if text := seccompgen(t, 0, "status").stdout; !strings.Contains(text, "left by a crash: "+s.Leftovers[1].Dir) || !strings.Contains(text, "--abort") {
				t.Errorf("status says neither what is left nor what to do:\n%s", text)
			}

			if name != "abort at once" {
				tell(t, filepath.Join(dir, "go"))
				if !runtime.ended() {
					t.Fatal("the runtime does not end")
				}
				left := lab.ReadRecording(t, filepath.Join(s.Leftovers[1].Dir, "recording.json"))
				if !left.Complete || !slices.ContainsFunc(left.Syscalls, func(c profile.Syscall) bool { return c.Phase == profile.PhaseWorkload }) {
					t.Errorf("the poststop hook left no whole recording: %v", left.Incomplete())
				}
				if n := len(readStatus(t).Recordings); n != 0 {
					t.Errorf("status shows %d recordings after the container's end", n)
				}
			}
			text := seccompgen(t, 0, "status", "--abort").stdout
			if !strings.Contains(text, "cleared "+s.Leftovers[1].Dir) {
				t.Errorf("status --abort does not say what it cleared:\n%s", text)
			}
			if !init.ended() || !runtime.ended() {
				t.Error("the container or its runtime lives on")
			}
			absent(t, out)
			nothingLeft(t, id)
		})
	}
}

// TestAbortSpares: status --abort clears what crashes left, and no recording of a seccompgen that lives: not before its
// workload, and not after it, when all tasks are gone and the hook has yet to collect.
func TestAbortSpares(t *testing.T) {
	needRoot(t)
	rootfs := t.TempDir()
	lab.Calls(t, filepath.Join(rootfs, "calls"))
	for stage, state := range map[string]string{"start": "armed", "stop": "ended"} {
		t.Run(state, func(t *testing.T) {
			out, g := filepath.Join(t.TempDir(), "r.json"), newGate(t, stage)
			r := start(t, "", "record", "-o", out, "--hook", g.hook, "--rootfs", rootfs, "--exec", "--", "/calls", "run", "calls", "104")
			g.await(t, 1)
			if s := readStatus(t); len(s.Recordings) != 1 || s.Recordings[0].State != state || len(s.Leftovers) != 0 {
				t.Errorf("status shows %+v, want one recording that is %s", s, state)
			}
			if said := seccompgen(t, 0, "status", "--abort").stdout; said != "nothing to clear\n" {
				t.Errorf("status --abort says %q", said)
			}
			g.open(t)
			if end := r.wait(t); end.exit != 0 {
				t.Fatalf("record was disturbed: %s", end)
			}
			if rec := lab.ReadRecording(t, out); !rec.Complete {
				t.Error(rec.Incomplete())
			}
			nothingLeft(t)
		})
	}
}

// TestKillRuntime: the container of a runtime that was killed goes too, and what it called stays.
func TestKillRuntime(t *testing.T) {
	needRoot(t)
	for _, rt := range ociRuntimes {
		t.Run(rt.name, func(t *testing.T) {
			out, dir := filepath.Join(t.TempDir(), "r.json"), shared(t)
			r := sleeper(t, out, dir, "--runtime", rt.find(t))
			id, pid := only(t)
			init := openProcess(t, pid)
			openProcess(t, child(t, r.cmd.Process.Pid)).kill(t)
			if end := r.wait(t); end.exit != 0 || !strings.Contains(end.stderr, "recording is incomplete: runs ended by a signal") {
				t.Errorf("record does not say what happened: %s", end)
			}
			rec := lab.ReadRecording(t, out)
			if rec.Complete || rec.Dropped[profile.DropKilled] != 1 || rec.Runs[0].Exit != 128+int(syscall.SIGKILL) {
				t.Errorf("recording has complete %v, dropped %v, exit status %d", rec.Complete, rec.Dropped, rec.Runs[0].Exit)
			}
			if got := calls(rec, profile.PhaseWorkload); len(got) < 10 || len(calls(rec, profile.PhaseRuntime)) < 2 {
				t.Errorf("the evidence was not kept: %q", got)
			}
			refused(t, out)
			if !init.ended() {
				t.Error("the container lives on")
			}
			nothingLeft(t, id)
		})
	}
}

// refused asks for build's refusal of an incomplete recording.
func refused(t testing.TB, recording string) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "profile.json")
	r := seccompgen(t, 1, "build", "-o", out, recording)
	if !strings.Contains(r.stderr, "recording is incomplete") || !strings.Contains(r.stderr, "--allow-incomplete") {
		t.Errorf("build does not say why it refuses: %s", r)
	}
	absent(t, out)
	seccompgen(t, 0, "build", "-o", out, "--allow-incomplete", recording)
}

// TestKillHook: whatever kills the hook, and whenever, the outcome is a whole recording or an error, never a thin
// recording, and nothing stays.
func TestKillHook(t *testing.T) {
	needRoot(t)
	rootfs := t.TempDir()
	lab.Calls(t, filepath.Join(rootfs, "calls"))
	want := []string{"SCMP_ARCH_X86_64 104 getgid", "SCMP_ARCH_X86_64 231 exit_group"}
	record := func(t *testing.T, hook string) (*profile.Recording, result) {
		t.Helper()
		out := filepath.Join(t.TempDir(), "r.json")
		r := finish(t, command(t, "record", "-o", out, "--hook", hook, "--rootfs", rootfs, "--exec", "--", "/calls", "run", "calls", "104"))
		defer nothingLeft(t)
		if r.exit != 0 {
			absent(t, out)
			return nil, r
		}
		return lab.ReadRecording(t, out), r
	}
	whole := func(t *testing.T, r *profile.Recording, said result) {
		t.Helper()
		if r == nil {
			t.Errorf("there is no recording: %s", said)
		} else if !r.Complete || !slices.Equal(calls(r, profile.PhaseWorkload), want) {
			t.Errorf("recording is not whole: %v, calls %q", r.Incomplete(), calls(r, profile.PhaseWorkload))
		}
	}
	failed := func(t *testing.T, r *profile.Recording, said result) {
		t.Helper()
		if r != nil || said.exit != 1 || !strings.Contains(said.stderr, "signal: killed") {
			t.Errorf("record does not fail with the hook's end: %s", said)
		}
	}
	t.Run("createRuntime before", func(t *testing.T) {
		r, said := record(t, hookScript(t, "start) kill -KILL $$"))
		failed(t, r, said)
	})
	t.Run("createRuntime after", func(t *testing.T) {
		r, said := record(t, hookScript(t, `start) real "$@"; kill -KILL $$`))
		failed(t, r, said)
	})
	t.Run("poststop before", func(t *testing.T) {
		r, said := record(t, hookScript(t, "stop) kill -KILL $$"))
		whole(t, r, said)
	})
	t.Run("poststop after", func(t *testing.T) {
		r, said := record(t, hookScript(t, `stop) real "$@"; kill -KILL $$`))
		whole(t, r, said)
	})
	// In the middle: the hook takes 5 to 40 ms, most of it to load the programs at the start.
	for ms := 2; ms <= 44; ms += 6 {
		limited := fmt.Sprintf(`printf %%s "$state" | timeout --signal KILL %d.%03d %q "$@"`, ms/1000, ms%1000, filepath.Join(binDir, "oci-hook"))
		t.Run(fmt.Sprintf("createRuntime after %d ms", ms), func(t *testing.T) {
			if r, said := record(t, hookScript(t, "start) "+limited)); said.exit == 0 {
				whole(t, r, said)
			}
		})
		t.Run(fmt.Sprintf("poststop after %d ms", ms), func(t *testing.T) {
			r, said := record(t, hookScript(t, "stop) "+limited))
			whole(t, r, said)
		})
	}
}

// TestInterrupt: Ctrl-C and its like end everything, also before the container runs.
func TestInterrupt(t *testing.T) {
	needRoot(t)
	interrupted := func(t *testing.T, r *running, out, id string) {
		t.Helper()
		if end := r.wait(t); end.exit != 1 || !strings.HasSuffix(end.stderr, "seccompgen: error: interrupted, and cleaned up\n") {
			t.Errorf("want exit status 1 and the word interrupted: %s", end)
		}
		absent(t, out)
		nothingLeft(t, id)
	}
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		t.Run(signal.String(), func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "r.json")
			r := sleeper(t, out, shared(t))
			id, pid := only(t)
			init := openProcess(t, pid)
			if err := r.cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			interrupted(t, r, out, id)
			if !init.ended() {
				t.Error("the container lives on")
			}
		})
	}
	t.Run("in the hook", func(t *testing.T) {
		out, gate := filepath.Join(t.TempDir(), "r.json"), newGate(t, "start")
		r := start(t, "", "record", "-o", out, "--hook", gate.hook, "--rootfs", busyboxRoot(t), "--exec", "--", "/bin/sleep", "600")
		gate.await(t, 1)
		id, _ := only(t)
		if err := r.cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		gate.open(t)
		began := time.Now()
		interrupted(t, r, out, id)
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// heldRuntime is runc that waits at a gate before it makes a container, and before each kill.
func heldRuntime(t testing.TB, g *gate) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "runtime")
	script := "#!/bin/sh\ncase \" $* \" in *' run '*) " + g.hold + " ;; *' kill '*) " + lab.NeedTool(t, "runc") + " \"$@\"; e=$?; " + g.hold +
		"; exit $e ;; esac\nexec runc \"$@\"\n"
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestBeforeContainer: seccompgen is stopped while there is no container yet. It comes, and must go.
func TestBeforeContainer(t *testing.T) {
	needRoot(t)
	t.Run("building", func(t *testing.T) {
		g, bin := newGate(t, "start"), t.TempDir()
		script := fmt.Sprintf("#!/bin/sh\ncase $1 in test) %s ;; esac\nexec %q \"$@\"\n", g.hold, lab.NeedTool(t, "go"))
		if err := os.WriteFile(filepath.Join(bin, "go"), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		dir := module(t, "tiny_test.go", tiny)
		cmd := command(t, "record", ".")
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
		r := startCommand(t, "", cmd)
		g.await(t, 1)
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		g.open(t)
		if end := r.wait(t); end.exit != 1 || end.stderr != "seccompgen: error: interrupted, and cleaned up\n" {
			t.Errorf("want exit status 1 and the word interrupted: %s", end)
		}
		absent(t, filepath.Join(dir, "recording.json"))
		nothingLeft(t)
	})
	t.Run("interrupted", func(t *testing.T) {
		out, g := filepath.Join(t.TempDir(), "r.json"), newGate(t, "start")
		r := start(t, "", "record", "-o", out, "--runtime", heldRuntime(t, g), "--rootfs", busyboxRoot(t), "--exec", "--", "/bin/sleep", "600")
		g.await(t, 1)
		if err := r.cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		g.await(t, 1) // the first kill has found nothing
		began := time.Now()
		g.open(t)
		if end := r.wait(t); end.exit != 1 || !strings.Contains(end.stderr, "seccompgen: error: interrupted, and cleaned up") {
			t.Errorf("want exit status 1 and the word interrupted: %s", end)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
		absent(t, out)
		nothingLeft(t)
	})
	t.Run("killed", func(t *testing.T) {
		out, g := filepath.Join(t.TempDir(), "r.json"), newGate(t, "start")
		r := start(t, "", "record", "-o", out, "--runtime", heldRuntime(t, g), "--rootfs", busyboxRoot(t), "--exec", "--", "/bin/sleep", "600")
		g.await(t, 1)
		runtime := openProcess(t, child(t, r.cmd.Process.Pid))
		if err := r.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		r.wait(t)
		if s := readStatus(t); len(s.Recordings) != 0 || len(s.Leftovers) != 2 {
			t.Errorf("status shows %+v, want the session and its run as left over", s)
		}
		seccompgen(t, 0, "status", "--abort")
		g.open(t)
		if !runtime.ended() {
			t.Error("the runtime goes on without its bundle")
		}
		nothingLeft(t)
	})
}

// TestDeadline: a run that takes too long is ended, and its recording says so.
func TestDeadline(t *testing.T) {
	needRoot(t)
	for _, rt := range ociRuntimes {
		t.Run(rt.name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "r.json")
			r := seccompgen(t, 0, "record", "-o", out, "--runtime", rt.find(t), "--timeout", "2s", "--rootfs", busyboxRoot(t), "--exec", "--", "/bin/sleep", "600")
			rec := lab.ReadRecording(t, out)
			if rec.Complete || rec.Dropped[profile.DropDeadline] != 1 || !strings.Contains(r.stderr, "runs ended by the deadline") {
				t.Errorf("complete %v, dropped %v, want the deadline: %s", rec.Complete, rec.Dropped, r)
			}
			if rec.Runs[0].Seconds < 2 || rec.Runs[0].Seconds > 20 {
				t.Errorf("the run took %v s with a timeout of 2 s", rec.Runs[0].Seconds)
			}
			refused(t, out)
			nothingLeft(t, rec.ID)
		})
	}
}
