package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
)

// interrupted gives a stopped command its reason instead of the errors that the stop caused, and keeps the others: what
// could not be cleaned up.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() == nil || !stopped(err) {
		return err
	}
	if rest := unstopped(err); rest != nil {
		return hinted{fmt.Errorf("interrupted, and not all was cleaned up: %w", rest), "see seccompgen status"}
	}
	return errors.New("interrupted, and cleaned up")
}

// stopped tells an error that a stop caused: the run's, or that of the toolchain, which was stopped too.
func stopped(err error) bool {
	return errors.Is(err, context.Canceled) || errors.As(err, new(*exec.ExitError))
}

// unstopped returns what is left of an error without what a stop caused.
func unstopped(err error) error {
	if !stopped(err) {
		return err
	}
	switch e := err.(type) { //nolint:errorlint // it walks the tree itself
	case interface{ Unwrap() error }:
		return unstopped(e.Unwrap())
	case interface{ Unwrap() []error }:
		var rest []error
		for _, one := range e.Unwrap() {
			rest = append(rest, unstopped(one))
		}
		return errors.Join(rest...)
	}
	return nil
}
