package scmp

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// randomProfile makes a profile with what people write and nobody should: indexes that come twice, entries of one call that
// overlap, the same call with different actions, calls that i386 makes through others.
func randomProfile(rng *rand.Rand) *specs.LinuxSeccomp {
	pick := func(n int) int { return rng.IntN(n) }
	actions := []specs.LinuxSeccompAction{specs.ActAllow, specs.ActErrno, specs.ActLog, specs.ActTrap, specs.ActKillProcess, specs.ActKill}
	names := []string{"socket", "mmap", "select", "ioctl", "prctl", "clone", "socketcall", "msgsnd", "read"}
	ops := []specs.LinuxSeccompOperator{specs.OpEqualTo, specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpGreaterThan, specs.OpGreaterEqual, specs.OpMaskedEqual}
	p := &specs.LinuxSeccomp{
		DefaultAction: actions[pick(len(actions))],
		Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}[:1+pick(3)],
	}
	action := actions[pick(len(actions))] // mostly one
	for range 1 + pick(4) {
		s := specs.LinuxSyscall{Names: []string{names[pick(len(names))]}, Action: action}
		if pick(4) == 0 {
			s.Action = actions[pick(len(actions))]
		}
		if errno := uint(pick(40)); s.Action == specs.ActErrno && pick(2) == 0 {
			s.ErrnoRet = &errno
		}
		for range pick(4) {
			s.Args = append(s.Args, specs.LinuxSeccompArg{Index: uint(pick(3)), Value: uint64(pick(4)), ValueTwo: uint64(pick(4)), Op: ops[pick(len(ops))]})
		}
		p.Syscalls = append(p.Syscalls, s)
	}
	return p
}

// What Decide says is what the filter that libseccomp makes says, on all ABIs: conditions that come twice are alternatives, those
// of two entries too. Two kinds of difference are left: entries with different actions that hold at once, where the choice
// is libseccomp's, and its known fault with comparisons that several rules share, which Check is there to find.
func checkRandom(t *testing.T, seed uint64) (differs bool) {
	t.Helper()
	p := randomProfile(rand.New(rand.NewPCG(seed, 1)))
	wrong, err := Check(p, seed%2 == 0)
	if err != nil { // the same rule with another action: libseccomp refuses it, and runtimes with it
		if !strings.Contains(err.Error(), "file exists") {
			t.Fatalf("seed %d: %v", seed, err)
		}
		return false
	}
	comparisons := 0
	for _, s := range p.Syscalls {
		comparisons += len(s.Args)
	}
	for _, w := range wrong {
		if !w.Overlap && comparisons < 2 {
			t.Fatalf("seed %d: %v", seed, w)
		}
	}
	return len(wrong) > 0
}

func FuzzDecide(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(func(t *testing.T, seed uint64) { checkRandom(t, seed) })
}

func TestDecideAgreesWithFilters(t *testing.T) {
	const all, most = 150, 150 / 20
	differ := 0
	for seed := range uint64(all) {
		if checkRandom(t, seed) {
			differ++
		}
	}
	if differ > most {
		t.Errorf("%d of %d random profiles compile to something else: more than libseccomp's faults explain", differ, all)
	}
}

// Of one condition a rule, alternatives included, libseccomp makes what the profile says, always.
func TestRepeatedConditionsCompile(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 5))
	for range 200 {
		s := specs.LinuxSyscall{Names: []string{"socket"}, Action: specs.ActAllow}
		for range 2 + rng.IntN(3) {
			s.Args = append(s.Args, specs.LinuxSeccompArg{Index: uint(rng.IntN(2)), Value: uint64(rng.IntN(3)), Op: specs.OpEqualTo})
		}
		p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX32}, Syscalls: []specs.LinuxSyscall{s}}
		if wrong, err := Check(p, true); err != nil || len(wrong) > 0 {
			t.Fatalf("%+v: %v, %v", s.Args, wrong, err)
		}
	}
}
