// Package ociruntime finds OCI runtimes and asks them what they are.
package ociruntime

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/seccompgen/seccompgen/profile"
)

// patience is how long a runtime may take to say what it is.
const patience = 5 * time.Second

// Runtime is a runtime that was found and asked for its version.
type Runtime struct {
	Path string
	profile.Runtime
}

// Find looks a runtime up by name or path.
func Find(name string) (*Runtime, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return nil, fmt.Errorf("find the runtime %q: %w: install it (Debian: apt-get install runc), or give --runtime PATH", name, err)
	}
	if path, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	r, err := ask(path)
	if err != nil {
		return nil, err
	}
	return &Runtime{Path: path, Runtime: r}, nil
}

// ask returns what a runtime's --version says: "runc version 1.1.5+ds1", "crun version 1.8.1".
func ask(path string) (profile.Runtime, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "--version")
	cmd.WaitDelay = time.Second // for children that hold its output open
	out, err := cmd.Output()
	if ctx.Err() != nil {
		err = fmt.Errorf("no answer in %v", patience)
	}
	if err != nil {
		return profile.Runtime{}, fmt.Errorf("ask %s for its version: %w", path, err)
	}
	first, _, _ := strings.Cut(string(out), "\n")
	name, version, ok := strings.Cut(first, " version ")
	if !ok {
		return profile.Runtime{}, fmt.Errorf("%s --version says %q: not an OCI runtime", path, first)
	}
	return profile.Runtime{Name: name, Version: strings.TrimSpace(version)}, nil
}

// Executed names a runtime that is known by its executable, which Executable returned, and asks it for its version. One that has
// a name already stays as it is.
func Executed(r profile.Runtime) profile.Runtime {
	exe := r.Name
	if !filepath.IsAbs(exe) {
		return r
	}
	r.Name = filepath.Base(exe)
	if said, err := ask(exe); err == nil {
		r.Version = said.Version
	}
	return r
}

// Executable returns what a process executes, by its directory in /proc. crun runs itself from a copy that has no path: then
// it is what the process was called as.
func Executable(proc string) string {
	exe, err := os.Readlink(proc + "/exe")
	if err != nil {
		return ""
	}
	if info, err := os.Stat(exe); err == nil && info.Mode().IsRegular() {
		return exe
	}
	cmdline, err := os.ReadFile(proc + "/cmdline")
	if err != nil {
		return exe
	}
	name, _, _ := strings.Cut(string(cmdline), "\x00")
	if path, err := exec.LookPath(name); err == nil && filepath.IsAbs(path) {
		return path
	}
	return exe
}
