package docker

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seccompgen/seccompgen/profile"
)

// On the native ABIs the profile is the one that Docker itself resolves.
func TestDefaultIsDockers(t *testing.T) {
	want, err := seccomp.GetDefaultProfile(Spec())
	if err != nil {
		t.Fatal(err)
	}
	got, err := Default(want.Architectures, Capabilities)
	if err != nil {
		t.Fatal(err)
	}
	if d := profile.Diff(want, got, ""); len(d.Changes) > 0 {
		t.Errorf("%+v", d.Changes)
	}
}

func TestDefaultOfOtherABIs(t *testing.T) {
	for abi, c := range map[specs.Arch]struct{ has, lacks string }{
		specs.ArchX86_64: {"modify_ldt", "set_tls"}, specs.ArchAARCH64: {"clone", "modify_ldt"}, specs.ArchARM: {"set_tls", "modify_ldt"},
	} {
		p, err := Default([]specs.Arch{abi}, Capabilities)
		if err != nil {
			t.Fatal(err)
		}
		if allowed := profile.Allowed(p); !slices.Contains(allowed, c.has) || slices.Contains(allowed, c.lacks) {
			t.Errorf("%s: allowed %v", abi, allowed)
		}
	}
}

// Whatever was recorded, what a profile lets through and Docker's default does not has a reason of its own: nothing is wider
// unsaid. What is not called wider is not.
func TestNothingIsWiderUnsaid(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 9))
	abis := []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32, specs.ArchAARCH64, specs.ArchARM}
	told := map[string]bool{}
	for range 60 {
		r := &profile.Recording{
			Version: profile.RecordingVersion, ID: "a", Complete: true, Kernel: "6.18", Boundary: profile.BoundaryFilter, Runtime: profile.Runtime{Name: "runc"},
			Runs: []profile.Run{{ID: "a"}},
		}
		for _, abi := range abis[:1+rng.IntN(len(abis))] {
			for nr := range uint32(500) {
				if profile.Name(abi, nr) == "" || rng.IntN(4) > 0 {
					continue
				}
				s := profile.Syscall{Phase: profile.PhaseWorkload, ABI: abi, Nr: nr, Runs: []string{"a"}, Callers: []profile.Caller{{Comm: "x"}}}
				if rng.IntN(3) == 0 {
					s.Callers[0].Stack = []string{"main.main"}
				}
				if masks := profile.ArgumentMasks(abi, nr); masks != nil && rng.IntN(5) > 0 {
					seen := make([]uint32, len(masks))
					for i, m := range masks {
						seen[i] = []uint32{0, 1, 2, 0x20000, 0x10000000, 38}[rng.IntN(6)] & m
					}
					s.Args = profile.NewArguments(masks, [][]uint32{seen}, false)
				}
				r.Syscalls = append(r.Syscalls, s)
			}
		}
		if len(r.Syscalls) == 0 {
			continue
		}
		o := profile.BuildOptions{AnyArguments: rng.IntN(4) == 0}
		if rng.IntN(2) == 0 {
			o.Policy = profile.PolicyExact
		}
		p, why, err := profile.Build([]*profile.Recording{r}, o)
		if err != nil {
			t.Fatal(err)
		}
		docker, err := Default(p.Architectures, Capabilities)
		if err != nil {
			t.Fatal(err)
		}
		why.NameWider(docker, "Docker's")
		said := map[string]bool{}
		for _, e := range why.Entries {
			if slices.ContainsFunc(e.Reasons, func(r profile.Reason) bool { return r.Kind == "wider" }) {
				said[e.Name], told[e.Name] = true, true
			}
		}
		is := map[string]bool{}
		for _, c := range profile.Compare(p, docker).Wider {
			is[c.Name] = true
			// i386's socketcall and ipc have no entries: those of what they make have the reasons.
			if c.What != "call" || !said[c.Name] && c.Name != "socketcall" && c.Name != "ipc" {
				t.Fatalf("%s %s is wider than Docker's, and no reason says so: %s, Docker's: %s; %s", c.What, c.Name, c.New, c.Old, c.Note)
			}
		}
		for name := range said {
			if !is[name] && !is["socketcall"] && !is["ipc"] {
				t.Fatalf("%s is called wider than Docker's, and is not", name)
			}
		}
	}
	for _, name := range []string{"clone", "clone3", "socket", "personality", "unshare", "bpf"} {
		if !told[name] {
			t.Errorf("%s was never wider: the test tests little", name)
		}
	}
}

// What Docker's default profile allows depends on the capabilities that the recorded containers had, all of them.
func TestCapabilities(t *testing.T) {
	had := func(capabilities ...string) *profile.Recording { return &profile.Recording{Capabilities: capabilities} }
	for name, c := range map[string]struct {
		recordings []*profile.Recording
		mount      bool
	}{
		"not known":             {[]*profile.Recording{had()}, false},
		"none":                  {[]*profile.Recording{{Capabilities: []string{}}}, false},
		"an administrator's":    {[]*profile.Recording{had("CAP_CHOWN", "CAP_SYS_ADMIN")}, true},
		"one of two":            {[]*profile.Recording{had("CAP_SYS_ADMIN"), had("CAP_CHOWN")}, false},
		"both":                  {[]*profile.Recording{had("CAP_SYS_ADMIN"), had("CAP_CHOWN", "CAP_SYS_ADMIN")}, true},
		"one that is not known": {[]*profile.Recording{had("CAP_SYS_ADMIN"), had()}, false},
	} {
		p, err := Default([]specs.Arch{specs.ArchX86_64}, Common(c.recordings))
		if err != nil {
			t.Fatal(err)
		}
		if got := slices.Contains(profile.Allowed(p), "mount"); got != c.mount {
			t.Errorf("%s: mount is allowed: %v", name, got)
		}
	}
}
