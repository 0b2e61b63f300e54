package profile

import (
	"fmt"
	"slices"

	"github.com/elastic/go-seccomp-bpf/arch"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// tables maps the ABIs that can be recorded to their numbers and names, in the order in which they are printed.
var tables = []struct {
	abi  specs.Arch
	info *arch.Info
}{
	{specs.ArchX86_64, arch.X86_64},
	{specs.ArchX86, arch.I386},
	{specs.ArchX32, arch.X32},
	{specs.ArchAARCH64, arch.AARCH64},
	{specs.ArchARM, arch.ARM},
}

// newer holds the calls that the library's tables do not have yet. Numbers from 424 on are the same on every ABI.
// Source: golang.org/x/sys/unix v0.49.0, zsysnum_linux_*.go.
var newer = map[uint32]string{
	468: "file_getattr",
	469: "file_setattr",
	470: "listns",
	471: "rseq_slice_yield",
}

// ABIs returns the ABIs whose calls have names here, in the order in which profiles list them.
func ABIs() []specs.Arch {
	var abis []specs.Arch
	for _, t := range tables {
		abis = append(abis, t.abi)
	}
	return abis
}

func table(abi specs.Arch) *arch.Info {
	for _, t := range tables {
		if t.abi == abi {
			return t.info
		}
	}
	return nil
}

// Name returns the name of call nr of an ABI, or "" if nobody knows one. x32 numbers come without their bit 30.
func Name(abi specs.Arch, nr uint32) string {
	t := table(abi)
	if t == nil {
		return ""
	}
	if name, ok := t.SyscallNumbers[int(nr)]; ok {
		return name
	}
	return newer[nr]
}

// Number returns the number of the named call of an ABI, and whether that ABI has it.
func Number(abi specs.Arch, name string) (uint32, bool) {
	t := table(abi)
	if t == nil {
		return 0, false
	}
	if nr, ok := t.SyscallNames[name]; ok {
		return uint32(nr), true
	}
	for nr, n := range newer {
		if n == name {
			return nr, true
		}
	}
	return 0, false
}

func abiOrder(abi specs.Arch) int {
	return slices.IndexFunc(tables, func(t struct {
		abi  specs.Arch
		info *arch.Info
	},
	) bool {
		return t.abi == abi
	})
}

// label names a call for people, also one without a name.
func label(abi specs.Arch, nr uint32) string {
	if name := Name(abi, nr); name != "" {
		return name
	}
	return fmt.Sprintf("number %d", nr)
}
