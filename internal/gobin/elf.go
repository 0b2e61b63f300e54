package gobin

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"sort"
	"strings"
)

// maxFileSize bounds what is read into memory; the largest Go programs known have a few hundred megabytes.
const maxFileSize = 2 << 30

// section is one loaded part of the file as it stands in memory, relocations applied.
type section struct {
	name  string
	addr  uint64
	data  []byte
	size  uint64 // at least len(data); more for .bss
	exec  bool
	write bool
}

func (s *section) contains(addr uint64) bool { return addr >= s.addr && addr-s.addr < s.size }

// fn is a function of the binary.
type fn struct {
	name       string
	addr, end  uint64
	args       int64 // bytes of stack arguments, results and spill space; argsUnknown if not known
	foreign    bool  // not in Go's function table: C
	noReturn   bool
	moreStack  bool
	code       []inst
	undecoded  uint64   // first address that could not be decoded
	traps      []uint64 // addresses of its instructions that enter the kernel
	*flowState          // what the flow analysis knows; nil until it looks at the function
}

// argsUnknown is internal/abi.ArgsSizeUnknown: an assembly function without a Go prototype.
const argsUnknown = -0x80000000

// program is a Go binary laid open.
type program struct {
	isa      isa
	ptr      int64 // size of a pointer
	pie      bool
	text     uint64 // runtime.text: what offsets in the function table count from
	sections []*section
	fns      []*fn        // sorted by address
	syms     []elf.Symbol // none in a stripped binary
	relocs   []reloc
	exact    bool // relocs lists all addresses in the data

	interpreter string // the program that loads it
	libraries   bool   // it wants shared libraries
}

// reloc says that the dynamic linker writes the address value to at.
type reloc struct{ at, value uint64 }

// open reads an ELF file far enough to analyze it.
func open(path string) (*program, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return read(f)
}

func read(f *os.File) (*program, error) {
	if st, err := f.Stat(); err != nil {
		return nil, err
	} else if st.Size() > maxFileSize {
		return nil, fmt.Errorf("%d bytes are too large: %w", st.Size(), errors.ErrUnsupported)
	}
	ef, err := elf.NewFile(f)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotGo, err)
	}
	defer ef.Close()
	return newProgram(ef)
}

func newProgram(ef *elf.File) (*program, error) {
	p := &program{ptr: 8, pie: ef.Type == elf.ET_DYN}
	switch {
	case ef.ByteOrder != binary.LittleEndian:
		return nil, fmt.Errorf("big-endian %v: %w", ef.Machine, errors.ErrUnsupported)
	case ef.Machine == elf.EM_X86_64 && ef.Class == elf.ELFCLASS64:
		p.isa = x86{mode: 64}
	case ef.Machine == elf.EM_386 && ef.Class == elf.ELFCLASS32:
		if p.pie {
			// Its code makes addresses from a program counter got by a call, which the analysis does not follow.
			return nil, fmt.Errorf("position-independent 386 code: %w", errors.ErrUnsupported)
		}
		p.isa, p.ptr = x86{mode: 32}, 4
	case ef.Machine == elf.EM_AARCH64 && ef.Class == elf.ELFCLASS64:
		p.isa = arm64{}
	default:
		return nil, fmt.Errorf("machine %v: %w", ef.Machine, errors.ErrUnsupported)
	}
	for _, prog := range ef.Progs {
		if prog.Type == elf.PT_INTERP {
			path := make([]byte, min(prog.Filesz, 4096))
			if _, err := prog.ReadAt(path, 0); err != nil {
				return nil, fmt.Errorf("read the interpreter's path: %w", err)
			}
			p.interpreter = string(bytes.TrimRight(path, "\x00"))
		}
	}
	libraries, err := ef.ImportedLibraries()
	p.libraries = err == nil && len(libraries) > 0
	var pcln *section
	for _, s := range ef.Sections {
		if s.Flags&elf.SHF_ALLOC == 0 || s.Flags&elf.SHF_TLS != 0 || s.Size == 0 {
			continue
		}
		if s.Addr+s.Size < s.Addr {
			return nil, fmt.Errorf("section %s: bounds overflow", s.Name)
		}
		sec := &section{
			name: s.Name, addr: s.Addr, size: s.Size,
			exec: s.Flags&elf.SHF_EXECINSTR != 0, write: s.Flags&elf.SHF_WRITE != 0 && !strings.HasPrefix(s.Name, ".data.rel.ro"),
		}
		if s.Type != elf.SHT_NOBITS {
			data, err := s.Data()
			if err != nil {
				return nil, fmt.Errorf("read section %s: %w", s.Name, err)
			}
			sec.data = data
		}
		if sec.exec && uint64(len(sec.data)) > math.MaxInt32 {
			return nil, fmt.Errorf("section %s: more than 2 GiB of code: %w", s.Name, errors.ErrUnsupported)
		}
		p.sections = append(p.sections, sec)
		if strings.HasSuffix(s.Name, ".gopclntab") {
			pcln = sec
		}
	}
	if pcln == nil {
		return nil, fmt.Errorf("%w: no .gopclntab section", ErrNotGo)
	}
	p.relocate(ef)
	p.syms, _ = ef.Symbols()
	if err := p.readFuncTable(pcln); err != nil {
		return nil, err
	}
	p.addForeign()
	return p, nil
}

const shtRELR elf.SectionType = 19

// relocate writes the addends of relative relocations where the dynamic linker would.
// 386 keeps them in place already.
func (p *program) relocate(ef *elf.File) {
	packed := false
	for _, s := range ef.Sections {
		if s.Type == shtRELR { // a packed form, with the addends in place
			packed = true
		}
		if s.Type != elf.SHT_RELA || s.Flags&elf.SHF_ALLOC == 0 {
			continue
		}
		data, err := s.Data()
		if err != nil {
			continue
		}
		for ; len(data) >= 24; data = data[24:] {
			addr, addend := binary.LittleEndian.Uint64(data), binary.LittleEndian.Uint64(data[16:])
			typ := uint32(binary.LittleEndian.Uint64(data[8:]))
			if typ != uint32(elf.R_X86_64_RELATIVE) && typ != uint32(elf.R_AARCH64_RELATIVE) {
				continue
			}
			if sec := p.section(addr); sec != nil && uint64(len(sec.data)) >= addr-sec.addr+8 {
				binary.LittleEndian.PutUint64(sec.data[addr-sec.addr:], addend)
				p.relocs = append(p.relocs, reloc{addr, addend})
			}
		}
	}
	p.exact = p.pie && !packed && len(p.relocs) > 0
}

func (p *program) section(addr uint64) *section {
	for _, s := range p.sections {
		if s.contains(addr) {
			return s
		}
	}
	return nil
}

// read gives the value of size bytes at addr and whether the running program can change it.
// Memory without contents in the file (.bss) reads as zero.
func (p *program) read(addr uint64, size int64) (v int64, mutable, ok bool) {
	s := p.section(addr)
	if s == nil || s.exec || !s.contains(addr+uint64(size)-1) {
		return 0, false, false
	}
	off := addr - s.addr
	if off+uint64(size) > uint64(len(s.data)) {
		return 0, true, s.write
	}
	switch size {
	case 4:
		return int64(binary.LittleEndian.Uint32(s.data[off:])), s.write, true
	case 8:
		return int64(binary.LittleEndian.Uint64(s.data[off:])), s.write, true
	}
	return 0, false, false
}

// variable gives the bounds of the variable that addr is in; ok is false if no symbol tells them.
func (p *program) variable(addr uint64) (start, end uint64, ok bool) {
	for _, s := range p.syms {
		if elf.ST_TYPE(s.Info) == elf.STT_OBJECT && s.Value <= addr && addr-s.Value < s.Size {
			return s.Value, s.Value + s.Size, true
		}
	}
	return 0, 0, false
}

// find gives the function that contains addr, or nil.
func (p *program) find(addr uint64) *fn {
	i := sort.Search(len(p.fns), func(i int) bool { return p.fns[i].addr > addr }) - 1
	if i >= 0 && addr < p.fns[i].end {
		return p.fns[i]
	}
	return nil
}

// at gives the function that begins at addr, or nil.
func (p *program) at(addr uint64) *fn {
	if f := p.find(addr); f != nil && f.addr == addr {
		return f
	}
	return nil
}

// bytes gives the machine code of f.
func (p *program) bytes(f *fn) []byte {
	s := p.section(f.addr)
	if s == nil || f.addr-s.addr >= uint64(len(s.data)) {
		return nil
	}
	return s.data[f.addr-s.addr : min(f.end-s.addr, uint64(len(s.data)))]
}

// The header of the function table since Go 1.18 and since Go 1.20; the parts read here are the same in both.
const (
	pclnMagic118 = 0xfffffff0
	pclnMagic120 = 0xfffffff1
)

// readFuncTable reads names and bounds of all Go functions from the table that the runtime itself uses for its
// stack traces, so that it is there in stripped binaries too.
func (p *program) readFuncTable(pcln *section) error {
	d := pcln.data
	bad := func(what string) error { return fmt.Errorf("function table: %s", what) }
	word := func(i int64) uint64 {
		if p.ptr == 4 {
			return uint64(binary.LittleEndian.Uint32(d[8+4*i:]))
		}
		return binary.LittleEndian.Uint64(d[8+8*i:])
	}
	if int64(len(d)) < 8+8*p.ptr {
		return bad("too short")
	}
	if magic := binary.LittleEndian.Uint32(d); magic != pclnMagic118 && magic != pclnMagic120 {
		return fmt.Errorf("function table: unknown format %#x (older than go1.18?): %w", magic, errors.ErrUnsupported)
	}
	if int64(d[7]) != p.ptr {
		return bad("pointer size differs from the machine's")
	}
	n, names, table := word(0), word(3), word(7)
	size := uint64(len(d))
	if names > size || table > size || n == 0 || n > (size-table)/8 || n*8+4 > size-table {
		return bad("offsets out of range")
	}
	nameTab, ftab := d[names:], d[table:]
	u32 := func(off uint64) uint64 { return uint64(binary.LittleEndian.Uint32(ftab[off:])) }
	p.text = p.textStart(pcln)
	p.fns = make([]*fn, 0, n)
	all := make([]fn, n)
	for i := range n {
		entry, end, off := u32(i*8), u32(i*8+8), u32(i*8+4)
		if end < entry {
			return bad("entries are not sorted")
		}
		if off+20 > uint64(len(ftab)) {
			return bad("function data out of range")
		}
		f := &all[i]
		f.addr, f.end = p.text+entry, p.text+end
		f.args = int64(int32(u32(off + 8)))
		if u32(off+16) == 0 { // no table of stack pointers: C that Go's own linker linked in
			f.foreign, f.args = true, argsUnknown
		}
		nameOff := u32(off + 4)
		if nameOff >= uint64(len(nameTab)) {
			return bad("name out of range")
		}
		name := nameTab[nameOff:]
		if j := bytes.IndexByte(name, 0); j >= 0 {
			name = name[:j]
		}
		f.name = string(name)
		if s := p.section(f.addr); f.end <= f.addr || s == nil || !s.exec {
			continue // an empty marker such as runtime.etext
		}
		p.fns = append(p.fns, f)
	}
	if len(p.fns) == 0 {
		return bad("no function lies in the code")
	}
	return nil
}

// textStart finds runtime.text. It is the start of .text, unless C was linked in before; then the symbol table
// knows it, or else the module data: the word that points to the function table, 22 words before text.
func (p *program) textStart(pcln *section) uint64 {
	for _, s := range p.syms {
		if s.Name == "runtime.text" {
			return s.Value
		}
	}
	var text uint64
	for _, s := range p.sections {
		if s.name == ".text" {
			text = s.addr
		}
	}
	const textWord, minpcWord = 22, 20
	for _, s := range p.sections {
		if s.exec || !s.write && s.name != ".go.module" && !strings.HasPrefix(s.name, ".data.rel.ro") {
			continue
		}
		for off := uint64(0); off+(textWord+1)*uint64(p.ptr) <= uint64(len(s.data)); off += uint64(p.ptr) {
			get := func(i uint64) uint64 {
				v, _, _ := p.read(s.addr+off+i*uint64(p.ptr), p.ptr)
				return uint64(v)
			}
			if get(0) != pcln.addr {
				continue
			}
			t, minpc := get(textWord), get(minpcWord)
			if sec := p.section(t); sec != nil && sec.exec && minpc >= t && sec.contains(minpc) {
				return t
			}
		}
	}
	return text
}

// addForeign adds the functions that only the symbol table knows: C, and assembly that C brought along.
func (p *program) addForeign() {
	var add []*fn
	for _, s := range p.syms {
		if elf.ST_TYPE(s.Info) != elf.STT_FUNC || s.Size == 0 || s.Value+s.Size < s.Value || p.find(s.Value) != nil {
			continue
		}
		if sec := p.section(s.Value); sec != nil && sec.exec && sec.contains(s.Value+s.Size-1) {
			add = append(add, &fn{name: s.Name, addr: s.Value, end: s.Value + s.Size, args: argsUnknown, foreign: true})
		}
	}
	p.fns = append(p.fns, add...)
	sort.SliceStable(p.fns, func(i, j int) bool { return p.fns[i].addr < p.fns[j].addr })
	out := p.fns[:0]
	for _, f := range p.fns { // aliases and overlaps: the first one keeps the bytes
		if len(out) > 0 {
			if last := out[len(out)-1]; f.addr < last.end {
				if f.end <= last.end {
					continue
				}
				f.addr = last.end
			}
		}
		out = append(out, f)
	}
	p.fns = out
}
