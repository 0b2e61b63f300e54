package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/urfave/cli/v2"

	"github.com/seccompgen/seccompgen/internal/docker"
	"github.com/seccompgen/seccompgen/profile"
)

func explainCommand() *cli.Command {
	return &cli.Command{
		Name:      "explain",
		Usage:     "tell why a profile has each of its entries, or all about one system call",
		ArgsUsage: "PROFILE [SYSCALL]",
		Description: `Without SYSCALL there is a row for every entry, with the kind of its reason, the reason
and the first caller. With a name or a number it is everything about one call on all
ABIs of the profile, also why it is not allowed. Reasons of another profile are an error.

Profiles are read in runtime-spec's format and in Docker's, which is resolved for this
host and for Docker's default capabilities.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "why", Usage: "take the reasons, which build --why wrote, from `FILE` (default: NAME.why.json or why.json beside NAME.json)"},
			&cli.StringFlag{Name: "compare", Usage: "compare with the default profile of `ENGINE`: docker, for Docker's default capabilities"},
			&cli.BoolFlag{Name: "json", Usage: "print JSON"},
		},
		Action: explain,
	}
}

func explain(c *cli.Context) error {
	if err := noRest(c); err != nil {
		return err
	}
	if err := noMoreThan(c, 2); err != nil {
		return err
	}
	if !c.Args().Present() {
		return seeHelp(c.Command, errors.New("no profile"))
	}
	p, data, err := readProfile(c.Args().First())
	if err != nil {
		return err
	}
	if c.IsSet("compare") {
		if c.NArg() > 1 {
			return hinted{errors.New("--compare is for a whole profile"), "leave the system call out"}
		}
		return compare(c, p)
	}
	why, err := readWhy(c, data)
	if err != nil {
		return err
	}
	if call := c.Args().Get(1); call != "" {
		a, err := profile.About(p, why, call)
		if err != nil {
			return err
		}
		if c.Bool("json") {
			return profile.WriteJSON(c.App.Writer, a)
		}
		return printAnswer(c.App.Writer, a)
	}
	x := profile.Explain(p, why)
	if c.Bool("json") {
		return profile.WriteJSON(c.App.Writer, x)
	}
	return printExplanation(c.App.Writer, x)
}

// readWhy finds the reasons of a profile. Without any it returns nil, and says so.
func readWhy(c *cli.Context, data []byte) (*profile.Why, error) {
	path := c.String("why")
	if !c.IsSet("why") {
		if c.Args().First() == "-" {
			return nil, nil
		}
		if path = whyBeside(c.Args().First()); !exists(path) {
			path = filepath.Join(filepath.Dir(c.Args().First()), "why.json")
		}
		if !exists(path) {
			warn(c.App.ErrWriter, "no %s: reasons are not known (build --why writes them)", path)
			return nil, nil
		}
	}
	w, err := readFile(path, profile.ReadWhy)
	if err != nil {
		return nil, err
	}
	if err := w.Explains(data); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return w, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

func printExplanation(to io.Writer, x *profile.Explanation) error {
	t := tabwriter.NewWriter(to, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "CALL\tABI\tANSWER\tKIND\tREASON\tFIRST CALLER")
	told := map[profile.Reason]bool{} // of the call: its rules for different arguments share reasons
	for i, e := range x.Entries {
		first := i == 0 || e.ABI != x.Entries[i-1].ABI || e.Name != x.Entries[i-1].Name
		lead := "\t\t"
		if first {
			clear(told)
		}
		if first || len(e.Reasons) == 0 {
			lead = fmt.Sprintf("%s\t%s\t%s", e.Name, abiList([]specs.Arch{e.ABI}), entryAnswer(e))
		}
		if len(e.Reasons) == 0 {
			fmt.Fprintf(t, "%s\t-\t-\t-\n", lead)
		}
		for _, r := range e.Reasons {
			if !told[r] {
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", lead, r.Kind, r.Text, orDash(r.Caller))
				lead = "\t\t"
			}
			told[r] = true
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(to, "\nevery other call: %s\n", x.Default)
	if len(x.Untested) > 0 {
		t := tabwriter.NewWriter(to, 0, 4, 2, ' ', 0)
		fmt.Fprintln(t, "\nreachable and untested: the binary can make these, no run did, and they are refused\nCALL\tABI\tFUNCTIONS")
		for _, u := range x.Untested {
			fmt.Fprintf(t, "%s\t%s\t%s\n", u.Name, abiList([]specs.Arch{u.ABI}), few(u.Functions))
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	for _, u := range x.Unknown {
		fmt.Fprintf(to, "number %d of %s was called and has no name: refused\n", u.Nr, abiList([]specs.Arch{u.ABI}))
	}
	return nil
}

func entryAnswer(e profile.Entry) string {
	v := profile.Verdict{Action: e.Action}
	if e.Errno != nil {
		v.Errno = *e.Errno
	} else if e.Action == specs.ActErrno || e.Action == specs.ActTrace {
		v.Errno = 1
	}
	if len(e.Args) > 0 && len(e.Reasons) > 0 {
		return v.String() + " if" // the reasons of kind argument tell
	}
	return profile.Rule{Verdict: v, Args: e.Args}.String()
}

// few keeps a list of functions on a line: --json has all.
func few(functions []string) string {
	const most = 3
	if len(functions) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(functions[:most], " "), len(functions)-most)
	}
	return orDash(strings.Join(functions, " "))
}

func printAnswer(to io.Writer, a *profile.Answer) error {
	for _, o := range a.ABIs {
		number := ""
		if o.Nr != nil {
			number = fmt.Sprintf(" (%d)", *o.Nr)
		}
		fmt.Fprintf(to, "%s on %s%s: %s\n  %s\n", a.Name, abiList([]specs.Arch{o.ABI}), number, o.Answer, o.Because)
		for _, r := range o.Reasons {
			fmt.Fprintf(to, "  %s: %s\n", r.Kind, r.Text)
			if r.Caller != "" {
				fmt.Fprintf(to, "    first caller: %s\n", r.Caller)
			}
		}
		for _, f := range o.Functions {
			fmt.Fprintf(to, "    %s\n", f)
		}
	}
	return nil
}

func compare(c *cli.Context, p *specs.LinuxSeccomp) error {
	if c.String("compare") != "docker" {
		return hinted{fmt.Errorf("--compare %q is not docker", c.String("compare")), "seccompgen diff compares two profiles"}
	}
	other, err := docker.Default(p.Architectures, docker.Capabilities)
	if err != nil {
		return err
	}
	cmp := profile.Compare(p, other)
	if c.Bool("json") {
		return profile.WriteJSON(c.App.Writer, cmp)
	}
	out := c.App.Writer
	fmt.Fprintf(out, "%s allowed, Docker's default profile allows %d on the same ABIs, for Docker's default capabilities: %s\n", plural(cmp.Allowed, "call"), cmp.Other, fewer(cmp.Other-cmp.Allowed))
	if len(cmp.Wider) > 0 {
		fmt.Fprintf(out, "\nwider than Docker's (%d):\n", len(cmp.Wider))
		t := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
		for _, c := range cmp.Wider {
			fmt.Fprintf(t, "  %s\t%s\t%s\tDocker's: %s\t%s\n", subject(c), orDash(abiList(c.ABIs)), c.New, c.Old, c.Note)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	for _, list := range []struct {
		title string
		calls []profile.Dangerous
	}{{"dangerous calls that Docker's allows and this profile closes", cmp.Closed}, {"dangerous calls that this profile leaves open", cmp.Open}} {
		if len(list.calls) == 0 {
			continue
		}
		fmt.Fprintf(out, "\n%s (%d):\n", list.title, len(list.calls))
		t := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
		for _, d := range list.calls {
			fmt.Fprintf(t, "  %s\t%s\tDocker's: %s\n", d.Name, d.Why, d.Other)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// fewer says how many calls a profile allows fewer than another.
func fewer(n int) string {
	if n < 0 {
		return fmt.Sprintf("%d more", -n)
	}
	return fmt.Sprintf("%d fewer", n)
}
