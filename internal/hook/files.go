package hook

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
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/internal/wrapper"
	"github.com/seccompgen/seccompgen/profile"
)

// This file holds all that touches files whose names or places strangers have a say in.

const (
	maxFile    = 16 << 20 // bytes of a recording or profile that is read again
	maxInput   = 1 << 20  // bytes of a profile to extend
	maxEntries = 10000    // files in the directory of recordings
	minFree    = 64 << 20 // bytes that must be free there
)

// openDir opens the configured directory of recordings, and makes it first if need be. Nobody but root may change it:
// names in it are then what this package made them.
func openDir(path string) (*os.Root, error) {
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
	return dir, nil
}

// done closes what was only read, or written and synced before.
func done(c io.Closer) { c.Close() }

func owner(info fs.FileInfo) uint32 {
	return info.Sys().(*syscall.Stat_t).Uid
}

// room refuses a recording for which the directory would be too full.
func room(dir *os.Root) error {
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
		return fmt.Errorf("%s holds %d files: take old recordings away", dir.Name(), len(names))
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
		return nil, nil, fmt.Errorf("%s is there and is no regular file (%v)", path, info.Mode().Type())
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

// storing refuses the kernel's own file systems, whose regular files are none: they have no blocks.
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

// keep writes a recording as NAME.json into the directory. A restart of a container is added to its recording; where
// that cannot be, it goes to NAME.2.json and on: evidence is never overwritten. It returns the file's name, and what it
// holds now.
func keep(dir *os.Root, t *target, r *profile.Recording) (string, *profile.Recording, error) {
	for n := 1; n < 100; n++ {
		file := t.name + ".json"
		if n > 1 {
			file = fmt.Sprintf("%s.%d.json", t.name, n)
		}
		data, _, err := existing(dir, file, isRecording)
		exists := err == nil
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", nil, err
		}
		all := r
		if exists {
			if all, err = again(data, r, t.container != "" && t.sandbox != ""); err != nil {
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
	return "", nil, fmt.Errorf("%s holds 99 recordings of %s: take old ones away", dir.Name(), t.name)
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

// keepProfile writes a profile into the directory, over an earlier one of the same name.
func keepProfile(dir *os.Root, name string, data []byte) error {
	_, _, err := existing(dir, name, isProfile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := replace(dir, name, data, err == nil); err != nil {
		return fmt.Errorf("write the profile: %w", err)
	}
	return nil
}

// ReadProfile reads NAME.json from a directory of profiles that is root's alone. The name may be a stranger's.
func ReadProfile(path, name string) (*specs.LinuxSeccomp, error) {
	if !wrapper.IsName(name, 64, "_.-") {
		return nil, fmt.Errorf("a profile's name has 1 to 64 letters, digits, _, - and dots, not %.80q", name)
	}
	dir, err := openDir(path)
	if err != nil {
		return nil, err
	}
	defer done(dir)
	data, _, err := existing(dir, name+".json", isProfile)
	if err != nil {
		return nil, err
	}
	var p specs.LinuxSeccomp
	if err := json.Unmarshal(data, &p); err != nil {
		return nil, fmt.Errorf("decode %s/%s.json: %w", path, name, err)
	}
	return &p, nil
}

// openParent opens the directory of a file outside of ours. Symbolic links on the way to it must be root's, as /var/run
// is: others' could change between two looks.
func openParent(path string) (*os.Root, string, error) {
	dir, name := filepath.Split(path)
	dir = filepath.Clean(dir)
	for at := dir; at != "/"; at = filepath.Dir(at) {
		info, err := os.Lstat(at)
		if err != nil {
			return nil, "", err
		}
		if info.Mode()&fs.ModeSymlink != 0 && owner(info) != 0 {
			return nil, "", fmt.Errorf("%s is a symbolic link of user %d", at, owner(info))
		}
	}
	resolved, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, "", err
	}
	fd, err := unix.Openat2(unix.AT_FDCWD, resolved, &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS})
	if err != nil {
		return nil, "", fmt.Errorf("open directory %s: %w", resolved, err)
	}
	defer func() { _ = unix.Close(fd) }()
	root, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", fd))
	return root, name, err
}

// mayTrace is what an output file may hold before: nothing, as mktemp leaves it, or one of ours.
func mayTrace(data []byte) error {
	if len(data) == 0 || isRecording(data) == nil {
		return nil
	}
	return isProfile(data)
}

// checkTrace tells whether writeTrace could write there.
func checkTrace(path string) error {
	dir, name, err := openParent(path)
	if err != nil {
		return err
	}
	defer done(dir)
	f, err := dir.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	if err := storing(f); err != nil {
		return err
	}
	_, _, err = existing(dir, name, mayTrace)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return pathError(err, dir, path)
}

// pathError speaks of the file by the name that the user gave it.
func pathError(err error, dir *os.Root, path string) error {
	if err == nil {
		return nil
	}
	return errors.New(strings.ReplaceAll(err.Error(), dir.Name(), filepath.Dir(path)))
}

// writeTrace writes a profile where the drop-in's annotation wants it: in place if it is there.
func writeTrace(path string, data []byte) error {
	dir, name, err := openParent(path)
	if err != nil {
		return err
	}
	defer done(dir)
	_, info, err := existing(dir, name, mayTrace)
	var f *os.File
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f, err = dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o644)
		if err == nil {
			err = errors.Join(storing(f), f.Chmod(0o644))
		}
	case err == nil:
		f, err = reopen(dir, name, info, os.O_WRONLY)
	}
	if err != nil {
		if f != nil {
			f.Close()
		}
		return pathError(err, dir, path)
	}
	if err = f.Truncate(0); err == nil {
		_, err = f.Write(data)
	}
	return pathError(errors.Join(err, f.Sync(), f.Close()), dir, path)
}

// readTraceInput reads the profile that is to be extended.
func readTraceInput(path string) ([]byte, error) {
	if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSymlink != 0 && owner(info) == 0 {
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return nil, err
		}
	}
	dir, name, err := openParent(path)
	if err != nil {
		return nil, err
	}
	defer done(dir)
	info, err := dir.Lstat(name)
	if err != nil {
		return nil, pathError(err, dir, path)
	}
	if !info.Mode().IsRegular() || info.Size() > maxInput {
		return nil, fmt.Errorf("%s is no regular file of at most %d bytes", path, maxInput)
	}
	f, err := reopen(dir, name, info, os.O_RDONLY)
	if err != nil {
		return nil, pathError(err, dir, path)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxInput+1))
	if err != nil {
		return nil, pathError(err, dir, path)
	}
	if len(data) > maxInput {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxInput)
	}
	return data, nil
}
