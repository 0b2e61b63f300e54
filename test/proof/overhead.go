package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seccompgen/seccompgen/profile"
)

// overhead compares seccompgen record with a plain run of the same bundle, and seccompgen verify with a plain run under the
// same profile, turn by turn, on a test of about ten seconds.
func (p *proof) overhead(ctx context.Context, _ []workload) error {
	const rounds = 5
	rt := p.runtimes[0]
	dir := filepath.Join(p.work, "bundle")
	if err := os.MkdirAll(filepath.Join(dir, "rootfs", "tmp"), 0o755); err != nil {
		return err
	}
	build := exec.CommandContext(ctx, "go", "test", "-c", "-o", filepath.Join(dir, "rootfs", "tests"), "encoding/json")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the tests: %w: %s", err, out)
	}
	count := 1
	plain := func() (time.Duration, error) {
		return timed(exec.CommandContext(ctx, rt, "run", "--bundle", dir, fmt.Sprintf("overhead-%d", os.Getpid())))
	}
	for { // until a run takes ten seconds
		if err := p.bundle(ctx, dir, rt, count, nil); err != nil {
			return err
		}
		took, err := plain()
		if err != nil {
			return err
		}
		if took > 8*time.Second {
			break
		}
		count = max(count+1, int(float64(count)*10/took.Seconds()))
	}
	rec, prof := filepath.Join(p.work, "overhead.json"), filepath.Join(p.work, "profile.json")
	seccompgen := func(args ...string) func() (time.Duration, error) {
		return func() (time.Duration, error) {
			return timed(exec.CommandContext(ctx, filepath.Join(p.bin, "seccompgen"), args...))
		}
	}
	without, with, err := turns(rounds, plain, seccompgen("record", "--runtime", rt, "--bundle", dir, "-o", rec))
	if err != nil {
		return err
	}
	if _, err := seccompgen("build", "-o", prof, rec)(); err != nil {
		return err
	}
	filter, err := read(prof, profile.ReadProfile)
	if err != nil {
		return err
	}
	if err := p.bundle(ctx, dir, rt, count, filter); err != nil {
		return err
	}
	unwatched, watched, err := turns(rounds, plain, seccompgen("verify", "--runtime", rt, "--bundle", dir, "--profile", prof, "--recording", rec))
	if err != nil {
		return err
	}
	fmt.Fprintf(p.out, "| encoding/json, %d times, in one bundle | s, median of %d |\n|---|---|\n", count, rounds)
	fmt.Fprintf(p.out, "| %s run | %.2f |\n| seccompgen record | %.2f |\n| ratio | %.3f |\n", filepath.Base(rt), without, with, with/without)
	fmt.Fprintf(p.out, "| %s run under the profile | %.2f |\n| seccompgen verify under it | %.2f |\n| ratio | %.3f |\n", filepath.Base(rt), unwatched, watched, watched/unwatched)
	return p.unasked(ctx, rt, dir)
}

// unasked measures what containers cost that do not ask for a recording.
func (p *proof) unasked(ctx context.Context, rt, bundle string) error {
	const rounds = 100
	state, err := json.Marshal(specs.State{Version: "1.0.2", ID: "c1", Status: specs.StateCreating, Pid: os.Getpid(), Bundle: bundle, Annotations: map[string]string{"a": "b"}})
	if err != nil {
		return err
	}
	wrapped := filepath.Join(p.bin, "seccompgen-runc")
	rows := []struct {
		text    string
		command []string
		over    int // the row that it is compared with
		cpu     []float64
	}{
		{text: "a program that does nothing", command: []string{"/bin/true"}, over: -1},
		{text: "oci-hook, called for it", command: []string{filepath.Join(p.bin, "oci-hook")}, over: 0},
		{text: filepath.Base(rt), command: []string{rt, "--version"}, over: -1},
		{text: "seccompgen-runc", command: []string{wrapped, "--version"}, over: 2},
		{text: filepath.Base(rt) + " create", command: []string{rt, "create", "--bundle", bundle, "--help"}, over: -1},
		{text: "seccompgen-runc create, which looks into config.json", command: []string{wrapped, "create", "--bundle", bundle, "--help"}, over: 4},
	}
	for range rounds {
		for i := range rows {
			cmd := exec.CommandContext(ctx, rows[i].command[0], rows[i].command[1:]...)
			cmd.Stdin = bytes.NewReader(state)
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("%v: %w: %s", cmd.Args, err, out)
			}
			rows[i].cpu = append(rows[i].cpu, (cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime()).Seconds()*1000)
		}
	}
	fmt.Fprint(p.out, unaskedIntro)
	fmt.Fprintf(p.out, "| the process | CPU, ms, median of %d | more, ms |\n|---|---:|---:|\n", rounds)
	for _, r := range rows {
		more := ""
		if r.over >= 0 {
			more = fmt.Sprintf("%.1f", median(r.cpu)-median(rows[r.over].cpu))
		}
		fmt.Fprintf(p.out, "| %s | %.1f | %s |\n", r.text, median(r.cpu), more)
	}
	return nil
}

const unaskedIntro = "\n## A container that does not ask\n\nCPU time of a process, turn by turn. Podman and CRI-O do not call the hook for such a container; an engine that is told to call it for " +
	"all does, and Docker and ctr call the runtime that they were given. Target: 3 ms more.\n\n"

// turns times two things turn by turn, and returns the medians in seconds.
func turns(rounds int, a, b func() (time.Duration, error)) (float64, float64, error) {
	var first, second []float64
	for range rounds {
		for _, turn := range []struct {
			run func() (time.Duration, error)
			to  *[]float64
		}{{a, &first}, {b, &second}} {
			took, err := turn.run()
			if err != nil {
				return 0, 0, err
			}
			*turn.to = append(*turn.to, took.Seconds())
		}
	}
	return median(first), median(second), nil
}

// bundle writes the configuration that the runtime itself would write, with the tests for its process.
func (p *proof) bundle(ctx context.Context, dir, rt string, count int, filter *specs.LinuxSeccomp) error {
	config := filepath.Join(dir, "config.json")
	if err := os.RemoveAll(config); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, rt, "spec", "--bundle", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("%s spec: %w: %s", rt, err, out)
	}
	data, err := os.ReadFile(config)
	if err != nil {
		return err
	}
	var spec specs.Spec
	if err := json.Unmarshal(data, &spec); err != nil {
		return err
	}
	spec.Process.Terminal = false
	spec.Process.Capabilities.Ambient = nil
	spec.Process.Rlimits = nil
	spec.Process.Args = []string{"/tests", "-test.short", fmt.Sprintf("-test.count=%d", count)}
	spec.Root.Readonly = false
	spec.Linux.Seccomp = filter
	if data, err = json.Marshal(spec); err != nil {
		return err
	}
	return os.WriteFile(config, data, 0o600)
}

func timed(cmd *exec.Cmd) (time.Duration, error) {
	cmd.Stdout, cmd.Stderr = io.Discard, io.Discard
	began := time.Now()
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("%v: %w", cmd.Args, err)
	}
	return time.Since(began), nil
}

func median(of []float64) float64 {
	slices.Sort(of)
	return of[len(of)/2]
}
