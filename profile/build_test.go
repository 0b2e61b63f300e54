package profile

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seccompgen/seccompgen/test/golden"
)

func build(t testing.TB, o BuildOptions, rs ...*Recording) (*specs.LinuxSeccomp, *Why) {
	t.Helper()
	p, w, err := Build(rs, o)
	if err != nil {
		t.Fatal(err)
	}
	return p, w
}

func TestBuildGolden(t *testing.T) {
	crun := sample(t)
	crun.Runtime.Name, crun.Programs = "crun", notGo
	for name, c := range map[string]struct {
		o BuildOptions
		r *Recording
	}{
		"exact":       {BuildOptions{Policy: PolicyExact}, sample(t)},
		"robust":      {BuildOptions{}, sample(t)},
		"kill":        {BuildOptions{Deny: "kill", Phases: []Phase{PhaseWorkload}, Arch: []specs.Arch{specs.ArchX32}}, sample(t)},
		"crun-not-go": {BuildOptions{}, crun},
		"arguments":   {BuildOptions{}, arguments(t)},
		"portable":    {BuildOptions{Arch: []specs.Arch{arm64}, Kernels: Kernels{Kernel{4, 19}, Kernel{6, 18}}}, sample(t)},
	} {
		t.Run(name, func(t *testing.T) {
			p, w := build(t, c.o, c.r)
			data, err := Encode(p)
			if err != nil {
				t.Fatal(err)
			}
			var why bytes.Buffer
			if err := w.Write(&why); err != nil {
				t.Fatal(err)
			}
			golden.Check(t, "testdata/"+name+".json", data)
			golden.Check(t, "testdata/"+name+".why.json", why.Bytes())
		})
	}
}

// Every entry has a reason, and nothing is allowed that was neither seen nor in the table.
func TestBuildMeaning(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	inTable := map[string]bool{}
	for _, row := range implicit {
		inTable[row.name] = true
	}
	for range 200 {
		r := random(t, rng, "a")
		r.Syscalls = append(r.Syscalls, call(t, PhaseWorkload, x64, "futex", "a"))
		r.Syscalls = slices.CompactFunc(r.Syscalls, func(a, b Syscall) bool { return a.key() == b.key() })
		seen := map[target]bool{}
		for _, s := range r.Syscalls {
			seen[target{s.ABI, s.Name}] = seen[target{s.ABI, s.Name}] || s.Denied == nil
		}
		for _, policy := range []Policy{PolicyExact, PolicyRobust} {
			p, w := build(t, BuildOptions{Policy: policy, AllowIncomplete: true}, r)
			reasons := map[string]bool{}
			for _, e := range w.Entries {
				if len(e.Reasons) == 0 || e.Reasons[0].Text == "" {
					t.Fatalf("no reason for %+v", e)
				}
				reasons[e.Name] = true
				if e.Action == specs.ActAllow && !seen[target{e.ABI, e.Name}] && (policy == PolicyExact || !inTable[e.Name]) {
					t.Fatalf("%s allows %s %s, which nobody saw", policy, e.ABI, e.Name)
				}
			}
			for _, s := range p.Syscalls {
				for _, name := range s.Names {
					if !reasons[name] {
						t.Fatalf("%s is in the profile and not in why.json", name)
					}
				}
				if !slices.IsSorted(s.Names) {
					t.Fatalf("names are not sorted: %v", s.Names)
				}
			}
			allowed := Allowed(p)
			for target, ok := range seen {
				if ok && !slices.Contains(allowed, target.name) {
					t.Fatalf("%s was seen and is not allowed", target.name)
				}
			}
			for _, s := range p.Syscalls {
				for _, name := range s.Names {
					if s.Action != specs.ActAllow && slices.Contains(allowed, name) {
						t.Fatalf("%s is allowed and refused", name)
					}
				}
			}
		}
	}
}

// What decides whether a call gets conditions, and which.
func TestConditions(t *testing.T) {
	unknown := call(t, PhaseExec, x64, "socket")
	baselines := func(o *BuildOptions) { o.For = []string{"crun"} }
	for name, c := range map[string]struct {
		more  Syscall
		set   func(*BuildOptions)
		abi   specs.Arch
		call  string
		args  [6]uint64
		allow bool
	}{
		"seen":                               {call: "socket", args: [6]uint64{2, 1, 0}, allow: true},
		"seen, with other flags":             {call: "socket", args: [6]uint64{2, 1 | 0x80800, 0}, allow: true},
		"an int leaves the upper half alone": {call: "socket", args: [6]uint64{2 | 1<<40, 1, 0}, allow: true},
		"never together":                     {call: "socket", args: [6]uint64{2, 2, 0}},
		"the other IP":                       {call: "socket", args: [6]uint64{10, 1, 0}, allow: true},
		"the other IP, exact":                {set: func(o *BuildOptions) { o.Policy = PolicyExact }, call: "socket", args: [6]uint64{10, 1, 0}},
		"off":                                {set: func(o *BuildOptions) { o.AnyArguments = true }, call: "socket", args: [6]uint64{2, 2, 0}, allow: true},
		"another recording has no arguments": {more: unknown, call: "socket", args: [6]uint64{2, 2, 0}, allow: true},
		"in a phase that is left out":        {more: unknown, set: func(o *BuildOptions) { o.Phases = []Phase{PhaseWorkload} }, call: "socket", args: [6]uint64{2, 2, 0}},
		"two phases":                         {call: "fcntl", args: [6]uint64{9, 1030}, allow: true},
		"neither phase":                      {call: "fcntl", args: [6]uint64{9, 1031}},
		"too many":                           {call: "ioctl", args: [6]uint64{0, 12345}, allow: true},
		"all there are":                      {call: "mprotect", args: [6]uint64{0, 0, 7}, allow: true},
		"the Go runtime's":                   {call: "madvise", args: [6]uint64{0, 0, 14}, allow: true},
		"not the Go runtime's":               {call: "madvise", args: [6]uint64{0, 0, 100}},
		"the Go runtime's, not executable":   {call: "mmap", args: [6]uint64{0, 0, 7}},
		"a runtime's own need":               {set: baselines, call: "prctl", args: [6]uint64{38}, allow: true},
		"hidden by socketcall":               {more: call(t, PhaseWorkload, i386, "openat"), call: "socket", args: [6]uint64{2, 2, 0}, allow: true},
		"namespaces":                         {call: "clone", args: [6]uint64{0x20011}, allow: true},
		"other namespaces":                   {call: "clone", args: [6]uint64{0x10000011}},
		"clone3 opens no namespaces":         {more: call(t, PhaseWorkload, x64, "clone3"), call: "clone", args: [6]uint64{0x10000011}},
		"off, but for namespaces":            {set: func(o *BuildOptions) { o.AnyArguments = true }, call: "clone", args: [6]uint64{0x10000011}},
		"on another ABI":                     {set: func(o *BuildOptions) { o.Arch = []specs.Arch{specs.ArchAARCH64} }, abi: specs.ArchAARCH64, call: "socket", args: [6]uint64{2, 2, 0}},
		"seen, on another ABI":               {set: func(o *BuildOptions) { o.Arch = []specs.Arch{specs.ArchAARCH64} }, abi: specs.ArchAARCH64, call: "socket", args: [6]uint64{2, 1, 0}, allow: true},
		"hidden by a pointer":                {more: call(t, PhaseWorkload, i386, "mmap"), call: "mmap", args: [6]uint64{0, 0, 7}, allow: true},
	} {
		t.Run(name, func(t *testing.T) {
			var more []Syscall
			if c.more.ABI != "" {
				more = append(more, c.more)
			}
			var o BuildOptions
			if c.set != nil {
				c.set(&o)
			}
			p, _ := build(t, o, arguments(t, more...))
			abi := x64
			if c.abi != "" {
				abi = c.abi
			}
			nr, _ := Number(abi, c.call)
			got := Resolve(p).Decide(abi, nr, c.args)
			if allowed := got.Action == specs.ActAllow; allowed != c.allow {
				t.Errorf("%s %#x: %s", c.call, c.args, got)
			}
		})
	}
}

// More evidence never takes a call away, whatever the order.
func TestBuildMonotone(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for range 100 {
		a, b := random(t, rng, "a"), random(t, rng, "b")
		a.Syscalls = append(a.Syscalls[:0:0], call(t, PhaseWorkload, x64, "read", "a"))
		o := BuildOptions{AllowIncomplete: true}
		less, _ := build(t, o, a)
		more, _ := build(t, o, a, b)
		turned, _ := build(t, o, b, a)
		if diff := cmp.Diff(more, turned); diff != "" {
			t.Fatalf("the order of recordings counts:\n%s", diff)
		}
		for _, c := range Diff(less, more, x64).Changes {
			if c.Kind == Narrower {
				t.Fatalf("with more evidence %s got narrower: %s, %s", c.Name, c.Old, c.New)
			}
		}
	}
}

func TestBuildSameBytes(t *testing.T) {
	r := sample(t)
	var want string
	for i := range 100 {
		rand.Shuffle(len(r.Syscalls), func(i, j int) { r.Syscalls[i], r.Syscalls[j] = r.Syscalls[j], r.Syscalls[i] })
		p, w := build(t, BuildOptions{}, r)
		data, _ := Encode(p)
		var b bytes.Buffer
		_ = w.Write(&b)
		if got := string(data) + b.String(); i == 0 {
			want = got
		} else if got != want {
			t.Fatalf("other bytes in build %d:\n%s", i, cmp.Diff(want, got))
		}
	}
}

func TestBuildRefuses(t *testing.T) {
	incomplete, execve, empty := sample(t), sample(t), recording(t, "a")
	incomplete.Drop(DropAlive, 1)
	execve.Boundary, execve.Runtime = BoundaryExecve, Runtime{Name: "dream", Version: "7"}
	for name, c := range map[string]struct {
		rs   []*Recording
		o    BuildOptions
		want string
	}{
		"nothing":    {nil, BuildOptions{}, "no recordings"},
		"incomplete": {[]*Recording{sample(t), incomplete}, BuildOptions{}, "lived on after its end (1): record again"},
		"boundary":   {[]*Recording{execve}, BuildOptions{}, "the needs of dream@7 were not measured"},
		"runtime":    {[]*Recording{sample(t)}, BuildOptions{For: []string{"dream"}}, "the needs of dream were not measured"},
		"no calls":   {[]*Recording{empty}, BuildOptions{}, "hold no calls"},
		"policy":     {[]*Recording{sample(t)}, BuildOptions{Policy: "lax"}, `policy "lax"`},
		"deny":       {[]*Recording{sample(t)}, BuildOptions{Deny: "shout"}, `deny action "shout"`},
		"arch":       {[]*Recording{sample(t)}, BuildOptions{Arch: []specs.Arch{"VAX"}}, `architecture "VAX"`},
		"phase":      {[]*Recording{sample(t)}, BuildOptions{Phases: []Phase{"dawn"}}, `phase "dawn"`},
	} {
		_, _, err := Build(c.rs, c.o)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, c.want)
		}
	}
	if _, _, err := Build([]*Recording{incomplete}, BuildOptions{AllowIncomplete: true}); err != nil {
		t.Errorf("--allow-incomplete: %v", err)
	}
}

func TestBaselines(t *testing.T) {
	baselines, err := Baselines()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range baselines {
		for _, name := range append(f.Calls, "execve") {
			if _, ok := Number(f.ABI, name); !ok || !slices.Contains(f.Calls, name) {
				t.Errorf("%s %s: %s is not a call of %s, or is missing", f.Runtime.Name, f.Runtime.Version, name, f.ABI)
			}
		}
	}
	for _, c := range []struct {
		full, asked string
		want        bool
	}{
		{"1.1.5+ds1", "", true},
		{"1.1.5+ds1", "1.1", true},
		{"1.1.5+ds1", "1.1.5", true},
		{"1.1.5+ds1", "1.1.5+ds1", true},
		{"1.15.0", "1.1", false},
		{"1.1.5", "1.2", false},
		{"1.1.5", "1.1.5.1", false},
	} {
		if got := versionMatches(c.full, c.asked); got != c.want {
			t.Errorf("version %s for %s: %t", c.full, c.asked, got)
		}
	}
	r := recording(t, "a", call(t, PhaseWorkload, x64, "read"))
	exact := BuildOptions{Policy: PolicyExact}
	alone, _ := build(t, exact, r)
	for _, nnp := range []bool{true, false} {
		o := exact
		o.For, o.NoNewPrivileges = []string{"runc@1.1", "crun"}, nnp
		p, _ := build(t, o, r)
		for _, f := range baselines {
			if (f.Runtime.Name == "crun" || versionMatches(f.Runtime.Version, "1.1")) && (f.NoNewPrivileges || !nnp) {
				for _, name := range f.Calls {
					if !slices.Contains(Allowed(p), name) {
						t.Errorf("noNewPrivileges %t: %s of %s is not allowed", nnp, name, f.Runtime.Name)
					}
				}
			}
		}
		if slices.Contains(Allowed(p), "setuid") == nnp {
			t.Errorf("noNewPrivileges %t: setuid is wrong in %v", nnp, Allowed(p))
		}
	}
	r.Boundary = BoundaryExecve
	fromExecve, why := build(t, exact, r)
	if slices.Equal(Allowed(alone), Allowed(fromExecve)) {
		t.Error("a recording from the execve on has no calls of the runtime")
	}
	for _, e := range why.Entries {
		if e.Name == "fstatfs" && (len(e.Reasons) != 1 || !strings.Contains(e.Reasons[0].Caller, "runc 1.1.5")) {
			t.Errorf("the reason of fstatfs is %+v", e.Reasons)
		}
	}
}
