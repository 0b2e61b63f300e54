// Hosts serves, dials by name, runs a child and fills its heap: what differs by host is left to the host.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"
)

func main() {
	if len(os.Args) > 1 {
		return
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "hosts:", err)
		os.Exit(1)
	}
	fmt.Println("served")
}

func run() error {
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		return err
	}
	defer l.Close()
	u, err := net.ListenPacket("udp", ":0")
	if err != nil {
		return err
	}
	defer u.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return err
	}
	go func() {
		if c, err := l.Accept(); err == nil {
			io.Copy(c, c)
			c.Close()
		}
	}()
	c, err := net.DialTimeout("tcp", net.JoinHostPort("localhost", port), 5*time.Second)
	if err != nil {
		return err
	}
	c.Close()
	if err := exec.Command("/proc/self/exe", "child").Run(); err != nil {
		return err
	}
	var kept [][]byte
	for range 64 {
		kept = append(kept, make([]byte, 1<<18))
		runtime.Gosched()
	}
	runtime.GC()
	runtime.KeepAlive(kept)
	root, err := os.OpenRoot(os.TempDir())
	if err != nil {
		return err
	}
	defer root.Close()
	f, err := root.Create("hosts")
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteString("a line\n"); err != nil {
		return err
	}
	return os.Rename(filepath.Join(os.TempDir(), "hosts"), filepath.Join(os.TempDir(), "hosts.old"))
}
