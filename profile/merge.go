package profile

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Merge unites the runs of several recordings of the same workload, runtime and settings. A run that stands in more
// than one of them counts once, so that merging is commutative, associative and idempotent.
func Merge(recordings ...*Recording) (*Recording, error) {
	if len(recordings) == 0 {
		return nil, errors.New("merge: no recordings")
	}
	m := *recordings[0]
	m.Complete, m.Dropped, m.Tests, m.Runs, m.Programs, m.Syscalls, m.Unknown = true, nil, nil, nil, nil, nil, nil
	runs := map[string]Run{}
	calls := map[string]Syscall{}
	unknown := map[Unknown]bool{}
	for _, r := range recordings {
		if a, b := m.header(), r.header(); a != b {
			return nil, fmt.Errorf("merge: recordings %q and %q differ in workload, runtime, kernel or boundary: %s and %s", m.ID, r.ID, a, b)
		}
		m.ID = min(m.ID, r.ID)
		m.Complete = m.Complete && r.Complete
		for reason, n := range r.Dropped {
			if m.Dropped == nil {
				m.Dropped = map[string]uint64{}
			}
			m.Dropped[reason] = max(m.Dropped[reason], n)
		}
		// Calls of programs that are not known stay so among those that are.
		m.Programs = mergePrograms(m.Programs, slices.Concat(r.Programs, r.unknownPrograms()))
		for name, result := range r.Tests {
			if m.Tests == nil {
				m.Tests = map[string]string{}
			}
			m.Tests[name] = worse(m.Tests[name], result)
		}
		for _, run := range r.Runs {
			runs[run.ID] = run
		}
		for _, s := range r.Syscalls {
			mergeCall(calls, s)
		}
		for _, u := range r.Unknown {
			unknown[u] = true
		}
	}
	m.Runs = slices.Collect(maps.Values(runs))
	m.Syscalls = slices.Collect(maps.Values(calls))
	counts := map[Unknown]uint64{}
	for u := range unknown {
		k := Unknown{ABI: u.ABI, Nr: u.Nr}
		counts[k] = max(counts[k], u.Count)
	}
	for u, n := range counts {
		u.Count = n
		m.Unknown = append(m.Unknown, u)
	}
	m.sort()
	return &m, nil
}

// maxCallers is how many first callers of a call a recording of many runs keeps.
const maxCallers = 8

func mergeCall(calls map[string]Syscall, s Syscall) {
	old, ok := calls[s.key()]
	if !ok {
		old = s
		old.Runs, old.Callers = nil, nil
	}
	old.Args = mergeArguments(old.Args, s.Args)
	old.Runs = union(old.Runs, s.Runs, func(a, b string) int { return cmp.Compare(a, b) })
	old.Callers = slices.Concat(old.Callers, s.Callers)
	slices.SortFunc(old.Callers, compareCallers)
	old.Callers = slices.CompactFunc(old.Callers, func(a, b Caller) bool { return compareCallers(a, b) == 0 })
	old.Callers = old.Callers[:min(len(old.Callers), maxCallers)]
	if s.Denied != nil {
		first := *old.Denied
		if cmp.Or(cmp.Compare(s.Denied.Order, first.Order), slices.Compare(s.Denied.Args[:], first.Args[:])) < 0 {
			first = *s.Denied
		}
		first.Count = max(s.Denied.Count, old.Denied.Count)
		old.Denied = &first
	}
	calls[s.key()] = old
}

func union[T comparable](a, b []T, compare func(T, T) int) []T {
	all := slices.Concat(a, b)
	slices.SortFunc(all, compare)
	return slices.Compact(all)
}

// worse keeps the worst of two results of the same test.
func worse(a, b string) string {
	for _, result := range []string{"fail", "pass", "skip"} {
		if a == result || b == result {
			return result
		}
	}
	return cmp.Or(a, b)
}

// header is what recordings must share to be merged.
func (r *Recording) header() string {
	data, err := json.Marshal([]any{r.Runtime, r.Kernel, r.Boundary, r.NoNewPrivileges, r.Capabilities, r.Workload})
	if err != nil {
		panic(err) // plain strings: cannot happen
	}
	return string(data)
}
