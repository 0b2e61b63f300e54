package scmp

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/profile"
)

// Line is one instruction of a filter in words. Jumps go to line numbers.
type Line struct {
	Nr   int    `json:"nr"`
	Raw  string `json:"raw"` // code, jt, jf, k
	Text string `json:"text"`
	Note string `json:"note,omitempty"` // the ABIs and the call that can come here
}

// Disassemble puts a filter into words. It follows what the accumulator holds and which ABIs can reach an instruction, so
// that numbers get the names that they have there.
func Disassemble(program []unix.SockFilter) []Line {
	states := make([]state, len(program)+1)
	states[0] = state{reached: true, abis: append(profile.ABIs(), otherABIs)}
	var lines []Line
	for i, ins := range program {
		s := &states[i]
		text, note := s.words(ins, i)
		lines = append(lines, Line{i, fmt.Sprintf("%#06x %d %d %#x", ins.Code, ins.Jt, ins.Jf, ins.K), text, note})
		s.flow(ins, i, states)
	}
	return lines
}

// otherABIs stands for all ABIs that have no names here.
const otherABIs specs.Arch = "others"

// state is what is known before an instruction.
type state struct {
	reached bool
	acc     string // what the accumulator holds: nr, arch, arg0.low ..., with a mask; empty if not known
	abis    []specs.Arch
	call    string // the call that the number was compared with
}

func (s *state) join(o state) {
	if !s.reached {
		o.abis = slices.Clone(o.abis)
		*s = o
		return
	}
	if s.acc != o.acc {
		s.acc = ""
	}
	if s.call != o.call {
		s.call = ""
	}
	for _, abi := range o.abis {
		if !slices.Contains(s.abis, abi) {
			s.abis = append(s.abis, abi)
		}
	}
	order := append(profile.ABIs(), otherABIs)
	slices.SortFunc(s.abis, func(a, b specs.Arch) int { return cmp.Compare(slices.Index(order, a), slices.Index(order, b)) })
}

// flow gives the state after an instruction to those that can follow. Jumps go forward only.
func (s *state) flow(ins unix.SockFilter, i int, states []state) {
	if !s.reached {
		return
	}
	to := func(target int, o state) {
		if target < len(states) {
			states[target].join(o)
		}
	}
	next := *s
	switch ins.Code & 7 {
	case unix.BPF_RET:
		return
	case unix.BPF_LD:
		next.acc = ""
		if ins.Code == unix.BPF_LD|unix.BPF_W|unix.BPF_ABS {
			next.acc = field(ins.K)
		}
	case unix.BPF_ALU:
		if next.acc = ""; ins.Code == unix.BPF_ALU|unix.BPF_AND|unix.BPF_K && s.acc != "" {
			next.acc = fmt.Sprintf("%s & %#x", s.acc, ins.K)
		}
	case unix.BPF_MISC:
		if ins.Code&0xf8 != 0 { // TXA
			next.acc = ""
		}
	case unix.BPF_JMP:
		if ins.Code&0xf0 == unix.BPF_JA {
			to(i+1+int(ins.K), next)
			return
		}
		yes, no := s.branch(ins)
		to(i+1+int(ins.Jt), yes)
		to(i+1+int(ins.Jf), no)
		return
	}
	to(i+1, next)
}

// branch narrows the ABIs and the call down.
func (s *state) branch(ins unix.SockFilter) (yes, no state) {
	yes, no = *s, *s
	op := ins.Code & 0xf0
	x32 := func(abi specs.Arch) bool { return abi == specs.ArchX32 }
	x64 := func(abi specs.Arch) bool { return abi == specs.ArchX86_64 }
	switch {
	case s.acc == "arch" && op == unix.BPF_JEQ:
		is := func(abi specs.Arch) bool {
			audit, ok := profile.AuditArch(abi)
			return ok && audit == ins.K
		}
		yes.abis = slices.DeleteFunc(slices.Clone(s.abis), func(abi specs.Arch) bool { return !is(abi) })
		no.abis = slices.DeleteFunc(slices.Clone(s.abis), is)
		if len(yes.abis) == 0 {
			yes.abis = []specs.Arch{otherABIs}
		}
	case s.acc == "nr" && ins.K == x32Bit && (op == unix.BPF_JGE || op == unix.BPF_JSET):
		yes.abis = slices.DeleteFunc(slices.Clone(s.abis), x64)
		no.abis = slices.DeleteFunc(slices.Clone(s.abis), x32)
	case s.acc == "nr" && op == unix.BPF_JEQ && ins.K == 1<<32-1: // what a tracer sets to skip a call
		yes.abis = nil
	case s.acc == "nr" && op == unix.BPF_JEQ:
		yes.call = s.name(ins.K)
	}
	return yes, no
}

// name names a number on the ABIs that can come here.
func (s *state) name(nr uint32) string {
	byName := map[string][]string{}
	var order []string
	for _, abi := range profile.ABIs() {
		n := nr
		if abi == specs.ArchX32 {
			if nr&x32Bit == 0 {
				continue
			}
			n &^= x32Bit
		}
		name := profile.Name(abi, n)
		if name == "" || !slices.Contains(s.abis, abi) {
			continue
		}
		if byName[name] == nil {
			order = append(order, name)
		}
		byName[name] = append(byName[name], short(abi))
	}
	if len(order) == 1 {
		return order[0]
	}
	for i, name := range order {
		order[i] = strings.Join(byName[name], "/") + " " + name
	}
	return strings.Join(order, ", ")
}

func short(abi specs.Arch) string { return strings.TrimPrefix(string(abi), "SCMP_ARCH_") }

// field names a word of struct seccomp_data.
func field(offset uint32) string {
	switch {
	case offset == offsetNr:
		return "nr"
	case offset == offsetArch:
		return "arch"
	case offset == 8 || offset == 12:
		return "ip." + half(offset)
	case offset < offsetArgs+6*8:
		return fmt.Sprintf("arg%d.%s", (offset-offsetArgs)/8, half(offset))
	}
	return ""
}

func half(offset uint32) string {
	if (offset%8 == 0) == bigEndian {
		return "high"
	}
	return "low"
}

var comparisons = map[uint16]string{unix.BPF_JEQ: "==", unix.BPF_JGT: ">", unix.BPF_JGE: ">=", unix.BPF_JSET: "&"}

func (s *state) words(ins unix.SockFilter, i int) (text, note string) {
	if !s.reached {
		note = "never reached"
	} else if len(s.abis) <= len(profile.ABIs()) {
		var abis []string
		for _, abi := range s.abis {
			abis = append(abis, short(abi))
		}
		note = strings.TrimSpace(strings.Join(abis, " ") + " " + s.call)
	}
	switch {
	case ins.Code == unix.BPF_LD|unix.BPF_W|unix.BPF_ABS && field(ins.K) != "":
		return "load " + field(ins.K), note
	case ins.Code == unix.BPF_ALU|unix.BPF_AND|unix.BPF_K:
		return fmt.Sprintf("and %#x", ins.K), note
	case ins.Code == unix.BPF_RET|unix.BPF_K:
		return "return " + Returned(ins.K), note
	case ins.Code == unix.BPF_JMP|unix.BPF_JA:
		return fmt.Sprintf("goto %d", i+1+int(ins.K)), note
	case ins.Code&7 == unix.BPF_JMP && ins.Code&unix.BPF_X == 0 && comparisons[ins.Code&0xf0] != "":
		value := fmt.Sprintf("%#x", ins.K)
		switch {
		case s.acc == "arch":
			for _, abi := range profile.ABIs() {
				if audit, _ := profile.AuditArch(abi); audit == ins.K {
					value = string(abi)
					break
				}
			}
		case s.acc == "nr" && ins.K != x32Bit:
			value = strings.TrimSpace(fmt.Sprintf("%d %s", int32(ins.K), s.name(ins.K)))
		}
		left := s.acc
		if left == "" {
			left = "A"
		}
		return fmt.Sprintf("if %s %s %s goto %d else %d", left, comparisons[ins.Code&0xf0], value, i+1+int(ins.Jt), i+1+int(ins.Jf)), note
	}
	return fmt.Sprintf("code %#x jt %d jf %d k %#x", ins.Code, ins.Jt, ins.Jf, ins.K), note
}
