package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/urfave/cli/v2"

	"github.com/seccompgen/seccompgen/internal/bundle"
	"github.com/seccompgen/seccompgen/internal/gotest"
	"github.com/seccompgen/seccompgen/internal/record"
	"github.com/seccompgen/seccompgen/internal/verify"
	"github.com/seccompgen/seccompgen/profile"
)

// This file holds what commands do with several packages: go test finds and builds them, and prints.

// packageFlags are for commands that take several packages.
func packageFlags() []cli.Flag {
	return []cli.Flag{
		&cli.IntFlag{Name: "p", DefaultText: "the cores", Usage: "with several packages: build and run `N` at a time, as go test does"},
	}
}

// checkPackageFlags refuses the flags that are for several packages, or for one workload.
func checkPackageFlags(c *cli.Context, several bool) error {
	switch {
	case !several && c.IsSet("p"):
		return errors.New("-p is for several packages")
	case !several && c.Command.Name == "record" && c.IsSet("keep-going"):
		return errors.New("--keep-going is for several packages")
	case !several:
		return nil
	case c.IsSet("p") && c.Int("p") < 1:
		return fmt.Errorf("-p %d: one package at a time is the least", c.Int("p"))
	case c.IsSet("rootfs"):
		return errors.New("packages need the host's root file system, where their directories are: leave out --rootfs")
	case c.IsSet("repair") || c.IsSet("shrink"):
		return hinted{errors.New("--repair and --shrink take one package"), "give them the package whose test was denied something, one after the other"}
	case c.Bool("race"):
		return hinted{errors.New("--race is for one package"), "give -race after -- to build all of them with the race detector"}
	}
	return gotest.CheckFlags(restOf(c))
}

// eachPackage lets go test build the packages, and calls do with a workload for each that has tests, for several at a time. It
// returns the packages that go test could not build.
func (w *workload) eachPackage(c *cli.Context, do func(context.Context, *workload) (gotest.Outcome, error)) ([]string, error) {
	dir := filepath.Join(w.session.Dir, "go-test")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	return gotest.Run(c.Context, gotest.Options{
		Patterns: w.patterns, Flags: restOf(c), Parallel: c.Int("p"), Dir: dir, Output: c.App.ErrWriter,
		Run: func(ctx context.Context, t *gotest.Test, output io.Writer) (_ gotest.Outcome, err error) {
			// go test's own directory is open to root alone, and the tests' user may be another one.
			dir := filepath.Join(w.session.Dir, "package-"+strings.ReplaceAll(t.Package, "/", "+"))
			if err := os.Mkdir(dir, 0o700); err != nil {
				return gotest.Outcome{}, err
			}
			defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
			if err := os.Chmod(dir, 0o711); err != nil {
				return gotest.Outcome{}, err
			}
			at := filepath.Join(dir, filepath.Base(t.Binary))
			if err := copyProgram(at, t.Binary); err != nil {
				return gotest.Outcome{}, err
			}
			t.Binary = at
			one := *w
			if one.bundle, err = bundle.Tests(t, bundleOptions(c)); err != nil {
				return gotest.Outcome{}, err
			}
			one.run.Output = output
			outcome, err := do(ctx, &one)
			if err != nil {
				err = fmt.Errorf("package %s: %w", t.Package, err)
			}
			return outcome, err
		},
	})
}

func copyProgram(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o700)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Chmod(0o755), out.Close())
}

// recordPackages makes one recording of several packages. Where some did not build and others are to be recorded all the same,
// both the recording and the error are there.
func recordPackages(c *cli.Context, w *workload, o record.Options) (*profile.Recording, error) {
	var mu sync.Mutex
	var recordings []*profile.Recording
	var unsaturated []string
	unbuilt, err := w.eachPackage(c, func(ctx context.Context, w *workload) (gotest.Outcome, error) {
		o := o
		o.Run, o.Bundle = w.run, w.at
		r, saturated, err := record.Record(ctx, w.session, o)
		if err != nil {
			return gotest.Outcome{}, err
		}
		mu.Lock()
		defer mu.Unlock()
		recordings = append(recordings, r)
		if o.Chance > 0 && !saturated {
			unsaturated = append(unsaturated, r.Workload.Package)
		}
		outcome := gotest.Outcome{Note: plural(len(r.Syscalls), "call")}
		if n := len(r.Runs); n > 1 {
			outcome.Note += fmt.Sprintf(" in %d runs", n)
		}
		for _, run := range r.Runs {
			if outcome.Exit == 0 {
				outcome.Exit = run.Exit
			}
		}
		return outcome, nil
	})
	if err != nil {
		return nil, err
	}
	var failed error
	if len(unbuilt) > 0 {
		failed = fmt.Errorf("the tests of %s did not build", strings.Join(unbuilt, ", "))
	}
	switch {
	case len(recordings) == 0 && failed != nil:
		return nil, failed
	case len(recordings) == 0:
		return nil, fmt.Errorf("no package of %s has tests", strings.Join(w.patterns, " "))
	case failed != nil && !c.Bool("keep-going"):
		return nil, hinted{fmt.Errorf("%w: no recording is written", failed), "--keep-going writes one of the others, marked incomplete"}
	}
	if len(unsaturated) > 0 {
		warn(c.App.ErrWriter, "not saturated after %s: %s: give more --runs, or a higher --chance", plural(w.runs, "run"), strings.Join(unsaturated, ", "))
	}
	all, err := profile.Join(restOf(c), recordings...)
	if err != nil {
		return nil, err
	}
	all.Drop(profile.DropBuild, uint64(len(unbuilt)))
	return all, failed
}

// verifyPackages makes one report of several packages. It returns a configuration of their containers too.
func verifyPackages(c *cli.Context, w *workload, p *specs.LinuxSeccomp, o verify.Options) (*verify.Report, *specs.Spec, error) {
	var mu sync.Mutex
	var parts []verify.OfPackage
	var spec *specs.Spec
	quiet := o.Run.Output == io.Discard
	unbuilt, err := w.eachPackage(c, func(ctx context.Context, w *workload) (gotest.Outcome, error) {
		o := o
		o.Run, o.Bundle = w.run, w.at
		if quiet {
			o.Run.Output = io.Discard
		}
		pkg := w.bundle.Workload.Package
		var err error
		if o.Recorded, err = ofPackage(o.Recorded, pkg); err != nil {
			return gotest.Outcome{}, err
		}
		r, err := verify.Verify(ctx, w.session, w.bundle, p, o)
		if err != nil {
			return gotest.Outcome{}, err
		}
		mu.Lock()
		defer mu.Unlock()
		parts, spec = append(parts, verify.OfPackage{Package: pkg, Report: r}), w.bundle.Spec
		outcome := gotest.Outcome{Note: r.Reason}
		if r.Verdict != verify.Pass {
			outcome.Exit = 1
		}
		return outcome, nil
	})
	switch {
	case err != nil:
		return nil, nil, err
	case len(parts) == 0 && len(unbuilt) > 0:
		return nil, nil, fmt.Errorf("the tests of %s did not build", strings.Join(unbuilt, ", "))
	case len(parts) == 0:
		return nil, nil, fmt.Errorf("no package of %s has tests", strings.Join(w.patterns, " "))
	}
	r, err := verify.Join(parts, unbuilt)
	return r, spec, err
}

// ofPackage returns what a recording says of a package, as far as a verification compares with it.
func ofPackage(r *profile.Recording, pkg string) (*profile.Recording, error) {
	if r == nil {
		return nil, nil
	}
	tests, exit, found := r.ResultsOf(pkg)
	if !found {
		return nil, hinted{fmt.Errorf("the recording has no package %q", pkg), "record again, or leave out --recording"}
	}
	return &profile.Recording{Tests: tests, Runs: []profile.Run{{Exit: exit}}}, nil
}
