// Package recordings keeps recordings and the profiles beside them in a directory of the host's.
//
// What surprises: strangers have a say in the names of its files, and in those of the files outside of it that annotations
// name. Nothing is written over that is not a recording or a profile, and evidence never.
package recordings

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/internal/annotation"
	"github.com/seccompgen/seccompgen/internal/dropin"
	"github.com/seccompgen/seccompgen/profile"
)

const (
	maxFile    = 16 << 20 // bytes of a recording or profile that is read again
	maxInput   = 1 << 20  // bytes of a profile to extend
	maxEntries = 10000    // files in the directory of recordings
	minFree    = 64 << 20 // bytes that must be free there
)

// Dir is a directory of recordings that nobody but root may change: names in it are what this package made them.
type Dir struct{ root *os.Root }

// Open opens a directory, and makes it first if need be.
func Open(path string) (*Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of the recordings: %w", err)
	}
	dir, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("open the directory of the recordings: %w", err)
	}
	info, err := dir.Stat(".")
	if err == nil && (owner(info) != 0 || info.Mode().Perm()&0o022 != 0) {
		err = fmt.Errorf("the directory of the recordings %s may be changed by others than root (mode %04o, owner %d)", path, info.Mode().Perm(), owner(info))
	}
	if err != nil {
		done(dir)
		return nil, err
	}
	return &Dir{dir}, nil
}

// Close closes the directory.
func (d *Dir) Close() error { return d.root.Close() }

// done closes what was only read, or written and synced before.
func done(c io.Closer) { c.Close() }

func owner(info fs.FileInfo) uint32 {
	return info.Sys().(*syscall.Stat_t).Uid
}

// Check refuses a recording that could not be kept under a name, with a profile beside it if one is wanted.
func (d *Dir) Check(name string, profile bool) error {
	if err := d.room(); err != nil {
		return err
	}
	_, _, err := existing(d.root, name+".json", isRecording)
	if profile && (err == nil || errors.Is(err, fs.ErrNotExist)) {
		_, _, err = existing(d.root, name+profileSuffix, dropin.IsProfile)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

const profileSuffix = ".profile.json"

// room refuses a recording for which the directory would be too full.
func (d *Dir) room() error {
	dir := d.root
	f, err := dir.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	names, err := f.Readdirnames(maxEntries)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if len(names) >= maxEntries {
		return fmt.Errorf("%s holds %d files: remove old ones", dir.Name(), len(names))
	}
	var s unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &s); err != nil {
		return err
	}
	if free := s.Bavail * uint64(s.Bsize); free < minFree {
		return fmt.Errorf("%s has %d MiB free, a recording wants %d", dir.Name(), free>>20, minFree>>20)
	}
	return nil
}

// existing returns the content of a file that may be replaced: a regular file of root's with one name whose content is
// one of ours. fs.ErrNotExist says that there is none.
func existing(dir *os.Root, name string, ours func([]byte) error) ([]byte, fs.FileInfo, error) {
	info, err := dir.Lstat(name)
	if err != nil {
		return nil, nil, err
	}
	path := filepath.Join(dir.Name(), name)
	switch {
	case !info.Mode().IsRegular():
		return nil, nil, fmt.Errorf("%s is there and is not a regular file (%v)", path, info.Mode().Type())
	case owner(info) != 0:
		return nil, nil, fmt.Errorf("%s is there and belongs to user %d, not to root", path, owner(info))
	case info.Sys().(*syscall.Stat_t).Nlink != 1:
		return nil, nil, fmt.Errorf("%s is there and has other names too", path)
	case info.Size() > maxFile:
		return nil, nil, fmt.Errorf("%s is there and larger than %d bytes", path, maxFile)
	}
	f, err := reopen(dir, name, info, os.O_RDONLY)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, nil, err
	}
	if err := ours(data); err != nil {
		return nil, nil, fmt.Errorf("%s is there and not ours to replace: %w", path, err)
	}
	return data, info, nil
}

// reopen opens a regular file that was looked at, and no other that took its name meanwhile.
func reopen(dir *os.Root, name string, info fs.FileInfo, flag int) (*os.File, error) {
	f, err := dir.OpenFile(name, flag|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	now, err := f.Stat()
	if err == nil && !os.SameFile(info, now) {
		err = fmt.Errorf("%s was exchanged", filepath.Join(dir.Name(), name))
	}
	if err == nil {
		err = storing(f)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// storing reports an error for files on pseudo file systems (proc, sysfs, ...), which have no blocks.
func storing(f *os.File) error {
	var s unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &s); err != nil {
		return err
	}
	if s.Blocks == 0 || s.Type == unix.EFIVARFS_MAGIC {
		return fmt.Errorf("%s is in a file system of the kernel's", f.Name())
	}
	return nil
}

// replace writes a file whole or not at all: over the one that existing has seen, or under a name that nobody has.
func replace(dir *os.Root, name string, data []byte, exists bool) (err error) {
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails, says its documentation
	tmp := ".new-" + hex.EncodeToString(random[:])
	f, err := dir.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer func() {
		if !exists || err != nil {
			err = errors.Join(err, dir.Remove(tmp))
		}
	}()
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return err
	}
	if exists {
		return dir.Rename(tmp, name)
	}
	return dir.Link(tmp, name)
}

// Keep writes a recording as NAME.json into the directory. A restart of a container is added to its recording, also under
// another id where pod says that the name is that of a container of a pod; where that cannot be, it goes to NAME.2.json and on:
// evidence is never overwritten. It returns the file's name, and what it holds now.
func (d *Dir) Keep(name string, pod bool, r *profile.Recording) (string, *profile.Recording, error) {
	dir := d.root
	for n := 1; n < 100; n++ {
		file := name + ".json"
		if n > 1 {
			file = fmt.Sprintf("%s.%d.json", name, n)
		}
		data, _, err := existing(dir, file, isRecording)
		exists := err == nil
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", nil, err
		}
		all := r
		if exists {
			if all, err = again(data, r, pod); err != nil {
				continue
			}
		}
		var b bytes.Buffer
		if err := all.Write(&b); err != nil {
			return "", nil, fmt.Errorf("encode the recording: %w", err)
		}
		if err := replace(dir, file, b.Bytes(), exists); err != nil {
			return "", nil, fmt.Errorf("write the recording: %w", err)
		}
		return file, all, nil
	}
	return "", nil, fmt.Errorf("%s holds 99 recordings of %s: remove old ones", dir.Name(), name)
}

// again adds a run to the recording of a container's earlier runs. The same container started again has the same id; one
// that the kubelet starts again, in its pod, has a new one. An error says that the run needs a file of its own.
func again(old []byte, r *profile.Recording, pod bool) (*profile.Recording, error) {
	before, err := profile.ReadRecording(bytes.NewReader(old))
	if err != nil {
		return nil, err
	}
	if before.ID != r.ID && !pod || len(r.Runs) != 1 {
		return nil, fmt.Errorf("recording is of container %q", before.ID)
	}
	if err := errors.Join(before.Incomplete(), r.Incomplete()); err != nil {
		return nil, err
	}
	id := r.ID
	for n := 2; slices.ContainsFunc(before.Runs, func(run profile.Run) bool { return run.ID == id }); n++ {
		id = fmt.Sprintf("%s.%d", r.ID, n)
	}
	run := *r
	run.ID = before.ID
	run.Runs = []profile.Run{r.Runs[0]}
	run.Runs[0].ID = id
	run.Syscalls = slices.Clone(r.Syscalls)
	for i := range run.Syscalls {
		run.Syscalls[i].Runs = []string{id}
	}
	return profile.Merge(before, &run)
}

// KeepProfile writes a profile beside the recording NAME.json, over an earlier one.
func (d *Dir) KeepProfile(name string, data []byte) error {
	name += profileSuffix
	_, _, err := existing(d.root, name, dropin.IsProfile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := replace(d.root, name, data, err == nil); err != nil {
		return fmt.Errorf("write the profile: %w", err)
	}
	return nil
}

// ReadProfile reads NAME.json from a directory of profiles that is root's alone. The name may be a stranger's.
func ReadProfile(path, name string) (*specs.LinuxSeccomp, error) {
	if !annotation.IsName(name, 64, "_.-") {
		return nil, fmt.Errorf("a profile's name has 1 to 64 letters, digits, _, - and dots, not %.80q", name)
	}
	dir, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer done(dir)
	data, _, err := existing(dir.root, name+".json", dropin.IsProfile)
	if err != nil {
		return nil, err
	}
	var p specs.LinuxSeccomp
	if err := json.Unmarshal(data, &p); err != nil {
		return nil, fmt.Errorf("decode %s/%s.json: %w", path, name, err)
	}
	return &p, nil
}

// isRecording reports by an error whether a file's content is a recording, so that it may be replaced by one.
func isRecording(data []byte) error {
	_, err := profile.ReadRecording(bytes.NewReader(data))
	return err
}

// collected is the name of an empty file that says to a poststop hook which comes after all, as an engine that was restarted
// calls it, that its recording is not lost.
func collected(id string) string { return ".collected-" + id }

// NoteCollected notes that the recording of a container was collected in its hook's place.
func (d *Dir) NoteCollected(id string) error { return replace(d.root, collected(id), nil, false) }

// WasCollected reports whether NoteCollected came before, and forgets it.
func (d *Dir) WasCollected(id string) bool { return d.root.Remove(collected(id)) == nil }
