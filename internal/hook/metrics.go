package hook

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/syslog"
	"os"
	"slices"
	"strings"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/internal/journal"
)

// events are all that a hook can report, see docs/reference/metrics.md.
var events = []string{"recorded", "refused", "failed", "unrecorded", "never started"}

// report notes an event in the system's log, and counts it where --metrics says.
func (o *options) report(p syslog.Priority, event string, pairs ...string) {
	journal.Line(p, slices.Concat([]string{"event", event}, pairs)...)
	if o.metrics == "" {
		return
	}
	if err := count(o.metrics, event); err != nil { // no reason to fail a container
		journal.Line(syslog.LOG_WARNING, "event", "uncounted", "error", err.Error())
	}
}

const metric = "seccompgen_hook_events_total"

// count adds one to an event's counter in a file that Prometheus' node_exporter reads (its textfile collector).
func count(path, event string) error {
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600) // root's alone: nobody else can hold it
	if err != nil {
		return fmt.Errorf("count: %w", err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("count: lock %s: %w", lock.Name(), err)
	}
	var was []byte
	info, err := os.Lstat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err == nil {
		was, err = os.ReadFile(path)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("count: %w", err)
	}
	var text bytes.Buffer
	fmt.Fprintf(&text, "# HELP %s What the hooks of seccompgen did.\n# TYPE %[1]s counter\n", metric)
	for _, name := range events {
		counter := fmt.Sprintf("%s{event=%q}", metric, strings.ReplaceAll(name, " ", "_"))
		var n uint64
		for line := range strings.Lines(string(was)) {
			if rest, ok := strings.CutPrefix(line, counter+" "); ok {
				_, _ = fmt.Sscan(rest, &n) // a counter that cannot be read begins anew
			}
		}
		if name == event {
			n++
		}
		fmt.Fprintf(&text, "%s %d\n", counter, n)
	}
	if err := renameio.WriteFile(path, text.Bytes(), 0o644); err != nil {
		return fmt.Errorf("count: %w", err)
	}
	return nil
}
