package gobin

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// The names that libseccomp and the OCI runtime specification have for ABIs.
const (
	ABIX8664   = "SCMP_ARCH_X86_64"
	ABIX86     = "SCMP_ARCH_X86"
	ABIX32     = "SCMP_ARCH_X32"
	ABIAArch64 = "SCMP_ARCH_AARCH64"
)

// A Reach is what the machine code of a Go binary can ask of the kernel.
type Reach struct {
	ABI        string // of the binary itself
	Calls      []Call // sorted by ABI and number
	Unresolved []Site // sorted by address; if there is any, Calls may lack something

	// VDSO lists the runtime's functions in this binary that call into the vDSO. The kernel's code there can make a
	// system call of its own, which no instruction of the binary shows.
	VDSO []string

	Interpreter string // that loads the binary, and the C libraries that it wants; empty for a static one
	C           bool   // it has code of C's, or is linked against C libraries
	Plugins     bool   // it can load Go code that is not in it, by package plugin

	Functions int // in the binary's table
	Analyzed  int // that the data flow had to look at
}

// A Call is a system call that the binary can make.
type Call struct {
	ABI    string
	Number int
	// Funcs are the functions in whose code the number stands, sorted, at most MaxFuncs of them: the callers of
	// syscall.Syscall rather than syscall.Syscall itself. A function that the compiler inlined does not appear.
	Funcs []string
	More  int // how many functions Funcs leaves out
	// RuntimeFuncs are those of package runtime and its internal packages, all of them.
	RuntimeFuncs []string
	// Runtime says that there are no others.
	Runtime bool
}

// MaxFuncs bounds Call.Funcs.
const MaxFuncs = 32

// A Site is a place whose system call number the analysis could not find out.
type Site struct {
	Func   string // may be empty in code that has no name
	PC     uint64
	Reason string
}

func (s Site) String() string {
	return fmt.Sprintf("%s at %#x: %s", cmp.Or(s.Func, "code without a name"), s.PC, s.Reason)
}

func compareSinks(a, b sink) int {
	return cmp.Or(cmp.Compare(a.abi, b.abi), compareAtoms(a.at, b.at))
}

func (f *fn) display() string { return cmp.Or(f.name, "code without a name") }

// isRuntime reports whether a function is the Go runtime's. Package runtime holds the assembly of time.now and, on 386, a
// function without a package.
func isRuntime(name string) bool {
	for _, p := range [...]string{"runtime.", "internal/runtime/", "runtime/internal/"} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return name == "time.now" || name == "exit1"
}

// neverReturns reports whether the compiler takes calls of a runtime function for the end of a path, so that what
// stands after the call is no continuation of it.
func neverReturns(name string) bool {
	name, ok := strings.CutPrefix(name, "runtime.")
	if !ok {
		return false
	}
	switch name {
	case "gopanic", "throw", "fatal", "fatalthrow", "fatalpanic", "block", "goexit0", "goexit1", "Goexit", "racefatal":
		return true
	}
	return strings.HasPrefix(name, "panic") || strings.HasPrefix(name, "goPanic")
}

// Analyze finds every system call that the machine code of the Go binary at path can make.
// See the package documentation for what it cannot see.
// The error wraps [ErrNotGo] or [errors.ErrUnsupported] where these fit.
func Analyze(path string) (*Reach, error) {
	p, err := open(path)
	if err != nil {
		return nil, fmt.Errorf("analyze %q: %w", path, err)
	}
	return p.reach(), nil
}

// AnalyzeFile is Analyze of an open file.
func AnalyzeFile(f *os.File) (*Reach, error) {
	p, err := read(f)
	if err != nil {
		return nil, fmt.Errorf("analyze %q: %w", f.Name(), err)
	}
	return p.reach(), nil
}

// decode translates f once.
func (p *program) decode(f *fn) {
	if f.code != nil || f.undecoded != 0 {
		return
	}
	list, bad, ok := p.isa.decode(p.bytes(f), f.addr)
	f.code = list
	if !ok {
		f.undecoded = bad
	}
}

// perThread is the function that repeats on other threads, from a variable, the call that
// syscall.runtime_doAllThreadsSyscall has made on its own. The number is found there.
const perThread = "runtime.runPerThreadSyscall"

// A branch is a direct call or jump to the entry of another function.
type branch struct{ pc, target uint64 }

// scan finds what may be an instruction that enters the kernel, and what may be a direct call or jump.
func (p *program) scan() (traps []uint64, branches []branch) {
	for _, s := range p.sections {
		if !s.exec {
			continue
		}
		entries := make([]uint64, len(s.data)/64+1) // one bit for each address
		for _, f := range p.fns {
			if off := f.addr - s.addr; f.addr >= s.addr && off < uint64(len(s.data)) {
				entries[off/64] |= 1 << (off % 64)
			}
		}
		p.isa.scan(s, func(pc uint64) { traps = append(traps, pc) }, func(pc, target uint64) {
			off := target - s.addr
			if target >= s.addr && off < uint64(len(s.data)) {
				if entries[off/64]&(1<<(off%64)) == 0 {
					return
				}
			} else if p.at(target) == nil {
				return
			}
			branches = append(branches, branch{pc, target})
		})
	}
	return traps, branches
}

// reach runs the analysis.
func (p *program) reach() *Reach {
	for _, f := range p.fns {
		f.noReturn = neverReturns(f.name)
		f.moreStack = strings.HasPrefix(f.name, "runtime.morestack")
	}
	a := &flow{program: p, cells: map[uint64]*cell{}}
	r := &Reach{ABI: p.isa.abi(), Functions: len(p.fns), Interpreter: p.interpreter, C: p.libraries}
	for _, f := range p.fns {
		r.C = r.C || f.name == "crosscall2" // package runtime/cgo has it, for C to call Go by
		r.Plugins = r.Plugins || strings.HasPrefix(f.name, "plugin.")
	}
	traps, branches := p.scan()
	a.branches = branches
	for _, pc := range traps {
		f := p.find(pc)
		if f == nil {
			f = p.addGap(pc)
		}
		p.decode(f)
		switch isTrap := slices.ContainsFunc(f.code, func(x inst) bool { return x.pc == pc && x.op == opTrap }); {
		case isTrap && f.name == "":
			r.unresolved(f, pc, "the code around it belongs to no known function")
		case isTrap:
			a.enqueue(f)
			f.traps = append(f.traps, pc)
		case f.undecoded != 0 && f.undecoded <= pc:
			r.unresolved(f, pc, fmt.Sprintf("may enter the kernel, but the instruction at %#x is unknown", f.undecoded))
		}
	}
	a.solve()
	a.collectCalls(r)
	a.collectUnresolved(r)
	return r
}

func (r *Reach) unresolved(f *fn, pc uint64, why string) {
	name := ""
	if f != nil {
		name = f.name
	}
	r.Unresolved = append(r.Unresolved, Site{name, pc, why})
}

// collectCalls brings together what was found in the functions.
func (a *flow) collectCalls(r *Reach) {
	byCall := map[call]map[string]bool{}
	for _, f := range a.fns {
		if slices.Contains(vdsoFuncs, f.name) && !slices.Contains(r.VDSO, f.name) {
			r.VDSO = append(r.VDSO, f.name)
		}
		if f.flowState == nil {
			continue
		}
		r.Analyzed++
		for c := range f.calls {
			if c.abi == ABIX8664 && c.nr&x32Bit != 0 && int32(c.nr) > 0 {
				c.abi = ABIX32
			}
			if byCall[c] == nil {
				byCall[c] = map[string]bool{}
			}
			byCall[c][f.display()] = true
		}
	}
	slices.Sort(r.VDSO)
	for c, names := range byCall {
		list := slices.Sorted(maps.Keys(names))
		x := Call{ABI: c.abi, Number: int(c.nr)}
		for _, n := range list {
			if isRuntime(n) {
				x.RuntimeFuncs = append(x.RuntimeFuncs, n)
			}
		}
		x.Runtime = len(x.RuntimeFuncs) == len(list)
		x.More = max(0, len(list)-MaxFuncs)
		x.Funcs = list[:len(list)-x.More]
		r.Calls = append(r.Calls, x)
	}
	slices.SortFunc(r.Calls, func(a, b Call) int { return cmp.Or(cmp.Compare(a.ABI, b.ABI), cmp.Compare(a.Number, b.Number)) })
}

// collectUnresolved brings together all that stands in the way of the promise that r.Calls is complete.
func (a *flow) collectUnresolved(r *Reach) {
	sinks := map[uint64]*fn{}
	for _, f := range a.fns {
		if f.flowState == nil {
			continue
		}
		for pc, why := range f.unresolved {
			r.unresolved(f, pc, why)
		}
		if f.lost != 0 && len(f.visited) > 0 {
			r.unresolved(f, f.lost, "the flow analysis cannot follow this instruction, which may lead to the function's system calls")
		}
		for _, pc := range f.traps {
			if !f.visited[pc] {
				r.unresolved(f, pc, "the flow analysis finds no way to it")
			}
		}
		if len(f.sinks) == 0 {
			continue
		}
		sinks[f.addr] = f
		for _, pc := range a.callersOf(f) {
			if why := a.missed(pc, f); why != "" {
				r.unresolved(a.find(pc), pc, why)
			}
		}
	}
	for addr, c := range a.cells {
		for pc, f := range c.readers {
			why := c.bad
			if why == "" && c.unbounded && !constantCell(f.name) {
				why = "may be a part of one that is written through a pointer: no symbol tells its bounds"
			}
			if why != "" {
				r.unresolved(f, pc, fmt.Sprintf("the variable at %#x that holds the number %s", addr, why))
			}
		}
	}
	r.Unresolved = append(r.Unresolved, a.taken(sinks)...)
	slices.SortFunc(r.Unresolved, func(a, b Site) int {
		return cmp.Or(cmp.Compare(a.PC, b.PC), cmp.Compare(a.Func, b.Func), cmp.Compare(a.Reason, b.Reason))
	})
	r.Unresolved = slices.Compact(r.Unresolved)
}

// x32Bit marks the numbers of the x32 ABI, which shares the instruction and the architecture value with x86-64.
const x32Bit = 0x40000000

func (p *program) nameAt(pc uint64) string {
	if f := p.find(pc); f != nil {
		return f.name
	}
	return ""
}

// addGap makes a function without a name out of the code around pc that belongs to none.
func (p *program) addGap(pc uint64) *fn {
	s := p.section(pc)
	f := &fn{addr: s.addr, end: s.addr + uint64(len(s.data)), args: argsUnknown, foreign: true}
	i, _ := slices.BinarySearchFunc(p.fns, pc, func(g *fn, pc uint64) int { return cmp.Compare(g.addr, pc) })
	if i > 0 {
		f.addr = max(f.addr, p.fns[i-1].end)
	}
	if i < len(p.fns) {
		f.end = min(f.end, p.fns[i].addr)
	}
	p.fns = slices.Insert(p.fns, i, f)
	return f
}

// missed tells why the call of, or jump to, sink g that may stand at pc was not followed; empty if it was, or is none.
func (p *program) missed(pc uint64, g *fn) string {
	f := p.find(pc)
	if f == nil || f.name == "" {
		return "the code around this call of " + g.display() + " belongs to no known function"
	}
	if f.flowState == nil || f.visited[pc] {
		return ""
	}
	for i := range f.code {
		x := &f.code[i]
		if f == g && x.op == opJump {
			continue // back to the start after morestack
		}
		if x.pc == pc && x.target == g.addr && (x.op == opCall || x.op == opJump || x.op == opBranch) {
			return "the flow analysis finds no way to this call of " + g.display()
		}
	}
	if f.undecoded != 0 && f.undecoded <= pc {
		return fmt.Sprintf("may call %s, but the instruction at %#x is unknown", g.display(), f.undecoded)
	}
	return ""
}

// words calls visit for each 32-bit or 64-bit word in the data.
func (p *program) words(size int64, visit func(at, v uint64)) {
	for _, s := range p.sections {
		if s.exec || strings.HasSuffix(s.name, ".gopclntab") || strings.HasPrefix(s.name, ".rel") {
			continue
		}
		for off := int64(-s.addr & uint64(size-1)); off+size <= int64(len(s.data)); off += size {
			if size == 4 {
				visit(s.addr+uint64(off), uint64(binary.LittleEndian.Uint32(s.data[off:])))
			} else {
				visit(s.addr+uint64(off), binary.LittleEndian.Uint64(s.data[off:]))
			}
		}
	}
}

// pointers calls visit for each word in the data that may be an address.
func (p *program) pointers(visit func(at, v uint64)) {
	if !p.exact {
		p.words(p.ptr, visit)
		return
	}
	for _, r := range p.relocs {
		visit(r.at, r.value)
	}
}

// users calls visit for each place in code or data that may use one of the addresses that want accepts.
func (p *program) users(lo, hi uint64, want func(uint64) bool, visit func(pc, addr uint64, taken bool)) {
	p.pointers(func(at, v uint64) {
		if v >= lo && v <= hi && want(v) {
			visit(at, v, true)
		}
	})
	for _, s := range p.sections {
		if s.exec {
			p.isa.refs(p, s, lo, hi, want, visit)
		}
	}
}

// lowest is where a text segment begins if not below. Addresses below are likely to be numbers that mean something else.
const lowest = 4 << 20

// taken reports the sinks whose address is used for something else than a direct call: as a function value, or as a
// method in the tables of an interface or a type. Who calls them with which number is not known.
func (p *program) taken(sinks map[uint64]*fn) (sites []Site) {
	if len(sinks) == 0 {
		return nil
	}
	add := func(f *fn, pc uint64, how string) {
		sites = append(sites, Site{f.name, pc, how + ", so that unknown callers can pass it a number"})
	}
	method := func(f *fn) bool {
		_, rest, _ := strings.Cut(f.name[strings.LastIndexByte(f.name, '/')+1:], ".")
		return strings.Contains(rest, ".")
	}
	bounds := func(m map[uint64]*fn) (lo, hi uint64, want func(uint64) bool) {
		keys := slices.Collect(maps.Keys(m))
		return slices.Min(keys), slices.Max(keys), func(x uint64) bool { return m[x] != nil }
	}
	doubtful := map[uint64]*fn{} // words that hold what may be the address of a function or just a number
	lo, hi, want := bounds(sinks)
	p.users(lo, hi, want, func(pc, target uint64, _ bool) {
		switch f, s := sinks[target], p.section(pc); {
		case s != nil && s.exec:
			add(f, pc, fmt.Sprintf("%s takes its address", cmp.Or(p.nameAt(pc), "code without a name")))
		case !p.exact && target < lowest && !method(f):
			doubtful[pc] = f
		default:
			add(f, pc, "data holds its address")
		}
	})
	if len(doubtful) > 0 { // a function value is used through the address of the word
		lo, hi, want := bounds(doubtful)
		p.users(lo, hi, want, func(_, at uint64, _ bool) { add(doubtful[at], at, "data holds its address") })
	}
	methods := map[uint64]*fn{} // by what the tables of methods hold
	for at, f := range sinks {
		if method(f) && at > p.text {
			methods[at-p.text] = f
		}
	}
	if len(methods) > 0 {
		p.words(4, func(at, v uint64) {
			if f := methods[v]; f != nil {
				add(f, at, "a type's methods hold its address")
			}
		})
	}
	return sites
}
