package profile

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

var update = flag.Bool("update", false, "write the golden files anew")

const x64, i386 = specs.ArchX86_64, specs.ArchX86

// call makes a call by its name.
func call(t testing.TB, phase Phase, abi specs.Arch, name string, runs ...string) Syscall {
	t.Helper()
	nr, ok := Number(abi, name)
	if !ok {
		t.Fatalf("%s has no %s", abi, name)
	}
	return Syscall{Phase: phase, ABI: abi, Nr: nr, Name: name, Runs: runs, Callers: []Caller{{Comm: name + "-er"}}}
}

// with gives a call arguments: those that were seen, or none for more than could be kept.
func with(s Syscall, seen ...[]uint32) Syscall {
	s.Args = NewArguments(ArgumentMasks(s.ABI, s.Nr), seen, seen == nil)
	return s
}

func hash(of string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(of))) }

// notGo is what ran where nothing of Go did.
var notGo = []Program{{Path: "/bin/true", SHA256: hash("true")}}

func recording(t testing.TB, id string, calls ...Syscall) *Recording {
	t.Helper()
	r := &Recording{
		Version: RecordingVersion, ID: id, Complete: true, Runtime: Runtime{Name: "runc", Version: "1.1.5"}, Kernel: "6.18", Boundary: BoundaryFilter,
		NoNewPrivileges: true, Workload: Workload{Package: "example.com/p", Go: "go1.26.8", Args: []string{"-test.short"}},
		Tests: map[string]string{"TestA": "pass"}, Runs: []Run{{ID: id, Seconds: 1.5}}, Programs: []Program{{Path: "/p.test", SHA256: hash("p"), Go: "go1.26.8"}}, Syscalls: calls,
	}
	for i := range r.Syscalls {
		if r.Syscalls[i].Runs == nil {
			r.Syscalls[i].Runs = []string{id}
		}
	}
	return r
}

// sample is a recording with something of everything that may be complete.
func sample(t testing.TB) *Recording {
	r := recording(t, "a",
		call(t, PhaseRuntime, x64, "execve"), call(t, PhaseRuntime, x64, "fstatfs"),
		call(t, PhaseWorkload, x64, "openat"), call(t, PhaseWorkload, i386, "_llseek"), call(t, PhaseWorkload, i386, "openat"),
		call(t, PhaseExec, x64, "ptrace"))
	denied := call(t, PhaseWorkload, x64, "mount")
	denied.Runs = []string{"a"}
	denied.Denied = &Denied{Action: "errno", Errno: 1, Count: 3, Order: 1, Args: [6]uint64{1, 2}}
	r.Syscalls = append(r.Syscalls, denied)
	r.Unknown = []Unknown{{ABI: x64, Nr: 1000, Count: 2}}
	return r
}

// arguments is a recording of calls whose arguments count: seen with one, with several, with all there are, with too many,
// in two phases, and on an ABI that hides them.
func arguments(t testing.TB, more ...Syscall) *Recording {
	return recording(t, "a", append(more,
		with(call(t, PhaseWorkload, x64, "socket"), []uint32{2, 1, 0}, []uint32{1, 2, 0}),
		with(call(t, PhaseWorkload, x64, "clone"), []uint32{0}, []uint32{0x20000}), with(call(t, PhaseRuntime, x64, "prctl"), []uint32{4}),
		with(call(t, PhaseRuntime, x64, "fcntl"), []uint32{0, 1}), with(call(t, PhaseWorkload, x64, "fcntl"), []uint32{0, 1030}),
		with(call(t, PhaseWorkload, x64, "ioctl")), with(call(t, PhaseWorkload, x64, "mprotect"), []uint32{0, 0, 0}, []uint32{0, 0, 4}))...)
}

func encode(t testing.TB, r *Recording) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestNamesAndNumbersAgree(t *testing.T) {
	for _, abi := range ABIs() {
		n := 0
		for nr := range uint32(1024) {
			name := Name(abi, nr)
			if name == "" {
				continue
			}
			n++
			if back, ok := Number(abi, name); !ok || Name(abi, back) != name {
				t.Errorf("%s: %d is %s, which is %d", abi, nr, name, back)
			}
		}
		if n < 250 {
			t.Errorf("%s has %d names", abi, n)
		}
	}
	if Name("SCMP_ARCH_S390X", 1) != "" {
		t.Error("an ABI without a table has names")
	}
}

func TestRecordingRoundTrip(t *testing.T) {
	r := sample(t)
	text := encode(t, r)
	back, err := ReadRecording(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r, back); diff != "" {
		t.Error(diff)
	}
	for range 20 {
		rand.Shuffle(len(r.Syscalls), func(i, j int) { r.Syscalls[i], r.Syscalls[j] = r.Syscalls[j], r.Syscalls[i] })
		if encode(t, r) != text {
			t.Fatal("other bytes for another order of the same calls")
		}
	}
}

func TestReadRecordingRefuses(t *testing.T) {
	good := encode(t, sample(t))
	for name, c := range map[string]struct{ text, want string }{
		"nothing":          {"", "not whole JSON"},
		"truncated":        {good[:len(good)/2], "not whole JSON"},
		"another version":  {strings.Replace(good, `"version": 2`, `"version": 7`, 1), "has version 7, this seccompgen reads versions 1 to 2"},
		"unknown key":      {strings.Replace(good, `"kernel"`, `"colonel"`, 1), `unknown field "colonel"`},
		"two values":       {good + good, "not whole JSON"},
		"no runs":          {strings.Replace(good, `"runs": [`+"\n    {\n      \"id\": \"a\",\n      \"exit\": 0,\n      \"seconds\": 1.5\n    }\n  ]", `"runs": []`, 1), "no runs"},
		"phase":            {strings.Replace(good, `"phase": "exec"`, `"phase": "later"`, 1), `phase "later"`},
		"ABI":              {strings.Replace(good, `"abi": "SCMP_ARCH_X86"`, `"abi": "SCMP_ARCH_VAX"`, 1), `ABI "SCMP_ARCH_VAX"`},
		"name of another":  {strings.Replace(good, `"name": "ptrace"`, `"name": "read"`, 1), "is ptrace, not"},
		"number unknown":   {strings.Replace(good, `"nr": 101,`+"\n      \"name\": \"ptrace\"", `"nr": 999`, 1), "belongs under unknown"},
		"boundary":         {strings.Replace(good, `"boundary": "filter"`, `"boundary": "dawn"`, 1), "boundary"},
		"complete and not": {strings.Replace(good, `"complete": true`, `"complete": true, "dropped": {"fork": 1}`, 1), "says complete"},
		"stray run":        {strings.Replace(good, `"runs": [`+"\n        \"a\"", `"runs": [`+"\n        \"b\"", 1), "not listed"},
	} {
		_, err := ReadRecording(strings.NewReader(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, c.want)
		}
	}
}

func TestMerge(t *testing.T) {
	a := recording(t, "a", call(t, PhaseWorkload, x64, "openat"), call(t, PhaseWorkload, x64, "read"))
	b := recording(t, "b", call(t, PhaseWorkload, x64, "read"), call(t, PhaseWorkload, x64, "write"))
	b.Tests = map[string]string{"TestA": "fail", "TestB": "skip"}
	b.Drop(DropFork, 2)
	m, err := Merge(a, b)
	if err != nil {
		t.Fatal(err)
	}
	if m.Complete || m.Dropped[DropFork] != 2 || !errors.Is(m.Incomplete(), ErrIncomplete) {
		t.Errorf("an incomplete run makes a complete whole: %+v", m)
	}
	got := map[string]int{}
	for _, s := range m.Syscalls {
		got[s.Name] = len(s.Runs)
	}
	if diff := cmp.Diff(map[string]int{"openat": 1, "read": 2, "write": 1}, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"TestA": "fail", "TestB": "skip"}, m.Tests); diff != "" {
		t.Error(diff)
	}
	other := recording(t, "c")
	other.Runtime.Version = "1.5.2"
	if _, err := Merge(a, other); err == nil {
		t.Error("recordings under two runtimes were merged into one")
	}
	if a.Tests["TestB"] != "" || len(a.Syscalls[0].Runs) != 1 {
		t.Error("merging changed its input")
	}
}

// random makes a recording of random calls that passes every check.
func random(t testing.TB, rng *rand.Rand, id string) *Recording {
	r := recording(t, id)
	r.Programs = nil
	for range rng.IntN(4) {
		p := Program{Path: "/bin/" + string(rune('a'+rng.IntN(3)))}
		switch rng.IntN(4) {
		case 0:
			p.Unread = "gone"
			if rng.IntN(2) == 0 {
				p.File = &File{Inode: rng.Uint64N(2)}
			}
		case 1: // known by an earlier run
			p.SHA256, p.Go = hash(p.Path), "go1.26.8"
		case 2:
			p.SHA256, p.Go = hash(p.Path), "go1.26.8"
			p.Static = &Static{GoRuntime: []StaticCall{}, Reachable: []StaticCall{{ABI: x64, Nr: rng.Uint32N(3), Functions: []string{"f"}}}, Unresolved: []string{}}
		case 3:
			p.SHA256, p.Size = hash(fmt.Sprint(rng.IntN(2))), 17
		}
		r.Programs = append(r.Programs, p)
	}
	for range rng.IntN(20) {
		nr := uint32(rng.IntN(335))
		if rng.IntN(3) == 0 { // one whose arguments count
			nr, _ = Number(x64, []string{"socket", "clone", "mprotect", "fcntl", "prctl", "madvise"}[rng.IntN(6)])
		}
		s := Syscall{Phase: Phases()[rng.IntN(3)], ABI: []specs.Arch{x64, i386}[rng.IntN(2)], Nr: nr, Runs: []string{id}}
		if s.Name = Name(s.ABI, nr); s.Name == "" || slices.ContainsFunc(r.Syscalls, func(o Syscall) bool { return o.key() == s.key() }) {
			continue
		}
		if rng.IntN(4) == 0 {
			s.Denied = &Denied{Action: "errno", Errno: 1, Count: 1 + rng.Uint64N(3), Args: [6]uint64{rng.Uint64N(3)}, Order: 1 + rng.IntN(3)}
		}
		s.Callers = []Caller{{Comm: string(rune('a' + rng.IntN(3)))}}
		if masks := ArgumentMasks(s.ABI, nr); masks != nil && s.Denied == nil {
			var seen [][]uint32
			for v := range 1 + rng.Uint32N(9) {
				value := make([]uint32, len(masks))
				for i, m := range masks {
					value[i] = v & m
				}
				if !slices.ContainsFunc(seen, func(o []uint32) bool { return slices.Equal(o, value) }) {
					seen = append(seen, value)
				}
			}
			s.Args = []*Arguments{nil, NewArguments(masks, nil, true), NewArguments(masks, seen, false)}[min(rng.IntN(8), 2)]
		}
		r.Syscalls = append(r.Syscalls, s)
	}
	if rng.IntN(3) == 0 {
		r.Unknown = []Unknown{{ABI: x64, Nr: 1000 + uint32(rng.IntN(3)), Count: 1 + rng.Uint64N(4)}}
	}
	if rng.IntN(5) == 0 {
		r.Drop(DropFork, 1+rng.Uint64N(3))
	}
	r.Tests = map[string]string{"TestA": []string{"pass", "fail", "skip"}[rng.IntN(3)]}
	return r
}

func TestMergeLaws(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	merge := func(rs ...*Recording) *Recording {
		m, err := Merge(rs...)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	for range 200 {
		a, b, c := random(t, rng, "a"), random(t, rng, "b"), random(t, rng, "c")
		want := encode(t, merge(a, b, c))
		for name, m := range map[string]*Recording{
			"commutative": merge(c, b, a), "associative left": merge(merge(a, b), c), "associative right": merge(a, merge(b, c)),
			"idempotent": merge(a, b, c, b, merge(a, b)),
		} {
			if diff := cmp.Diff(want, encode(t, m)); diff != "" {
				t.Fatalf("merge is not %s:\n%s", name, diff)
			}
		}
		if _, err := ReadRecording(strings.NewReader(want)); err != nil {
			t.Fatalf("what merge made is refused: %v", err)
		}
	}
}

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
			golden(t, name+".json", data)
			golden(t, name+".why.json", why.Bytes())
		})
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (go test ./profile -update writes it anew):\n%s", path, diff)
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

func TestReadArgumentsRefuses(t *testing.T) {
	for name, a := range map[string]Arguments{
		"no masks":             {Values: [][]uint32{{}}},
		"no values":            {Masks: []uint32{1}},
		"values and full":      {Masks: []uint32{1}, Values: [][]uint32{{1}}, Full: true},
		"another length":       {Masks: []uint32{1}, Values: [][]uint32{{1, 0}}},
		"more than six":        {Masks: make([]uint32, 7), Values: [][]uint32{make([]uint32, 7)}},
		"bits beyond the mask": {Masks: []uint32{1}, Values: [][]uint32{{2}}},
	} {
		r := recording(t, "a", call(t, PhaseWorkload, x64, "unshare"))
		r.Syscalls[0].Args = &a
		if _, err := ReadRecording(strings.NewReader(encode(t, r))); err == nil {
			t.Errorf("%s: read", name)
		}
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

// The runtimes that a profile is for have what is implicit too, where they are written in Go.
func TestFloorsClosure(t *testing.T) {
	r := recording(t, "a", call(t, PhaseWorkload, x64, "read"))
	r.Programs, r.Boundary = notGo, BoundaryExecve
	for name, want := range map[string]bool{"runc": true, "crun": false} {
		r.Runtime = Runtime{Name: name, Version: map[string]string{"runc": "1.1.5+ds1", "crun": "1.8.1"}[name]}
		if p, _ := build(t, BuildOptions{}, r); slices.Contains(Allowed(p), "sched_yield") != want {
			t.Errorf("%s: sched_yield is allowed or not: %v", name, Allowed(p))
		}
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

func TestReadProfile(t *testing.T) {
	p, _ := build(t, BuildOptions{}, sample(t))
	data, err := Encode(p)
	if err != nil {
		t.Fatal(err)
	}
	back, err := ReadProfile(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(p, back); diff != "" {
		t.Error(diff)
	}
	for text, want := range map[string]string{
		"": "not whole JSON", `{"defaultAction":`: "not whole JSON", `{}`: "no defaultAction", `{"defaultAction":"SCMP_ACT_ERRNO","archMap":[]}`: "Docker's format",
		`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":[],"action":"SCMP_ACT_ALLOW"}]}`: "without names", `[]`: "not runtime-spec",
	} {
		if _, err := ReadProfile(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want an error with %q", text, err, want)
		}
	}
}

// A row of the policy that no ABI has a number for would do nothing.
func TestPolicyNamesExist(t *testing.T) {
	var refused []string
	rows := map[who][]string{}
	for _, row := range implicit {
		rows[row.who] = append(rows[row.who], row.name)
	}
	for _, row := range enosys() {
		refused = append(refused, row.name)
		if row.text == "" || row.source == "" {
			t.Errorf("%s has no reason or no source", row.name)
		}
	}
	all := append(slices.Collect(maps.Values(rows)), refused)
	for _, name := range slices.Concat(all...) {
		if !slices.ContainsFunc(ABIs(), func(abi specs.Arch) bool { _, ok := Number(abi, name); return ok }) {
			t.Errorf("no ABI has %s", name)
		}
	}
	for _, names := range all {
		if n := len(slices.Compact(slices.Sorted(slices.Values(names)))); n != len(names) {
			t.Errorf("%d of %d names of the policy stand twice", len(names)-n, len(names))
		}
	}
}

func FuzzReadRecording(f *testing.F) {
	f.Add([]byte(encode(f, sample(f))))
	f.Add([]byte(`{"version":1}`))
	f.Add([]byte(`{"version":2,"id":"a","runs":[{"id":"a"}],"programs":[{"path":"/a","unread":"gone"},{"path":"/a","unread":"gone"}]}`))
	f.Add([]byte(`{"version":1,"id":"a","runs":[{"id":"a"}],"syscalls":[{"phase":"workload","abi":"SCMP_ARCH_X86_64","nr":4294967295,"denied":{"action":"trap"},"runs":["a"]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ReadRecording(bytes.NewReader(data))
		if err != nil {
			return
		}
		text := encode(t, r)
		back, err := ReadRecording(strings.NewReader(text))
		if err != nil {
			t.Fatalf("what was read and written is refused: %v\n%s", err, text)
		}
		if again := encode(t, back); again != text {
			t.Fatalf("not stable:\n%s", cmp.Diff(text, again))
		}
		p, w, err := Build([]*Recording{r}, BuildOptions{AllowIncomplete: true})
		if err == nil && (len(Allowed(p)) == 0 || len(w.Entries) == 0) {
			t.Fatal("an empty profile without an error")
		}
	})
}

func ExampleRecording_Incomplete() {
	r := &Recording{Complete: true}
	r.Drop(DropFork, 3)
	fmt.Println(r.Incomplete())
	// Output: recording is incomplete: children that the kernel had no memory to follow (3)
}
