package links

import (
	"os"
	"path/filepath"
	"testing"
)

func TestLink(t *testing.T) {
	if err := os.Symlink("here", filepath.Join(t.TempDir(), "there")); err != nil {
		t.Fatal(err)
	}
}
