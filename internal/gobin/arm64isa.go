package gobin

import (
	"encoding/binary"
	"math/bits"
)

// arm64 decodes the few instructions that move numbers and addresses; all others only make their target unknown.
// Register 31 is the stack pointer here.
type arm64 struct{}

const (
	asp       int8 = 31
	afp       int8 = 29
	aNumber   int8 = 8 // the register that holds the number of a system call
	svcMask        = 0xffe0001f
	svcOpcode      = 0xd4000001
)

func (arm64) abi() string                { return ABIAArch64 }
func (arm64) regs() (sp, fp int8, n int) { return asp, afp, 32 }

func (arm64) kept() (goCall, cCall, trap uint32) {
	goCall = 1<<asp | 1<<afp | 1<<28
	return goCall, goCall | 0x3ff<<19, 0xfffffffe
}

func sext(v uint32, n int) int64 { return int64(int32(v<<(32-n))) >> (32 - n) }

// branchOf gives the target of a direct branch or call.
func (arm64) branchOf(w uint32, pc uint64) (target uint64, kind op, ok bool) {
	switch {
	case w>>26 == 0x05:
		return pc + uint64(sext(w, 26)*4), opJump, true
	case w>>26 == 0x25:
		return pc + uint64(sext(w, 26)*4), opCall, true
	case w>>24 == 0x54, w>>25&0x3f == 0x1a: // B.cond, CBZ, CBNZ
		return pc + uint64(sext(w>>5, 19)*4), opBranch, true
	case w>>25&0x3f == 0x1b: // TBZ, TBNZ
		return pc + uint64(sext(w>>5, 14)*4), opBranch, true
	}
	return 0, 0, false
}

func (m arm64) scan(s *section, trap func(pc uint64), branch func(pc, target uint64)) {
	for i := 0; i+4 <= len(s.data); i += 4 {
		w, pc := binary.LittleEndian.Uint32(s.data[i:]), s.addr+uint64(i)
		if w&svcMask == svcOpcode {
			trap(pc)
		} else if t, _, ok := m.branchOf(w, pc); ok {
			branch(pc, t)
		}
	}
}

// adr decodes ADR and ADRP.
func (arm64) adr(w uint32, pc uint64) (addr uint64, ok bool) {
	if w&0x1f000000 != 0x10000000 {
		return 0, false
	}
	off := sext(w>>5&0x7ffff<<2|w>>29&3, 21)
	if w>>31 == 0 {
		return pc + uint64(off), true
	}
	return pc&^0xfff + uint64(off)<<12, true
}

func (m arm64) refs(_ *program, s *section, lo, hi uint64, want func(uint64) bool, ref func(pc, addr uint64, taken bool)) {
	for i := 0; i+4 <= len(s.data); i += 4 {
		w, pc := binary.LittleEndian.Uint32(s.data[i:]), s.addr+uint64(i)
		base, ok := m.adr(w, pc)
		if !ok || base+0x8000 < lo || base > hi {
			continue
		}
		if want(base) {
			ref(pc, base, true)
		}
		// What completes the address follows: at once in Go, a little later at times in C.
		for j := i + 4; j+4 <= len(s.data) && j <= i+32; j += 4 {
			x := binary.LittleEndian.Uint32(s.data[j:])
			imm := uint64(x >> 10 & 0xfff)
			isAdd, isMem := x&0x7fc00000 == 0x11000000, x&0x3b000000 == 0x39000000
			if x>>5&31 == w&31 {
				if isAdd && want(base+imm) {
					ref(s.addr+uint64(j), base+imm, true)
				} else if a := base + imm<<memScale(x); isMem && want(a) {
					ref(s.addr+uint64(j), a, false)
				}
			}
			if isStore := x>>22&3 == 0; x&31 == w&31 && !(isMem && isStore) {
				break // the register gets another value
			}
		}
	}
}

// memScale gives the binary logarithm of the size of a load or store of one register.
func memScale(w uint32) uint32 {
	if w>>26&1 == 1 {
		return w>>30 | w>>23&1<<2
	}
	return w >> 30
}

func (m arm64) decode(code []byte, pc uint64) (list []inst, bad uint64, ok bool) {
	list = make([]inst, 0, len(code)/4)
	for ; len(code) >= 4; code, pc = code[4:], pc+4 {
		n := len(list)
		list = m.translate(list, binary.LittleEndian.Uint32(code), pc)
		if len(list) == n {
			list = append(list, inst{op: opSet}) // nothing happens, but one can jump here
		}
		for i := n; i < len(list); i++ {
			list[i].pc = pc
		}
	}
	return list, 0, true
}

// translate appends the steps of instruction w.
func (m arm64) translate(list []inst, w uint32, pc uint64) []inst {
	rd, rn, rm := int8(w&31), int8(w>>5&31), int8(w>>16&31)
	emit := func(i inst) { list = append(list, i) }
	// set writes a register that is not the stack pointer: 31 stands for zero here.
	set := func(r int8, a operand) {
		if r != asp {
			emit(inst{op: opSet, dst: regOp(r), a: a})
		}
	}
	src := func(r int8) operand {
		if r == asp {
			return immOp(0)
		}
		return regOp(r)
	}
	if t, kind, ok := m.branchOf(w, pc); ok {
		emit(inst{op: kind, target: t})
		return list
	}
	if a, ok := m.adr(w, pc); ok {
		set(rd, immOp(int64(a)))
		return list
	}
	switch {
	case w&svcMask == svcOpcode:
		emit(inst{op: opTrap, abi: ABIAArch64, a: regOp(aNumber)})
	case w&svcMask == 0xd4200000, w&svcMask == 0xd4400000, w>>16 == 0: // BRK, HLT, UDF
		emit(inst{op: opStop})
	case w>>25 == 0x6b: // BR, BLR, RET and their kin
		switch w >> 21 & 7 {
		case 0:
			emit(inst{op: opJumpTo, a: src(rn)})
		case 1:
			emit(inst{op: opCallTo, a: src(rn)})
		default:
			emit(inst{op: opStop})
		}
	case w>>24 == 0xd5: // system registers, barriers, hints
		if w>>21&1 == 1 {
			set(rd, operand{})
		}
	case w&0x1f000000 == 0x11000000: // ADD, SUB (immediate)
		n := int64(w >> 10 & 0xfff << (w >> 22 & 1 * 12))
		if w>>30&1 == 1 {
			n = -n
		}
		if flags := w>>29&1 == 1; !flags || rd != asp {
			emit(inst{op: opAdd, dst: regOp(rd), a: regOp(rn), b: immOp(n)})
		}
	case w&0x1f200000 == 0x0b200000: // ADD, SUB (extended register): the one form that can write the stack pointer
		if flags := w>>29&1 == 1; !flags || rd != asp {
			o := opAdd
			if w>>30&1 == 1 {
				o = opSub
			}
			if w>>13&7 == 3 && w>>10&7 == 0 {
				emit(inst{op: o, dst: regOp(rd), a: regOp(rn), b: src(rm)})
			} else {
				emit(inst{op: opSet, dst: regOp(rd)})
			}
		}
	case w&0x1f800000 == 0x12000000: // AND, ORR, EOR, ANDS (immediate)
		switch opc := w >> 29 & 3; {
		case opc == 1 && rn == asp:
			emit(inst{op: opSet, dst: regOp(rd), a: bitmask(w)})
		case opc != 3:
			emit(inst{op: opSet, dst: regOp(rd)})
		default:
			set(rd, operand{})
		}
	case w&0x1f800000 == 0x12800000: // MOVN, MOVZ, MOVK
		n := int64(uint64(w>>5&0xffff) << (w >> 21 & 3 * 16))
		switch w >> 29 & 3 {
		case 0:
			set(rd, immOp(^n))
		case 2:
			set(rd, immOp(n))
		default:
			set(rd, operand{})
		}
	case w&0x7fe0ffe0 == 0x2a0003e0: // MOV (register)
		set(rd, src(rm))
	case w&0xfffffc00 == 0x93407c00, w&0xfffffc00 == 0xd3407c00: // SXTW, UXTW
		set(rd, src(rn))
	case w&0x5fe00c00 == 0x1a800000: // CSEL
		if rd != asp {
			set(rd, src(rn))
			if rd == rm { // the first step has overwritten it
				list[len(list)-1] = inst{op: opJoin, dst: regOp(rd), a: src(rn)}
				break
			}
			emit(inst{op: opJoin, dst: regOp(rd), a: src(rm)})
		}
	case w&0x0a000000 == 0x08000000:
		return m.memory(list, w)
	case w>>25&0xf >= 4: // other arithmetic, and what vector instructions may write to a general register
		set(rd, operand{})
	default:
		emit(inst{op: opHavoc})
	}
	return list
}

// memory appends the steps of a load or store.
func (m arm64) memory(list []inst, w uint32) []inst {
	rt, rn := int8(w&31), int8(w>>5&31)
	emit := func(i inst) { list = append(list, i) }
	vector := w>>26&1 == 1
	// access loads or stores register r.
	access := func(r int8, at operand, load, whole bool) {
		switch {
		case load && !vector && r != asp:
			a := at
			if !whole {
				a = operand{}
			}
			emit(inst{op: opSet, dst: regOp(r), a: a})
		case !load:
			a := operand{}
			if !vector && r == asp && whole {
				a = immOp(0)
			} else if !vector && whole {
				a = regOp(r)
			}
			emit(inst{op: opSet, dst: at, a: a})
		}
	}
	update := func(n int64) { emit(inst{op: opAdd, dst: regOp(rn), a: regOp(rn), b: immOp(n)}) }
	switch {
	case w&0x3a000000 == 0x28000000: // LDP, STP
		size := uint8(4)
		if vector {
			size = 4 << (w >> 30)
		} else if w>>30 == 2 {
			size = 8
		}
		off, mode, load := sext(w>>15, 7)*int64(size), w>>23&3, w>>22&1 == 1
		at := off
		if mode == 1 {
			at = 0
		}
		rt2 := int8(w >> 10 & 31)
		if load && rt == rn && !vector { // the base is lost with the first of the two
			access(rt2, memOp(rn, at+int64(size), size), true, true)
			access(rt, memOp(rn, at, size), true, true)
			break
		}
		access(rt, memOp(rn, at, size), load, true)
		access(rt2, memOp(rn, at+int64(size), size), load, true)
		if mode == 1 || mode == 3 {
			update(off)
		}
	case w&0x3b000000 == 0x18000000: // LDR (literal): the constant stands in the code
		access(rt, operand{}, true, false)
	case w&0x3b000000 == 0x39000000, w&0x3b200000 == 0x38000000, w&0x3b200c00 == 0x38200800:
		scale := memScale(w)
		size, load := uint8(1)<<scale, w>>22&3 != 0
		if vector {
			load = w>>22&1 == 1
		}
		whole := scale >= 2
		if !vector && w>>30 == 3 && w>>22&3 == 2 { // PRFM
			break
		}
		at := memOp(rn, 0, size)
		switch {
		case w>>24&1 == 1:
			at.disp = int64(w>>10&0xfff) << scale
		case w>>21&1 == 1:
			at.index = int8(w >> 16 & 31)
		default:
			off := sext(w>>12, 9)
			switch w >> 10 & 3 {
			case 1: // post-index
				access(rt, at, load, whole)
				update(off)
				return list
			case 3: // pre-index
				at.disp = off
				access(rt, at, load, whole)
				update(off)
				return list
			}
			at.disp = off
		}
		access(rt, at, load, whole)
	case w&0x3f000000 == 0x08000000, w&0x3b200c00 == 0x38200000: // exclusive and atomic access
		for _, r := range [...]int8{rt, int8(w >> 16 & 31), int8(w >> 10 & 31)} {
			if r != asp {
				emit(inst{op: opSet, dst: regOp(r)})
			}
		}
		emit(inst{op: opSet, dst: memOp(rn, 0, 16)})
	default: // vectors of registers, memory tags
		emit(inst{op: opWrite})
		emit(inst{op: opHavoc})
	}
	return list
}

// bitmask decodes the immediate of a logical instruction.
func bitmask(w uint32) operand {
	n, immr, imms := w>>22&1, int(w>>16&63), w>>10&63
	length := bits.Len32(n<<6|^imms&63) - 1
	if length < 1 {
		return operand{}
	}
	size := 1 << length
	s, r := int(imms)&(size-1), immr&(size-1)
	if s == size-1 {
		return operand{}
	}
	elem := uint64(1)<<(s+1) - 1
	elem = elem>>r | elem<<(size-r)
	if size < 64 {
		elem &= 1<<size - 1
	}
	var v uint64
	for i := 0; i < 64; i += size {
		v |= elem << i
	}
	if w>>31 == 0 {
		v = uint64(uint32(v))
	}
	return immOp(int64(v))
}
