package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seccompgen/seccompgen/test/lab"
)

// Each mutant of the table is in one place of the code.
func TestTable(t *testing.T) {
	if _, err := find(lab.Repo, mutants); err != nil {
		t.Error(err)
	}
}

func TestFind(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"a/a.go": "package a\n\nvar once = 1\nvar twice = 2\n", "b/b.go": "package b\n\nvar twice = 2\n",
		"a/a_test.go": "var once = 1", "testdata/a.go": "var once = 1", "test/a.go": "var once = 1",
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	found, err := find(root, []mutant{{what: "one", old: "once = 1", new: "once = 0"}})
	if err != nil || len(found) != 1 || found[0].file != "a/a.go" || found[0].line != 3 || string(found[0].source) != "package a\n\nvar once = 0\nvar twice = 2\n" {
		t.Errorf("found %+v, %v", found, err)
	}
	for _, old := range []string{"twice = 2", "never = 3"} {
		if _, err := find(root, []mutant{{what: "two", old: old}}); err == nil || !strings.Contains(err.Error(), "change the table") {
			t.Errorf("%s: %v", old, err)
		}
	}
}

func TestReport(t *testing.T) {
	killed, survivor := &place{by: "TestA"}, &place{mutant: mutant{what: "it is wrong"}}
	excused := &place{mutant: mutant{survives: "it means the same"}}
	outdated := &place{mutant: mutant{survives: "it means the same"}, by: "TestA"}
	for want, found := range map[string][]*place{
		"":                                    {killed, killed, excused, excused},
		"it is wrong: no test notices":        {killed, survivor},
		"TestA notices now: take its reason":  {outdated},
		"3 mutants survived, and 2 may":       {excused, excused, excused},
		"no test notices\n4 mutants survived": {excused, excused, excused, survivor},
	} {
		var table bytes.Buffer
		err := report(&table, found, "abc", 0)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("got %v, want %q", err, want)
		}
		if strings.Count(table.String(), "\n| ") != len(found)+1 {
			t.Errorf("the table:\n%s", table.String())
		}
	}
}
