package hook

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/seccompgen/seccompgen/internal/annotation"
)

// hookFile is the grammar of hooks.d, version 1.0.0 (oci-hooks(5)).
type hookFile struct {
	Version string `json:"version"`
	Hook    struct {
		Path    string   `json:"path"`
		Args    []string `json:"args"`
		Env     []string `json:"env"`
		Timeout *int     `json:"timeout"`
	} `json:"hook"`
	When struct {
		Always        *bool             `json:"always"`
		Annotations   map[string]string `json:"annotations"`
		Commands      []string          `json:"commands"`
		HasBindMounts *bool             `json:"hasBindMounts"`
	} `json:"when"`
	Stages []string `json:"stages"`
}

// matches tells as engines do whether a container's annotations match: every condition, by any annotation, unanchored.
func (h *hookFile) matches(t *testing.T, annotations map[string]string) bool {
	all := len(h.When.Annotations) > 0
	for key, value := range h.When.Annotations {
		k, err := regexp.Compile(key)
		if err != nil {
			t.Fatal(err)
		}
		v, err := regexp.Compile(value)
		if err != nil {
			t.Fatal(err)
		}
		one := false
		for name, text := range annotations {
			one = one || k.MatchString(name) && v.MatchString(text)
		}
		all = all && one
	}
	return all
}

func TestHookFiles(t *testing.T) {
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	installed := filepath.Join("/usr/local", "libexec/seccompgen/oci-hook")
	if !bytes.Contains(makefile, []byte("PREFIX ?= /usr/local")) || !bytes.Contains(makefile, []byte("$(PREFIX)/libexec/seccompgen/oci-hook")) {
		t.Errorf("make install does not put the hook at %s", installed)
	}
	for _, engine := range []string{"podman", "crio"} {
		for file, keys := range map[string][]string{"seccompgen-record.json": {annotation.Record, annotation.Record + "/web"}, "seccompgen-trace.json": {annotation.TraceSyscall}} {
			path := filepath.Join("../../hooks.d", engine, file)
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			d := json.NewDecoder(bytes.NewReader(data))
			d.DisallowUnknownFields()
			var h hookFile
			if err := d.Decode(&h); err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			if _, err := d.Token(); err != io.EOF {
				t.Errorf("%s: more than one value", path)
			}
			if h.Version != "1.0.0" || h.Hook.Path != installed || len(h.Hook.Args) == 0 || h.Hook.Timeout == nil || *h.Hook.Timeout <= 0 || h.When.Always != nil {
				t.Errorf("%s: %+v", path, h)
			}
			if !slices.Equal(h.Stages, []string{"createRuntime", "poststop"}) {
				t.Errorf("%s: stages %q", path, h.Stages)
			}
			o, err := parse(append(h.Hook.Args[1:], h.Stages[0]), io.Discard)
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			if o.always || o.honour != (engine == "podman" && strings.Contains(file, "trace")) {
				t.Errorf("%s: arguments %q mean %+v", path, h.Hook.Args, o)
			}
			for _, key := range keys {
				for _, value := range []string{"", "true", "of:/o", "a\nb"} {
					if !h.matches(t, map[string]string{"x": "y", key: value}) {
						t.Errorf("%s does not match %s=%q", path, key, value)
					}
				}
			}
			for _, other := range []string{"", "x", annotation.Record + "er", "x" + annotation.Record, annotation.TraceSyscall + "/web", "devxseccompgen.record", "io.containers.trace-syscalls"} {
				if h.matches(t, map[string]string{other: "of:/o"}) {
					t.Errorf("%s matches %s", path, other)
				}
			}
		}
	}
}
