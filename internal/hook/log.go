package hook

import (
	"fmt"
	"log/syslog"
	"strings"
	"time"
)

// logTag is the tag of our lines: journalctl -t seccompgen.
const logTag = "seccompgen"

// logSocket is where the system's log listens; empty is where this platform has it. Tests have their own.
var logSocket = ""

// logLine sends a line of key=value pairs to the system's log. A host may have none, or one that hangs: that is nobody's
// error, and takes a second at most.
func logLine(p syslog.Priority, pairs ...string) {
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
		if logSocket != "" {
			network = "unixgram"
		}
		w, err := syslog.Dial(network, logSocket, p|syslog.LOG_DAEMON, logTag)
		if err != nil {
			return
		}
		defer done(w)
		_, _ = w.Write([]byte(line.String()))
	}()
	select {
	case <-ended:
	case <-time.After(time.Second):
	}
}
