package profile

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

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

// The runtimes that a profile is for have what is implicit too, where they are written in Go.
func TestBaselinesOfGo(t *testing.T) {
	r := recording(t, "a", call(t, PhaseWorkload, x64, "read"))
	r.Programs, r.Boundary = notGo, BoundaryExecve
	for name, want := range map[string]bool{"runc": true, "crun": false} {
		r.Runtime = Runtime{Name: name, Version: map[string]string{"runc": "1.1.5+ds1", "crun": "1.8.1"}[name]}
		if p, _ := build(t, BuildOptions{}, r); slices.Contains(Allowed(p), "sched_yield") != want {
			t.Errorf("%s: sched_yield is allowed or not: %v", name, Allowed(p))
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
