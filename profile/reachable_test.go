package profile

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// binary makes a program whose functions make calls: "fcntl" by main.fcntl, or "fcntl:runtime.fcntl".
func binary(t testing.TB, abi specs.Arch, calls ...string) Binary {
	t.Helper()
	s := &Static{GoRuntime: []StaticCall{}, Reachable: []StaticCall{}, Unresolved: []string{}}
	for _, c := range calls {
		name, function, ok := strings.Cut(c, ":")
		if !ok {
			function = "main." + name
		}
		nr, has := Number(abi, name)
		if !has {
			t.Fatalf("%s has no %s", abi, name)
		}
		s.Reachable = append(s.Reachable, StaticCall{ABI: abi, Nr: nr, Functions: []string{function}})
	}
	return Binary{Program: Program{Path: "./server", SHA256: hash("server"), Go: "go1.26.8", Static: s}}
}

// reachable are the options for a profile of binaries.
func reachable(binaries ...Binary) BuildOptions {
	return BuildOptions{Policy: PolicyReachable, Binaries: binaries, For: []string{"crun"}}
}

// reasonsOf returns the reasons of a kind for a call, and their callers.
func reasonsOf(w *Why, abi specs.Arch, name string, kind Kind) (all []Reason) {
	for _, e := range w.Entries {
		for _, r := range e.Reasons {
			if e.ABI == abi && e.Name == name && r.Kind == kind {
				all = append(all, r)
			}
		}
	}
	return all
}

// TestReachable: what the machine code can call is allowed, with a reason; the dangerous calls only if they were seen, or named.
func TestReachable(t *testing.T) {
	b := binary(t, x64, "lseek", "mount:syscall.forkAndExecInChild1", "clone3:syscall.forkAndExecInChild1", "ptrace")
	saw := recording(t, "a", call(t, PhaseWorkload, x64, "ptrace"))
	for name, c := range map[string]struct {
		rs       []*Recording
		allow    []string
		allowed  []string
		untested []string
	}{
		"nothing seen": {nil, nil, []string{"lseek"}, []string{"clone3", "mount", "ptrace"}},
		"named":        {nil, []string{"mount"}, []string{"lseek", "mount"}, []string{"clone3", "ptrace"}},
		"clone3 named": {nil, []string{"clone3"}, []string{"clone3", "lseek"}, []string{"mount", "ptrace"}},
		"seen":         {[]*Recording{saw}, nil, []string{"lseek", "ptrace"}, []string{"clone3", "mount"}},
		"seen, named":  {[]*Recording{saw}, []string{"ptrace"}, []string{"lseek", "ptrace"}, []string{"clone3", "mount"}},
	} {
		t.Run(name, func(t *testing.T) {
			o := reachable(b)
			o.Allow = c.allow
			p, why := build(t, o, c.rs...)
			var allowed, untested []string
			for _, name := range []string{"clone3", "lseek", "mount", "ptrace"} {
				if slices.Contains(Allowed(p), name) {
					allowed = append(allowed, name)
					if r := reasonsOf(why, x64, name, KindReachable); len(r) != 1 || !strings.HasPrefix(r[0].Caller, "./server: ") || !strings.Contains(r[0].Text, "machine code") {
						t.Errorf("%s: the reasons are %+v", name, r)
					}
				}
				if r := reasonsOf(why, x64, name, KindDangerous); len(r) > 0 != slices.Contains(c.allow, name) {
					t.Errorf("%s: the reasons are %+v", name, r)
				}
			}
			for _, u := range why.Untested {
				untested = append(untested, u.Name)
				if u.Dangerous == "" || !slices.Equal(u.Programs, []string{"./server"}) || len(u.Functions) != 1 {
					t.Errorf("%+v", u)
				}
			}
			if diff := cmp.Diff(c.allowed, allowed) + cmp.Diff(c.untested, untested); diff != "" {
				t.Error(diff)
			}
			nr, _ := Number(x64, clone3)
			want := Verdict{specs.ActErrno, enosysErrno}
			if slices.Contains(c.allow, clone3) {
				want = Verdict{Action: specs.ActAllow}
			}
			if got := Resolve(p).Decide(x64, nr, [6]uint64{}); got != want {
				t.Errorf("clone3 gets %s", got)
			}
			if !slices.Contains(Allowed(p), "execve") || !slices.Equal(p.Architectures, []specs.Arch{x64}) {
				t.Errorf("nothing starts under it: %+v", p)
			}
		})
	}
}

// TestReachableArguments: conditions hold where the workload showed the arguments, or where the Go runtime alone makes the call.
func TestReachableArguments(t *testing.T) {
	socket := with(call(t, PhaseWorkload, x64, "socket"), []uint32{2, 1, 0})
	inRuntime := with(call(t, PhaseRuntime, x64, "fcntl"), []uint32{0, 3})
	for name, c := range map[string]struct {
		can    string
		rs     []*Recording
		yes    [6]uint64
		no     [6]uint64
		closed bool
	}{
		"by the Go runtime":        {can: "fcntl:runtime.fcntl", rs: []*Recording{recording(t, "a", call(t, PhaseWorkload, x64, "read"))}, yes: [6]uint64{0, 1}, no: [6]uint64{0, 4}, closed: true},
		"by others":                {can: "fcntl:syscall.fcntl", yes: [6]uint64{0, 1}, no: [6]uint64{0, 4}},
		"seen":                     {can: "socket", rs: []*Recording{recording(t, "a", socket)}, yes: [6]uint64{2, 1}, no: [6]uint64{16, 3}, closed: true},
		"not seen":                 {can: "socket", yes: [6]uint64{2, 1}, no: [6]uint64{16, 3}},
		"of the OCI runtime":       {can: "fcntl:syscall.fcntl", rs: []*Recording{recording(t, "a", inRuntime, call(t, PhaseWorkload, x64, "read"))}, yes: [6]uint64{0, 3}, no: [6]uint64{0, 1030}},
		"of clone":                 {can: "clone:syscall.forkAndExecInChild1", yes: [6]uint64{0x11}, no: [6]uint64{0x10000011}, closed: true},
		"of the Go runtime's only": {can: "mprotect:runtime.mprotect", yes: [6]uint64{0, 0, 3}, no: [6]uint64{0, 0, 5}, closed: true},
	} {
		t.Run(name, func(t *testing.T) {
			o := reachable(binary(t, x64, c.can))
			o.Phases = []Phase{PhaseRuntime, PhaseWorkload}
			if c.rs != nil {
				o.For = nil
			}
			for _, r := range c.rs {
				r.Runtime = Runtime{Name: "crun"}
				r.Programs = []Program{o.Binaries[0].Program}
			}
			p, _ := build(t, o, c.rs...)
			call, _, _ := strings.Cut(c.can, ":")
			nr, _ := Number(x64, call)
			if got := Resolve(p).Decide(x64, nr, c.yes); got.Action != specs.ActAllow {
				t.Errorf("%#x gets %s", c.yes, got)
			}
			if got := Resolve(p).Decide(x64, nr, c.no); (got.Action != specs.ActAllow) != c.closed {
				t.Errorf("%#x gets %s", c.no, got)
			}
		})
	}
}

// TestReachableABIs: the profile is for the binary's machine, whichever one was recorded or measured.
func TestReachableABIs(t *testing.T) {
	amd64 := recording(t, "a", with(call(t, PhaseWorkload, x64, "socket"), []uint32{2, 1, 0}), call(t, PhaseWorkload, x64, "open"))
	for name, c := range map[string]struct {
		abi  specs.Arch
		rs   []*Recording
		want []specs.Arch
	}{
		"amd64":                {x64, nil, []specs.Arch{x64}},
		"386":                  {i386, nil, []specs.Arch{x64, i386}}, // under a 64-bit runtime
		"arm64":                {arm64, nil, []specs.Arch{arm64}},
		"arm64, amd64 was run": {arm64, []*Recording{amd64}, []specs.Arch{x64, arm64}},
	} {
		t.Run(name, func(t *testing.T) {
			o := reachable(binary(t, c.abi, "openat"))
			if c.rs != nil {
				o.For = nil
			}
			p, why := build(t, o, c.rs...)
			if diff := cmp.Diff(c.want, p.Architectures); diff != "" {
				t.Error(diff)
			}
			for _, call := range []string{"execve", "openat"} {
				if nr, _ := Number(c.abi, call); Resolve(p).Decide(c.abi, nr, [6]uint64{}).Action != specs.ActAllow {
					t.Errorf("%s is denied", call)
				}
			}
			if c.rs != nil && len(reasonsOf(why, arm64, "socket", KindPortability)) == 0 {
				t.Error("what was seen is not allowed on the other architecture")
			}
		})
	}
}

func TestReachableRefuses(t *testing.T) {
	good, unresolved, loaded, unknown, bare := binary(t, x64, "read", "mount"), binary(t, x64, "read"), binary(t, x64, "read"), binary(t, x64), binary(t, x64)
	unresolved.Static.Unresolved = []string{"main.b", "main.a", "main.b", "", "main.c", "main.d"}
	unknown.Static.Reachable = []StaticCall{{ABI: x64, Nr: 999, Functions: []string{"main.f"}}}
	loaded.Interpreter, bare.Static = "/lib/ld.so", nil
	rs := []*Recording{recording(t, "a", call(t, PhaseWorkload, x64, "read"))}
	for name, c := range map[string]struct {
		rs     []*Recording
		change func(*BuildOptions)
		want   string
	}{
		"no binary":          {rs, func(o *BuildOptions) { o.Binaries = nil }, "needs the program that will run"},
		"not analyzed":       {rs, func(o *BuildOptions) { o.Binaries = []Binary{bare} }, "was not analyzed"},
		"no runtime":         {nil, func(o *BuildOptions) { o.For = nil }, "give --for"},
		"unknown runtime":    {nil, func(o *BuildOptions) { o.For = []string{"dream"} }, "the needs of dream were not measured"},
		"unresolved":         {rs, func(o *BuildOptions) { o.Binaries = []Binary{good, unresolved} }, "in code without a name, main.a, main.b and 2 more: "},
		"a number":           {rs, func(o *BuildOptions) { o.Binaries = []Binary{unknown} }, "in main.f (number 999 of SCMP_ARCH_X86_64 has no name here): "},
		"loaded":             {nil, func(o *BuildOptions) { o.Binaries = []Binary{loaded} }, "is loaded by /lib/ld.so, whose calls"},
		"other architecture": {nil, func(o *BuildOptions) { o.Arch = []specs.Arch{arm64} }, "take a recording"},
		"no such danger":     {rs, func(o *BuildOptions) { o.Allow = []string{"ptrace"} }, "can make, which --allow is for: mount"},
		"no danger":          {rs, func(o *BuildOptions) { o.Allow = []string{"read"} }, "read is not one of the dangerous calls"},
		"another policy":     {rs, func(o *BuildOptions) { o.Policy, o.Allow = PolicyRobust, []string{"mount"} }, "goes with the policy reachable"},
		"recording":          {[]*Recording{{ID: "a"}}, func(*BuildOptions) {}, "recording is incomplete"},
	} {
		o := reachable(good)
		c.change(&o)
		if _, _, err := Build(c.rs, o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, c.want)
		}
	}
	for name, b := range map[string]Binary{"unresolved": unresolved, "a number": unknown} {
		o := reachable(b)
		o.AllowIncomplete = true
		if _, _, err := Build(nil, o); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := Build(rs, reachable(loaded)); err != nil {
		t.Errorf("with a recording: %v", err)
	}
}

// TestUntestedOfTheBinary: what no test has shown is said of the program that will run, not of the one that was recorded.
func TestUntestedOfTheBinary(t *testing.T) {
	r := recording(t, "a", call(t, PhaseWorkload, x64, "read"))
	r.Programs[0].Static = binary(t, x64, "lseek", "pause").Static
	want := func(o BuildOptions, want ...Untested) {
		t.Helper()
		_, why := build(t, o, r)
		if diff := cmp.Diff(want, why.Untested); diff != "" {
			t.Error(diff)
		}
	}
	want(BuildOptions{}, Untested{ABI: x64, Name: "lseek", Functions: []string{"main.lseek"}, Programs: []string{"/p.test"}},
		Untested{ABI: x64, Name: "pause", Functions: []string{"main.pause"}, Programs: []string{"/p.test"}})
	want(BuildOptions{Binaries: []Binary{binary(t, x64, "read", "flock")}}, Untested{ABI: x64, Name: "flock", Functions: []string{"main.flock"}, Programs: []string{"./server"}})
}

// TestLevels: each policy allows all that the one before it allows, with all arguments, and nothing dangerous more.
func TestLevels(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 10))
	for range 60 {
		a := random(t, rng, "a")
		a.Syscalls = slices.DeleteFunc(a.Syscalls, func(s Syscall) bool {
			return s.ABI == i386 && rng.IntN(2) == 0 || s.Name == "socketcall" || s.Name == "ipc"
		})
		a.Syscalls = append(a.Syscalls, call(t, PhaseWorkload, x64, "_sysctl", "a"))
		abi := []specs.Arch{x64, i386, arm64}[rng.IntN(3)]
		var can []string
		for range 1 + rng.IntN(30) {
			if name := Name(abi, uint32(rng.IntN(335))); name != "" && name != "socketcall" && name != "ipc" {
				can = append(can, name+[]string{"", ":runtime." + name}[rng.IntN(2)])
			}
		}
		b := binary(t, abi, can...)
		o := BuildOptions{AllowIncomplete: true, Binaries: []Binary{b}}
		AddAnalysis([]*Recording{a}, b.Program)
		var less *specs.LinuxSeccomp
		for _, policy := range []Policy{PolicyExact, PolicyRobust, PolicyReachable} {
			o.Policy = policy
			more, _ := build(t, o, a)
			if less == nil {
				less = more
				continue
			}
			for _, c := range Diff(less, more, x64).Changes {
				if c.Kind == Narrower {
					t.Fatalf("%s is narrower for %s: %s, %s", policy, c.Name, c.Old, c.New)
				}
			}
			for _, name := range Allowed(more) {
				if AskFirst(name) != "" && !slices.Contains(Allowed(less), name) {
					t.Fatalf("%s allows %s", policy, name)
				}
			}
			for _, name := range Allowed(less) {
				for _, args := range tryWith(rng, name, a) {
					for _, abi := range less.Architectures {
						nr, has := Number(abi, name)
						if was, is := Resolve(less).Decide(abi, nr, args), Resolve(more).Decide(abi, nr, args); has && was.Action == specs.ActAllow && is.Action != specs.ActAllow {
							t.Fatalf("%s: %s %#x of %s was allowed, and gets %s", policy, name, args, abi, is)
						}
					}
				}
			}
			less = more
		}
		for _, c := range b.Static.Reachable {
			if name := Name(c.ABI, c.Nr); !slices.Contains(Allowed(less), name) && AskFirst(name) == "" {
				t.Fatalf("%s is reachable and denied", name)
			}
		}
	}
}
