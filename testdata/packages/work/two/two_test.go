package two

import "testing"

func TestIt(*testing.T) {}
