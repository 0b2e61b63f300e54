// Package container runs a bundle once under an OCI runtime, with the hook in it, and brings back the recording.
//
// All that a run needs lies in a session directory, see [Session]; mounts are in a namespace of their own. A crash of
// any process therefore leaves a directory, at most a container and an entry in the recorder, and [Leftovers] finds
// all three.
package container

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/renameio/v2"
	"github.com/moby/sys/reexec"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/internal/bundle"
	"github.com/seccompgen/seccompgen/internal/ociruntime"
	"github.com/seccompgen/seccompgen/internal/testresult"
	"github.com/seccompgen/seccompgen/profile"
	"github.com/seccompgen/seccompgen/tracer"
)

// grace is how long the end of a container may take after it was killed.
const grace = 20 * time.Second

// Options are the settings of one run.
type Options struct {
	Runtime *ociruntime.Runtime
	Hook    string // the oci-hook binary
	Seccomp *specs.LinuxSeccomp
	Denials bool
	// Programs looks at the executables that ran.
	Programs bool
	Timeout  time.Duration
	// StopAfterDenial ends a run this long after its first denial: a program that hangs then tells nothing more.
	StopAfterDenial time.Duration
	// Enough tells of the result of a test whether it is all that the run was made for: then it is ended. May be nil.
	Enough func(test, result string) bool
	Output io.Writer // what the workload prints
}

// Run runs the bundle once. The recording comes back also when the workload failed or was stopped, and then says so.
func (s *Session) Run(ctx context.Context, b *bundle.Bundle, o Options) (*profile.Recording, error) {
	id := s.newID()
	dir := filepath.Join(s.Dir, id)
	root := filepath.Join(dir, "runtime")
	for _, d := range []string{root, filepath.Join(dir, "rootfs")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, fmt.Errorf("make the run's directory: %w", err)
		}
	}
	plan, err := s.prepare(dir, b, o)
	if err != nil {
		return nil, err
	}
	plan.Argv = []string{o.Runtime.Path, "--root", root, "run", "--bundle", dir, id}
	if err := renameio.WriteFile(filepath.Join(dir, "runtime-path"), []byte(o.Runtime.Path), 0o600); err != nil {
		return nil, fmt.Errorf("note the runtime: %w", err)
	}

	output := &lockedWriter{to: o.Output}
	enough := make(chan struct{})
	var once sync.Once
	tests := &testresult.Parser{To: output, Result: func(test, result string) {
		if o.Enough != nil && o.Enough(test, result) {
			once.Do(func() { close(enough) })
		}
	}}
	said := &tail{}
	began := time.Now()
	ended, err := s.execute(ctx, id, root, plan, o, enough, tests, io.MultiWriter(output, said))
	if err != nil {
		return nil, err
	}
	seconds := time.Since(began).Seconds()
	if err := tests.Close(); err != nil {
		return nil, fmt.Errorf("print what the workload printed: %w", err)
	}
	r, err := collect(id, filepath.Join(dir, "recording.json"))
	if err != nil {
		if refused := tracer.Try(); refused != nil {
			return nil, refused
		}
		return nil, fmt.Errorf("%w (%s exited with %d: %s)", err, o.Runtime.Name, ended.exit, said.last())
	}
	if err := s.clear(id, dir, o.Runtime); err != nil {
		return nil, err
	}
	if err := s.keepKnown(r.Programs); err != nil {
		return nil, err
	}
	for i, p := range r.Programs { // the test binary: it has a place of its own in each session
		r.Programs[i].Path = strings.TrimPrefix(p.Path, s.Dir+"/")
	}
	r.Runtime = o.Runtime.Runtime
	r.NoNewPrivileges = b.Spec.Process.NoNewPrivileges
	r.Workload = b.Workload
	r.Runs[0].Exit, r.Runs[0].Seconds, r.Runs[0].Varied = ended.exit, float64(int(seconds*1000))/1000, b.Varied
	r.Tests = tests.Results()
	r.Drop(ended.reason, min(uint64(len(ended.reason)), 1))
	if action := o.Seccomp.DefaultAction; r.Dropped[profile.DropNotStarted] > 0 && (action == specs.ActAllow || action == specs.ActLog) {
		return nil, fmt.Errorf("%s did not start the container: %s", o.Runtime.Name, said.last())
	}
	return r, nil
}

// prepare writes config.json, and plans the mounts.
func (s *Session) prepare(dir string, b *bundle.Bundle, o Options) (*stagePlan, error) {
	plan := &stagePlan{}
	spec := *b.Spec
	linux := *spec.Linux
	linux.Seccomp = o.Seccomp
	spec.Linux = &linux
	if b.Host {
		var err error
		if plan.Overlays, err = bundle.Overlays(dir); err != nil {
			return nil, err
		}
		spec.Root = &specs.Root{Path: filepath.Join(dir, "rootfs")}
	}
	if onOverlay(dir) {
		plan.Tmpfs = filepath.Join(dir, "memory")
		if err := os.MkdirAll(plan.Tmpfs, 0o700); err != nil {
			return nil, fmt.Errorf("make the run's directory: %w", err)
		}
		for i := range plan.Overlays {
			n := strconv.Itoa(i)
			plan.Overlays[i].Upper, plan.Overlays[i].Work = filepath.Join(plan.Tmpfs, "upper", n), filepath.Join(plan.Tmpfs, "work", n)
		}
	}
	args := []string{"oci-hook", "--output", filepath.Join(dir, "recording.json")}
	if o.Denials {
		args = append(args, "--denials")
	}
	if b.Init {
		args = append(args, "--init")
	}
	if o.Programs {
		args = append(args, "--known", s.known())
	} else {
		args = append(args, "--no-programs")
	}
	h := specs.Hook{Path: o.Hook, Args: args}
	hooks := specs.Hooks{}
	if spec.Hooks != nil {
		hooks = *spec.Hooks
	}
	// Ours first at the start, so that the bundle's own hooks cannot delay it; first at the end too, for its evidence.
	hooks.CreateRuntime = slices.Concat([]specs.Hook{h}, hooks.CreateRuntime)
	hooks.Poststop = slices.Concat([]specs.Hook{h}, hooks.Poststop)
	spec.Hooks = &hooks
	data, err := json.MarshalIndent(spec, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode config.json: %w", err)
	}
	if err := renameio.WriteFile(filepath.Join(dir, "config.json"), data, 0o600); err != nil {
		return nil, fmt.Errorf("write config.json: %w", err)
	}
	return plan, nil
}

// onOverlay reports whether a directory cannot hold an overlay's upper layer because it is on an overlay itself, as in
// a container.
func onOverlay(dir string) bool {
	const overlayfsMagic = 0x794c7630
	var fs syscall.Statfs_t
	return syscall.Statfs(dir, &fs) == nil && fs.Type == overlayfsMagic
}

type ending struct {
	exit   int
	reason string // a reason to mark the recording incomplete, or ""
}

// execute runs the runtime until the container has ended, or ends it.
func (s *Session) execute(ctx context.Context, id, root string, plan *stagePlan, o Options, enough <-chan struct{}, stdout, stderr io.Writer) (*ending, error) {
	text, err := json.Marshal(plan)
	if err != nil {
		return nil, fmt.Errorf("encode the stage's plan: %w", err)
	}
	cmd := reexec.Command(stageName, string(text))
	cmd.Stdout, cmd.Stderr = stdout, stderr
	// Children that outlive the container may hold its pipes; its end is the runtime's end.
	cmd.WaitDelay = 2 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Unshareflags: syscall.CLONE_NEWNS,
		Setpgid:      true, // Ctrl-C is ours to handle
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the runtime: %w", err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	deadline := time.NewTimer(o.Timeout)
	defer deadline.Stop()
	end := &ending{}
	var denied <-chan struct{}
	if o.Denials && o.StopAfterDenial > 0 {
		watch, stop := context.WithCancel(ctx)
		defer stop()
		denied = watchDenials(watch, id, o.StopAfterDenial)
	}
	select {
	case err = <-done:
	case <-deadline.C:
		end.reason = profile.DropDeadline
		err = s.kill(cmd, id, root, o.Runtime, done)
	case <-denied:
		// The verdict is known and rests on what was seen: nothing is missing.
		err = s.kill(cmd, id, root, o.Runtime, done)
	case <-enough:
		err = s.kill(cmd, id, root, o.Runtime, done)
	case <-ctx.Done():
		kill := s.kill(cmd, id, root, o.Runtime, done)
		return nil, errors.Join(context.Cause(ctx), s.clear(id, filepath.Dir(root), o.Runtime), ignoreExit(kill))
	}
	var exit *exec.ExitError
	switch {
	case err == nil || errors.Is(err, exec.ErrWaitDelay):
	case errors.As(err, &exit) && exit.Exited():
		end.exit = exit.ExitCode()
	case errors.As(err, &exit):
		// Somebody killed the runtime. Its container may live, and goes with it; its evidence does not.
		end.exit = 128 + int(exit.Sys().(syscall.WaitStatus).Signal())
		if end.reason == "" {
			end.reason = profile.DropKilled
		}
		if err := destroy(o.Runtime, root, id); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("run the runtime: %w", err)
	}
	return end, nil
}

func ignoreExit(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) || errors.Is(err, exec.ErrWaitDelay) {
		return nil
	}
	return err
}

// watchDenials closes its channel some time after the first denial of a container. It looks at the recorder's memory alone: a
// call of bpf(2) while the container runs can cost its recording evidence, see tracer.Watch.
func watchDenials(ctx context.Context, id string, after time.Duration) <-chan struct{} {
	over := make(chan struct{})
	go func() {
		tick := time.NewTicker(250 * time.Millisecond)
		defer tick.Stop()
		var denied func() uint64
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if denied == nil {
				denied, _ = tracer.Watch(id) // nothing may be recorded yet
			}
			if denied != nil && denied() > 0 {
				time.AfterFunc(after, func() { close(over) })
				return
			}
		}
	}()
	return over
}

// kill ends a container, and its runtime if that does not end by itself then.
func (s *Session) kill(cmd *exec.Cmd, id, root string, r *ociruntime.Runtime, done <-chan error) error {
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for end := time.After(grace); ; {
		_ = call(r, root, "kill", id, "KILL") // it may not be there yet, or have ended this moment
		killInit(id)
		select {
		case err := <-done:
			return err
		case <-again.C:
		case <-end:
			_ = cmd.Process.Kill()
			err := <-done
			return errors.Join(err, destroy(r, root, id))
		}
	}
}

// killInit kills a container's init that the runtime takes for dead: by SCMP_ACT_KILL_THREAD its first thread can be, while
// others live. The recorder knows its pid, and by the mount namespace whether that is still the same process.
func killInit(id string) {
	recordings, err := tracer.List()
	if err != nil {
		return // what is left of the container shows in the recording
	}
	for _, r := range recordings {
		if r.ID != id || r.Mount == 0 {
			continue
		}
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/ns/mnt", r.Pid))
		for _, ns := range threads {
			var st unix.Stat_t
			if unix.Stat(ns, &st) == nil && uint32(st.Ino) == r.Mount {
				_ = unix.Kill(r.Pid, unix.SIGKILL)
				return
			}
		}
	}
}

// collect reads what the poststop hook wrote. Where the hook died the recorder still has the evidence.
func collect(id, path string) (*profile.Recording, error) {
	f, err := os.Open(path)
	if err == nil {
		defer f.Close()
		if r, err := profile.ReadRecording(f); err != nil || r.Dropped[profile.DropCollect] == 0 {
			return r, err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open the recording: %w", err)
	}
	var r *profile.Recording
	if err := tracer.Collect(id, func(got *profile.Recording) error { r = got; return nil }); err != nil {
		return nil, fmt.Errorf("no recording: %w", err)
	}
	return r, nil
}

// lockedWriter lets standard output and standard error share one writer.
type lockedWriter struct {
	mu sync.Mutex
	to io.Writer
}

func (w *lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.to.Write(p)
}

// tail keeps the last part of what the runtime says.
type tail struct{ buf []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p...)
	if n := len(t.buf); n > 8192 {
		t.buf = slices.Clone(t.buf[n-4096:])
	}
	return len(p), nil
}

func (t *tail) last() string {
	if line := bytes.TrimSpace(t.buf); len(line) > 0 {
		return lastLine(line)
	}
	return "it said nothing"
}
