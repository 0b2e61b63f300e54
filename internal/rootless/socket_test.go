package rootless

import (
	"bytes"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/tracer"
)

// Whoever says nothing takes no other's place, and not all of their own.
func TestConnections(t *testing.T) {
	_, socket := service(t, -1)
	var all []net.Conn
	for range userCalls {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		all = append(all, conn)
	}
	c := &Client{socket}
	if err := c.Collect("c1", nil); err == nil || !strings.Contains(err.Error(), "16 requests of user 0") {
		t.Errorf("got %v", err)
	}
	if said := client(t, nobody, socket, "collect", "c1"); !strings.Contains(said, "not being recorded") {
		t.Errorf("another user was told %s", said)
	}
	all[0].Close()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if err := c.Collect("c1", nil); errors.Is(err, tracer.ErrNotRecording) {
			break
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

func TestSocket(t *testing.T) {
	_, socket := service(t, someone)
	if said := client(t, nobody, socket, "collect", "c1"); !strings.Contains(said, "this user may not use it") {
		t.Errorf("one who is not of the group was told %q", said)
	}
	if said := client(t, someone, socket, "collect", "c1"); !strings.Contains(said, "not being recorded") {
		t.Errorf("one of the group was told %q", said)
	}
	if _, err := Listen(socket, 0); err == nil || !strings.Contains(err.Error(), "another service does") {
		t.Errorf("got %v", err)
	}
	if err := (&Client{socket + ".no"}).Start("c1", os.Getpid(), options()); !errors.Is(err, ErrNoService) {
		t.Errorf("got %v", err)
	}
	// Of one that was killed only the name is left.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket + ".dead", Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if err := (&Client{socket + ".dead"}).Start("c1", os.Getpid(), options()); !errors.Is(err, ErrNoService) {
		t.Errorf("got %v", err)
	}
	if l, err = Listen(socket+".dead", 0); err != nil {
		t.Error(err)
	} else {
		l.Close()
	}
	if err := os.WriteFile(socket+".file", []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(socket+".file", 0); err == nil {
		t.Error("a file of somebody's was removed")
	}
	if err := os.Chmod(filepath.Dir(socket), 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(socket+".more", 0); err == nil || !strings.Contains(err.Error(), "may be changed by others") {
		t.Errorf("got %v", err)
	}
}

func TestHome(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	passwd := file("passwd", "root:x:0:0:root:/root:/bin/sh\nbroken\nlab:x:4242:4242::/home/lab:/bin/sh\nodd:x:7:7::relative:/bin/sh\n")
	for uid, want := range map[string]string{"4242": "/home/lab", "0": "/root", "7": "", "9": ""} {
		if got, err := homeOf(uid, passwd); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: got %q, %v", uid, got, err)
		}
	}
	for text, want := range map[string]string{"         0       4242          1\n         1     500000      65536\n": "4242", "1 500000 1\n": "", "": ""} {
		if got, err := outerUID(file("uid_map", text)); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v", text, got, err)
		}
	}
}

func FuzzReceive(f *testing.F) {
	f.Add([]byte(`{"version":1,"do":"collect","id":"c1"}`))
	f.Add([]byte(`{"version":1,"do":"start","id":"c1","workload":{"args":["a"]}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		var conns [2]*net.UnixConn
		for i, fd := range pair {
			file := os.NewFile(uintptr(fd), "socket")
			conn, err := net.FileConn(file)
			file.Close()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conns[i] = conn.(*net.UnixConn)
		}
		go func() {
			_, _ = conns[0].Write(append(bytes.ReplaceAll(text, []byte{'\n'}, nil), '\n'))
			_ = conns[0].CloseWrite()
		}()
		r, fds, err := receive(conns[1])
		if r == nil || len(fds) > 0 || err == nil && r.Version != version {
			t.Errorf("got %+v, %v, %v", r, fds, err)
		}
	})
}
