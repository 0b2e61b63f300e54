package profile

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// This file holds what is special in a recording of several packages: the runs, the tests and the callers say of which they are.

// Join makes one recording of those of several packages, which ran under the same runtime with the same settings. Args are what
// all of them were given. The recording of one package stays as it is.
func Join(args []string, recordings ...*Recording) (*Recording, error) {
	if len(recordings) == 1 {
		return recordings[0], nil
	}
	if len(recordings) == 0 {
		return nil, errors.New("join: no recordings")
	}
	first := recordings[0].Workload
	w := Workload{Module: first.Module, Go: first.Go, Args: append([]string{}, args...), User: first.User}
	seen := map[string]bool{}
	for _, r := range recordings {
		if r.Workload.Package == "" || seen[r.Workload.Package] {
			return nil, fmt.Errorf("join: recording %q is of package %q, which is empty or stands twice", r.ID, r.Workload.Package)
		}
		seen[r.Workload.Package] = true
		w.Packages = append(w.Packages, Package{Path: r.Workload.Package, Module: r.Workload.Module, SHA256: r.Workload.SHA256})
		if r.Workload.Module != w.Module {
			w.Module = ""
		}
		if r.Workload.Go != w.Go {
			w.Go = ""
		}
	}
	slices.SortFunc(w.Packages, func(a, b Package) int { return strings.Compare(a.Path, b.Path) })
	var all []*Recording
	for _, r := range recordings {
		all = append(all, r.inPackage(w))
	}
	return Merge(all...)
}

// Name returns the package that ran, of several packages the module or how many they are, or "".
func (w Workload) Name() string {
	if len(w.Packages) == 0 || w.Package != "" {
		return w.Package
	}
	module, _, _ := strings.Cut(w.Module, "@")
	return cmp.Or(module, fmt.Sprintf("%d packages", len(w.Packages)))
}

// inPackage returns the recording of one package as a part of that of several.
func (r *Recording) inPackage(w Workload) *Recording {
	name := r.Workload.Package
	part := *r
	part.Workload = w
	part.Runs, part.Syscalls = slices.Clone(r.Runs), slices.Clone(r.Syscalls)
	for i := range part.Runs {
		part.Runs[i].Package = name
	}
	for i := range part.Syscalls {
		if part.Syscalls[i].Phase == PhaseRuntime {
			continue // the same whatever it starts
		}
		callers := slices.Clone(part.Syscalls[i].Callers)
		for j := range callers {
			callers[j].Package = name
		}
		part.Syscalls[i].Callers = callers
	}
	part.Tests = nil
	for test, result := range r.Tests {
		if part.Tests == nil {
			part.Tests = map[string]string{}
		}
		part.Tests[TestIn(name, test)] = result
	}
	return &part
}

// TestIn names a test of one of several packages. No import path has a space.
func TestIn(pkg, test string) string {
	if pkg == "" {
		return test
	}
	return pkg + " " + test
}

// ResultsOf returns the results of one package's tests and the exit status of its first run: of a recording of several, or of
// that package alone. found is false if the recording does not have the package.
func (r *Recording) ResultsOf(pkg string) (tests map[string]string, exit int, found bool) {
	if len(r.Workload.Packages) == 0 {
		return r.Tests, r.Runs[0].Exit, r.Workload.Package == pkg
	}
	i := slices.IndexFunc(r.Runs, func(run Run) bool { return run.Package == pkg })
	if i < 0 {
		return nil, 0, false
	}
	tests = map[string]string{}
	for name, result := range r.Tests {
		if test, ok := strings.CutPrefix(name, pkg+" "); ok {
			tests[test] = result
		}
	}
	return tests, r.Runs[i].Exit, true
}

// rounds numbers the runs, from 0 on, such that the runs of a number are one of all that the workload does: with several packages
// it is one run of each. n is how many there are.
func (r *Recording) rounds() (round map[string]int, n int) {
	round = map[string]int{}
	count := map[string]int{} // by package
	for _, run := range r.Runs {
		round[run.ID] = count[run.Package]
		count[run.Package]++
	}
	for _, runs := range count {
		if n == 0 || runs < n {
			n = runs
		}
	}
	for id := range round {
		round[id] %= n // those with more runs than others
	}
	return round, n
}
