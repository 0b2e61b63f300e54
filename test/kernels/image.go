package main

import (
	"bufio"
	"debug/elf"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed init.sh
var initScript []byte

// userland fetches what a guest needs beside the programs under test, and what these are linked with, and returns where it is.
func userland(arch string) (string, error) {
	dir := filepath.Join(cache, "userland-"+arch)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	release, err := codename()
	if err != nil {
		return "", err
	}
	a, err := newApt(release, arch)
	if err != nil {
		return "", err
	}
	tree, err := a.extract("busybox-static", "runc", "libc6", "libseccomp2", "libseccomp-dev")
	if err != nil {
		return "", err
	}
	return dir, os.Rename(tree, dir)
}

// codename is that of this machine's release.
func codename() (string, error) {
	data, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(data)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "VERSION_CODENAME="); ok {
			return name, nil
		}
	}
	return "", errors.New("/etc/os-release names no release")
}

// image maps paths in the guest to files of this machine.
type image map[string]string

// add puts a program there, with the libraries that it needs and that root has.
func (im image) add(to, from, root string, m machine) error {
	im[to] = from
	f, err := elf.Open(from)
	if err != nil {
		return fmt.Errorf("add %s: %w", from, err)
	}
	defer f.Close()
	libs, err := f.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("add %s: %w", from, err)
	}
	if len(libs) > 0 {
		im[m.loader] = filepath.Join(root, "lib", m.triplet, filepath.Base(m.loader))
	}
	for _, lib := range libs {
		name := path.Join("lib", lib)
		if _, ok := im[name]; ok || name == m.loader {
			continue
		}
		var found []string
		for _, dir := range []string{"lib", "usr/lib"} {
			more, _ := filepath.Glob(filepath.Join(root, dir, m.triplet, lib))
			found = append(found, more...)
		}
		if len(found) == 0 {
			return fmt.Errorf("add %s: the userland has no %s", from, lib)
		}
		if err := im.add(name, found[0], root, m); err != nil {
			return err
		}
	}
	return nil
}

// write writes the image as an initramfs: a cpio archive of format newc, with init and the command in it.
func (im image) write(file string, command []byte) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	w := &cpio{w: bufio.NewWriter(f)}
	dirs := []string{}
	for _, to := range slices.Sorted(keys(im)) {
		for _, dir := range parents(to) {
			if !slices.Contains(dirs, dir) {
				dirs = append(dirs, dir)
				w.entry(dir, 0o40755, nil)
			}
		}
		data, err := os.ReadFile(im[to])
		if err != nil {
			return err
		}
		w.entry(to, 0o100755, data)
	}
	w.entry("init", 0o100755, initScript)
	w.entry("command", 0o100755, command)
	w.entry("TRAILER!!!", 0, nil)
	return errors.Join(w.err, w.w.Flush(), f.Close())
}

func keys(im image) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range im {
			if !yield(k) {
				return
			}
		}
	}
}

func parents(name string) (dirs []string) {
	for i, c := range name {
		if c == '/' {
			dirs = append(dirs, name[:i])
		}
	}
	return dirs
}

type cpio struct {
	w   *bufio.Writer
	n   int
	ino int
	err error
}

func (c *cpio) entry(name string, mode int, data []byte) {
	c.ino++
	c.print("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		c.ino, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0, name)
	c.print("%s", data)
}

// print writes, and pads to four bytes as the format wants it after names and data.
func (c *cpio) print(format string, args ...any) {
	n, err := fmt.Fprintf(c.w, format, args...)
	c.n += n
	pad, err2 := io.WriteString(c.w, "\x00\x00\x00"[:-c.n&3])
	c.n += pad
	c.err = errors.Join(c.err, err, err2)
}
