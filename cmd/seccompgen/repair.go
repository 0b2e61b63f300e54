package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/urfave/cli/v2"

	"github.com/seccompgen/seccompgen/internal/verify"
	"github.com/seccompgen/seccompgen/profile"
)

// repairFlags are those of verify --repair and --shrink.
func repairFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "repair", Usage: "add what is denied, verify again until nothing is, and write the profile to `FILE`"},
		&cli.StringFlag{Name: "why", Usage: "with --repair: write the reasons to `FILE` (default: FILE.why.json beside the repaired FILE.json)"},
		&cli.StringFlag{Name: "allow", Usage: "with --repair: add these dangerous `CALLS` too, separated by commas, if they are denied"},
		&cli.IntFlag{Name: "rounds", Value: 10, Usage: "with --repair: give up after `N` rounds"},
		&cli.StringFlag{Name: "shrink", Usage: "remove what the tests do not notice, and write the profile to `FILE` and the proof to FILE.certificate.json: it denies calls that the tests tolerate"},
		&cli.IntFlag{Name: "repeats", Value: 3, Usage: "with --shrink: run every candidate `N` times in each setting"},
		&cli.DurationFlag{Name: "budget", Value: maxBudget, Usage: "with --shrink: stop after `DURATION`; the same command goes on from there"},
		&cli.StringFlag{Name: "keep", Usage: "with --shrink: leave these `CALLS` alone, separated by commas; go-runtime stands for the Go runtime's own"},
	}
}

func checkRepairFlags(c *cli.Context) error {
	if c.IsSet("repair") && c.IsSet("shrink") {
		return errors.New("--repair widens a profile and --shrink narrows it: give one of them")
	}
	if c.IsSet("report") && c.IsSet("shrink") {
		return hinted{errors.New("--report shows a verification, and --shrink is none"), "verify the result with --report"}
	}
	for name, goesWith := range map[string]string{"why": "repair", "allow": "repair", "rounds": "repair", "repeats": "shrink", "budget": "shrink", "keep": "shrink"} {
		if c.IsSet(name) && !c.IsSet(goesWith) {
			return fmt.Errorf("--%s goes with --%s", name, goesWith)
		}
	}
	for _, name := range []string{"rounds", "repeats"} {
		if c.Int(name) < 1 {
			return fmt.Errorf("--%s %d: it must be one at least", name, c.Int(name))
		}
	}
	if c.Duration("budget") <= 0 {
		return fmt.Errorf("--budget %s: it must be longer than nothing", c.Duration("budget"))
	}
	for _, name := range []string{"repair", "shrink"} {
		if c.String(name) == "-" {
			return hinted{fmt.Errorf("--%s -: it writes two files", name), "give a name"}
		}
		if err := checkOutput(c.String(name)); err != nil {
			return err
		}
	}
	return nil
}

func list(flag string) []string {
	if flag == "" {
		return nil
	}
	return strings.Split(flag, ",")
}

func repair(c *cli.Context, w *workload, p *specs.LinuxSeccomp, o verify.Options, reports *reports) error {
	old, err := oldWhy(c.String("profile"), p)
	if err != nil {
		return err
	}
	fixed, r, err := verify.RepairProfile(c.Context, w.session, w.bundle, p, o, verify.RepairOptions{
		Allow: list(c.String("allow")), Rounds: c.Int("rounds"), Progress: func(text string) { say(c.App.ErrWriter, "%s", text) },
	})
	if err != nil {
		return err
	}
	if r.Verdict == verify.Pass {
		var added []profile.Entry
		for _, a := range r.Repair.Added {
			added = append(added, a.Entry)
		}
		reasons, err := profile.Repaired(fixed, old, added)
		if err != nil {
			return err
		}
		out, why := c.String("repair"), c.String("why")
		if why == "" {
			why = whyBeside(out)
		}
		data, err := profile.Encode(fixed)
		if err != nil {
			return err
		}
		if err := errors.Join(writeBytes(out, data), writeOutput(c.App.Writer, why, reasons.Write)); err != nil {
			return err
		}
		say(c.App.ErrWriter, "wrote %s and %s", out, why)
		reports.input.Profile, reports.input.Why, reports.input.SHA256 = fixed, reasons, reasons.Profile
	}
	if err := reports.write(r, w.bundle.Spec); err != nil {
		return err
	}
	return conclude(c, r)
}

// oldWhy returns the reasons of the profile that is repaired, if they lie beside it.
func oldWhy(path string, p *specs.LinuxSeccomp) (*profile.Why, error) {
	if path == "-" {
		return nil, nil
	}
	for _, beside := range []string{whyBeside(path), filepath.Join(filepath.Dir(path), "why.json")} {
		why, err := readFile(beside, profile.ReadWhy)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if data, err := profile.Encode(p); err != nil || why.Explains(data) == nil {
			return why, err
		}
	}
	return nil, nil
}

func printRepair(c *cli.Context, r *verify.Repair) error {
	t := tabwriter.NewWriter(c.App.Writer, 0, 4, 2, ' ', 0)
	for i, m := range r.Refused {
		if i == 0 {
			fmt.Fprintln(t, "NOT ADDED\tABI\tWHY\tCALLER")
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", orDash(m.Name), abiList([]specs.Arch{m.ABI}), m.Reason.Text, orDash(m.Reason.Caller))
	}
	for i, a := range r.Added {
		if i == 0 {
			fmt.Fprintln(t, "ADDED\tABI\tWHY\tCALLER")
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", a.Name+conditions(a.Args), abiList([]specs.Arch{a.ABI}), a.Reasons[0].Text, orDash(a.Reasons[0].Caller))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(c.App.Writer, "%s added in %s\n", plural(len(r.Added), "call"), plural(r.Rounds, "round"))
	return err
}

func conditions(args []specs.LinuxSeccompArg) string {
	var parts []string
	for _, a := range args {
		parts = append(parts, profile.Condition(a))
	}
	if parts == nil {
		return ""
	}
	return " if " + strings.Join(parts, " and ")
}

func shrink(c *cli.Context, w *workload, p *specs.LinuxSeccomp, o verify.Options) error {
	out := c.String("shrink")
	keep := []string{}
	for _, name := range list(c.String("keep")) {
		if name == string(profile.KindGoRuntime) {
			allowed := profile.Allowed(p)
			for _, call := range profile.ImplicitCalls() {
				if slices.Contains(allowed, call) {
					keep = append(keep, call)
				}
			}
			continue
		}
		keep = append(keep, name)
	}
	slices.Sort(keep)
	last := ""
	small, cert, err := verify.Shrink(c.Context, w.session, w.bundle, p, o, verify.ShrinkOptions{
		Repeats: c.Int("repeats"), Budget: c.Duration("budget"), Keep: slices.Compact(keep), State: out + ".state.json",
		Progress: func(text string) {
			if text != last { // a resumed search says again where it is
				say(c.App.ErrWriter, "shrink: %s", text)
			}
			last = text
		},
	})
	if c.Context.Err() != nil && exists(out+".state.json") {
		say(c.App.ErrWriter, "%s.state.json keeps what was tried: the same command goes on from there", out)
	}
	if errors.Is(err, verify.ErrUnstable) {
		return fmt.Errorf("shrink: %w", err)
	}
	if err != nil {
		return err
	}
	data, err := profile.Encode(small)
	if err != nil {
		return err
	}
	certificate := writeOutput(c.App.Writer, out+".certificate.json", func(to io.Writer) error { return profile.WriteJSON(to, cert) })
	if err := errors.Join(writeBytes(out, data), certificate); err != nil {
		return err
	}
	say(c.App.ErrWriter, "wrote %s and %s.certificate.json", out, out)
	if c.Bool("json") {
		return profile.WriteJSON(c.App.Writer, cert)
	}
	return printCertificate(c, cert)
}

func printCertificate(c *cli.Context, cert *verify.Certificate) error {
	t := tabwriter.NewWriter(c.App.Writer, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "NEEDED\tANSWERED WITH\tFAILED\tWHAT FAILED")
	for _, n := range cert.Needed {
		for _, trial := range n.Trials {
			fmt.Fprintf(t, "%s\t%s\t%d of %d\t%s\n", n.Name, trial.Errno, trial.Failed, trial.Of, trial.What)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	var gone, implicit []string
	for _, r := range cert.Removed {
		gone = append(gone, r.Name+" ("+r.Errno+")")
		if slices.Contains(profile.ImplicitCalls(), r.Name) {
			implicit = append(implicit, r.Name)
		}
	}
	fmt.Fprintf(c.App.Writer, "removed: %s\n", orDash(strings.Join(gone, ", ")))
	fmt.Fprintf(c.App.Writer, "denied in %s of the result and tolerated by the tests: %s\n", plural(cert.Passed, "run"), orDash(strings.Join(cert.Denied, " ")))
	if len(implicit) > 0 {
		fmt.Fprintf(c.App.Writer, "of the Go runtime's own: %s: tests do not notice, programs get slower or lose preemption; --keep go-runtime leaves them\n", strings.Join(implicit, " "))
	}
	_, err := fmt.Fprintf(c.App.Writer, "%s needed, %s kept, %d removed. This profile denies calls that the workload makes and its tests tolerate: the one that verifies without denials remains the safe choice\n",
		plural(len(cert.Needed), "call"), plural(len(cert.Kept), "call"), len(cert.Removed))
	return err
}
