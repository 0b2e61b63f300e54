package profile

import (
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// clone3 is answered with ENOSYS, and clone makes no namespaces in its place, unless Go code made clone3 itself.
func TestClone3(t *testing.T) {
	fork := []string{"syscall.rawVforkSyscall", "syscall.forkAndExecInChild1", "os.StartProcess", "pkg.TestCgroup"}
	for name, c := range map[string]struct {
		phase  Phase
		stack  []string
		pure   bool
		o      BuildOptions
		clone3 string
	}{
		"a C library":          {phase: PhaseWorkload, clone3: "ENOSYS"},
		"exact":                {phase: PhaseWorkload, o: BuildOptions{Policy: PolicyExact}, clone3: "ENOSYS"},
		"for a runtime":        {phase: PhaseWorkload, o: BuildOptions{For: []string{"runc"}}, clone3: "ENOSYS"},
		"on other kernels":     {phase: PhaseWorkload, o: BuildOptions{Kernels: Kernels{Kernel{4, 19}, Kernel{6, 18}}}, clone3: "ENOSYS"},
		"on other ABIs":        {phase: PhaseWorkload, o: BuildOptions{Arch: []specs.Arch{arm64, i386}}, clone3: "ENOSYS"},
		"any arguments":        {phase: PhaseWorkload, o: BuildOptions{AnyArguments: true}, clone3: "ENOSYS"},
		"killing":              {phase: PhaseWorkload, o: BuildOptions{Deny: "kill"}, clone3: "ENOSYS"},
		"the runtime":          {phase: PhaseRuntime, clone3: "ENOSYS"},
		"Go, for a cgroup":     {phase: PhaseWorkload, stack: fork, clone3: "allowed"},
		"nothing but Go":       {phase: PhaseWorkload, pure: true, clone3: "allowed"},
		"Go, in another phase": {phase: PhaseExec, stack: fork, o: BuildOptions{Phases: []Phase{PhaseWorkload, PhaseRuntime}}, clone3: "ENOSYS (robust)"},
	} {
		t.Run(name, func(t *testing.T) {
			made := call(t, c.phase, x64, "clone3")
			made.Callers[0].Stack = c.stack
			r := recording(t, "a", made, call(t, PhaseWorkload, x64, "read"), call(t, PhaseRuntime, x64, "execve"))
			if c.pure {
				r = goRecording(t, true, "clone3", "clone")
				r.Syscalls[1] = with(r.Syscalls[1], []uint32{0})
			}
			p, w := build(t, c.o, r)
			resolved := Resolve(p)
			for _, abi := range p.Architectures {
				clone3, _ := Number(abi, "clone3")
				clone, _ := Number(abi, "clone")
				if got := resolved.Decide(abi, clone3, [6]uint64{}).String(); got != c.clone3 && got+" (robust)" != c.clone3 {
					t.Errorf("%s: clone3 is %s, want %s", abi, got, c.clone3)
				}
				const pthread = 0x3d0f00
				threads, ns := resolved.Decide(abi, clone, [6]uint64{pthread}), resolved.Decide(abi, clone, [6]uint64{0x10000011})
				if threads.reach() != 2 || ns.reach() != 0 {
					t.Errorf("%s: clone is %s for a thread, %s for a user namespace", abi, threads, ns)
				}
			}
			dangerous := slices.ContainsFunc(w.Entries, func(e Entry) bool {
				return e.Name == "clone3" && slices.ContainsFunc(e.Reasons, func(r Reason) bool { return r.Kind == "dangerous" && r.Caller != "" })
			})
			if dangerous != (c.clone3 == "allowed") {
				t.Errorf("called dangerous: %v", dangerous)
			}
		})
	}
}

// Only the answer that an entry gives is one that callers are meant to get.
func TestAnswers(t *testing.T) {
	enosys := uint(enosysErrno)
	listed := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: []string{"clone3", "statx"}, Action: specs.ActErrno, ErrnoRet: &enosys}}}
	unlisted := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: &enosys}
	for name, c := range map[string]struct {
		p     *specs.LinuxSeccomp
		call  string
		errno uint32
		want  bool
	}{
		"clone3":           {listed, "clone3", 38, true},
		"with EPERM":       {listed, "clone3", 1, false},
		"another call":     {listed, "statx", 38, false},
		"by the default":   {unlisted, "clone3", 38, false},
		"it was not there": {listed, "clone3", 0, false},
	} {
		s := call(t, PhaseWorkload, x64, c.call)
		if c.errno != 0 {
			s.Denied = &Denied{Action: "errno", Errno: c.errno, Count: 1}
		}
		if got := Answers(c.p, s); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// A repair adds clone for the flags that were denied, and lets it make no other namespaces.
func TestAddClone(t *testing.T) {
	nr, _ := Number(x64, "clone")
	for _, flags := range []uint64{0x3d0f00, 0x10000011} {
		p, entry, err := Add(allow(t, `{"names":["read"],"action":"SCMP_ACT_ALLOW"}`), Missing{ABI: x64, Nr: nr, Name: "clone", Args: [6]uint64{flags}})
		if err != nil || len(entry.Args) != 1 {
			t.Fatalf("%+v, %v", entry, err)
		}
		for _, other := range []uint64{0x3d0f00, 0x10000011, 0x20000011} {
			if got, want := Resolve(p).Decide(x64, nr, [6]uint64{other}).reach() == 2, flags&newNS == other&newNS; got != want {
				t.Errorf("denied %#x, added: clone(%#x) is allowed: %v", flags, other, got)
			}
		}
	}
}

// A recording of C threads that never waited for each other allows them to: which of two is late differs from run to run.
func TestThreadsWait(t *testing.T) {
	cRecording := func(calls ...Syscall) *Recording {
		r := recording(t, "c", calls...)
		r.Programs = []Program{{Path: "/c", SHA256: hash("c")}}
		r.Runtime = Runtime{Name: "crun", Version: "1.8.1"}
		return r
	}
	for _, made := range []string{"clone", "clone3"} {
		p, _ := build(t, BuildOptions{}, cRecording(call(t, PhaseWorkload, x64, made)))
		for _, name := range []string{"futex", "munmap"} {
			if !slices.Contains(Allowed(p), name) {
				t.Errorf("with %s: %s is not allowed", made, name)
			}
		}
	}
	for name, calls := range map[string][]Syscall{
		"without threads": {call(t, PhaseWorkload, x64, "read")},
		"of the runtime":  {call(t, PhaseRuntime, x64, "clone"), call(t, PhaseWorkload, x64, "read")},
	} {
		if p, _ := build(t, BuildOptions{}, cRecording(calls...)); slices.Contains(Allowed(p), "futex") {
			t.Errorf("%s: futex is allowed", name)
		}
	}
	r := cRecording(call(t, PhaseWorkload, x64, "clone"))
	if p, _ := build(t, BuildOptions{Policy: PolicyExact}, r); slices.Contains(Allowed(p), "futex") {
		t.Error("the policy exact allows what was not seen")
	}
}
