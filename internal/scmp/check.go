package scmp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	libseccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/profile"
)

// Mismatch is a call that the compiled filter answers otherwise than the profile says.
type Mismatch struct {
	ABI     specs.Arch `json:"abi"`
	Nr      uint32     `json:"nr"`
	Name    string     `json:"name,omitempty"`
	Args    [6]uint64  `json:"args"`
	Profile string     `json:"profile"`
	Filter  string     `json:"filter"`
	Overlap bool       `json:"overlap,omitempty"` // several entries hold, with different answers: the kernel gets the filter's
}

func (m Mismatch) String() string {
	if m.Overlap {
		return fmt.Sprintf("%s %d %s %#x: entries with different actions hold, %s and %s: the kernel gets the second", m.ABI, m.Nr, m.Name, m.Args, m.Profile, m.Filter)
	}
	return fmt.Sprintf("%s %d %s %#x: the profile says %s, the filter %s", m.ABI, m.Nr, m.Name, m.Args, m.Profile, m.Filter)
}

// foreign are ABIs that no profile here can list: a filter must refuse them.
var foreign = map[specs.Arch]uint32{specs.ArchS390X: 0x80000016, specs.ArchRISCV64: 0xc00000f3, specs.ArchPPC64LE: 0xc0000015}

// numbers is how many numbers of every ABI Check asks for: more than any ABI has.
const numbers = 601

// Check compiles a profile as Compile does and runs the filter over all numbers of every ABI, with arguments at and around
// every value that its conditions name. It returns the calls, one for each, that the filter answers otherwise than the
// profile says by name. There are such profiles: libseccomp 2.5.4 shares equal comparisons between calls without loading
// the argument again, so that a filter with several conditions can allow more than it should.
func Check(p *specs.LinuxSeccomp, stub bool) ([]Mismatch, error) {
	program, err := Compile(p, stub)
	if err != nil {
		return nil, err
	}
	vm, err := newMachine(program)
	if err != nil {
		return nil, err
	}
	native, err := Native()
	if err != nil {
		return nil, err
	}
	r := profile.Resolve(known(p), native)
	var wrong []Mismatch
	for _, abi := range slices.Concat(profile.ABIs(), []specs.Arch{specs.ArchPPC64LE, specs.ArchRISCV64, specs.ArchS390X}) {
		audit, ok := profile.AuditArch(abi)
		if !ok {
			audit = foreign[abi]
		}
		top, stubbed, err := highest(p, abi, r)
		if err != nil {
			return nil, err
		}
		for nr := range uint32(numbers) {
			raw := nr
			if abi == specs.ArchX32 {
				raw |= x32Bit
			}
			name := profile.Name(abi, nr)
			for _, args := range vectors(p, name) {
				want := r.Decide(abi, raw, args)
				if stub && stubbed && raw > top {
					want = profile.Verdict{Action: specs.ActErrno, Errno: uint(unix.ENOSYS)}
				}
				got, err := vm.run(audit, raw, args)
				if err != nil {
					return nil, err
				}
				if got != returned(want) {
					wrong = append(wrong, Mismatch{abi, nr, name, args, want.String(), Returned(got), overlap(r.Holding(abi, raw, args), got)})
					break
				}
			}
		}
	}
	return wrong, nil
}

// overlap reports whether what a filter returns is the answer of one of the rules that hold.
func overlap(holding []profile.Verdict, got uint32) bool {
	return slices.ContainsFunc(holding, func(v profile.Verdict) bool { return returned(v) == got })
}

// machine runs a filter without a kernel.
type machine struct{ vm *bpf.VM }

func newMachine(program []unix.SockFilter) (machine, error) {
	var raw []bpf.RawInstruction
	for _, i := range program {
		raw = append(raw, bpf.RawInstruction{Op: i.Code, Jt: i.Jt, Jf: i.Jf, K: i.K})
	}
	instructions, ok := bpf.Disassemble(raw)
	if !ok {
		return machine{}, errors.New("the filter has instructions that are not classic BPF")
	}
	vm, err := bpf.NewVM(instructions)
	if err != nil {
		return machine{}, fmt.Errorf("make a machine for the filter: %w", err)
	}
	return machine{vm}, nil
}

// run evaluates the filter on a struct seccomp_data. The machine loads words big-endian, the kernel as the host has them.
func (m machine) run(audit, nr uint32, args [6]uint64) (uint32, error) {
	data := make([]byte, offsetArgs+8*len(args))
	binary.BigEndian.PutUint32(data[offsetNr:], nr)
	binary.BigEndian.PutUint32(data[offsetArch:], audit)
	for i, a := range args {
		first, second := uint32(a), uint32(a>>32)
		if bigEndian {
			first, second = second, first
		}
		binary.BigEndian.PutUint32(data[offsetArgs+8*i:], first)
		binary.BigEndian.PutUint32(data[offsetArgs+8*i+4:], second)
	}
	v, err := m.vm.Run(data)
	if err != nil {
		return 0, fmt.Errorf("run the filter on call %d: %w", nr, err)
	}
	return uint32(v), nil
}

var bigEndian = binary.NativeEndian.Uint16([]byte{0, 1}) == 1

// returned is a verdict as a filter returns it.
func returned(v profile.Verdict) uint32 {
	data := uint32(v.Errno) & unix.SECCOMP_RET_DATA
	switch v.Action {
	case specs.ActKillProcess:
		return unix.SECCOMP_RET_KILL_PROCESS
	case specs.ActTrap:
		return unix.SECCOMP_RET_TRAP
	case specs.ActErrno:
		return unix.SECCOMP_RET_ERRNO | data
	case specs.ActTrace:
		return unix.SECCOMP_RET_TRACE | data
	case specs.ActAllow:
		return unix.SECCOMP_RET_ALLOW
	case specs.ActLog:
		return unix.SECCOMP_RET_LOG
	case specs.ActNotify:
		return unix.SECCOMP_RET_USER_NOTIF
	}
	return unix.SECCOMP_RET_KILL_THREAD
}

// Returned prints what a filter returns.
func Returned(v uint32) string {
	data := uint(v & unix.SECCOMP_RET_DATA)
	action, ok := map[uint32]specs.LinuxSeccompAction{
		unix.SECCOMP_RET_KILL_PROCESS: specs.ActKillProcess, unix.SECCOMP_RET_KILL_THREAD: specs.ActKillThread, unix.SECCOMP_RET_TRAP: specs.ActTrap,
		unix.SECCOMP_RET_ERRNO: specs.ActErrno, unix.SECCOMP_RET_TRACE: specs.ActTrace, unix.SECCOMP_RET_ALLOW: specs.ActAllow,
		unix.SECCOMP_RET_LOG: specs.ActLog, unix.SECCOMP_RET_USER_NOTIF: specs.ActNotify,
	}[v&unix.SECCOMP_RET_ACTION_FULL]
	if !ok {
		return fmt.Sprintf("%#x", v)
	}
	return profile.Verdict{Action: action, Errno: data}.String()
}

// known leaves out the names that this libseccomp does not know, as runtimes do.
func known(p *specs.LinuxSeccomp) *specs.LinuxSeccomp {
	k := *p
	k.Syscalls = nil
	for _, s := range p.Syscalls {
		s.Names = slices.DeleteFunc(slices.Clone(s.Names), func(name string) bool {
			_, err := libseccomp.GetSyscallFromName(name)
			return err != nil
		})
		k.Syscalls = append(k.Syscalls, s)
	}
	return &k
}

// highest returns the highest number that the profile lists on an ABI, as libseccomp counts, and whether runc answers
// ENOSYS above it.
func highest(p *specs.LinuxSeccomp, abi specs.Arch, r *profile.Resolved) (uint32, bool, error) {
	if !slices.Contains(r.ABIs, abi) || permissive(p.DefaultAction) {
		return 0, false, nil
	}
	top, err := topNumber(p, abi)
	return uint32(top), top != 0, err
}

// topNumber is the highest number that libseccomp knows for the names of a profile.
func topNumber(p *specs.LinuxSeccomp, abi specs.Arch) (libseccomp.ScmpSyscall, error) {
	arch, err := scmpArch(abi)
	if err != nil {
		return 0, err
	}
	var top libseccomp.ScmpSyscall
	for _, s := range p.Syscalls {
		for _, name := range s.Names {
			if nr, err := libseccomp.GetSyscallFromNameByArch(name, arch); err == nil {
				top = max(top, nr)
			}
		}
	}
	return top, nil
}

// maxVectors bounds the combinations of arguments that one call is tried with.
const maxVectors = 1 << 14

// vectors returns arguments at and around every value that the profile's conditions name, for the calls that have some, and
// for the calls through which i386 makes them.
func vectors(p *specs.LinuxSeccomp, name string) [][6]uint64 {
	all := [][6]uint64{{}, {1, 1, 1, 1, 1, 1}}
	if name == "socketcall" || name == "ipc" {
		for call := range uint64(26) {
			for _, rest := range []uint64{0, 1, 2} {
				all = append(all, [6]uint64{call, rest, rest, rest, rest, rest}, [6]uint64{call | 1<<32, rest, 2, rest}, [6]uint64{call, 1, 2})
			}
		}
		return all
	}
	var values [6][]uint64
	for _, s := range p.Syscalls {
		if !slices.Contains(s.Names, name) {
			continue
		}
		for _, a := range s.Args {
			for _, v := range []uint64{a.Value, a.ValueTwo, a.Value | a.ValueTwo} {
				values[a.Index] = append(values[a.Index], v-1, v, v+1, v|1<<32, uint64(int64(int32(v))), ^v, v<<32|v, v^1<<31)
			}
			for m := a.Value; a.Op == specs.OpMaskedEqual && m != 0; m &= m - 1 {
				values[a.Index] = append(values[a.Index], a.ValueTwo^1<<bits.TrailingZeros64(m))
			}
		}
	}
	for i := range values {
		if values[i] == nil {
			continue
		}
		values[i] = append(values[i], 0, 1<<63, 1<<64-1)
		slices.Sort(values[i])
		values[i] = slices.Compact(values[i])
		var more [][6]uint64
		for _, v := range values[i] {
			for _, args := range all[:min(len(all), 1+maxVectors/len(values[i]))] {
				args[i] = v
				more = append(more, args)
			}
		}
		all = more
	}
	return all
}
