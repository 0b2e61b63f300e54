package container

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/internal/ociruntime"
	"github.com/seccompgen/seccompgen/profile"
	"github.com/seccompgen/seccompgen/tracer"
)

// Root holds the session directories of this host.
const Root = "/var/lib/seccompgen/runs"

// Session is one call of seccompgen: a directory that holds all its runs, locked while it lives.
type Session struct {
	Dir   string
	lock  *os.File
	bpffs io.Closer
}

// NewSession makes a session directory.
func NewSession() (*Session, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("containers and eBPF need root: run this as root")
	}
	if err := os.MkdirAll(Root, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of runs: %w", err)
	}
	starting, err := lockRoot()
	if err != nil {
		return nil, err
	}
	defer starting.Close()
	dir, err := os.MkdirTemp(Root, "")
	if err != nil {
		return nil, fmt.Errorf("make the session's directory: %w", err)
	}
	// The user of the container may be another one, and must reach the test binary.
	for _, d := range []string{filepath.Dir(Root), Root, dir} {
		if err := os.Chmod(d, 0o711); err != nil {
			return nil, fmt.Errorf("open the session's directory: %w", err)
		}
	}
	lock, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open the session's directory: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, fmt.Errorf("lock the session's directory: %w", err)
	}
	bpffs, err := tracer.Hold()
	if err != nil {
		return nil, errors.Join(err, os.Remove(dir))
	}
	return &Session{Dir: dir, lock: lock, bpffs: bpffs}, nil
}

// known is a file of the hashes of the programs that were analyzed: no other run of the session has to.
func (s *Session) known() string { return filepath.Join(s.Dir, "known") }

func (s *Session) keepKnown(programs []profile.Program) error {
	f, err := os.OpenFile(s.known(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("note the programs that were analyzed: %w", err)
	}
	for _, p := range programs {
		if p.Static != nil {
			_, writeErr := fmt.Fprintln(f, p.SHA256)
			err = errors.Join(err, writeErr)
		}
	}
	return errors.Join(err, f.Close())
}

// lockRoot lets no session start while the file is open: one without its lock has died, and does not begin.
func lockRoot() (*os.File, error) {
	f, err := os.Open(Root)
	if err != nil {
		return nil, fmt.Errorf("open the directory of runs: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock the directory of runs: %w", err)
	}
	return f, nil
}

func (s *Session) newID() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails, says its documentation
	return "seccompgen-" + hex.EncodeToString(b[:])
}

// Close removes what the session made.
func (s *Session) Close() error {
	defer s.lock.Close()
	if err := os.RemoveAll(s.Dir); err != nil {
		return fmt.Errorf("remove the session's directory: %w", err)
	}
	return s.bpffs.Close()
}

// clear removes a run that has ended: whatever of it the runtime or the recorder still has goes too.
func (s *Session) clear(id, dir string, r *ociruntime.Runtime) error {
	if err := destroy(r, filepath.Join(dir, "runtime"), id); err != nil {
		return err
	}
	if err := tracer.Abort(id); err != nil && !errors.Is(err, tracer.ErrNotRecording) {
		return fmt.Errorf("end the recording: %w", err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove the run's directory: %w", err)
	}
	return nil
}

// Leftover is a run whose seccompgen has died.
type Leftover struct {
	ID      string // of the container; "" for a session that had none
	Dir     string
	Runtime string // path of its runtime
}

// Leftovers finds the sessions that a crash left.
func Leftovers() ([]Leftover, error) {
	starting, err := lockRoot()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer starting.Close()
	sessions, err := os.ReadDir(Root)
	if err != nil {
		return nil, fmt.Errorf("read the directory of runs: %w", err)
	}
	var all []Leftover
	for _, e := range sessions {
		dir := filepath.Join(Root, e.Name())
		if alive(dir) {
			continue
		}
		all = append(all, Leftover{Dir: dir})
		runs, err := filepath.Glob(filepath.Join(dir, "seccompgen-*"))
		if err != nil {
			return nil, err
		}
		for _, run := range runs {
			path, _ := os.ReadFile(filepath.Join(run, "runtime-path")) // a crash may have come before it
			all = append(all, Leftover{ID: filepath.Base(run), Dir: run, Runtime: string(path)})
		}
	}
	return all, nil
}

// alive reports whether the seccompgen of a session lives: it holds the lock.
func alive(dir string) bool {
	f, err := os.Open(dir)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist) // it has ended meanwhile, and left nothing
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) != nil
}

// Remove kills the leftover's container, ends its recording and removes its directory.
func (l Leftover) Remove() error {
	if l.ID != "" {
		var errs []error
		if l.Runtime != "" {
			r := &ociruntime.Runtime{Path: l.Runtime}
			r.Name = filepath.Base(l.Runtime)
			errs = append(errs, destroy(r, filepath.Join(l.Dir, "runtime"), l.ID))
		}
		if err := tracer.Abort(l.ID); !errors.Is(err, tracer.ErrNotRecording) {
			errs = append(errs, err)
		}
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
	if !strings.HasPrefix(l.Dir, Root+"/") {
		return fmt.Errorf("%s is not beneath %s", l.Dir, Root)
	}
	return os.RemoveAll(l.Dir)
}
