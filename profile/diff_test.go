package profile

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seccompgen/seccompgen/test/golden"
)

func parse(t testing.TB, text string) *specs.LinuxSeccomp {
	t.Helper()
	p, err := ReadProfile(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return p
}

// allow makes a profile for x86-64 that refuses by default.
func allow(t testing.TB, entries string) *specs.LinuxSeccomp {
	t.Helper()
	return parse(t, `{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64"],"syscalls":[`+entries+`]}`)
}

func entry(name, action, args string) string {
	return `{"names":["` + name + `"],"action":"SCMP_ACT_` + action + `","args":[` + args + `]}`
}

func eq(index, value string) string {
	return `{"index":` + index + `,"value":` + value + `,"op":"SCMP_CMP_EQ"}`
}

func masked(mask, value string) string {
	return `{"index":0,"value":` + mask + `,"valueTwo":` + value + `,"op":"SCMP_CMP_MASKED_EQ"}`
}

func TestDiff(t *testing.T) {
	read := entry("read", "ALLOW", "")
	only := func(index, value string) string { return entry("prctl", "ALLOW", eq(index, value)) }
	for name, c := range map[string]struct {
		a, b *specs.LinuxSeccomp
		want []string // kind what name: note
	}{
		"same":            {allow(t, read), allow(t, read), nil},
		"grouping":        {allow(t, read+","+entry("write", "ALLOW", "")), allow(t, `{"names":["write","read","read"],"action":"SCMP_ACT_ALLOW"}`), nil},
		"default said":    {allow(t, read), allow(t, read+","+entry("mount", "ERRNO", "")), nil},
		"wider":           {allow(t, read), allow(t, read+","+entry("write", "ALLOW", "")), []string{"wider call write"}},
		"narrower":        {allow(t, read+","+entry("dup", "ALLOW", "")), allow(t, read), []string{"narrower call dup", "changed default : under runc, for unlisted calls from 1 to 32: write, open, close, stat, fstat, lstat, poll, lseek, ..."}},
		"logged":          {allow(t, read), allow(t, entry("read", "LOG", "")), []string{"changed call read"}},
		"errno":           {allow(t, read+","+entry("clone3", "ERRNO", "")), allow(t, read+`,{"names":["clone3"],"action":"SCMP_ACT_ERRNO","errnoRet":38}`), []string{"changed call clone3", "changed default : under runc, for unlisted calls from 1 to 435: write, open, close, stat, fstat, lstat, poll, lseek, ..."}},
		"condition gone":  {allow(t, only("0", "15")), allow(t, entry("prctl", "ALLOW", "")), []string{"wider call prctl: prctl(arg0=0x0): allowed, was EPERM"}},
		"condition new":   {allow(t, entry("prctl", "ALLOW", "")), allow(t, only("0", "15")), []string{"narrower call prctl: prctl(arg0=0x0): EPERM, was allowed"}},
		"condition other": {allow(t, only("0", "15")), allow(t, only("0", "16")), []string{"wider call prctl: prctl(arg0=0x10): allowed, was EPERM; prctl(arg0=0xf): EPERM, was allowed"}},
		"other argument":  {allow(t, only("0", "1")), allow(t, entry("prctl", "ALLOW", eq("0", "1")+","+eq("2", "7"))), []string{"narrower call prctl: prctl(arg0=0x1, arg2=0x0): EPERM, was allowed"}},
		"two as one":      {allow(t, only("0", "1")+","+only("0", "2")), allow(t, entry("prctl", "ALLOW", eq("0", "2")+","+eq("0", "1"))), nil},
		"order":           {allow(t, entry("prctl", "ALLOW", `{"index":0,"value":1,"op":"SCMP_CMP_LE"}`)), allow(t, only("0", "0")+","+only("0", "1")), nil},
		"order wider":     {allow(t, entry("prctl", "ALLOW", `{"index":0,"value":1,"op":"SCMP_CMP_LE"}`)), allow(t, entry("prctl", "ALLOW", `{"index":0,"value":3,"op":"SCMP_CMP_LT"}`)), []string{"wider call prctl: prctl(arg0=0x2): allowed, was EPERM"}},
		"mask":            {allow(t, entry("clone", "ALLOW", masked("2114060288", "0"))), allow(t, entry("clone", "ALLOW", masked("2113929216", "0"))), []string{"wider call clone: clone(arg0=0x20000): allowed, was EPERM"}},
		"unconditional":   {allow(t, entry("prctl", "ALLOW", "")+","+only("0", "1")), allow(t, entry("prctl", "ALLOW", "")), nil},
		"architecture":    {allow(t, read), parse(t, `{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86","SCMP_ARCH_X86_64"],"syscalls":[`+read+`]}`), []string{"wider architecture SCMP_ARCH_X86"}},
		"native":          {allow(t, read), parse(t, `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[`+read+`]}`), nil},
		"default":         {allow(t, read), parse(t, `{"defaultAction":"SCMP_ACT_KILL","architectures":["SCMP_ARCH_X86_64"],"syscalls":[`+read+`]}`), []string{"changed default"}},
		"default log":     {allow(t, read), parse(t, `{"defaultAction":"SCMP_ACT_LOG","architectures":["SCMP_ARCH_X86_64"],"syscalls":[`+read+`]}`), []string{"wider default"}},
		"denylist":        {parse(t, `{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],"syscalls":[`+entry("mount", "ERRNO", "")+`]}`), parse(t, `{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"]}`), []string{"wider call mount"}},
		"flags":           {allow(t, read), parse(t, `{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64"],"flags":["SECCOMP_FILTER_FLAG_LOG"],"syscalls":[`+read+`]}`), []string{"changed flag flags", "changed flag SECCOMP_FILTER_FLAG_LOG"}},
		"unknown name":    {allow(t, read), allow(t, read+","+entry("sys_from_tomorrow", "ALLOW", "")), []string{"wider call sys_from_tomorrow"}},
		"foreign name":    {allow(t, read), allow(t, read+","+entry("_llseek", "ALLOW", "")), nil},
		"kill is kill":    {allow(t, entry("read", "KILL", "")), allow(t, entry("read", "KILL_THREAD", "")), nil},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			d := Diff(c.a, c.b, x64)
			for _, ch := range d.Changes {
				line := strings.Join([]string{ch.Kind, ch.What, ch.Name}, " ")
				if ch.Note != "" {
					line += ": " + ch.Note
				}
				got = append(got, strings.TrimSpace(line))
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
			if d.Wider != slices.ContainsFunc(d.Changes, func(c Change) bool { return c.Kind == Wider }) {
				t.Errorf("wider is %v", d.Wider)
			}
			if back := Diff(c.b, c.a, x64); (len(back.Changes) == 0) != (len(d.Changes) == 0) {
				t.Errorf("backwards %+v", back.Changes)
			}
		})
	}
}

func TestDiffOf32Bits(t *testing.T) {
	a := parse(t, `{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86"],"syscalls":[`+entry("prctl", "ALLOW", eq("0", "1"))+`]}`)
	b := parse(t, `{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86"],"syscalls":[`+entry("prctl", "ALLOW", eq("0", "4294967297"))+`]}`)
	d := Diff(a, b, x64)
	if len(d.Changes) != 1 || !slices.Equal(d.Changes[0].ABIs, []specs.Arch{x64}) {
		t.Errorf("the lower half is the same: got %+v", d.Changes)
	}
}

// Whatever Diff says of conditions, random arguments agree with it.
func TestDiffAgreesWithDecide(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	ops := []specs.LinuxSeccompOperator{specs.OpEqualTo, specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpGreaterThan, specs.OpGreaterEqual, specs.OpMaskedEqual}
	random := func() *specs.LinuxSeccomp {
		p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{x64}}
		for range 1 + rng.IntN(3) {
			s := specs.LinuxSyscall{Names: []string{"prctl"}, Action: []specs.LinuxSeccompAction{specs.ActAllow, specs.ActTrap}[rng.IntN(2)]}
			for i := range uint(2) {
				if rng.IntN(2) == 0 {
					s.Args = append(s.Args, specs.LinuxSeccompArg{Index: i, Op: ops[rng.IntN(len(ops))], Value: rng.Uint64N(8), ValueTwo: rng.Uint64N(8)})
				}
			}
			p.Syscalls = append(p.Syscalls, s)
		}
		return p
	}
	nr, _ := Number(x64, "prctl")
	wider, equal := 0, 0
	for range 3000 {
		a, b := random(), random()
		d := Diff(a, b, x64)
		ra, rb := Resolve(a), Resolve(b)
		more, other := false, false
		for x := range uint64(17) {
			for y := range uint64(17) {
				was, is := ra.Decide(x64, nr, [6]uint64{x, y}), rb.Decide(x64, nr, [6]uint64{x, y})
				more, other = more || is.reach() > was.reach(), other || is != was
			}
		}
		unsure := slices.ContainsFunc(d.Changes, func(c Change) bool { return strings.Contains(c.Note, "taken for wider") })
		if more && !d.Wider || other && len(d.Changes) == 0 || !unsure && (d.Wider != more || len(d.Changes) > 0 != other) {
			x, _ := json.Marshal([]any{a, b, d})
			t.Fatalf("wider %v, other %v: %s", more, other, x)
		}
		if more {
			wider++
		}
		if !other {
			equal++
		}
	}
	if wider < 500 || equal < 50 {
		t.Errorf("%d wider, %d equal of 3000: the test tests little", wider, equal)
	}
}

func TestDiffOfGoldens(t *testing.T) {
	exact, _ := build(t, BuildOptions{Policy: PolicyExact}, sample(t))
	robust, _ := build(t, BuildOptions{}, sample(t))
	d := Diff(exact, robust, x64)
	if !d.Wider || d.Count(Narrower) != 0 || d.Count(Changed) == 0 {
		t.Errorf("from exact to robust: %+v", d)
	}
	if back := Diff(robust, exact, x64); back.Wider || back.Count(Narrower) != d.Count(Wider) {
		t.Errorf("from robust to exact: %+v", back)
	}
	data, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "testdata/exact-robust.diff.json", append(data, '\n'))
}
