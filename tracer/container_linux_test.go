//go:build amd64

package tracer

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/profile"
)

// container is a process that waits to become a container.
type container struct {
	t       *testing.T
	id      string
	cmd     *exec.Cmd
	in, out *os.File
}

// newContainer starts the program as an init that is ready to be recorded. in is a mount namespace to give it as fd 3.
func newContainer(t *testing.T, own bool, in *container, args ...string) *container {
	t.Helper()
	inR, inW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c := &container{t: t, in: inW, out: outR, cmd: exec.Command(program(t), append([]string{"init"}, args...)...)}
	c.cmd.Stdin, c.cmd.Stdout = inR, outW
	c.cmd.Dir = t.TempDir()
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if own {
		c.cmd.SysProcAttr.Unshareflags = unix.CLONE_NEWNS
	}
	ns := "/proc/self/ns/mnt"
	if in != nil {
		ns = fmt.Sprintf("/proc/%d/ns/mnt", in.cmd.Process.Pid)
	}
	f, err := os.Open(ns)
	if err != nil {
		t.Fatal(err)
	}
	c.cmd.ExtraFiles = []*os.File{f}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, f := range []*os.File{inR, outW, f} {
		f.Close()
	}
	t.Cleanup(func() {
		inW.Close()
		outR.Close()
		c.cmd.Process.Kill()
		c.cmd.Wait()
	})
	c.id = fmt.Sprintf("%s-%d-%d", t.Name(), os.Getpid(), c.cmd.Process.Pid)
	c.ready()
	return c
}

// ready waits until the init is.
func (c *container) ready() {
	c.t.Helper()
	if _, err := io.ReadFull(c.out, make([]byte, 1)); err != nil {
		c.t.Fatalf("the init does not become ready: %v", err)
	}
}

// asleep waits until all threads are in the call nr.
func (c *container) asleep(nr string) {
	c.t.Helper()
	waitFor(c.t, "call "+nr, func() bool {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", c.cmd.Process.Pid))
		for _, f := range files {
			if text, err := os.ReadFile(f); err != nil || !strings.HasPrefix(string(text), nr+" ") {
				return false
			}
		}
		return len(files) > 0
	})
}

func (c *container) record(o Options) *container {
	c.t.Helper()
	if err := Start(c.id, c.cmd.Process.Pid, o); err != nil {
		c.t.Fatal(err)
	}
	return c
}

// goOn gives the init its filter.
func (c *container) goOn(rules ...rule) *container {
	c.t.Helper()
	if _, err := c.in.Write(filter(rules...)); err != nil {
		c.t.Fatal(err)
	}
	return c
}

// wait waits for the end of all processes of the container.
func (c *container) wait() *container {
	c.t.Helper()
	if _, err := c.cmd.Process.Wait(); err != nil {
		c.t.Fatal(err)
	}
	c.in.Close()
	if _, err := io.Copy(io.Discard, c.out); err != nil {
		c.t.Fatal(err)
	}
	return c
}

func (c *container) collect() result {
	c.t.Helper()
	var r result
	if err := Collect(c.id, func(rec *profile.Recording) error { r = summary(rec); return nil }); err != nil {
		c.t.Fatal(err)
	}
	return r
}

// rule is what a filter answers to one call.
type rule struct {
	arch, nr, answer uint32
}

// filter assembles a filter that allows whatever no rule answers.
func filter(rules ...rule) []byte {
	var prog []unix.SockFilter
	for _, r := range rules {
		prog = append(prog,
			unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 4},
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: r.arch, Jf: 3},
			unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS},
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: r.nr, Jf: 1},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: r.answer},
		)
	}
	prog = append(prog, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0x7fff0000}) // SECCOMP_RET_ALLOW
	var b bytes.Buffer
	if err := binary.Write(&b, binary.LittleEndian, prog); err != nil {
		panic(err) // a buffer and fixed sizes: cannot happen
	}
	return b.Bytes()
}
