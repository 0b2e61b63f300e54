package profile

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// The kinds of changes between two profiles. A change that lets more through in one case and less in another is wider.
const (
	Wider    = "wider"
	Narrower = "narrower"
	Changed  = "changed" // another answer to what is refused, or another way to allow
)

// Change is one difference in meaning between two profiles.
type Change struct {
	Kind string       `json:"kind"`
	What string       `json:"what"`           // call, default, architecture, flag or listener
	Name string       `json:"name,omitempty"` // of the call, the architecture or the flag
	ABIs []specs.Arch `json:"abis,omitempty"` // those where a call changes
	Old  string       `json:"old"`
	New  string       `json:"new"`
	Note string       `json:"note,omitempty"` // an example for changed conditions, or what follows
}

// Difference is what changes from one profile to another.
type Difference struct {
	Wider   bool     `json:"wider"`
	Changes []Change `json:"changes"`
}

// Count returns the number of changes of a kind.
func (d *Difference) Count(kind string) int {
	n := 0
	for _, c := range d.Changes {
		if c.Kind == kind {
			n++
		}
	}
	return n
}

// Diff compares what two profiles mean: order and grouping of entries do not count, conditions are compared by the
// arguments for which they hold. A profile without architectures is one for the native ABI.
func Diff(before, after *specs.LinuxSeccomp, native specs.Arch) *Difference {
	resolve := func(p *specs.LinuxSeccomp) *Resolved {
		if len(p.Architectures) == 0 {
			return Resolve(p, native)
		}
		return Resolve(p)
	}
	a, b := resolve(before), resolve(after)
	d := &Difference{Changes: []Change{}}
	d.defaults(a, b)
	d.architectures(a, b)
	d.calls(a, b)
	d.unlisted(a, b)
	d.settings(before, after)
	slices.SortStableFunc(d.Changes, func(x, y Change) int { return cmp.Compare(kindOrder[x.Kind], kindOrder[y.Kind]) })
	d.Wider = d.Count(Wider) > 0
	return d
}

var kindOrder = map[string]int{Wider: 0, Narrower: 1, Changed: 2}

func kindOf(a, b Verdict) string {
	switch {
	case b.reach() > a.reach():
		return Wider
	case b.reach() < a.reach():
		return Narrower
	}
	return Changed
}

func (d *Difference) defaults(a, b *Resolved) {
	if a.Default != b.Default {
		d.Changes = append(d.Changes, Change{Kind: kindOf(a.Default, b.Default), What: "default", Old: a.Default.String(), New: b.Default.String()})
	}
}

func (d *Difference) architectures(a, b *Resolved) {
	for _, abi := range sortABIs(slices.Concat(a.ABIs, b.ABIs)) {
		inA, inB := slices.Contains(a.ABIs, abi), slices.Contains(b.ABIs, abi)
		if inA == inB {
			continue
		}
		c := Change{What: "architecture", Name: string(abi), Old: badABI.String() + " (not listed)", New: b.summary(abi), Kind: kindOf(badABI, b.best(abi))}
		if inA {
			c.Old, c.New, c.Kind = a.summary(abi), badABI.String()+" (not listed)", kindOf(a.best(abi), badABI)
		}
		d.Changes = append(d.Changes, c)
	}
}

// best returns the most that a profile lets through on an ABI.
func (r *Resolved) best(abi specs.Arch) Verdict {
	best := r.Default
	for name := range r.names {
		for _, rule := range r.meaning(abi, name) {
			if Has(abi, name) && rule.reach() > best.reach() {
				best = rule.Verdict
			}
		}
	}
	return best
}

func (r *Resolved) summary(abi specs.Arch) string {
	n := 0
	for _, name := range r.callsOf(abi) {
		if r.lets(abi, name) {
			n++
		}
	}
	return fmt.Sprintf("listed, %d calls allowed, others: %s", n, r.Default)
}

// callsOf returns the calls of an ABI, and the names that the profile lists and no table knows.
func (r *Resolved) callsOf(abi specs.Arch) []string {
	all := slices.DeleteFunc(r.Names(), func(name string) bool { return !Has(abi, name) && existsSomewhere(name) })
	if t := table(abi); t != nil {
		all = slices.AppendSeq(slices.AppendSeq(all, maps.Values(t.SyscallNumbers)), maps.Values(newer))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (d *Difference) calls(a, b *Resolved) {
	// i386 makes many calls through two, for which libseccomp makes the rules.
	names := union(union(a.Names(), b.Names(), cmp.Compare[string]), []string{"ipc", "socketcall"}, cmp.Compare[string])
	for _, name := range names {
		changes := []Change{} // one for each different note
		for _, abi := range b.ABIs {
			if !slices.Contains(a.ABIs, abi) || !Has(abi, name) && existsSomewhere(name) {
				continue
			}
			kind, note, changed := compareRules(a, b, name, abi)
			if !changed {
				continue
			}
			c := Change{Kind: kind, What: "call", Name: name, ABIs: []specs.Arch{abi}, Old: a.describe(abi, name), New: b.describe(abi, name), Note: note}
			if i := slices.IndexFunc(changes, func(o Change) bool { return o.Kind == c.Kind && o.Old == c.Old && o.New == c.New }); i >= 0 {
				changes[i].ABIs = append(changes[i].ABIs, abi)
			} else {
				changes = append(changes, c)
			}
		}
		d.Changes = append(d.Changes, changes...)
	}
}

func existsSomewhere(name string) bool {
	return slices.ContainsFunc(ABIs(), func(abi specs.Arch) bool { return Has(abi, name) })
}

// maxTuples bounds the arguments that the conditions of one call are compared with.
const maxTuples = 1 << 16

// compareRules compares what two profiles say of one call, argument by argument.
func compareRules(a, b *Resolved, name string, abi specs.Arch) (kind, note string, changed bool) {
	old, now := a.meaning(abi, name), b.meaning(abi, name)
	if same(old, now) && (len(old) == 0 || a.Default == b.Default || len(old[0].Args) == 0) {
		return "", "", false // a changed default alone is told once
	}
	var values [6][]uint64
	exact, tuples := true, 1
	width := widthOf(abi)
	if a.ints && slices.ContainsFunc(argumentRows, func(row argumentRow) bool { return slices.Contains(row.names, name) }) {
		width = whole
	}
	for i := range values {
		var ok bool
		values[i], ok = candidates(uint(i), slices.Concat(old, now), width)
		exact = exact && ok
		if tuples *= len(values[i]); tuples > maxTuples {
			return Wider, "too many conditions to compare: taken for wider", true
		}
	}
	found := map[string]string{}
	var args [6]uint64
	var each func(i int)
	each = func(i int) {
		if i < len(args) {
			for _, v := range values[i] {
				args[i] = v
				each(i + 1)
			}
			return
		}
		was, is := decide(old, args, abi, a.Default), decide(now, args, abi, b.Default)
		if k := kindOf(was, is); was != is && found[k] == "" {
			found[k] = fmt.Sprintf("%s: %s, was %s", example(name, values, args), is, was)
		}
	}
	each(0)
	if !exact && found[Wider] == "" {
		return Wider, "conditions rewritten in a way that cannot be compared: taken for wider", true
	}
	if len(found) == 0 {
		return "", "", false
	}
	for _, k := range slices.SortedFunc(maps.Keys(kindOrder), func(x, y string) int { return cmp.Compare(kindOrder[x], kindOrder[y]) }) {
		if found[k] != "" {
			kind = cmp.Or(kind, k)
			note += "; " + found[k]
		}
	}
	if tuples == 1 {
		return kind, "", true // no conditions: the example says nothing more
	}
	return kind, strings.TrimPrefix(note, "; "), true
}

func same(a, b []Rule) bool {
	key := func(rules []Rule) []string {
		var all []string
		for _, r := range rules {
			all = append(all, fmt.Sprint(r.Verdict, r.Args))
		}
		slices.Sort(all)
		return all
	}
	return slices.Equal(key(a), key(b))
}

// example prints a call with the arguments that conditions look at.
func example(name string, values [6][]uint64, args [6]uint64) string {
	var parts []string
	for i, a := range args {
		if len(values[i]) > 1 {
			parts = append(parts, fmt.Sprintf("arg%d=%#x", i, a))
		}
	}
	return fmt.Sprintf("%s(%s)", name, strings.Join(parts, ", "))
}

// candidates returns values of an argument such that every combination of conditions which some value meets is met by one
// of them. It says whether that is certain: it is not where one argument has both orders and masks.
func candidates(index uint, rules []Rule, width uint64) ([]uint64, bool) {
	var conditions []specs.LinuxSeccompArg
	orders, masks := false, false
	for _, r := range rules {
		for _, a := range r.Args {
			if a.Index != index {
				continue
			}
			if a.Op == specs.OpMaskedEqual && a.Value&width == width {
				a.Op, a.Value = specs.OpEqualTo, a.ValueTwo // all that counts is compared
			}
			conditions = append(conditions, a)
			switch a.Op {
			case specs.OpMaskedEqual:
				masks = true
			case specs.OpEqualTo, specs.OpNotEqual:
			default:
				orders = true
			}
		}
	}
	if len(conditions) == 0 {
		return []uint64{0}, true
	}
	all := []uint64{0, width}
	for _, c := range conditions {
		for _, v := range []uint64{c.Value - 1, c.Value, c.Value + 1} {
			all = append(all, v&width)
		}
	}
	exact := !orders || !masks
	if masks {
		more, ok := maskCandidates(conditions, width)
		all, exact = append(all, more...), exact && ok
	}
	slices.Sort(all)
	return slices.Compact(all), exact
}

// maskCandidates splits the bits into classes that the same masks look at. In each class only counts which of the wanted
// values the bits equal, so that one value of each kind and one that equals none are enough.
func maskCandidates(conditions []specs.LinuxSeccompArg, width uint64) ([]uint64, bool) {
	type want struct{ mask, value uint64 }
	var wants []want
	for _, c := range conditions {
		if c.Op == specs.OpMaskedEqual {
			wants = append(wants, want{c.Value & width, c.ValueTwo & c.Value & width})
		} else {
			wants = append(wants, want{width, c.Value & width})
		}
	}
	classes := map[string]uint64{}
	for bit := uint64(1); bit != 0 && bit <= width; bit <<= 1 {
		key := make([]byte, len(wants))
		for i, w := range wants {
			if w.mask&bit != 0 {
				key[i] = 1
			}
		}
		classes[string(key)] |= bit
	}
	all := []uint64{0}
	for _, key := range slices.Sorted(maps.Keys(classes)) {
		class := classes[key]
		taken := map[uint64]bool{}
		for _, w := range wants {
			if w.mask&class != 0 {
				taken[w.value&class] = true
			}
		}
		for v := uint64(0); ; v = (v - class) & class { // counts through the bits of the class
			if !taken[v] {
				taken[v] = true
				break
			}
			if v == class {
				break
			}
		}
		var more []uint64
		for _, v := range all {
			for _, own := range slices.Sorted(maps.Keys(taken)) {
				more = append(more, v|own)
			}
		}
		if all = more; len(all) > maxTuples {
			return all[:maxTuples], false
		}
	}
	return all, true
}

// unlisted tells what a changed highest number changes under runc: it answers ENOSYS above it and the default below, so
// that a longer list can break callers that fall back on ENOSYS only.
func (d *Difference) unlisted(a, b *Resolved) {
	const most = 8
	stubbed := func(r *Resolved) bool {
		return r.Default.reach() == 0 && r.Default != Verdict{specs.ActErrno, enosysErrno}
	}
	if !stubbed(a) || !stubbed(b) {
		return
	}
	for _, abi := range b.ABIs {
		if !slices.Contains(a.ABIs, abi) || table(abi) == nil {
			continue
		}
		was, is := a.highest(abi), b.highest(abi)
		var names []string
		for nr := min(was, is) + 1; nr <= max(was, is); nr++ {
			if name := Name(abi, nr); name != "" && len(a.names[name]) == 0 && len(b.names[name]) == 0 {
				names = append(names, name)
			}
		}
		if len(names) == 0 {
			continue
		}
		c := Change{
			Kind: Changed, What: "default", ABIs: []specs.Arch{abi}, Old: "ENOSYS (runc)", New: b.Default.String(),
			Note: fmt.Sprintf("under runc, for unlisted calls from %d to %d: ", was+1, is),
		}
		if is < was {
			c.Old, c.New, c.Note = a.Default.String(), "ENOSYS (runc)", fmt.Sprintf("under runc, for unlisted calls from %d to %d: ", is+1, was)
		}
		if len(names) > most {
			names = append(names[:most], "...")
		}
		c.Note += strings.Join(names, ", ")
		d.Changes = append(d.Changes, c)
	}
}

// highest returns the highest number that a profile lists on an ABI.
func (r *Resolved) highest(abi specs.Arch) uint32 {
	top := uint32(0)
	for name := range r.names {
		if nr, ok := Number(abi, name); ok {
			top = max(top, nr)
		}
	}
	return top
}

func (d *Difference) settings(a, b *specs.LinuxSeccomp) {
	if (a.Flags == nil) != (b.Flags == nil) {
		old, now := "not given: runc sets SPEC_ALLOW", "given"
		if b.Flags == nil {
			old, now = now, old
		}
		d.Changes = append(d.Changes, Change{Kind: Changed, What: "flag", Name: "flags", Old: old, New: now})
	}
	for _, flag := range union(a.Flags, b.Flags, cmp.Compare[specs.LinuxSeccompFlag]) {
		was, is := slices.Contains(a.Flags, flag), slices.Contains(b.Flags, flag)
		if was != is {
			d.Changes = append(d.Changes, Change{Kind: Changed, What: "flag", Name: string(flag), Old: onOff(was), New: onOff(is)})
		}
	}
	for _, l := range []struct{ name, old, now string }{
		{"listenerPath", a.ListenerPath, b.ListenerPath}, {"listenerMetadata", a.ListenerMetadata, b.ListenerMetadata},
	} {
		if l.old != l.now {
			d.Changes = append(d.Changes, Change{Kind: Changed, What: "listener", Name: l.name, Old: l.old, New: l.now})
		}
	}
}

func onOff(on bool) string {
	if on {
		return "set"
	}
	return "not set"
}
