package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/seccompgen/seccompgen/internal/engine"
)

func installCommand() *cli.Command {
	return &cli.Command{
		Name:      "install",
		Usage:     "register the hook with a container engine: " + strings.Join(engine.Names, ", "),
		ArgsUsage: "ENGINE",
		Description: `Changes the file in which this engine, as it is configured, looks for hooks or runtimes.
Containers that ask for it with the annotation dev.seccompgen.record are recorded then,
and no others.`,
		Flags: append(registerFlags(),
			&cli.StringFlag{Name: "hook", Usage: "register the oci-hook at `PATH`, beside which the other programs are"}),
		Action: func(c *cli.Context) error { return register(c, (*engine.Host).Install) },
	}
}

func uninstallCommand() *cli.Command {
	return &cli.Command{
		Name:      "uninstall",
		Usage:     "remove the hook from a container engine",
		ArgsUsage: "ENGINE",
		Flags:     registerFlags(),
		Action:    func(c *cli.Context) error { return register(c, (*engine.Host).Uninstall) },
	}
}

func registerFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "dry-run", Usage: "print the changes as a patch, and make none"},
		&cli.StringFlag{Name: "root", Usage: "change the files beneath `DIR` instead of those of this host"},
	}
}

func register(c *cli.Context, plan func(*engine.Host, string) (*engine.Plan, error)) error {
	if err := errors.Join(noRest(c), noMoreThan(c, 1)); err != nil {
		return err
	}
	if c.NArg() == 0 {
		return seeHelp(c.Command, fmt.Errorf("give an engine: %s", strings.Join(engine.Names, ", ")))
	}
	name := c.Args().First()
	host := &engine.Host{}
	if dir := c.String("root"); dir != "" {
		var err error
		if host.Root, err = filepath.Abs(dir); err != nil {
			return err
		}
	}
	if c.Command.Name == "install" {
		path, err := findHook(c.String("hook"))
		if err != nil {
			return err
		}
		host.Dir = filepath.Dir(path)
	}
	p, err := plan(host, name)
	if err != nil {
		return fmt.Errorf("%s %s: %w", c.Command.Name, name, err)
	}
	if c.Bool("dry-run") {
		_, err := c.App.Writer.Write(p.Diff())
		return err
	}
	if err := p.Apply(); err != nil {
		return fmt.Errorf("%s %s: %w", c.Command.Name, name, err)
	}
	for _, change := range p.Changes {
		did := "wrote"
		if change.Removes() {
			did = "removed"
		}
		fmt.Fprintf(c.App.Writer, "%s %s\n", did, change.Path)
	}
	if len(p.Changes) == 0 {
		fmt.Fprintln(c.App.Writer, "nothing to change")
	}
	if p.After != "" {
		say(c.App.ErrWriter, "%s", p.After)
	}
	if c.Command.Name == "install" && host.Root == "" && engine.CanProbe(name) {
		say(c.App.ErrWriter, "seccompgen status --probe %s tries whether it records", name)
	}
	return nil
}
