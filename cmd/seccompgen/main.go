// seccompgen makes seccomp profiles from a program's own tests: record, build, verify.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/moby/sys/reexec"
	"github.com/urfave/cli/v2"

	"github.com/seccompgen/seccompgen/internal/version"
)

func main() {
	if reexec.Init() {
		return
	}
	defer func() { // a crash is an error: the Go runtime's own exit status would say "the verdict is negative"
		if r := recover(); r != nil {
			say(os.Stderr, "error: crashed, please report it: %v\n%s", r, debug.Stack())
			os.Exit(1)
		}
	}()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	status := run(ctx, os.Args, os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// after holds the words behind "--", which belong to the workload.
type after struct{}

// completionFlag is what the scripts for completion in shells append.
const completionFlag = "--generate-bash-completion"

// newApp returns the commands, from which --help, docs/reference/cli.md, the man page and completion are made too.
func newApp(stdout, stderr io.Writer, debug *bool) *cli.App {
	app := &cli.App{
		Name:  "seccompgen",
		Usage: "make seccomp profiles from a program's own tests, and prove them",
		Description: `Exit status: 0 if all is fine; 1 for an error, which is bad use, no root, no runtime,
evidence that is not complete or a run that proves nothing; 2 if the verdict is
negative: a denial, a test with another result, a wider profile, a wrong filter.

Flags may stand before and after arguments. What follows -- belongs to the workload.
Where a command reads or writes a file, - is standard input or standard output.`,
		Version: version.Full(),
		Commands: []*cli.Command{
			recordCommand(), buildCommand(), verifyCommand(), explainCommand(), diffCommand(), inspectCommand(),
			statusCommand(), serveCommand(), installCommand(), uninstallCommand(), featuresCommand(),
		},
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "debug", Destination: debug, Usage: "print what runtimes and workloads print, and the verifier's whole log if the kernel refuses the BPF programs"},
		},
		Writer:                    stdout,
		ErrWriter:                 stderr,
		EnableBashCompletion:      true,
		HideHelpCommand:           true,
		DisableSliceFlagSeparator: true,
		ExitErrHandler:            func(*cli.Context, error) {},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return hinted{fmt.Errorf("no command %q", c.Args().First()), "see seccompgen --help"}
			}
			return cli.ShowAppHelp(c)
		},
		OnUsageError: func(_ *cli.Context, err error, _ bool) error { return hinted{err, "see seccompgen --help"} },
	}
	flags := app.Flags
	for _, c := range app.Commands {
		c.OnUsageError = func(_ *cli.Context, err error, _ bool) error { return seeHelp(c, err) }
		c.HideHelpCommand = true
		flags = slices.Concat(flags, c.Flags)
	}
	for _, f := range flags {
		if b, ok := f.(*cli.BoolFlag); ok {
			b.DisableDefaultText = true // it is false
		}
	}
	return app
}

// run runs a command line, and returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var debug bool
	app := newApp(stdout, stderr, &debug)
	var rest []string
	if i := slices.Index(args, "--"); i >= 0 {
		if args[len(args)-1] == completionFlag {
			return 0 // the workload's flags are not known here, and nothing may run
		}
		args, rest = args[:i], slices.Clone(args[i+1:])
	}
	err := app.RunContext(context.WithValue(ctx, after{}, rest), flagsFirst(app, args))
	return exitStatus(err, stderr, debug)
}

// flagsFirst moves the flags of a command before its arguments, and those of the program before the command: urfave/cli v2
// takes a flag after the first argument for an argument, silently.
func flagsFirst(app *cli.App, args []string) []string {
	at := 1 // of the command
	for at < len(args) && strings.HasPrefix(args[at], "-") {
		at++
	}
	if at >= len(args) || args[len(args)-1] == completionFlag {
		return args
	}
	cmd := app.Command(args[at])
	if cmd == nil {
		return args
	}
	before := slices.Clone(args[:at])
	var flags, words []string
	for i := at + 1; i < len(args); i++ {
		name, _, hasValue := strings.Cut(strings.TrimLeft(args[i], "-"), "=")
		if !strings.HasPrefix(args[i], "-") || args[i] == "-" {
			words = append(words, args[i])
			continue
		}
		named := func(f cli.Flag) bool { return slices.Contains(f.Names(), name) }
		f := slices.IndexFunc(cmd.Flags, named)
		if f < 0 && slices.ContainsFunc(app.Flags, named) {
			before = append(before, args[i])
			continue
		}
		flags = append(flags, args[i])
		if hasValue || f < 0 {
			continue
		}
		if needsNoValue(cmd.Flags[f]) {
			continue
		}
		if i++; i == len(args) {
			return slices.Concat(before, args[at:at+1], flags) // its value is missing, and "--" is not it
		}
		flags = append(flags, args[i])
	}
	return slices.Concat(before, args[at:at+1], flags, []string{"--"}, words)
}

func needsNoValue(f cli.Flag) bool {
	if g, ok := f.(*cli.GenericFlag); ok {
		_, ok = g.Value.(*onOff)
		return ok
	}
	_, ok := f.(*cli.BoolFlag)
	return ok
}

// noMoreThan refuses arguments that a command would leave unread.
func noMoreThan(c *cli.Context, n int) error {
	if c.NArg() > n {
		return seeHelp(c.Command, fmt.Errorf("unexpected argument %q", c.Args().Get(n)))
	}
	return nil
}

// restOf returns the words behind "--".
func restOf(c *cli.Context) []string {
	rest, _ := c.Context.Value(after{}).([]string)
	return rest
}

// noRest refuses words behind "--" where no command takes them.
func noRest(c *cli.Context) error {
	if rest := restOf(c); len(rest) > 0 {
		return fmt.Errorf("seccompgen %s takes nothing after --", c.Command.Name)
	}
	return nil
}
