package scmp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	libseccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"
)

// treeAbove is the number of rules above which runc asks libseccomp for a binary tree.
const treeAbove = 32

// Compile makes the filter that a runtime loads for a profile, as runc's libcontainer/seccomp does it, up to the load:
// names that this libseccomp does not know and rules that say the same as the default are left out, two conditions on one
// argument are alternatives. With stub, runc's own instructions come first, which answer ENOSYS to numbers above the
// highest listed one; crun has none.
func Compile(p *specs.LinuxSeccomp, stub bool) ([]unix.SockFilter, error) {
	def, err := scmpAction(p.DefaultAction, p.DefaultErrnoRet)
	if err != nil {
		return nil, fmt.Errorf("default action: %w", err)
	}
	if def == libseccomp.ActNotify {
		return nil, errors.New("SCMP_ACT_NOTIFY cannot be the default action: runc refuses it")
	}
	filter, err := libseccomp.NewFilter(def)
	if err != nil {
		return nil, fmt.Errorf("make a filter: %w", err)
	}
	defer filter.Release()
	for _, name := range p.Architectures {
		arch, err := scmpArch(name)
		if err != nil {
			return nil, err
		}
		if err := filter.AddArch(arch); err != nil {
			return nil, fmt.Errorf("add architecture %s: %w", name, err)
		}
	}
	if err := setFlags(filter, p.Flags); err != nil {
		return nil, err
	}
	rules := 0
	for _, s := range p.Syscalls {
		rules += len(s.Names)
	}
	if rules > treeAbove {
		_ = filter.SetOptimize(2) // as runc: an older libseccomp makes a list instead, which means the same
	}
	for _, s := range p.Syscalls {
		action, err := scmpAction(s.Action, s.ErrnoRet)
		if err != nil {
			return nil, fmt.Errorf("call %q: %w", s.Names[0], err)
		}
		for _, name := range s.Names {
			if action == libseccomp.ActNotify && name == "write" {
				return nil, errors.New("SCMP_ACT_NOTIFY cannot be used for write: runc refuses it")
			}
			if action == def {
				continue
			}
			if err := addRule(filter, name, action, s.Args); err != nil {
				return nil, fmt.Errorf("call %q: %w", name, err)
			}
		}
	}
	program, err := export(filter)
	if err != nil {
		return nil, err
	}
	if !stub {
		return program, nil
	}
	head, err := enosysStub(p)
	if err != nil {
		return nil, err
	}
	return append(head, program...), nil
}

// export goes through a file: to memory needs libseccomp 2.6.
func export(filter *libseccomp.ScmpFilter) ([]unix.SockFilter, error) {
	fd, err := unix.MemfdCreate("seccompgen-bpf", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a file in memory for the filter: %w", err)
	}
	f := os.NewFile(uintptr(fd), "filter")
	defer f.Close()
	if err := filter.ExportBPF(f); err != nil {
		return nil, fmt.Errorf("export the filter: %w", err)
	}
	data, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<24))
	if err != nil {
		return nil, fmt.Errorf("read the exported filter: %w", err)
	}
	return Parse(data)
}

// Parse decodes struct sock_filter as the kernel has it.
func Parse(data []byte) ([]unix.SockFilter, error) {
	if len(data) == 0 || len(data)%unix.SizeofSockFilter != 0 {
		return nil, fmt.Errorf("%d bytes are no filter", len(data))
	}
	var program []unix.SockFilter
	for i := range slices.Chunk(data, unix.SizeofSockFilter) {
		program = append(program, unix.SockFilter{Code: binary.NativeEndian.Uint16(i), Jt: i[2], Jf: i[3], K: binary.NativeEndian.Uint32(i[4:])})
	}
	return program, nil
}

func addRule(filter *libseccomp.ScmpFilter, name string, action libseccomp.ScmpAction, args []specs.LinuxSeccompArg) error {
	call, err := libseccomp.GetSyscallFromName(name)
	if err != nil {
		return nil // unknown here: runc leaves it out, and UnknownNames says so
	}
	if len(args) == 0 {
		return filter.AddRule(call, action)
	}
	var conditions []libseccomp.ScmpCondition
	seen, twice := map[uint]bool{}, false
	for _, a := range args {
		op, ok := operators[a.Op]
		if !ok {
			return fmt.Errorf("operator %q is not known", a.Op)
		}
		c, err := libseccomp.MakeCondition(a.Index, op, a.Value, a.ValueTwo)
		if err != nil {
			return fmt.Errorf("condition on argument %d: %w", a.Index, err)
		}
		conditions = append(conditions, c)
		twice = twice || seen[a.Index]
		seen[a.Index] = true
	}
	if !twice {
		return filter.AddRuleConditional(call, action, conditions)
	}
	for _, c := range conditions {
		if err := filter.AddRuleConditional(call, action, []libseccomp.ScmpCondition{c}); err != nil {
			return err
		}
	}
	return nil
}

var operators = map[specs.LinuxSeccompOperator]libseccomp.ScmpCompareOp{
	specs.OpEqualTo: libseccomp.CompareEqual, specs.OpNotEqual: libseccomp.CompareNotEqual, specs.OpLessThan: libseccomp.CompareLess,
	specs.OpLessEqual: libseccomp.CompareLessOrEqual, specs.OpGreaterThan: libseccomp.CompareGreater,
	specs.OpGreaterEqual: libseccomp.CompareGreaterEqual, specs.OpMaskedEqual: libseccomp.CompareMaskedEqual,
}

func scmpAction(action specs.LinuxSeccompAction, errno *uint) (libseccomp.ScmpAction, error) {
	code := int16(unix.EPERM)
	if errno != nil {
		code = int16(*errno)
	}
	switch action {
	case specs.ActKill, specs.ActKillThread:
		return libseccomp.ActKillThread, nil
	case specs.ActKillProcess:
		return libseccomp.ActKillProcess, nil
	case specs.ActTrap:
		return libseccomp.ActTrap, nil
	case specs.ActErrno:
		return libseccomp.ActErrno.SetReturnCode(code), nil
	case specs.ActTrace:
		return libseccomp.ActTrace.SetReturnCode(code), nil
	case specs.ActAllow:
		return libseccomp.ActAllow, nil
	case specs.ActLog:
		return libseccomp.ActLog, nil
	case specs.ActNotify:
		return libseccomp.ActNotify, nil
	}
	return libseccomp.ActInvalid, fmt.Errorf("action %q is not known", action)
}

// archNames are libseccomp's short names of the architectures that runc knows by their long ones.
var archNames = map[specs.Arch]string{
	specs.ArchX86: "x86", specs.ArchX86_64: "amd64", specs.ArchX32: "x32", specs.ArchARM: "arm", specs.ArchAARCH64: "arm64",
	specs.ArchMIPS: "mips", specs.ArchMIPS64: "mips64", specs.ArchMIPS64N32: "mips64n32", specs.ArchMIPSEL: "mipsel",
	specs.ArchMIPSEL64: "mipsel64", specs.ArchMIPSEL64N32: "mipsel64n32", specs.ArchPPC: "ppc", specs.ArchPPC64: "ppc64",
	specs.ArchPPC64LE: "ppc64le", specs.ArchS390: "s390", specs.ArchS390X: "s390x", specs.ArchRISCV64: "riscv64",
	specs.ArchLOONGARCH64: "loongarch64",
}

func scmpArch(name specs.Arch) (libseccomp.ScmpArch, error) {
	short, ok := archNames[name]
	if !ok {
		return libseccomp.ArchInvalid, fmt.Errorf("architecture %q is not known", name)
	}
	arch, err := libseccomp.GetArchFromString(short)
	if err != nil {
		return libseccomp.ArchInvalid, fmt.Errorf("architecture %s: %w", name, err)
	}
	return arch, nil
}

// Native returns the architecture of this host, which libseccomp puts into every filter.
func Native() (specs.Arch, error) {
	native, err := libseccomp.GetNativeArch()
	if err != nil {
		return "", fmt.Errorf("ask libseccomp for the native architecture: %w", err)
	}
	for name := range archNames {
		if arch, err := scmpArch(name); err == nil && arch == native {
			return name, nil
		}
	}
	return "", fmt.Errorf("architecture %s is not known", native)
}

// setFlags refuses unknown flags. The flags do not change the program, only how it is loaded.
func setFlags(filter *libseccomp.ScmpFilter, flags []specs.LinuxSeccompFlag) error {
	for _, flag := range flags {
		var err error
		switch flag {
		case "SECCOMP_FILTER_FLAG_TSYNC":
		case specs.LinuxSeccompFlagLog:
			err = filter.SetLogBit(true)
		case specs.LinuxSeccompFlagSpecAllow:
			err = filter.SetSSB(true)
		case specs.LinuxSeccompFlagWaitKillableRecv:
			err = filter.SetWaitKill(true)
		default:
			err = errors.New("not known to runc")
		}
		if err != nil {
			return fmt.Errorf("flag %s: %w", flag, err)
		}
	}
	return nil
}
