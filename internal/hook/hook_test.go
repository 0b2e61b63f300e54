package hook

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seccompgen/seccompgen/profile"
)

// What the runtimes really send, from Debian 12's runc 1.1.5, runc 1.5.2 and crun 1.8.1.
var states = map[string]string{
	"runc 1.1.5 createRuntime": `{"ociVersion":"1.0.2-dev","id":"c1","status":"creating","pid":4711,"bundle":"/b"}`,
	"runc 1.5.2 createRuntime": `{"ociVersion":"1.3.0","id":"c1","status":"creating","pid":4711,"bundle":"/b","annotations":{"a":"b"}}`,
	"crun createRuntime":       `{"ociVersion":"1.0","id":"c1","pid":4711,"root":"/r","bundle":"/b","status":"created"}`,
	"runc poststop":            `{"ociVersion":"1.0.2-dev","id":"c1","status":"stopped","bundle":"/b"}`,
	"crun poststop":            `{"ociVersion":"1.0","id":"c1","pid":0,"root":"/r","bundle":"/b","status":"stopped"}`,
}

func decodeAll(text string) (*specs.State, error) {
	data, err := readState(strings.NewReader(text))
	if err != nil {
		return nil, err
	}
	return decodeState(data)
}

func TestDecodeState(t *testing.T) {
	for name, text := range states {
		s, err := decodeAll(text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if s.ID != "c1" || s.Bundle != "/b" || (s.Pid == 0) != (s.Status == specs.StateStopped) {
			t.Errorf("%s: decoded %+v", name, s)
		}
	}
}

func TestDecodeStateRefuses(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"nothing":         {"", "an OCI runtime runs it"},
		"no JSON":         {"hello", "decode the OCI state"},
		"truncated":       {states["runc poststop"][:30], "decode the OCI state"},
		"two":             {states["runc poststop"] + states["runc poststop"], "decode the OCI state"},
		"too large":       {`{"id":"` + strings.Repeat("a", maxState) + `"}`, "larger than"},
		"no version":      {`{"id":"c1","status":"stopped","bundle":"/b"}`, "no ociVersion"},
		"no id":           {`{"ociVersion":"1.0","status":"stopped","bundle":"/b"}`, "container id"},
		"id with a slash": {`{"ociVersion":"1.0","id":"../c1","status":"stopped","bundle":"/b"}`, "container id"},
		"long id":         {`{"ociVersion":"1.0","id":"` + strings.Repeat("a", 300) + `","status":"stopped","bundle":"/b"}`, "container id"},
		"relative bundle": {`{"ociVersion":"1.0","id":"c1","status":"stopped","bundle":"b"}`, "not an absolute path"},
		"negative pid":    {`{"ociVersion":"1.0","id":"c1","status":"stopped","pid":-4,"bundle":"/b"}`, "the pid -4"},
		"status":          {`{"ociVersion":"1.0","id":"c1","status":"dreaming","bundle":"/b"}`, `status "dreaming"`},
		// createContainer hooks get the container's own view of the pid.
		"the container's pid": {`{"ociVersion":"1.0","id":"c1","status":"creating","pid":1,"bundle":"/b"}`, "register this hook as createRuntime"},
		"no pid":              {`{"ociVersion":"1.0","id":"c1","status":"created","bundle":"/b"}`, "register this hook as createRuntime"},
	} {
		if _, err := decodeAll(c.text); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, c.want)
		}
	}
}

func FuzzDecodeState(f *testing.F) {
	for _, text := range states {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := decodeAll(string(data))
		if err != nil {
			return
		}
		if s.ID == "" || strings.ContainsAny(s.ID, "/\x00\n") || !filepath.IsAbs(s.Bundle) || s.Status != specs.StateStopped && s.Pid <= 1 {
			t.Fatalf("let through: %+v", s)
		}
	})
}

func TestArguments(t *testing.T) {
	for _, args := range [][]string{{"--output", "relative"}, {"--dir", "relative"}, {"--nonsense"}, {"--trace-policy", "mild"}, {"createRuntime", "more"}} {
		if _, err := parse(args, &strings.Builder{}); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
	o, err := parse([]string{"--denials", "poststop"}, &strings.Builder{})
	if err != nil || !o.denials || o.always || o.dir != DefaultDir {
		t.Errorf("got %+v, %v", o, err)
	}
	for _, args := range [][]string{{"--output", "/o"}, {"--dir", "/d"}, {"--dir", DefaultDir}} {
		if o, err := parse(args, &strings.Builder{}); err != nil || !o.always {
			t.Errorf("%q: got %+v, %v", args, o, err)
		}
	}
}

// A poststop that has nothing to collect leaves a file that says so, and never overwrites evidence.
func TestStopLeavesEvidence(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: the recorder is asked for the container")
	}
	path := filepath.Join(t.TempDir(), "recording.json")
	state := strings.Replace(states["runc poststop"], "c1", "nobody-started-this", 1)
	if err := Run([]string{"--output", path}, strings.NewReader(state), &strings.Builder{}); err == nil {
		t.Fatal("collecting a container that nobody started succeeds")
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := profile.ReadRecording(f)
	if err != nil {
		t.Fatal(err)
	}
	if !errors.Is(r.Incomplete(), profile.ErrIncomplete) || r.Dropped[profile.DropCollect] != 1 {
		t.Errorf("the evidence is %+v", r)
	}
	if err := os.WriteFile(path, []byte("evidence"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Run([]string{"--output", path}, strings.NewReader(state), &strings.Builder{}); err == nil {
		t.Fatal("the second one succeeds")
	}
	if data, _ := os.ReadFile(path); string(data) != "evidence" {
		t.Errorf("evidence was overwritten with %s", data)
	}
}

func TestWorkloadIsBounded(t *testing.T) {
	spec := &specs.Spec{Process: &specs.Process{Args: []string{"a", strings.Repeat("b", 5000), "c"}}}
	w := workload(spec)
	data, err := json.Marshal(w.Args)
	if err != nil || string(data) != `["a","..."]` {
		t.Errorf("kept %.100s, %v", data, err)
	}
}

func TestBounding(t *testing.T) {
	spec := &specs.Spec{Process: &specs.Process{}}
	if got := bounding(spec); got == nil || len(got) > 0 {
		t.Errorf("got %#v, want none, which is known", got)
	}
	spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL", "CAP_CHOWN", "CAP_KILL"}, Effective: []string{"CAP_BPF"}}
	if got := bounding(spec); !slices.Equal(got, []string{"CAP_CHOWN", "CAP_KILL"}) {
		t.Errorf("got %q", got)
	}
}
