package profile

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestWhyVersion1 reads what earlier releases wrote.
func TestWhyVersion1(t *testing.T) {
	w, err := ReadWhy(strings.NewReader(`{"version":1,"profile":"","entries":[{"abi":"SCMP_ARCH_X86_64","name":"exit","action":"SCMP_ACT_ALLOW","reasons":[
		{"kind":"runtime","text":"t"},{"kind":"closure","text":"t"},{"kind":"closure","text":"t","caller":"p.test"},{"kind":"observed","text":"t"}]}],"untested":[]}`))
	if err != nil {
		t.Fatal(err)
	}
	var kinds []Kind
	for _, r := range w.Entries[0].Reasons {
		kinds = append(kinds, r.Kind)
	}
	if want := []Kind{KindOCIRuntime, KindImplicit, KindGoRuntime, KindObserved}; !slices.Equal(kinds, want) || w.Version != WhyVersion {
		t.Errorf("got %q of version %d, want %q", kinds, w.Version, want)
	}
	if _, err := ReadWhy(strings.NewReader(`{"version":3}`)); err == nil || !strings.Contains(err.Error(), "versions 1 to 2") {
		t.Errorf("got %v", err)
	}
}

func TestWhyRoundTrip(t *testing.T) {
	p, w := build(t, BuildOptions{}, sample(t))
	var b bytes.Buffer
	if err := w.Write(&b); err != nil {
		t.Fatal(err)
	}
	back, err := ReadWhy(bytes.NewReader(b.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(w, back, cmpopts.IgnoreUnexported(Reason{})); diff != "" {
		t.Error(diff)
	}
	data, err := Encode(p)
	if err != nil {
		t.Fatal(err)
	}
	if err := back.Explains(data); err != nil {
		t.Error(err)
	}
	if err := back.Explains(append(data, '\n')); !errors.Is(err, ErrOtherProfile) {
		t.Errorf("other bytes: got %v, want ErrOtherProfile", err)
	}
	for text, want := range map[string]string{
		"": "not whole JSON", `{"version":7}`: "version 7, this seccompgen reads versions 1 to 2", `{"version":1,"what":2}`: `unknown field "what"`,
	} {
		if _, err := ReadWhy(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want an error with %q", text, err, want)
		}
	}
}

// Every entry of a profile has a reason, and Explain shows it.
func TestExplainHasEveryEntry(t *testing.T) {
	p, w := build(t, BuildOptions{}, sample(t))
	x := Explain(p, w)
	for _, bare := range Explain(p, nil).Entries {
		a, err := About(p, w, bare.Name)
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(a.ABIs, func(o ABIAnswer) bool { return o.ABI == bare.ABI })
		if a.ABIs[i].Because == "" || strings.Contains(a.ABIs[i].Because, "no why.json") {
			t.Errorf("%s %s has no reason: %+v", bare.ABI, bare.Name, a.ABIs[i])
		}
		if !slices.ContainsFunc(x.Entries, func(e Entry) bool { return e.ABI == bare.ABI && e.Name == bare.Name && len(e.Reasons) > 0 }) {
			t.Errorf("%s %s has no row with a reason", bare.ABI, bare.Name)
		}
	}
	if len(x.Entries) <= len(w.Entries) {
		t.Error("ptrace on i386 is in the filter, and not in the table")
	}
}

func TestAbout(t *testing.T) {
	r := sample(t)
	socket, _ := Number(x64, "socket")
	r.Programs[0].Static = &Static{Reachable: []StaticCall{{ABI: x64, Nr: socket, Functions: []string{"net.socket", "syscall.Socket"}}}, GoRuntime: []StaticCall{}, Unresolved: []string{}}
	p, w := build(t, BuildOptions{}, r)
	for call, want := range map[string][]string{ // ABI answer: because
		"openat":  {"X86_64 allowed: it is listed", "X86 allowed: it is listed"},
		"_llseek": {"X86_64 -: this ABI has no such call", "X86 allowed: it is listed"},
		"ptrace":  {"X86_64 allowed: it is listed", "X86 allowed: a profile lists names for all its architectures together: this ABI has it for the sake of another one"},
		"clone3":  {"X86_64 ENOSYS: it is listed", "X86 ENOSYS: it is listed"},
		"435":     {"X86_64 ENOSYS: it is listed", "X86 ENOSYS: it is listed"},
		"mount":   {"X86_64 EPERM (default): no run made it, and no rule of the policy adds it", "X86 EPERM (default): no run made it, and no rule of the policy adds it"},
		"socket":  {"X86_64 EPERM (default): the binary's code can make it, no run did: test that code, or keep it refused", "X86 EPERM (default): no run made it, and no rule of the policy adds it"},
		"file_getattr": {
			"X86_64 EPERM (default): no run made it, and no rule of the policy adds it; runc answers ENOSYS, since 468 is above the highest number that the profile lists",
			"X86 EPERM (default): no run made it, and no rule of the policy adds it; runc answers ENOSYS, since 468 is above the highest number that the profile lists",
		},
	} {
		a, err := About(p, w, call)
		if err != nil {
			t.Errorf("%s: %v", call, err)
			continue
		}
		var got []string
		for _, o := range a.ABIs {
			got = append(got, strings.TrimPrefix(string(o.ABI), "SCMP_ARCH_")+" "+o.Answer+": "+o.Because)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", call, diff)
		}
	}
	a, _ := About(p, w, "socket")
	if diff := cmp.Diff([]string{"net.socket", "syscall.Socket"}, a.ABIs[0].Functions); diff != "" {
		t.Error(diff)
	}
	for call, want := range map[string]string{"opemat": `no ABI has a system call "opemat"`, "clone4": "did you mean clone?", "5": "2 names"} {
		if _, err := About(p, w, call); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error with %q", call, err, want)
		}
	}
}

// A condition on a call that i386 can also make through another one is not what it seems.
func TestAboutMultiplexed(t *testing.T) {
	p := parse(t, `{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86"],"syscalls":[`+entry("socket", "ALLOW", eq("0", "1"))+`]}`)
	a, err := About(p, nil, "socket")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(a.ABIs[0].Because, "socketcall") || !strings.Contains(a.ABIs[1].Because, "socketcall makes it too") {
		t.Errorf("got %+v", a)
	}
	if v := Resolve(p).Decide(i386, 102, [6]uint64{1}); v.Action != specs.ActAllow {
		t.Errorf("socketcall(SOCKET) is %s: libseccomp allows it", v)
	}
	if a, err := About(p, nil, "accept"); err != nil || a.ABIs[1].Because == "" || a.ABIs[1].Answer != "EPERM (default)" {
		t.Errorf("accept, which i386 has through socketcall only: %+v, %v", a, err)
	}
}

func TestCompare(t *testing.T) {
	p := allow(t, `{"names":["read","ptrace","bpf","_llseek"],"action":"SCMP_ACT_ALLOW"}`)
	other := allow(t, `{"names":["read","write","splice","ptrace","_llseek"],"action":"SCMP_ACT_ALLOW"},`+entry("personality", "ALLOW", eq("0", "0")))
	c := Compare(p, other)
	if c.Allowed != 3 || c.Other != 5 || !slices.Equal(c.Only, []string{"bpf"}) {
		t.Errorf("got %+v", c)
	}
	names := func(all []Dangerous) string {
		var s []string
		for _, d := range all {
			s = append(s, d.Name)
		}
		return strings.Join(s, " ")
	}
	if names(c.Closed) != "splice personality" || names(c.Open) != "ptrace bpf" || !c.Closed[1].Limited {
		t.Errorf("closed %v, open %v", c.Closed, c.Open)
	}
}

func TestDangersExist(t *testing.T) {
	seen := map[string]bool{}
	for _, d := range dangers {
		for _, name := range d.names {
			if !existsSomewhere(name) || seen[name] || d.why == "" {
				t.Errorf("%s does not exist, stands twice, or has no reason", name)
			}
			seen[name] = true
		}
	}
}

func TestMeaningOfErrnosAndActions(t *testing.T) {
	for _, c := range []struct {
		v    Verdict
		want string
	}{
		{Verdict{specs.ActErrno, 38}, "ENOSYS"},
		{Verdict{specs.ActErrno, 77}, "errno 77"},
		{Verdict{specs.ActErrno, 0}, "success without the call"},
		{Verdict{specs.ActTrap, 0}, "SIGSYS"},
		{Verdict{specs.ActLog, 0}, "allowed and logged"},
		{Verdict{"SCMP_ACT_NEW", 0}, "SCMP_ACT_NEW"},
	} {
		if got := c.v.String(); got != c.want {
			t.Errorf("%+v is %q, want %q", c.v, got, c.want)
		}
	}
}

// TestSocketIsNotWider: conditions on whole arguments are compared with Docker's orders, and not taken for wider.
func TestSocketIsNotWider(t *testing.T) {
	full := func(index uint, value uint64) specs.LinuxSeccompArg {
		return specs.LinuxSeccompArg{Index: index, Value: whole, ValueTwo: value, Op: specs.OpMaskedEqual}
	}
	docker := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{x64}, Syscalls: []specs.LinuxSyscall{
		{Names: []string{"socket"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 0, Value: 38, Op: specs.OpLessThan}}},
		{Names: []string{"socket"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 0, Value: 39, Op: specs.OpEqualTo}}},
	}}
	for domain, want := range map[uint64]bool{2: false, 10: false, 39: false, 38: true, 40: true} {
		p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{x64}, Syscalls: []specs.LinuxSyscall{
			{Names: []string{"socket"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{
				full(0, domain), {Index: 1, Value: noSock, ValueTwo: 1, Op: specs.OpMaskedEqual}, full(2, 0),
			}},
		}}
		if c := Compare(p, docker); (len(c.Wider) > 0) != want {
			t.Errorf("domain %d: wider: %+v", domain, c.Wider)
		}
	}
}
