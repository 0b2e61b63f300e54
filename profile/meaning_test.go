package profile

import (
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// A condition that stands twice makes alternatives of all: runc and crun count the indexes before they compare conditions.
func TestRepeatedConditions(t *testing.T) {
	socket, _ := Number(x64, "socket")
	twice := allow(t, entry("socket", "ALLOW", eq("0", "1")+","+eq("0", "1")+","+eq("1", "1")))
	once := allow(t, entry("socket", "ALLOW", eq("0", "1")+","+eq("1", "1")))
	for args, want := range map[[6]uint64]bool{{1, 1}: true, {2, 1}: true, {1, 2}: true, {2, 2}: false} {
		if got := Resolve(twice).Decide(x64, socket, args).reach() == 2; got != want {
			t.Errorf("socket%v: %v, want %v", args, got, want)
		}
	}
	if d := Diff(once, twice, x64); !d.Wider {
		t.Errorf("the difference is %+v", d)
	}
}

// i386's old mmap passes its arguments in memory: a condition on them is void there, and holds elsewhere.
func TestVoidConditions(t *testing.T) {
	arches := `"architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86"]`
	noExec := `{"index":2,"value":4,"valueTwo":0,"op":"SCMP_CMP_MASKED_EQ"}`
	exec := `{"index":2,"value":4,"valueTwo":4,"op":"SCMP_CMP_MASKED_EQ"}`
	limited := parse(t, `{"defaultAction":"SCMP_ACT_ERRNO",`+arches+`,"syscalls":[`+entry("mmap", "ALLOW", noExec)+`]}`)
	free := parse(t, `{"defaultAction":"SCMP_ACT_ERRNO",`+arches+`,"syscalls":[`+entry("mmap", "ALLOW", "")+`]}`)
	denied := parse(t, `{"defaultAction":"SCMP_ACT_ALLOW",`+arches+`,"syscalls":[`+entry("mmap", "ERRNO", exec)+`]}`)
	for name, p := range map[string]*specs.LinuxSeccomp{"allowed": limited, "denied": denied} {
		a, err := About(p, nil, "mmap")
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(a.ABIs[0].Because, "void") || !strings.Contains(a.ABIs[1].Because, "is void") || !strings.HasPrefix(a.ABIs[1].Answer, "allowed") || strings.Contains(a.ABIs[1].Answer, " if ") {
			t.Errorf("%s: %+v", name, a)
		}
	}
	socket := parse(t, `{"defaultAction":"SCMP_ACT_ERRNO",`+arches+`,"syscalls":[`+entry("socket", "ALLOW", noExec)+`]}`)
	for p, want := range map[*specs.LinuxSeccomp]string{limited: "mmap", socket: "socket", free: ""} {
		if r := Resolve(p); strings.Join(r.Voids(i386), " ") != want || r.Voids(x64) != nil {
			t.Errorf("void are %q and %q, want %q on i386", r.Voids(i386), r.Voids(x64), want)
		}
	}
	d := Diff(limited, free, x64)
	if len(d.Changes) != 1 || !slices.Equal(d.Changes[0].ABIs, []specs.Arch{x64}) {
		t.Errorf("only x86-64 is wider: %+v", d)
	}
	x := Explain(limited, nil)
	if !slices.ContainsFunc(x.Entries, func(e Entry) bool { return e.ABI == i386 && len(e.Reasons) == 1 && e.Reasons[0].Text == void }) {
		t.Errorf("explain does not say that the condition is void: %+v", x.Entries)
	}
	// Build keeps the condition, since x86-64 has it, and says where it is void.
	r := recording(t, "a", with(call(t, PhaseWorkload, x64, "mmap"), []uint32{0, 0, 0}), call(t, PhaseWorkload, i386, "read"))
	_, w := build(t, BuildOptions{}, r)
	if !slices.ContainsFunc(w.Entries, func(e Entry) bool {
		return e.Name == "mmap" && slices.ContainsFunc(e.Reasons, func(r Reason) bool { return strings.Contains(r.Text, "is void on SCMP_ARCH_X86") })
	}) {
		t.Error("why.json does not say that mmap's condition is void on i386")
	}
}

// A default that lets through closes nothing.
func TestOpenDefaults(t *testing.T) {
	other := allow(t, `{"names":["read","ptrace","splice"],"action":"SCMP_ACT_ALLOW"}`)
	for _, action := range []string{"ALLOW", "LOG"} {
		p := parse(t, `{"defaultAction":"SCMP_ACT_`+action+`","architectures":["SCMP_ARCH_X86_64"],"syscalls":[{"names":["splice"],"action":"SCMP_ACT_ERRNO"},{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}`)
		c := Compare(p, other)
		if len(c.Closed) != 1 || c.Closed[0].Name != "splice" || c.Allowed < 300 || c.Other != 3 || !slices.Contains(c.Only, "mount") {
			t.Errorf("%s: closed %v, %d allowed of %d", action, c.Closed, c.Allowed, c.Other)
		}
		if len(c.Wider) == 0 || c.Wider[0].What != "default" {
			t.Errorf("%s: wider %+v", action, c.Wider)
		}
		if all := Allowed(p); !slices.Contains(all, "mount") || slices.Contains(all, "splice") || len(all) != c.Allowed {
			t.Errorf("%s: %d allowed, compare counts %d", action, len(all), c.Allowed)
		}
		if a, err := About(p, nil, "mount"); err != nil || !a.ABIs[0].Allowed {
			t.Errorf("%s: mount: %+v, %v", action, a, err)
		}
	}
}

func TestPlaceOfBadJSON(t *testing.T) {
	for text, want := range map[string]string{
		"\xef\xbb\xbf{}":                         "line 1, column 1: a byte order mark",
		"{\n  // no\n}":                          "line 2, column 3: invalid character '/'",
		"{\"defaultAction\": \"SCMP_ACT_ERRNO\"": "line 1, column 34: unexpected end",
	} {
		if _, err := ReadProfile(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want an error with %q", text, err, want)
		}
	}
}
