package fails

import "testing"

func TestPasses(*testing.T) {}

func TestFails(t *testing.T) { t.Error("it fails") }
