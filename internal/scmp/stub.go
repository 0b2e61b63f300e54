package scmp

import (
	"fmt"
	"maps"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/profile"
)

// The offsets of struct seccomp_data (include/uapi/linux/seccomp.h).
const (
	offsetNr   = 0
	offsetArch = 4
	offsetArgs = 16
)

// x32Bit is __X32_SYSCALL_BIT.
const x32Bit = 1 << 30

const retEnosys = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)

// enosysStub returns what runc puts before libseccomp's program (libcontainer/seccomp/patchbpf): ENOSYS for numbers above
// the highest one that the profile lists on that ABI, so that a kernel newer than the profile does not answer EPERM. runc
// orders the architectures by chance; here they are sorted. A profile with defaultErrnoRet 38 gets the stub too: runc means
// to leave it out, but compares with the whole return value.
func enosysStub(p *specs.LinuxSeccomp) ([]unix.SockFilter, error) {
	if permissive(p.DefaultAction) {
		return nil, nil
	}
	native, err := Native()
	if err != nil {
		return nil, err
	}
	highest := map[uint32]map[specs.Arch]uint32{} // by AUDIT_ARCH
	for _, name := range append(slices.Clone(p.Architectures), native) {
		top, err := topNumber(p, name)
		if err != nil {
			return nil, err
		}
		if top == 0 {
			continue
		}
		audit, ok := profile.AuditArch(name)
		if !ok {
			return nil, fmt.Errorf("runc's instructions before the filter cannot be made for architecture %s", name)
		}
		if highest[audit] == nil {
			highest[audit] = map[specs.Arch]uint32{}
		}
		highest[audit][name] = uint32(top)
	}
	// A section an architecture: load the number, compare, go on to libseccomp's program. They are laid out from the end,
	// as runc does, since all jumps go there.
	tail := []unix.SockFilter{jump(1), ret(retEnosys)}
	starts := map[uint32]int{} // length of the tail with this section
	audits := slices.Sorted(maps.Keys(highest))
	for _, audit := range audits {
		enosys := uint32(len(tail) - 1)
		section := []unix.SockFilter{load(offsetNr)}
		x64, has64 := highest[audit][specs.ArchX86_64]
		x32, has32 := highest[audit][specs.ArchX32]
		switch {
		case has64 && has32:
			section = append(section,
				test(unix.BPF_JSET, x32Bit, 1, 0),
				test(unix.BPF_JGT, x64, uint8(enosys+2), 1),
				test(unix.BPF_JGT, x32, uint8(enosys+1), 0))
		case has64:
			section = append(section, test(unix.BPF_JSET, x32Bit, 1, 0), test(unix.BPF_JGT, x64, uint8(enosys+1), 0))
		case has32:
			section = append(section, test(unix.BPF_JSET, x32Bit, 0, 1), test(unix.BPF_JGT, x32, uint8(enosys+1), 0))
		default:
			for _, top := range highest[audit] {
				section = append(section, test(unix.BPF_JGT, top, uint8(enosys+1), 0))
			}
		}
		tail = slices.Concat(section, []unix.SockFilter{jump(enosys + 1)}, tail)
		starts[audit] = len(tail)
	}
	tail = append([]unix.SockFilter{jump(uint32(len(tail)))}, tail...)
	for _, audit := range audits {
		tail = append([]unix.SockFilter{test(unix.BPF_JEQ, audit, uint8(len(tail)-starts[audit]), 0)}, tail...)
	}
	return append([]unix.SockFilter{load(offsetArch)}, tail...), nil
}

// permissive tells the default actions for which runc adds nothing: a tracer is taken to know what to do.
func permissive(action specs.LinuxSeccompAction) bool {
	return action == specs.ActAllow || action == specs.ActLog || action == specs.ActTrace
}

func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

func jump(skip uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: skip}
}

func test(op uint16, k uint32, jt, jf uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | op | unix.BPF_K, Jt: jt, Jf: jf, K: k}
}

func ret(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k} }
