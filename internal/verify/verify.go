// Package verify runs a bundle again under a profile, and reports what the profile denied and which tests it changed.
//
// The criterion is zero denials; an exit status proves nothing, as programs survive many denials unseen. The results
// of the tests are the second one.
package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seccompgen/seccompgen/internal/bundle"
	"github.com/seccompgen/seccompgen/internal/container"
	"github.com/seccompgen/seccompgen/internal/docker"
	"github.com/seccompgen/seccompgen/internal/ociruntime"
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
	Own     []Denial `json:"own,omitempty"` // what filters refused that the workload installed for itself
	Tests   []Test   `json:"tests"`         // those whose result differs
	Profile struct {
		Allowed       int `json:"allowed"`
		DockerDefault int `json:"dockerDefault"` // what Docker's default profile allows on the same ABIs
	} `json:"profile"`
	Repair *Repair `json:"repair,omitempty"`
}

// Run is one run under the profile.
type Run struct {
	Package         string          `json:"package,omitempty"` // of several
	Runtime         profile.Runtime `json:"runtime"`
	NoNewPrivileges bool            `json:"noNewPrivileges"`
	Varied          []string        `json:"varied,omitempty"` // what --stress set
	Exit            int             `json:"exit"`
	Seconds         float64         `json:"seconds"`
}

// Denial is a call that the profile refused in one run. Several refusals with the same outcome are one denial.
type Denial struct {
	Run     int             `json:"run"` // 1 is the first
	ABI     specs.Arch      `json:"abi"`
	Nr      uint32          `json:"nr"`
	Name    string          `json:"name,omitempty"`
	Args    [6]uint64       `json:"args"`
	Action  profile.Outcome `json:"action"` // errno, trap or kill
	Errno   uint32          `json:"errno,omitempty"`
	Phase   profile.Phase   `json:"phase"`
	Process string          `json:"process"`
	Caller  string          `json:"caller,omitempty"` // the function that made the call
	Test    string          `json:"test,omitempty"`   // the test that it ran in
	Stack   []string        `json:"stack,omitempty"`  // functions, innermost first
	Count   uint64          `json:"count"`
	Order   int             `json:"order"` // 1 is the first kind of denial in its run: later ones may follow from it
}

// Test is a test whose result under the profile is another one than without.
type Test struct {
	Run      int    `json:"run"`
	Name     string `json:"name"`
	Recorded string `json:"recorded"`
	Verified string `json:"verified"` // "" if it never ended
}

// Runner runs a bundle once, as [container.Session] does. It is called for several runs at a time.
type Runner interface {
	Run(ctx context.Context, b *bundle.Bundle, o container.Options) (*profile.Recording, error)
}

// Setting is one way to run containers, in which a profile has to hold.
type Setting struct {
	Runtime         *ociruntime.Runtime
	NoNewPrivileges bool
}

// Options are the settings of a verification.
type Options struct {
	Run       container.Options  // Runtime, Seccomp and Denials are set here
	Settings  []Setting          // at least one
	Runs      int                // in each setting
	Jobs      int                // runs at a time; the report does not depend on it
	KeepGoing bool               // make all runs, also after one that fails
	Recorded  *profile.Recording // whose test results to compare with; nil makes a control run without the profile
	// Bundle returns the bundle for a run, 1 being the first of its setting; nil takes the same for all.
	Bundle   func(run int) *bundle.Bundle
	Progress func(done, of int)
	Resolve  func(r *profile.Recording, binary string) error // names the functions on the callers' stacks; may be nil
	tolerant bool                                            // a denial ends no run
	allow    []string                                        // what repair may add: of clone3 even an ENOSYS is a denial then
}

// at returns the setting and the bundle of a run; 0 is the first.
func (o *Options) at(i int, b *bundle.Bundle) (Setting, *bundle.Bundle) {
	s := o.Settings[i%len(o.Settings)]
	if o.Bundle != nil {
		b = o.Bundle(i/len(o.Settings) + 1)
	}
	return s, b.WithNoNewPrivileges(s.NoNewPrivileges)
}

// run makes a run, and names its callers.
func (o *Options) run(ctx context.Context, s Runner, i int, b *bundle.Bundle, p *specs.LinuxSeccomp, denials bool) (*profile.Recording, error) {
	setting, b := o.at(i, b)
	ro := o.Run
	ro.Runtime, ro.Seccomp, ro.Denials = setting.Runtime, p, denials
	if denials && !o.tolerant {
		ro.StopAfterDenial = afterDenial
	}
	rec, err := s.Run(ctx, b, ro)
	if err == nil && !slices.Contains(o.allow, "clone3") {
		rec.Syscalls = slices.DeleteFunc(rec.Syscalls, func(c profile.Syscall) bool { return profile.Answers(p, c) })
	}
	if err != nil || o.Resolve == nil || b.Binary == "" {
		return rec, err
	}
	return rec, o.Resolve(rec, b.Binary)
}

// Verify runs the bundle under the profile in all settings, turn by turn. It stops at the first run that fails, unless it is
// told to keep going.
func Verify(ctx context.Context, s Runner, b *bundle.Bundle, p *specs.LinuxSeccomp, o Options) (*Report, error) {
	if err := Check(p); err != nil {
		return nil, err
	}
	r := newReport(p, b)
	baseline := o.Recorded
	if baseline == nil {
		var err error
		if baseline, err = o.control(ctx, s, 0, b); err != nil {
			return nil, err
		}
	}
	all := o.Runs * len(o.Settings)
	first := -1 // the run that decided
	err := inOrder(ctx, all, o.Jobs, func(ctx context.Context, i int) (*profile.Recording, error) {
		rec, err := o.run(ctx, s, i, b, p, true)
		if err != nil {
			return nil, fmt.Errorf("run %d under the profile: %w", i+1, err)
		}
		return rec, nil
	}, func(i int, rec *profile.Recording) bool {
		r.add(i+1, rec, baseline)
		if o.Progress != nil {
			o.Progress(i+1, all)
		}
		reason := r.Reason
		verdict := r.judge(rec, baseline)
		switch {
		case first >= 0:
			r.Reason = reason
		case verdict != Pass:
			first, r.Verdict = i, verdict
		}
		return first < 0 || o.KeepGoing
	})
	if err != nil {
		return nil, err
	}
	if first >= 0 {
		return r, r.retryFlaky(ctx, s, first, b, p, o)
	}
	r.Verdict = Pass
	r.Reason = fmt.Sprintf("no denials and the same test results in %d of %d runs", all, all)
	if len(o.Settings) > 1 {
		r.Reason += ": " + describe(o.Settings, o.Runs)
	}
	return r, nil
}

func newReport(p *specs.LinuxSeccomp, b *bundle.Bundle) *Report {
	r := &Report{Version: ReportVersion, Denials: []Denial{}, Tests: []Test{}, Runs: []Run{}}
	r.Profile.Allowed = len(profile.Allowed(p))
	if theirs, err := docker.For(b.Spec); err == nil { // no reason not to verify
		r.Profile.DockerDefault = len(onABIs(profile.Allowed(theirs), p.Architectures))
	}
	return r
}

// describe says in how many runs each setting held.
func describe(settings []Setting, runs int) string {
	var parts []string
	for _, s := range settings {
		nnp := "without no_new_privs"
		if s.NoNewPrivileges {
			nnp = "with no_new_privs"
		}
		parts = append(parts, fmt.Sprintf("%d under %s %s %s", runs, s.Runtime.Name, s.Runtime.Version, nnp))
	}
	return strings.Join(parts, ", ")
}

// inOrder does n things, some at a time, and takes their results in order, until take has enough: what is under way then
// is stopped, so that what was taken does not depend on how many were done at a time.
func inOrder[T any](ctx context.Context, n, width int, do func(context.Context, int) (T, error), take func(int, T) bool) error {
	if width <= 1 { // nothing begins that may not be wanted
		for i := range n {
			v, err := do(ctx, i)
			if err != nil {
				return err
			}
			if !take(i, v) {
				break
			}
		}
		return nil
	}
	type result struct {
		value T
		err   error
	}
	within, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	next, results := make(chan int), make([]chan result, n)
	for i := range results {
		results[i] = make(chan result, 1)
	}
	for range min(width, n) {
		group.Go(func() {
			for i := range next {
				v, err := do(within, i)
				results[i] <- result{v, err}
			}
		})
	}
	group.Go(func() {
		defer close(next)
		for i := range n {
			select {
			case next <- i:
			case <-within.Done():
				return
			}
		}
	})
	for i := range n {
		select {
		case r := <-results[i]:
			if r.err != nil {
				return r.err
			}
			if !take(i, r.value) {
				return nil
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// onABIs returns the names that at least one of the ABIs has: Docker's profile is for all architectures at once.
func onABIs(names []string, abis []specs.Arch) []string {
	return slices.DeleteFunc(names, func(name string) bool {
		return !slices.ContainsFunc(abis, func(abi specs.Arch) bool { _, has := profile.Number(abi, name); return has })
	})
}

// control makes a run without the profile.
func (o *Options) control(ctx context.Context, s Runner, i int, b *bundle.Bundle) (*profile.Recording, error) {
	rec, err := o.run(ctx, s, i, b, profile.AllowAll(), false)
	if err != nil {
		return nil, fmt.Errorf("control run without the profile: %w", err)
	}
	if err := rec.Incomplete(); err != nil {
		return nil, fmt.Errorf("control run without the profile: %w", err)
	}
	return rec, nil
}

func (r *Report) add(run int, rec, baseline *profile.Recording) {
	r.Runs = append(r.Runs, Run{
		Runtime: rec.Runtime, NoNewPrivileges: rec.NoNewPrivileges, Varied: rec.Runs[0].Varied, Exit: rec.Runs[0].Exit, Seconds: rec.Runs[0].Seconds,
	})
	for _, c := range rec.Syscalls {
		if c.Denied == nil || rec.Unsure() {
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
		if c.Denied.Own {
			r.Own = append(r.Own, d)
			continue
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

// judge decides on the last run, in the order of what says most.
func (r *Report) judge(rec, baseline *profile.Recording) Verdict {
	run := rec.Runs[0]
	denial := slices.IndexFunc(r.Denials, func(d Denial) bool { return d.Run == len(r.Runs) })
	test := slices.IndexFunc(r.Tests, func(t Test) bool { return t.Run == len(r.Runs) })
	switch {
	case rec.Unsure():
		r.Reason = rec.Incomplete().Error()
		return Inconclusive
	case denial >= 0:
		d := r.Denials[denial]
		r.Reason = fmt.Sprintf("%s was denied", cmp.Or(d.Name, fmt.Sprintf("call number %d", d.Nr)))
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
	case test >= 0:
		t := r.Tests[test]
		r.Reason = fmt.Sprintf("no denials, but %s says %s, and without the profile %s", t.Name, cmp.Or(t.Verified, "nothing"), cmp.Or(t.Recorded, "nothing"))
		return Fail
	case run.Exit != baseline.Runs[0].Exit:
		r.Reason = fmt.Sprintf("no denials, but the exit status is %d, and without the profile %d", run.Exit, baseline.Runs[0].Exit)
		return Fail
	}
	return Pass
}

// controls is how often the bundle runs without a profile, and then under it, to find out whether a test is flaky by itself.
const controls = 3

// retryFlaky runs again what failed without a denial: without the profile, and then under it. If every test that changed also
// changes without the profile, or does not change under it, then these tests are flaky, and the verdict becomes inconclusive.
// What a profile does without denying anything it does in every run.
func (r *Report) retryFlaky(ctx context.Context, s Runner, run int, b *bundle.Bundle, p *specs.LinuxSeccomp, o Options) error {
	tests := slices.DeleteFunc(slices.Clone(r.Tests), func(t Test) bool { return t.Run != run+1 })
	denied := slices.ContainsFunc(r.Denials, func(d Denial) bool { return d.Run == run+1 })
	if r.Verdict != Fail || denied || len(tests) == 0 {
		return nil
	}
	for i := range 2 * controls {
		again := i >= controls // under the profile
		var rec *profile.Recording
		var err error
		if again {
			rec, err = o.run(ctx, s, run, b, p, true)
		} else {
			rec, err = o.control(ctx, s, run, b)
		}
		if errors.Is(err, profile.ErrIncomplete) {
			continue
		}
		if err != nil {
			return err
		}
		if again && (!rec.Complete || slices.ContainsFunc(rec.Syscalls, profile.Syscall.Refused)) {
			return nil
		}
		tests = slices.DeleteFunc(tests, func(t Test) bool { return (rec.Tests[t.Name] == t.Recorded) == again })
		if len(tests) == 0 {
			r.Verdict = Inconclusive
			r.Reason += " (in other runs it changed without the profile, or did not under it: the test is flaky, the profile is not to blame)"
			return nil
		}
	}
	return nil
}
