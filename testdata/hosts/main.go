// Hosts makes the calls whose arguments differ by host: "hosts [TRAIT... --] MODE...". Modes are listen (on 127.0.0.1 only,
// the default), serve (on all addresses, dialed by name) and work (files, locks, timers, memory, a child). What comes before --
// makes this process the host that it names, and what follows it runs there: see host.go.
package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "hosts:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if i := slices.Index(args, "--"); i >= 0 {
		return host(args[:i], args[i+1:])
	}
	if len(args) == 0 {
		args = []string{"listen"}
	}
	for _, mode := range args {
		f := map[string]func() error{"listen": listen, "serve": serve, "work": work, "child": func() error { return nil }}[mode]
		if f == nil {
			return fmt.Errorf("no mode is called %q", mode)
		}
		if err := f(); err != nil {
			return fmt.Errorf("%s: %w", mode, err)
		}
	}
	return nil
}

func listen() error {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	return l.Close()
}

func serve() error {
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	u, err := net.ListenPacket("udp", ":0")
	if err != nil {
		return err
	}
	defer func() { _ = u.Close() }()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return err
	}
	echoed := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, err = io.Copy(c, c)
			err = errors.Join(err, c.Close())
		}
		echoed <- err
	}()
	c, err := net.DialTimeout("tcp", net.JoinHostPort("localhost", port), 5*time.Second)
	if err != nil {
		return err
	}
	_, err = c.Write([]byte("a line\n"))
	return errors.Join(err, c.(*net.TCPConn).CloseWrite(), <-echoed, c.Close())
}

func work() error {
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
	select {
	case <-time.After(5 * time.Millisecond):
	case <-time.NewTimer(time.Hour).C:
	}
	return files()
}

// files writes, locks and copies a file, and asks it, which is no device, what its driver alone knows.
func files() error {
	dir, err := os.MkdirTemp("", "hosts")
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	from, err := root.Create("from")
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := root.Create("to")
	if err != nil {
		return err
	}
	defer to.Close()
	lock := syscall.Flock_t{Type: syscall.F_WRLCK}
	const sectorSize = 0x1268 // BLKSSZGET
	if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, from.Fd(), sectorSize, 0); e != syscall.ENOTTY {
		return fmt.Errorf("ask a file for its sectors: want ENOTTY, got %w", e)
	}
	_, err = from.WriteString("a line\n")
	if err = errors.Join(err, syscall.Flock(int(from.Fd()), syscall.LOCK_EX), syscall.FcntlFlock(from.Fd(), syscall.F_SETLK, &lock)); err != nil {
		return err
	}
	if _, err := from.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if _, err := io.Copy(to, from); err != nil {
		return err
	}
	return errors.Join(root.Rename("to", "copy"), os.RemoveAll(filepath.Clean(dir)))
}
