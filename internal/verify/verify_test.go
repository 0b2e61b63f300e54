package verify

import (
	"os"
	"strings"
	"testing"

	"github.com/moby/sys/reexec"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seccompgen/seccompgen/profile"
)

func TestMain(m *testing.M) {
	if reexec.Init() { // the child that loads a filter for good
		return
	}
	os.Exit(m.Run())
}

func run(exit int, tests map[string]string, dropped string, denied ...profile.Syscall) *profile.Recording {
	r := &profile.Recording{Complete: true, Runtime: profile.Runtime{Name: "runc"}, Tests: tests, Runs: []profile.Run{{ID: "a", Exit: exit}}, Syscalls: denied}
	r.Syscalls = append(r.Syscalls, profile.Syscall{Phase: profile.PhaseWorkload, ABI: specs.ArchX86_64, Nr: 0, Name: "read"})
	if dropped != "" {
		r.Drop(dropped, 1)
	}
	return r
}

func denial(name string, nr uint32, order int) profile.Syscall {
	return profile.Syscall{
		Phase: profile.PhaseWorkload, ABI: specs.ArchX86_64, Nr: nr, Name: name, Callers: []profile.Caller{{Comm: "x"}},
		Denied: &profile.Denied{Action: "errno", Errno: 1, Count: 2, Order: order},
	}
}

func TestJudge(t *testing.T) {
	pass, fail := map[string]string{"TestA": "pass"}, map[string]string{"TestA": "fail"}
	own := denial("ptrace", 101, 1)
	own.Denied.Own = true
	for name, c := range map[string]struct {
		rec    *profile.Recording
		want   Verdict
		reason string
	}{
		"the same":           {run(0, pass, ""), Pass, ""},
		"a denial":           {run(0, pass, "", denial("openat", 257, 2), denial("futex", 202, 1)), Fail, "futex was denied"},
		"a nameless denial":  {run(0, pass, "", denial("", 999, 1)), Fail, "call number 999 was denied"},
		"not started":        {run(1, nil, profile.DropNotStarted, denial("fstatfs", 138, 1)), Fail, "runc itself needs that call"},
		"another result":     {run(1, fail, ""), Fail, "TestA says fail, and without the profile pass"},
		"no result":          {run(2, nil, ""), Fail, "TestA says nothing"},
		"another exit":       {run(3, pass, ""), Fail, "exit status is 3, and without the profile 0"},
		"the deadline":       {run(137, nil, profile.DropDeadline), Inconclusive, "--timeout"},
		"incomplete":         {run(0, pass, profile.DropFork), Inconclusive, "incomplete"},
		"its own filter":     {run(0, pass, "", own), Pass, ""},
		"entries missed":     {run(0, pass, profile.DropMissed, denial("futex", 202, 1)), Inconclusive, "the kernel may not have shown"},
		"an exit, no entry":  {run(1, fail, profile.DropEntry, denial("futex", 202, 1)), Inconclusive, "seen to end, and not to begin"},
		"deadline, a denial": {run(137, nil, profile.DropDeadline, denial("futex", 202, 1)), Fail, "futex was denied"},
	} {
		r := &Report{}
		baseline := run(0, pass, "")
		r.add(1, c.rec, baseline)
		if got := r.judge(c.rec, baseline); got != c.want || !strings.Contains(r.Reason, c.reason) {
			t.Errorf("%s: %s because %q, want %s with %q", name, got, r.Reason, c.want, c.reason)
		}
		for _, d := range r.Denials {
			if d.Name == "read" {
				t.Errorf("%s: an allowed call is among the denials", name)
			}
		}
	}
}

func TestCheck(t *testing.T) {
	if !Enabled {
		t.Fatal("built without seccomp support: test with -tags seccomp")
	}
	p := &specs.LinuxSeccomp{
		DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86_64},
		Syscalls: []specs.LinuxSyscall{{Names: []string{"read", "write", "exit_group"}, Action: specs.ActAllow}},
	}
	if err := Check(p); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]struct {
		change func(*specs.LinuxSeccomp)
		want   string
	}{
		"a name of nobody": {func(p *specs.LinuxSeccomp) { p.Syscalls[0].Names = []string{"read", "frobnicate"} }, "does not know the name frobnicate"},
		"an action":        {func(p *specs.LinuxSeccomp) { p.DefaultAction = "SCMP_ACT_SHRUG" }, "runc refuses"},
		"an architecture":  {func(p *specs.LinuxSeccomp) { p.Architectures = []specs.Arch{"VAX"} }, "runc refuses"},
	} {
		bad := *p
		bad.Syscalls = []specs.LinuxSyscall{p.Syscalls[0]}
		c.change(&bad)
		if err := Check(&bad); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, c.want)
		}
	}
}
