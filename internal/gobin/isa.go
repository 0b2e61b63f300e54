package gobin

// This file is what the analysis knows of instructions, whatever the machine.

// An isa is an instruction set: it finds what matters in machine code and turns functions into [inst]s.
type isa interface {
	// abi gives the ABI of the machine's own system calls.
	abi() string
	// regs gives the stack pointer, the frame pointer (or noReg), and how many registers there are.
	regs() (sp, fp int8, n int)
	// kept gives the registers that a call leaves alone, as bits: a call made by Go, a call made by C, a system call.
	kept() (goCall, cCall, trap uint32)
	// scan calls trap for each address that may hold an instruction entering the kernel, and branch for each that
	// may hold a direct call or jump. It may be wrong about both, but leaves none out.
	scan(s *section, trap func(pc uint64), branch func(pc, target uint64))
	// decode translates a function. ok is false if some instruction from bad on is unknown.
	decode(code []byte, pc uint64) (list []inst, bad uint64, ok bool)
	// refs calls ref for each instruction that may form or use the address of something that want accepts.
	// lo and hi bound these addresses.
	refs(p *program, s *section, lo, hi uint64, want func(uint64) bool, ref func(pc, addr uint64, taken bool))
}

type op uint8

const (
	opSet     op = iota // dst = a
	opAdd               // dst = a + b
	opSub               // dst = a - b
	opJoin              // dst = dst or a
	opHavoc             // all registers but the stack pointer, and all memory
	opWrite             // memory somewhere
	opJump              // to target
	opBranch            // to target, or on
	opJumpTo            // to a
	opCall              // target
	opCallTo            // a
	opTrap              // into the kernel; a is where the number is, abi whose number it is
	opStop              // no way on from here
	opUnknown           // an instruction that cannot be decoded
)

// An inst is one step of a machine instruction; several can share a pc.
type inst struct {
	pc     uint64
	target uint64
	dst    operand
	a, b   operand
	op     op
	abi    string
}

type operandKind uint8

const (
	unknown operandKind = iota
	reg                 // base
	imm                 // disp
	mem                 // size bytes at base + index + disp
	addr                // base + index + disp
)

const noReg int8 = -1

type operand struct {
	kind        operandKind
	base, index int8
	size        uint8
	disp        int64
}

func regOp(r int8) operand { return operand{kind: reg, base: r, index: noReg} }

func immOp(n int64) operand { return operand{kind: imm, base: noReg, index: noReg, disp: n} }

func memOp(base int8, disp int64, size uint8) operand {
	return operand{kind: mem, base: base, index: noReg, disp: disp, size: size}
}
