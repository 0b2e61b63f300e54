package e2e

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/seccompgen/seccompgen/test/lab"
)

// step is a command of the tutorial and what it says that the command prints.
type step struct{ command, output string }

var fence = regexp.MustCompile("(?ms)^```(sh|text)\n(.*?)^```$")

func tutorial(t *testing.T) (steps []step) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(lab.Repo, "docs/tutorial.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range fence.FindAllStringSubmatch(string(data), -1) {
		switch {
		case m[1] == "sh":
			steps = append(steps, step{command: m[2]})
		case len(steps) == 0 || steps[len(steps)-1].output != "":
			t.Fatalf("an output without a command before it:\n%s", m[2])
		default:
			steps[len(steps)-1].output = m[2]
		}
	}
	return steps
}

var (
	spaces = regexp.MustCompile(` +`)
	number = regexp.MustCompile(`[0-9]+`)
)

// pattern makes a regular expression of a line of the tutorial. Numbers and the width of columns differ between machines, and
// three dots stand for anything.
func pattern(line string) *regexp.Regexp {
	p := regexp.QuoteMeta(line)
	p = strings.ReplaceAll(p, `\.\.\.`, `.*`)
	p = spaces.ReplaceAllString(p, ` +`)
	return regexp.MustCompile(`(?m)^` + number.ReplaceAllString(p, `[0-9]+`) + ` *$`)
}

// TestTutorial types what the tutorial says, in one shell, and compares what comes.
func TestTutorial(t *testing.T) {
	needRoot(t)
	steps := tutorial(t)
	if len(steps) < 8 {
		t.Fatalf("only %d commands were found", len(steps))
	}
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	if err := os.Mkdir(out, 0o755); err != nil {
		t.Fatal(err)
	}
	// A step's output is kept apart by the name of a file, since the shell stays the same.
	var script strings.Builder
	for i, s := range steps {
		name := filepath.Join(out, string(rune('a'+i)))
		script.WriteString("{\n" + s.command + "} >" + name + " 2>&1\n")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euc", script.String())
	cmd.Dir = filepath.Join(dir, "work")
	if err := os.Mkdir(cmd.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		t.Errorf("%v\n%s", err, &said)
	}
	for i, s := range steps {
		got, err := os.ReadFile(filepath.Join(out, string(rune('a'+i))))
		if err != nil {
			t.Fatalf("not reached: %s", s.command)
		}
		rest := string(got)
		for line := range strings.Lines(s.output) {
			if line = strings.TrimRight(line, "\n "); line == "..." {
				continue
			}
			at := pattern(line).FindStringIndex(rest)
			if at == nil {
				t.Errorf("%s\nprints no line %q (after the lines before it):\n%s", s.command, line, got)
				break
			}
			rest = rest[at[1]:]
		}
	}
}
