package verify

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestJoin(t *testing.T) {
	pass := func(pkg string, runs int) OfPackage {
		return OfPackage{pkg, &Report{Verdict: Pass, Reason: "no denials", Runs: make([]Run, runs)}}
	}
	denied := OfPackage{"b", &Report{
		Verdict: Fail, Reason: "flock was denied", Runs: make([]Run, 2), Denials: []Denial{{Run: 2, Name: "flock", Test: "TestX"}, {Run: 2, Name: "read"}},
		Own: []Denial{{Run: 1, Test: "TestY"}}, Tests: []Test{{2, "TestX", "pass", "fail"}},
	}}
	broken := OfPackage{"d", &Report{Verdict: Inconclusive, Reason: "a deadline", Runs: make([]Run, 1)}}
	for _, test := range []struct {
		name    string
		parts   []OfPackage
		unbuilt []string
		verdict Verdict
		reason  string
	}{
		{"all pass", []OfPackage{pass("a", 2), pass("c", 3)}, nil, Pass, "no denials and the same test results in 5 of 5 runs of 2 packages"},
		{"one fails", []OfPackage{pass("c", 2), denied, broken, pass("a", 3)}, []string{"e"}, Fail, "b: flock was denied"},
		{"one says nothing", []OfPackage{broken, pass("a", 1)}, nil, Inconclusive, "d: a deadline"},
		{"one did not build", []OfPackage{pass("a", 1)}, []string{"e", "f"}, Inconclusive, "the tests of e, f did not build"},
	} {
		r, err := Join(test.parts, test.unbuilt)
		if err != nil {
			t.Fatal(err)
		}
		if r.Verdict != test.verdict || r.Reason != test.reason {
			t.Errorf("%s: %s: %s", test.name, r.Verdict, r.Reason)
		}
	}
	r, err := Join([]OfPackage{denied, pass("a", 3)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var of []string
	for _, run := range r.Runs {
		of = append(of, run.Package)
	}
	for _, diff := range []string{
		cmp.Diff([]string{"a", "a", "a", "b", "b"}, of), cmp.Diff([]Denial{{Run: 5, Name: "flock", Test: "b TestX"}, {Run: 5, Name: "read"}}, r.Denials),
		cmp.Diff([]Denial{{Run: 4, Test: "b TestY"}}, r.Own), cmp.Diff([]Test{{5, "b TestX", "pass", "fail"}}, r.Tests),
	} {
		if diff != "" {
			t.Error(diff)
		}
	}
	if denied.Denials[0].Run != 2 || denied.Tests[0].Name != "TestX" {
		t.Error("what was joined has changed")
	}
	if _, err := Join(nil, nil); err == nil {
		t.Error("no reports are joined")
	}
}
