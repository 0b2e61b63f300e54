//go:build vendored

package vendored

import (
	"testing"

	_ "example.com/dep"
)

func TestDep(*testing.T) {}
