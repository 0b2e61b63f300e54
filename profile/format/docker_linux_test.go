package format

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seccompgen/seccompgen/profile"
	"github.com/seccompgen/seccompgen/test/golden"
)

// Docker's own code reads what EncodeDocker writes, and comes to the same profile.
func TestEncodeDocker(t *testing.T) {
	for _, name := range []string{"exact", "robust", "kill"} {
		p, w := built(t, name)
		for _, why := range []*profile.Why{w, nil} {
			data, err := EncodeDocker(p, why)
			if err != nil {
				t.Fatal(err)
			}
			back, err := seccomp.LoadProfile(string(data), &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if d := profile.Diff(p, back, x64); len(d.Changes) > 0 || !slices.Equal(slices.Sorted(slices.Values(back.Architectures)), slices.Sorted(slices.Values(p.Architectures))) {
				t.Errorf("%s: Docker reads another profile: %+v, %v", name, d, back.Architectures)
			}
			var d dockerProfile
			if err := json.Unmarshal(data, &d); err != nil {
				t.Fatal(err)
			}
			for _, s := range d.Syscalls {
				if (s.Comment == "") == (why != nil) {
					t.Errorf("%s: comment %q of %v", name, s.Comment, s.Names)
				}
			}
			if why != nil {
				golden.Check(t, "testdata/"+name+".docker.json", data)
			}
		}
		if docker, err := EncodeDocker(p, w); err != nil {
			t.Error(err)
		} else if podman, err := EncodePodman(p, w); err != nil || string(podman) != string(docker) {
			t.Errorf("%s: Podman's differs: %v", name, err)
		}
	}
}
