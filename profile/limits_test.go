package profile

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Sixteen values of an argument are conditions, seventeen are any. Each is a rule that every call of that name is compared with.
func TestMostConditions(t *testing.T) {
	for n, want := range map[int]bool{maxRules: false, maxRules + 1: true} {
		var seen [][]uint32
		for v := range uint32(n) {
			seen = append(seen, []uint32{1000 + v, 1, 0})
		}
		p, _ := build(t, BuildOptions{Policy: PolicyExact}, recording(t, "a", with(call(t, PhaseWorkload, x64, "socket", "a"), seen...)))
		nr, _ := Number(x64, "socket")
		r := Resolve(p)
		for _, v := range seen {
			if got := r.Decide(x64, nr, [6]uint64{uint64(v[0]), 1}); got.Action != specs.ActAllow {
				t.Errorf("of %d values %d gets %s", n, v[0], got)
			}
		}
		if got := r.Decide(x64, nr, [6]uint64{1, 1}); (got.Action == specs.ActAllow) != want {
			t.Errorf("beside %d values another one gets %s", n, got)
		}
	}
}

// What has too many conditions to be compared is taken for wider, whichever of the two allows more.
func TestTooManyConditions(t *testing.T) {
	var entries []string
	for v := range 8 {
		var args []string
		for index := range 6 {
			args = append(args, eq(fmt.Sprint(index), fmt.Sprint(10*v)))
		}
		entries = append(entries, entry("socket", "ALLOW", strings.Join(args, ",")))
	}
	many, fewer := allow(t, strings.Join(entries, ",")), allow(t, strings.Join(entries[1:], ","))
	for _, pair := range [][2]*specs.LinuxSeccomp{{many, fewer}, {fewer, many}} {
		d := Diff(pair[0], pair[1], x64)
		if !d.Wider || len(d.Changes) != 1 || d.Changes[0].Kind != Wider || !strings.Contains(d.Changes[0].Note, "too many conditions to compare") {
			t.Errorf("got %+v", d)
		}
	}
	if d := Diff(many, many, x64); len(d.Changes) > 0 {
		t.Errorf("the same: %+v", d)
	}
}

// A condition on bits that the recorder did not keep says nothing of the recorded call: its denial, which has all bits, does.
func TestConditionsOnOtherBits(t *testing.T) {
	cloexec := uint64(0x80000)
	seen := with(call(t, PhaseWorkload, x64, "socket"), []uint32{2, 1, 0})
	if seen.Args.Masks[1]&uint32(cloexec) != 0 {
		t.Fatal("SOCK_CLOEXEC is kept now: take another bit")
	}
	on := func(index uint, mask, value uint64, op specs.LinuxSeccompOperator) specs.LinuxSeccompArg {
		return specs.LinuxSeccompArg{Index: index, Value: mask, ValueTwo: value, Op: op}
	}
	for name, c := range map[string]struct {
		condition specs.LinuxSeccompArg
		want      int
	}{
		"kept bits, another value": {on(1, 0xf, 2, specs.OpMaskedEqual), 1},
		"kept bits, this value":    {on(1, 0xf, 1, specs.OpMaskedEqual), 0},
		"a bit that was not kept":  {on(1, cloexec, cloexec, specs.OpMaskedEqual), 0},
		"both":                     {on(1, 0xf|cloexec, 2, specs.OpMaskedEqual), 0},
		"no mask":                  {on(0, 1, 0, specs.OpEqualTo), 0},
		"an argument beyond":       {on(5, 0xf, 2, specs.OpMaskedEqual), 0},
	} {
		p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{x64}, Syscalls: []specs.LinuxSyscall{
			{Names: []string{"socket"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{c.condition}},
		}}
		if got := Resolve(p).RefusesArguments(seen); len(got) != c.want {
			t.Errorf("%s: refused %v", name, got)
		}
		p.DefaultAction = specs.ActLog
		if got := Resolve(p).RefusesArguments(seen); len(got) > 0 {
			t.Errorf("%s: a default that lets through refuses %v", name, got)
		}
	}
}

// An entry without conditions takes the place of those with, whichever stands first.
func TestUnconditionalEntries(t *testing.T) {
	nr, _ := Number(x64, "socket")
	all, one := entry("socket", "ALLOW", ""), entry("socket", "LOG", eq("0", "1"))
	for _, entries := range [][]string{{all, one}, {one, all}, {one, all, one}} {
		r := Resolve(allow(t, strings.Join(entries, ",")))
		if got := r.Decide(x64, nr, [6]uint64{1}); got.Action != specs.ActAllow {
			t.Errorf("%v: %s", entries, got)
		}
		if rules := r.Rules("socket"); len(rules) != 1 || len(rules[0].Args) > 0 {
			t.Errorf("%v: rules %v", entries, rules)
		}
	}
}

// Each action has a name of its own, which says what becomes of the caller.
func TestVerdictNames(t *testing.T) {
	errno := uint(38)
	said := map[string]bool{}
	for action, want := range map[specs.LinuxSeccompAction]string{
		specs.ActAllow: "allowed", specs.ActLog: "allowed and logged", specs.ActErrno: "ENOSYS", specs.ActTrace: "tracer (38)", specs.ActNotify: "agent",
		specs.ActTrap: "SIGSYS", specs.ActKillThread: "the thread", specs.ActKillProcess: "the process",
	} {
		got := verdict(action, &errno).String()
		if !strings.Contains(got, want) || said[got] {
			t.Errorf("%s: %s", action, got)
		}
		said[got] = true
	}
	if verdict(specs.ActKill, nil) != verdict(specs.ActKillThread, nil) || verdict(specs.ActErrno, nil).Errno != epermErrno {
		t.Error("SCMP_ACT_KILL is not that of the thread, or an errno that is not named is not EPERM")
	}
}

// What a profile allows by name it allows on all of its ABIs: it is no untested call of any.
func TestUntestedByName(t *testing.T) {
	r := recording(t, "a", call(t, PhaseWorkload, x64, "read"), call(t, PhaseWorkload, i386, "openat"))
	reachable := func(abi specs.Arch, name string) StaticCall {
		nr, _ := Number(abi, name)
		return StaticCall{ABI: abi, Nr: nr, Functions: []string{"f"}}
	}
	r.Programs = []Program{{Path: "/bin/a", SHA256: hash("a"), Go: "go1.26.8", Static: &Static{
		Reachable: []StaticCall{reachable(i386, "read"), reachable(x64, "openat"), reachable(x64, "fsync"), reachable(i386, "fsync")}, Unresolved: []string{},
	}}}
	_, why := build(t, BuildOptions{Policy: PolicyExact}, r)
	by, in := []string{"f"}, []string{"/bin/a"}
	want := []Untested{{ABI: x64, Name: "fsync", Functions: by, Programs: in}, {ABI: i386, Name: "fsync", Functions: by, Programs: in}}
	if diff := cmp.Diff(want, why.Untested); diff != "" {
		t.Error(diff)
	}
}
