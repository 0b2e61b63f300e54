package e2e

import (
	"bytes"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/seccompgen/seccompgen/test/lab"
)

// readYAML decodes a file and refuses keys that the type does not have.
func readYAML(t *testing.T, path string, to any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(to); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// githubStep is what the example uses of GitHub's steps.
type githubStep struct {
	Name, ID, If, Uses, Run string
	With, Env               map[string]string
}

// gitlabJob is what the example uses of GitLab's jobs.
type gitlabJob struct {
	Stage, Timeout string
	Tags           []string
	Rules          []struct{ If string }
	Variables      map[string]string
	Script         []string
	Artifacts      struct {
		When    string
		Paths   []string
		Reports struct{ JUnit string }
	}
}

// ciRun is what a job did.
type ciRun struct {
	exit    int
	comment string
	output  string
}

// ci runs a job's scripts in a repository, as its service does.
type ci func(t *testing.T, repository string) ciRun

// shell runs a script as both services do, and adds to what was said. sudo is there, and has nothing to do.
func shell(t *testing.T, dir, script string, env map[string]string, said *bytes.Buffer, flags ...string) int {
	t.Helper()
	tools := t.TempDir()
	for name, text := range map[string]string{
		"sudo": "exec \"$@\"\n",
		"gh":   "printf '%s\\n' \"$*\" >\"$GH_CALLED\"\ncp comment.md \"$GH_COMMENT\"\n",
	} {
		if err := os.WriteFile(filepath.Join(tools, name), []byte("#!/bin/sh\nset -eu\n"+text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "bash", append(flags, "-c", script)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, said, said
	cmd.Env = append(os.Environ(), "PATH="+tools+":"+os.Getenv("PATH"))
	for name, value := range env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode()
}

var expression = regexp.MustCompile(`\$\{\{ *([^}]*?) *\}\}`)

// onGitHub runs the steps of the example that are scripts, all but the one that installs what is under test.
func onGitHub(t *testing.T, dir string) ciRun {
	var w struct {
		Name, On    string
		Permissions map[string]string
		Jobs        map[string]struct {
			RunsOn  string `yaml:"runs-on"`
			Timeout int    `yaml:"timeout-minutes"`
			Env     map[string]string
			Steps   []githubStep
		}
	}
	readYAML(t, filepath.Join(lab.Repo, "examples/ci/github.yml"), &w)
	job := w.Jobs["profile"]
	files := t.TempDir()
	comment, called := filepath.Join(files, "comment"), filepath.Join(files, "called")
	known := map[string]string{"github.token": "token", "github.event.pull_request.number": "7"}
	var said bytes.Buffer
	done := ciRun{}
	for i, step := range job.Steps {
		if step.Run == "" || step.Name == "Install seccompgen" || done.exit != 0 && !strings.HasPrefix(step.If, "always()") {
			continue
		}
		env := maps.Clone(job.Env)
		maps.Copy(env, step.Env)
		output := filepath.Join(files, "output")
		if err := os.WriteFile(output, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		for name, value := range env {
			env[name] = expression.ReplaceAllStringFunc(value, func(e string) string {
				value, ok := known[expression.FindStringSubmatch(e)[1]]
				if !ok {
					t.Fatalf("step %d, %s: nothing is known of %s", i+1, step.Name, e)
				}
				return value
			})
		}
		if strings.Contains(step.Run, "${{") {
			t.Errorf("step %s: an expression in a script lets a pull request write the script", step.Name)
		}
		maps.Copy(env, map[string]string{"RUNS": "3", "GITHUB_OUTPUT": output, "GITHUB_STEP_SUMMARY": filepath.Join(files, "summary"), "GH_COMMENT": comment, "GH_CALLED": called})
		if exit := shell(t, dir, step.Run, env, &said, "--noprofile", "--norc", "-e"); exit != 0 {
			done.exit = exit
		}
		data, err := os.ReadFile(output)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(data)) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			known["steps."+step.ID+".outputs."+name] = value
		}
	}
	if data, err := os.ReadFile(called); err == nil {
		if diff := cmp.Diff("pr comment 7 --edit-last --create-if-none --body-file comment.md\n", string(data)); diff != "" {
			t.Error(diff)
		}
	}
	text, _ := os.ReadFile(comment) // none if nobody commented
	done.comment, done.output = string(text), said.String()
	return done
}

// onGitLab runs the example's script against a server that takes the comment.
func onGitLab(t *testing.T, dir string) ciRun {
	lab.NeedTool(t, "curl")
	var jobs map[string]gitlabJob
	readYAML(t, filepath.Join(lab.Repo, "examples/ci/gitlab.yml"), &jobs)
	job := jobs["seccomp-profile"]
	var done ciRun
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		r.Body = io.NopCloser(bytes.NewReader(body))
		if err != nil || r.Method != "POST" || r.URL.Path != "/projects/5/merge_requests/7/notes" || r.Header.Get("PRIVATE-TOKEN") != "secret" {
			t.Errorf("unexpected request: %s %s, %v", r.Method, r.URL, err)
		}
		done.comment = r.FormValue("body")
		w.WriteHeader(http.StatusCreated)
	}))
	defer server.Close()
	env := maps.Clone(job.Variables)
	maps.Copy(env, map[string]string{"RUNS": "3", "CI_API_V4_URL": server.URL, "CI_PROJECT_ID": "5", "CI_MERGE_REQUEST_IID": "7", "SECCOMPGEN_TOKEN": "secret"})
	var said bytes.Buffer
	done.exit = shell(t, dir, strings.Join(job.Script, "\n"), env, &said, "-e", "-o", "pipefail")
	done.output = said.String()
	return done
}

const linkTest = `package tiny

import (
	"os"
	"path/filepath"
	"testing"
)

func TestLink(t *testing.T) {
	if err := os.Symlink("x", filepath.Join(t.TempDir(), "y")); err != nil {
		t.Fatal(err)
	}
}
`

// TestCI runs the documented CI jobs: with a profile that fits, with tests that need a call more, and without a profile.
func TestCI(t *testing.T) {
	needRoot(t)
	base := module(t, "tiny_test.go", tiny)
	if err := os.Mkdir(filepath.Join(base, "seccomp"), 0o755); err != nil {
		t.Fatal(err)
	}
	inModule(t, 0, base, nil, "record", "--runs", "20", "-o", "recording.json", ".", "--", "-short")
	inModule(t, 0, base, nil, "build", "-o", "seccomp/profile.json", "--why", "seccomp/why.json", "recording.json")
	for service, run := range map[string]ci{"github": onGitHub, "gitlab": onGitLab} {
		t.Run(service, func(t *testing.T) {
			for _, c := range []struct {
				name    string
				change  func(dir string) error
				exit    int
				comment []string
				output  string
				files   []string
			}{
				{
					"fits", func(string) error { return nil }, 0,
					[]string{": pass\n", "no denials and the same test results in 5 of 5 runs", "**seccomp profile: "},
					"",
					[]string{"report.html", "report.json", "report.xml", "profile.json", "why.json"},
				},
				{
					"needs more", func(dir string) error {
						return os.WriteFile(filepath.Join(dir, "link_test.go"), []byte(linkTest), 0o644)
					}, 2,
					[]string{": fail\n", "symlinkat", "TestLink", "wider"},
					"the committed profile does not verify",
					[]string{"report.html"},
				},
				{
					"no profile", func(dir string) error { return os.RemoveAll(filepath.Join(dir, "seccomp")) }, 1,
					nil, "seccompgen: error: open seccomp/profile.json: no such file or directory",
					[]string{"profile.json"},
				},
				{
					"does not build", func(dir string) error {
						return os.WriteFile(filepath.Join(dir, "bad_test.go"), []byte("package tiny\nfunc {\n"), 0o644)
					}, 1,
					nil, "bad_test.go", nil,
				},
			} {
				dir := filepath.Join(t.TempDir(), "repository")
				if err := os.CopyFS(dir, os.DirFS(base)); err != nil {
					t.Fatal(err)
				}
				if err := c.change(dir); err != nil {
					t.Fatal(err)
				}
				got := run(t, dir)
				if got.exit != c.exit || !strings.Contains(got.output, c.output) {
					t.Errorf("%s: exit %d, want %d and %q\n%s", c.name, got.exit, c.exit, c.output, got.output)
				}
				for _, want := range c.comment {
					if !strings.Contains(got.comment, want) {
						t.Errorf("%s: the comment does not say %q:\n%s", c.name, want, got.comment)
					}
				}
				if c.comment == nil && strings.Contains(got.comment, "verif") {
					t.Errorf("%s: a comment: %s", c.name, got.comment)
				}
				for _, name := range c.files {
					if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
						t.Errorf("%s: %v", c.name, err)
					}
				}
			}
		})
	}
}

// TestActionlint checks what GitHub would refuse.
func TestActionlint(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "run", "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12", "-no-color", filepath.Join(lab.Repo, "examples/ci/github.yml")).CombinedOutput()
	lines := slices.DeleteFunc(strings.Split(string(out), "\n"), func(line string) bool { return strings.HasPrefix(line, "go: downloading ") || line == "" })
	if err != nil || len(lines) > 0 {
		t.Errorf("%v\n%s", err, out)
	}
}
