package profile

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestBuildPrograms: what is not known of a program costs the profile its narrowness, what is known gives it what is true.
func TestBuildPrograms(t *testing.T) {
	analyzed := func(path string) Program {
		flock, _ := Number(x64, "flock")
		return Program{Path: path, SHA256: hash(path), Go: "go1.26.8", Static: &Static{GoRuntime: []StaticCall{{ABI: x64, Nr: flock, Text: "of the test", Functions: []string{"runtime.f"}}}}}
	}
	for name, c := range map[string]struct {
		programs []Program
		phase    Phase
		abi      specs.Arch
		policy   Policy
		table    string // for whom tgkill is allowed, which is in the table of Go
		analysis string // for whom flock is, which is in analyses
		unknown  int
	}{
		"nothing known":     {phase: PhaseWorkload, abi: x64, table: "programs that are not known", unknown: 1},
		"not Go":            {programs: notGo, phase: PhaseWorkload, abi: x64},
		"analyzed":          {programs: []Program{analyzed("/s")}, phase: PhaseWorkload, abi: x64, analysis: "/s: runtime.f"},
		"beside a shell":    {programs: []Program{notGo[0], analyzed("/s")}, phase: PhaseWorkload, abi: x64, analysis: "/s: runtime.f"},
		"two":               {programs: []Program{analyzed("/a"), analyzed("/b")}, phase: PhaseExec, abi: x64, analysis: "/a and 1 more: runtime.f"},
		"not analyzed":      {programs: []Program{{Path: "/s", SHA256: hash("s"), Go: "go1.17"}}, phase: PhaseWorkload, abi: x64, table: "/s", unknown: 1},
		"unread":            {programs: []Program{{Path: "/x", Unread: "gone"}, analyzed("/s")}, phase: PhaseWorkload, abi: x64, table: "/x", analysis: "/s: runtime.f", unknown: 1},
		"two unread":        {programs: []Program{{Path: "/x", Unread: "gone"}, {Path: "/y", Unread: "gone"}}, phase: PhaseWorkload, abi: x64, table: "/x and 1 more", unknown: 2},
		"of what joined":    {programs: []Program{{Path: "/x", Unread: "gone"}}, phase: PhaseExec, abi: i386, table: "/x", unknown: 1},
		"of another ABI":    {programs: []Program{analyzed("/s")}, phase: PhaseWorkload, abi: i386},
		"exact":             {programs: []Program{{Path: "/x", Unread: "gone"}, analyzed("/s")}, phase: PhaseWorkload, abi: x64, policy: PolicyExact, unknown: 1},
		"nothing, no calls": {phase: PhaseRuntime, abi: x64},
	} {
		t.Run(name, func(t *testing.T) {
			r := recording(t, "a", call(t, c.phase, c.abi, "read"))
			r.Runtime, r.Programs = Runtime{Name: "crun"}, c.programs
			p, why := build(t, BuildOptions{Policy: c.policy}, r)
			for name, want := range map[string]string{"tgkill": c.table, "flock": c.analysis} {
				var callers []string
				for _, e := range why.Entries {
					for _, reason := range e.Reasons {
						if reason.Kind == KindGoRuntime && e.Name == name && e.ABI == c.abi {
							callers = append(callers, reason.Caller)
						}
					}
				}
				if got := strings.Join(callers, ", "); got != want || slices.Contains(Allowed(p), name) != (want != "") {
					t.Errorf("%s is allowed for %q, want %q; it is allowed: %v", name, got, want, Allowed(p))
				}
			}
			if got := len(r.Unanalyzed()); got != c.unknown {
				t.Errorf("%d programs are not known, want %d", got, c.unknown)
			}
		})
	}
}

func TestAddAnalysis(t *testing.T) {
	binary := Program{Path: "/home/s", SHA256: hash("s"), Go: "go1.26.8", Static: &Static{}}
	for name, c := range map[string]struct{ ran, want []Program }{
		"that ran": {
			[]Program{{Path: "/s", SHA256: hash("s"), Go: "go1.26.8", Unread: "too slow"}, notGo[0]},
			[]Program{{Path: "/s", SHA256: hash("s"), Go: "go1.26.8", Static: &Static{}}, notGo[0]},
		},
		"another":       {notGo, []Program{notGo[0], binary}},
		"nothing known": {nil, []Program{{Unread: "the recording does not say what ran"}, binary}},
	} {
		r := recording(t, "a", call(t, PhaseWorkload, x64, "read"))
		r.Programs = slices.Clone(c.ran)
		AddAnalysis([]*Recording{r}, binary)
		if diff := cmp.Diff(c.want, r.Programs); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestVersion1 reads what earlier releases wrote.
func TestVersion1(t *testing.T) {
	const format = `{"version":1,"id":"a","complete":true,"runtime":{"name":"runc"},"kernel":"6.18","boundary":"filter","noNewPrivileges":true,
		"workload":{%s"args":["/bin/s","-x"]},"runs":[{"id":"a","exit":0}],%s"syscalls":[{"phase":"runtime","abi":"SCMP_ARCH_X86_64","nr":1,"runs":["a"]},{"phase":"workload","abi":"SCMP_ARCH_X86_64","nr":0,"runs":["a"]}]}`
	const static = `"static":{"closure":[],"reachable":[],"unresolved":[]},`
	for name, c := range map[string]struct {
		workload, static string
		want             []Program
		unknown          int
	}{
		"by the hook": {"", "", nil, 1},
		"a package":   {`"package":"example.com/a/p","go":"go1.26.8","sha256":"` + hash("p") + `",`, static, []Program{{Path: "p.test", SHA256: hash("p"), Go: "go1.26.8", Static: &Static{GoRuntime: []StaticCall{}, Reachable: []StaticCall{}, Unresolved: []string{}}}}, 0},
		"a command":   {`"sha256":"` + hash("s") + `",`, static, []Program{{Path: "/bin/s", SHA256: hash("s"), Static: &Static{GoRuntime: []StaticCall{}, Reachable: []StaticCall{}, Unresolved: []string{}}}}, 0},
		"no analysis": {`"package":"p","go":"go1.26.8",`, "", []Program{{Path: "p.test", Go: "go1.26.8"}}, 1},
	} {
		r, err := ReadRecording(strings.NewReader(fmt.Sprintf(format, c.workload, c.static)))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(c.want, r.Programs); diff != "" || len(r.Unanalyzed()) != c.unknown {
			t.Errorf("%s: %d not known (-want +got):\n%s", name, len(r.Unanalyzed()), diff)
		}
		if r.Syscalls[0].Phase != PhaseRuntime {
			t.Errorf("%s: got phase %s", name, r.Syscalls[0].Phase)
		}
		if _, err := ReadRecording(strings.NewReader(encode(t, r))); err != nil {
			t.Errorf("%s: written anew it is refused: %v", name, err)
		}
	}
	v2 := func(keys string) string {
		return strings.NewReplacer(`:1,`, `:2,`, `"runtime","abi"`, `"oci-runtime","abi"`).Replace(fmt.Sprintf(format, "", keys))
	}
	for text, want := range map[string]string{
		fmt.Sprintf(format, "", `"programs":[],`): `version 1 has no key "programs"`,
		v2(static):                        `unknown field "static"`,
		v2(`"programs":[{"path":"/a"}],`): "neither read nor does it say why not",
		v2(`"programs":[{"path":"/a","sha256":"5F"}],`): "which is not one",
	} {
		if _, err := ReadRecording(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}
