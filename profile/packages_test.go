package profile

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// ofPackage is a recording of a package's tests in some runs.
func ofPackage(t *testing.T, pkg string, runs ...string) *Recording {
	t.Helper()
	var all []*Recording
	for _, id := range runs {
		s := call(t, PhaseWorkload, x64, "openat")
		s.Callers = []Caller{{Comm: "p.test", Stack: []string{"os.Open"}, Test: "TestA"}}
		runtimes := call(t, PhaseRuntime, x64, "execve")
		runtimes.Callers = []Caller{{Comm: "runc:[2:INIT]"}}
		r := recording(t, id, s, runtimes)
		r.Workload = Workload{Package: pkg, Module: "example.com", Go: "go1.26.8", SHA256: hash(pkg), Args: []string{pkg + ".test", "-test.short"}, User: "0:0"}
		all = append(all, r)
	}
	r, err := Merge(all...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestJoin(t *testing.T) {
	a, b := ofPackage(t, "example.com/a", "1", "3"), ofPackage(t, "example.com/b", "2")
	b.Tests = map[string]string{"TestA": "fail"}
	b.Runs[0].Exit = 1
	r, err := Join([]string{"-short"}, b, a)
	if err != nil {
		t.Fatal(err)
	}
	want := Workload{Module: "example.com", Go: "go1.26.8", Args: []string{"-short"}, User: "0:0", Packages: []Package{
		{Path: "example.com/a", Module: "example.com", SHA256: hash("example.com/a")}, {Path: "example.com/b", Module: "example.com", SHA256: hash("example.com/b")},
	}}
	if diff := cmp.Diff(want, r.Workload); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"example.com/a TestA": "pass", "example.com/b TestA": "fail"}, r.Tests); diff != "" {
		t.Error(diff)
	}
	for i, pkg := range []string{"example.com/a", "example.com/b", "example.com/a"} {
		if r.Runs[i].Package != pkg {
			t.Errorf("run %s is of %q, want %q", r.Runs[i].ID, r.Runs[i].Package, pkg)
		}
	}
	for _, s := range r.Syscalls {
		want := "runc:[2:INIT]"
		if s.Phase == PhaseWorkload {
			want = "os.Open <- TestA in example.com/a, os.Open <- TestA in example.com/b"
		}
		var got []string
		for _, c := range s.Callers {
			got = append(got, c.String())
		}
		if strings.Join(got, ", ") != want {
			t.Errorf("the callers of %s are %q, want %q", s.Name, got, want)
		}
	}
	if a.Runs[0].Package != "" || a.Syscalls[0].Callers[0].Package != "" || len(a.Tests) != 1 {
		t.Error("what was joined has changed")
	}

	// It is written and read, built from, and merged with itself.
	var file, again bytes.Buffer
	if err := r.Write(&file); err != nil {
		t.Fatal(err)
	}
	read, err := ReadRecording(bytes.NewReader(file.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	twice, err := Merge(read, r)
	if err != nil {
		t.Fatal(err)
	}
	if err := twice.Write(&again); err != nil || again.String() != file.String() {
		t.Errorf("merged with itself it is another recording (%v)", err)
	}
	joined, _, err := Build([]*Recording{r}, BuildOptions{})
	if err != nil {
		t.Fatal(err)
	}
	apart, _, err := Build([]*Recording{a, b}, BuildOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(apart, joined); diff != "" {
		t.Errorf("two recordings give another profile than one of both: %s", diff)
	}

	tests, exit, found := r.ResultsOf("example.com/b")
	if diff := cmp.Diff(map[string]string{"TestA": "fail"}, tests); diff != "" || exit != 1 || !found {
		t.Errorf("the results of a package: %s, exit status %d, found %t", diff, exit, found)
	}
	if _, _, found := r.ResultsOf("example.com/c"); found {
		t.Error("a package that is not there is found")
	}
	if _, _, found := a.ResultsOf("example.com/a"); !found {
		t.Error("the package of a recording of one is not found")
	}
}

func TestJoinErrors(t *testing.T) {
	a, b := ofPackage(t, "example.com/a", "1"), ofPackage(t, "example.com/b", "2")
	if r, err := Join(nil, a); err != nil || r != a {
		t.Errorf("one recording does not stay as it is: %v", err)
	}
	if _, err := Join(nil); err == nil {
		t.Error("no recordings are joined")
	}
	if _, err := Join(nil, a, a); err == nil {
		t.Error("a package is joined with itself")
	}
	if _, err := Join(nil, a, recordingOf("command")); err == nil {
		t.Error("a package is joined with a command")
	}
	b.Runtime.Name = "crun"
	if _, err := Join(nil, a, b); err == nil {
		t.Error("runs under two runtimes are joined")
	}
	joined, err := Join(nil, a, ofPackage(t, "example.com/b", "2"))
	if err != nil {
		t.Fatal(err)
	}
	joined.Runs[0].Package = "example.com/other"
	var file bytes.Buffer
	if err := joined.Write(&file); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadRecording(&file); err == nil {
		t.Error("a run of a package that is not listed is read")
	}
}

func recordingOf(id string) *Recording {
	return &Recording{ID: id, Runs: []Run{{ID: id}}, Workload: Workload{Args: []string{id}}}
}

// A run of several packages is one of each: otherwise the calls of one package would look as if its next run may show more.
func TestSaturatePackages(t *testing.T) {
	r := runsOf(5, map[string][]int{"bind": {1, 2}, "socket": {1}, "flock": {3, 4, 5}, "read": {1, 2, 3, 4, 5}})
	for i := range r.Runs {
		r.Runs[i].Package = "a"
		if i >= 2 {
			r.Runs[i].Package = "b"
		}
	}
	s := Saturate(r)
	if s.Runs != 2 || s.All.Calls != 4 || s.All.Once != 1 || s.All.Alone != 1 {
		t.Errorf("%d runs, %+v: want 2 runs, in one of which socket alone was seen", s.Runs, s.All)
	}
	if diff := cmp.Diff([]RunCalls{{"1", 4}, {"2", 3}}, s.PerRun); diff != "" {
		t.Error(diff)
	}
}
