package gobin

import (
	"cmp"
	"slices"
)

// A value is what the flow analysis knows of the contents of a register or a stack slot: the small set of things
// that it can be, or top, "anything". The zero value is bottom: no path has come by yet.
type value struct {
	top bool
	set []atom // sorted, never changed once made
}

// maxSet is how many possibilities are kept apart; real code has at most four.
const maxSet = 12

type atomKind uint8

const (
	konst  atomKind = iota // the constant n
	regArg                 // what register n held when the function was entered
	stkArg                 // what the stack held at offset n from the stack pointer when the function was entered
	frame                  // the address n bytes from the stack pointer at entry
	global                 // what the variable at address n holds
	entry                  // some entry of the read-only table at address n
)

type atom struct {
	kind atomKind
	n    int64
}

var top = value{top: true}

func one(k atomKind, n int64) value { return value{set: []atom{{k, n}}} }

func compareAtoms(a, b atom) int {
	return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.n, b.n))
}

func (v value) equal(w value) bool { return v.top == w.top && slices.Equal(v.set, w.set) }

// only gives the number of a value that can be just one thing of kind k.
func (v value) only(k atomKind) (int64, bool) {
	if v.top || len(v.set) != 1 || v.set[0].kind != k {
		return 0, false
	}
	return v.set[0].n, true
}

// join gives what can be v or w.
func join(v, w value) value {
	switch {
	case v.top || w.top:
		return top
	case len(v.set) == 0 || v.equal(w):
		return w
	case len(w.set) == 0:
		return v
	}
	set := slices.Concat(v.set, w.set)
	slices.SortFunc(set, compareAtoms)
	if set = slices.Compact(set); len(set) > maxSet {
		return top
	}
	return value{set: set}
}

// add gives v + w where that is a constant or an address in the frame.
func add(v, w value) value {
	if _, ok := v.only(konst); ok {
		v, w = w, v
	}
	n, ok := w.only(konst)
	if !ok {
		return top
	}
	if m, ok := v.only(konst); ok {
		return one(konst, m+n)
	}
	if m, ok := v.only(frame); ok {
		return one(frame, m+n)
	}
	if n == 0 {
		return v
	}
	return top
}

// slot is a piece of the stack, at off from the stack pointer at entry.
type slot struct {
	off, size int64
	v         value
}

func (s slot) overlaps(off, size int64) bool { return s.off < off+size && off < s.off+s.size }

const numRegs = 32

// state is what is known at one point of a function.
type state struct {
	regs  [numRegs]value
	slots []slot
	// From these offsets on, something else may hold an address into the stack: into the function's own frame
	// (negative offsets), into the arguments (the others).
	leakFrame, leakArgs int64
	argsEnd             int64 // stack arguments at this offset or beyond do not hold any more what was passed
}

const never = int64(1) << 40 // an offset beyond every frame

func (s *state) clone() *state {
	c := *s
	c.slots = slices.Clone(s.slots)
	return &c
}

// load gives the contents of a stack slot.
func (s *state) load(off, size int64) value {
	hit := -1
	for i := range s.slots {
		if s.slots[i].overlaps(off, size) {
			if hit >= 0 {
				return top
			}
			hit = i
		}
	}
	if hit >= 0 {
		if h := s.slots[hit]; h.off == off && size <= h.size {
			return h.v
		}
		return top
	}
	if off > 0 && off < s.argsEnd {
		return one(stkArg, off)
	}
	return top
}

// store writes a stack slot.
func (s *state) store(off, size int64, v value) {
	keep := s.slots[:0]
	for _, o := range s.slots {
		if !o.overlaps(off, size) {
			keep = append(keep, o)
			continue
		}
		// What sticks out of the new slot is not known any more; arguments would else read as if passed so.
		if o.off >= 0 && o.off < off {
			keep = append(keep, slot{o.off, off - o.off, top})
		}
		if e, n := off+size, o.off+o.size; n > 0 && n > e {
			keep = append(keep, slot{e, n - e, top})
		}
	}
	s.slots = keep
	if !v.top || off+size > 0 {
		s.slots = append(s.slots, slot{off, size, v})
		slices.SortFunc(s.slots, func(a, b slot) int { return cmp.Compare(a.off, b.off) })
	}
}

// forget drops what is known of the stack from lo up to hi.
func (s *state) forget(lo, hi int64) {
	first := lo
	s.slots = slices.DeleteFunc(s.slots, func(o slot) bool {
		if o.off >= hi || lo >= o.off+o.size {
			return false
		}
		first = min(first, o.off)
		return true
	})
	if hi > 0 {
		s.argsEnd = min(s.argsEnd, max(first, 0))
	}
}

// clobber forgets all registers but those kept, given as bits.
func (s *state) clobber(kept uint32) {
	for r := range s.regs {
		if kept>>r&1 == 0 {
			s.regs[r] = top
		}
	}
}

// leak notes that the address off of the stack can be used by others from now on.
func (s *state) leak(off int64) {
	if off < 0 {
		s.leakFrame = min(s.leakFrame, off)
	} else {
		s.leakArgs = min(s.leakArgs, off)
	}
}

// forgetLeaked drops all that a write through an unknown pointer may change.
func (s *state) forgetLeaked() {
	if s.leakFrame < 0 {
		s.forget(s.leakFrame, 0)
	}
	if s.leakArgs < never {
		s.forget(s.leakArgs, never)
	}
}

// merge makes s know only what holds in o as well; it reports whether s has changed.
func (s *state) merge(o *state) bool {
	changed := false
	for i := range s.regs {
		if j := join(s.regs[i], o.regs[i]); !j.equal(s.regs[i]) {
			s.regs[i], changed = j, true
		}
	}
	var slots []slot
	for _, x := range s.slots {
		if v := join(x.v, o.load(x.off, x.size)); !v.top || x.off+x.size > 0 {
			slots = append(slots, slot{x.off, x.size, v})
		}
	}
	for _, y := range o.slots {
		if slices.ContainsFunc(s.slots, func(x slot) bool { return x.off == y.off && x.size == y.size }) {
			continue
		}
		if v := join(s.load(y.off, y.size), y.v); !v.top || y.off+y.size > 0 {
			slots = append(slots, slot{y.off, y.size, v})
		}
	}
	slices.SortFunc(slots, func(a, b slot) int { return cmp.Or(cmp.Compare(a.off, b.off), cmp.Compare(a.size, b.size)) })
	if !slices.EqualFunc(slots, s.slots, func(a, b slot) bool { return a.off == b.off && a.size == b.size && a.v.equal(b.v) }) {
		s.slots, changed = slots, true
	}
	for _, p := range [...]struct {
		a *int64
		b int64
	}{{&s.leakFrame, o.leakFrame}, {&s.leakArgs, o.leakArgs}, {&s.argsEnd, o.argsEnd}} {
		if p.b < *p.a {
			*p.a, changed = p.b, true
		}
	}
	return changed
}
