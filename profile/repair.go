package profile

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Missing is a call that a profile denied, and the evidence that it did.
type Missing struct {
	ABI    specs.Arch `json:"abi"`
	Nr     uint32     `json:"nr"`
	Name   string     `json:"name,omitempty"`
	Args   [6]uint64  `json:"args"` // of its first denial; they count only where the profile has conditions for the call
	Reason Reason     `json:"reason"`
}

// ErrNoRepair says that a profile cannot be made to allow a call by adding to it.
var ErrNoRepair = errors.New("cannot be added")

// Refuses reports whether a profile sends a call to its default action, and this denies it, whatever the arguments. A call
// that has conditions is not judged: its arguments decide.
func (r *Resolved) Refuses(abi specs.Arch, nr uint32) bool {
	if !slices.Contains(r.ABIs, abi) {
		return true
	}
	return r.Default.reach() == 0 && len(r.effective(abi, Name(abi, nr))) == 0
}

// RefusesArguments returns the arguments of a recorded call with conditions that the profile sends to its default action, and
// this denies. It returns nothing where a condition asks for bits that the recording did not keep.
func (r *Resolved) RefusesArguments(c Syscall) (refused [][6]uint64) {
	rules := r.effective(c.ABI, Name(c.ABI, c.Nr))
	if c.Args == nil || r.Default.reach() > 0 || !slices.Contains(r.ABIs, c.ABI) {
		return nil
	}
	for _, rule := range rules {
		for _, a := range rule.Args {
			if a.Op != specs.OpMaskedEqual || a.Index >= uint(len(c.Args.Masks)) || a.Value&^uint64(c.Args.Masks[a.Index]) != 0 {
				return nil
			}
		}
	}
	for _, value := range c.Args.Values {
		var args [6]uint64
		for i, v := range value {
			args[i] = uint64(v)
		}
		if decide(rules, args, c.ABI, r.Default) == r.Default {
			refused = append(refused, args)
		}
	}
	return refused
}

// Add returns the profile with one more call allowed, and what was added, which is as little as the format can say. A
// call without rules is listed; one that is answered with an errno is taken from there. A call with conditions gets
// one more entry, for the denied arguments alone: it compares the same arguments under the same masks as the call's other
// entries, since libseccomp compiles rules of one call that compare different ones into a filter that allows too much.
func Add(p *specs.LinuxSeccomp, m Missing) (*specs.LinuxSeccomp, Entry, error) {
	added := Entry{ABI: m.ABI, Name: m.Name, Action: specs.ActAllow, Reasons: []Reason{m.Reason}}
	if m.Name == "" {
		return nil, added, fmt.Errorf("call number %d of %s %w: it has no name", m.Nr, m.ABI, ErrNoRepair)
	}
	out := *p
	out.Syscalls = nil
	for _, s := range p.Syscalls {
		s.Names = slices.Clone(s.Names)
		out.Syscalls = append(out.Syscalls, s)
	}
	if !slices.Contains(out.Architectures, m.ABI) {
		out.Architectures = sortABIs(append(slices.Clone(p.Architectures), m.ABI))
	}
	var shape []specs.LinuxSeccompArg
	for _, rule := range Resolve(&out, m.ABI).effective(m.ABI, m.Name) {
		switch {
		case rule.reach() == 2 && len(rule.Args) == 0:
			return &out, added, nil // the architecture was all that it lacked
		case rule.reach() == 2 && shape == nil:
			shape = rule.Args
		case rule.reach() != 2 && len(rule.Args) > 0:
			return nil, added, fmt.Errorf("%s %w: an entry with conditions answers it with %s, which is somebody's decision: change that entry by hand", m.Name, ErrNoRepair, rule.Verdict)
		}
	}
	if shape == nil && m.Name == "clone" {
		shape = []specs.LinuxSeccompArg{{Value: newNS, Op: specs.OpMaskedEqual}}
	}
	if shape != nil {
		for _, c := range shape {
			value := m.Args[c.Index] & widthOf(m.ABI)
			if c.Op == specs.OpMaskedEqual {
				c.ValueTwo = value & c.Value
			} else {
				c.Op, c.Value, c.ValueTwo = specs.OpEqualTo, value, 0
			}
			added.Args = append(added.Args, c)
		}
		out.Syscalls = append(out.Syscalls, specs.LinuxSyscall{Names: []string{m.Name}, Action: specs.ActAllow, Args: added.Args})
		return &out, added, nil
	}
	for i := range out.Syscalls {
		out.Syscalls[i].Names = slices.DeleteFunc(out.Syscalls[i].Names, func(n string) bool { return n == m.Name })
	}
	out.Syscalls = slices.DeleteFunc(out.Syscalls, func(s specs.LinuxSyscall) bool { return len(s.Names) == 0 })
	i := slices.IndexFunc(out.Syscalls, func(s specs.LinuxSyscall) bool { return s.Action == specs.ActAllow && len(s.Args) == 0 })
	if i < 0 {
		i = 0
		out.Syscalls = slices.Insert(out.Syscalls, 0, specs.LinuxSyscall{Action: specs.ActAllow})
	}
	out.Syscalls[i].Names = append(out.Syscalls[i].Names, m.Name)
	slices.Sort(out.Syscalls[i].Names)
	return &out, added, nil
}

// Repaired explains a profile that was repaired: what was added has its denials for reasons, the rest those of old, which
// may be nil.
func Repaired(p *specs.LinuxSeccomp, old *Why, added []Entry) (*Why, error) {
	data, err := Encode(p)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	w := &Why{Version: WhyVersion, Profile: hex.EncodeToString(sum[:]), Entries: []Entry{}, Untested: []Untested{}}
	isAdded := func(abi specs.Arch, name string) bool {
		return slices.ContainsFunc(added, func(e Entry) bool { return e.ABI == abi && e.Name == name && len(e.Args) == 0 })
	}
	if old != nil {
		w.Unknown = old.Unknown
		for _, e := range old.Entries {
			if !isAdded(e.ABI, e.Name) { // it was answered with an errno before
				w.Entries = append(w.Entries, e)
			}
		}
		for _, u := range old.Untested {
			if !isAdded(u.ABI, u.Name) {
				w.Untested = append(w.Untested, u)
			}
		}
	}
	w.Entries = append(w.Entries, added...)
	w.Entries = Explain(p, w).Entries
	for i := range w.Entries {
		if len(w.Entries[i].Reasons) == 0 {
			w.Entries[i].Reasons = []Reason{{Kind: KindGiven, Text: "in the profile that was repaired"}}
		}
	}
	return w, nil
}
