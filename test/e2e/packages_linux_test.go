package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seccompgen/seccompgen/profile"
	"github.com/seccompgen/seccompgen/test/lab"
)

// tree copies testdata/packages, a module of several packages, and goes there.
func tree(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(lab.Repo, "testdata/packages"))); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
}

func recorded(t *testing.T) *profile.Recording {
	t.Helper()
	f, err := os.Open("recording.json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := profile.ReadRecording(f)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func wantLines(t *testing.T, text string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains(text, line) {
			t.Errorf("no %q in:\n%s", line, text)
		}
	}
}

// TestRecordPackages: a module of packages that pass, fail and have no tests becomes one recording, which says of each run, test
// and caller whose it is.
func TestRecordPackages(t *testing.T) {
	needRoot(t)
	lab.NeedTool(t, "runc")
	tree(t)
	r := seccompgen(t, 0, "record", "--runs", "2", "./good/...", "--", "-short")
	wantLines(t, r.stderr, "ok  \texample.com/packages/good/locks\t", " calls in 2 runs\n", "FAIL\texample.com/packages/good/fails\t", "?   \texample.com/packages/good\t[no test files]\n",
		"seccompgen: tests: fail 1, pass 3\n", "warning: example.com/packages/good/fails exited with 1:")
	if strings.Contains(r.stderr, "TestLock") {
		t.Errorf("the tests of a package that passes are printed:\n%s", r.stderr)
	}
	rec := recorded(t)
	if diff := cmp.Diff(map[string]string{
		"example.com/packages/good/fails TestFails": "fail", "example.com/packages/good/fails TestPasses": "pass",
		"example.com/packages/good/links TestLink": "pass", "example.com/packages/good/locks TestLock": "pass",
	}, rec.Tests); diff != "" {
		t.Error(diff)
	}
	runs := map[string]int{}
	for _, run := range rec.Runs {
		runs[run.Package]++
	}
	if diff := cmp.Diff(map[string]int{"example.com/packages/good/fails": 2, "example.com/packages/good/links": 2, "example.com/packages/good/locks": 2}, runs); diff != "" {
		t.Error(diff)
	}
	if !rec.Complete || rec.Workload.Module != "example.com/packages" || len(rec.Workload.Packages) != 3 {
		t.Errorf("the recording says %+v, complete %t", rec.Workload, rec.Complete)
	}
	for _, p := range rec.Programs {
		if p.Static == nil {
			t.Errorf("%s was not analyzed: %s", p.Path, p.Unread)
		}
	}
	seccompgen(t, 0, "build", "--why", "why.json", "recording.json")
	wantLines(t, seccompgen(t, 0, "explain", "profile.json", "flock").stdout, "made by the workload in 2 of 6 runs\n", "/good/locks.TestLock in example.com/packages/good/locks\n")
	wantLines(t, seccompgen(t, 0, "explain", "profile.json", "symlinkat").stdout, "/good/links.TestLink in example.com/packages/good/links\n")
	nothingLeft(t)
}

// TestVerifyPackages: there is one verdict on all packages, which names the one that was denied something.
func TestVerifyPackages(t *testing.T) {
	needRoot(t)
	lab.NeedTool(t, "runc")
	tree(t)
	seccompgen(t, 0, "record", "-o", "all.json", "./good/...")
	seccompgen(t, 0, "build", "-o", "all-profile.json", "all.json")
	verify := []string{"verify", "--runs", "2", "--profile", "all-profile.json", "./good/..."}
	wantLines(t, seccompgen(t, 0, verify...).stdout, "pass: no denials and the same test results in 6 of 6 runs of 3 packages\n")
	wantLines(t, seccompgen(t, 0, append(verify, "--recording", "all.json", "--report", "report.html", "--report", "report.xml")...).stdout, "pass: no denials")
	wantLines(t, seccompgen(t, 0, "verify", "--profile", "all-profile.json", "--recording", "all.json", "./good/fails").stdout, "pass: no denials")

	seccompgen(t, 0, "record", "-o", "locks.json", "./good/locks")
	seccompgen(t, 0, "build", "-o", "locks-profile.json", "locks.json")
	verify = []string{"verify", "--profile", "locks-profile.json", "--recording", "all.json"}
	r := seccompgen(t, 2, append(verify, "./good/...")...)
	wantLines(t, r.stdout, "os.MkdirTemp <- example.com/packages/good/links TestLink", "example.com/packages/good/links TestLink  pass", "fail: example.com/packages/good/links: mkdirat was denied\n")
	wantLines(t, r.stderr, "ok  \texample.com/packages/good/locks\t", "FAIL\texample.com/packages/good/links\t")
	var report struct {
		Verdict string
		Runs    []struct{ Package string }
		Denials []struct {
			Run        int
			Name, Test string
		}
	}
	if err := json.Unmarshal([]byte(seccompgen(t, 2, append(verify, "./good/...", "--json")...).stdout), &report); err != nil {
		t.Fatal(err)
	}
	if len(report.Denials) == 0 || report.Runs[report.Denials[0].Run-1].Package != "example.com/packages/good/links" || report.Verdict != "fail" {
		t.Errorf("the report says %+v", report)
	}
	wantLines(t, seccompgen(t, 1, append(verify, "./good/locks", "./broken")...).stdout, "inconclusive: the tests of example.com/packages/broken did not build\n")
	wantLines(t, seccompgen(t, 1, append(verify, "./work/one", "./good/locks")...).stderr, "did not build")
	wantLines(t, seccompgen(t, 1, append(verify, "--repair", "p.json", "./good/...")...).stderr, "error: --repair and --shrink take one package\n")
	verify[len(verify)-1] = "locks.json"
	wantLines(t, seccompgen(t, 1, append(verify, "./good/...")...).stderr, "error: package example.com/packages/good/", ": the recording has no package ")
	nothingLeft(t)
}

// TestRecordBrokenPackage: a recording that lacks a package which did not build is written only where that is asked for, and
// build refuses it.
func TestRecordBrokenPackage(t *testing.T) {
	needRoot(t)
	lab.NeedTool(t, "runc")
	tree(t)
	args := []string{"record", "-p", "1", "./good/locks", "./broken"}
	r := seccompgen(t, 1, args...)
	wantLines(t, r.stderr, "ok  \texample.com/packages/good/locks\t", "FAIL\texample.com/packages/broken [build failed]\n",
		"error: the tests of example.com/packages/broken did not build: no recording is written\n")
	if _, err := os.Stat("recording.json"); err == nil {
		t.Error("a recording is written")
	}
	wantLines(t, seccompgen(t, 1, append(args, "--keep-going")...).stderr, "packages whose tests did not build (1)", "wrote recording.json", "error: the tests of example.com/packages/broken did not build\n")
	if rec := recorded(t); rec.Complete || rec.Dropped[profile.DropBuild] != 1 {
		t.Errorf("the recording is complete: %t, %v", rec.Complete, rec.Dropped)
	}
	seccompgen(t, 1, "build", "recording.json")
	seccompgen(t, 0, "build", "--allow-incomplete", "recording.json")
	wantLines(t, seccompgen(t, 1, "record", "./good/none/...").stderr, "error: no package of ./good/none/... has tests\n")
}

// TestRecordWorkspace: packages of two modules of a workspace, and one with a dependency in vendor.
func TestRecordWorkspace(t *testing.T) {
	needRoot(t)
	lab.NeedTool(t, "runc")
	tree(t)
	t.Chdir("work")
	seccompgen(t, 0, "record", "./one/...", "example.com/two")
	rec := recorded(t)
	want := []profile.Package{{Path: "example.com/one", Module: "example.com/one"}, {Path: "example.com/two", Module: "example.com/two"}}
	for i := range rec.Workload.Packages {
		rec.Workload.Packages[i].SHA256 = ""
	}
	if diff := cmp.Diff(want, rec.Workload.Packages); diff != "" {
		t.Error(diff)
	}
	t.Setenv("GOWORK", "off")
	t.Setenv("GOFLAGS", "-tags=vendored")
	t.Chdir("../vendored")
	seccompgen(t, 0, "record", "./...")
	if rec := recorded(t); rec.Workload.Package != "example.com/vendored" || rec.Tests["TestDep"] != "pass" {
		t.Errorf("of a pattern that names one package the recording says %+v, tests %v", rec.Workload, rec.Tests)
	}
}
