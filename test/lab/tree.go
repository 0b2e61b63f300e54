package lab

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// Commit returns the commit that is checked out. What is measured is published with it, so that it refuses a tree in which
// anything but the documents differs from it.
func Commit() (string, error) {
	out, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return "", fmt.Errorf("ask git for the commit that is measured: %w", err)
	}
	changed, err := exec.Command("git", "status", "--porcelain", "--", ":/", ":(top,exclude)docs").Output()
	if err != nil {
		return "", fmt.Errorf("ask git for changes: %w", err)
	}
	if len(changed) > 0 {
		return "", errors.New("the tree has changes that no commit holds: commit them before you measure:\n" + strings.TrimRight(string(changed), "\n"))
	}
	return strings.TrimSpace(string(out)), nil
}
