package gobin

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A sink is a place whose value becomes the number of a system call: a register or stack slot at the entry of a
// function, or a variable.
type sink struct {
	abi string
	at  atom
}

type call struct {
	abi string
	nr  uint32
}

// flowState is what the analysis found out about one function.
type flowState struct {
	sinks      map[sink]bool
	calls      map[call]bool
	unresolved map[uint64]string // by pc
	visited    map[uint64]bool   // traps and calls of sinks that the flow came to
	lost       uint64            // where the flow goes on in a way that the analysis cannot follow; 0 if nowhere
	queued     bool
}

// A cell is a variable that holds a number.
type cell struct {
	abis    map[string]bool
	readers map[uint64]*fn // by pc
	bad     string         // why not all that it can hold is known

	unbounded bool // the variable that it is a part of is not known
}

// spoil notes a reason why not all is known; of several, the choice does not depend on their order.
func (c *cell) spoil(why string) {
	if c.bad == "" || why < c.bad {
		c.bad = why
	}
}

// flow is the analysis of a whole program.
type flow struct {
	*program
	branches []branch
	cells    map[uint64]*cell // variables that hold numbers
	work     []*fn
	grown    bool // the function under analysis has got a new sink
}

// enqueue puts f on the work list.
func (a *flow) enqueue(f *fn) {
	if f.flowState == nil {
		a.decode(f)
		f.flowState = &flowState{sinks: map[sink]bool{}, calls: map[call]bool{}, unresolved: map[uint64]string{}, visited: map[uint64]bool{}}
	}
	if !f.queued {
		f.queued = true
		a.work = append(a.work, f)
	}
}

// solve runs the work list down: a function that turns out to pass a parameter on as a number brings in its callers.
func (a *flow) solve() {
	for len(a.work) > 0 {
		f := a.work[0]
		a.work, f.queued, a.grown = a.work[1:], false, false
		a.run(f)
		if !a.grown {
			continue
		}
		for _, pc := range a.callersOf(f) {
			if g := a.find(pc); g != nil && g.name != "" {
				a.enqueue(g)
			}
		}
	}
}

// callersOf finds where f may be called or jumped to.
func (a *flow) callersOf(f *fn) (pcs []uint64) {
	for _, b := range a.branches {
		if b.target == f.addr {
			pcs = append(pcs, b.pc)
		}
	}
	return pcs
}

// newCell looks for what writes the variable at addr, and for what takes the address of it or of a part of it.
func (a *flow) newCell(addr uint64, c *cell) {
	start, end, ok := a.variable(addr)
	if !ok {
		// Any address before may be that of an array or structure that addr is a part of.
		start, end, c.unbounded = addr, addr+uint64(a.ptr), true
	}
	a.users(start, end-1, func(x uint64) bool { return x >= start && x < end }, func(pc, at uint64, taken bool) {
		switch f := a.find(pc); {
		case taken || f == nil && at == addr:
			c.spoil(fmt.Sprintf("has its address taken by %s", cmp.Or(a.nameAt(pc), "data")))
		case f != nil && at < addr+uint64(a.ptr):
			a.enqueue(f)
		}
	})
}

// constantCell reports whether the code of a function in the standard library or golang.org/x/sys is known to read a
// number only from variables of its own whose address nothing takes: fcntl64Syscall, FcntlSyscall. Binaries with
// symbols show that it is so; without symbols it cannot be seen.
func constantCell(fn string) bool {
	for _, p := range [...]string{"syscall.", "internal/syscall/unix.", "internal/poll.", "os.", "net.", "golang.org/x/sys/unix."} {
		if strings.HasPrefix(fn, p) {
			return true
		}
	}
	return false
}

// record notes that v becomes a system call number at pc of f.
func (a *flow) record(f *fn, abi string, v value, pc uint64, why string) {
	if f.name == perThread {
		return
	}
	if v.top || len(v.set) == 0 {
		f.unresolved[pc] = why
		return
	}
	for _, x := range v.set {
		switch x.kind {
		case konst:
			f.calls[call{abi, uint32(x.n)}] = true
		case regArg, stkArg:
			if s := (sink{abi, x}); !f.sinks[s] {
				f.sinks[s] = true
				a.grown = true
			}
		case global:
			c := a.cells[uint64(x.n)]
			if c == nil {
				c = &cell{abis: map[string]bool{}, readers: map[uint64]*fn{}}
				a.cells[uint64(x.n)] = c
			}
			c.readers[pc] = f
			if n, _, ok := a.read(uint64(x.n), 4); ok {
				f.calls[call{abi, uint32(n)}] = true
			}
			if !c.abis[abi] {
				c.abis[abi] = true
				a.newCell(uint64(x.n), c)
			}
		default:
			f.unresolved[pc] = why
		}
	}
}

// enter applies the sinks of g to what f passes when it calls g, or jumps to it, in state s.
func (a *flow) enter(f, g *fn, s *state, pc uint64, tail bool) {
	if g.flowState == nil || len(g.sinks) == 0 {
		return
	}
	f.visited[pc] = true
	for _, k := range slices.SortedFunc(maps.Keys(g.sinks), compareSinks) {
		v := top
		if k.at.kind == regArg {
			v = s.regs[k.at.n]
		} else {
			sp, _, _ := a.isa.regs()
			if base, ok := s.regs[sp].only(frame); ok {
				off := base + k.at.n
				if _, x := a.isa.(x86); x && !tail {
					off -= a.ptr // the return address
				}
				v = s.load(off, a.ptr)
			}
		}
		a.record(f, k.abi, v, pc, "the number passed to "+g.display()+" is computed")
	}
}

// run follows the flow of data through f.
func (a *flow) run(f *fn) {
	code := f.code
	if len(code) == 0 {
		return
	}
	sp, fp, n := a.isa.regs()
	kept, cKept, trapKept := a.isa.kept()
	if f.foreign {
		kept = cKept
	}
	start := &state{leakArgs: never, argsEnd: a.ptr + 512}
	if f.args != argsUnknown {
		start.argsEnd = a.ptr + max(f.args, 0)
	}
	for i := range n {
		start.regs[i] = one(regArg, int64(i))
	}
	start.regs[sp] = one(frame, 0)

	at := make(map[uint64]int, len(code)) // the first step of each instruction
	for i, c := range slices.Backward(code) {
		at[c.pc] = i
	}
	in := make([]*state, len(code))
	leader := make([]bool, len(code)+1)
	for i, x := range code {
		switch x.op {
		case opJump, opBranch:
			if j, ok := at[x.target]; ok {
				leader[j] = true
			}
			leader[i+1] = true
		}
	}
	in[0], leader[0] = start, true
	work, queued := []int{0}, make([]bool, len(code))
	push := func(j int, s *state) {
		changed := false
		if in[j] == nil {
			in[j], leader[j], changed = s.clone(), true, true
		} else {
			changed = in[j].merge(s)
		}
		if changed && !queued[j] {
			queued[j] = true
			work = append(work, j)
		}
	}
	pushTo := func(from, to uint64, s *state) bool {
		j, ok := at[to]
		if ok {
			push(j, s)
		} else if to >= f.addr && to < f.end {
			f.lost = from // into the middle of an instruction
		}
		return ok
	}
	for len(work) > 0 {
		i := work[len(work)-1]
		work = work[:len(work)-1]
		queued[i] = false
		s := in[i].clone()
	block:
		for ; ; i++ {
			x := &code[i]
			switch x.op {
			case opUnknown:
				f.lost = x.pc
				break block
			case opStop:
				break block
			case opJump, opBranch:
				if !pushTo(x.pc, x.target, s) {
					if g := a.at(x.target); g != nil && g != f {
						a.enter(f, g, s, x.pc, true)
					}
				}
				if x.op == opJump {
					break block
				}
			case opJumpTo:
				if !a.jumpTable(f, a.eval(s, x.a), func(to uint64) { pushTo(x.pc, to, s) }) {
					f.lost = x.pc
				}
				break block
			case opCall:
				g := a.find(x.target)
				if g != nil && g.addr == x.target {
					a.enter(f, g, s, x.pc, false)
					if g.noReturn || g.moreStack {
						break block // after morestack the function begins anew, with what it began with
					}
				}
				a.afterCall(s, g, sp, kept)
			case opCallTo:
				a.afterCall(s, nil, sp, kept)
			case opTrap:
				f.visited[x.pc] = true
				a.record(f, x.abi, a.eval(s, x.a), x.pc, "the number is computed")
				s.forgetLeaked()
				s.clobber(trapKept)
			default:
				a.step(f, s, x, sp, fp)
			}
			if i+1 >= len(code) {
				break
			}
			if leader[i+1] {
				push(i+1, s)
				break
			}
		}
	}
}

// afterCall changes s as the call of g can; g is nil if it is not known.
func (a *flow) afterCall(s *state, g *fn, sp int8, kept uint32) {
	s.forgetLeaked()
	s.clobber(kept)
	lo, ok := s.regs[sp].only(frame)
	switch {
	case !ok:
		s.forget(-never, never)
	case g == nil || g.args == argsUnknown:
		s.forget(-never, 0)
	default: // the callee may use the space of its arguments and results as it likes
		s.forget(lo, min(lo+a.ptr+g.args, max(lo, 0)))
	}
}

// address gives where an operand in memory is.
func (a *flow) address(s *state, o operand) value {
	v := one(konst, o.disp)
	if o.base != noReg {
		v = add(s.regs[o.base], v)
	}
	if o.index != noReg {
		return top
	}
	return v
}

// eval gives the value of an operand.
func (a *flow) eval(s *state, o operand) value {
	switch o.kind {
	case reg:
		return s.regs[o.base]
	case imm:
		return one(konst, o.disp)
	case addr:
		return a.address(s, o)
	case mem:
		table := o.index != noReg
		o.index = noReg
		v := a.address(s, o)
		if off, ok := v.only(frame); ok && !table {
			return s.load(off, int64(o.size))
		}
		at, ok := v.only(konst)
		if !ok {
			break
		}
		n, mutable, ok := a.read(uint64(at), int64(o.size))
		switch {
		case !ok:
		case mutable && !table:
			return one(global, at)
		case !mutable && !table:
			return one(konst, n)
		case !mutable && int64(o.size) == a.ptr:
			return one(entry, at)
		}
	}
	return top
}

// step changes s as a plain instruction does.
func (a *flow) step(f *fn, s *state, x *inst, sp, fp int8) {
	var v value
	switch x.op {
	case opHavoc:
		s.clobber(1 << sp)
		s.forget(-never, never)
		return
	case opWrite:
		s.forgetLeaked()
		return
	case opAdd:
		v = add(a.eval(s, x.a), a.eval(s, x.b))
	case opSub:
		v = top
		if n, ok := a.eval(s, x.b).only(konst); ok {
			v = add(a.eval(s, x.a), one(konst, -n))
		}
	case opJoin:
		v = join(a.eval(s, x.dst), a.eval(s, x.a))
	default:
		v = a.eval(s, x.a)
	}
	// An address into the stack that leaves the two registers made for it may be used by anyone.
	if off, ok := v.only(frame); ok && !(x.dst.kind == reg && (x.dst.base == sp || x.dst.base == fp)) {
		if low, ok := s.regs[sp].only(frame); !ok || off >= low { // below the stack pointer there is nothing yet
			s.leak(off)
		}
	} else if x.a.kind == addr && x.a.base != noReg && x.a.index != noReg {
		if _, ok := s.regs[x.a.base].only(frame); ok {
			s.leakFrame, s.leakArgs = -never, 0
		}
	}
	switch x.dst.kind {
	case reg:
		s.regs[x.dst.base] = v
	case mem:
		a.store(f, s, x, v)
	}
}

// store writes v to memory.
func (a *flow) store(f *fn, s *state, x *inst, v value) {
	size := int64(x.dst.size)
	where := a.address(s, x.dst)
	if off, ok := where.only(frame); ok {
		s.store(off, max(size, 1), v)
		return
	}
	if x.dst.base != noReg && x.dst.index != noReg {
		if _, ok := s.regs[x.dst.base].only(frame); ok { // an array on the stack
			s.forget(-never, never)
			return
		}
	}
	if at, ok := where.only(konst); ok {
		for addr, c := range a.cells {
			switch {
			case uint64(at) >= addr+uint64(a.ptr) || uint64(at)+uint64(size) <= addr:
			case uint64(at) != addr || v.top:
				c.spoil("is set by " + f.display() + " to what is computed")
			default:
				for abi := range c.abis {
					a.record(f, abi, v, x.pc, "the number stored in a variable is computed")
				}
			}
		}
		return
	}
	s.forgetLeaked()
}

// jumpTable calls visit for the targets of a jump to one of the entries of a table, if it is one.
func (a *flow) jumpTable(f *fn, to value, visit func(uint64)) bool {
	table, ok := to.only(entry)
	if !ok {
		return false
	}
	for n := int64(0); ; n++ {
		pc, mutable, ok := a.read(uint64(table+n*a.ptr), a.ptr)
		if !ok || mutable || uint64(pc) < f.addr || uint64(pc) >= f.end {
			return n > 0
		}
		visit(uint64(pc))
	}
}
