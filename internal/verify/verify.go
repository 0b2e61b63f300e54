// Package verify runs a bundle again under a profile, and tells what the profile denied and which tests it changed.
//
// The criterion is zero denials; an exit status proves nothing, as programs survive many denials unseen. The results
// of the tests are the second one.
package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seccompgen/seccompgen/internal/bundle"
	"github.com/seccompgen/seccompgen/internal/container"
	"github.com/seccompgen/seccompgen/profile"
)

// ReportVersion is the version of report.json.
const ReportVersion = 1

// afterDenial is how long a run may go on after its first denial.
const afterDenial = 10 * time.Second

// Verdict is the outcome of a verification.
type Verdict string

// The verdicts. An inconclusive one means that a run broke in a way that says nothing about the profile.
const (
	Pass         Verdict = "pass"
	Fail         Verdict = "fail"
	Inconclusive Verdict = "inconclusive"
)

// Report is the outcome, also as report.json.
type Report struct {
	Version int      `json:"version"`
	Verdict Verdict  `json:"verdict"`
	Reason  string   `json:"reason"`
	Runs    []Run    `json:"runs"`
	Denials []Denial `json:"denials"`
	Tests   []Test   `json:"tests"` // those whose result differs
	Profile struct {
		Allowed       int `json:"allowed"`
		DockerDefault int `json:"dockerDefault"` // what Docker's default profile allows on the same ABIs
	} `json:"profile"`
}

// Run is one run under the profile.
type Run struct {
	Runtime         profile.Runtime `json:"runtime"`
	NoNewPrivileges bool            `json:"noNewPrivileges"`
	Exit            int             `json:"exit"`
	Seconds         float64         `json:"seconds"`
}

// Denial is a call that the profile refused in one run. Several refusals with the same outcome are one denial.
type Denial struct {
	Run     int           `json:"run"` // 1 is the first
	ABI     specs.Arch    `json:"abi"`
	Nr      uint32        `json:"nr"`
	Name    string        `json:"name,omitempty"`
	Args    [6]uint64     `json:"args"`
	Action  string        `json:"action"` // errno, trap or kill
	Errno   uint32        `json:"errno,omitempty"`
	Phase   profile.Phase `json:"phase"`
	Process string        `json:"process"`
	Caller  string        `json:"caller,omitempty"` // the function that made the call
	Test    string        `json:"test,omitempty"`   // the test that it ran in
	Stack   []string      `json:"stack,omitempty"`  // functions, innermost first
	Count   uint64        `json:"count"`
	Order   int           `json:"order"` // 1 is the first kind of denial in its run: later ones may follow from it
}

// Test is a test whose result under the profile is another one than without.
type Test struct {
	Run      int    `json:"run"`
	Name     string `json:"name"`
	Recorded string `json:"recorded"`
	Verified string `json:"verified"` // "" if it never ended
}

// Options are the settings of a verification.
type Options struct {
	Run      container.Options // Seccomp and Denials are set here
	Runs     int
	Recorded *profile.Recording // whose test results to compare with; nil makes a control run without the profile
	Progress func(done, of int)
	Resolve  func(*profile.Recording) error // names the functions on the callers' stacks; may be nil
	Talk     io.Writer
}

// Verify runs the bundle under the profile. It stops at the first run that fails.
func Verify(ctx context.Context, s *container.Session, b *bundle.Bundle, p *specs.LinuxSeccomp, o Options) (*Report, error) {
	if err := Check(p); err != nil {
		return nil, err
	}
	r := &Report{Version: ReportVersion, Denials: []Denial{}, Tests: []Test{}, Runs: []Run{}}
	r.Profile.Allowed = len(profile.Allowed(p))
	if docker, err := dockerDefault(b.Spec); err == nil { // no reason not to verify
		r.Profile.DockerDefault = len(onABIs(profile.Allowed(docker), p.Architectures))
	}
	baseline := o.Recorded
	if baseline == nil {
		var err error
		if baseline, err = control(ctx, s, b, o); err != nil {
			return nil, err
		}
	}
	o.Run.Seccomp, o.Run.Denials, o.Run.StopAfterDenial = p, true, afterDenial
	for i := range o.Runs {
		rec, err := s.Run(ctx, b, o.Run)
		if err != nil {
			return nil, fmt.Errorf("run %d under the profile: %w", i+1, err)
		}
		if o.Resolve != nil {
			if err := o.Resolve(rec); err != nil {
				return nil, err
			}
		}
		r.add(i+1, rec, baseline)
		if o.Progress != nil {
			o.Progress(i+1, o.Runs)
		}
		if r.Verdict = r.judge(rec, baseline); r.Verdict != Pass {
			return r, r.excuse(ctx, s, b, o)
		}
	}
	r.Reason = fmt.Sprintf("no denials and the same test results in %d of %d runs", o.Runs, o.Runs)
	return r, nil
}

// dockerDefault is Docker's default profile for the container's capabilities on this kernel.
func dockerDefault(spec *specs.Spec) (*specs.LinuxSeccomp, error) {
	process := *spec.Process
	if process.Capabilities == nil { // which GetDefaultProfile does not expect
		process.Capabilities = &specs.LinuxCapabilities{}
	}
	return seccomp.GetDefaultProfile(&specs.Spec{Process: &process})
}

// onABIs returns the names that at least one of the ABIs has: Docker's profile is for all architectures at once.
func onABIs(names []string, abis []specs.Arch) []string {
	return slices.DeleteFunc(names, func(name string) bool {
		return !slices.ContainsFunc(abis, func(abi specs.Arch) bool { _, has := profile.Number(abi, name); return has })
	})
}

// control runs the bundle without the profile.
func control(ctx context.Context, s *container.Session, b *bundle.Bundle, o Options) (*profile.Recording, error) {
	o.Run.Seccomp, o.Run.Denials = container.AllowAll(), false
	rec, err := s.Run(ctx, b, o.Run)
	if err != nil {
		return nil, fmt.Errorf("control run without the profile: %w", err)
	}
	if err := rec.Incomplete(); err != nil {
		return nil, fmt.Errorf("control run without the profile: %w", err)
	}
	return rec, nil
}

func (r *Report) add(run int, rec, baseline *profile.Recording) {
	r.Runs = append(r.Runs, Run{Runtime: rec.Runtime, NoNewPrivileges: rec.NoNewPrivileges, Exit: rec.Runs[0].Exit, Seconds: rec.Runs[0].Seconds})
	for _, c := range rec.Syscalls {
		if c.Denied == nil {
			continue
		}
		d := Denial{
			Run: run, ABI: c.ABI, Nr: c.Nr, Name: c.Name, Args: c.Denied.Args, Action: c.Denied.Action, Errno: c.Denied.Errno,
			Phase: c.Phase, Count: c.Denied.Count, Order: c.Denied.Order,
		}
		if len(c.Callers) > 0 {
			who := c.Callers[0]
			d.Process, d.Caller, d.Test, d.Stack = who.Comm, who.Function(), who.Test, who.Stack
		}
		r.Denials = append(r.Denials, d)
	}
	slices.SortFunc(r.Denials, func(a, b Denial) int { return cmp.Or(cmp.Compare(a.Run, b.Run), cmp.Compare(a.Order, b.Order)) })
	for _, name := range slices.Sorted(maps.Keys(union(baseline.Tests, rec.Tests))) {
		if was, is := baseline.Tests[name], rec.Tests[name]; was != is {
			r.Tests = append(r.Tests, Test{Run: run, Name: name, Recorded: was, Verified: is})
		}
	}
}

func union(a, b map[string]string) map[string]string {
	all := maps.Clone(a)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, b)
	return all
}

// judge decides on one run, in the order of what says most.
func (r *Report) judge(rec, baseline *profile.Recording) Verdict {
	run := rec.Runs[0]
	switch {
	case len(r.Denials) > 0:
		r.Reason = fmt.Sprintf("%s was denied", cmp.Or(r.Denials[0].Name, fmt.Sprintf("call number %d", r.Denials[0].Nr)))
		if rec.Dropped[profile.DropNotStarted] > 0 {
			r.Reason += ", and the container did not start: " + rec.Runtime.Name + " itself needs that call under the filter"
		}
		return Fail
	case rec.Dropped[profile.DropDeadline] > 0:
		r.Reason = "no denials, but the workload had not ended at the deadline: give a longer --timeout"
		return Inconclusive
	case !rec.Complete:
		r.Reason = rec.Incomplete().Error()
		return Inconclusive
	case len(r.Tests) > 0:
		t := r.Tests[0]
		r.Reason = fmt.Sprintf("no denials, but %s says %s, and without the profile %s", t.Name, cmp.Or(t.Verified, "nothing"), cmp.Or(t.Recorded, "nothing"))
		return Fail
	case run.Exit != baseline.Runs[0].Exit:
		r.Reason = fmt.Sprintf("no denials, but the exit status is %d, and without the profile %d", run.Exit, baseline.Runs[0].Exit)
		return Fail
	}
	return Pass
}

// controls is how often the bundle runs without a profile to find out whether a test is flaky by itself.
const controls = 3

// excuse takes the blame from the profile when nothing was denied, and the same tests change without it too.
func (r *Report) excuse(ctx context.Context, s *container.Session, b *bundle.Bundle, o Options) error {
	if r.Verdict != Fail || len(r.Denials) > 0 || len(r.Tests) == 0 {
		return nil
	}
	flaky := map[string]bool{}
	for range controls {
		rec, err := control(ctx, s, b, o)
		if errors.Is(err, profile.ErrIncomplete) {
			continue
		}
		if err != nil {
			return err
		}
		for _, t := range r.Tests {
			flaky[t.Name] = flaky[t.Name] || rec.Tests[t.Name] != t.Recorded
		}
	}
	for _, t := range r.Tests {
		if !flaky[t.Name] {
			return nil
		}
	}
	r.Verdict = Inconclusive
	r.Reason += fmt.Sprintf(" (in %d control runs it changed too: the test is flaky, the profile is not to blame)", controls)
	return nil
}
