package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/seccompgen/seccompgen/internal/gobin"
	"github.com/seccompgen/seccompgen/profile"
)

const speedIntro = "\n## Building and analyzing\n\nWall time, medians of five.\n\n"

// speed measures what has to do with no container: build of a thousand recordings, the analysis of a large Go binary.
func (p *proof) speed(ctx context.Context, _ []workload) error {
	fmt.Fprintln(p.out, "| what | size | s | target |")
	fmt.Fprintln(p.out, "|---|---:|---:|---:|")
	one := filepath.Join(p.work, "recording.json")
	if _, err := p.seccompgen(ctx, workload{}, p.work, "record", "-o", one, "encoding/json", "--", "-test.short"); err != nil {
		return err
	}
	r, err := read(one, profile.ReadRecording)
	if err != nil {
		return err
	}
	const many = 1000
	args := []string{"build", "-o", filepath.Join(p.work, "profile.json")}
	size := 0
	for i := range many {
		id := fmt.Sprintf("run-%d", i)
		r.ID, r.Runs[0].ID = id, id
		for j := range r.Syscalls {
			r.Syscalls[j].Runs = []string{id}
		}
		var b bytes.Buffer
		if err := r.Write(&b); err != nil {
			return err
		}
		path := filepath.Join(p.work, id+".json")
		if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
			return err
		}
		size += b.Len()
		args = append(args, path)
	}
	seconds, err := p.fiveTimes(func() error {
		_, err := p.seccompgen(ctx, workload{}, p.work, args...)
		return err
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(p.out, "| `build` of %d recordings of encoding/json's tests | %.0f MB | %.2f | 1 |\n", many, float64(size)/1e6, seconds)

	tools, err := exec.CommandContext(ctx, "go", "env", "GOTOOLDIR").Output()
	if err != nil {
		return err
	}
	compiler := filepath.Join(string(bytes.TrimSpace(tools)), "compile")
	st, err := os.Stat(compiler)
	if err != nil {
		return err
	}
	var reach *gobin.Reach
	seconds, err = p.fiveTimes(func() error {
		reach, err = gobin.Analyze(compiler)
		return err
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(p.out, "| the static analysis of Go's own compiler, %d functions | %.0f MB | %.2f | 10 |\n", reach.Functions, float64(st.Size())/1e6, seconds)
	return nil
}

// fiveTimes returns the median of five runs.
func (p *proof) fiveTimes(f func() error) (seconds float64, err error) {
	var all []time.Duration
	for range 5 {
		start := time.Now()
		if err := f(); err != nil {
			return 0, err
		}
		all = append(all, time.Since(start))
	}
	slices.Sort(all)
	return all[2].Seconds(), nil
}
