package scmp

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/profile"
)

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
		"value outside the mask": `{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86"],"syscalls":[
			{"names":["prctl"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":2,"valueTwo":6,"op":"SCMP_CMP_MASKED_EQ"}]}]}`,
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
		all[name] = parse(t, text)
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
		if nr%3 == 0 && !strings.HasPrefix(name, "msg") { // see TestCheckFindsTheLibrarysMistake
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
	for name, p := range goldens(t) {
		for _, stub := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/stub=%v", name, stub), func(t *testing.T) {
				wrong, err := Check(p, stub)
				if err != nil {
					t.Fatal(err)
				}
				for _, w := range wrong[:min(len(wrong), 10)] {
					t.Error(w)
				}
			})
		}
	}
}

// -1 is what a tracer sets to skip a call: it is no x32 call, though its bit 30 is set.
func TestMinusOneIsRefused(t *testing.T) {
	for name, p := range goldens(t) {
		if p.DefaultAction == specs.ActLog {
			continue
		}
		program, err := Compile(p, true)
		if err != nil {
			t.Fatal(err)
		}
		m, err := newMachine(program)
		if err != nil {
			t.Fatal(err)
		}
		for _, abi := range profile.ABIs() {
			audit, _ := profile.AuditArch(abi)
			got, err := m.run(audit, 1<<32-1, [6]uint64{})
			if err != nil || got == unix.SECCOMP_RET_ALLOW || got == unix.SECCOMP_RET_LOG {
				t.Errorf("%s: %s -1: %s, %v", name, abi, Returned(got), err)
			}
		}
	}
}

// libseccomp 2.5.4 compiles this profile to a filter that allows ipc(MSGSND) on i386 for a third argument of 1 also: the
// comparison with 1 that socketcall and ipc share is reached with another argument in the accumulator.
func TestCheckFindsTheLibrarysMistake(t *testing.T) {
	p := parse(t, `{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86"],"syscalls":[
		{"names":["socket","accept","bind","listen","semop"],"action":"SCMP_ACT_ALLOW"},
		{"names":["msgsnd"],"action":"SCMP_ACT_ALLOW","args":[{"index":3,"value":69,"op":"SCMP_CMP_EQ"}]}]}`)
	wrong, err := Check(p, false)
	if err != nil {
		t.Fatal(err)
	}
	if Version() != "2.5.4" {
		t.Skipf("known of libseccomp 2.5.4, this is %s, with %d mismatches", Version(), len(wrong))
	}
	if len(wrong) != 1 || wrong[0].Name != "ipc" || wrong[0].Filter != "allowed" || wrong[0].Profile != "EPERM" {
		t.Errorf("got %v, want ipc allowed instead of EPERM", wrong)
	}
}

func TestCompileRefuses(t *testing.T) {
	for text, want := range map[string]string{
		`{"defaultAction":"SCMP_ACT_NOTIFY"}`:                                                                                                            "cannot be the default action",
		`{"defaultAction":"SCMP_ACT_SHOUT"}`:                                                                                                             `action "SCMP_ACT_SHOUT" is not known`,
		`{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_VAX"]}`:                                                                           `architecture "SCMP_ARCH_VAX" is not known`,
		`{"defaultAction":"SCMP_ACT_ERRNO","flags":["LOUD"]}`:                                                                                            "flag LOUD: not known to runc",
		`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read","write"],"action":"SCMP_ACT_NOTIFY"}]}`:                                          "cannot be used for write",
		`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"op":"LIKE"}]}]}`:                  `call "read": operator "LIKE"`,
		`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":6,"op":"SCMP_CMP_EQ"}]}]}`:           "argument 6",
		`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":9,"op":"SCMP_CMP_EQ","value":1}]}]}`: "argument 9",
	} {
		if _, err := Compile(parse(t, text), true); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error with %q", text, err, want)
		}
	}
}

func parse(t testing.TB, text string) *specs.LinuxSeccomp {
	t.Helper()
	var p specs.LinuxSeccomp
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return &p
}

// Check tries each bit of a mask alone: a filter may get one of them wrong.
func TestVectors(t *testing.T) {
	mask, want := uint64(0x7e020000), uint64(0x20000)
	p := &specs.LinuxSeccomp{Syscalls: []specs.LinuxSyscall{
		{Names: []string{"clone"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 0, Value: mask, ValueTwo: want, Op: specs.OpMaskedEqual}}},
		{Names: []string{"read"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 2, Value: 40, Op: specs.OpLessEqual}}},
	}}
	tried := func(name string, index int, value uint64) bool {
		return slices.ContainsFunc(vectors(p, name), func(args [6]uint64) bool { return args[index] == value })
	}
	for bit := uint64(1); bit != 0; bit <<= 1 {
		if mask&bit != 0 && !tried("clone", 0, want^bit) {
			t.Errorf("the mask's bit %#x is not tried alone", bit)
		}
	}
	for _, value := range []uint64{0, 39, 40, 41, 40 | 1<<32, 1<<64 - 1} {
		if !tried("read", 2, value) {
			t.Errorf("%#x is not tried", value)
		}
	}
	if n := len(vectors(p, "write")); n != 2 {
		t.Errorf("%d vectors for a call without conditions", n)
	}
}

// An entry without conditions takes the place of those with, whichever stands first: so says profile, and so does libseccomp.
func TestUnconditionalEntriesCompile(t *testing.T) {
	all := specs.LinuxSyscall{Names: []string{"socket"}, Action: specs.ActAllow}
	one := specs.LinuxSyscall{Names: []string{"socket"}, Action: specs.ActLog, Args: []specs.LinuxSeccompArg{{Index: 0, Value: 1, Op: specs.OpEqualTo}}}
	for _, entries := range [][]specs.LinuxSyscall{{all, one}, {one, all}} {
		p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86_64}, Syscalls: entries}
		if wrong, err := Check(p, false); err != nil || len(wrong) > 0 {
			t.Errorf("%v: %v, %v", entries, wrong, err)
		}
	}
}
