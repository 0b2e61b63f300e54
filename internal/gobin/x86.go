package gobin

import (
	"encoding/binary"
	"slices"

	"golang.org/x/arch/x86/x86asm"
)

// x86 is amd64 (mode 64) or 386 (mode 32).
type x86 struct{ mode int }

const (
	rax int8 = iota
	rcx
	rdx
	rbx
	rsp
	rbp
	rsi
	rdi
)

func (m x86) abi() string {
	if m.mode == 64 {
		return ABIX8664
	}
	return ABIX86
}

func (m x86) regs() (sp, fp int8, n int) {
	if m.mode == 64 {
		return rsp, rbp, 16
	}
	return rsp, noReg, 8
}

func (m x86) kept() (goCall, cCall, trap uint32) {
	if m.mode == 64 {
		goCall = 1<<rsp | 1<<rbp
		return goCall, goCall | 1<<rbx | 0xf000, 0xffff &^ (1<<rax | 1<<rcx | 1<<11)
	}
	return 1 << rsp, 1<<rsp | 1<<rbp | 1<<rbx | 1<<rsi | 1<<rdi, 0xff &^ (1 << rax)
}

func (m x86) scan(s *section, trap func(pc uint64), branch func(pc, target uint64)) {
	d := s.data
	rel := func(i, off int) {
		if i+off+4 <= len(d) {
			n := int64(int32(binary.LittleEndian.Uint32(d[i+off:])))
			branch(s.addr+uint64(i), m.wrap(int64(s.addr)+int64(i+off+4)+n))
		}
	}
	for i := 0; i+1 < len(d); i++ {
		switch d[i] {
		case 0xe8, 0xe9: // CALL, JMP
			rel(i, 1)
		case 0x0f:
			switch c := d[i+1]; {
			case c == 0x05 || c == 0x34: // SYSCALL, SYSENTER
				trap(s.addr + uint64(i))
			case c&0xf0 == 0x80: // Jcc
				rel(i, 2)
			}
		case 0xcd: // INT $0x80
			if d[i+1] == 0x80 {
				trap(s.addr + uint64(i))
			}
		case 0x65: // CALL *%gs:0x10, the way into the vDSO that glibc takes on 386
			if m.mode == 32 && i+7 <= len(d) && string(d[i:i+7]) == "\x65\xff\x15\x10\x00\x00\x00" {
				trap(s.addr + uint64(i))
			}
		}
	}
}

// wrap cuts an address to the size of a pointer.
func (m x86) wrap(n int64) uint64 {
	if m.mode == 32 {
		return uint64(uint32(n))
	}
	return uint64(n)
}

func (m x86) refs(p *program, s *section, lo, hi uint64, want func(uint64) bool, ref func(pc, addr uint64, taken bool)) {
	check := func(at uint64, target uint64) {
		f := p.find(at)
		if f == nil {
			ref(at, target, true)
			return
		}
		p.decode(f)
		for i := range f.code {
			x := &f.code[i]
			if x.pc > at || i+1 < len(f.code) && f.code[i+1].pc <= at && f.code[i+1].pc != x.pc {
				continue
			}
			for _, o := range [...]operand{x.dst, x.a, x.b} {
				if o.base == noReg && uint64(o.disp) == target && o.kind != unknown {
					ref(x.pc, target, o.kind != mem || o.index != noReg)
				}
			}
		}
	}
	d := s.data
	for i := 1; i+4 <= len(d); i++ {
		n := binary.LittleEndian.Uint32(d[i:])
		if m.mode == 64 && d[i-1]&0xc7 == 0x05 { // relative to the instruction's end; an immediate may stand between
			end := s.addr + uint64(i) + 4 + uint64(int64(int32(n)))
			if end+4 >= lo && end <= hi {
				for _, k := range [...]uint64{0, 1, 2, 4} {
					if want(end + k) {
						check(s.addr+uint64(i), end+k)
					}
				}
			}
		}
		if t := uint64(n); !p.pie && t >= lo && t <= hi && want(t) {
			check(s.addr+uint64(i), t)
		}
	}
}

func (m x86) decode(code []byte, pc uint64) (list []inst, bad uint64, ok bool) {
	list = make([]inst, 0, len(code)/4)
	ok = true
	for len(code) > 0 {
		if n := m.vectorLen(code); n > 0 && n <= len(code) {
			list = append(list, inst{pc: pc, op: opHavoc})
			code, pc = code[n:], pc+uint64(n)
			continue
		}
		x, err := x86asm.Decode(code, m.mode)
		switch {
		case len(code) >= 4 && string(code[:3]) == "\xf3\x0f\x1e" && code[3]&0xfe == 0xfa: // ENDBR, unknown to x86asm
			list = append(list, inst{pc: pc, op: opSet})
			x.Len = 4
		case err == nil && x.Len > 0 && x.Len <= len(code):
			list = m.translate(list, x, pc)
		default:
			if ok {
				bad, ok = pc, false
			}
			list = append(list, inst{pc: pc, op: opUnknown})
			x.Len = 1
		}
		code, pc = code[x.Len:], pc+uint64(x.Len)
	}
	return list, bad, ok
}

// vectorLen gives the length of an instruction with a VEX or EVEX prefix, or ADCX or ADOX; 0 if it is another one.
// x86asm does not know some of them and is wrong about the length of others (VZEROUPPER); what they do does not
// matter here.
func (m x86) vectorLen(code []byte) int {
	n := 0
	for n < len(code) && (code[n] == 0x67 || code[n]&0xfe == 0x64 || code[n]&0xe7 == 0x26) {
		n++
	}
	if n+7 < len(code) && (code[n] == 0x66 || code[n] == 0xf3) {
		i := n + 1
		if m.mode == 64 && code[i]&0xf0 == 0x40 {
			i++
		}
		if string(code[i:i+3]) == "\x0f\x38\xf6" {
			return i + 3 + m.modRMLen(code[i+3:])
		}
		return 0
	}
	if n+6 > len(code) {
		code = append(slices.Clip(code), make([]byte, 6)...)
	}
	prefix, next := code[n], code[n+1]
	if m.mode == 32 && next < 0xc0 {
		return 0 // LES, LDS, BOUND
	}
	var opMap byte
	switch prefix {
	case 0xc5:
		opMap, n = 1, n+2
	case 0xc4:
		opMap, n = next&0x1f, n+3
	case 0x62:
		opMap, n = next&7, n+4
	default:
		return 0
	}
	opcode := code[n]
	n++
	if opMap == 1 && opcode == 0x77 && prefix != 0x62 {
		return n // VZEROUPPER, VZEROALL
	}
	if n+2 > len(code) {
		return 0
	}
	n += m.modRMLen(code[n:])
	if opMap == 3 || opMap == 1 && (opcode >= 0x70 && opcode <= 0x73 || opcode == 0xc2 || opcode >= 0xc4 && opcode <= 0xc6) {
		n++
	}
	return n
}

// modRMLen gives the length of the operand part that begins with a ModRM byte; code has two bytes at least.
func (x86) modRMLen(code []byte) int {
	mod, rm, n := code[0]>>6, code[0]&7, 1
	if mod != 3 && rm == 4 {
		rm, n = code[1]&7, 2
	}
	switch {
	case mod == 1:
		n++
	case mod == 2, mod == 0 && rm == 5:
		n += 4
	}
	return n
}

// gpr gives the general register that r is, or is a part of.
func gpr(r x86asm.Reg) (n int8, whole, ok bool) {
	switch {
	case r >= x86asm.RAX && r <= x86asm.R15:
		return int8(r - x86asm.RAX), true, true
	case r >= x86asm.EAX && r <= x86asm.R15L:
		return int8(r - x86asm.EAX), true, true
	case r >= x86asm.AX && r <= x86asm.R15W:
		return int8(r - x86asm.AX), false, true
	case r >= x86asm.AL && r <= x86asm.BL:
		return int8(r - x86asm.AL), false, true
	case r >= x86asm.AH && r <= x86asm.BH:
		return int8(r - x86asm.AH), false, true
	case r >= x86asm.SPB && r <= x86asm.R15B:
		return int8(r-x86asm.SPB) + 4, false, true
	}
	return noReg, false, false
}

// operand translates an argument; part is set if it is a part of a register or no general register.
func (m x86) operand(x *x86asm.Inst, arg x86asm.Arg, pc uint64) (o operand, part bool) {
	switch v := arg.(type) {
	case x86asm.Imm:
		return immOp(int64(v)), false
	case x86asm.Reg:
		n, whole, ok := gpr(v)
		if !ok {
			return operand{}, true
		}
		return regOp(n), !whole
	case x86asm.Mem:
		if v.Segment == x86asm.FS || v.Segment == x86asm.GS {
			return operand{}, true // thread-local
		}
		o := memOp(noReg, v.Disp, uint8(x.MemBytes))
		if v.Base == x86asm.RIP {
			o.disp += int64(pc) + int64(x.Len)
		} else if v.Base != 0 {
			o.base, _, _ = gpr(v.Base)
		}
		if v.Index != 0 {
			o.index, _, _ = gpr(v.Index)
		}
		if o.base == noReg && m.mode == 32 {
			o.disp = int64(uint32(o.disp))
		}
		return o, false
	}
	return operand{}, true
}

// translate appends the steps of x.
func (m x86) translate(list []inst, x x86asm.Inst, pc uint64) []inst {
	word := int64(m.mode / 8)
	sp := regOp(rsp)
	dst, dstPart := m.operand(&x, x.Args[0], pc)
	src, srcPart := m.operand(&x, x.Args[1], pc)
	if srcPart {
		src = operand{}
	}
	emit := func(i inst) { i.pc = pc; list = append(list, i) }
	lose := func(regs ...int8) {
		for _, r := range regs {
			emit(inst{op: opSet, dst: regOp(r)})
		}
	}
	// set writes to the destination; what goes to a part of a register makes the whole unknown.
	set := func(o op, a, b operand) {
		if dst.kind != reg && dst.kind != mem {
			return
		}
		if dstPart {
			o, a, b = opSet, operand{}, operand{}
		}
		emit(inst{op: o, dst: dst, a: a, b: b})
	}
	rel := func() (uint64, bool) {
		r, ok := x.Args[0].(x86asm.Rel)
		return m.wrap(int64(pc) + int64(x.Len) + int64(r)), ok
	}
	switch x.Op {
	case x86asm.SYSCALL, x86asm.SYSENTER, x86asm.INT:
		abi := ABIX86
		if x.Op == x86asm.SYSCALL {
			abi = m.abi()
		}
		if x.Op == x86asm.INT && x.Args[0] != x86asm.Imm(0x80) && x.Args[0] != x86asm.Imm(-0x80) {
			emit(inst{op: opStop})
			break
		}
		emit(inst{op: opTrap, abi: abi, a: regOp(rax)})
	case x86asm.RET, x86asm.LRET, x86asm.UD1, x86asm.UD2, x86asm.HLT, x86asm.IRET, x86asm.IRETD, x86asm.IRETQ:
		emit(inst{op: opStop})
	case x86asm.JMP:
		if t, ok := rel(); ok {
			emit(inst{op: opJump, target: t})
		} else {
			emit(inst{op: opJumpTo, a: dst})
		}
	case x86asm.CALL:
		if t, ok := rel(); ok {
			emit(inst{op: opCall, target: t})
		} else if v, ok := x.Args[0].(x86asm.Mem); ok && m.mode == 32 && v.Segment == x86asm.GS && v.Disp == 0x10 && v.Base == 0 {
			emit(inst{op: opTrap, abi: ABIX86, a: regOp(rax)})
		} else {
			emit(inst{op: opCallTo, a: dst})
		}
	case x86asm.LCALL:
		emit(inst{op: opCallTo})
	case x86asm.LJMP:
		emit(inst{op: opJumpTo})
	case x86asm.LOOP, x86asm.LOOPE, x86asm.LOOPNE:
		lose(rcx)
		fallthrough
	case x86asm.JA, x86asm.JAE, x86asm.JB, x86asm.JBE, x86asm.JCXZ, x86asm.JE, x86asm.JECXZ, x86asm.JG, x86asm.JGE,
		x86asm.JL, x86asm.JLE, x86asm.JNE, x86asm.JNO, x86asm.JNP, x86asm.JNS, x86asm.JO, x86asm.JP, x86asm.JRCXZ, x86asm.JS:
		t, _ := rel()
		emit(inst{op: opBranch, target: t})
	case x86asm.MOV, x86asm.MOVNTI:
		if dst.kind == mem && dst.size < 4 {
			src = operand{}
		}
		set(opSet, src, operand{})
	case x86asm.MOVSXD:
		set(opSet, src, operand{})
	case x86asm.LEA:
		if src.kind == mem {
			src.kind = addr
		}
		set(opSet, src, operand{})
	case x86asm.XOR, x86asm.SUB, x86asm.ADD, x86asm.INC, x86asm.DEC:
		o, a, b := opSet, operand{}, operand{}
		switch same := x.Args[0] == x.Args[1] && dst.kind == reg; {
		case same && x.Op != x86asm.ADD && !dstPart:
			a = immOp(0)
		case x.Op == x86asm.INC && dst.kind == reg:
			o, a, b = opAdd, dst, immOp(1)
		case x.Op == x86asm.DEC && dst.kind == reg:
			o, a, b = opAdd, dst, immOp(-1)
		case x.Op == x86asm.ADD && dst.kind == reg && src.kind != unknown:
			o, a, b = opAdd, dst, src
		case x.Op == x86asm.SUB && dst.kind == reg && src.kind != unknown:
			o, a, b = opSub, dst, src
		}
		set(o, a, b)
	case x86asm.PUSH:
		if dstPart {
			dst = operand{}
		}
		emit(inst{op: opSet, dst: memOp(rsp, -word, uint8(word)), a: dst})
		emit(inst{op: opAdd, dst: sp, a: sp, b: immOp(-word)})
	case x86asm.POP:
		set(opSet, memOp(rsp, 0, uint8(word)), operand{})
		emit(inst{op: opAdd, dst: sp, a: sp, b: immOp(word)})
	case x86asm.PUSHF, x86asm.PUSHFD, x86asm.PUSHFQ:
		emit(inst{op: opSet, dst: memOp(rsp, -word, uint8(word))})
		emit(inst{op: opAdd, dst: sp, a: sp, b: immOp(-word)})
	case x86asm.POPF, x86asm.POPFD, x86asm.POPFQ:
		emit(inst{op: opAdd, dst: sp, a: sp, b: immOp(word)})
	case x86asm.PUSHA, x86asm.PUSHAD, x86asm.POPA, x86asm.POPAD, x86asm.ENTER:
		lose(rsp)
		emit(inst{op: opHavoc})
	case x86asm.LEAVE:
		emit(inst{op: opAdd, dst: sp, a: regOp(rbp), b: immOp(word)})
		emit(inst{op: opSet, dst: regOp(rbp), a: memOp(rsp, -word, uint8(word))})
	case x86asm.CMOVA, x86asm.CMOVAE, x86asm.CMOVB, x86asm.CMOVBE, x86asm.CMOVE, x86asm.CMOVG, x86asm.CMOVGE, x86asm.CMOVL,
		x86asm.CMOVLE, x86asm.CMOVNE, x86asm.CMOVNO, x86asm.CMOVNP, x86asm.CMOVNS, x86asm.CMOVO, x86asm.CMOVP, x86asm.CMOVS:
		set(opJoin, src, operand{})
	case x86asm.XCHG, x86asm.XADD:
		if x.Args[0] == x.Args[1] { // a NOP
			break
		}
		set(opSet, operand{}, operand{})
		if n, _, ok := gpr(asReg(x.Args[1])); ok {
			lose(n)
		}
	case x86asm.CMPXCHG:
		lose(rax)
		set(opSet, operand{}, operand{})
	case x86asm.CMPXCHG8B, x86asm.CMPXCHG16B:
		lose(rax, rdx)
		set(opSet, operand{}, operand{})
	case x86asm.CPUID:
		lose(rax, rcx, rdx, rbx)
	case x86asm.RDTSC, x86asm.RDTSCP, x86asm.XGETBV, x86asm.RDPMC, x86asm.RDMSR:
		lose(rax, rcx, rdx)
	case x86asm.MUL, x86asm.DIV, x86asm.IDIV:
		lose(rax, rdx)
	case x86asm.IMUL:
		if x.Args[1] == nil {
			lose(rax, rdx)
		} else {
			set(opSet, operand{}, operand{})
		}
	case x86asm.CDQ, x86asm.CQO, x86asm.CWD:
		lose(rdx)
	case x86asm.CBW, x86asm.CWDE, x86asm.CDQE, x86asm.LAHF, x86asm.XLATB:
		lose(rax)
	case x86asm.STOSB, x86asm.STOSW, x86asm.STOSD, x86asm.STOSQ, x86asm.MOVSB, x86asm.MOVSW, x86asm.MOVSD, x86asm.MOVSQ,
		x86asm.LODSB, x86asm.LODSW, x86asm.LODSD, x86asm.LODSQ, x86asm.SCASB, x86asm.SCASW, x86asm.SCASD, x86asm.SCASQ,
		x86asm.CMPSB, x86asm.CMPSW, x86asm.CMPSD, x86asm.CMPSQ, x86asm.INSB, x86asm.INSW, x86asm.INSD:
		lose(rax, rcx, rsi, rdi)
		emit(inst{op: opWrite})
	case x86asm.XSAVE, x86asm.XSAVEC, x86asm.XSAVEC64, x86asm.XSAVEOPT, x86asm.FXSAVE, x86asm.FXSAVE64, x86asm.FNSAVE:
		emit(inst{op: opWrite})
		emit(inst{op: opHavoc})
	case x86asm.CMP, x86asm.TEST, x86asm.BT, x86asm.NOP:
	default:
		set(opSet, operand{}, operand{})
	}
	if n := len(list); n == 0 || list[n-1].pc != pc {
		emit(inst{op: opSet}) // nothing happens, but one can jump here
	}
	return list
}

func asReg(a x86asm.Arg) x86asm.Reg {
	r, _ := a.(x86asm.Reg)
	return r
}
