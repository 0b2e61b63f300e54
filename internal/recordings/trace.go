package recordings

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/internal/dropin"
)

// This file holds what touches the files outside of the directory that the annotation of oci-seccomp-bpf-hook names.

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
	return dropin.IsProfile(data)
}

// CheckTrace reports an error if WriteTrace could not write there.
func CheckTrace(path string) error {
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

// WriteTrace writes a profile where the drop-in's annotation wants it: in place if it is there.
func WriteTrace(path string, data []byte) error {
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

// ReadTraceInput reads the profile that is to be extended.
func ReadTraceInput(path string) ([]byte, error) {
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
		return nil, fmt.Errorf("%s is not a regular file of at most %d bytes", path, maxInput)
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
