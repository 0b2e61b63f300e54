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

	"github.com/seccompgen/seccompgen/internal/ociruntime"
)

// call runs a short command of the runtime over the containers whose state lies under root.
func call(r *ociruntime.Runtime, root string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, r.Path, append([]string{"--root", root}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", r.Name, strings.Join(args, " "), err, lastLine(out))
	}
	return nil
}

// destroy kills a container and removes the runtime's state of it. A container that is gone already is no error.
func destroy(r *ociruntime.Runtime, root, id string) error {
	if _, err := os.Stat(filepath.Join(root, id)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	err := call(r, root, "delete", "--force", id)
	killInit(id)
	if err != nil && call(r, root, "state", id) != nil {
		return nil
	}
	return err
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}
