// Package journal writes lines to the system's log.
package journal

import (
	"fmt"
	"log/syslog"
	"strings"
	"time"
)

// tag is the tag of our lines: journalctl -t seccompgen.
const tag = "seccompgen"

// Socket is where the system's log listens; empty is where this platform has it. Tests have their own.
var Socket = ""

// Line sends a line of key=value pairs to the system's log. A host may have none, or one that hangs: that is nobody's
// error, and takes a second at most.
func Line(p syslog.Priority, pairs ...string) {
	var line strings.Builder
	for i := 0; i+1 < len(pairs); i += 2 {
		if i > 0 {
			line.WriteByte(' ')
		}
		value := pairs[i+1]
		if len(value) > 1024 {
			value = value[:1024]
		}
		// Quoted, no value can end the line or begin another pair.
		fmt.Fprintf(&line, "%s=%q", pairs[i], value)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		network := ""
		if Socket != "" {
			network = "unixgram"
		}
		w, err := syslog.Dial(network, Socket, p|syslog.LOG_DAEMON, tag)
		if err != nil {
			return
		}
		defer func() { _ = w.Close() }()
		_, _ = w.Write([]byte(line.String()))
	}()
	select {
	case <-ended:
	case <-time.After(time.Second):
	}
}

// Unmatched notes the annotations that ask for recordings of containers of other names than this one's.
func Unmatched(id, name string, annotations []string) {
	if len(annotations) > 0 {
		Line(syslog.LOG_NOTICE, "event", "unmatched", "container", id, "name", name, "annotations", strings.Join(annotations, " "))
	}
}
