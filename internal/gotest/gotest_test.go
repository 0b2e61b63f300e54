package gotest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/moby/sys/reexec"
)

func TestMain(m *testing.M) {
	if reexec.Init() {
		return
	}
	os.Exit(m.Run())
}

// write makes files, given as name, text, name, text, and goes to their directory.
func write(t *testing.T, files ...string) {
	t.Helper()
	dir := t.TempDir()
	for i := 0; i < len(files); i += 2 {
		path := filepath.Join(dir, files[i])
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(files[i+1]), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
}

func tests(pkg string) string {
	return "package " + pkg + "\nimport \"testing\"\nfunc TestX(*testing.T) {}\n"
}

// run lets go test build, and returns what it wanted to be run, as "package module flags".
func run(t *testing.T, o Options) (ran []string, unbuilt []string, output string, err error) {
	t.Helper()
	var mu sync.Mutex
	var out bytes.Buffer
	o.Dir, o.Output = t.TempDir(), &out
	if o.Run == nil {
		o.Run = func(_ context.Context, one *Test, to io.Writer) (Outcome, error) {
			mu.Lock()
			defer mu.Unlock()
			if dir, err := filepath.EvalSymlinks(one.Dir); err != nil || filepath.Base(dir) != filepath.Base(one.Package) && one.Package != "example.com/m" {
				t.Errorf("the directory of %s is %s (%v)", one.Package, one.Dir, err)
			}
			ran = append(ran, strings.TrimSpace(one.Package+" "+one.Module+" "+strings.Join(one.Flags, " ")))
			fmt.Fprintln(to, "what the tests print")
			exit := 0
			if strings.HasSuffix(one.Package, "/fails") {
				exit = 3
			}
			return Outcome{Exit: exit, Note: "7 calls"}, nil
		}
	}
	unbuilt, err = Run(t.Context(), o)
	slices.Sort(ran)
	return ran, unbuilt, out.String(), err
}

const goMod = "module example.com/m\n\ngo 1.26\n"

func TestRun(t *testing.T) {
	write(t, "go.mod", goMod, "a/a_test.go", tests("a"), "b/b_test.go", tests("b"), "none/none.go", "package none\n",
		"fails/f_test.go", tests("fails"), "broken/b_test.go", "package broken\nvar x int = \"\"\n", "tagged/t_test.go", "//go:build special\n\n"+tests("tagged"))
	ran, unbuilt, output, err := run(t, Options{Patterns: []string{"./..."}, Flags: []string{"-short", "-tags=special", "-own"}})
	if err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	var want []string
	for _, pkg := range []string{"a", "b", "fails", "tagged"} {
		want = append(want, "example.com/m/"+pkg+" example.com/m -test.short=true -own")
	}
	if !slices.Equal(ran, want) {
		t.Errorf("%q ran, want %q", ran, want)
	}
	if !slices.Equal(unbuilt, []string{"example.com/m/broken"}) {
		t.Errorf("%q did not build", unbuilt)
	}
	for _, line := range []string{"ok  \texample.com/m/a\t", "s\t7 calls\n", "FAIL\texample.com/m/fails\t", "FAIL\texample.com/m/broken [build failed]\n", "?   \texample.com/m/none\t[no test files]\n"} {
		if !strings.Contains(output, line) {
			t.Errorf("no %q is printed:\n%s", line, output)
		}
	}
	if n := strings.Count(output, "what the tests print"); n != 1 {
		t.Errorf("the output of %d packages is printed, want that of the one that fails:\n%s", n, output)
	}
}

func TestRunWorkspaceAndVendor(t *testing.T) {
	write(t, "go.work", "go 1.26\n\nuse (\n\t./one\n\t./two\n)\n", "one/go.mod", "module example.com/one\n\ngo 1.26\n", "one/a/a_test.go", tests("a"),
		"two/go.mod", "module example.com/two\n\ngo 1.26\n", "two/b/b_test.go", tests("b"))
	ran, _, output, err := run(t, Options{Patterns: []string{"./one/...", "example.com/two/b"}})
	if want := []string{"example.com/one/a example.com/one", "example.com/two/b example.com/two"}; err != nil || !slices.Equal(ran, want) {
		t.Errorf("%q ran, want %q (%v)\n%s", ran, want, err, output)
	}
	write(t, "go.mod", goMod+"\nrequire example.com/dep v1.0.0\n", "vendor/modules.txt", "# example.com/dep v1.0.0\n## explicit\nexample.com/dep\n",
		"vendor/example.com/dep/dep.go", "package dep\n", "a/a_test.go", strings.Replace(tests("a"), "\"testing\"", "(\n\t\"testing\"\n\t_ \"example.com/dep\"\n)", 1), "b/b_test.go", tests("b"))
	ran, _, output, err = run(t, Options{Patterns: []string{"./a", "./b"}, Parallel: 1})
	if want := []string{"example.com/m/a example.com/m", "example.com/m/b example.com/m"}; err != nil || !slices.Equal(ran, want) {
		t.Errorf("%q ran, want %q (%v)\n%s", ran, want, err, output)
	}
}

func TestRunErrors(t *testing.T) {
	write(t, "go.mod", goMod, "a/a_test.go", tests("a"))
	if _, _, output, err := run(t, Options{Patterns: []string{"./..."}, Flags: []string{"-nonsense=3", "-fuzz=x", "-fuzz"}}); err == nil {
		t.Errorf("flags that go test refuses are no error:\n%s", output)
	}
	if _, unbuilt, _, err := run(t, Options{Patterns: []string{"./nowhere", "./a"}}); err != nil || !slices.Equal(unbuilt, []string{"./nowhere"}) {
		t.Errorf("a package that is not there: %q, %v", unbuilt, err)
	}
	broken := errors.New("no container")
	if _, _, _, err := run(t, Options{Patterns: []string{"./..."}, Run: func(context.Context, *Test, io.Writer) (Outcome, error) { return Outcome{}, broken }}); !errors.Is(err, broken) {
		t.Errorf("an error of a run becomes %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err := Run(ctx, Options{Patterns: []string{"./..."}, Dir: t.TempDir(), Output: io.Discard, Run: func(ctx context.Context, _ *Test, _ io.Writer) (Outcome, error) {
		cancel()
		<-ctx.Done()
		return Outcome{}, context.Cause(ctx)
	}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("an interrupt becomes %v", err)
	}
}
