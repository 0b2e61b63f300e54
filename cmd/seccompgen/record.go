package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/seccompgen/seccompgen/internal/record"
	"github.com/seccompgen/seccompgen/profile"
)

func recordCommand() *cli.Command {
	return &cli.Command{
		Name:      "record",
		Usage:     "run a package's tests, a bundle or a command in a container and record every system call",
		ArgsUsage: "(PACKAGE ... | --bundle DIR | --exec -- COMMAND ...) [-- TEST FLAGS]",
		Description: `Builds the tests of PACKAGE as go test -c does, and runs them in the package's
directory, over the host's root file system with a writable overlay that is thrown
away, in namespaces of their own, with the loopback up. Or runs a bundle, or a
command. It needs root.

With several packages, or a pattern such as ./..., go test finds, builds and prints,
and its flags follow --. One recording comes out. Tests that fail are recorded too. If
a package does not build, the others run, and the exit status is 1: nothing is written
then, or with --keep-going a recording of the others, which is marked incomplete.

With several runs it estimates what they have not shown; --until-saturated repeats
the workload until that is little.`,
		Flags: slices.Concat(workloadFlags(), packageFlags(), []cli.Flag{
			&cli.BoolFlag{Name: "keep-going", Usage: "with several packages: write a recording also if some of them do not build"},
			&cli.StringFlag{Name: "o", Value: "recording.json", Usage: "write the recording to `FILE`; - is standard output"},
			&cli.BoolFlag{Name: "until-saturated", Usage: "repeat until the estimated chance that the next run shows a new call is below --chance; --runs is then the most, 100 without it"},
			&cli.Float64Flag{Name: "chance", Value: 0.05, Usage: "with --until-saturated: stop below `CHANCE`, reckoned as (runs that alone hold a call + 1) / (runs + 2); 0.05 takes 19 runs or more"},
		}),
		Action: recordAction,
	}
}

func recordAction(c *cli.Context) (err error) {
	if err := checkOutput(c.String("o")); err != nil {
		return err
	}
	until := c.Bool("until-saturated")
	if p := c.Float64("chance"); c.IsSet("chance") && (!until || p <= 0 || p >= 1) {
		return fmt.Errorf("--chance %g: it goes with --until-saturated, and lies between 0 and 1", p)
	}
	if strings.Contains(c.String("runtime"), ",") || len(noNewPrivileges(c)) > 1 {
		return hinted{errors.New("record takes one --runtime and one --no-new-privileges"), "record under each, and give all recordings to build"}
	}
	w, err := openWorkload(c)
	if err != nil {
		return interrupted(c.Context, err)
	}
	defer func() { err = interrupted(c.Context, errors.Join(err, w.session.Close())) }()
	if until && !c.IsSet("runs") {
		w.runs = mostRuns
	}
	o := record.Options{Run: w.run, Runs: w.runs, Bundle: w.at}
	if until {
		o.Chance = c.Float64("chance")
	}
	if w.patterns != nil {
		all, unbuilt := recordPackages(c, w, o)
		if all == nil {
			return unbuilt
		}
		if err := writeOutput(c.App.Writer, c.String("o"), all.Write); err != nil {
			return err
		}
		describe(c.App.ErrWriter, all, c.String("o"))
		return unbuilt
	}
	if w.runs > 1 {
		o.Progress = func(i int, r *profile.Recording, added int) {
			say(c.App.ErrWriter, "run %d of %d%s: %s, %d new, %.1f s", i, w.runs, varied(r.Runs[0].Varied), plural(len(r.Syscalls), "call"), added, r.Runs[0].Seconds)
		}
	}
	all, saturated, err := record.Record(c.Context, w.session, o)
	if err != nil {
		return err
	}
	if until && !saturated {
		warn(c.App.ErrWriter, "not saturated after %s: give more --runs, or a higher --chance", plural(w.runs, "run"))
	}
	if err := writeOutput(c.App.Writer, c.String("o"), all.Write); err != nil {
		return err
	}
	describe(c.App.ErrWriter, all, c.String("o"))
	return nil
}

// mostRuns bounds --until-saturated where --runs does not.
const mostRuns = 100

// describe says what a recording holds, and what it does not.
func describe(to io.Writer, r *profile.Recording, path string) {
	byPhase := map[profile.Phase]int{}
	for _, s := range r.Syscalls {
		byPhase[s.Phase]++
	}
	var parts []string
	for _, phase := range profile.Phases() {
		if n := byPhase[phase]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", phase, n))
		}
	}
	state := "complete"
	if err := r.Incomplete(); err != nil {
		state = err.Error()
	}
	runs := plural(len(r.Runs), "run")
	if n := len(r.Workload.Packages); n > 0 {
		runs += " of " + plural(n, "package")
	}
	say(to, "%s in %s under %s %s (%s): %s",
		plural(len(r.Syscalls), "call"), runs, r.Runtime.Name, r.Runtime.Version, strings.Join(parts, ", "), state)
	if s := profile.Saturate(r); s.Runs > 1 {
		say(to, "%s", s)
	}
	if len(r.Tests) > 0 {
		results := map[string]int{}
		for _, result := range r.Tests {
			results[result]++
		}
		parts = nil
		for _, result := range slices.Sorted(maps.Keys(results)) {
			parts = append(parts, fmt.Sprintf("%s %d", result, results[result]))
		}
		say(to, "tests: %s", strings.Join(parts, ", "))
	}
	for _, run := range failedRuns(r) {
		warn(to, "%s exited with %d: calls that come after its failure are not in the recording", cmp.Or(run.Package, "the workload"), run.Exit)
	}
	for _, u := range r.Unknown {
		warn(to, "number %d of %s was called %d times and has no name: no profile can allow it", u.Nr, u.ABI, u.Count)
	}
	if n := len(r.Unanalyzed()); n > 0 {
		warn(to, "of %s of the %d that ran it is not known what they can call: build says which, and what it does", plural(n, "program"), len(r.Programs))
	}
	if path != "-" {
		say(to, "wrote %s", path)
	}
}

// failedRuns returns a run of each package that exited with another status than 0.
func failedRuns(r *profile.Recording) []profile.Run {
	var failed []profile.Run
	for _, run := range r.Runs {
		if run.Exit > 0 && !slices.ContainsFunc(failed, func(f profile.Run) bool { return f.Package == run.Package }) {
			failed = append(failed, run)
		}
	}
	return failed
}
