package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/internal/scmp"
	"github.com/seccompgen/seccompgen/profile"
)

func inspectCommand() *cli.Command {
	return &cli.Command{
		Name:      "inspect",
		Usage:     "show the filter that a profile compiles to, or that a process has; exit 2 if a filter does not do what its profile says",
		ArgsUsage: "(PROFILE | --pid PID)",
		Description: `A profile is compiled as the runtime compiles it. The filter is then run over all
numbers of all ABIs, with arguments around every value in a condition. --pid reads the
filters of a live task, the oldest first; it takes CAP_SYS_ADMIN and a reader that is
under no filter itself.`,
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "pid", DefaultText: "none", Usage: "read the filters of the live task `PID` (root; stops it for a moment)"},
			&cli.StringFlag{Name: "runtime", Value: "runc", Usage: "compile as `RUNTIME` does: runc, which answers ENOSYS to numbers above the highest listed, or crun"},
			&cli.BoolFlag{Name: "json", Usage: "print JSON"},
		},
		Action: inspect,
	}
}

// filter is one filter of inspect's output.
type filter struct {
	Source     string          `json:"source"`
	Lines      []scmp.Line     `json:"lines"`
	Mismatches []scmp.Mismatch `json:"mismatches,omitempty"`
	Void       []void          `json:"void,omitempty"`
}

// void are the calls whose conditions do not hold on an ABI.
type void struct {
	ABI   specs.Arch `json:"abi"`
	Calls []string   `json:"calls"`
}

func inspect(c *cli.Context) error {
	if err := noRest(c); err != nil {
		return err
	}
	if err := noMoreThan(c, 1); err != nil {
		return err
	}
	if c.Args().Present() == c.IsSet("pid") {
		return seeHelp(c.Command, errors.New("give a PROFILE or --pid PID"))
	}
	read := compiled
	if c.IsSet("pid") {
		read = live
	}
	filters, err := read(c)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		err = profile.WriteJSON(c.App.Writer, filters)
	} else {
		err = printFilters(c.App.Writer, filters)
	}
	if err != nil {
		return fmt.Errorf("print the filter: %w", err)
	}
	for _, f := range filters {
		for _, v := range f.Void {
			warn(c.App.ErrWriter, "conditions on %s are void on %s, which passes the arguments in memory: any get through that get through for some", strings.Join(v.Calls, ", "), abiList([]specs.Arch{v.ABI}))
		}
		if len(f.Mismatches) > 0 {
			for _, m := range f.Mismatches {
				say(c.App.ErrWriter, "%s", m)
			}
			if !slices.ContainsFunc(f.Mismatches, func(m scmp.Mismatch) bool { return !m.Overlap }) {
				return negative{fmt.Sprintf("%s has entries with different actions that hold at once: %s; let one entry decide", f.Source, plural(len(f.Mismatches), "call"))}
			}
			return negative{fmt.Sprintf("libseccomp %s makes a filter that does not do what %s says: %s", scmp.Version(), f.Source, plural(len(f.Mismatches), "call"))}
		}
	}
	return nil
}

// compiled compiles a profile, and runs the result to see whether it does what the profile says.
func compiled(c *cli.Context) ([]filter, error) {
	if r := c.String("runtime"); r != "runc" && r != "crun" {
		return nil, fmt.Errorf("runtime %q is not one of runc, crun", r)
	}
	p, _, err := readProfile(c.Args().First())
	if err != nil {
		return nil, err
	}
	stub := c.String("runtime") == "runc"
	program, err := scmp.Compile(p, stub)
	if err != nil {
		return nil, fmt.Errorf("compile %s: %w", c.Args().First(), err)
	}
	wrong, err := scmp.Check(p, stub)
	if err != nil {
		return nil, fmt.Errorf("check the filter of %s: %w", c.Args().First(), err)
	}
	f := filter{Source: c.Args().First(), Lines: scmp.Disassemble(program), Mismatches: wrong}
	r := profile.Resolve(p)
	for _, abi := range r.ABIs {
		if calls := r.Voids(abi); len(calls) > 0 {
			f.Void = append(f.Void, void{abi, calls})
		}
	}
	return []filter{f}, nil
}

func live(c *cli.Context) ([]filter, error) {
	programs, err := scmp.LiveFilters(c.Int("pid"))
	if errors.Is(err, unix.ESRCH) {
		return nil, fmt.Errorf("no task %d, or it is a kernel thread: %w", c.Int("pid"), err)
	}
	if err != nil {
		return nil, err
	}
	filters := []filter{}
	for i, program := range programs {
		filters = append(filters, filter{Source: fmt.Sprintf("filter %d of task %d", i, c.Int("pid")), Lines: scmp.Disassemble(program)})
	}
	if len(filters) == 0 {
		say(c.App.ErrWriter, "task %d has no filter", c.Int("pid"))
	}
	return filters, nil
}

func printFilters(to io.Writer, filters []filter) error {
	for _, f := range filters {
		fmt.Fprintf(to, "%s: %s\n", f.Source, plural(len(f.Lines), "instruction"))
		t := tabwriter.NewWriter(to, 0, 4, 2, ' ', 0)
		for _, l := range f.Lines {
			fmt.Fprintf(t, "%5d\t%s\t%s\n", l.Nr, l.Text, l.Note)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	return nil
}
