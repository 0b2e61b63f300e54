package verify

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/internal/bundle"
	"github.com/seccompgen/seccompgen/profile"
)

// CertificateVersion is the version of a certificate.
const CertificateVersion = 1

// ErrBudget says that the budget of a shrink ended before its result was minimal. What was tried is kept.
var ErrBudget = errors.New("the budget has ended")

// ErrUnstable says that runs do not repeat themselves well enough to shrink by them.
var ErrUnstable = errors.New("runs differ")

// ShrinkOptions bound a shrink.
type ShrinkOptions struct {
	Repeats  int           // runs of every candidate in every setting
	Budget   time.Duration // then it stops, and can be resumed
	Keep     []string      // calls that stay untried
	State    string        // file that keeps what was tried until the end
	Progress func(string)
}

// Certificate is the proof that a shrunken profile cannot lose one more call.
type Certificate struct {
	Version   int              `json:"version"`
	Profile   string           `json:"profile"` // SHA-256 of the shrunken profile
	From      string           `json:"from"`    // SHA-256 of the profile that was shrunken
	Criterion string           `json:"criterion"`
	Settings  []string         `json:"settings"`
	Workload  profile.Workload `json:"workload"`
	Repeats   int              `json:"repeats"`  // runs of every trial; more where they differ
	Deadline  float64          `json:"deadline"` // seconds after which a run of a trial counts as failed
	Passed    int              `json:"passed"`   // runs of the shrunken profile itself, all of them
	Needed    []Needed         `json:"needed"`
	Kept      []string         `json:"kept"` // not tried, by request
	Removed   []Removed        `json:"removed"`
	Denied    []string         `json:"denied"` // what the shrunken profile denies and the tests tolerate
	Trials    int              `json:"trials"` // candidates that were run, over all sessions
}

// Needed is a call of the shrunken profile, with what failed without it.
type Needed struct {
	Name   string  `json:"name"`
	Trials []Trial `json:"trials"` // one for each answer that was tried in its place
}

// Trial is a call answered with an errno, in several runs.
type Trial struct {
	Errno  string `json:"errno"`
	Failed int    `json:"failed"`
	Of     int    `json:"of"`
	What   string `json:"what"` // failed first
}

// Removed is a call that was removed, and the errno that it gets now.
type Removed struct {
	Name  string `json:"name"`
	Errno string `json:"errno"`
}

// criterion is what makes a candidate good. Denials are allowed: that is the difference to verify.
const criterion = "the same results of all tests that do not vary without a profile, and the same exit status, before the deadline; denials are tolerated"

// errnos are the answers to a call that was removed: the profile's usual one, and that after which more callers fall back.
var errnos = []uint{uint(unix.EPERM), uint(unix.ENOSYS)}

// answers maps the calls that were removed to their errnos.
type answers map[string]uint

// shrinker looks for a smaller profile.
type shrinker struct {
	s        Runner
	b        *bundle.Bundle
	p        *specs.LinuxSeccomp
	o        Options
	so       ShrinkOptions
	baseline *profile.Recording
	flaky    map[string]bool
	likely   []string // calls that can go alone
	end      time.Time
	state    shrinkState
}

const stateVersion = 2

// shrinkState is what a resumed shrink knows already: the outcome of every candidate. The search depends on nothing else, so
// that it comes to where it was without a run.
type shrinkState struct {
	Version  int              `json:"version"`
	Inputs   string           `json:"inputs"` // hash of everything that an outcome depends on
	Deadline float64          `json:"deadline"`
	Flaky    []string         `json:"flaky"`
	Outcomes map[string]Trial `json:"outcomes"` // by candidate
	Restored map[string]Trial `json:"restored"` // by call and answer: removed at first, and needed now and then as it turned out
}

// Shrink removes calls from the profile as long as the tests do not notice, and proves that not one more can go. Calls that
// can go alone are tried in groups, which are split where they fail; then every call that is left is tried alone, with both
// answers, until a whole turn removes nothing: that turn is the certificate. Denials are tolerated; the profile that
// verifies without any is the safer one.
func Shrink(ctx context.Context, s Runner, b *bundle.Bundle, p *specs.LinuxSeccomp, o Options, so ShrinkOptions) (*specs.LinuxSeccomp, *Certificate, error) {
	if err := Check(p); err != nil {
		return nil, nil, err
	}
	o.tolerant = true
	x := &shrinker{s: s, b: b, p: p, o: o, so: so, end: time.Now().Add(so.Budget)}
	from, err := digest(p)
	if err != nil {
		return nil, nil, err
	}
	if err := x.begin(ctx, from); err != nil {
		return nil, nil, err
	}
	candidates := profile.Allowed(p)
	for _, name := range so.Keep {
		if !slices.Contains(candidates, name) {
			return nil, nil, fmt.Errorf("--keep %s: the profile does not allow it", name)
		}
	}
	candidates = slices.DeleteFunc(candidates, func(name string) bool { return slices.Contains(so.Keep, name) })
	removed := answers{}
	if err := x.reduce(ctx, candidates, removed); err != nil {
		return nil, nil, err
	}
	var needed []Needed
	var denied []string
	for before := -1; before != len(removed); {
		if denied, err = x.confirm(ctx, removed); err != nil {
			return nil, nil, err
		}
		before = len(removed)
		if needed, err = x.certify(ctx, candidates, removed); err != nil {
			return nil, nil, err
		}
	}
	small := without(p, removed)
	c := &Certificate{
		Version: CertificateVersion, From: from, Criterion: criterion, Workload: b.Workload, Repeats: so.Repeats, Deadline: x.state.Deadline, Passed: x.confirmations(),
		Needed: needed, Kept: append([]string{}, so.Keep...), Removed: []Removed{}, Denied: denied, Trials: len(x.state.Outcomes),
	}
	if c.Profile, err = digest(small); err != nil {
		return nil, nil, err
	}
	for _, set := range o.Settings {
		c.Settings = append(c.Settings, describe([]Setting{set}, so.Repeats))
	}
	slices.Sort(c.Kept)
	for _, name := range slices.Sorted(maps.Keys(removed)) {
		c.Removed = append(c.Removed, Removed{name, profile.ErrnoName(removed[name])})
	}
	if err := os.Remove(so.State); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("remove the state of the shrink: %w", err)
	}
	return small, c, nil
}

func digest(p *specs.LinuxSeccomp) (string, error) {
	data, err := profile.Encode(p)
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), err
}

// run makes the nth run under a profile, with a deadline in seconds.
func (x *shrinker) run(ctx context.Context, nth int, p *specs.LinuxSeccomp, denials bool, deadline float64) (*profile.Recording, error) {
	o := x.o
	o.Run.Timeout = time.Duration(deadline * float64(time.Second))
	return o.run(ctx, x.s, nth, x.b, p, denials)
}

// begin finds out how the bundle behaves without a profile and under the whole one, or reads what an earlier session found.
func (x *shrinker) begin(ctx context.Context, from string) (err error) {
	if x.baseline = x.o.Recorded; x.baseline == nil {
		if x.baseline, err = x.o.control(ctx, x.s, 0, x.b); err != nil {
			return err
		}
	}
	// A package's tests have their name and hash here; a bundle or a command has only its arguments.
	facts, err := json.Marshal([]any{from, x.b.Workload, x.o.Settings, x.so.Repeats, x.so.Keep, x.baseline.Tests, x.baseline.Runs[0].Exit, x.o.Run.Timeout})
	if err != nil {
		return fmt.Errorf("encode the shrink's settings: %w", err)
	}
	sum := sha256.Sum256(facts)
	inputs := hex.EncodeToString(sum[:])
	if resumed, err := x.resume(inputs); resumed || err != nil {
		return err
	}
	x.state = shrinkState{Version: stateVersion, Inputs: inputs, Flaky: []string{}, Outcomes: map[string]Trial{}, Restored: map[string]Trial{}}
	x.flaky = map[string]bool{}
	slowest := x.baseline.Runs[0].Seconds
	for range controls {
		rec, err := x.o.control(ctx, x.s, 0, x.b)
		if err != nil {
			return err
		}
		slowest = max(slowest, rec.Runs[0].Seconds)
		if rec.Runs[0].Exit != x.baseline.Runs[0].Exit {
			return fmt.Errorf("%w: the exit status is %d in one run without the profile and %d in another: nothing can be told from it", ErrUnstable, rec.Runs[0].Exit, x.baseline.Runs[0].Exit)
		}
		for name := range union(x.baseline.Tests, rec.Tests) {
			if x.baseline.Tests[name] != rec.Tests[name] {
				x.flaky[name] = true
			}
		}
	}
	x.state.Flaky = slices.Sorted(maps.Keys(x.flaky))
	// As many at a time as later, so that the deadline suits that too.
	what := ""
	err = inOrder(ctx, x.repeats(), x.o.Jobs, func(ctx context.Context, i int) (*profile.Recording, error) {
		return x.run(ctx, i, x.p, false, x.o.Run.Timeout.Seconds())
	}, func(_ int, rec *profile.Recording) bool {
		slowest = max(slowest, rec.Runs[0].Seconds)
		what = x.noticed(rec)
		return what == ""
	})
	if err != nil {
		return err
	}
	if what != "" {
		return fmt.Errorf("%w: the tests do not even pass under the whole profile: %s: verify it first", ErrUnstable, what)
	}
	x.state.Deadline = min(x.o.Run.Timeout.Seconds(), max(3, 1.5*slowest+1))
	x.o.Run.Enough = x.decides
	return x.save()
}

// decides reports whether the result of a test makes the rest of its run needless: something has been noticed.
func (x *shrinker) decides(test, result string) bool {
	return x.baseline.Tests[test] != result && !x.flaky[test]
}

// resume reads the state of an earlier session.
func (x *shrinker) resume(inputs string) (bool, error) {
	data, err := os.ReadFile(x.so.State)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the state of an earlier shrink: %w", err)
	}
	if err := json.Unmarshal(data, &x.state); err != nil || x.state.Version != stateVersion {
		return false, fmt.Errorf("%s is not the state of a shrink: remove it to begin anew", x.so.State)
	}
	if x.state.Inputs != inputs {
		return false, fmt.Errorf("%s belongs to a shrink of another profile, workload or setting: remove it to begin anew", x.so.State)
	}
	x.flaky = map[string]bool{}
	for _, name := range x.state.Flaky {
		x.flaky[name] = true
	}
	x.o.Run.Enough = x.decides
	x.so.Progress(fmt.Sprintf("goes on after %d trials of an earlier session", len(x.state.Outcomes)))
	return true, nil
}

// reduce finds the calls that can go alone, with EPERM or else with ENOSYS, and removes groups of them.
func (x *shrinker) reduce(ctx context.Context, candidates []string, removed answers) error {
	can := answers{}
	for _, errno := range errnos {
		all := alone(candidates, can, errno)
		err := x.ask(ctx, questions(all, answers{}, len(x.o.Settings), 1), func(i int, t Trial) bool {
			if t.Failed == 0 {
				can[all[i].name] = errno
			}
			x.so.Progress(fmt.Sprintf("%s for each call alone: %d of %d, %d calls may go", profile.ErrnoName(errno), i+1, len(all), len(can)))
			return true
		})
		if err != nil {
			return err
		}
	}
	x.likely = slices.Sorted(maps.Keys(can))
	return x.split(ctx, x.likely, can, removed)
}

// split removes a group, each call with its answer, if the tests do not notice, and else tries its halves.
func (x *shrinker) split(ctx context.Context, group []string, can, removed answers) error {
	if len(group) == 0 {
		return nil
	}
	more := maps.Clone(removed)
	for _, name := range group {
		more[name] = can[name]
	}
	t, err := x.try(ctx, question{more, x.repeats(), 1})
	if err != nil {
		return err
	}
	if t.Failed == 0 {
		maps.Copy(removed, more)
	}
	x.so.Progress(fmt.Sprintf("removing groups: %d of %d that may go", len(removed), len(can)))
	if t.Failed == 0 || len(group) == 1 {
		return nil
	}
	half := len(group) / 2
	if err := x.split(ctx, group[:half], can, removed); err != nil {
		return err
	}
	return x.split(ctx, group[half:], can, removed)
}

// certify tries every call that is left alone, in the place of the others, until none of them can go. One that was restored
// does not go again with the same answer, and has more runs to show why.
func (x *shrinker) certify(ctx context.Context, candidates []string, removed answers) ([]Needed, error) {
	// What may go first: if it does, what was tried before has to be tried again.
	todo := slices.Concat(alone(x.likely, removed, errnos...), alone(slices.DeleteFunc(slices.Clone(candidates), func(name string) bool { return slices.Contains(x.likely, name) }), removed, errnos...))
	var done []single
	trials := map[string][]Trial{}
	for len(todo) > 0 {
		qs := questions(todo, removed, x.repeats(), 0)
		for i := range qs {
			if _, restored := x.state.Restored[todo[i].String()]; restored {
				qs[i].runs, qs[i].enough = 2*x.confirmations(), 2
			}
		}
		failed := func(t Trial) {
			t.Errno = profile.ErrnoName(todo[0].errno)
			trials[todo[0].name] = append(trials[todo[0].name], t)
			done, todo = append(done, todo[0]), todo[1:]
			x.so.Progress(fmt.Sprintf("proving that each call is needed: %d of %d answers, %d removed", len(done), len(done)+len(todo), len(removed)))
		}
		var last Trial
		err := x.ask(ctx, qs, func(_ int, t Trial) bool {
			joint, restored := x.state.Restored[todo[0].String()]
			if restored && t.Failed == 0 {
				t = joint
			}
			if last = t; restored || t.Failed == t.Of {
				failed(t)
				return true
			}
			return false
		})
		if err != nil {
			return nil, err
		}
		if len(todo) == 0 {
			break
		}
		if last.Failed > 0 { // needed now and then, or chance: more runs show which
			if last, err = x.try(ctx, questions(todo[:1], removed, 2*x.confirmations(), 2)[0]); err != nil {
				return nil, err
			}
		}
		if last.Failed > 0 {
			failed(last)
			continue
		}
		gone := todo[0]
		removed[gone.name] = gone.errno
		todo = slices.DeleteFunc(slices.Concat(todo, done), func(s single) bool { return s.name == gone.name })
		done, trials = nil, map[string][]Trial{}
	}
	needed := []Needed{}
	for _, name := range candidates {
		if of, ok := trials[name]; ok {
			needed = append(needed, Needed{name, of})
		}
	}
	return needed, nil
}

func (x *shrinker) repeats() int { return x.so.Repeats * len(x.o.Settings) }

// confirmations is how often the result runs: calls that come and go need more runs than a trial has.
func (x *shrinker) confirmations() int { return max(x.o.Runs, x.so.Repeats, 10) * len(x.o.Settings) }

// confirm runs the result until all of many runs pass, and returns what they were denied. Where one fails, calls that were
// removed are to blame, and are restored.
func (x *shrinker) confirm(ctx context.Context, removed answers) ([]string, error) {
	for {
		maps.DeleteFunc(removed, func(name string, errno uint) bool {
			_, back := x.state.Restored[single{name, errno}.String()]
			return back
		})
		small := without(x.p, removed)
		if err := Check(small); err != nil {
			return nil, err
		}
		var good, bad []map[deniedCall]bool // runs, and what they were denied
		what := ""
		err := inOrder(ctx, x.confirmations(), x.o.Jobs, func(ctx context.Context, i int) (*profile.Recording, error) {
			return x.run(ctx, i, small, true, x.state.Deadline)
		}, func(_ int, rec *profile.Recording) bool {
			of := map[deniedCall]bool{}
			for _, c := range rec.Syscalls {
				if c.Refused() {
					of[deniedCall{c.Name, c.Phase}] = true
				}
			}
			if said := x.noticed(rec); said != "" {
				what = cmp.Or(what, said)
				bad = append(bad, of)
			} else {
				good = append(good, of)
			}
			return true
		})
		if err != nil {
			return nil, err
		}
		if len(bad) == 0 {
			return names(good), nil
		}
		culprits, err := x.blame(ctx, good, bad, removed, what)
		if err != nil {
			return nil, err
		}
		maps.Copy(x.state.Restored, culprits)
		x.so.Progress(fmt.Sprintf("restored %s: %d of %d runs failed: %s", strings.Join(slices.Sorted(maps.Keys(culprits)), " "), len(bad), len(bad)+len(good), what))
		if err := x.save(); err != nil {
			return nil, err
		}
	}
}

// explain returns a smallest part of the suspects without which, and without what is back already, runs fail: QuickXplain
// (Junker, AAAI 2004). try says that what is back may be enough.
func (x *shrinker) explain(ctx context.Context, removed answers, back, suspects []string, try bool) ([]string, error) {
	if try {
		less := maps.Clone(removed)
		for _, name := range back {
			delete(less, name)
		}
		if t, err := x.try(ctx, question{less, x.confirmations(), 1}); err != nil || t.Failed == 0 {
			return nil, err
		}
	}
	if len(suspects) == 1 {
		return suspects, nil
	}
	first, second := suspects[:(len(suspects)+1)/2], suspects[(len(suspects)+1)/2:]
	of2, err := x.explain(ctx, removed, slices.Concat(back, first), second, true)
	if err != nil {
		return nil, err
	}
	of1, err := x.explain(ctx, removed, slices.Concat(back, of2), first, len(of2) > 0)
	return slices.Concat(of1, of2), err
}

func (x *shrinker) save() error {
	data, err := json.Marshal(x.state)
	if err == nil {
		err = renameio.WriteFile(x.so.State, data, 0o644)
	}
	if err != nil {
		return fmt.Errorf("keep the state of the shrink: %w", err)
	}
	return nil
}

// without returns the profile with calls removed, each with its answer.
func without(p *specs.LinuxSeccomp, removed answers) *specs.LinuxSeccomp {
	out := *p
	out.Syscalls = nil
	for _, s := range p.Syscalls {
		if s.Action == specs.ActAllow || s.Action == specs.ActLog {
			s.Names = slices.DeleteFunc(slices.Clone(s.Names), func(name string) bool { _, gone := removed[name]; return gone })
		}
		if len(s.Names) > 0 {
			out.Syscalls = append(out.Syscalls, s)
		}
	}
	otherwise := profile.Resolve(p).Default
	for _, errno := range errnos {
		entry := specs.LinuxSyscall{Action: specs.ActErrno, ErrnoRet: &errno}
		for _, name := range slices.Sorted(maps.Keys(removed)) {
			if removed[name] == errno && (otherwise != profile.Verdict{Action: specs.ActErrno, Errno: errno}) {
				entry.Names = append(entry.Names, name)
			}
		}
		if len(entry.Names) > 0 {
			out.Syscalls = append(out.Syscalls, entry)
		}
	}
	return &out
}
