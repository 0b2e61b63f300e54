package verify

import (
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
	"github.com/seccompgen/seccompgen/internal/container"
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
	Repeats int           // runs of every candidate in every setting
	Budget  time.Duration // then it stops, and can be resumed
	Keep    []string      // calls that stay untried
	State   string        // file that keeps what was tried until the end
	Talk    func(string)
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

// Removed is a call that was taken away, and the errno that it gets now.
type Removed struct {
	Name  string `json:"name"`
	Errno string `json:"errno"`
}

// criterion is what makes a candidate good. Denials are allowed: that is the difference to verify.
const criterion = "the same results of all tests that do not vary without a profile, and the same exit status, before the deadline; denials are tolerated"

// errnos are the answers to a call that was taken away. ENOSYS comes first: more callers fall back after it.
var errnos = []uint{uint(unix.ENOSYS), uint(unix.EPERM)}

// answers maps the calls that were taken away to their errnos.
type answers map[string]uint

// shrinker looks for a smaller profile.
type shrinker struct {
	s        *container.Session
	b        *bundle.Bundle
	p        *specs.LinuxSeccomp
	o        Options
	so       ShrinkOptions
	baseline *profile.Recording
	flaky    map[string]bool
	end      time.Time
	state    shrinkState
}

// shrinkState is what a resumed shrink knows already: the outcome of every candidate. The search depends on nothing else, so
// that it comes to where it was without a run.
type shrinkState struct {
	Version  int              `json:"version"`
	Inputs   string           `json:"inputs"` // hash of everything that an outcome depends on
	Deadline float64          `json:"deadline"`
	Flaky    []string         `json:"flaky"`
	Outcomes map[string]Trial `json:"outcomes"` // by candidate
	Restored map[string]Trial `json:"restored"` // taken away at first, and needed now and then as it turned out
}

// Shrink takes calls out of the profile as long as the tests do not notice, and proves that not one more can go. Candidates
// are tried in groups, which are split where they fail; then every call that is left is tried alone, with both answers, until
// a whole turn takes nothing away: that turn is the certificate. Denials are tolerated; the profile that verifies
// without any is the safer one.
func Shrink(ctx context.Context, s *container.Session, b *bundle.Bundle, p *specs.LinuxSeccomp, o Options, so ShrinkOptions) (*specs.LinuxSeccomp, *Certificate, error) {
	if err := Check(p); err != nil {
		return nil, nil, err
	}
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
	var small *specs.LinuxSeccomp
	var denied []string
	for {
		for name := range x.state.Restored {
			delete(removed, name)
		}
		if needed, err = x.certify(ctx, candidates, removed); err != nil {
			return nil, nil, err
		}
		small = without(p, removed)
		restored := len(x.state.Restored)
		if denied, err = x.confirm(ctx, small, removed); err != nil {
			return nil, nil, err
		}
		if len(x.state.Restored) == restored {
			break
		}
	}
	c := &Certificate{
		Version: CertificateVersion, From: from, Criterion: criterion, Workload: b.Workload, Repeats: so.Repeats, Deadline: x.o.Run.Timeout.Seconds(), Passed: x.confirmations(),
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

// begin finds out how the bundle behaves without a profile and under the whole one, or reads what an earlier session found.
func (x *shrinker) begin(ctx context.Context, from string) (err error) {
	if x.baseline = x.o.Recorded; x.baseline == nil {
		if x.baseline, err = x.o.control(ctx, x.s, 0, x.b); err != nil {
			return err
		}
	}
	// A package's tests have their name and hash here; a bundle or a command has only its arguments.
	what, err := json.Marshal([]any{from, x.b.Workload, x.o.Settings, x.so.Repeats, x.so.Keep, x.baseline.Tests, x.baseline.Runs[0].Exit, x.o.Run.Timeout})
	if err != nil {
		return fmt.Errorf("encode the shrink's settings: %w", err)
	}
	sum := sha256.Sum256(what)
	inputs := hex.EncodeToString(sum[:])
	if resumed, err := x.resume(inputs); resumed || err != nil {
		return err
	}
	x.state = shrinkState{Version: 1, Inputs: inputs, Flaky: []string{}, Outcomes: map[string]Trial{}, Restored: map[string]Trial{}}
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
	x.state.Deadline = min(x.o.Run.Timeout.Seconds(), 3*slowest+3)
	x.setDeadline()
	if err := x.save(); err != nil {
		return err
	}
	whole, err := x.try(ctx, answers{}, x.repeats(), false)
	if err != nil {
		return err
	}
	if whole.Failed > 0 {
		return fmt.Errorf("%w: the tests do not even pass under the whole profile: %s: verify it first", ErrUnstable, whole.What)
	}
	return nil
}

func (x *shrinker) setDeadline() {
	x.o.Run.Timeout = time.Duration(x.state.Deadline * float64(time.Second))
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
	if err := json.Unmarshal(data, &x.state); err != nil || x.state.Version != 1 {
		return false, fmt.Errorf("%s is not the state of a shrink: remove it to begin anew", x.so.State)
	}
	if x.state.Inputs != inputs {
		return false, fmt.Errorf("%s belongs to a shrink of another profile, workload or setting: remove it to begin anew", x.so.State)
	}
	x.flaky = map[string]bool{}
	for _, name := range x.state.Flaky {
		x.flaky[name] = true
	}
	x.setDeadline()
	x.so.Talk(fmt.Sprintf("goes on after %d trials of an earlier session", len(x.state.Outcomes)))
	return true, nil
}

// reduce takes groups away, all with ENOSYS, and then gives those that do not need it the profile's own answer.
func (x *shrinker) reduce(ctx context.Context, candidates []string, removed answers) error {
	if err := x.split(ctx, candidates, removed, uint(unix.ENOSYS)); err != nil {
		return err
	}
	return x.split(ctx, slices.Sorted(maps.Keys(removed)), removed, uint(unix.EPERM))
}

// split answers a group with an errno if the tests do not notice, and else tries its halves.
func (x *shrinker) split(ctx context.Context, group []string, removed answers, errno uint) error {
	if len(group) == 0 {
		return nil
	}
	more := maps.Clone(removed)
	for _, name := range group {
		more[name] = errno
	}
	t, err := x.try(ctx, more, x.repeats(), false)
	if err != nil {
		return err
	}
	if t.Failed == 0 {
		maps.Copy(removed, more)
		x.so.Talk(fmt.Sprintf("%d of %d calls are not needed so far", len(removed), len(profile.Allowed(x.p))))
		return nil
	}
	if len(group) == 1 {
		return nil
	}
	half := len(group) / 2
	if err := x.split(ctx, group[:half], removed, errno); err != nil {
		return err
	}
	return x.split(ctx, group[half:], removed, errno)
}

// certify tries every call that is left alone, until a whole turn takes nothing away.
func (x *shrinker) certify(ctx context.Context, candidates []string, removed answers) ([]Needed, error) {
	for {
		needed, before := []Needed{}, len(removed)
		for i, name := range candidates {
			if _, gone := removed[name]; gone {
				continue
			}
			n := Needed{Name: name, Trials: []Trial{}}
			if t, ok := x.state.Restored[name]; ok {
				n.Trials = append(n.Trials, t)
				needed = append(needed, n)
				continue
			}
			for _, errno := range errnos {
				alone := maps.Clone(removed)
				alone[name] = errno
				t, err := x.try(ctx, alone, x.repeats(), true)
				if err == nil && t.Failed > 0 && t.Failed < t.Of { // needed now and then, or chance: more runs tell
					t, err = x.try(ctx, alone, 2*x.confirmations(), true)
				}
				if err != nil {
					return nil, err
				}
				t.Errno = profile.ErrnoName(errno)
				if n.Trials = append(n.Trials, t); t.Failed == 0 {
					removed[name] = errno
				}
			}
			needed = append(needed, n)
			x.so.Talk(fmt.Sprintf("trying each call alone: %d of %d, %d taken away", i+1, len(candidates), len(removed)))
		}
		if len(removed) == before {
			return needed, nil
		}
	}
}

func (x *shrinker) repeats() int { return x.so.Repeats * len(x.o.Settings) }

// confirmations is how often the result runs: calls that come and go need more runs than a trial has.
func (x *shrinker) confirmations() int { return max(x.o.Runs, x.so.Repeats, 10) * len(x.o.Settings) }

// confirm runs the result, and tells what it denies. Where a run fails, calls that were taken away are to blame, and are
// restored.
func (x *shrinker) confirm(ctx context.Context, small *specs.LinuxSeccomp, removed answers) ([]string, error) {
	if err := Check(small); err != nil {
		return nil, err
	}
	what, denied, runs := "", []string{}, 0
	var suspects []string // taken away, and denied in the run that failed
	err := inOrder(ctx, x.confirmations(), x.o.Jobs, func(ctx context.Context, i int) (*profile.Recording, error) {
		return x.o.run(ctx, x.s, i, x.b, small, true)
	}, func(_ int, rec *profile.Recording) bool {
		runs++
		what = x.noticed(rec)
		for _, c := range rec.Syscalls {
			if _, ours := removed[c.Name]; c.Denied != nil && what != "" && ours {
				suspects = append(suspects, c.Name)
			} else if c.Denied != nil && what == "" {
				denied = append(denied, c.Name)
			}
		}
		return what == ""
	})
	slices.Sort(denied)
	denied = slices.Compact(denied)
	if err != nil || what == "" {
		return denied, err
	}
	slices.Sort(suspects)
	culprits, err := x.blame(ctx, slices.Compact(suspects), denied, removed, Trial{Failed: 1, Of: runs, What: what})
	if err != nil {
		return nil, err
	}
	maps.Copy(x.state.Restored, culprits)
	x.so.Talk(fmt.Sprintf("restored %s: one of %d runs failed: %s", strings.Join(slices.Sorted(maps.Keys(culprits)), " "), runs, what))
	return nil, x.save()
}

// blame tells which of the suspects to restore: those that no good run was denied; else those without which alone some of
// many runs fail; else those of the Go runtime's own, which may do harm together.
func (x *shrinker) blame(ctx context.Context, suspects, innocent []string, removed answers, failure Trial) (map[string]Trial, error) {
	culprits := map[string]Trial{}
	guilty := func(name string, t Trial) {
		t.Errno = profile.ErrnoName(removed[name])
		culprits[name] = t
	}
	for _, name := range suspects {
		if !slices.Contains(innocent, name) {
			guilty(name, failure)
		}
	}
	if len(culprits) > 0 {
		return culprits, nil
	}
	for _, name := range suspects {
		t, err := x.try(ctx, answers{name: removed[name]}, x.confirmations(), true)
		if err != nil {
			return nil, err
		}
		if t.Failed > 0 {
			guilty(name, t)
		}
	}
	if len(culprits) > 0 {
		return culprits, nil
	}
	for _, name := range suspects {
		if slices.Contains(profile.ClosureCalls(), name) {
			guilty(name, failure)
		}
	}
	if len(culprits) == 0 {
		return nil, fmt.Errorf("%w: the shrunken profile failed one of %d runs, and no call that was taken away is to blame: %s", ErrUnstable, failure.Of, failure.What)
	}
	return culprits, nil
}

// try runs a candidate, or knows its outcome already. Unless it shall count, it stops at the first run that fails.
func (x *shrinker) try(ctx context.Context, removed answers, runs int, count bool) (Trial, error) {
	key := fmt.Sprint(runs, count, removed) // maps print sorted
	if t, ok := x.state.Outcomes[key]; ok {
		return t, nil
	}
	if time.Now().After(x.end) {
		return Trial{}, fmt.Errorf("%w after %s and %d trials: run it again to go on from there, %s keeps them", ErrBudget, x.so.Budget, len(x.state.Outcomes), x.so.State)
	}
	p := without(x.p, removed)
	t := Trial{}
	err := inOrder(ctx, runs, x.o.Jobs, func(ctx context.Context, i int) (*profile.Recording, error) {
		return x.o.run(ctx, x.s, i, x.b, p, false)
	}, func(_ int, rec *profile.Recording) bool {
		t.Of++
		if what := x.noticed(rec); what != "" {
			t.Failed++
			if t.What == "" {
				t.What = what
			}
		}
		return count || t.Failed == 0
	})
	if err != nil {
		return Trial{}, fmt.Errorf("try the profile without %s: %w", strings.Join(slices.Sorted(maps.Keys(removed)), " "), err)
	}
	x.state.Outcomes[key] = t
	return t, x.save()
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

// noticed says what of a run is not as it is without a profile, or "".
func (x *shrinker) noticed(rec *profile.Recording) string {
	switch {
	case rec.Dropped[profile.DropNotStarted] > 0:
		return "the container did not start"
	case rec.Dropped[profile.DropDeadline] > 0:
		return fmt.Sprintf("it had not ended after %.1f s", x.state.Deadline)
	}
	for _, name := range slices.Sorted(maps.Keys(union(x.baseline.Tests, rec.Tests))) {
		if was, is := x.baseline.Tests[name], rec.Tests[name]; was != is && !x.flaky[name] {
			if is == "" {
				is = "nothing"
			}
			return fmt.Sprintf("%s says %s", name, is)
		}
	}
	if was, is := x.baseline.Runs[0].Exit, rec.Runs[0].Exit; was != is {
		return fmt.Sprintf("the exit status is %d", is)
	}
	return ""
}

// without returns the profile with calls taken away, each with its answer.
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
