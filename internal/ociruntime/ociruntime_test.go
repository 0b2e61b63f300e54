package ociruntime

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seccompgen/seccompgen/profile"
)

func TestExecutable(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if got := Executable("/proc/self"); got != self {
		t.Errorf("got %s, want %s", got, self)
	}
	dir := t.TempDir()
	for _, c := range []struct{ exe, cmdline, want string }{
		{"/", "/bin/sh\x00run\x00", "/bin/sh"}, // crun 1.8.1 under Podman
		{"/memfd:x (deleted)", "sh\x00", "sh"},
		{"/", "../no/such\x00", "/"},
		{"/", "", "/"},
	} {
		os.Remove(filepath.Join(dir, "exe"))
		if err := errors.Join(os.Symlink(c.exe, filepath.Join(dir, "exe")), os.WriteFile(filepath.Join(dir, "cmdline"), []byte(c.cmdline), 0o600)); err != nil {
			t.Fatal(err)
		}
		if got := Executable(dir); got != c.want && filepath.Base(got) != c.want {
			t.Errorf("%q: got %s", c, got)
		}
	}
	if got := Executable(filepath.Join(dir, "no")); got != "" {
		t.Errorf("got %s for no process", got)
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	write := func(name, script string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if r, err := Find(write("runc", "echo runc version 1.1.5+ds1; echo commit: x")); err != nil || r.Name != "runc" || r.Version != "1.1.5+ds1" {
		t.Errorf("got %+v, %v", r, err)
	}
	for name, c := range map[string]struct{ script, want string }{
		"other": {"echo 1.2.3", "not an OCI runtime"},
		"fails": {"exit 1", "exit status 1"},
		"hangs": {"sleep 1000", "no answer in"},
	} {
		path := write(name, c.script)
		began := time.Now()
		if _, err := Find(path); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v", name, err)
		}
		if time.Since(began) > 6*patience {
			t.Errorf("%s took %v", name, time.Since(began))
		}
		if name == "hangs" {
			continue // it would again
		}
		if r := Executed(profile.Runtime{Name: path}); r.Name != name || r.Version != "" {
			t.Errorf("%s is %+v", name, r)
		}
	}
	named := profile.Runtime{Name: "runc", Version: "1.1.5"}
	if r := Executed(named); r != named {
		t.Errorf("got %+v", r)
	}
	if _, err := Find(filepath.Join(dir, "none")); err == nil || !strings.Contains(err.Error(), "--runtime PATH") {
		t.Errorf("got %v", err)
	}
}
