package profile

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Baseline is what an OCI runtime's own init calls under the filter, before it executes the workload. It differs by runtime,
// version and noNewPrivileges, and a profile made under one fails to start under another.
type Baseline struct {
	Runtime         Runtime    `json:"runtime"`
	NoNewPrivileges bool       `json:"noNewPrivileges"`
	ABI             specs.Arch `json:"abi"`
	Runs            int        `json:"runs"` // that measured it
	Calls           []string   `json:"calls"`
}

// The data is measured: make baselines writes it anew.
//
//go:embed baselines.json
var baselinesJSON []byte

// Baselines returns the measured baselines.
func Baselines() ([]Baseline, error) {
	var all []Baseline
	if err := strictJSON(baselinesJSON, &all); err != nil {
		return nil, fmt.Errorf("decode baselines.json: %w", err)
	}
	return all, nil
}

// EncodeBaselines writes baselines as baselines.json has them.
func EncodeBaselines(baselines []Baseline) ([]byte, error) {
	data, err := json.MarshalIndent(baselines, "", "  ")
	return append(data, '\n'), err
}

// baselinesOf returns the baselines of a runtime as users name it: runc, runc@1.1 or runc@1.1.5. With always set they are those
// of containers that set noNewPrivileges, without it those of all.
func baselinesOf(name string, nnp bool) ([]Baseline, error) {
	all, err := Baselines()
	if err != nil {
		return nil, err
	}
	kind, version, _ := strings.Cut(name, "@")
	found := slices.DeleteFunc(slices.Clone(all), func(f Baseline) bool {
		return f.Runtime.Name != kind || !versionMatches(f.Runtime.Version, version) || nnp && !f.NoNewPrivileges
	})
	if len(found) == 0 {
		var known []string
		for _, f := range all {
			known = append(known, f.Runtime.Name+"@"+f.Runtime.Version)
		}
		return nil, fmt.Errorf("the needs of %s were not measured (known: %s): record under it, or measure it with make baselines",
			name, strings.Join(slices.Compact(slices.Sorted(slices.Values(known))), ", "))
	}
	return found, nil
}

// BaselineCalls returns the calls that a runtime's init makes under a filter, as measured, sorted.
func BaselineCalls(r Runtime, noNewPrivileges bool) ([]string, error) {
	baselines, err := baselinesOf(r.Name+"@"+r.Version, noNewPrivileges)
	var all []string
	for _, f := range baselines {
		all = append(all, f.Calls...)
	}
	slices.Sort(all)
	return slices.Compact(all), err
}

// versionMatches reports whether a full version, 1.1.5+ds1, belongs to the one that was asked for, 1.1 or 1.1.5.
func versionMatches(full, asked string) bool {
	if asked == "" || full == asked {
		return true
	}
	rest, ok := strings.CutPrefix(full, asked)
	return ok && !('0' <= rest[0] && rest[0] <= '9')
}

// Savings returns the calls that the profile allows only since a runtime needs them to start a container without
// noNewPrivileges, sorted: with it set (allowPrivilegeEscalation: false in Kubernetes) they could go. The runtimes are those
// recorded, and those of the options; unmeasured names those of them of which nothing is known.
func Savings(recordings []*Recording, why *Why, o BuildOptions) (calls, unmeasured []string) {
	if !slices.Contains(o.Phases, PhaseRuntime) && o.Phases != nil {
		return nil, nil
	}
	var runtimes []string
	without := !o.NoNewPrivileges && len(o.For) > 0
	runtimes = append(runtimes, o.For...)
	for _, r := range recordings {
		without = without || !r.NoNewPrivileges
		runtimes = append(runtimes, r.Runtime.Name+"@"+r.Runtime.Version)
	}
	if !without {
		return nil, nil
	}
	slices.Sort(runtimes)
	with, all := map[target]bool{}, map[target]bool{}
	for _, name := range slices.Compact(runtimes) {
		baselines, err := baselinesOf(name, false)
		if err != nil {
			unmeasured = append(unmeasured, name)
			continue
		}
		for _, f := range baselines {
			for _, call := range f.Calls {
				all[target{f.ABI, call}] = true
				if f.NoNewPrivileges {
					with[target{f.ABI, call}] = true
				}
			}
		}
	}
	for _, e := range why.Entries {
		t := target{e.ABI, e.Name}
		other := slices.ContainsFunc(e.Reasons, func(r Reason) bool { return r.Kind != KindOCIRuntime })
		if all[t] && !with[t] && !other {
			calls = append(calls, e.Name)
		}
	}
	slices.Sort(calls)
	return slices.Compact(calls), unmeasured
}
