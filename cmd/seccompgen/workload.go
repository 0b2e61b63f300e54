package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/seccompgen/seccompgen/internal/bundle"
	"github.com/seccompgen/seccompgen/internal/container"
	"github.com/seccompgen/seccompgen/internal/gotest"
	"github.com/seccompgen/seccompgen/internal/ociruntime"
	"github.com/seccompgen/seccompgen/internal/verify"
)

// workloadFlags are shared by the commands that run a container.
func workloadFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "bundle", Usage: "run the OCI bundle in `DIR`"},
		&cli.BoolFlag{Name: "exec", Usage: "run the command after --"},
		&cli.IntFlag{Name: "runs", Value: 1, Usage: "run the workload `N` times"},
		&cli.StringFlag{Name: "runtime", Value: "runc", Usage: "run under the OCI `RUNTIME`, a name or a path; verify takes several, separated by commas"},
		&cli.StringFlag{Name: "network", Value: "none", Usage: "give the workload this `NETWORK`: none (a namespace of its own, loopback up) or host"},
		&cli.StringFlag{Name: "user", Usage: "run as `UID[:GID]`"},
		&cli.GenericFlag{Name: "no-new-privileges", Value: &onOff{"true"}, Usage: "set the process's no_new_privs bit as `[=BOOL]` says: true, or false, as engines do by default; verify takes both too"},
		&cli.BoolFlag{Name: "stress", Usage: "vary what changes a Go program's calls, by the number of the run: GOGC, GOMAXPROCS, asynchronous preemption, -test.cpu, -test.shuffle"},
		&cli.BoolFlag{Name: "race", Usage: "with --stress: every eighth run executes a build with the race detector, if there is one; its runtime makes calls of its own"},
		&cli.DurationFlag{Name: "timeout", Value: 10 * time.Minute, Usage: "end a run that takes longer than `DURATION`"},
		&cli.StringFlag{Name: "rootfs", Usage: "take the root file system in `DIR` instead of a throw-away overlay over the host's"},
		&cli.StringSliceFlag{Name: "env", Usage: "set `NAME=VALUE` in the container's environment"},
		&cli.StringSliceFlag{Name: "mount", Usage: "bind mount `SRC:DST[:ro]`"},
		&cli.StringFlag{Name: "hook", Hidden: true, Usage: "`PATH` of oci-hook"},
	}
}

// workload is what a command that runs containers was asked to run.
type workload struct {
	session  *container.Session
	bundle   *bundle.Bundle // nil for several packages
	patterns []string       // of several packages
	race     *bundle.Bundle // the same with the race detector, or nil
	run      container.Options
	settings []verify.Setting
	runs     int
	stress   bool
}

// maxBudget is how long a shrink may take unless it is told otherwise.
const maxBudget = 10 * time.Minute

// raceEvery is how many runs under --stress --race have one of the race build among them.
const raceEvery = 8

// at returns the bundle for a run; 1 is the first.
func (w *workload) at(run int) *bundle.Bundle {
	switch {
	case !w.stress:
		return w.bundle
	case w.race != nil && run%raceEvery == 0:
		return w.race
	case w.race != nil:
		run -= run / raceEvery // so that no variation is left out
	}
	return w.bundle.Vary(bundle.Stress(run))
}

// varied says how a run differed, for a line about it.
func varied(how []string) string {
	if len(how) == 0 {
		return ""
	}
	return " (" + strings.Join(how, " ") + ")"
}

// onOff is true, false or both. It is a flag that needs no value, as a boolean one.
type onOff struct{ value string }

func (v *onOff) Set(s string) error {
	b, err := strconv.ParseBool(s)
	if err != nil && s != "both" {
		return errors.New("it is not one of true, false, both")
	}
	v.value = s
	if err == nil {
		v.value = strconv.FormatBool(b)
	}
	return nil
}

func (v *onOff) String() string   { return v.value }
func (v *onOff) IsBoolFlag() bool { return true }

// values returns what was asked for.
func (v *onOff) values() []bool {
	if v.value == "both" {
		return []bool{true, false}
	}
	return []bool{v.value == "true"}
}

// openWorkload prepares a session and the bundle that the command line asks for. The caller closes the session.
func openWorkload(c *cli.Context) (w *workload, err error) {
	w = &workload{runs: c.Int("runs"), stress: c.Bool("stress")}
	if !c.Bool("exec") && !c.IsSet("bundle") && gotest.Several(c.Args().Slice()) {
		w.patterns = c.Args().Slice()
	} else if err := noMoreThan(c, 1); err != nil {
		return nil, err
	}
	if err := checkPackageFlags(c, w.patterns != nil); err != nil {
		return nil, err
	}
	if w.runs < 1 {
		return nil, fmt.Errorf("--runs %d: at least one run is needed", w.runs)
	}
	if c.Duration("timeout") <= 0 {
		return nil, fmt.Errorf("--timeout %s: it must be longer than nothing", c.Duration("timeout"))
	}
	if c.Bool("race") && (!w.stress || c.Bool("exec") || c.IsSet("bundle")) {
		return nil, errors.New("--race goes with --stress and a package, whose tests can be built with the race detector")
	}
	var runtimes []*ociruntime.Runtime
	for name := range strings.SplitSeq(c.String("runtime"), ",") {
		rt, err := ociruntime.Find(name)
		if err != nil {
			return nil, err
		}
		runtimes = append(runtimes, rt)
	}
	w.run.Runtime = runtimes[0]
	if w.run.Hook, err = findHook(c.String("hook")); err != nil {
		return nil, err
	}
	w.run.Timeout, w.run.Output = c.Duration("timeout"), c.App.ErrWriter
	if w.session, err = container.NewSession(); err != nil {
		return nil, err
	}
	if w.patterns == nil {
		if err := w.open(c); err != nil {
			return nil, errors.Join(err, w.session.Close())
		}
	}
	nnps := noNewPrivileges(c)
	if c.IsSet("bundle") && !c.IsSet("no-new-privileges") {
		nnps = []bool{w.bundle.Spec.Process.NoNewPrivileges}
	}
	for _, rt := range runtimes {
		for _, nnp := range nnps {
			w.settings = append(w.settings, verify.Setting{Runtime: rt, NoNewPrivileges: nnp})
		}
	}
	return w, nil
}

func noNewPrivileges(c *cli.Context) []bool { return c.Generic("no-new-privileges").(*onOff).values() }

// open makes the bundle, and the one with the race detector.
func (w *workload) open(c *cli.Context) (err error) {
	if w.bundle, err = openBundle(c, w.session.Dir, false); err != nil || !c.Bool("race") {
		return err
	}
	race, err := openBundle(c, w.session.Dir, true)
	if c.Context.Err() != nil {
		return err
	}
	if err != nil {
		warn(c.App.ErrWriter, "without the race detector, which does not build here: %v", err)
		return nil
	}
	race.Workload, race.Varied = w.bundle.Workload, []string{"-race"}
	w.race = race
	return nil
}

func bundleOptions(c *cli.Context) bundle.Options {
	return bundle.Options{
		Rootfs: c.String("rootfs"), Env: c.StringSlice("env"), Mounts: c.StringSlice("mount"), User: c.String("user"),
		Network: c.String("network"), NoNewPrivileges: noNewPrivileges(c)[0],
	}
}

func openBundle(c *cli.Context, dir string, race bool) (*bundle.Bundle, error) {
	o := bundleOptions(c)
	o.Race = race
	pkg, rest := c.Args().First(), restOf(c)
	kinds := 0
	for _, given := range []bool{pkg != "", c.IsSet("bundle"), c.Bool("exec")} {
		if given {
			kinds++
		}
	}
	if kinds != 1 {
		return nil, seeHelp(c.Command, errors.New("give one of a PACKAGE, --bundle DIR, --exec -- COMMAND"))
	}
	switch {
	case c.Bool("exec"):
		return bundle.Command(rest, o)
	case c.IsSet("bundle"):
		if len(rest) > 0 {
			return nil, errors.New("a bundle brings its own command: nothing can follow --")
		}
		b, err := bundle.Open(c.String("bundle"), o)
		if err == nil && c.IsSet("no-new-privileges") {
			b.Spec.Process.NoNewPrivileges = o.NoNewPrivileges
		}
		return b, err
	}
	return bundle.Package(c.Context, pkg, rest, dir, o, c.App.ErrWriter)
}

// findHook looks for the hook where it is built and where it is installed.
func findHook(given string) (string, error) {
	if given != "" {
		return filepath.Abs(given)
	}
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	for _, dir := range []string{filepath.Dir(self), filepath.Join(filepath.Dir(self), "../libexec/seccompgen")} {
		if path := filepath.Join(dir, "oci-hook"); isExecutable(path) {
			return filepath.Clean(path), nil
		}
	}
	return "", hinted{fmt.Errorf("oci-hook is neither beside %s nor in ../libexec/seccompgen", self), "make build builds both"}
}

func isExecutable(path string) bool {
	found, err := exec.LookPath(path)
	return err == nil && found == path
}
