package hook

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWithHooks(t *testing.T) {
	const ours = `{"path":"/h","args":["oci-hook"],"timeout":60}`
	for name, c := range map[string]struct{ config, annotations, hooks string }{
		"environment":         {`{"process":{"env":["A=b","SECCOMPGEN_RECORD=web"]}}`, `{"dev.seccompgen.record":"web"}`, `{"createRuntime":[` + ours + `],"poststop":[` + ours + `]}`},
		"the last one counts": {`{"process":{"env":["SECCOMPGEN_RECORD=a","SECCOMPGEN_RECORD=b"]}}`, `{"dev.seccompgen.record":"b"}`, `{"createRuntime":[` + ours + `],"poststop":[` + ours + `]}`},
		"the annotation first": {
			`{"process":{"env":["SECCOMPGEN_RECORD=a"]},"annotations":{"dev.seccompgen.record":"b","x":"y"}}`, `{"dev.seccompgen.record":"b","x":"y"}`, `{"createRuntime":[` + ours + `],"poststop":[` + ours + `]}`,
		},
		"others' hooks stay": {
			`{"process":{"env":["SECCOMPGEN_RECORD="]},"hooks":{"prestart":[{"path":"/p","new":1}],"poststop":[{"path":"/q"}]}}`,
			`{"dev.seccompgen.record":""}`, `{"createRuntime":[` + ours + `],"poststop":[{"path":"/q"},` + ours + `],"prestart":[{"path":"/p","new":1}]}`,
		},
		"refused by the hook": {`{"process":{"env":["SECCOMPGEN_RECORD=../x"]}}`, `{"dev.seccompgen.record":"../x"}`, `{"createRuntime":[` + ours + `],"poststop":[` + ours + `]}`},
		"no":                  {`{"process":{"env":["SECCOMPGEN_RECORD=false"]}}`, "", ""},
		"only a part of it":   {`{"process":{"args":["SECCOMPGEN_RECORD=x"],"env":["MY_SECCOMPGEN_RECORD=web"]}}`, "", ""},
		"there already":       {`{"process":{"env":["SECCOMPGEN_RECORD=web"]},"hooks":{"createRuntime":[` + ours + `]}}`, "", ""},
		"a pod's own":         {`{"process":{},"annotations":{"dev.seccompgen.record":"b","io.kubernetes.cri.container-type":"sandbox"}}`, "", ""},
		"another container's": {`{"process":{},"annotations":{"dev.seccompgen.record/db":"b","io.kubernetes.cri.container-name":"web"}}`, "", ""},
		"without a process":   {`{"annotations":{"dev.seccompgen.record":"b"}}`, "", ""},
	} {
		got, err := withHooks([]byte(c.config), "/h", "c1")
		if err != nil || (got == nil) != (c.hooks == "") {
			t.Errorf("%s: got %s, %v", name, got, err)
		}
		if got == nil {
			continue
		}
		var before, after map[string]any
		if err := json.Unmarshal([]byte(c.config), &before); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(got, &after); err != nil {
			t.Fatal(err)
		}
		for key, text := range map[string]string{"annotations": c.annotations, "hooks": c.hooks} {
			var want any
			if err := json.Unmarshal([]byte(text), &want); err != nil {
				t.Fatal(err)
			}
			before[key] = want
		}
		if diff := cmp.Diff(before, after); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// Who did not ask, and what is broken, is handed over as it is.
func TestAddHooksLeavesOthers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.json")
	for _, text := range []string{`{"process": {"args":["a"]},  "hooks": {}}`, `no JSON`, ``} {
		if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
		if err := addHooks(filepath.Dir(path), "/h"); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != text {
			t.Errorf("%s became %s, %v", text, got, err)
		}
	}
	if err := addHooks(filepath.Dir(path)+"/no", "/h"); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(path, []byte(`no JSON SECCOMPGEN_RECORD=`), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := addHooks(filepath.Dir(path), "/h"); err == nil {
		t.Error("a container that asks runs unrecorded")
	}
	if err := os.WriteFile(path, []byte(`{"process":{"env":["SECCOMPGEN_RECORD=x"]}}`), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := addHooks(filepath.Dir(path), "/h"); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o640 {
		t.Errorf("the mode is %v, %v", info.Mode(), err)
	}
	if o, err := readConfig(filepath.Dir(path)); err != nil || o.Hooks == nil || !slices.Equal(o.Hooks.Poststop[0].Args, []string{"oci-hook"}) {
		t.Errorf("got %+v, %v", o, err)
	}
}
