package profile

import (
	"slices"
	"testing"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Docker's own code reads what EncodeDocker writes, and comes to the same profile.
func TestEncodeDocker(t *testing.T) {
	for name, o := range map[string]BuildOptions{
		"exact": {Policy: PolicyExact}, "robust": {}, "kill": {Deny: "kill", Phases: []Phase{PhaseWorkload}, Arch: []specs.Arch{specs.ArchX32}},
	} {
		p, w := build(t, o, sample(t))
		for _, why := range []*Why{w, nil} {
			data, err := EncodeDocker(p, why)
			if err != nil {
				t.Fatal(err)
			}
			back, err := seccomp.LoadProfile(string(data), &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if d := Diff(p, back, x64); len(d.Changes) > 0 || !slices.Equal(sortABIs(back.Architectures), p.Architectures) {
				t.Errorf("%s: Docker reads another profile: %+v, %v", name, d, back.Architectures)
			}
			var d dockerProfile
			if err := strictJSON(data, &d); err != nil {
				t.Fatal(err)
			}
			for _, s := range d.Syscalls {
				if (s.Comment == "") == (why != nil) {
					t.Errorf("%s: comment %q of %v", name, s.Comment, s.Names)
				}
			}
			if why != nil {
				golden(t, name+".docker.json", data)
			}
		}
		if docker, err := EncodeDocker(p, w); err != nil {
			t.Error(err)
		} else if podman, err := EncodePodman(p, w); err != nil || string(podman) != string(docker) {
			t.Errorf("%s: Podman's differs: %v", name, err)
		}
	}
}
