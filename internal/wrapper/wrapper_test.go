package wrapper

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestCreated(t *testing.T) {
	for _, c := range []struct {
		args   []string
		bundle string
		ok     bool
	}{
		// Docker 20.10, containerd 1.6, containerd 2.4, by hand.
		{[]string{"--root", "/r", "--log", "/l", "--log-format", "json", "create", "--bundle", "/b", "--pid-file", "/p", "id"}, "/b", true},
		{[]string{"--root=/r", "--systemd-cgroup", "run", "-b", "/b", "id"}, "/b", true},
		{[]string{"run", "--bundle=/b", "id"}, "/b", true},
		{[]string{"create", "id"}, ".", true},
		{[]string{"--root", "/r", "delete", "id"}, "", false},
		{[]string{"--version"}, "", false},
		{nil, "", false},
	} {
		if bundle, ok := Created(c.args); bundle != c.bundle || ok != c.ok {
			t.Errorf("%q: got %q, %v", c.args, bundle, ok)
		}
	}
}

// Who does not ask is handed to the runtime, and so is what cannot be read; who asks, to oci-hook. Arguments stay as they are.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, "seccompgen-lab"), "../../cmd/oci-runtime")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.Symlink("seccompgen-lab", filepath.Join(dir, "oci-runtime")); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"lab":                 "#!/bin/sh\necho runtime $*",
		"oci-hook":            "#!/bin/sh\necho hook $*", // a script is not told what it was called
		"asks/config.json":    `{"process":{"env":["SECCOMPGEN_RECORD=web"]}}`,
		"pod/config.json":     `{"annotations":{"dev.seccompgen.record/web":"x"}}`,
		"dropin/config.json":  `{"annotations":{"io.containers.trace-syscall":"of:/x"}}`,
		"quiet/config.json":   `{"process":{"env":["PATH=/bin"]}}`,
		"nothing/config.json": ``,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "none"), 0o755); err != nil {
		t.Fatal(err)
	}
	for bundle, want := range map[string]string{
		"asks": "hook", "pod": "hook", "dropin": "hook", "quiet": "runtime", "nothing": "runtime", "none": "runtime",
	} {
		for _, args := range [][]string{{"--root", "/r", "create", "--bundle", bundle, "id"}, {"state", "id"}} {
			cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "seccompgen-lab"), args...)
			cmd.Dir, cmd.Env = dir, []string{"PATH=" + dir + ":/bin:/usr/bin"}
			out, err := cmd.CombinedOutput()
			if args[0] == "state" {
				want = "runtime"
			}
			for _, arg := range args {
				want += " " + arg
			}
			if err != nil || string(out) != want+"\n" {
				t.Errorf("%s: got %q, %v, want %q", bundle, out, err, want)
			}
		}
	}
	for name, want := range map[string]string{"oci-runtime": "not the name of a runtime", "seccompgen-lab": "find the runtime: executable file not found"} {
		cmd := exec.CommandContext(t.Context(), filepath.Join(dir, name), "state")
		cmd.Env = []string{"PATH=/nowhere"}
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: got %q, %v, want %q", name, out, err, want)
		}
	}
}
