package journal

import (
	"log/syslog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// listen makes a system's log of the test's own.
func listen(t *testing.T) *net.UnixConn {
	t.Helper()
	Socket = filepath.Join(t.TempDir(), "log")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: Socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { Socket = ""; c.Close() })
	return c
}

// Whatever a value holds, one line is one line.
func TestLine(t *testing.T) {
	c := listen(t)
	Line(syslog.LOG_WARNING, "event", "x", "error", "a\nevent=\"y\"", "long", strings.Repeat("a", 5000))
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 1<<16)
	n, err := c.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	head, text, ok := strings.Cut(strings.TrimSuffix(string(buf[:n]), "\n"), "]: ")
	if !ok || !strings.HasPrefix(head, "<28>") || !strings.Contains(head, " seccompgen[") { // daemon, warning
		t.Errorf("the line begins with %q", head)
	}
	if want := `event="x" error="a\nevent=\"y\"" long="` + strings.Repeat("a", 1024) + `"`; text != want {
		t.Errorf("got %q", text)
	}
}

func TestUnmatched(t *testing.T) {
	c := listen(t)
	Unmatched("c1", "web", nil) // says nothing
	Unmatched("c1", "web", []string{"record/a", "record/b"})
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 1<<16)
	n, err := c.Read(buf)
	if want := `event="unmatched" container="c1" name="web" annotations="record/a record/b"`; err != nil || !strings.HasSuffix(strings.TrimSuffix(string(buf[:n]), "\n"), want) {
		t.Errorf("got %q, %v", buf[:n], err)
	}
}

// A log that is missing, or that nobody reads, holds nobody up: the caller goes on.
func TestNoLog(t *testing.T) {
	goesOn := func(what string) {
		t.Helper()
		done := make(chan struct{})
		go func() { defer close(done); Line(0, "a", "b") }()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Errorf("%s: it waits", what)
		}
	}
	Socket = filepath.Join(t.TempDir(), "no")
	goesOn("no log")
	listen(t)
	// The queue of a socket is short (net.unix.max_dgram_qlen): fill it, so that the next line would wait.
	c, err := net.Dial("unixgram", Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for err = nil; err == nil; {
		_ = c.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
		_, err = c.Write([]byte("x"))
	}
	goesOn("a log that nobody reads")
}
