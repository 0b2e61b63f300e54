package profile

import (
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// runsOf makes a recording: for each call, in which of the runs it was seen.
func runsOf(runs int, seen map[string][]int) *Recording {
	r := &Recording{ID: "1", Complete: true}
	for i := range runs {
		r.Runs = append(r.Runs, Run{ID: fmt.Sprint(i + 1)})
	}
	for name, in := range seen {
		nr, ok := Number(specs.ArchX86_64, name)
		if !ok {
			panic(name)
		}
		s := Syscall{Phase: PhaseWorkload, ABI: specs.ArchX86_64, Nr: nr}
		for _, run := range in {
			s.Runs = append(s.Runs, fmt.Sprint(run))
		}
		r.Syscalls = append(r.Syscalls, s)
	}
	return r
}

func TestSaturate(t *testing.T) {
	// By hand: m=4; bind in 1 run, socket and listen in run 2 only, flock in 2 runs, read in all. S=5, Q1=3, Q2=1, U=3+2+4=9.
	s := Saturate(runsOf(4, map[string][]int{"bind": {1}, "socket": {2}, "listen": {2}, "flock": {3, 4}, "read": {1, 2, 3, 4}}))
	want := &Estimate{
		Calls: 5, Once: 3, Twice: 1, Alone: 2,
		Chance:   0.5,                                       // (2+1)/(4+2)
		Total:    8.375,                                     // 5 + 3/4 * 9/2
		Curve:    []float64{2.25, 3 + 1.0/3, 4.25, 5},       // 1 + 3*t/4 + 1 - C(2,t)/C(4,t)
		Coverage: decimals(1 - 3.0/9*(4*3.375/(4*3.375+3))), // 1 - Q1/U * A
	}
	for i := range want.Curve {
		want.Curve[i] = decimals(want.Curve[i])
	}
	if diff := cmp.Diff(want, s.All); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]RunCalls{{"1", 2}, {"2", 3}, {"3", 2}, {"4", 2}}, s.PerRun); diff != "" {
		t.Error(diff)
	}
	var names []string
	for _, f := range s.Calls {
		names = append(names, fmt.Sprintf("%s %d", f.Name, f.Runs))
	}
	if diff := cmp.Diff([]string{"socket 1", "bind 1", "listen 1", "flock 2", "read 4"}, names); diff != "" {
		t.Error(diff)
	}
}

func TestSaturateEdges(t *testing.T) {
	one := Saturate(runsOf(1, map[string][]int{"read": {1}}))
	if one.All != nil || one.Beyond != nil || one.String() != "1 run says nothing of the next one" {
		t.Errorf("one run: %+v", one)
	}
	same := Saturate(runsOf(20, map[string][]int{"read": {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20}}))
	if e := same.All; e.Coverage != 1 || e.Total != 1 || e.Chance != decimals(1.0/22) {
		t.Errorf("20 equal runs: %+v", e)
	}
	// One call seen once and none twice: Chao2 adds nothing, the chance still does.
	rare := Saturate(runsOf(3, map[string][]int{"read": {1, 2, 3}, "bind": {2}}))
	if e := rare.All; e.Total != 2 || e.Coverage != 1 || e.Chance != 0.4 {
		t.Errorf("a call seen once: %+v", e)
	}
	// What the policy adds unseen says nothing against a profile of that policy; nor does a denial say that a call was made.
	r := runsOf(3, map[string][]int{"read": {1, 2, 3}, "restart_syscall": {2}, "bind": {1}})
	r.Syscalls[slices.IndexFunc(r.Syscalls, func(s Syscall) bool { return s.Nr == 49 })].Denied = &Denied{Action: "errno"}
	if s := Saturate(r); s.All.Alone != 1 || s.Beyond.Alone != 0 || s.All.Calls != 2 {
		t.Errorf("closure: %+v, beyond it %+v", s.All, s.Beyond)
	}
	// A call of two phases is one call.
	r = runsOf(2, map[string][]int{"read": {1}})
	r.Syscalls = append(r.Syscalls, Syscall{Phase: PhaseRuntime, ABI: specs.ArchX86_64, Nr: 0, Runs: []string{"1", "2"}})
	if s := Saturate(r); s.All.Calls != 1 || s.All.Once != 0 {
		t.Errorf("two phases: %+v", s.All)
	}
	if e := Saturate(&Recording{Runs: []Run{{ID: "1"}, {ID: "2"}}}).All; e.Calls != 0 || e.Coverage != 1 {
		t.Errorf("no calls: %+v", e)
	}
}

// TestCurve compares the formula with what it stands for: the average over all choices of t runs.
func TestCurve(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		m := 2 + rng.IntN(6)
		seen := map[string][]int{}
		for _, name := range []string{"read", "write", "open", "close", "bind", "socket", "flock", "listen"} {
			for run := range m {
				if rng.IntN(3) == 0 {
					seen[name] = append(seen[name], run+1)
				}
			}
		}
		e := Saturate(runsOf(m, seen)).All
		for size := 1; size <= m; size++ {
			sum, choices := 0, 0
			for chosen := range 1 << m {
				if bits.OnesCount(uint(chosen)) != size {
					continue
				}
				choices++
				for _, in := range seen {
					if slices.ContainsFunc(in, func(run int) bool { return chosen&(1<<(run-1)) != 0 }) {
						sum++
					}
				}
			}
			if want := float64(sum) / float64(choices); math.Abs(want-e.Curve[size-1]) > 1e-4 {
				t.Fatalf("%d of %d runs: %v, by counting %v", size, m, e.Curve[size-1], want)
			}
		}
	}
}

// TestChance plays the rule against made workloads whose truth is known: over many recordings, the estimate before the next run
// must not be lower than how often that run does show something new.
func TestChance(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	names := []string{"read", "write", "open", "close", "bind", "socket", "flock", "listen"}
	for _, p := range []float64{0.02, 0.1, 0.3} { // of each rare call in each run
		said, came := 0.0, 0.0
		const trials, m = 2000, 12
		for range trials {
			seen := map[string][]int{}
			fresh := false
			for _, name := range names {
				for run := range m + 1 {
					if rng.Float64() < p {
						if run == m {
							fresh = fresh || len(seen[name]) == 0
						} else {
							seen[name] = append(seen[name], run+1)
						}
					}
				}
			}
			said += Saturate(runsOf(m, seen)).All.Chance / trials
			if fresh {
				came += 1.0 / trials
			}
		}
		t.Logf("rare calls in %.0f %% of runs: said %.3f, came %.3f", 100*p, said, came)
		if said < came-0.02 || said > came+0.12 {
			t.Errorf("rare calls in %.0f %% of runs: a new call was said to come with a chance of %.3f and came in %.3f", 100*p, said, came)
		}
	}
}

// TestStopping plays record --until-saturated: after it has stopped, the next run must show a new call about as rarely as it
// says, though stopping at the first good moment favours luck.
func TestStopping(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	const trials, enough, most = 400, 0.05, 200
	for _, w := range []struct {
		calls int
		p     float64 // of each in each run
	}{{1, 0.01}, {1, 0.05}, {3, 0.02}, {8, 0.02}, {8, 0.05}, {5, 0.1}} {
		came, runs := 0.0, 0.0
		for range trials {
			seen := make([]map[string]bool, w.calls)
			run := func(m int) (fresh bool) {
				for i := range seen {
					if rng.Float64() < w.p {
						fresh = fresh || seen[i] == nil
						if seen[i] == nil {
							seen[i] = map[string]bool{}
						}
						seen[i][fmt.Sprint(m)] = true
					}
				}
				return fresh
			}
			run(1)
			m := 2
			for ; m <= most; m++ {
				run(m)
				if estimate(slices.DeleteFunc(slices.Clone(seen), func(in map[string]bool) bool { return in == nil }), m).Chance < enough {
					break
				}
			}
			runs += float64(m) / trials
			if run(m + 1) {
				came += 1.0 / trials
			}
		}
		t.Logf("%d calls, each in %.0f %% of runs: stopped after %.0f runs, and the next showed a new call in %.1f %%", w.calls, 100*w.p, runs, 100*came)
		if came > enough+0.04 {
			t.Errorf("%d calls, each in %.0f %% of runs: a new call came in %.1f %%", w.calls, 100*w.p, 100*came)
		}
	}
}
