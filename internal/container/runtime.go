package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/seccompgen/seccompgen/profile"
)

// Runtime is an OCI runtime that was found and asked for its version.
type Runtime struct {
	Path string
	profile.Runtime
}

// FindRuntime looks a runtime up by name or path.
func FindRuntime(name string) (*Runtime, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return nil, fmt.Errorf("find the runtime %q: %w: install it (Debian: apt-get install runc), or give --runtime PATH", name, err)
	}
	if path, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	out, err := exec.Command(path, "--version").Output()
	if err != nil {
		return nil, fmt.Errorf("ask %s for its version: %w", path, err)
	}
	// "runc version 1.1.5+ds1", "crun version 1.8.1"
	first, _, _ := strings.Cut(string(out), "\n")
	kind, version, ok := strings.Cut(first, " version ")
	if !ok {
		return nil, fmt.Errorf("%s --version says %q: not an OCI runtime", path, first)
	}
	return &Runtime{Path: path, Runtime: profile.Runtime{Name: kind, Version: strings.TrimSpace(version)}}, nil
}

// call runs a short command of the runtime over the containers whose state lies under root.
func (r *Runtime) call(root string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, r.Path, append([]string{"--root", root}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", r.Name, strings.Join(args, " "), err, lastLine(out))
	}
	return nil
}

// destroy kills a container and removes the runtime's state of it. A container that is gone already is no error.
func (r *Runtime) destroy(root, id string) error {
	if _, err := os.Stat(filepath.Join(root, id)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	err := r.call(root, "delete", "--force", id)
	killInit(id)
	if err != nil && r.call(root, "state", id) != nil {
		return nil
	}
	return err
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}
