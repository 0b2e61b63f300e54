package lab

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestCommit(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	git := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-c", "user.name=a", "-c", "user.email=a@example.org"}, args...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %q: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	git("init", "-q")
	write("main.go", "package main")
	git("add", ".")
	git("commit", "-q", "-m", "a")
	want := git("rev-parse", "--short", "HEAD")
	check := func(what string, clean bool) {
		t.Helper()
		commit, err := Commit()
		if clean && (err != nil || commit != want) {
			t.Errorf("%s: commit %q, %v; want %q", what, commit, err, want)
		}
		if !clean && (err == nil || !strings.Contains(err.Error(), "commit them before you measure")) {
			t.Errorf("%s: commit %q, %v; want a refusal", what, commit, err)
		}
	}
	check("a clean tree", true)
	write("docs/results.md", "1")
	check("new results", true)
	write("main.go", "package other")
	check("a change", false)
	git("checkout", "-q", "main.go")
	write("other/docs/new.go", "package docs")
	check("a new file", false)
}
