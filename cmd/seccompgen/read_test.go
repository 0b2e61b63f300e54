package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seccompgen/seccompgen/internal/scmp"
	"github.com/seccompgen/seccompgen/profile"
)

// call runs a command line, and returns both streams and the exit code.
func call(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), append([]string{"seccompgen"}, args...), &out, &errs)
	return out.String(), errs.String(), code
}

// golden is a profile that package profile tests.
func ofProfile(name string) string { return filepath.Join("..", "..", "profile", "testdata", name) }

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// recorded writes a small recording and returns its path.
func recorded(t *testing.T, dir string) string {
	t.Helper()
	r := &profile.Recording{
		ID: "a", Complete: true, Runtime: profile.Runtime{Name: "runc"}, Boundary: profile.BoundaryFilter, Runs: []profile.Run{{ID: "a"}},
		Workload: profile.Workload{Package: "example.com/Some/pkg", Go: "go1.26.8", Args: []string{}},
	}
	for _, name := range []string{"openat", "read", "execve"} {
		nr, _ := profile.Number(specs.ArchX86_64, name)
		r.Syscalls = append(r.Syscalls, profile.Syscall{Phase: profile.PhaseWorkload, ABI: specs.ArchX86_64, Nr: nr, Runs: []string{"a"}, Callers: []profile.Caller{{Comm: "pkg.test"}}})
	}
	var b bytes.Buffer
	if err := r.Write(&b); err != nil {
		t.Fatal(err)
	}
	return write(t, dir, "recording.json", b.String())
}

func TestBadUse(t *testing.T) {
	exact, missing := ofProfile("exact.json"), filepath.Join(t.TempDir(), "no.json")
	for line, want := range map[string]string{
		"diff":                                        "give two profiles",
		"diff " + exact:                               "give two profiles",
		"diff " + exact + " " + missing:               "no such file",
		"diff --format xml a b":                       `format "xml" is not one of text, markdown`,
		"diff a b -- c":                               "takes nothing after --",
		"explain":                                     "no profile",
		"explain " + missing:                          "no such file",
		"explain " + exact + " read write":            `unexpected argument "write"`,
		"explain --compare podman " + exact:           "is not docker",
		"explain --compare docker " + exact + " read": "leave the system call out",
		"explain " + exact + " opemat":                `no ABI has a system call "opemat"`,
		"explain --why " + ofProfile("robust.why.json") + " " + exact: "why.json explains another profile",
		"inspect":                                    "give a PROFILE or --pid PID",
		"inspect --pid 1 " + exact:                   "give a PROFILE or --pid PID",
		"inspect --runtime lxc " + exact:             `runtime "lxc" is not one of runc, crun`,
		"inspect " + ofProfile("exact.why.json"):     "is not runtime-spec",
		"build --format xml r":                       `format "xml" is not one of [oci docker podman spo pod artifact]`,
		"build --push reg/x r":                       "--push goes with --format artifact",
		"build --format artifact -o - r":             "give -o DIR",
		"build --format artifact -o " + exact + " r": "is not a directory",
	} {
		stdout, stderr, code := call(t, strings.Fields(line)...)
		if code != 1 || stdout != "" || !strings.Contains(stderr, want) {
			t.Errorf("%s: exit %d, stdout %q, stderr %q, want %q", line, code, stdout, stderr, want)
		}
	}
}

func TestDiffCommand(t *testing.T) {
	exact, robust := ofProfile("exact.json"), ofProfile("robust.json")
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{exact, exact}, 0, "the profiles mean the same\n"},
		{[]string{exact, "../../profile/format/testdata/exact.docker.json"}, 0, "the profiles mean the same\n"},
		{[]string{exact, robust}, 2, "wider    futex "},
		{[]string{robust, exact}, 0, "narrower  futex "},
		{[]string{exact, robust, "--format", "markdown"}, 2, "| `futex` | X86_64 X86 | EPERM (default) | allowed |"},
		{[]string{"--json", exact, robust}, 2, `"wider": true`},
	} {
		stdout, stderr, code := call(t, append([]string{"diff"}, c.args...)...)
		if code != c.code || !strings.Contains(stdout, c.want) || (code == 2) != strings.Contains(stderr, "is wider than") {
			t.Errorf("%v: exit %d, stdout %q, stderr %q", c.args, code, stdout, stderr)
		}
	}
	stdout, _, _ := call(t, "diff", "--json", exact, robust)
	var d profile.Difference
	if err := json.Unmarshal([]byte(stdout), &d); err != nil || len(d.Changes) == 0 {
		t.Errorf("got %+v, %v", d, err)
	}
}

func TestExplainCommand(t *testing.T) {
	dir := t.TempDir()
	p := filepath.Join(dir, "profile.json")
	if _, stderr, code := call(t, "build", "-o", p, "--why", filepath.Join(dir, "why.json"), recorded(t, dir)); code != 0 {
		t.Fatal(stderr)
	}
	for _, c := range []struct{ line, want string }{
		{p, "openat             X86_64  allowed     observed    made by the workload in 1 of 1 runs"},
		{p, "every other call: EPERM"},
		{p + " openat", "openat on X86_64 (257): allowed\n  it is listed\n  observed: made by the workload in 1 of 1 runs\n    first caller: pkg.test\n"},
		{p + " mount", "mount on X86_64 (165): EPERM (default)\n  no run made it, and no rule of the policy adds it\n"},
		{p + " clone3 --json", `"answer": "ENOSYS"`},
		{p + " --json", `"default": "EPERM"`},
		{"--compare docker " + p, "Docker's default profile allows "},
		{"--compare docker --json " + p, `"closed": [`},
	} {
		stdout, stderr, code := call(t, append([]string{"explain"}, strings.Fields(c.line)...)...)
		if code != 0 || !strings.Contains(stdout, c.want) || stderr != "" {
			t.Errorf("%s: exit %d, stdout %s, stderr %q, want %q", c.line, code, stdout, stderr, c.want)
		}
	}
	alone := t.TempDir()
	data, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	stdout, stderr, code := call(t, "explain", write(t, alone, "p.json", string(data)), "openat")
	if code != 0 || !strings.Contains(stderr, "reasons are not known") || !strings.Contains(stdout, "there is no why.json") {
		t.Errorf("without why.json: exit %d, %q, %q", code, stdout, stderr)
	}
	if _, stderr, code := call(t, "explain", write(t, dir, "other.json", `{"defaultAction":"SCMP_ACT_ERRNO"}`)); code != 1 || !strings.Contains(stderr, profile.ErrOtherProfile.Error()) {
		t.Errorf("why.json of another profile beside it: exit %d, %q", code, stderr)
	}
}

func TestInspectCommand(t *testing.T) {
	stdout, stderr, code := call(t, "inspect", ofProfile("exact.json"))
	if code != 0 || stderr != "" || !strings.Contains(stdout, "return kills the thread") || !strings.Contains(stdout, "openat") {
		t.Errorf("exit %d, %q, %s", code, stderr, stdout)
	}
	crun, _, _ := call(t, "inspect", "--runtime", "crun", "--json", ofProfile("exact.json"))
	var filters []filter
	if err := json.Unmarshal([]byte(crun), &filters); err != nil || len(filters) != 1 || strings.Contains(crun, "ENOSYS") || !strings.Contains(stdout, "ENOSYS") {
		t.Errorf("crun has no rule of its own: %v, %s", err, crun)
	}
	if _, stderr, code := call(t, "inspect", "--pid", "999999999"); code != 1 || !strings.Contains(stderr, "no task 999999999") {
		t.Errorf("no such task: exit %d, %q", code, stderr)
	}
	if scmp.Version() == "2.5.4" {
		p := write(t, t.TempDir(), "p.json", `{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86"],"syscalls":[
			{"names":["socket","accept","bind","listen","semop"],"action":"SCMP_ACT_ALLOW"},
			{"names":["msgsnd"],"action":"SCMP_ACT_ALLOW","args":[{"index":3,"value":69,"op":"SCMP_CMP_EQ"}]}]}`)
		if _, stderr, code := call(t, "inspect", p); code != 2 || !strings.Contains(stderr, "does not do what") {
			t.Errorf("a filter that libseccomp gets wrong: exit %d, %q", code, stderr)
		}
	}
}

func TestBuildFormats(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "")
	dir := t.TempDir()
	rec := recorded(t, dir)
	for _, c := range []struct{ args, file, want string }{
		{"--format oci -o o.json", "o.json", `"SCMP_ARCH_X86_64"`},
		{"--format docker -o d.json", "d.json", `"comment": "made by the workload; can come`},
		{"--format podman -o p.json", "p.json", `"comment": "made by the workload; can come`},
		{"--format spo", "seccompprofile.yaml", "name: example-com-some-pkg\n"},
		{"--format spo --name mine -o s.yaml", "s.yaml", "name: mine\n"},
		{"--format pod", "pod.yaml", "localhostProfile: example-com-some-pkg.json"},
		{"--format artifact", "profile.artifact/index.json", "application/vnd.oci.image.manifest.v1+json"},
		{"--format artifact", "profile.artifact/index.json", "application/vnd.oci.image.manifest.v1+json"}, // again, in its place
	} {
		t.Chdir(dir)
		if _, stderr, code := call(t, append(append([]string{"build", "--why", "why.json"}, strings.Fields(c.args)...), rec)...); code != 0 {
			t.Fatalf("%s: exit %d, %q", c.args, code, stderr)
		}
		data, err := os.ReadFile(filepath.Join(dir, c.file))
		if err != nil || !strings.Contains(string(data), c.want) {
			t.Errorf("%s: %v: %s", c.args, err, data)
		}
		if strings.HasSuffix(c.file, ".json") && !strings.Contains(c.file, "/") {
			if stdout, stderr, code := call(t, "explain", c.file, "openat"); code != 0 || !strings.Contains(stdout, "first caller: pkg.test") {
				t.Errorf("explain of %s: exit %d, %q", c.file, code, stderr)
			}
			if stdout, _, _ := call(t, "diff", "o.json", c.file); stdout != "the profiles mean the same\n" {
				t.Errorf("%s: %s", c.file, stdout)
			}
		}
	}
	t.Setenv("SOURCE_DATE_EPOCH", "yesterday")
	if _, stderr, code := call(t, "build", "--format", "artifact", rec); code != 1 || !strings.Contains(stderr, `SOURCE_DATE_EPOCH "yesterday"`) {
		t.Errorf("exit %d, %q", code, stderr)
	}
}

// logged is an error that can say more, as the BPF verifier's.
type logged struct{ error }

func (l logged) Format(f fmt.State, _ rune) {
	fmt.Fprint(f, l.Error())
	if f.Flag('+') {
		fmt.Fprint(f, "\nin full")
	}
}

func TestExitStatus(t *testing.T) {
	for name, c := range map[string]struct {
		err    error
		debug  bool
		stderr string
		want   int
	}{
		"fine":           {nil, false, "", 0},
		"verdict":        {fmt.Errorf("of late: %w", negative{"no"}), false, "seccompgen: of late: no\n", 2},
		"error":          {errors.New("no"), true, "seccompgen: error: no\n", 1},
		"hint":           {fmt.Errorf("again: %w", hinted{errors.New("no"), "say yes"}), false, "seccompgen: error: again: no\nseccompgen: hint: say yes\n", 1},
		"log":            {fmt.Errorf("load: %w", logged{errors.New("no")}), true, "seccompgen: error: load: no\nno\nin full\n", 1},
		"log not wanted": {logged{errors.New("no")}, false, "seccompgen: error: no\n", 1},
	} {
		var b bytes.Buffer
		if got := exitStatus(c.err, &b, c.debug); got != c.want || b.String() != c.stderr {
			t.Errorf("%s: status %d, %q", name, got, b.String())
		}
	}
}
