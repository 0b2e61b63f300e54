package recordings

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRoom(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: needs root: whose a file is decides")
	}
	path := t.TempDir()
	dir, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := dir.Check("a", true); err != nil {
		t.Errorf("an empty directory: %v", err)
	}
	for i := range maxEntries {
		if err := os.WriteFile(filepath.Join(path, fmt.Sprint(i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := dir.Check("a", false); err == nil || !strings.Contains(err.Error(), "remove old ones") {
		t.Errorf("a full one: %v", err)
	}
}

// A file system that is nearly full takes no recording.
func TestRoomOfFileSystem(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: needs root: it mounts a file system")
	}
	for size, want := range map[string]string{"size=32m": "MiB free, a recording wants 64", "size=128m": ""} {
		path := t.TempDir()
		if err := unix.Mount("tmpfs", path, "tmpfs", 0, size); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
		if err := os.Chmod(path, 0o700); err != nil {
			t.Fatal(err)
		}
		dir, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		if err := dir.Check("a", false); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", size, err)
		}
	}
}
