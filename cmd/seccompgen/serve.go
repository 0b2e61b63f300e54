package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/user"
	"strconv"

	"github.com/urfave/cli/v2"

	"github.com/seccompgen/seccompgen/internal/rootless"
)

func serveCommand() *cli.Command {
	return &cli.Command{
		Name:  "serve",
		Usage: "record for rootless engines, whose hooks may not use eBPF, until stopped",
		Description: `Without --group or --everybody root alone may have containers recorded. It logs to
standard error.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "group", Usage: "users of `GROUP` may have their containers recorded (default: root alone)"},
			&cli.BoolFlag{Name: "everybody", Usage: "all users may"},
			&cli.StringFlag{Name: "socket", Value: rootless.Socket, Usage: "listen on `PATH`"},
		},
		Action: serve,
	}
}

func serve(c *cli.Context) error {
	if err := errors.Join(noRest(c), noMoreThan(c, 0)); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return hinted{errors.New("serve: eBPF needs root"), "run this as root"}
	}
	gid := 0
	switch {
	case c.Bool("everybody") && c.IsSet("group"):
		return errors.New("give --group or --everybody, not both")
	case c.Bool("everybody"):
		gid = -1
	case c.IsSet("group"):
		group, err := user.LookupGroup(c.String("group"))
		if err != nil {
			return hinted{fmt.Errorf("--group %s: %w", c.String("group"), err), "make it with groupadd, and add the users"}
		}
		if gid, err = strconv.Atoi(group.Gid); err != nil {
			return fmt.Errorf("--group %s: %w", c.String("group"), err)
		}
	}
	l, err := rootless.Listen(c.String("socket"), gid)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(c.App.ErrWriter, nil))
	log.Info("listening", "socket", c.String("socket"))
	return rootless.New(log).Serve(c.Context, l)
}
