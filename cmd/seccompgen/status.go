package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/seccompgen/seccompgen/internal/container"
	"github.com/seccompgen/seccompgen/internal/engine"
	"github.com/seccompgen/seccompgen/internal/hook"
	"github.com/seccompgen/seccompgen/profile"
	"github.com/seccompgen/seccompgen/tracer"
)

func statusCommand() *cli.Command {
	return &cli.Command{
		Name:      "status",
		Usage:     "show recordings under way, what a crash left, and the engines that know the hook",
		ArgsUsage: "[ID...]",
		Description: `--probe runs the hook's own program in a container, as root: no image is pulled, and
there is no network. It removes what it starts and writes. Exit status 1 says that
nothing was recorded, and why.`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "collect", Usage: "write the recordings with these IDs where their hooks would have; without an ID, of all that have ended and whose hook did not come"},
			&cli.BoolFlag{Name: "abort", Usage: "end the recordings with these IDs and throw them away; without an ID, clear what crashes left"},
			&cli.BoolFlag{Name: "all", Usage: "with --abort: end all recordings of this host"},
			&cli.DurationFlag{Name: "grace", Value: 5 * time.Second, Usage: "leave the hooks of recordings that have ended `DURATION` before --collect or --abort takes them"},
			&cli.StringFlag{Name: "probe", Usage: "start a throw-away container of `ENGINE` (podman or docker), and say whether it is recorded"},
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
	switch {
	case c.Bool("abort") && c.Bool("collect"):
		return errors.New("give --collect or --abort, not both")
	case c.Bool("all") && !c.Bool("abort"):
		return errors.New("--all goes with --abort")
	case c.IsSet("probe") && (c.Bool("abort") || c.Bool("collect")):
		return errors.New("--probe goes alone")
	case c.Bool("abort"):
		return abort(c)
	case c.Bool("collect"):
		return collect(c)
	}
	if err := noMoreThan(c, 0); err != nil {
		return err
	}
	if c.IsSet("probe") {
		return probe(c)
	}
	list, err := tracer.List()
	if err != nil {
		return err
	}
	left, err := container.Leftovers()
	if err != nil {
		return err
	}
	others, err := tracer.Others()
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
		return profile.WriteJSON(c.App.Writer, map[string]any{"recordings": rows, "leftovers": left, "otherBuilds": others, "engines": (&engine.Host{}).Status()})
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
	if slices.ContainsFunc(list, uncollected) {
		fmt.Fprintln(c.App.Writer, "seccompgen status --collect writes the recordings of ended containers whose hook does not come")
	}
	for _, l := range left {
		fmt.Fprintf(c.App.Writer, "left by a crash: %s\n", l.Dir)
	}
	if len(left) > 0 {
		fmt.Fprintln(c.App.Writer, "seccompgen status --abort clears what crashes left")
	}
	if len(others) > 0 {
		fmt.Fprintf(c.App.Writer, "another build of seccompgen records, or has left its recorder (%s): its own status tells; --abort --all ends it\n", strings.Join(others, " "))
	}
	fmt.Fprintln(c.App.Writer)
	return printEngines(c.App.Writer, (&engine.Host{}).Status())
}

// probe says whether an engine's containers are recorded.
func probe(c *cli.Context) error {
	name := c.String("probe")
	p := &engine.Probe{Name: "seccompgen-probe-" + strings.ToLower(rand.Text()[:10]), Recordings: hook.DefaultDir}
	if os.Geteuid() != 0 {
		return hinted{fmt.Errorf("probe %s: recording needs root", name), "run this as root"}
	}
	r, err := p.Run(c.Context, name)
	if err == nil {
		fmt.Fprintf(c.App.Writer, "%s records: a container under %s %s made %d different calls\n", name, r.Runtime.Name, r.Runtime.Version, len(r.Syscalls))
		return nil
	}
	// A recording that is still under way tells one hook that did not come from two.
	list, listErr := tracer.List()
	at := slices.IndexFunc(list, func(s tracer.Status) bool { return strings.Contains(string(s.Options.Hook), p.Name) })
	switch {
	case listErr != nil:
		err = errors.Join(err, listErr)
	case at >= 0:
		err = errors.Join(fmt.Errorf("%w: the hook was called at its start, and not after its end", err), tracer.Abort(list[at].ID))
	case errors.Is(err, engine.ErrNotRecorded):
		err = hinted{fmt.Errorf("%w: nothing called the hook", err), "seccompgen status says where it is registered, journalctl -t seccompgen what hooks said"}
	}
	return fmt.Errorf("probe %s: %w", name, err)
}

func printEngines(w io.Writer, engines []engine.Status) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "ENGINE\tVERSION\tRUNS\tHOOK VERSION\tREGISTERED IN")
	for _, s := range engines {
		if s.Version == "" && len(s.Registered) == 0 && len(s.Problems) == 0 {
			continue
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", s.Engine, orDash(s.Version), orDash(strings.Join(s.Programs, " ")), orDash(s.Hook), orDash(strings.Join(s.Registered, " ")))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, s := range engines {
		for _, p := range s.Problems {
			fmt.Fprintf(w, "%s: %s\n", s.Engine, p)
		}
	}
	return nil
}

// uncollected reports that a recording has ended and its hook has yet to come. Those of sessions go with their sessions: one
// that lives is about to collect.
func uncollected(s tracer.Status) bool {
	return s.State == tracer.Ended && !strings.HasPrefix(s.Options.Output, container.Root+"/")
}

// stale returns the recordings whose hook had its time to collect them, and did not.
func stale(c *cli.Context) ([]tracer.Status, error) {
	list, err := tracer.List()
	if err != nil || !slices.ContainsFunc(list, uncollected) {
		return nil, err
	}
	select {
	case <-time.After(c.Duration("grace")):
	case <-c.Done():
		return nil, c.Err()
	}
	later, err := tracer.List()
	return slices.DeleteFunc(later, func(s tracer.Status) bool {
		return !uncollected(s) || !slices.ContainsFunc(list, func(b tracer.Status) bool { return uncollected(b) && b.ID == s.ID && b.Pid == s.Pid })
	}), err
}

func collect(c *cli.Context) error {
	var list []tracer.Status
	var err error
	if c.Args().Present() {
		list, err = tracer.List()
	} else {
		list, err = stale(c)
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, id := range c.Args().Slice() {
		if !slices.ContainsFunc(list, func(s tracer.Status) bool { return s.ID == id }) {
			errs = append(errs, fmt.Errorf("container %q: %w", id, tracer.ErrNotRecording))
		}
	}
	for _, s := range list {
		if c.Args().Present() && !slices.Contains(c.Args().Slice(), s.ID) {
			continue
		}
		file, err := hook.Collect(s)
		if err == nil {
			fmt.Fprintf(c.App.Writer, "collected %s into %s\n", s.ID, file)
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		fmt.Fprintln(c.App.Writer, "nothing to collect")
	}
	return errors.Join(errs...)
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
	if c.Bool("all") {
		ended("all recordings", tracer.AbortAll())
	} else {
		list, err := stale(c)
		if err != nil {
			return err
		}
		for _, r := range list {
			ended(r.ID, tracer.Abort(r.ID))
		}
	}
	if len(errs) == 0 {
		fmt.Fprintln(c.App.Writer, "nothing to clear")
	}
	return errors.Join(errs...)
}
