package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"github.com/seccompgen/seccompgen/internal/container"
	"github.com/seccompgen/seccompgen/tracer"
)

func statusCommand() *cli.Command {
	return &cli.Command{
		Name:      "status",
		Usage:     "show recordings under way and what a crash left",
		ArgsUsage: "[ID...]",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "abort", Usage: "end the recordings with these IDs; without an ID, clear what crashes left"},
			&cli.BoolFlag{Name: "all", Usage: "with --abort: end all recordings of this host"},
			&cli.BoolFlag{Name: "json", Usage: "print JSON"},
		},
		Action: status,
	}
}

// recordingStatus is a row of status.
type recordingStatus struct {
	ID       string `json:"id"`
	Pid      int    `json:"pid"`
	State    string `json:"state"` // armed, recording or ended
	Boundary string `json:"boundary,omitempty"`
	Calls    int    `json:"calls"`
	Denied   int    `json:"denied"`
	Tasks    uint64 `json:"tasks"`
	Output   string `json:"output,omitempty"`
}

func status(c *cli.Context) error {
	if err := noRest(c); err != nil {
		return err
	}
	if c.Bool("abort") {
		return abort(c)
	}
	if c.Bool("all") {
		return errors.New("--all goes with --abort")
	}
	if err := noMoreThan(c, 0); err != nil {
		return err
	}
	list, err := tracer.List()
	if err != nil {
		return err
	}
	left, err := container.Leftovers()
	if err != nil {
		return err
	}
	rows := []recordingStatus{}
	for _, r := range list {
		rows = append(rows, recordingStatus{
			ID: r.ID, Pid: r.Pid, State: string(r.State), Boundary: string(r.Boundary), Calls: r.Calls, Denied: r.Denied, Tasks: r.Alive, Output: r.Options.Output,
		})
	}
	if c.Bool("json") {
		e := json.NewEncoder(c.App.Writer)
		e.SetIndent("", "  ")
		return e.Encode(map[string]any{"recordings": rows, "leftovers": left})
	}
	if len(rows) == 0 {
		fmt.Fprintln(c.App.Writer, "no recordings under way")
	} else {
		t := tabwriter.NewWriter(c.App.Writer, 0, 4, 2, ' ', 0)
		fmt.Fprintln(t, "CONTAINER\tPID\tSTATE\tBOUNDARY\tCALLS\tDENIED\tTASKS\tOUTPUT")
		for _, r := range rows {
			fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%d\t%d\t%d\t%s\n", r.ID, r.Pid, r.State, orDash(r.Boundary), r.Calls, r.Denied, r.Tasks, orDash(r.Output))
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	for _, l := range left {
		fmt.Fprintf(c.App.Writer, "left by a crash: %s\n", l.Dir)
	}
	if len(left) > 0 {
		fmt.Fprintln(c.App.Writer, "seccompgen status --abort clears what crashes left")
	}
	return nil
}

func abort(c *cli.Context) error {
	var errs []error
	ended := func(what string, err error) {
		if err == nil {
			fmt.Fprintf(c.App.Writer, "cleared %s\n", what)
		}
		errs = append(errs, err)
	}
	for _, id := range c.Args().Slice() {
		ended(id, tracer.Abort(id))
	}
	if c.Args().Present() {
		return errors.Join(errs...)
	}
	left, err := container.Leftovers()
	if err != nil {
		return err
	}
	for _, l := range slices.Backward(left) { // runs before their session
		ended(l.Dir, l.Remove())
	}
	list, err := tracer.List()
	if err != nil {
		return err
	}
	for _, r := range list {
		// Those of sessions go with their sessions: one that lives is about to collect.
		if r.State == tracer.Ended && !c.Bool("all") && !strings.HasPrefix(r.Options.Output, container.Root+"/") {
			ended(r.ID, tracer.Abort(r.ID))
		}
	}
	if c.Bool("all") {
		ended("all recordings", tracer.AbortAll())
	}
	if len(errs) == 0 {
		fmt.Fprintln(c.App.Writer, "nothing to clear")
	}
	return errors.Join(errs...)
}
