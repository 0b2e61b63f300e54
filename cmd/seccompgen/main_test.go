package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/urfave/cli/v2"
)

func TestFlagsFirst(t *testing.T) {
	app := &cli.App{Flags: []cli.Flag{&cli.BoolFlag{Name: "debug"}}, Commands: []*cli.Command{{Name: "x", Flags: []cli.Flag{
		&cli.StringFlag{Name: "o"}, &cli.BoolFlag{Name: "b"}, &cli.IntFlag{Name: "runs", Aliases: []string{"n"}},
	}}}}
	for name, c := range map[string]struct{ in, want []string }{
		"none":            {[]string{"s"}, []string{"s"}},
		"no command":      {[]string{"s", "y", "a", "-o", "b"}, []string{"s", "y", "a", "-o", "b"}},
		"after":           {[]string{"s", "x", "a", "-o", "f", "-b", "c"}, []string{"s", "x", "-o", "f", "-b", "--", "a", "c"}},
		"equals":          {[]string{"s", "x", "a", "--o=f", "-b=false"}, []string{"s", "x", "--o=f", "-b=false", "--", "a"}},
		"alias":           {[]string{"s", "x", "a", "-n", "3"}, []string{"s", "x", "-n", "3", "--", "a"}},
		"dash":            {[]string{"s", "x", "-", "-o", "-"}, []string{"s", "x", "-o", "-", "--", "-"}},
		"unknown flag":    {[]string{"s", "x", "a", "--what", "b"}, []string{"s", "x", "--what", "--", "a", "b"}},
		"value is a flag": {[]string{"s", "x", "-o", "-b"}, []string{"s", "x", "-o", "-b", "--"}},
		"value missing":   {[]string{"s", "x", "a", "-o"}, []string{"s", "x", "-o"}},
		"program's":       {[]string{"s", "--debug", "x", "a", "-b"}, []string{"s", "--debug", "x", "-b", "--", "a"}},
		"program's last":  {[]string{"s", "x", "a", "--debug"}, []string{"s", "--debug", "x", "--", "a"}},
		"completion":      {[]string{"s", "x", "a", "-", completionFlag}, []string{"s", "x", "a", "-", completionFlag}},
	} {
		if diff := cmp.Diff(c.want, flagsFirst(app, c.in)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestInterrupted(t *testing.T) {
	stopped, stop := context.WithCancel(t.Context())
	stop()
	leftover := errors.New("unmount x: busy")
	killed := exec.Command("sh", "-c", "kill -9 $$").Run()
	for _, c := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("run: %w", context.Canceled), "interrupted, and cleaned up"},
		{fmt.Errorf("build: %w\nsaid", killed), "interrupted, and cleaned up"},
		{errors.Join(fmt.Errorf("run: %w", context.Canceled), leftover), "interrupted, and not all was cleaned up: unmount x: busy"},
		{fmt.Errorf("run: %w", errors.Join(context.Canceled, fmt.Errorf("close: %w", leftover))), "interrupted, and not all was cleaned up: close: unmount x: busy"},
		{leftover, "unmount x: busy"},
	} {
		if got := interrupted(stopped, c.err); got.Error() != c.want {
			t.Errorf("%v: got %q, want %q", c.err, got, c.want)
		}
		if got := interrupted(t.Context(), c.err); !errors.Is(got, c.err) {
			t.Errorf("%v was not stopped, and became %v", c.err, got)
		}
	}
	if err := interrupted(stopped, nil); err != nil {
		t.Errorf("a command that ended became %v", err)
	}
}
