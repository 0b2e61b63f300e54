package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"github.com/seccompgen/seccompgen/internal/scmp"
	"github.com/seccompgen/seccompgen/profile"
)

func diffCommand() *cli.Command {
	return &cli.Command{
		Name:      "diff",
		Usage:     "tell what a new profile lets through that an old one does not, and the other way round; exit 2 if it is wider",
		ArgsUsage: "OLD NEW",
		Description: `Order, grouping and repetition do not matter. Conditions are compared by the arguments
for which they hold; those that cannot be compared are taken for wider, and say so.
Profiles are read in runtime-spec's format and in Docker's. In a pull request:

    seccompgen diff --format markdown old.json new.json >>"$GITHUB_STEP_SUMMARY"`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "format", Value: "text", Usage: "print in `FORMAT`: text, or markdown for a pull request"},
			&cli.BoolFlag{Name: "json", Usage: "print JSON"},
		},
		Action: diff,
	}
}

func diff(c *cli.Context) error {
	if err := noRest(c); err != nil {
		return err
	}
	if c.NArg() != 2 {
		return seeHelp(c.Command, errors.New("give two profiles, OLD and NEW"))
	}
	show, ok := map[string]func(io.Writer, *profile.Difference) error{"text": printDiff, "markdown": printDiffMarkdown}[c.String("format")]
	if !ok {
		return fmt.Errorf("format %q is not one of text, markdown", c.String("format"))
	}
	before, _, err := readProfile(c.Args().Get(0))
	if err != nil {
		return err
	}
	after, _, err := readProfile(c.Args().Get(1))
	if err != nil {
		return err
	}
	native, err := scmp.Native()
	if err != nil {
		return err
	}
	d := profile.Diff(before, after, native)
	if c.Bool("json") {
		show = func(to io.Writer, d *profile.Difference) error { return profile.WriteJSON(to, d) }
	}
	if err := show(c.App.Writer, d); err != nil {
		return fmt.Errorf("print the difference: %w", err)
	}
	if d.Wider {
		return negative{fmt.Sprintf("%s is wider than %s: %s", c.Args().Get(1), c.Args().Get(0), plural(d.Count(profile.Wider), "change"))}
	}
	return nil
}

func summary(d *profile.Difference) string {
	if len(d.Changes) == 0 {
		return "the profiles mean the same"
	}
	return fmt.Sprintf("%d wider, %d narrower, %d changed otherwise", d.Count(profile.Wider), d.Count(profile.Narrower), d.Count(profile.Changed))
}

func printDiff(to io.Writer, d *profile.Difference) error {
	if len(d.Changes) > 0 {
		t := tabwriter.NewWriter(to, 0, 4, 2, ' ', 0)
		fmt.Fprintln(t, "CHANGE\tWHAT\tABI\tOLD\tNEW\tNOTE")
		for _, c := range d.Changes {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", c.Kind, subject(c), orDash(abiList(c.ABIs)), c.Old, c.New, orDash(c.Note))
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(to, summary(d))
	return err
}

func printDiffMarkdown(to io.Writer, d *profile.Difference) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "**seccomp profile: %s**\n", summary(d))
	for _, kind := range []struct{ name, text string }{
		{profile.Wider, "Wider: lets more through"}, {profile.Narrower, "Narrower: lets less through"}, {profile.Changed, "Changed: other answers"},
	} {
		if d.Count(kind.name) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n#### %s\n\n| what | ABI | old | new | note |\n|---|---|---|---|---|\n", kind.text)
		for _, c := range d.Changes {
			if c.Kind == kind.name {
				fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", cell("`"+subject(c)+"`"), cell(abiList(c.ABIs)), cell(c.Old), cell(c.New), cell(c.Note))
			}
		}
	}
	_, err := to.Write(b.Bytes())
	return err
}

// cell keeps a text within its cell.
func cell(text string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ", "<", "&lt;").Replace(text)
}

func subject(c profile.Change) string {
	switch {
	case c.What == "call":
		return c.Name
	case c.Name == "":
		return "(" + c.What + ")"
	}
	return "(" + c.What + ") " + c.Name
}
