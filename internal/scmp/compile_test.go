package scmp

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	libseccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/profile"
)

// machine runs a filter without a kernel.
type machine struct{ vm *bpf.VM }

func newMachine(t testing.TB, program []unix.SockFilter) machine {
	t.Helper()
	var raw []bpf.RawInstruction
	for _, i := range program {
		raw = append(raw, bpf.RawInstruction{Op: i.Code, Jt: i.Jt, Jf: i.Jf, K: i.K})
	}
	instructions, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("the filter has instructions that the machine does not know")
	}
	vm, err := bpf.NewVM(instructions)
	if err != nil {
		t.Fatal(err)
	}
	return machine{vm}
}

// run evaluates the filter on a struct seccomp_data. The machine loads big-endian words, the kernel the host's.
func (m machine) run(t testing.TB, audit, nr uint32, args [6]uint64) uint32 {
	t.Helper()
	data := make([]byte, 64)
	binary.BigEndian.PutUint32(data[offsetNr:], nr)
	binary.BigEndian.PutUint32(data[offsetArch:], audit)
	for i, a := range args {
		low, high := uint32(a), uint32(a>>32)
		if !littleEndian {
			low, high = high, low
		}
		binary.BigEndian.PutUint32(data[offsetArgs+8*i:], low)
		binary.BigEndian.PutUint32(data[offsetArgs+8*i+4:], high)
	}
	v, err := m.vm.Run(data)
	if err != nil {
		t.Fatalf("run the filter on call %d: %v", nr, err)
	}
	return uint32(v)
}

var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// returned is a verdict as a filter returns it.
func returned(t testing.TB, v profile.Verdict) uint32 {
	t.Helper()
	switch v.Action {
	case specs.ActKillThread:
		return unix.SECCOMP_RET_KILL_THREAD
	case specs.ActKillProcess:
		return unix.SECCOMP_RET_KILL_PROCESS
	case specs.ActTrap:
		return unix.SECCOMP_RET_TRAP
	case specs.ActErrno:
		return unix.SECCOMP_RET_ERRNO | uint32(v.Errno)
	case specs.ActTrace:
		return unix.SECCOMP_RET_TRACE | uint32(v.Errno)
	case specs.ActAllow:
		return unix.SECCOMP_RET_ALLOW
	case specs.ActLog:
		return unix.SECCOMP_RET_LOG
	case specs.ActNotify:
		return unix.SECCOMP_RET_USER_NOTIF
	}
	t.Fatalf("no return value for %+v", v)
	return 0
}

// goldens returns the golden profiles, Docker's default profile for some sets of capabilities, and made ones with every
// kind of rule.
func goldens(t testing.TB) map[string]*specs.LinuxSeccomp {
	t.Helper()
	all := map[string]*specs.LinuxSeccomp{}
	files, err := filepath.Glob("../../profile/testdata/*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if p, err := profile.ReadProfile(f); err == nil { // the others are not runtime-spec
			all[strings.TrimSuffix(filepath.Base(path), ".json")] = p
		}
		f.Close()
	}
	if len(all) < 4 {
		t.Fatalf("%d golden profiles: too few", len(all))
	}
	for name, caps := range map[string][]string{"docker": nil, "docker SYS_ADMIN": {"CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_BPF"}} {
		if all[name], err = seccomp.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps}}}); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"every operator": `{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_X32"],"syscalls":[
			{"names":["prctl"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":15,"op":"SCMP_CMP_EQ"}]},
			{"names":["ioctl"],"action":"SCMP_ACT_ALLOW","args":[{"index":1,"value":21505,"op":"SCMP_CMP_EQ"},{"index":1,"value":21523,"op":"SCMP_CMP_EQ"}]},
			{"names":["personality"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":4294967295,"op":"SCMP_CMP_EQ"}]},
			{"names":["fcntl"],"action":"SCMP_ACT_ALLOW","args":[{"index":1,"value":4,"op":"SCMP_CMP_LE"},{"index":2,"value":7,"op":"SCMP_CMP_NE"}]},
			{"names":["madvise"],"action":"SCMP_ACT_ALLOW","args":[{"index":2,"value":4,"op":"SCMP_CMP_GE"}]},
			{"names":["lseek"],"action":"SCMP_ACT_ALLOW","args":[{"index":1,"value":8589934592,"op":"SCMP_CMP_LT"}]},
			{"names":["kill"],"action":"SCMP_ACT_ALLOW","args":[{"index":1,"value":15,"op":"SCMP_CMP_GT"}]},
			{"names":["clone"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":2114060288,"valueTwo":0,"op":"SCMP_CMP_MASKED_EQ"}]},
			{"names":["mmap"],"action":"SCMP_ACT_ALLOW","args":[{"index":2,"value":4,"valueTwo":0,"op":"SCMP_CMP_MASKED_EQ"},{"index":3,"value":2,"valueTwo":2,"op":"SCMP_CMP_MASKED_EQ"}]}]}`,
		"sockets": `{"defaultAction":"SCMP_ACT_KILL_PROCESS","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86"],"syscalls":[
			{"names":["bind","accept4","semop","shmat"],"action":"SCMP_ACT_ALLOW"},{"names":["socketpair"],"action":"SCMP_ACT_TRAP"},
			{"names":["socket"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"}]},
			{"names":["setsockopt"],"action":"SCMP_ACT_LOG","args":[{"index":1,"value":1,"op":"SCMP_CMP_EQ"},{"index":2,"value":2,"op":"SCMP_CMP_EQ"}]}]}`,
		"actions": `{"defaultAction":"SCMP_ACT_LOG","architectures":["SCMP_ARCH_AARCH64","SCMP_ARCH_ARM"],"syscalls":[
			{"names":["read"],"action":"SCMP_ACT_KILL"},{"names":["openat"],"action":"SCMP_ACT_ERRNO","errnoRet":13},{"names":["close"],"action":"SCMP_ACT_TRACE","errnoRet":7},
			{"names":["futex"],"action":"SCMP_ACT_NOTIFY"},{"names":["mmap"],"action":"SCMP_ACT_ALLOW"},{"names":["mmap"],"action":"SCMP_ACT_LOG"}]}`,
		"arm": `{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"architectures":["SCMP_ARCH_AARCH64","SCMP_ARCH_ARM","SCMP_ARCH_X32"],"syscalls":[
			{"names":["read","socket","futex","no_such_call"],"action":"SCMP_ACT_ALLOW"},
			{"names":["prctl"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":4294967297,"op":"SCMP_CMP_EQ"}]}]}`,
		"with and without conditions": `{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64"],"syscalls":[
			{"names":["prctl"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":15,"op":"SCMP_CMP_EQ"}]},{"names":["prctl"],"action":"SCMP_ACT_ALLOW"},
			{"names":["ioctl"],"action":"SCMP_ACT_ALLOW"},{"names":["ioctl"],"action":"SCMP_ACT_ALLOW","args":[{"index":1,"value":21505,"op":"SCMP_CMP_EQ"}]}]}`,
		"many": many(),
	} {
		var p specs.LinuxSeccomp
		if err := json.Unmarshal([]byte(text), &p); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all[name] = &p
	}
	return all
}

// many lists every call of x86-64, every third with a condition: the largest filter there is.
func many() string {
	p := specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}}
	for nr := range uint32(600) {
		name := profile.Name(specs.ArchX86_64, nr)
		if name == "" {
			continue
		}
		s := specs.LinuxSyscall{Names: []string{name}, Action: specs.ActAllow}
		if nr%3 == 0 {
			s.Args = []specs.LinuxSeccompArg{{Index: uint(nr % 6), Value: uint64(nr), Op: specs.OpEqualTo}}
		}
		p.Syscalls = append(p.Syscalls, s)
	}
	data, err := json.Marshal(p)
	if err != nil {
		panic(err)
	}
	return string(data)
}

// What the JSON says is what the kernel gets: the filter that libseccomp makes answers every number of every ABI as the
// profile says by name, under crun as it is and under runc with runc's own instructions before it.
func TestFilterSaysWhatTheProfileSays(t *testing.T) {
	native, err := Native()
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range goldens(t) {
		for _, stub := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/stub=%v", name, stub), func(t *testing.T) {
				program, err := Compile(p, stub)
				if err != nil {
					t.Fatal(err)
				}
				m := newMachine(t, program)
				r := profile.Resolve(known(p), native)
				calls := 0
				for _, abi := range append(profile.ABIs(), "s390x", "riscv64") {
					audit, ok := profile.AuditArch(abi)
					if !ok {
						audit = map[specs.Arch]uint32{"s390x": 0x80000016, "riscv64": 0xc00000f3}[abi]
					}
					top, stubbed := highest(t, p, abi, native)
					for nr := range uint32(601) {
						for _, args := range vectors(p, profile.Name(abi, nr)) {
							raw := nr
							if abi == specs.ArchX32 {
								raw |= x32Bit
							}
							want := returned(t, r.Decide(abi, raw, args))
							if stub && stubbed && raw > top {
								want = retEnosys
							}
							if got := m.run(t, audit, raw, args); got != want {
								t.Errorf("%s %d %s %#x: the filter returns %#x, the profile says %#x", abi, nr, profile.Name(abi, nr), args, got, want)
								if calls++; calls > 10 {
									t.FailNow()
								}
							}
						}
					}
				}
			})
		}
	}
}

// known leaves out the names that this libseccomp does not know, as it does itself.
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
func highest(t *testing.T, p *specs.LinuxSeccomp, abi, native specs.Arch) (uint32, bool) {
	t.Helper()
	if abi != native && !slices.Contains(p.Architectures, abi) || slices.Contains([]specs.LinuxSeccompAction{specs.ActAllow, specs.ActLog, specs.ActTrace}, p.DefaultAction) {
		return 0, false
	}
	arch, err := scmpArch(abi)
	if err != nil {
		t.Fatal(err)
	}
	top := libseccomp.ScmpSyscall(0)
	for _, s := range p.Syscalls {
		for _, name := range s.Names {
			if nr, err := libseccomp.GetSyscallFromNameByArch(name, arch); err == nil {
				top = max(top, nr)
			}
		}
	}
	return uint32(top), top != 0
}

// vectors returns arguments at and around every value that the profile's conditions name, for the calls that have some,
// and for the calls through which i386 makes them.
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
		if values[i] != nil {
			values[i] = append(values[i], 0, 1<<63, 1<<64-1)
			slices.Sort(values[i])
			values[i] = slices.Compact(values[i])
			var more [][6]uint64
			for _, args := range all {
				for _, v := range values[i] {
					args[i] = v
					more = append(more, args)
				}
			}
			all = more
		}
	}
	return all
}
