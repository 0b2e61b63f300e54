package one

import "testing"

func TestIt(*testing.T) {}
