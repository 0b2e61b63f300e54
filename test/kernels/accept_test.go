package main

import (
	"slices"
	"testing"
)

func TestRows(t *testing.T) {
	a, b, full := "| 6.1 | amd64 | voluntary | 20/20 |", "| 7.3 | amd64 | lazy | 20/20 |", "| 7.3 | amd64 | full | 20/20 |"
	all := rows(intro + a + "\n" + b + "\n")
	if !slices.Equal(all, []string{a, b}) {
		t.Fatalf("got %q", all)
	}
	if all = with(all, full); !slices.Equal(all, []string{a, b, full}) {
		t.Errorf("another preemption: %q", all)
	}
	again := "| 7.3 | amd64 | lazy | 50/50 |"
	if all = with(all, again); !slices.Equal(all, []string{a, again, full}) {
		t.Errorf("measured again: %q", all)
	}
	if got := rows("another table"); got != nil {
		t.Errorf("of another table: %q", got)
	}
}
