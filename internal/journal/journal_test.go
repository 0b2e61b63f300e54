package journal

import (
	"net"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A log that is missing, or that hangs, is nobody's error.
func TestNoLog(t *testing.T) {
	Socket = filepath.Join(t.TempDir(), "no")
	t.Cleanup(func() { Socket = "" })
	Line(0, "a", "b")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	Socket = filepath.Join(t.TempDir(), "full")
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: Socket}); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	// Nobody reads. The queue of a socket is short (net.unix.max_dgram_qlen): soon a line would block.
	c, err := net.Dial("unixgram", Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for err = nil; err == nil; {
		_ = c.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
		_, err = c.Write([]byte("x"))
	}
	Line(0, "a", "b")
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
}
