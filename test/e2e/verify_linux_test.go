package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seccompgen/seccompgen/internal/verify"
	"github.com/seccompgen/seccompgen/profile"
	"github.com/seccompgen/seccompgen/test/lab"
)

const tiny = `package tiny

import (
	"os"
	"testing"
)

func TestRead(t *testing.T) {
	if _, err := os.ReadFile("/etc/passwd"); err != nil {
		t.Fatal(err)
	}
}
`

// without writes the profile in a file anew, without a call.
func without(t testing.TB, path, call string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := profile.ReadProfile(f)
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for i := range p.Syscalls {
		found = found || slices.Contains(p.Syscalls[i].Names, call)
		p.Syscalls[i].Names = slices.DeleteFunc(p.Syscalls[i].Names, func(name string) bool { return name == call })
	}
	p.Syscalls = slices.DeleteFunc(p.Syscalls, func(s specs.LinuxSyscall) bool { return len(s.Names) == 0 })
	if !found {
		t.Fatalf("the profile does not list %s: nothing to take out", call)
	}
	data, err := profile.Encode(p)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "profile.json")
	if err := os.WriteFile(out, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return out
}

// inModule is command in a module's directory.
func inModule(t testing.TB, exit int, dir string, env []string, args ...string) result {
	t.Helper()
	cmd := command(t, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	return expect(t, exit, cmd)
}

// TestMissingCall: a profile passes as it was built, and without one call verify fails and names that call first. Under
// every runtime, as some calls are the runtime's own before they are the workload's.
func TestMissingCall(t *testing.T) {
	needRoot(t)
	dir := module(t, "tiny_test.go", tiny)
	for _, rt := range ociRuntimes {
		for _, nnp := range []bool{true, false} {
			for _, deny := range []string{"errno", "kill"} {
				if deny == "kill" && !nnp {
					continue
				}
				t.Run(fmt.Sprintf("%s no_new_privs=%v %s", rt.name, nnp, deny), func(t *testing.T) {
					t.Parallel()
					flags := []string{"--runtime", rt.find(t), fmt.Sprintf("--no-new-privileges=%v", nnp)}
					files := t.TempDir()
					recording, built := filepath.Join(files, "recording.json"), filepath.Join(files, "profile.json")
					inModule(t, 0, dir, nil, slices.Concat([]string{"record", "-o", recording, "."}, flags)...)
					seccompgen(t, 0, "build", "--deny", deny, "-o", built, recording)
					verify := func(t *testing.T, exit int, path string) string {
						t.Helper()
						return inModule(t, exit, dir, nil, slices.Concat([]string{"verify", "--profile", path, "--recording", recording, "."}, flags)...).stdout
					}
					if said := verify(t, 0, built); !strings.HasPrefix(said, "pass: no denials") {
						t.Errorf("verify does not say pass:\n%s", said)
					}
					for _, call := range []string{"openat", "exit_group", "futex", "execve"} {
						said := verify(t, 2, without(t, built, call))
						rows := strings.Split(said, "\n")
						if !strings.HasPrefix(rows[0], "CALL ") || !strings.HasPrefix(rows[1], call+" ") || !strings.Contains(said, "\nfail: "+call+" was denied") {
							t.Errorf("without %s the first row is another call's:\n%s", call, said)
						}
						if answer := map[string]string{"errno": " EPERM ", "kill": " killed "}[deny]; !strings.Contains(rows[1], answer) {
							t.Errorf("without %s its answer is not%s:\n%s", call, answer, said)
						}
					}
				})
			}
		}
	}
}

// TestFlaky: a test that fails now and then by itself is no verdict on the profile. Often, control runs without the profile
// show it; rarely, further runs under it.
func TestFlaky(t *testing.T) {
	for name, every := range map[string]int{"often": 2, "rarely": 50} {
		t.Run(name, func(t *testing.T) { flakyTest(t, every) })
	}
}

func flakyTest(t *testing.T, every int) {
	needRoot(t)
	t.Parallel()
	dir, shared := module(t, "flaky_test.go", fmt.Sprintf(`package flaky

import (
	"os"
	"testing"
)

func TestSteady(t *testing.T) {}

func TestFlaky(t *testing.T) {
	runs, err := os.ReadFile("/shared/runs")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("/shared/runs", append(runs, 'x'), 0o600); err != nil {
		t.Fatal(err)
	}
	if len(runs)%%%d == 1 {
		t.Error("this run fails")
	}
}
`, every)), t.TempDir()
	begin := func(runs string) {
		if err := os.WriteFile(filepath.Join(shared, "runs"), []byte(runs), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	begin("")
	files := t.TempDir()
	recording, built := filepath.Join(files, "recording.json"), filepath.Join(files, "profile.json")
	// Two runs show the calls of success and of failure; a recording of the first alone tells its results.
	inModule(t, 0, dir, nil, "record", "-o", recording, "--runs", "2", "--mount", shared+":/shared", ".")
	seccompgen(t, 0, "build", "-o", built, recording)
	inModule(t, 0, dir, nil, "record", "-o", recording, "--mount", shared+":/shared", ".")
	if got := lab.ReadRecording(t, recording).Tests; got["TestFlaky"] != "pass" || got["TestSteady"] != "pass" {
		t.Fatalf("the third run says %v", got)
	}
	begin("x") // the next run fails
	r := inModule(t, 1, dir, nil, "verify", "--profile", built, "--recording", recording, "--mount", shared+":/shared", "--json", ".")
	report := &verify.Report{}
	if err := json.Unmarshal([]byte(r.stdout), report); err != nil {
		t.Fatal(err)
	}
	if report.Verdict != verify.Inconclusive || !strings.Contains(report.Reason, "the test is flaky") || !strings.Contains(report.Reason, "TestFlaky says fail") {
		t.Errorf("verdict %s: %s", report.Verdict, report.Reason)
	}
	if len(report.Denials) != 0 || len(report.Tests) != 1 || report.Tests[0].Name != "TestFlaky" {
		t.Errorf("denials %v, tests %v", report.Denials, report.Tests)
	}
	if !strings.HasPrefix(r.stderr, "seccompgen: error: inconclusive: ") {
		t.Errorf("stderr does not say so: %s", r.stderr)
	}
}

// TestBrokenTest: a test that fails in every run is the same with the profile and without.
func TestBrokenTest(t *testing.T) {
	needRoot(t)
	t.Parallel()
	dir := module(t, "broken_test.go", "package broken\n\nimport \"testing\"\n\nfunc TestBroken(t *testing.T) { t.Fatal(\"always\") }\n")
	files := t.TempDir()
	recording, built := filepath.Join(files, "recording.json"), filepath.Join(files, "profile.json")
	inModule(t, 0, dir, nil, "record", "-o", recording, ".")
	seccompgen(t, 0, "build", "-o", built, recording)
	for _, flags := range [][]string{nil, {"--recording", recording}} {
		if said := inModule(t, 0, dir, nil, append([]string{"verify", "--profile", built, "."}, flags...)...).stdout; !strings.HasPrefix(said, "pass: ") {
			t.Errorf("verify says:\n%s", said)
		}
	}
}

// Test386: the calls of a 32-bit program are recorded, named, allowed and denied as such.
func Test386(t *testing.T) {
	needRoot(t)
	lab.NeedCompat(t)
	t.Parallel()
	dir, env := module(t, "tiny_test.go", tiny), []string{"GOARCH=386", "CGO_ENABLED=0"}
	files := t.TempDir()
	recording, built := filepath.Join(files, "recording.json"), filepath.Join(files, "profile.json")
	inModule(t, 0, dir, env, "record", "-o", recording, ".")
	seen := map[specs.Arch]int{}
	for _, s := range lab.ReadRecording(t, recording).Syscalls {
		if s.Phase == profile.PhaseWorkload {
			seen[s.ABI]++
		}
	}
	if seen[specs.ArchX86] < 10 {
		t.Fatalf("the workload's calls by ABI: %v", seen)
	}
	seccompgen(t, 0, "build", "-o", built, recording)
	if said := inModule(t, 0, dir, env, "verify", "--runs", "3", "--profile", built, "."); !strings.HasPrefix(said.stdout, "pass: no denials and the same test results in 3 of 3 runs") {
		t.Errorf("verify says %s", said)
	}
	// mmap2 exists on i386 only, so that nothing before the program needs it.
	said := inModule(t, 2, dir, env, "verify", "--profile", without(t, built, "mmap2"), "--recording", recording, ".").stdout
	if row := strings.Fields(strings.Split(said, "\n")[1]); row[0] != "mmap2" || row[1] != "X86" {
		t.Errorf("without mmap2 verify says:\n%s", said)
	}
}
