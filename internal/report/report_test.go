package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	junit "github.com/joshdk/go-junit"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/extension"
	"golang.org/x/net/html"

	"github.com/seccompgen/seccompgen/internal/verify"
	"github.com/seccompgen/seccompgen/profile"
	"github.com/seccompgen/seccompgen/test/golden"
)

// hostile is what a test can be called, and what a program can be called.
const hostile = "Test/<script>window.pwned=1</script>|a\\|b`c``@all\n[x](javascript:1)\x01\"'&{{.}}"

func number(t *testing.T, name string) uint32 {
	t.Helper()
	nr, ok := profile.Number(specs.ArchX86_64, name)
	if !ok {
		t.Fatalf("no call %s", name)
	}
	return nr
}

// failed is a verification that has everything to show: denials with and without stacks, changed tests, hostile names.
func failed(t *testing.T) Input {
	t.Helper()
	call := func(phase profile.Phase, name string, runs []string, callers ...profile.Caller) profile.Syscall {
		return profile.Syscall{Phase: phase, ABI: specs.ArchX86_64, Nr: number(t, name), Runs: runs, Callers: callers}
	}
	all := []string{"a", "b", "c", "d"}
	rec := &profile.Recording{
		ID: "a", Complete: true, Runtime: profile.Runtime{Name: "runc", Version: "1.1.5"}, Kernel: "6.18.0", Boundary: profile.BoundaryFilter,
		Workload: profile.Workload{Package: "example.com/mod/<pkg>", Module: "example.com/mod", Go: "go1.26.0", Args: []string{"-test.short"}},
		Runs:     []profile.Run{{ID: "a"}, {ID: "b"}, {ID: "c"}, {ID: "d"}},
		Syscalls: []profile.Syscall{
			call(profile.PhaseRuntime, "close", all, profile.Caller{Comm: "runc:[2:INIT]"}),
			call(profile.PhaseWorkload, "read", all, profile.Caller{Comm: "pkg.test", Stack: []string{"os.ReadFile"}}),
			call(profile.PhaseWorkload, "flock", all, profile.Caller{Comm: "pkg.test", Test: "TestLock"}),
			call(profile.PhaseWorkload, "fstat", all[:3], profile.Caller{Comm: "pkg.test", Test: "TestLock"}, profile.Caller{Comm: "pkg.test", Test: hostile}),
			call(profile.PhaseWorkload, "tgkill", all[1:2], profile.Caller{Comm: "pkg.test"}),
			call(profile.PhaseWorkload, "mkdirat", all[2:3], profile.Caller{Comm: "pkg.test", Test: hostile}),
		},
	}
	r := &verify.Report{
		Version: 1, Verdict: verify.Fail, Reason: "flock was denied",
		Runs: []verify.Run{{Runtime: rec.Runtime, NoNewPrivileges: true, Exit: 0, Seconds: 0.25}, {Runtime: rec.Runtime, Exit: 1, Seconds: 1.5}},
		Denials: []verify.Denial{
			{
				Run: 2, ABI: specs.ArchX86_64, Nr: number(t, "flock"), Name: "flock", Args: [6]uint64{3, 6}, Action: "errno", Errno: 1, Phase: profile.PhaseWorkload,
				Process: "pkg.test", Caller: "example.com/mod.(*Lock).try", Test: hostile, Stack: []string{"syscall.Syscall", "example.com/mod.(*Lock).try", "<b>f</b>"}, Count: 19, Order: 1,
			},
			{Run: 2, ABI: specs.ArchX86, Nr: 999, Args: [6]uint64{5: 1 << 63}, Action: "kill", Phase: profile.PhaseExec, Process: "<sh>|", Count: 1, Order: 2},
		},
		Tests: []verify.Test{{Run: 2, Name: hostile, Recorded: "pass", Verified: "fail"}, {Run: 2, Name: "TestLock", Recorded: "pass"}},
	}
	r.Profile.Allowed, r.Profile.DockerDefault = 4, 8
	allow := func(names ...string) *specs.LinuxSeccomp {
		return &specs.LinuxSeccomp{
			DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86_64},
			Syscalls: []specs.LinuxSyscall{{Names: names, Action: specs.ActAllow}},
		}
	}
	errno := uint(38)
	return Input{
		Report: r, Profile: allow("close", "fstat", "io_uring_setup", "read"), Docker: allow("chroot", "close", "flock", "fstat", "mount", "ptrace", "read", "umount2"),
		SHA256: strings.Repeat("0123456789abcdef", 4), Recording: rec,
		Why: &profile.Why{
			Version: 1,
			Entries: []profile.Entry{
				{ABI: specs.ArchX86_64, Name: "read", Action: specs.ActAllow, Reasons: []profile.Reason{{Kind: "observed", Text: "made by the workload in 4 of 4 runs", Caller: "os.ReadFile"}}},
				{ABI: specs.ArchX86_64, Name: "clone3", Action: specs.ActErrno, Errno: &errno, Reasons: []profile.Reason{{Kind: "errno", Text: "callers fall back"}}},
			},
			Untested: []profile.Untested{
				{ABI: specs.ArchX86_64, Name: "socket", Functions: []string{"example.com/mod.(*Lock).dial.func1", "syscall.socket"}},
				{ABI: specs.ArchX86_64, Name: "chroot", Functions: []string{"syscall.forkAndExecInChild1"}},
			},
		},
		Coverage: map[string]Statement{"example.com/mod.(*Lock).dial": {Covered: 1, All: 4}},
	}
}

// passed is a verification with nothing beside its outcome.
func passed(t *testing.T) Input {
	in := failed(t)
	r := &verify.Report{Version: 1, Verdict: verify.Pass, Reason: "no denials and the same test results in 1 of 1 runs", Runs: in.Report.Runs[:1], Denials: []verify.Denial{}, Tests: []verify.Test{}}
	return Input{Report: r, Profile: in.Profile}
}

func encode(t *testing.T, in Input, name string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := New(in).Write(name, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestGolden(t *testing.T) {
	for name, make := range map[string]func(*testing.T) Input{"failed": failed, "passed": passed} {
		for ext := range writers {
			got := encode(t, make(t), "x"+ext)
			for range 20 {
				if again := encode(t, make(t), "x"+ext); !bytes.Equal(got, again) {
					t.Fatalf("%s%s differs from one time to the next", name, ext)
				}
			}
			golden.Check(t, filepath.Join("testdata", name+ext), got)
		}
	}
}

func TestCheck(t *testing.T) {
	for _, path := range []string{"r", "r.pdf", "r.HTML", ".", "html"} {
		if err := Check(path); err == nil || !strings.Contains(err.Error(), "its name must end in .html, .json, .xml (JUnit) or .md") {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// TestSchema holds the documented schema and the output together, and tries that the schema can refuse at all.
func TestSchema(t *testing.T) {
	schema, err := jsonschema.NewCompiler().Compile("../../docs/reference/report.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, in := range []Input{failed(t), passed(t)} {
		if err := schema.Validate(decode(t, encode(t, in, "x.json"))); err != nil {
			t.Error(err)
		}
	}
	for _, damage := range []func(map[string]any){
		func(r map[string]any) { delete(r, "verdict") },
		func(r map[string]any) { r["verdict"] = "perhaps" },
		func(r map[string]any) { r["profileSHA256"] = "00" },
		func(r map[string]any) { r["denials"].([]any)[0].(map[string]any)["args"] = []any{1} },
		func(r map[string]any) { r["saturation"].(map[string]any)["all"].(map[string]any)["chance"] = 0 },
		func(r map[string]any) { r["untested"].([]any)[0].(map[string]any)["what"] = 1 },
	} {
		report := decode(t, encode(t, failed(t), "x.json")).(map[string]any)
		damage(report)
		if schema.Validate(report) == nil {
			t.Errorf("the schema takes %v", report)
		}
	}
	// Every key that this package adds to verify's report is described.
	described := schema.Properties
	for key := range decode(t, encode(t, failed(t), "x.json")).(map[string]any) {
		if described[key] == nil {
			t.Errorf("docs/reference/report.schema.json does not describe %q", key)
		}
	}
}

func decode(t *testing.T, data []byte) any {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestJUnit reads the report with a library that CI systems' tools use.
func TestJUnit(t *testing.T) {
	type counts struct{ Tests, Failed, Error int }
	verdict := func(in Input) counts {
		suites, err := junit.Ingest(encode(t, in, "x.xml"))
		if err != nil {
			t.Fatal(err)
		}
		var c counts
		for _, s := range suites {
			c.Tests, c.Failed, c.Error = c.Tests+s.Totals.Tests, c.Failed+s.Totals.Failed, c.Error+s.Totals.Error
		}
		return c
	}
	bad := failed(t)
	if got, want := verdict(bad), (counts{7, 5, 0}); got != want { // run 1: two cases pass; run 2: 2 denials, 2 tests; the verdict
		t.Errorf("failed: %+v, want %+v", got, want)
	}
	if got, want := verdict(passed(t)), (counts{3, 0, 0}); got != want {
		t.Errorf("passed: %+v, want %+v", got, want)
	}
	unclear := passed(t)
	unclear.Report.Verdict, unclear.Report.Reason = verify.Inconclusive, "the deadline"
	if got, want := verdict(unclear), (counts{3, 0, 1}); got != want {
		t.Errorf("inconclusive: %+v, want %+v", got, want)
	}
	suites, err := junit.Ingest(encode(t, bad, "x.xml"))
	if err != nil {
		t.Fatal(err)
	}
	run := suites[1]
	if got := run.Tests[0]; got.Name != "flock (X86_64, EPERM)" || !strings.Contains(got.Error.Error(), "(*Lock).try") {
		t.Errorf("the denied call is %+v", got)
	}
	if got, want := run.Tests[2].Name, strings.ReplaceAll(hostile, "\x01", "\ufffd"); got != want {
		t.Errorf("the test is %q, want %q", got, want)
	}
}

// TestMarkdown renders the comment as a pull request shows it, and looks at what became of hostile names.
func TestMarkdown(t *testing.T) {
	var b bytes.Buffer
	if err := goldmark.New(goldmark.WithExtensions(extension.GFM)).Convert(encode(t, failed(t), "x.md"), &b); err != nil {
		t.Fatal(err)
	}
	page, err := html.Parse(&b)
	if err != nil {
		t.Fatal(err)
	}
	widths := map[int]int{}
	for n := range page.Descendants() {
		switch n.Data {
		case "script", "a", "b", "img":
			t.Errorf("a hostile name made an element %s", n.Data)
		case "tr":
			cells := 0
			for c := range n.ChildNodes() {
				if c.Type == html.ElementNode {
					cells++
				}
			}
			widths[cells]++
		}
	}
	if want := map[int]int{8: 3, 3: 3}; fmt.Sprint(widths) != fmt.Sprint(want) {
		t.Errorf("rows by their cells: %v, want %v", widths, want)
	}
	for text, want := range map[string]string{"": "–", "\n": "–", "a|b": "`a\\|b`", "`": "`` ` ``", "a\nb": "`a b`", "\xff": "`\ufffd`"} {
		if got := code(text); got != want {
			t.Errorf("code(%q) = %q, want %q", text, got, want)
		}
	}
	many := failed(t)
	many.Report.Tests[1].Verified = "fail"
	many.Report.Tests = slices.Repeat(many.Report.Tests[1:], 50)
	if text := string(encode(t, many, "x.md")); strings.Count(text, "`TestLock`") != most || !strings.Contains(text, "and 30 more.") {
		t.Error("a long table was not cut, or does not say so")
	}
}

// TestPageIsWhole: nothing from elsewhere, no script, every section there.
func TestPageIsWhole(t *testing.T) {
	for name, in := range map[string]Input{"failed": failed(t), "passed": passed(t)} {
		page, err := html.Parse(bytes.NewReader(encode(t, in, "x.html")))
		if err != nil {
			t.Fatal(err)
		}
		ids := map[string]bool{}
		for n := range page.Descendants() {
			if n.Type == html.ElementNode && slices.Contains([]string{"script", "iframe", "object", "base", "form", "img", "a"}, n.Data) {
				t.Errorf("%s: an element %s", name, n.Data)
			}
			for _, a := range n.Attr {
				if (a.Key == "src" || a.Key == "href") && !strings.HasPrefix(a.Val, "data:") || strings.HasPrefix(a.Key, "on") {
					t.Errorf("%s: %s has %s=%q", name, n.Data, a.Key, a.Val)
				}
				if a.Key == "id" {
					if ids[a.Val] {
						t.Errorf("%s: the id %s stands twice", name, a.Val)
					}
					ids[a.Val] = true
				}
			}
		}
		for _, id := range []string{"verdict", "denials", "runs", "docker", "tests", "saturation", "untested"} {
			if !ids[id] {
				t.Errorf("%s: no section %s", name, id)
			}
		}
	}
}

func TestCoverage(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module example.com/m.v2\n\ngo 1.26\n",
		"a.go": "package m\n\nfunc F(x int) int {\n\tif x > 0 {\n\t\treturn 1\n\t}\n\treturn func() int { return 2 }()\n}\n\n" +
			"type T[P any] struct{}\n\nfunc (t *T[P]) M() {\n\tprintln()\n}\n\nfunc asm()\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const cover = "mode: set\nexample.com/m.v2/a.go:3.19,4.11 1 1\nexample.com/m.v2/a.go:4.11,6.3 1 1\nexample.com/m.v2/a.go:7.2,7.20 1 0\nexample.com/m.v2/a.go:7.20,7.30 1 0\nexample.com/m.v2/a.go:12.20,14.2 1 0\n"
	got, err := ReadCoverage(t.Context(), strings.NewReader(cover), dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]Statement{"example.com/m.v2.F": {2, 4}, "example.com/m.v2.(*T).M": {0, 1}}, got); diff != "" {
		t.Error(diff)
	}
	for symbol, want := range map[string]string{
		"example.com/m%2ev2.F":                    "example.com/m.v2.F",
		"example.com/m%2ev2.F.func1":              "example.com/m.v2.F",
		"example.com/m%2ev2.F.func1.2":            "example.com/m.v2.F",
		"example.com/m%2ev2.F.gowrap1":            "example.com/m.v2.F",
		"example.com/m%2ev2.(*T[...]).M-fm":       "example.com/m.v2.(*T).M",
		"example.com/m%2ev2.(*T[go.shape.int]).M": "example.com/m.v2.(*T).M",
		"syscall.forkAndExecInChild1":             "syscall.forkAndExecInChild1",
		"example.com/m.init.0":                    "example.com/m.init",
	} {
		if got := plain(symbol); got != want {
			t.Errorf("plain(%q) = %q, want %q", symbol, got, want)
		}
	}
	for text, want := range map[string]string{"nonsense": "cover profile: ", "mode: set\nexample.com/none/a.go:1.1,2.2 1 1\n": "find the sources of the cover profile: go list: "} {
		if _, err := ReadCoverage(t.Context(), strings.NewReader(text), dir); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestSectionsSayWhatIsMissing: a report without inputs does not look like one with nothing to say.
func TestSectionsSayWhatIsMissing(t *testing.T) {
	text := string(encode(t, passed(t), "x.html"))
	for _, want := range []string{"give the recording to verify, with --recording", "with --report-why", "Not compared."} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	in := failed(t)
	in.Recording.Runs = in.Recording.Runs[:1]
	for i := range in.Recording.Syscalls {
		in.Recording.Syscalls[i].Runs = []string{"a"}
	}
	for _, format := range []string{"x.html", "x.md"} {
		if text := string(encode(t, in, format)); !strings.Contains(text, "one recorded run, which says nothing of the next one") {
			t.Errorf("%s does not say that one run says nothing", format)
		}
	}
	var report map[string]any
	if err := json.Unmarshal(encode(t, in, "x.json"), &report); err != nil {
		t.Fatal(err)
	}
	if _, has := report["saturation"].(map[string]any)["all"]; has {
		t.Error("an estimate from one run")
	}
}
