package profile

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Explanation says what a profile lets through, and why.
type Explanation struct {
	Default  string       `json:"default"`
	ABIs     []specs.Arch `json:"architectures"`
	Entries  []Entry      `json:"entries"`
	Untested []Untested   `json:"untested"`
	Unknown  []Unknown    `json:"unknown,omitempty"`
}

// Explain joins a profile with its reasons: an entry for every rule that a filter has, on every ABI. Without reasons, which
// is what a nil w means, entries have none.
func Explain(p *specs.LinuxSeccomp, w *Why) *Explanation {
	r := Resolve(p)
	x := &Explanation{Default: r.Default.String(), ABIs: r.ABIs, Entries: []Entry{}, Untested: []Untested{}}
	explained := map[target]bool{}
	somewhere := map[string]bool{}
	if w != nil {
		x.Entries, x.Untested, x.Unknown = append(x.Entries, w.Entries...), append(x.Untested, w.Untested...), w.Unknown
		for _, e := range w.Entries {
			explained[target{e.ABI, e.Name}], somewhere[e.Name] = true, true
		}
	}
	for _, abi := range r.ABIs {
		for _, name := range r.Names() {
			if explained[target{abi, name}] || !Has(abi, name) {
				continue
			}
			for _, rule := range r.names[name] {
				e := Entry{ABI: abi, Name: name, Action: rule.Action, Args: rule.Args, Reasons: []Reason{}}
				if rule.Action == specs.ActErrno || rule.Action == specs.ActTrace {
					e.Errno = &rule.Errno
				}
				if slices.ContainsFunc(rule.Args, func(c specs.LinuxSeccompArg) bool { return hides(abi, name, c.Index) }) {
					e.Reasons = append(e.Reasons, Reason{Kind: KindArgument, Text: void})
				}
				if somewhere[name] {
					e.Reasons = append(e.Reasons, Reason{Kind: KindNames, Text: "a profile lists names for all its architectures together"})
				}
				x.Entries = append(x.Entries, e)
			}
		}
	}
	slices.SortStableFunc(x.Entries, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(abiOrder(a.ABI), abiOrder(b.ABI)), cmp.Compare(a.Action, b.Action), cmp.Compare(a.Name, b.Name))
	})
	return x
}

// Answer is everything that is known about one call.
type Answer struct {
	Name string      `json:"name"`
	ABIs []ABIAnswer `json:"abis"`
}

// ABIAnswer is what the profile says of a call on one ABI.
type ABIAnswer struct {
	ABI       specs.Arch `json:"abi"`
	Nr        *uint32    `json:"nr,omitempty"` // nil if the ABI has no number for it
	Allowed   bool       `json:"allowed"`      // always, or for some arguments
	Answer    string     `json:"answer"`
	Because   string     `json:"because"`
	Reasons   []Reason   `json:"reasons,omitempty"`
	Functions []string   `json:"functions,omitempty"` // that can make it, for a call that is reachable and untested
}

// About explains one call, by name or number, on all ABIs of the profile; also why it is not there.
func About(p *specs.LinuxSeccomp, w *Why, call string) (*Answer, error) {
	r := Resolve(p)
	if nr, err := strconv.ParseUint(call, 0, 32); err == nil {
		names := map[string]bool{}
		for _, abi := range r.ABIs {
			if name := Name(abi, uint32(nr)); name != "" {
				names[name] = true
			}
		}
		if len(names) != 1 {
			return nil, fmt.Errorf("number %s has %d names on %v: give a name", call, len(names), r.ABIs)
		}
		call = slices.Collect(maps.Keys(names))[0]
	}
	if _, listed := r.names[call]; !listed && !existsSomewhere(call) {
		return nil, fmt.Errorf("no ABI has a system call %q%s", call, similar(call))
	}
	a := &Answer{Name: call}
	for _, abi := range r.ABIs {
		a.ABIs = append(a.ABIs, r.about(w, abi, call))
	}
	return a, nil
}

func (r *Resolved) about(w *Why, abi specs.Arch, call string) ABIAnswer {
	a := ABIAnswer{ABI: abi, Answer: r.describe(abi, call)}
	if nr, ok := Number(abi, call); ok {
		a.Nr = &nr
	}
	rules := r.names[call]
	if w != nil {
		for _, e := range w.Entries {
			if e.ABI == abi && e.Name == call {
				for _, reason := range e.Reasons {
					if !slices.Contains(a.Reasons, reason) { // rules of one call that differ in arguments share the others
						a.Reasons = append(a.Reasons, reason)
					}
				}
			}
		}
	}
	elsewhere := w != nil && slices.ContainsFunc(w.Entries, func(e Entry) bool { return e.Name == call && e.ABI != abi })
	switch m := muxed(call); {
	case !Has(abi, call):
		a.Answer, a.Because = "-", "this ABI has no such call"
		return a
	case a.Nr == nil && abi == specs.ArchX86:
		a.Because = fmt.Sprintf("this ABI makes it through %s", m.by)
	}
	a.Allowed = r.lets(abi, call)
	switch {
	case a.Allowed && len(rules) > 0 && len(a.Reasons) == 0 && elsewhere:
		a.Because = "a profile lists names for all its architectures together: this ABI has it for the sake of another one"
	case len(a.Reasons) > 0:
		a.Because = "it is listed"
	case len(rules) > 0:
		a.Because = cmp.Or(a.Because, "it is listed, and there is no why.json that says why")
	default:
		a.Because = r.absent(w, abi, call, &a)
	}
	if m := muxed(call); m.by != "" && abi == specs.ArchX86 && len(rules) > 0 && len(rules[0].Args) > 0 {
		a.Because += fmt.Sprintf("; %s makes it too, where arguments lie in memory: a condition on them is void there", m.by)
	}
	if slices.ContainsFunc(rules, func(rule Rule) bool {
		return slices.ContainsFunc(rule.Args, func(c specs.LinuxSeccompArg) bool { return hides(abi, call, c.Index) })
	}) {
		a.Because += "; " + void
	}
	return a
}

// Voids returns the names of the calls with conditions that are void on an ABI, sorted: their arguments lie in memory there, and
// the conditions look at registers that do not hold them.
func (r *Resolved) Voids(abi specs.Arch) []string {
	var all []string
	for _, name := range r.Names() {
		m := muxed(name)
		behind := abi == specs.ArchX86 && m.by != "" // another call makes it too
		if Has(abi, name) && slices.ContainsFunc(r.names[name], func(rule Rule) bool {
			return slices.ContainsFunc(rule.Args, func(c specs.LinuxSeccompArg) bool { return behind || hides(abi, name, c.Index) })
		}) {
			all = append(all, name)
		}
	}
	return all
}

// void is what is to be said of a condition on what a call hides.
const void = "this ABI passes its arguments in memory: a condition looks at registers that do not hold them, and is void"

// absent says why a call is not in a profile.
func (r *Resolved) absent(w *Why, abi specs.Arch, call string, a *ABIAnswer) string {
	because := "it is not listed"
	if w != nil {
		because = "no run made it, and no rule of the policy adds it"
		for _, u := range w.Untested {
			if u.ABI == abi && u.Name == call {
				a.Functions = u.Functions
				because = "the binary's code can make it, no run did: test that code, or keep it refused"
				if u.Dangerous != "" {
					because += "; it is dangerous: " + u.Dangerous
				}
			}
		}
	}
	if nr := a.Nr; nr != nil && r.Default.reach() == 0 && *nr > r.highest(abi) {
		because += fmt.Sprintf("; runc answers ENOSYS, since %d is above the highest number that the profile lists", *nr)
	}
	return because
}

// similar proposes names for one that does not exist.
func similar(call string) string {
	var near []string
	for _, t := range tables() {
		for name := range t.info.SyscallNames {
			if strings.Contains(name, call) || len(name) > 3 && strings.Contains(call, name) {
				near = append(near, name)
			}
		}
	}
	slices.Sort(near)
	near = slices.Compact(near)
	if len(near) == 0 {
		return ""
	}
	return ": did you mean " + strings.Join(near[:min(len(near), 5)], ", ") + "?"
}

// Comparison sets a profile beside another, usually Docker's default one.
type Comparison struct {
	Allowed int         `json:"allowed"`
	Other   int         `json:"other"` // calls that the other allows on the ABIs of the profile
	Closed  []Dangerous `json:"closed"`
	Open    []Dangerous `json:"open"`
	Only    []string    `json:"only"`  // calls that this one allows and the other does not
	Wider   []Change    `json:"wider"` // all that this one lets through and the other does not, argument by argument: old is the other's
}

// Dangerous is a well-known dangerous call.
type Dangerous struct {
	Name    string `json:"name"`
	Why     string `json:"why"`
	Limited bool   `json:"limited,omitempty"` // the other allows it for some arguments only
	Other   string `json:"other"`             // what the other answers
}

// Compare tells what a profile lets through fewer and more than another on its own ABIs, and names the dangerous calls that
// the other allows and this one closes, and those that this one leaves open.
func Compare(p, other *specs.LinuxSeccomp) *Comparison {
	own := Resolve(p)
	there := *other
	there.Architectures = own.ABIs
	others := Resolve(&there)
	some := func(name string, is func(specs.Arch) bool) bool {
		return slices.ContainsFunc(own.ABIs, func(abi specs.Arch) bool { return Has(abi, name) && is(abi) })
	}
	allows := func(r *Resolved, name string) bool {
		return some(name, func(abi specs.Arch) bool { return r.lets(abi, name) })
	}
	c := &Comparison{Closed: []Dangerous{}, Open: []Dangerous{}, Only: []string{}, Wider: []Change{}}
	var names []string
	for _, abi := range own.ABIs {
		names = union(names, union(own.callsOf(abi), others.callsOf(abi), cmp.Compare[string]), cmp.Compare[string])
	}
	for _, name := range names {
		mine, its := allows(own, name), allows(others, name)
		switch {
		case mine && its:
			c.Allowed++
			c.Other++
		case mine:
			c.Allowed++
			c.Only = append(c.Only, name)
		case its:
			c.Other++
		}
	}
	others.ints = true
	d := &Difference{}
	d.defaults(others, own)
	d.calls(others, own)
	for _, ch := range d.Changes {
		if ch.Kind == Wider {
			c.Wider = append(c.Wider, ch)
		}
	}
	for _, d := range dangers {
		for _, name := range d.names {
			entry := Dangerous{Name: name, Why: d.why, Limited: len(others.names[name]) > 0 && len(others.names[name][0].Args) > 0}
			if i := slices.IndexFunc(own.ABIs, func(abi specs.Arch) bool { return Has(abi, name) }); i >= 0 {
				entry.Other = others.describe(own.ABIs[i], name)
			}
			switch {
			case allows(own, name):
				c.Open = append(c.Open, entry)
			case allows(others, name):
				c.Closed = append(c.Closed, entry)
			}
		}
	}
	return c
}

// NameWider gives every entry that lets through what another profile does not, on any of the other's ABIs and argument by
// argument, a reason of its own, which begins with the other's name. It returns these entries.
func (w *Why) NameWider(other *specs.LinuxSeccomp, name string) []Entry {
	there := Resolve(other)
	there.ints = true
	var wider []Entry
	for i := range w.Entries {
		e := &w.Entries[i]
		if text := there.widerBy(e.Name, Rule{verdict(e.Action, e.Errno), e.Args}); text != "" {
			e.Reasons = append(slices.Clone(e.Reasons), Reason{Kind: KindWider, Text: "wider than " + name + ", which says of " + text})
			wider = append(wider, *e)
		}
	}
	return wider
}

// widerBy tells what a profile says of a call for which one rule alone, by the name, lets more through, or "".
func (r *Resolved) widerBy(name string, rule Rule) string {
	alone := &Resolved{Default: r.Default, ABIs: r.ABIs, names: map[string][]Rule{name: {rule}}}
	for _, abi := range r.ABIs {
		calls := []string{name}
		if m := muxed(name); m.by != "" && abi == specs.ArchX86 {
			calls = append(calls, m.by)
		}
		for _, call := range calls {
			kind, note, _ := compareRules(r, alone, call, abi)
			if !Has(abi, call) || kind != Wider {
				continue
			}
			text := call + ": " + r.describe(abi, call)
			if note != "" {
				text += "; " + note
			}
			return text
		}
	}
	return ""
}
