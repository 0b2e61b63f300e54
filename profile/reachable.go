package profile

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Binary is a Go program that will run under the profile, as the user has it.
type Binary struct {
	Program            // with an analysis
	Interpreter string // that loads it, and the C libraries that it wants; "" for a static one
	C           bool   // it has code of C's, or wants C libraries
	Plugins     bool   // it can load Go code that is not in it
}

// Can returns the functions in the machine code that make a call, sorted; nil if none does.
func (b Binary) Can(name string) []string {
	var all []string
	for _, c := range b.Static.Reachable {
		if Name(c.ABI, c.Nr) == name {
			all = union(all, c.Functions, cmp.Compare[string])
		}
	}
	return all
}

// Incomplete returns the functions for whose sake the analysis may lack calls, sorted, each once.
func (b Binary) Incomplete() []string {
	var all []string
	for _, f := range b.Static.Unresolved {
		all = append(all, cmp.Or(f, "code without a name"))
	}
	for _, c := range b.Static.Reachable {
		if Name(c.ABI, c.Nr) == "" {
			for _, f := range c.Functions {
				all = append(all, fmt.Sprintf("%s (number %d of %s has no name here)", f, c.Nr, c.ABI))
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// abis returns the ABIs of a binary's calls.
func (b Binary) abis() []specs.Arch {
	var all []specs.Arch
	for _, c := range b.Static.Reachable {
		all = append(all, c.ABI)
	}
	return sortABIs(all)
}

// few joins words, and counts those beyond the first three.
func few(words []string) string {
	const most = 3
	if len(words) <= most+1 {
		return strings.Join(words, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(words[:most], ", "), len(words)-most)
}

// checkBinaries refuses what the policy reachable cannot be held for.
func checkBinaries(recordings []*Recording, o BuildOptions) error {
	for _, b := range o.Binaries {
		if b.Static == nil {
			return fmt.Errorf("the machine code of %s was not analyzed", b)
		}
	}
	if o.Policy != PolicyReachable {
		if len(o.Allow) > 0 {
			return fmt.Errorf("allowing %s goes with the policy %s", strings.Join(o.Allow, ", "), PolicyReachable)
		}
		return nil
	}
	if len(o.Binaries) == 0 {
		return fmt.Errorf("the policy %s needs the program that will run: give --binary FILE", PolicyReachable)
	}
	if len(recordings) == 0 && slices.Contains(o.Phases, PhaseRuntime) && len(o.For) == 0 {
		return errors.New("without a recording the runtimes must be named that are to start the container: give --for")
	}
	if len(recordings) == 0 && (len(o.Arch) > 0 || o.Kernels != Kernels{}) {
		return errors.New("other architectures and kernels take a recording: give --binary with what was built for them")
	}
	for _, b := range o.Binaries {
		if f := b.Incomplete(); len(f) > 0 && !o.AllowIncomplete {
			return fmt.Errorf("%s can make calls whose numbers could not be told, in %s: record it and build by the policy %s, or give --allow-incomplete", b, few(f), PolicyRobust)
		}
		if b.Interpreter != "" && len(recordings) == 0 {
			return fmt.Errorf("%s is loaded by %s, whose calls and those of C libraries are not in the file: record it, or build it static (CGO_ENABLED=0, without -buildmode=pie)", b, b.Interpreter)
		}
	}
	var can []string
	for _, name := range AskFirstCalls() {
		if slices.ContainsFunc(o.Binaries, func(b Binary) bool { return b.Can(name) != nil }) {
			can = append(can, name)
		}
	}
	for _, name := range o.Allow {
		if !slices.Contains(can, name) {
			return fmt.Errorf("%s is not one of the dangerous calls that the machine code can make, which --allow is for: %s", name, cmp.Or(strings.Join(can, ", "), "there are none"))
		}
	}
	return nil
}

// unrecorded stands for the recordings of programs that nobody has recorded.
func unrecorded(binaries []Binary) *Recording {
	r := &Recording{Complete: true}
	for _, b := range binaries {
		r.Programs = append(r.Programs, b.Program)
	}
	return r
}

// otherABIs returns the ABIs of binaries of which no call was recorded.
func otherABIs(recordings []*Recording, binaries []Binary) []specs.Arch {
	var all []specs.Arch
	for _, b := range binaries {
		for _, abi := range b.abis() {
			if !slices.ContainsFunc(recordings, func(r *Recording) bool { return slices.Contains(r.abis(Phases()...), abi) }) {
				all = append(all, abi)
			}
		}
	}
	return sortABIs(all)
}

// onABIs moves what runtimes were measured to need to the ABIs of the binaries. A 32-bit x86 program is started by a 64-bit
// runtime, and of arm64 nothing was measured: all calls are taken to be the same there.
func onABIs(baselines map[target]measured, binaries []Binary) map[target]measured {
	moved := map[target]measured{}
	for _, b := range binaries {
		for _, abi := range b.abis() {
			if abi == specs.ArchX86 || abi == specs.ArchX32 {
				abi = specs.ArchX86_64
			}
			for t, by := range baselines {
				if to := (target{abi, t.name}); Has(abi, t.name) {
					moved[to] = union(moved[to], by, func(a, b Runtime) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version)) })
				}
			}
		}
	}
	return moved
}

// addReachable allows all that the machine code of the binaries can make, but for the dangerous calls that no run made and
// nobody named.
func (e *evidence) addReachable() error {
	if e.o.Policy != PolicyReachable {
		return nil
	}
	seen := map[string]bool{}
	for t, reasons := range e.allowed {
		seen[t.name] = seen[t.name] || slices.ContainsFunc(reasons, func(r Reason) bool { return r.Kind == KindObserved })
	}
	before := maps.Clone(e.allowed)
	for _, b := range e.o.Binaries {
		for _, c := range b.Static.Reachable {
			t := target{c.ABI, Name(c.ABI, c.Nr)}
			danger := AskFirst(t.name)
			named := slices.Contains(e.o.Allow, t.name)
			if t.name == "" || danger != "" && !seen[t.name] && !named {
				continue
			}
			r := Reason{Kind: KindReachable, Text: "the machine code can make it", Caller: b.Path + ": " + few(c.Functions)}
			switch {
			case seen[t.name] && before[t] != nil:
				r.args = recorded
			case onlyRuntime(c.Functions):
				r.args = goRuntimes
			}
			e.allowed[t] = append(e.allowed[t], r)
			if named && danger != "" {
				e.allowed[t] = append(e.allowed[t], Reason{Kind: KindDangerous, Text: "allowed by --allow, not by evidence: " + danger, Caller: r.Caller, args: r.args})
			}
		}
	}
	maps.DeleteFunc(e.denied, func(t target, _ []Reason) bool { return allowedAnywhere(e.allowed, t.name) })
	return nil
}

// onlyRuntime reports whether functions are all of the Go runtime's. Of a list that may be cut short nobody knows.
func onlyRuntime(functions []string) bool {
	const cut = 32 // as internal/gobin has it
	return len(functions) < cut && !slices.ContainsFunc(functions, func(f string) bool {
		return !strings.HasPrefix(f, "runtime.") && !strings.HasPrefix(f, "internal/runtime/")
	})
}

// MeasuredRuntimes returns the runtimes whose needs under a filter were measured, as the option For takes them.
func MeasuredRuntimes() ([]string, error) {
	baselines, err := Baselines()
	var all []string
	for _, b := range baselines {
		all = append(all, b.Runtime.Name+"@"+b.Runtime.Version)
	}
	slices.Sort(all)
	return slices.Compact(all), err
}
