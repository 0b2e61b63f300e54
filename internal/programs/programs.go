// Package programs looks at the executables that ran in a container: what they are, and what those of Go can call.
//
// What surprises: it runs as root on files that strangers made. Paths are resolved beneath the container's root and never
// through a symbolic link; nothing is opened but a regular file, and only one that is still what ran. Its content is read
// by another process, of another user and with little of everything, see [Child]. Whatever goes wrong with a program is
// said of it, in Unread: no error of these stands between a container and its recording.
package programs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/profile"
)

const (
	maxPrograms = 64
	maxSize     = 1 << 30 // bytes of a program that is read
	maxTime     = 10 * time.Second
)

// Place is where a container's files are.
type Place struct {
	root   string
	mounts []mount
	err    error
}

type mount struct{ at, source string } // source is "" for what is gone with the container

// PlaceOf reads from a container's configuration where its files are. An error is said of each program.
func PlaceOf(bundle string, spec *specs.Spec, err error) *Place {
	if err != nil {
		return &Place{err: err}
	}
	if spec.Root == nil || spec.Root.Path == "" {
		return &Place{err: errors.New("the container's configuration names no root")}
	}
	in := func(path string) string {
		if filepath.IsAbs(path) {
			return path
		}
		return filepath.Join(bundle, path)
	}
	p := &Place{root: in(spec.Root.Path)}
	for _, m := range spec.Mounts {
		at := mount{at: filepath.Join("/", m.Destination)}
		if m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind") {
			at.source = in(m.Source)
		}
		p.mounts = append(p.mounts, at)
	}
	return p
}

// Looked is what was found out, by the programs that it is of.
type Looked map[key]profile.Program

type key struct {
	path          string
	size          int64
	device, inode uint64
}

func keyOf(p profile.Program) key { return key{p.Path, p.Size, p.File.Device, p.File.Inode} }

// Look reads the programs that nobody has looked at, as many as time allows. Those whose hash is known are not analyzed
// again.
func (pl *Place) Look(programs []profile.Program, known []string) Looked {
	ctx, cancel := context.WithTimeout(context.Background(), maxTime)
	defer cancel()
	looked := Looked{}
	todo := slices.DeleteFunc(slices.Clone(programs), func(p profile.Program) bool { return p.File == nil })
	slices.SortFunc(todo, func(a, b profile.Program) int { return int(min(max(a.File.Began-b.File.Began, -1), 1)) })
	for n, p := range todo {
		found := profile.Program{}
		err := pl.err
		switch {
		case err != nil:
		case n >= maxPrograms:
			err = fmt.Errorf("%d programs ran before it, and no more are read", maxPrograms)
		default:
			found, err = pl.look(ctx, p, known)
		}
		found.Path, found.Size = p.Path, p.Size
		if err != nil {
			found.Unread = err.Error()
		}
		looked[keyOf(p)] = found
	}
	return looked
}

// Fill puts what was found out into a recording's programs.
func (l Looked) Fill(programs []profile.Program) {
	for i, p := range programs {
		if p.File == nil {
			continue
		}
		if found, ok := l[keyOf(p)]; ok {
			programs[i] = found
		}
	}
}

// look gives up a file system that does not answer: what is blocked in it ends with this process.
func (pl *Place) look(ctx context.Context, p profile.Program, known []string) (profile.Program, error) {
	type answer struct {
		profile.Program
		error
	}
	answers := make(chan answer, 1)
	go func() {
		f, err := pl.open(p)
		if err != nil {
			answers <- answer{error: err}
			return
		}
		defer f.Close()
		found, err := ask(ctx, f, known)
		answers <- answer{found, err}
	}()
	select {
	case a := <-answers:
		return a.Program, a.error
	case <-ctx.Done():
		return profile.Program{}, fmt.Errorf("there was no time for it, %s are for all programs", maxTime)
	}
}

// open opens a program's file if it is the one that ran.
func (pl *Place) open(p profile.Program) (*os.File, error) {
	root, rest := pl.root, p.Path
	for _, m := range pl.mounts { // a later one covers an earlier one
		if below, ok := strings.CutPrefix(p.Path, m.at); ok && (below == "" || below[0] == '/' || m.at == "/") {
			root, rest = m.source, below
		}
	}
	if root == "" {
		return nil, errors.New("it lay in a mount that has gone with the container")
	}
	fd, err := unix.Open(root, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the container's %s: %w", root, err)
	}
	if rest = strings.Trim(rest, "/"); rest != "" {
		dir := fd
		how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS}
		for err = unix.EAGAIN; errors.Is(err, unix.EAGAIN); { // something was renamed meanwhile, maybe not here
			fd, err = unix.Openat2(dir, rest, how)
		}
		_ = unix.Close(dir)
		if err != nil {
			return nil, fmt.Errorf("it is not there any more: %w", err)
		}
	}
	defer func() { _ = unix.Close(fd) }()
	if err := same(fd, p); err != nil {
		return nil, err
	}
	// Only now: opening a device can do something.
	f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("it cannot be opened: %w", err)
	}
	return f, nil
}

// same refuses a file that is not, or not any more, what ran. On an overlay, and where a file system has a device of its
// own for stat(2), the numbers of the file say nothing.
func same(fd int, p profile.Program) error {
	var st unix.Stat_t
	var fs unix.Statfs_t
	if err := errors.Join(unix.Fstat(fd, &st), unix.Fstatfs(fd, &fs)); err != nil {
		return fmt.Errorf("it cannot be looked at: %w", err)
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return errors.New("something that is not a regular file has its place now")
	case st.Size != p.Size, st.Dev == p.File.Device && st.Ino != p.File.Inode && fs.Type != unix.OVERLAYFS_SUPER_MAGIC:
		return errors.New("another file has its place now")
	case st.Ctim.Nano() > p.File.Began:
		return errors.New("it was changed after it began")
	case st.Size > maxSize:
		return fmt.Errorf("it has %d bytes, more than %d are not read", st.Size, maxSize)
	}
	return nil
}
