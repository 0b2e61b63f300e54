package verify

import (
	"slices"
	"testing"
)

func TestTestRows(t *testing.T) {
	r := &Report{
		Runs:    make([]Run, 3),
		Denials: []Denial{{Run: 2, Test: "TestLater", Order: 2}, {Run: 2, Test: "TestFirst", Order: 1}, {Run: 3}},
		Tests: []Test{
			{1, "TestA", "pass", ""},
			{2, "TestA", "pass", ""},
			{2, "TestB", "pass", ""},
			{2, "TestC", "pass", "fail"},
			{2, "TestD", "skip", ""},
			{3, "TestA", "pass", ""},
			{3, "TestB", "pass", ""},
		},
	}
	want := []Test{
		{2, "TestC", "pass", "fail"},
		{1, "TestA", "pass", ""},
		{2, "3 tests, from TestA to TestD, since the program ended, after a denial in TestFirst", "a result", ""},
		{3, "2 tests, from TestA to TestB, since the program ended", "a result", ""},
	}
	if got := r.TestRows(); !slices.Equal(got, want) {
		t.Errorf("got %+v", got)
	}
}

func TestDenialWords(t *testing.T) {
	for _, c := range []struct {
		d                     Denial
		name, arguments, text string
	}{
		{Denial{Name: "flock", Args: [6]uint64{3, 6}, Action: "errno", Errno: 1}, "flock", "0x3 0x6", "EPERM"},
		{Denial{Nr: 999, Args: [6]uint64{2: 1}, Action: "trap"}, "number 999", "0x0 0x0 0x1", "SIGSYS"},
		{Denial{Name: "a", Action: "kill"}, "a", "", "killed"},
		{Denial{Name: "a", Action: "errno", Errno: 4000}, "a", "", "errno 4000"},
	} {
		if c.d.CallName() != c.name || c.d.Arguments() != c.arguments || c.d.Answer() != c.text {
			t.Errorf("%+v: got %q, %q, %q", c.d, c.d.CallName(), c.d.Arguments(), c.d.Answer())
		}
	}
}
