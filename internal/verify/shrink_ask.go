package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/seccompgen/seccompgen/profile"
)

// This file asks whether a profile with fewer calls still does, and if not, which of them were missed.

// deniedCall is one that a run was denied. The runtime may need what the workload does not miss.
type deniedCall struct {
	name  string
	phase profile.Phase
}

func names(runs []map[deniedCall]bool) []string {
	all := []string{}
	for _, denials := range runs {
		for d := range denials {
			all = append(all, d.name)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// blame returns which of the removed calls to restore: those that bad runs were denied and no good one; else as few as
// it takes for many runs to pass, the Go runtime's own before others, since these come and go. The trial is what the calls were
// seen to do together.
func (x *shrinker) blame(ctx context.Context, good, bad []map[deniedCall]bool, removed answers, what string) (map[string]Trial, error) {
	var guilty, suspects []string
	for _, run := range bad {
		for d := range run {
			if _, ours := removed[d.name]; !ours {
				continue
			}
			suspects = append(suspects, d.name)
			if !slices.ContainsFunc(good, func(run map[deniedCall]bool) bool { return run[d] }) {
				guilty = append(guilty, d.name)
			}
		}
	}
	if len(guilty) == 0 {
		slices.SortFunc(suspects, func(a, b string) int {
			return cmp.Or(cmp.Compare(min(1, slices.Index(profile.ImplicitCalls(), b)+1), min(1, slices.Index(profile.ImplicitCalls(), a)+1)), cmp.Compare(a, b))
		})
		if suspects = slices.Compact(suspects); len(suspects) > 0 {
			var err error
			if guilty, err = x.explain(ctx, removed, nil, suspects, false); err != nil {
				return nil, err
			}
		}
	}
	if len(guilty) == 0 {
		return nil, fmt.Errorf("%w: the shrunken profile failed %d of %d runs, and no call that was removed is to blame: %s", ErrUnstable, len(bad), len(good)+len(bad), what)
	}
	slices.Sort(guilty)
	guilty = slices.Compact(guilty)
	if len(guilty) > 1 {
		what += ", without " + strings.Join(guilty, " ") + " together"
	}
	culprits := map[string]Trial{}
	for _, name := range guilty {
		answer := single{name, removed[name]}
		culprits[answer.String()] = Trial{Errno: profile.ErrnoName(answer.errno), Failed: len(bad), Of: len(good) + len(bad), What: what}
	}
	return culprits, nil
}

// question is what runs without some calls are to show.
type question struct {
	removed answers
	runs    int
	enough  int // failed runs that end it; 0 makes all runs
}

func (q question) String() string { return fmt.Sprint(q.runs, q.enough, q.removed) } // maps print sorted

// try answers one question.
func (x *shrinker) try(ctx context.Context, q question) (t Trial, err error) {
	err = x.ask(ctx, []question{q}, func(_ int, got Trial) bool { t = got; return true })
	return t, err
}

// ask answers questions in order, until take wants no more. Their runs are made some at a time, over the borders of
// questions; those whose outcome is known are not made.
func (x *shrinker) ask(ctx context.Context, qs []question, take func(i int, t Trial) bool) error {
	next := 0
	known := func() (more bool) { // hands on what is known
		for next < len(qs) {
			t, ok := x.state.Outcomes[qs[next].String()]
			if !ok {
				return true
			}
			if next++; !take(next-1, t) {
				return false
			}
		}
		return false
	}
	if !known() {
		return nil
	}
	type run struct{ question, nth int }
	var runs []run
	for i, q := range qs {
		if _, ok := x.state.Outcomes[q.String()]; !ok {
			for nth := range q.runs {
				runs = append(runs, run{i, nth})
			}
		}
	}
	trials, answered := make([]Trial, len(qs)), make([]atomic.Bool, len(qs))
	var failed error
	err := inOrder(ctx, len(runs), x.o.Jobs, func(ctx context.Context, i int) (*profile.Recording, error) {
		r := runs[i]
		if answered[r.question].Load() {
			return nil, nil
		}
		if time.Now().After(x.end) {
			return nil, ErrBudget
		}
		q := qs[r.question]
		// Who takes nearly as long as is allowed would pass now and fail later: that is for the proof to find out.
		deadline := x.state.Deadline
		if q.enough == 1 {
			deadline *= 0.8
		}
		rec, err := x.run(ctx, r.nth, without(x.p, q.removed), false, deadline)
		if err != nil {
			return nil, fmt.Errorf("try the profile without %s: %w", strings.Join(slices.Sorted(maps.Keys(q.removed)), " "), err)
		}
		return rec, nil
	}, func(i int, rec *profile.Recording) bool {
		at := runs[i].question
		q, t := qs[at], &trials[at]
		if answered[at].Load() {
			return true
		}
		t.Of++
		if what := x.noticed(rec); what != "" {
			t.Failed++
			t.What = cmp.Or(t.What, what)
		}
		if t.Of < q.runs && (q.enough == 0 || t.Failed < q.enough) {
			return true
		}
		answered[at].Store(true)
		x.state.Outcomes[q.String()] = *t
		if failed = x.save(); failed != nil {
			return false
		}
		return known()
	})
	if errors.Is(err, ErrBudget) {
		return fmt.Errorf("%w after %s and %d trials: run it again to go on from there, %s keeps them", ErrBudget, x.so.Budget, len(x.state.Outcomes), x.so.State)
	}
	return errors.Join(err, failed)
}

// noticed says what of a run is not as it is without a profile, or "".
func (x *shrinker) noticed(rec *profile.Recording) string {
	switch {
	case rec.Dropped[profile.DropNotStarted] > 0:
		return "the container did not start"
	case rec.Dropped[profile.DropDeadline] > 0:
		return "it had not ended at the deadline"
	}
	silent := ""
	for _, name := range slices.Sorted(maps.Keys(union(x.baseline.Tests, rec.Tests))) {
		switch was, is := x.baseline.Tests[name], rec.Tests[name]; {
		case was == is || x.flaky[name]:
		case is != "":
			return fmt.Sprintf("%s says %s", name, is)
		default:
			silent = cmp.Or(silent, name+" says nothing")
		}
	}
	exit := ""
	if was, is := x.baseline.Runs[0].Exit, rec.Runs[0].Exit; was != is {
		exit = fmt.Sprintf("the exit status is %d", is)
	}
	if silent != "" && exit != "" {
		return exit + ", and " + silent
	}
	return cmp.Or(silent, exit)
}

// single is one more call to remove, and its answer.
type single struct {
	name  string
	errno uint
}

func (s single) String() string { return s.name + " " + profile.ErrnoName(s.errno) }

// alone returns the calls that are left to remove one by one, with each of the answers.
func alone(candidates []string, removed answers, answers ...uint) (all []single) {
	for _, name := range candidates {
		if _, gone := removed[name]; gone {
			continue
		}
		for _, errno := range answers {
			all = append(all, single{name, errno})
		}
	}
	return all
}

func questions(all []single, removed answers, runs, enough int) (qs []question) {
	for _, one := range all {
		more := maps.Clone(removed)
		more[one.name] = one.errno
		qs = append(qs, question{more, runs, enough})
	}
	return qs
}
