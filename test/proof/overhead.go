package main

import (
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
)

// overhead compares seccompgen record with a plain run of the same bundle, turn by turn, on a test of about ten seconds.
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
		if err := p.bundle(ctx, dir, rt, count); err != nil {
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
	record := func() (time.Duration, error) {
		return timed(exec.CommandContext(ctx, filepath.Join(p.bin, "seccompgen"), "record", "--runtime", rt, "--bundle", dir, "-o", filepath.Join(p.work, "overhead.json")))
	}
	var without, with []float64
	for range rounds {
		for _, turn := range []struct {
			run func() (time.Duration, error)
			to  *[]float64
		}{{plain, &without}, {record, &with}} {
			took, err := turn.run()
			if err != nil {
				return err
			}
			*turn.to = append(*turn.to, took.Seconds())
		}
	}
	fmt.Fprintf(p.out, "| encoding/json, %d times, in one bundle | s, median of %d |\n|---|---|\n", count, rounds)
	fmt.Fprintf(p.out, "| %s run | %.2f |\n| seccompgen record | %.2f |\n| ratio | %.3f |\n", filepath.Base(rt), median(without), median(with), median(with)/median(without))
	return nil
}

// bundle writes the configuration that the runtime itself would write, with the tests for its process.
func (p *proof) bundle(ctx context.Context, dir, rt string, count int) error {
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
