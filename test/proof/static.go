package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seccompgen/seccompgen/internal/gobin"
	"github.com/seccompgen/seccompgen/profile"
)

const staticIntro = "# What the machine code of the workloads can call\n\nEach row: the tests were recorded once, and their binary was analyzed. " +
	"Recorded and not reachable must be nothing but the calls of other programs: of C libraries and children. `make static` measures it again.\n\n"

// static compares, for every workload, what was recorded with what the machine code of its binary can call.
func (p *proof) static(ctx context.Context, all []workload) error {
	fmt.Fprintln(p.out, "| workload | recorded | Go runtime | reachable | of them not recorded, nor the Go runtime's | recorded and not reachable | other programs, C | functions | analysis, s |")
	fmt.Fprintln(p.out, "|---|---:|---:|---:|---:|---|---|---:|---:|")
	bad := 0
	for _, w := range all {
		dir, err := p.open(ctx, w)
		if err != nil {
			return err
		}
		path, binary := filepath.Join(p.work, "recording.json"), filepath.Join(p.work, "binary.test")
		if _, err := p.seccompgen(ctx, w, dir, slices.Concat([]string{"record", "-o", path, "--runtime", p.runtimes[0], "--runs", fmt.Sprint(p.runs), w.Package, "--"}, w.Flags)...); err != nil {
			return fmt.Errorf("%s: %w", w.Name, err)
		}
		r, err := read(path, profile.ReadRecording)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(r.Programs, func(p profile.Program) bool { return p.SHA256 == r.Workload.SHA256 })
		if i < 0 || r.Programs[i].Static == nil {
			return fmt.Errorf("%s: the recording holds no analysis of the binary", w.Name)
		}
		build := exec.CommandContext(ctx, "go", "test", "-c", "-o", binary, w.Package)
		build.Dir, build.Env = dir, append(append(os.Environ(), "GOFLAGS=-mod=mod"), w.Env...)
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w: %s", w.Name, err, out)
		}
		start := time.Now()
		reach, err := gobin.Analyze(binary)
		if err != nil {
			return err
		}
		took := time.Since(start)
		static := r.Programs[i].Static
		row := compare(r, static)
		others := otherPrograms(r)
		if slices.Contains(w.Env, "CGO_ENABLED=1") {
			others = append(others, "glibc")
		}
		if (len(row.residue) > 0 || len(static.Unresolved) > 0) && len(others) == 0 {
			bad++
		}
		if n := len(static.Unresolved); n > 0 {
			others = append(others, fmt.Sprintf("%d unresolved", n))
		}
		fmt.Fprintf(p.out, "| %s | %d | %d | %d | %d | %s | %s | %d | %.2f |\n", w.Name, row.recorded, row.goRuntime, row.reachable, row.untested,
			strings.Join(row.residue, " "), strings.Join(others, " "), reach.Functions, took.Seconds())
	}
	if bad > 0 {
		return fmt.Errorf("%d pure Go workloads made calls that their machine code cannot make, or hide some", bad)
	}
	return nil
}

type comparison struct {
	recorded, goRuntime, reachable, untested int
	residue                                  []string // recorded, and neither reachable nor the Go runtime's
}

func compare(r *profile.Recording, static *profile.Static) comparison {
	type key struct {
		abi specs.Arch
		nr  uint32
	}
	recorded, goRuntime, reachable := map[key]string{}, map[key]bool{}, map[key]bool{}
	for _, s := range r.Syscalls {
		if s.Phase != profile.PhaseRuntime && s.Denied == nil {
			recorded[key{s.ABI, s.Nr}] = s.Name
		}
	}
	for _, c := range static.GoRuntime {
		goRuntime[key{c.ABI, c.Nr}] = true
	}
	for _, c := range static.Reachable {
		reachable[key{c.ABI, c.Nr}] = true
	}
	row := comparison{recorded: len(recorded), goRuntime: len(goRuntime), reachable: len(reachable)}
	for k, name := range recorded {
		if !reachable[k] && !goRuntime[k] {
			row.residue = append(row.residue, name)
		}
	}
	for k := range reachable {
		if recorded[k] == "" && !goRuntime[k] {
			row.untested++
		}
	}
	slices.Sort(row.residue)
	return row
}

// otherPrograms names the executables that were the first to make some call and are not the test binary.
func otherPrograms(r *profile.Recording) []string {
	var all []string
	for _, s := range r.Syscalls {
		for _, c := range s.Callers {
			if s.Phase != profile.PhaseRuntime && c.Exe != "" && !strings.HasSuffix(c.Exe, ".test") {
				all = append(all, c.Exe)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}
