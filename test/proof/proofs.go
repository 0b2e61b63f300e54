package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seccompgen/seccompgen/internal/verify"
	"github.com/seccompgen/seccompgen/profile"
)

// rest is what follows the flags of a command that runs the workload.
func (w workload) rest() []string {
	if w.Package == "" { // a bundle
		return nil
	}
	return append([]string{w.Package, "--"}, w.Flags...)
}

// report runs verify and decodes what it says.
func (p *proof) report(ctx context.Context, w workload, dir, rt string, flags ...string) (*verify.Report, error) {
	out, err := p.seccompgen(ctx, w, dir, slices.Concat([]string{"verify", "--json", "--runtime", rt}, flags, w.rest())...)
	if len(out) == 0 && err != nil {
		return nil, err
	}
	r := &verify.Report{}
	if err := json.Unmarshal(out, r); err != nil {
		return nil, fmt.Errorf("decode the report: %w", err)
	}
	return r, nil
}

// each opens the workloads one after the other, under every runtime.
func (p *proof) each(ctx context.Context, all []workload, do func(w workload, dir, rt string) error) error {
	var errs []error
	for _, w := range all {
		dir, err := p.open(ctx, w)
		if err != nil {
			return err
		}
		for _, rt := range p.runtimes {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err := do(w, dir, rt); err != nil {
				fmt.Fprintln(os.Stderr, w.Name, rt, err)
				errs = append(errs, fmt.Errorf("%s: %w", w.Name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// mutation is what became of the runs without one call.
type mutation struct {
	Call   string   `json:"call"`
	Made   int      `json:"made"` // recorded runs that made it
	Runs   int      `json:"runs"`
	Caught int      `json:"caught"` // runs in which it was denied and named
	First  int      `json:"first"`  // of these, before any other call
	Others []string `json:"others"` // denied after it
}

// mutations takes every call out of the exact profile, one at a time: every run that attempts it must be caught, and it must
// be named.
func (p *proof) mutations(ctx context.Context, all []workload) error {
	if p.state == "" {
		p.state = filepath.Join(p.work, "state")
	}
	if err := os.MkdirAll(p.state, 0o755); err != nil {
		return err
	}
	fmt.Fprintln(p.out, "| workload | runtime | calls that every recorded run makes | of their runs caught and named | named first | denied after it | calls that come and go: caught in runs, recorded in runs |")
	fmt.Fprintln(p.out, "|---|---|---|---|---|---|---|")
	return p.each(ctx, all, func(w workload, dir, rt string) error {
		done, err := p.mutate(ctx, w, dir, rt)
		if err != nil {
			return err
		}
		var always, runs, caught, first int
		var others, rare, wrong []string
		for _, m := range done {
			if m.Made < p.runs {
				rare = append(rare, fmt.Sprintf("%s %d, %d", m.Call, m.Caught, m.Made))
				continue
			}
			always, runs, caught, first = always+1, runs+m.Runs, caught+m.Caught, first+m.First
			if len(m.Others) > 0 {
				others = append(others, m.Call+" ("+strings.Join(m.Others, " ")+")")
			}
			if m.Caught < m.Runs {
				wrong = append(wrong, fmt.Sprintf("%s in %d of %d", m.Call, m.Caught, m.Runs))
			}
		}
		fmt.Fprintf(p.out, "| %s | %s | %d | %d of %d | %d | %s | %s |\n", w.Name, filepath.Base(rt), always, caught, runs, first, strings.Join(others, ", "), strings.Join(rare, "; "))
		if len(wrong) > 0 {
			return fmt.Errorf("caught only: %s", strings.Join(wrong, ", "))
		}
		return nil
	})
}

// mutate makes the mutations of a workload, as far as the state does not hold them already.
func (p *proof) mutate(ctx context.Context, w workload, dir, rt string) ([]mutation, error) {
	base := filepath.Join(p.state, fmt.Sprintf("%s-%s-%d", w.Name, strings.ReplaceAll(rt, "/", "_"), p.runs))
	rec, prof, kept := base+".recording.json", base+".profile.json", base+".json"
	done := []mutation{}
	data, err := os.ReadFile(kept)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := p.seccompgen(ctx, w, dir, slices.Concat([]string{"record", "-o", rec, "--runtime", rt, "--runs", fmt.Sprint(p.runs)}, w.rest())...); err != nil {
			return nil, err
		}
		if _, err := p.seccompgen(ctx, w, dir, "build", "--policy", "exact", "-o", prof, rec); err != nil {
			return nil, err
		}
	} else if err == nil {
		err = json.Unmarshal(data, &done)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	exact, err := read(prof, profile.ReadProfile)
	if err != nil {
		return nil, err
	}
	recording, err := read(rec, profile.ReadRecording)
	if err != nil {
		return nil, err
	}
	for _, call := range profile.Allowed(exact) {
		if slices.ContainsFunc(done, func(m mutation) bool { return m.Call == call }) {
			continue
		}
		m, err := p.without(ctx, w, dir, rt, rec, exact, call, recording)
		if err != nil {
			return nil, fmt.Errorf("without %s: %w", call, err)
		}
		fmt.Fprintf(os.Stderr, "%s %s without %s: caught %d of %d, first %d, recorded in %d\n", w.Name, rt, call, m.Caught, m.Runs, m.First, m.Made)
		done = append(done, *m)
		data, err := json.MarshalIndent(done, "", "  ")
		if err != nil {
			return nil, err
		}
		if err := renameio.WriteFile(kept, data, 0o644); err != nil {
			return nil, err
		}
	}
	return done, nil
}

// made counts the runs of a recording that made a call, in any phase and ABI.
func made(r *profile.Recording, name string) int {
	runs := map[string]bool{}
	for _, s := range r.Syscalls {
		if s.Name == name {
			for _, id := range s.Runs {
				runs[id] = true
			}
		}
	}
	return len(runs)
}

// patience is how long a run without a call may take: some programs hang then.
func patience(r *profile.Recording) string {
	slowest := 0.0
	for _, run := range r.Runs {
		slowest = max(slowest, run.Seconds)
	}
	return time.Duration((3*slowest + 4) * float64(time.Second)).Round(time.Second).String()
}

// take returns the profile without a call, answered with errno if that is not 0.
func take(p *specs.LinuxSeccomp, call string, errno uint) *specs.LinuxSeccomp {
	mutant := *p
	mutant.Syscalls = nil
	for _, s := range p.Syscalls {
		s.Names = slices.DeleteFunc(slices.Clone(s.Names), func(n string) bool { return n == call })
		if len(s.Names) > 0 {
			mutant.Syscalls = append(mutant.Syscalls, s)
		}
	}
	if errno != 0 {
		mutant.Syscalls = append(mutant.Syscalls, specs.LinuxSyscall{Names: []string{call}, Action: specs.ActErrno, ErrnoRet: &errno})
	}
	return &mutant
}

func (p *proof) write(name string, prof *specs.LinuxSeccomp) (string, error) {
	data, err := profile.Encode(prof)
	if err != nil {
		return "", err
	}
	path := filepath.Join(p.work, name)
	return path, os.WriteFile(path, data, 0o600)
}

// without verifies the profile without one call, in all runs.
func (p *proof) without(ctx context.Context, w workload, dir, rt, rec string, exact *specs.LinuxSeccomp, call string, recording *profile.Recording) (*mutation, error) {
	path, err := p.write("without.json", take(exact, call, 0))
	if err != nil {
		return nil, err
	}
	r, err := p.report(ctx, w, dir, rt, "--profile", path, "--recording", rec, "--runs", fmt.Sprint(p.runs), "--keep-going", "--timeout", patience(recording))
	if err != nil {
		return nil, err
	}
	m := &mutation{Call: call, Made: made(recording, call), Runs: len(r.Runs), Others: []string{}}
	seen, before := map[int]bool{}, map[int]bool{} // by run
	for _, d := range r.Denials {
		switch {
		case d.Name == call && !seen[d.Run]:
			seen[d.Run] = true
			m.Caught++
			if !before[d.Run] {
				m.First++
			}
		case d.Name != call:
			before[d.Run] = true
			if seen[d.Run] && !slices.Contains(m.Others, d.Name) {
				m.Others = append(m.Others, d.Name)
			}
		}
	}
	return m, nil
}

// alarms verifies unmutated robust profiles: no run may be denied anything.
func (p *proof) alarms(ctx context.Context, all []workload) error {
	fmt.Fprintln(p.out, "| workload | runtime | recorded runs | calls allowed | verified runs | runs with denials | denied | other alarms |")
	fmt.Fprintln(p.out, "|---|---|---|---|---|---|---|---|")
	return p.each(ctx, all, func(w workload, dir, rt string) error {
		rec, prof := filepath.Join(p.work, "recording.json"), filepath.Join(p.work, "profile.json")
		if err := p.robust(ctx, w, dir, rt, 1, rec, prof); err != nil {
			return err
		}
		r, err := p.report(ctx, w, dir, rt, "--profile", prof, "--recording", rec, "--runs", fmt.Sprint(p.runs), "--keep-going")
		if err != nil {
			return err
		}
		runs := map[int]bool{}
		var names []string
		for _, d := range r.Denials {
			runs[d.Run] = true
			if !slices.Contains(names, d.Name) {
				names = append(names, d.Name)
			}
		}
		other := ""
		if r.Verdict != verify.Pass && len(runs) == 0 {
			other = string(r.Verdict) + ": " + r.Reason
		}
		fmt.Fprintf(p.out, "| %s | %s | 1 | %d | %d | %d | %s | %s |\n", w.Name, filepath.Base(rt), r.Profile.Allowed, len(r.Runs), len(runs), strings.Join(names, " "), other)
		if r.Verdict != verify.Pass {
			return errors.New(r.Reason)
		}
		return nil
	})
}

// robust records and builds with the default policy.
func (p *proof) robust(ctx context.Context, w workload, dir, rt string, runs int, rec, prof string) error {
	_, err := p.seccompgen(ctx, w, dir, slices.Concat([]string{"record", "-o", rec, "--runtime", rt, "--runs", fmt.Sprint(runs)}, w.rest())...)
	if err == nil {
		_, err = p.seccompgen(ctx, w, dir, "build", "-o", prof, rec)
	}
	return err
}

// repairs begins with a profile that allows nothing. What it adds is held against a recording of as many runs and the policy.
func (p *proof) repairs(ctx context.Context, all []workload) error {
	fmt.Fprintln(p.out, "| workload | runtime | named with --allow | rounds | runs under LOG | calls added | of these seen by a recording or the Go runtime's | verified | s |")
	fmt.Fprintln(p.out, "|---|---|---|---|---|---|---|---|---|")
	return p.each(ctx, all, func(w workload, dir, rt string) error {
		rec, prof, fixed := filepath.Join(p.work, "recording.json"), filepath.Join(p.work, "profile.json"), filepath.Join(p.work, "fixed.json")
		empty, err := p.write("empty.json", &specs.LinuxSeccomp{DefaultAction: specs.ActErrno})
		if err != nil {
			return err
		}
		var allow []string
		began := time.Now()
		var r *verify.Report
		for { // a person would decide about each
			flags := []string{"--profile", empty, "--repair", fixed, "--runs", fmt.Sprint(p.runs)}
			if len(allow) > 0 {
				flags = append(flags, "--allow", strings.Join(allow, ","))
			}
			if r, err = p.report(ctx, w, dir, rt, flags...); err != nil {
				return err
			}
			before := len(allow)
			for _, m := range r.Repair.Refused {
				if profile.AskFirst(m.Name) != "" && !slices.Contains(allow, m.Name) {
					allow = append(allow, m.Name)
				}
			}
			if len(allow) == before {
				break
			}
		}
		took := time.Since(began).Seconds()
		if err := p.robust(ctx, w, dir, rt, p.runs, rec, prof); err != nil {
			return err
		}
		robust, err := read(prof, profile.ReadProfile)
		if err != nil {
			return err
		}
		seen, known := profile.Allowed(robust), 0
		var unseen []string
		for _, a := range r.Repair.Added {
			if slices.Contains(seen, a.Name) {
				known++
			} else {
				unseen = append(unseen, a.Name)
			}
		}
		verdict := fmt.Sprintf("%s, %d runs", r.Verdict, len(r.Runs))
		fmt.Fprintf(p.out, "| %s | %s | %s | %d | %d | %d | %d %s | %s | %.0f |\n", w.Name, filepath.Base(rt), strings.Join(allow, " "), r.Repair.Rounds, r.Repair.Probes,
			len(r.Repair.Added), known, strings.Join(unseen, " "), verdict, took)
		if r.Verdict != verify.Pass {
			return errors.New(r.Reason)
		}
		return nil
	})
}

// shrinks shrinks robust profiles, and makes the runs that the certificates rest on again.
func (p *proof) shrinks(ctx context.Context, all []workload) error {
	fmt.Fprintln(p.out, "| workload | runtime | calls allowed | needed | removed | tolerated denials | min | needed calls confirmed | not confirmed |")
	fmt.Fprintln(p.out, "|---|---|---|---|---|---|---|---|---|")
	return p.each(ctx, all, func(w workload, dir, rt string) error {
		rec, prof, small := filepath.Join(p.work, "recording.json"), filepath.Join(p.work, "profile.json"), filepath.Join(p.work, w.Name+"-small.json")
		if err := p.robust(ctx, w, dir, rt, 10, rec, prof); err != nil {
			return err
		}
		began := time.Now()
		out, err := p.seccompgen(ctx, w, dir, slices.Concat([]string{"verify", "--json", "--runtime", rt, "--profile", prof, "--recording", rec, "--shrink", small}, w.rest())...)
		if err != nil {
			return err
		}
		took := time.Since(began).Minutes()
		var cert verify.Certificate
		if err := json.Unmarshal(out, &cert); err != nil {
			return err
		}
		result, err := read(small, profile.ReadProfile)
		if err != nil {
			return err
		}
		recording, err := read(rec, profile.ReadRecording)
		if err != nil {
			return err
		}
		var not []string
		for _, n := range cert.Needed {
			for _, t := range n.Trials {
				failed, err := p.confirm(ctx, w, dir, rt, rec, result, n.Name, t, cert.Deadline, recording)
				if err != nil {
					return err
				}
				if failed == 0 {
					not = append(not, fmt.Sprintf("%s %s (0 of %d, certificate %d of %d)", n.Name, t.Errno, confirmations(t), t.Failed, t.Of))
				}
			}
		}
		fmt.Fprintf(p.out, "| %s | %s | %d | %d | %d | %s | %.1f | %d of %d trials | %s |\n", w.Name, filepath.Base(rt), len(cert.Needed)+len(cert.Removed), len(cert.Needed), len(cert.Removed),
			strings.Join(cert.Denied, " "), took, trials(cert)-len(not), trials(cert), strings.Join(not, ", "))
		if len(not) > 0 {
			return fmt.Errorf("not confirmed: %s", strings.Join(not, ", "))
		}
		return nil
	})
}

func trials(c verify.Certificate) (n int) {
	for _, needed := range c.Needed {
		n += len(needed.Trials)
	}
	return n
}

// confirmations is how often the runs of a trial are made again: more where it failed now and then.
func confirmations(t verify.Trial) int {
	if t.Failed == t.Of {
		return t.Of
	}
	return max(3*t.Of, 20)
}

// confirm makes the runs of one trial again, and counts those whose tests, exit status or end differ.
func (p *proof) confirm(ctx context.Context, w workload, dir, rt, rec string, small *specs.LinuxSeccomp, call string, t verify.Trial, deadline float64, recording *profile.Recording) (int, error) {
	errno := map[string]uint{"EPERM": 1, "ENOSYS": 38}[t.Errno]
	path, err := p.write("confirm.json", take(small, call, errno))
	if err != nil {
		return 0, err
	}
	timeout := time.Duration(deadline * float64(time.Second)).String()
	r, err := p.report(ctx, w, dir, rt, "--profile", path, "--recording", rec, "--runs", fmt.Sprint(confirmations(t)), "--keep-going", "--timeout", timeout)
	if err != nil {
		return 0, err
	}
	bad := map[int]bool{}
	for _, test := range r.Tests {
		bad[test.Run] = true
	}
	for i, run := range r.Runs {
		if run.Exit != recording.Runs[0].Exit {
			bad[i+1] = true
		}
	}
	return len(bad), nil
}
