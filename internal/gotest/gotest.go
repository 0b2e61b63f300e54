// Package gotest lets go test find and build the tests of several packages, and runs each test binary in a way of one's own.
//
// go test knows patterns, workspaces, vendored modules, build tags and GOFLAGS, builds and runs in parallel, and prints. Its
// flag -exec names a program that is to run a test binary. Here that program hands the test to the process that started go test.
package gotest

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/moby/sys/reexec"
)

// execName is the name under which go test executes this program.
const execName = "seccompgen-go-test-exec"

func init() { reexec.Register(execName, execute) }

// Test is a test binary that go test wants to be run.
type Test struct {
	Package string // import path
	Module  string // with its version, if that is not the main one; "std" for Go's own
	Binary  string // go test removes it later
	Dir     string // the package's directory
	Flags   []string
}

// Outcome is what came of a test.
type Outcome struct {
	Exit int
	Note string // is added to the line that go test prints for the package
}

// Options say what go test is to do.
type Options struct {
	Patterns []string
	Flags    []string // go test's; see [CheckFlags]
	Parallel int      // builds and packages at a time; 0 is go test's own choice
	Dir      string   // an empty directory, which nobody else can write to
	Output   io.Writer
	// Run runs a test, and writes what it prints. It is called for several packages at a time. An error ends go test.
	Run func(ctx context.Context, t *Test, output io.Writer) (Outcome, error)
}

// Run runs go test. It returns the packages that go test could not build, sorted. An error means that go test did not do its
// work; a test that fails is none.
func Run(ctx context.Context, o Options) (unbuilt []string, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	if err := os.Symlink(self, filepath.Join(o.Dir, execName)); err != nil {
		return nil, err
	}
	socket := filepath.Join(o.Dir, "socket")
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("listen to go test: %w", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	out := &printer{to: o.Output, notes: map[string]string{}}
	s := &server{o: o, out: out, fail: cancel}
	var group sync.WaitGroup
	group.Go(func() { s.serve(ctx, listener, &group) })
	defer group.Wait()
	defer func() { _ = listener.Close() }() // it was for reading alone

	// A package's own timeout would count all its runs together, and results of tests that were cached are no runs. GOFLAGS may
	// hold flags that nobody means here.
	args := []string{"test", "-exec", execName + " " + socket, "-timeout=0", "-count=1", "-c=false", "-json=false"}
	if o.Parallel > 0 {
		args = append(args, fmt.Sprintf("-p=%d", o.Parallel))
	}
	cmd := exec.CommandContext(ctx, "go", slices.Concat(args, o.Patterns, o.Flags)...)
	cmd.Env = append(os.Environ(), "PATH="+o.Dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	stdout, stderr := out.stream(), out.stream()
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is ours to handle
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = 20 * time.Second
	err = cmd.Run()
	if err := errors.Join(stdout.close(), stderr.close()); err != nil {
		return nil, fmt.Errorf("print what go test printed: %w", err)
	}
	if cause := context.Cause(ctx); cause != nil {
		return nil, cause
	}
	out.mu.Lock()
	defer out.mu.Unlock()
	var exit *exec.ExitError
	switch {
	case err != nil && !errors.As(err, &exit):
		return nil, fmt.Errorf("run go test: %w", err)
	case err != nil && len(out.unbuilt) == 0 && !out.failed:
		return nil, fmt.Errorf("go test %s: %w", strings.Join(o.Patterns, " "), err)
	}
	slices.Sort(out.unbuilt)
	return slices.Compact(out.unbuilt), nil
}

// request is what the program that go test executes asks for, and reply a part of the answer; the last one has the exit status.
type request struct {
	Binary, Dir string
	Args        []string
}

type reply struct {
	Output []byte `json:",omitempty"`
	Exit   *int   `json:",omitempty"`
}

type server struct {
	o    Options
	out  *printer
	fail func(error)
}

func (s *server) serve(ctx context.Context, l net.Listener, group *sync.WaitGroup) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return // Run has closed it
		}
		group.Go(func() {
			defer conn.Close()
			if err := s.answer(ctx, conn); err != nil {
				s.fail(err)
			}
		})
	}
}

func (s *server) answer(ctx context.Context, conn net.Conn) error {
	var r request
	if err := json.NewDecoder(conn).Decode(&r); err != nil {
		return fmt.Errorf("read what go test wants to be run: %w", err)
	}
	t, err := newTest(r)
	if err != nil {
		return err
	}
	replies := json.NewEncoder(conn)
	outcome, err := s.o.Run(ctx, t, writerFunc(func(p []byte) (int, error) { return len(p), replies.Encode(reply{Output: p}) }))
	if err != nil {
		return err
	}
	s.out.note(t.Package, outcome)
	if err := replies.Encode(reply{Exit: &outcome.Exit}); err != nil && ctx.Err() == nil {
		return fmt.Errorf("tell go test the result of %s: %w", t.Package, err)
	}
	return nil
}

// newTest reads from a test binary of which package it is.
func newTest(r request) (*Test, error) {
	info, err := buildinfo.ReadFile(r.Binary)
	if err != nil {
		return nil, fmt.Errorf("read the build info of the tests: %w", err)
	}
	t := &Test{Package: strings.TrimSuffix(info.Path, ".test"), Module: "std", Binary: r.Binary, Dir: r.Dir, Flags: binaryFlags(r.Args)}
	if m := info.Main; m.Path != "" {
		t.Module = m.Path
		if m.Version != "" && m.Version != "(devel)" {
			t.Module += "@" + m.Version
		}
	}
	return t, nil
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// printer hands on the lines that go test prints, with the notes on packages.
type printer struct {
	mu      sync.Mutex
	to      io.Writer
	notes   map[string]string // by package
	unbuilt []string
	failed  bool
}

func (p *printer) note(pkg string, o Outcome) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.notes[pkg] = o.Note
	p.failed = p.failed || o.Exit != 0
}

func (p *printer) line(line []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	pkg, built := packageLine(string(line))
	note, ran := p.notes[pkg]
	switch {
	case ran && note != "" && built:
		line = append(bytes.TrimSuffix(line, []byte{'\n'}), ("\t" + note + "\n")...)
	case !ran && !built: // no test can say so of its own package
		p.unbuilt = append(p.unbuilt, pkg)
	}
	_, err := p.to.Write(line)
	return err
}

func (p *printer) stream() *stream { return &stream{p: p} }

// stream cuts what is written to it into lines.
type stream struct {
	p   *printer
	buf []byte
}

func (s *stream) Write(data []byte) (int, error) {
	s.buf = append(s.buf, data...)
	for {
		i := bytes.IndexByte(s.buf, '\n')
		if i < 0 {
			return len(data), nil
		}
		line := slices.Clone(s.buf[:i+1])
		s.buf = s.buf[i+1:]
		if err := s.p.line(line); err != nil {
			return 0, err
		}
	}
}

// close hands on a last line that has no end.
func (s *stream) close() error {
	if len(s.buf) == 0 {
		return nil
	}
	return s.p.line(s.buf)
}

// execute is the program that go test executes: its arguments are the socket, the test binary and that one's arguments.
func execute() {
	exit, err := ask(os.Args[1], os.Args[2:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "seccompgen:", err)
		exit = 1
	}
	os.Exit(exit)
}

func ask(socket string, command []string) (int, error) {
	dir, err := os.Getwd()
	if err != nil {
		return 0, err
	}
	conn, err := (&net.Dialer{}).DialContext(context.Background(), "unix", socket)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if err := json.NewEncoder(conn).Encode(request{Binary: command[0], Dir: dir, Args: command[1:]}); err != nil {
		return 0, err
	}
	for replies := json.NewDecoder(conn); ; {
		var r reply
		if err := replies.Decode(&r); err != nil {
			return 0, errors.New("the test was not run to its end")
		}
		if r.Exit != nil {
			return *r.Exit, nil
		}
		if _, err := os.Stdout.Write(r.Output); err != nil {
			return 0, err
		}
	}
}
