package profile

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Policy decides what a profile holds beside what was seen.
type Policy string

// The policies.
const (
	PolicyExact     Policy = "exact"     // what was seen, nothing else
	PolicyRobust    Policy = "robust"    // and what one run cannot show, and errnos that make fallbacks work
	PolicyReachable Policy = "reachable" // and what the machine code of the binaries can make
)

// BuildOptions are the settings of Build. The zero value of each is the default.
type BuildOptions struct {
	Policy          Policy       // robust
	Phases          []Phase      // all
	Deny            string       // errno (EPERM), kill (the process) or log
	Arch            []specs.Arch // list these too, with what the same program calls there
	Kernels         Kernels      // allow what the same program calls on these
	AnyArguments    bool         // no conditions on arguments
	For             []string     // runtimes that the profile must start under beside the recorded one: runc@1.1, crun
	NoNewPrivileges bool         // For: the containers will set no_new_privs, and those runtimes then need less
	Binaries        []Binary     // the programs that will run; AddAnalysis makes them known to the recordings
	Allow           []string     // reachable: dangerous calls to allow though no run made them
	AllowIncomplete bool
}

type target struct {
	abi  specs.Arch
	name string
}

// Build makes a profile from recordings. The same recordings, in any order, give the same profile.
func Build(recordings []*Recording, o BuildOptions) (*specs.LinuxSeccomp, *Why, error) {
	o, err := o.complete()
	if err != nil {
		return nil, nil, err
	}
	if err := cmp.Or(checkEvidence(recordings, o), checkBinaries(recordings, o)); err != nil {
		return nil, nil, err
	}
	e := newEvidence(recordings, o)
	for _, pass := range []func(*evidence) error{
		(*evidence).addObserved,
		(*evidence).addBaselines,
		(*evidence).answerClone3,
		(*evidence).addUnseen,
		(*evidence).addElsewhere,
		(*evidence).addReachable,
		(*evidence).answerErrnos,
	} {
		if err := pass(e); err != nil {
			return nil, nil, err
		}
	}
	return e.profile()
}

// complete fills in the defaults, and refuses what cannot be.
func (o BuildOptions) complete() (BuildOptions, error) {
	o.Policy, o.Deny = cmp.Or(o.Policy, PolicyRobust), cmp.Or(o.Deny, "errno")
	if o.Phases == nil {
		o.Phases = Phases()
	}
	if _, ok := defaultActions[o.Deny]; !ok {
		return o, fmt.Errorf("deny action %q is not one of errno, kill, log", o.Deny)
	}
	if !slices.Contains([]Policy{PolicyExact, PolicyRobust, PolicyReachable}, o.Policy) {
		return o, fmt.Errorf("policy %q is not one of exact, robust, reachable", o.Policy)
	}
	for _, phase := range o.Phases {
		if !slices.Contains(Phases(), phase) {
			return o, fmt.Errorf("phase %q is not one of %s, %s, %s", phase, PhaseRuntime, PhaseWorkload, PhaseExec)
		}
	}
	for _, arch := range o.Arch {
		if table(arch) == nil {
			return o, fmt.Errorf("architecture %q is not one of %v", arch, ABIs())
		}
	}
	return o, nil
}

// evidence is what a profile is built of, and what the passes have made of it so far.
type evidence struct {
	recordings []*Recording
	o          BuildOptions
	alone      bool            // there is no recording, but binaries
	codes      map[target]code // whose code made the calls
	baselines  map[target]measured

	abis    []specs.Arch // sorted once all are known, after the baselines
	allowed map[target][]Reason
	denied  map[target][]Reason // answered with ENOSYS
	same    map[target]bool     // calls of other ABIs whose arguments are the same there in every bit
}

func newEvidence(recordings []*Recording, o BuildOptions) *evidence {
	e := &evidence{recordings: recordings, o: o, alone: len(recordings) == 0, allowed: map[target][]Reason{}, denied: map[target][]Reason{}}
	if e.alone {
		e.recordings = []*Recording{unrecorded(o.Binaries)}
	} else if o.Policy == PolicyReachable {
		e.o.Arch = slices.Concat(o.Arch, otherABIs(recordings, o.Binaries))
	}
	e.abis = slices.Clone(e.o.Arch)
	e.codes = whoseCode(e.recordings, o.Phases)
	return e
}

// addObserved allows what was seen.
func (e *evidence) addObserved() error {
	for _, c := range observed(e.recordings, e.o.Phases) {
		e.abis = append(e.abis, c.target.abi)
		e.allowed[c.target] = append(e.allowed[c.target], c.Reason)
	}
	return nil
}

// addBaselines allows what the OCI runtimes were measured to need. From here on all ABIs are known.
func (e *evidence) addBaselines() (err error) {
	if e.baselines, err = runtimeBaselines(e.recordings, e.o); err != nil {
		return err
	}
	here := e.baselines
	if e.alone {
		e.baselines = onABIs(e.baselines, e.o.Binaries)
		for _, b := range e.o.Binaries {
			e.abis = append(e.abis, b.abis()...)
		}
	}
	for t, by := range e.baselines {
		e.abis = append(e.abis, t.abi)
		text := "needed by the runtime under the filter, as measured"
		if here[t] == nil {
			text += " on another ABI"
		}
		e.allowed[t] = append(e.allowed[t], Reason{Kind: KindOCIRuntime, Text: text, Caller: by.String()})
	}
	if len(e.allowed) == 0 && !e.alone {
		return fmt.Errorf("the phases %v of these recordings hold no calls", e.o.Phases)
	}
	e.abis = sortABIs(e.abis)
	return nil
}

// addUnseen allows what runs may not show.
func (e *evidence) addUnseen() error {
	if e.o.Policy == PolicyExact {
		return nil
	}
	for t, reasons := range additions(e.recordings, e.abis, e.baselines) {
		e.allowed[t] = append(e.allowed[t], reasons...)
	}
	return nil
}

// addElsewhere allows what the same program calls on other ABIs and kernels.
func (e *evidence) addElsewhere() error {
	elsewhere, same, err := e.portable()
	e.same = same
	maps.Copy(e.allowed, elsewhere)
	return err
}

// answerErrnos answers calls that nobody made with what makes their callers fall back on others.
func (e *evidence) answerErrnos() error {
	if e.o.Policy == PolicyExact {
		return nil
	}
	for _, row := range enosys() {
		for _, abi := range e.abis {
			t := target{abi, row.name}
			if _, has := Number(abi, row.name); has && !allowedAnywhere(e.allowed, row.name) {
				e.denied[t] = append(e.denied[t], Reason{Kind: KindErrno, Text: row.text})
			}
		}
	}
	return nil
}

// profile writes down what the passes have found.
func (e *evidence) profile() (*specs.LinuxSeccomp, *Why, error) {
	args := e.conditions()
	if e.o.AnyArguments {
		maps.DeleteFunc(args, func(name string, _ *condition) bool { return name != "clone" }) // which would make namespaces
	}
	errno := uint(enosysErrno)
	p := &specs.LinuxSeccomp{DefaultAction: defaultActions[e.o.Deny], Architectures: e.abis, Syscalls: allowRules(names(e.allowed), args)}
	if len(e.denied) > 0 {
		p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: names(e.denied), Action: specs.ActErrno, ErrnoRet: &errno})
	}
	data, err := Encode(p)
	if err != nil {
		return nil, nil, err
	}
	sum := sha256.Sum256(data)
	w := &Why{Version: WhyVersion, Profile: hex.EncodeToString(sum[:]), Untested: untested(e.recordings, e.o.Binaries, e.allowed), Unknown: unnamed(e.recordings)}
	w.add(e.allowed, specs.ActAllow, nil, args, e.abis)
	w.add(e.denied, specs.ActErrno, &errno, nil, e.abis)
	return p, w, nil
}

// unnamed returns the numbers that were called and have no name, sorted.
func unnamed(recordings []*Recording) []Unknown {
	var all []Unknown
	for _, r := range recordings {
		all = append(all, r.Unknown...)
	}
	slices.SortFunc(all, func(a, b Unknown) int {
		return cmp.Or(cmp.Compare(abiOrder(a.ABI), abiOrder(b.ABI)), cmp.Compare(a.Nr, b.Nr), cmp.Compare(a.Count, b.Count))
	})
	return slices.Compact(all)
}

// enosysErrno is ENOSYS on every ABI that has a table here.
const enosysErrno = 38

// checkEvidence refuses recordings from which only a thin profile could come.
func checkEvidence(recordings []*Recording, o BuildOptions) error {
	if len(recordings) == 0 && o.Policy != PolicyReachable {
		return errors.New("no recordings")
	}
	for _, r := range recordings {
		if err := r.Incomplete(); err != nil && !o.AllowIncomplete {
			return fmt.Errorf("recording %q: %w: record again, or give --allow-incomplete", r.ID, err)
		}
	}
	return nil
}

// measured are the runtimes whose init was measured to need a call.
type measured []Runtime

func (m measured) String() string {
	var all []string
	for _, r := range m {
		all = append(all, r.Name+" "+r.Version)
	}
	return strings.Join(all, ", ")
}

// runtimeBaselines returns what the runtimes need that the caller names, and those recorded without a filter: what these
// call under one is not in their recordings.
func runtimeBaselines(recordings []*Recording, o BuildOptions) (map[target]measured, error) {
	if !slices.Contains(o.Phases, PhaseRuntime) {
		return nil, nil
	}
	runtimes := map[string]bool{} // name to noNewPrivileges
	for _, name := range o.For {
		runtimes[name] = o.NoNewPrivileges
	}
	for _, r := range recordings {
		if r.Boundary == BoundaryExecve {
			name := r.Runtime.Name + "@" + r.Runtime.Version
			nnp, again := runtimes[name]
			runtimes[name] = r.NoNewPrivileges && (nnp || !again)
		}
	}
	add := map[target]measured{}
	for _, name := range slices.Sorted(maps.Keys(runtimes)) {
		baselines, err := baselinesOf(name, runtimes[name])
		if err != nil {
			return nil, err
		}
		for _, b := range baselines {
			for _, call := range b.Calls {
				if t := (target{b.ABI, call}); !slices.Contains(add[t], b.Runtime) {
					add[t] = append(add[t], b.Runtime)
				}
			}
		}
	}
	return add, nil
}

type observation struct {
	target
	Reason
}

// observed unites what the recordings saw, with how often and by whom.
func observed(recordings []*Recording, phases []Phase) []observation {
	type key struct {
		phase Phase
		target
	}
	runs, callers := map[key]map[string]bool{}, map[key]Caller{}
	all := map[string]bool{}
	for _, r := range recordings {
		for _, run := range r.Runs {
			all[run.ID] = true
		}
		for _, s := range r.Syscalls {
			if s.Denied != nil || !slices.Contains(phases, s.Phase) {
				continue
			}
			k := key{s.Phase, target{s.ABI, Name(s.ABI, s.Nr)}}
			if runs[k] == nil {
				runs[k] = map[string]bool{}
			}
			for _, id := range s.Runs {
				runs[k][id] = true
			}
			for _, c := range s.Callers {
				if old, ok := callers[k]; !ok || compareCallers(c, old) < 0 {
					callers[k] = c
				}
			}
		}
	}
	var seen []observation
	for _, phase := range Phases() {
		for k, in := range runs {
			if k.phase != phase {
				continue
			}
			kind, text := KindObserved, "made by the workload"
			switch phase {
			case PhaseRuntime:
				kind, text = KindOCIRuntime, "made by the runtime under the filter, before the workload"
			case PhaseExec:
				text = "made by a process that joined the container"
			}
			seen = append(seen, observation{k.target, Reason{Kind: kind, Text: fmt.Sprintf("%s in %d of %d runs", text, len(in), len(all)), Caller: callers[k].String(), args: recorded}})
		}
	}
	return seen
}

// additions returns what the robust policy adds, for the ABIs for which it is true. Where a Go program was analyzed, that
// takes the place of the table; where one may have run of which that is not known, the table is for all ABIs seen.
func additions(recordings []*Recording, abis []specs.Arch, baselines map[target]measured) map[target][]Reason {
	add := map[target][]Reason{}
	put := func(t target, r Reason) {
		if !slices.Contains(add[t], r) {
			add[t] = append(add[t], r)
		}
	}
	inits, unanalyzed, threads := map[specs.Arch][]Program{}, map[specs.Arch][]Program{}, map[specs.Arch][]Program{}
	for _, r := range recordings {
		if isGoRuntime(r.Runtime) {
			for _, abi := range r.abis(PhaseRuntime) {
				inits[abi] = append(inits[abi], Program{Path: filepath.Base(r.Runtime.Name)})
			}
		}
		for _, abi := range r.abis(PhaseWorkload, PhaseExec) {
			unanalyzed[abi] = append(unanalyzed[abi], r.Unanalyzed()...)
		}
		for _, s := range r.Syscalls {
			if name := Name(s.ABI, s.Nr); (name == "clone" || name == clone3) && s.Phase != PhaseRuntime && s.Denied == nil && !onlyGo(r) {
				threads[s.ABI] = append(threads[s.ABI], Program{Path: "what started threads by " + name})
			}
		}
	}
	for t, by := range baselines {
		for _, r := range by {
			if isGoRuntime(r) {
				inits[t.abi] = append(inits[t.abi], Program{Path: filepath.Base(r.Name)})
			}
		}
	}
	for _, abi := range abis {
		programs := map[who]string{threaded: whoFor(threads[abi]), goProgram: whoFor(slices.Concat(inits[abi], unanalyzed[abi])), goWorkload: whoFor(unanalyzed[abi])}
		for _, row := range implicit {
			old := row.name == "mmap" && abi == specs.ArchX86 // Go makes mmap2 there: a condition on mmap is kept for other ABIs
			if _, has := Number(abi, row.name); !has || old || len(onlyOn[row.name]) > 0 && !slices.Contains(onlyOn[row.name], abi) {
				continue
			}
			if row.who == anyProgram || programs[row.who] != "" {
				put(target{abi, row.name}, Reason{Kind: row.who.kind(), Text: row.text, Caller: programs[row.who], args: goRuntimes})
			}
		}
	}
	type call struct {
		target
		text, functions string
	}
	makers := map[call][]Program{} // programs of several packages are alike
	for _, r := range recordings {
		for _, p := range r.Programs {
			if p.Static == nil {
				continue
			}
			for _, c := range p.Static.GoRuntime {
				if slices.Contains(abis, c.ABI) {
					made := call{target{c.ABI, Name(c.ABI, c.Nr)}, c.Text, strings.Join(c.Functions, " ")}
					makers[made] = append(makers[made], Program{Path: p.Path})
				}
			}
		}
	}
	for c, by := range makers {
		put(c.target, Reason{Kind: KindGoRuntime, Text: c.text, Caller: strings.TrimSpace(whoFor(by) + ": " + c.functions), args: goRuntimes})
	}
	for _, reasons := range add {
		slices.SortFunc(reasons, func(a, b Reason) int { return cmp.Or(cmp.Compare(a.Text, b.Text), cmp.Compare(a.Caller, b.Caller)) })
	}
	return add
}

// untested returns what the machine code of the programs that will run can call and the profile does not allow: of the given
// ones, or else of those that were recorded.
func untested(recordings []*Recording, binaries []Binary, allowed map[target][]Reason) []Untested {
	functions, by := map[target][]string{}, map[target][]string{}
	anywhere := map[string]bool{}
	for t := range allowed {
		anywhere[t.name] = true
	}
	var programs []Program
	for _, b := range binaries {
		programs = append(programs, b.Program)
	}
	if len(binaries) == 0 {
		for _, r := range recordings {
			programs = append(programs, r.Programs...)
		}
	}
	for _, p := range programs {
		if p.Static == nil {
			continue
		}
		for _, c := range p.Static.Reachable {
			t := target{c.ABI, Name(c.ABI, c.Nr)}
			if t.name != "" && !anywhere[t.name] {
				functions[t] = union(functions[t], c.Functions, cmp.Compare[string])
				by[t] = union(by[t], []string{p.Path}, cmp.Compare[string])
			}
		}
	}
	all := []Untested{}
	for t, f := range functions {
		all = append(all, Untested{ABI: t.abi, Name: t.name, Functions: f, Programs: by[t], Dangerous: AskFirst(t.name)})
	}
	slices.SortFunc(all, func(a, b Untested) int {
		return cmp.Or(cmp.Compare(abiOrder(a.ABI), abiOrder(b.ABI)), cmp.Compare(a.Name, b.Name))
	})
	return all
}

// isGoRuntime reports whether a runtime's init is a Go program, whose own runtime calls unasked under the filter too.
func isGoRuntime(r Runtime) bool { return strings.HasPrefix(filepath.Base(r.Name), "runc") }

func allowedAnywhere(allowed map[target][]Reason, name string) bool {
	for t := range allowed {
		if t.name == name {
			return true
		}
	}
	return false
}

func sortABIs(abis []specs.Arch) []specs.Arch {
	slices.SortFunc(abis, func(a, b specs.Arch) int { return cmp.Compare(abiOrder(a), abiOrder(b)) })
	return slices.Compact(abis)
}

func names(targets map[target][]Reason) []string {
	var all []string
	for t := range targets {
		all = append(all, t.name)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// allowRules returns the entries that allow calls: one for all that need no conditions, then one for each condition.
func allowRules(names []string, args map[string]*condition) []specs.LinuxSyscall {
	all := []specs.LinuxSyscall{{Action: specs.ActAllow}}
	for _, name := range names {
		for _, rule := range args[name].rules() {
			if rule == nil {
				all[0].Names = append(all[0].Names, name)
				continue
			}
			all = append(all, specs.LinuxSyscall{Names: []string{name}, Action: specs.ActAllow, Args: rule})
		}
	}
	return all
}
