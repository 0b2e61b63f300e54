// seccompgen makes seccomp profiles from a program's own tests: record, build, verify.
package main

import (
	"context"
	"errors"
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
)

// negative is a verdict, not a failure: it exits with 2.
type negative struct{ reason string }

func (n negative) Error() string { return n.reason }

func main() {
	if reexec.Init() {
		return
	}
	defer func() { // a crash is an error: the Go runtime's own exit status would say "the verdict is negative"
		if r := recover(); r != nil {
			fmt.Fprintf(os.Stderr, "seccompgen: crashed, please report it: %v\n%s", r, debug.Stack())
			os.Exit(1)
		}
	}()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, os.Args, os.Stdout, os.Stderr)
	stop()
	os.Exit(exitCode(err, os.Stderr))
}

func exitCode(err error, stderr io.Writer) int {
	if err == nil {
		return 0
	}
	fmt.Fprintln(stderr, "seccompgen:", err)
	if errors.As(err, new(negative)) {
		return 2
	}
	return 1
}

// after holds the words behind "--", which belong to the workload.
type after struct{}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	app := &cli.App{
		Name:                      "seccompgen",
		Usage:                     "make seccomp profiles from a program's own tests, and prove them",
		Version:                   version(),
		Commands:                  []*cli.Command{recordCommand(), buildCommand(), verifyCommand(), explainCommand(), diffCommand(), inspectCommand(), statusCommand(), serveCommand(), installCommand(), uninstallCommand(), featuresCommand()},
		Writer:                    stdout,
		ErrWriter:                 stderr,
		HideHelpCommand:           true,
		DisableSliceFlagSeparator: true,
		ExitErrHandler:            func(*cli.Context, error) {},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return fmt.Errorf("no command %q: see seccompgen --help", c.Args().First())
			}
			return cli.ShowAppHelp(c)
		},
	}
	for _, c := range app.Commands {
		c.OnUsageError = func(_ *cli.Context, err error, _ bool) error {
			return fmt.Errorf("%w: see seccompgen %s --help", err, c.Name)
		}
		c.HideHelpCommand = true
	}
	app.OnUsageError = func(_ *cli.Context, err error, _ bool) error { return fmt.Errorf("%w: see seccompgen --help", err) }
	var rest []string
	if i := slices.Index(args, "--"); i >= 0 {
		args, rest = args[:i], slices.Clone(args[i+1:])
	}
	return app.RunContext(context.WithValue(ctx, after{}, rest), flagsFirst(app, args))
}

// flagsFirst moves the flags of a command before its arguments: urfave/cli v2 takes a flag after the first argument for
// an argument, silently.
func flagsFirst(app *cli.App, args []string) []string {
	if len(args) < 2 {
		return args
	}
	cmd := app.Command(args[1])
	if cmd == nil {
		return args
	}
	var flags, words []string
	for i := 2; i < len(args); i++ {
		name, _, hasValue := strings.Cut(strings.TrimLeft(args[i], "-"), "=")
		if !strings.HasPrefix(args[i], "-") || args[i] == "-" {
			words = append(words, args[i])
			continue
		}
		flags = append(flags, args[i])
		f := slices.IndexFunc(cmd.Flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), name) })
		if hasValue || f < 0 {
			continue
		}
		if needsNoValue(cmd.Flags[f]) {
			continue
		}
		if i++; i == len(args) {
			return slices.Concat(args[:2], flags) // its value is missing, and "--" is not it
		}
		flags = append(flags, args[i])
	}
	return slices.Concat(args[:2], flags, []string{"--"}, words)
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
		return fmt.Errorf("unexpected argument %q: see seccompgen %s --help", c.Args().Get(n), c.Command.Name)
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
