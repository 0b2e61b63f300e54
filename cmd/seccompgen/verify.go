package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/schollz/progressbar/v3"
	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/seccompgen/seccompgen/internal/record"
	"github.com/seccompgen/seccompgen/internal/scmp"
	"github.com/seccompgen/seccompgen/internal/verify"
	"github.com/seccompgen/seccompgen/profile"
)

func verifyCommand() *cli.Command {
	return &cli.Command{
		Name:      "verify",
		Usage:     "run the workload under a profile: zero denials and the same test results, or who was denied what",
		ArgsUsage: "(PACKAGE ... | --bundle DIR | --exec -- COMMAND ...) [-- TEST FLAGS]",
		Description: `Makes --runs runs under every runtime of the list, with no_new_privs on, off or both,
and accepts zero denials and the same test results only. It stops at the first run
that fails, unless --keep-going is given. It needs root.

With several packages, or a pattern such as ./..., go test finds, builds and prints,
and its flags follow --. There is one verdict. It is of all packages: each stops at its
first run that fails, and the others go on. --repair and --shrink take one package.

--repair adds what the profile denies and verifies again, until --runs runs pass.
Calls that give away the host or other processes are added only if --allow names
them; without it the repair writes nothing.

--shrink goes below what was observed: the result denies calls that the workload
makes and its tests tolerate. The certificate says what failed without each call that
is left. After --budget, or Ctrl-C, the same command goes on from there.`,
		Flags: slices.Concat(workloadFlags(), packageFlags(), reportFlags(), repairFlags(), []cli.Flag{
			&cli.StringFlag{Name: "profile", Usage: "verify the profile in `FILE`, in runtime-spec's format"},
			&cli.StringFlag{Name: "recording", Usage: "compare test results with those in `FILE` (default: a control run without the profile)"},
			&cli.IntFlag{Name: "jobs", DefaultText: "a run a core where runs cannot meet, else one", Usage: "make `N` runs at a time"},
			&cli.BoolFlag{Name: "keep-going", Usage: "make all runs, also after one that fails"},
			&cli.BoolFlag{Name: "json", Usage: "print the report as JSON"},
			&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "print what the workload prints"},
		}),
		Action: verifyAction,
	}
}

func verifyAction(c *cli.Context) (err error) {
	if !c.IsSet("profile") { // a required flag would print the usage to standard output
		return seeHelp(c.Command, errors.New("no profile: give --profile FILE"))
	}
	p, err := readFile(c.String("profile"), profile.ReadProfile)
	if err != nil {
		return err
	}
	if err := checkRepairFlags(c); err != nil {
		return err
	}
	if c.IsSet("jobs") && c.Int("jobs") < 1 {
		return fmt.Errorf("--jobs %d: one run at a time is the least", c.Int("jobs"))
	}
	o := verify.Options{Runs: c.Int("runs"), KeepGoing: c.Bool("keep-going"), Resolve: record.Resolve}
	if c.IsSet("recording") {
		if o.Recorded, err = readFile(c.String("recording"), profile.ReadRecording); err != nil {
			return err
		}
	}
	reports, err := openReports(c, p, o.Recorded)
	if err != nil {
		return err
	}
	w, err := openWorkload(c)
	if err != nil {
		return interrupted(c.Context, err)
	}
	defer func() { err = interrupted(c.Context, errors.Join(err, w.session.Close())) }()
	if _, others := scmp.UnknownNames(p); len(others) > 0 {
		warn(c.App.ErrWriter, "this host's libseccomp %s does not know %s: runtimes here give them the default action", scmp.Version(), strings.Join(others, ", "))
	}
	o.Run, o.Settings, o.Bundle, o.Jobs = w.run, w.settings, w.at, jobs(c, w)
	if !c.Bool("verbose") && !c.Bool("debug") {
		o.Run.Output = io.Discard
	}
	if w.patterns != nil {
		r, spec, err := verifyPackages(c, w, p, o)
		if err != nil {
			return err
		}
		if err := reports.write(r, spec); err != nil {
			return err
		}
		return conclude(c, r)
	}
	if o.Recorded != nil && len(o.Recorded.Workload.Packages) > 0 {
		if o.Recorded, err = ofPackage(o.Recorded, w.bundle.Workload.Package); err != nil {
			return err
		}
	}
	switch {
	case c.IsSet("repair"):
		return repair(c, w, p, o, reports)
	case c.IsSet("shrink"):
		return shrink(c, w, p, o)
	}
	if all := w.runs * len(w.settings); isTerminal(c.App.ErrWriter) && all > 1 {
		bar := progressbar.NewOptions(all, progressbar.OptionSetWriter(c.App.ErrWriter), progressbar.OptionSetDescription("verify"),
			progressbar.OptionShowCount(), progressbar.OptionSetPredictTime(true), progressbar.OptionClearOnFinish())
		o.Progress = func(done, _ int) { _ = bar.Set(done) }
	}
	r, err := verify.Verify(c.Context, w.session, w.bundle, p, o)
	if err != nil {
		return err
	}
	if err := reports.write(r, w.bundle.Spec); err != nil {
		return err
	}
	return conclude(c, r)
}

// jobs returns how many runs to make at a time. Runs meet in what the host lets them share: its network, mounts, a root file
// system of their own that is not thrown away.
func jobs(c *cli.Context, w *workload) int {
	switch {
	case c.IsSet("jobs"):
		return c.Int("jobs")
	case w.patterns != nil: // the packages run side by side
		return 1
	case !w.bundle.Host || c.String("network") == "host" || len(c.StringSlice("mount")) > 0:
		return 1
	}
	return runtime.NumCPU()
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// conclude prints the report, and says the verdict with the exit status.
func conclude(c *cli.Context, r *verify.Report) (err error) {
	if c.Bool("json") {
		err = profile.WriteJSON(c.App.Writer, r)
	} else {
		if r.Repair != nil {
			err = printRepair(c, r.Repair)
		}
		err = errors.Join(err, printReport(c.App.Writer, r))
	}
	if err != nil {
		return fmt.Errorf("print the report: %w", err)
	}
	switch r.Verdict {
	case verify.Pass:
		return nil
	case verify.Fail:
		return negative{r.Reason}
	}
	return fmt.Errorf("inconclusive: %s", r.Reason)
}

// maxTests is how many changed tests a person wants to see: where the container did not start, all have changed.
const maxTests = 10

func printReport(to io.Writer, r *verify.Report) error {
	if len(r.Denials) > 0 {
		t := tabwriter.NewWriter(to, 0, 4, 2, ' ', 0)
		fmt.Fprintln(t, "CALL\tABI\tARGUMENTS\tANSWER\tPHASE\tPROCESS\tCALLER\tCOUNT")
		for _, d := range r.Denials {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\n", d.CallName(), abiList([]specs.Arch{d.ABI}), orDash(d.Arguments()), d.Answer(), d.Phase, d.Process, callerOf(d), d.Count)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	if rows := r.TestRows(); len(rows) > 0 {
		t := tabwriter.NewWriter(to, 0, 4, 2, ' ', 0)
		fmt.Fprintln(t, "TEST\tWITHOUT\tWITH THE PROFILE")
		for _, test := range rows[:min(len(rows), maxTests)] {
			fmt.Fprintf(t, "%s\t%s\t%s\n", test.Name, orDash(test.Recorded), orDash(test.Verified))
		}
		if err := t.Flush(); err != nil {
			return err
		}
		if more := len(rows) - maxTests; more > 0 {
			fmt.Fprintf(to, "and %s more: --json lists all\n", plural(more, "test"))
		}
	}
	_, err := fmt.Fprintf(to, "%s: %s\n%s allowed; Docker's default profile allows %d\n", r.Verdict, r.Reason, plural(r.Profile.Allowed, "call"), r.Profile.DockerDefault)
	return err
}

func callerOf(d verify.Denial) string {
	if d.Test != "" && d.Caller != "" {
		return d.Caller + " <- " + d.Test
	}
	return orDash(d.Caller)
}
