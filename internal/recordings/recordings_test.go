package recordings

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
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
