// Command mutants breaks rules of the code one by one, and fails where no test of the package notices: make mutants.
//
// No file of the tree is changed: the compiler reads the mutant in its place (go help build, -overlay). A mutant is found by
// its text, which must be in one place of the module's code: who changes or moves that code is told to change the table.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/renameio/v2"

	"github.com/seccompgen/seccompgen/test/lab"
)

// mutant is one change that makes the code wrong.
type mutant struct {
	what     string // what it gets wrong
	old, new string
	also     string // a package whose tests are about this code too; "" for none
	run      string // the tests that may notice, where the others need what not every host has; "" for all
	survives string // why no test can notice; "" if one has to
}

// tolerated is how many mutants may survive, each with a reason.
const tolerated = 2

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	output := flag.String("o", "", "write the table to this `file`, whole or not at all")
	only := flag.String("run", "", "only mutants whose file or description matches this `regexp`; the tree may have changes")
	jobs := flag.Int("jobs", 1, "`mutants` at a time")
	flag.Parse()
	match, err := regexp.Compile(*only)
	if err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	commit := ""
	if *only == "" {
		if commit, err = lab.Commit(); err != nil {
			return err
		}
	}
	found, err := find(lab.Repo, mutants)
	if err != nil {
		return err
	}
	found = slices.DeleteFunc(found, func(f *place) bool { return !match.MatchString(f.file + " " + f.what) })
	began := time.Now()
	if err := tryAll(ctx, found, *jobs); err != nil {
		return err
	}
	var table bytes.Buffer
	verdict := report(&table, found, commit, time.Since(began))
	os.Stdout.Write(table.Bytes())
	if *output != "" {
		verdict = errors.Join(verdict, renameio.WriteFile(*output, table.Bytes(), 0o644))
	}
	return verdict
}

// place is where a mutant is, and what became of it.
type place struct {
	mutant
	file   string // from the module's root
	line   int
	source []byte // of the whole file, with the mutant in it
	by     string // the test that noticed
}

func (p *place) dir() string { return filepath.Dir(p.file) }

// find looks for the mutants in the module's code.
func find(root string, all []mutant) ([]*place, error) {
	files := map[string]string{}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		name, _ := filepath.Rel(root, path)
		switch {
		case err != nil:
			return err
		case e.IsDir() && (name == "test" || e.Name() == "testdata" || e.Name() == ".git"):
			return filepath.SkipDir
		case e.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		data, err := os.ReadFile(path)
		files[name] = string(data)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the module's code: %w", err)
	}
	var found []*place
	var errs []error
	for _, m := range all {
		var in []string
		for name, text := range files {
			for range strings.Count(text, m.old) {
				in = append(in, name)
			}
		}
		if len(in) != 1 {
			slices.Sort(in)
			errs = append(errs, fmt.Errorf("%s: %q is in %d places %v and has to be in one: change the table", m.what, m.old, len(in), in))
			continue
		}
		text := files[in[0]]
		found = append(found, &place{
			mutant: m, file: in[0], line: 1 + strings.Count(text[:strings.Index(text, m.old)], "\n"),
			source: []byte(strings.Replace(text, m.old, m.new, 1)),
		})
	}
	slices.SortStableFunc(found, func(a, b *place) int { return strings.Compare(a.dir(), b.dir()) })
	return found, errors.Join(errs...)
}

// tryAll runs the tests on the mutants, some at a time. Before they say anything of these they have to pass without.
func tryAll(ctx context.Context, found []*place, jobs int) error {
	dirs := map[string]string{} // and which of their tests
	for _, p := range found {
		for _, dir := range p.tests() {
			dirs[dir] = p.run
		}
	}
	names := slices.Sorted(maps.Keys(dirs))
	err := each(jobs, len(names), func(i int, work string) error {
		by, err := test(ctx, work, names[i], nil, "-test.run="+dirs[names[i]])
		if by != "" || err != nil {
			return errors.Join(fmt.Errorf("%s: %s fails without a mutant", names[i], by), err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return each(jobs, len(found), func(i int, work string) error {
		p := found[i]
		if err := p.try(ctx, work); err != nil {
			return fmt.Errorf("%s:%d: %s: %w", p.file, p.line, p.what, err)
		}
		fmt.Fprintf(os.Stderr, "mutants: %s:%d: %s: %s\n", p.file, p.line, p.what, p.outcome())
		return nil
	})
}

// each does n things, some at a time, each in a directory of its own, and returns what went wrong.
func each(jobs, n int, do func(i int, work string) error) error {
	errs, next := make([]error, n), make(chan int)
	var group sync.WaitGroup
	for range jobs {
		group.Go(func() {
			for i := range next {
				work, err := os.MkdirTemp("", "mutants")
				if err == nil {
					err = errors.Join(do(i, work), os.RemoveAll(work))
				}
				errs[i] = err
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	group.Wait()
	return errors.Join(errs...)
}

// tests returns the packages whose tests are to notice it.
func (p *place) tests() []string {
	if p.also == "" {
		return []string{p.dir()}
	}
	return []string{p.dir(), p.also}
}

func (p *place) outcome() string {
	if p.by == "" {
		return "survived"
	}
	return p.by
}

// try runs the tests on a mutant: the slow ones if need be.
func (p *place) try(ctx context.Context, work string) error {
	source, list := filepath.Join(work, "mutant.go"), filepath.Join(work, "overlay.json")
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(lab.Repo, p.file): source}})
	if err != nil {
		return err
	}
	if err := errors.Join(os.WriteFile(source, p.source, 0o644), os.WriteFile(list, overlay, 0o644)); err != nil {
		return err
	}
	for _, short := range []string{"-test.short=true", "-test.short=false"} {
		for _, dir := range p.tests() {
			p.by, err = test(ctx, work, dir, []string{"-overlay", list}, short, "-test.run="+p.run)
			switch {
			case err != nil:
				return err
			case strings.HasPrefix(p.by, "test timed out"):
				return errors.New("the tests hang instead of failing: give the one that waits a deadline")
			case p.by != "":
				return nil
			}
		}
	}
	return nil
}

var failed = regexp.MustCompile(`(?m)^(?:--- FAIL: |panic: |fatal error: )(.*?)(?: \([0-9.]+s\))?$`)

// test builds and runs the tests of a package, and returns the first that failed.
func test(ctx context.Context, work, dir string, build []string, run ...string) (by string, err error) {
	binary := filepath.Join(work, "test")
	cmd := exec.CommandContext(ctx, "go", slices.Concat([]string{"test", "-tags", "seccomp", "-c", "-o", binary}, build, []string{"./" + dir})...)
	cmd.Dir = lab.Repo
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("it does not compile: %w\n%s", err, out)
	}
	cmd = exec.CommandContext(ctx, binary, append(run, "-test.failfast", "-test.timeout=10m")...)
	cmd.Dir, cmd.WaitDelay = filepath.Join(lab.Repo, dir), time.Second
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return "", nil
	case !errors.As(err, &exit):
		return "", fmt.Errorf("run the tests: %w", err)
	}
	if first := failed.FindSubmatch(out); first != nil {
		return string(first[1]), nil
	}
	return "", fmt.Errorf("the tests ended with %w and no test failed:\n%s", err, out)
}

// report writes the table. It returns an error if mutants survived that should not.
func report(to *bytes.Buffer, found []*place, commit string, took time.Duration) error {
	var errs []error
	survivors := 0
	for _, p := range found {
		switch {
		case p.by == "":
			if survivors++; p.survives == "" {
				errs = append(errs, fmt.Errorf("%s:%d: %s: no test notices", p.file, p.line, p.what))
			}
		case p.survives != "":
			errs = append(errs, fmt.Errorf("%s:%d: %s: %s notices now: take its reason out of the table", p.file, p.line, p.what, p.by))
		}
	}
	if survivors > tolerated {
		errs = append(errs, fmt.Errorf("%d mutants survived, and %d may", survivors, tolerated))
	}
	fmt.Fprintf(to, "# Mutants\n\nEach row: a rule of the code, broken on purpose, and the test that failed then. "+
		"The table of mutants is in test/mutants; `make mutants` tries them again.\n\n"+
		"Commit %s, %s, %s/%s, %s: %d of %d were noticed.\n\n| where | what it gets wrong | noticed by |\n|---|---|---|\n",
		commit, runtime.Version(), runtime.GOOS, runtime.GOARCH, took.Round(time.Minute), len(found)-survivors, len(found))
	for _, p := range found {
		by := p.by
		if by == "" {
			by = "**nothing**: " + p.survives
		}
		fmt.Fprintf(to, "| %s:%d | %s | %s |\n", p.file, p.line, p.what, strings.ReplaceAll(by, "|", "\\|"))
	}
	return errors.Join(errs...)
}
