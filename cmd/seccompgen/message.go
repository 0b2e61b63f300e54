package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"
)

// say prints a line for people. Products go to standard output, lines to standard error.
func say(to io.Writer, format string, args ...any) {
	fmt.Fprintf(to, "seccompgen: "+format+"\n", args...)
}

// warn prints what may make a product something else than people take it for.
func warn(to io.Writer, format string, args ...any) {
	say(to, "warning: "+format, args...)
}

// hinted is an error with what to do about it, which stands on a line of its own.
type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }

// seeHelp is for a command line that says too little or too much.
func seeHelp(c *cli.Command, err error) error {
	return hinted{err, fmt.Sprintf("see seccompgen %s --help", c.Name)}
}

// negative is a verdict, not a failure: it exits with 2.
type negative struct{ reason string }

func (n negative) Error() string { return n.reason }

// exitStatus prints an error or a verdict, and returns the exit status for it. An error that can say more, as the BPF
// verifier's, does so under --debug.
func exitStatus(err error, stderr io.Writer, debug bool) int {
	if err == nil {
		return 0
	}
	if errors.As(err, new(negative)) {
		say(stderr, "%v", err)
		return 2
	}
	say(stderr, "error: %v", err)
	if h := (hinted{}); errors.As(err, &h) {
		say(stderr, "hint: %s", h.hint)
	}
	var more interface {
		error
		fmt.Formatter
	}
	if debug && errors.As(err, &more) {
		fmt.Fprintf(stderr, "%+v\n", more)
	}
	return 1
}
