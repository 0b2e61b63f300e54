package profile

import (
	"fmt"
	"runtime"
	"slices"
	"sync"

	"github.com/elastic/go-seccomp-bpf/arch"
	"github.com/opencontainers/runtime-spec/specs-go"
)

type abiTable struct {
	abi  specs.Arch
	info *arch.Info
}

// tables maps the ABIs that can be recorded to their numbers and names, in the order in which they are printed. They are made when
// first asked for: most starts of the hook ask for none.
var tables = sync.OnceValue(func() []abiTable {
	return []abiTable{
		{specs.ArchX86_64, arch.X86_64},
		{specs.ArchX86, arch.I386},
		{specs.ArchX32, without(arch.X32, notX32)},
		{specs.ArchAARCH64, renamed(without(arch.AARCH64, notAARCH64), 79, "newfstatat")},
		{specs.ArchARM, arch.ARM},
	}
})

// newer holds the calls that the library's tables do not have yet. Numbers from 424 on are the same on every ABI.
// Source: golang.org/x/sys/unix v0.49.0, zsysnum_linux_*.go.
var newer = map[uint32]string{
	468: "file_getattr",
	469: "file_setattr",
	470: "listns",
	471: "rseq_slice_yield",
}

// notX32 reports numbers that the library lists and x32 does not have: where a call has a number of its own there (512 and
// above), that of x86-64 is not one. Source: the kernel's arch/x86/entry/syscalls/syscall_64.tbl, lines marked "64".
func notX32(nr int) bool {
	return slices.Contains([]int{
		13, 15, 16, 19, 20, 45, 46, 47, 54, 55, 59, 101, 127, 128, 129, 131, 134, 156, 174, 177, 178, 180, 205, 206, 209, 211, 214, 215, 222, 236, 244, 246, 247,
		273, 274, 278, 279, 295, 296, 297, 299, 307, 310, 311, 322, 327, 328, 453,
	}, nr)
}

// notAARCH64 reports the calls with 64-bit times of 32-bit ABIs, which the library lists since they stand in the header that
// arm64 shares, and the number that stands for none. Source: include/uapi/asm-generic/unistd.h, __BITS_PER_LONG == 32 and
// __NR_arch_specific_syscall.
func notAARCH64(nr int) bool { return nr >= 403 && nr <= 423 || nr == 244 }

// renamed gives a call the name that libseccomp has for it: a profile with another one does not allow the call.
// Source: libseccomp 2.6.1, src/syscalls.csv.
func renamed(info *arch.Info, nr int, name string) *arch.Info {
	delete(info.SyscallNames, info.SyscallNumbers[nr])
	info.SyscallNumbers[nr], info.SyscallNames[name] = name, nr
	return info
}

func without(all *arch.Info, not func(int) bool) *arch.Info {
	few := *all
	few.SyscallNumbers, few.SyscallNames = map[int]string{}, map[string]int{}
	for nr, name := range all.SyscallNumbers {
		if !not(nr) {
			few.SyscallNumbers[nr], few.SyscallNames[name] = name, nr
		}
	}
	return &few
}

// ABIs returns the ABIs whose calls have names here, in the order in which profiles list them.
func ABIs() []specs.Arch {
	var abis []specs.Arch
	for _, t := range tables() {
		abis = append(abis, t.abi)
	}
	return abis
}

func table(abi specs.Arch) *arch.Info {
	for _, t := range tables() {
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
	return slices.IndexFunc(tables(), func(t abiTable) bool {
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

// NativeABIs returns the ABIs of this machine's processors, their own one first.
func NativeABIs() []specs.Arch {
	if runtime.GOARCH == "arm64" {
		return []specs.Arch{specs.ArchAARCH64, specs.ArchARM}
	}
	return []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}
}

// AllowAll returns the filter to record under: it allows everything on every ABI, and its installation is the boundary at which
// recording begins.
func AllowAll() *specs.LinuxSeccomp {
	return &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: NativeABIs()}
}
