package profile

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Saturation says how far the runs of a recording have shown all that the workload does. It does not depend on the order of
// the runs. A call counts once in a run, whatever its phase: a profile lists it or does not. With several packages a run is one of
// each of them.
type Saturation struct {
	Runs   int         `json:"runs"`
	PerRun []RunCalls  `json:"perRun"`
	Calls  []Frequency `json:"calls"`            // every call, the rarest first
	All    *Estimate   `json:"all,omitempty"`    // over all calls; nil if there is one run only, which tells nothing of the next
	Beyond *Estimate   `json:"beyond,omitempty"` // over the calls that the policy robust does not add unseen
}

// RunCalls is how many distinct calls a run made.
type RunCalls struct {
	ID    string `json:"id"`
	Calls int    `json:"calls"`
}

// Frequency is in how many of the runs a call was seen.
type Frequency struct {
	ABI  specs.Arch `json:"abi"`
	Nr   uint32     `json:"nr"`
	Name string     `json:"name"`
	Runs int        `json:"runs"`
}

// Estimate is what the runs let expect of those to come. It holds for more runs like these, on this host: of code that no
// test reaches it knows nothing.
type Estimate struct {
	Calls int `json:"calls"` // distinct calls seen
	Once  int `json:"once"`  // of these in one run only
	Twice int `json:"twice"` // in two runs only

	// Curve is how many distinct calls 1, 2 ... runs show, on average over all choices of that many runs.
	Curve []float64 `json:"curve"`

	// Total is Chao2, the estimate of how many distinct calls endless runs would show: a lower bound. It is
	// Calls + (m-1)/m * Once^2/(2 Twice), or where no call was seen twice Calls + (m-1)/m * Once (Once-1)/2.
	Total float64 `json:"total"`

	// Coverage is the Good-Turing estimate, as Chao and others correct it for incidences, of the share of the calls of a
	// further run that are known: 1 - Once/U * (1-f), where U is the sum of all frequencies and f = Once/(Once + m*(Total-Calls)).
	Coverage float64 `json:"coverage"`

	// Alone is how many runs hold a call that no other run does: each, had it come last, would have shown a new call.
	Alone int `json:"alone"`

	// Chance is the estimated chance that the next run shows a new call: (Alone+1)/(m+2), by the rule of succession, so that few
	// runs never look certain. Calls that come together, such as those of preemption, count as the one event that they are.
	Chance float64 `json:"chance"`
}

// Saturate computes the saturation of a recording's runs. The formulas of Total and Coverage are those of the R package
// iNEXT (its function Chat.Sam), for incidence data: a run is a sampling unit, a call is a species.
func Saturate(r *Recording) *Saturation {
	type call struct {
		abi specs.Arch
		nr  uint32
	}
	round, n := r.rounds()
	in := map[call]map[int]bool{}
	var abis []specs.Arch
	for _, s := range r.Syscalls {
		if s.Denied != nil {
			continue
		}
		c := call{s.ABI, s.Nr}
		if in[c] == nil {
			in[c] = map[int]bool{}
		}
		for _, id := range s.Runs {
			in[c][round[id]] = true
		}
		abis = append(abis, s.ABI)
	}
	added := additions([]*Recording{r}, sortABIs(abis), nil)
	s := &Saturation{Runs: n, PerRun: []RunCalls{}, Calls: []Frequency{}}
	var all, beyond []map[int]bool
	for c, runs := range in {
		name := Name(c.abi, c.nr)
		s.Calls = append(s.Calls, Frequency{ABI: c.abi, Nr: c.nr, Name: name, Runs: len(runs)})
		all = append(all, runs)
		if _, ok := added[target{c.abi, name}]; !ok {
			beyond = append(beyond, runs)
		}
	}
	slices.SortFunc(s.Calls, func(a, b Frequency) int {
		return cmp.Or(cmp.Compare(a.Runs, b.Runs), cmp.Compare(abiOrder(a.ABI), abiOrder(b.ABI)), cmp.Compare(a.Nr, b.Nr))
	})
	named := make([]bool, n)
	for _, run := range r.Runs {
		i, made := round[run.ID], 0
		if named[i] {
			continue
		}
		named[i] = true
		for _, runs := range all {
			if runs[i] {
				made++
			}
		}
		s.PerRun = append(s.PerRun, RunCalls{run.ID, made})
	}
	if s.Runs > 1 {
		s.All, s.Beyond = estimate(all, s.Runs), estimate(beyond, s.Runs)
	}
	return s
}

// estimate takes the runs of each call, and how many runs there are.
func estimate[K comparable](calls []map[K]bool, m int) *Estimate {
	e := &Estimate{Calls: len(calls), Coverage: 1}
	frequencies := make([]int, m+1) // how many calls were seen in that many runs
	alone := map[K]bool{}
	sum := 0
	for _, runs := range calls {
		frequencies[len(runs)]++
		sum += len(runs)
		if len(runs) == 1 {
			for id := range runs {
				alone[id] = true
			}
		}
	}
	e.Once, e.Twice, e.Alone = frequencies[1], frequencies[2], len(alone)
	e.Chance = decimals(float64(e.Alone+1) / float64(m+2))
	runs, once := float64(m), float64(e.Once)
	unseen := (runs - 1) / runs * once * (once - 1) / 2
	if e.Twice > 0 {
		unseen = (runs - 1) / runs * once * once / (2 * float64(e.Twice))
	}
	e.Total = decimals(float64(e.Calls) + unseen)
	if e.Once > 0 {
		e.Coverage = decimals(1 - once/float64(sum)*(runs*unseen/(runs*unseen+once)))
	}
	// Rarefaction: a call seen in k of m runs is missed by t of them with the chance C(m-k,t)/C(m,t).
	missed := make([]float64, m+1)
	for k := range missed {
		missed[k] = 1
	}
	for t := range m {
		expected := float64(e.Calls)
		for k, n := range frequencies {
			missed[k] *= float64(max(m-k-t, 0)) / float64(m-t)
			expected -= float64(n) * missed[k]
		}
		e.Curve = append(e.Curve, decimals(expected))
	}
	return e
}

// decimals rounds, so that processors which fuse operations give the same bytes as others.
func decimals(x float64) float64 { return math.Round(x*1e4) / 1e4 }

// String says it in a line.
func (s *Saturation) String() string {
	if s.All == nil {
		return "1 run says nothing of the next one"
	}
	return fmt.Sprintf("%d distinct calls, of an estimated %.1f or more (Chao2); coverage %s (Good-Turing); chance of a new call in the next run %s, of one that the policy robust does not add anyway %s",
		s.All.Calls, s.All.Total, percent(s.All.Coverage), percent(s.All.Chance), percent(s.Beyond.Chance))
}

func percent(x float64) string { return fmt.Sprintf("%.3g %%", 100*x) }
