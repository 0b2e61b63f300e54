package scmp

import (
	"math/rand/v2"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seccompgen/seccompgen/profile"
)

// Build gives conditions to many calls at once, with one to three arguments each: whatever was seen, the filter must say
// what the profile says.
func TestConditionsCompile(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 15 {
		r := &profile.Recording{
			Version: profile.RecordingVersion, ID: "random", Complete: true, Boundary: profile.BoundaryFilter, Runtime: profile.Runtime{Name: "runc"},
			Runs: []profile.Run{{ID: "1"}},
		}
		abis := []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}[:1+rng.IntN(3)]
		for _, abi := range abis {
			for nr := range uint32(numbers) {
				if profile.Name(abi, nr) == "" || rng.IntN(3) == 0 {
					continue
				}
				s := profile.Syscall{Phase: profile.PhaseWorkload, ABI: abi, Nr: nr, Runs: []string{"1"}}
				if masks := profile.ArgumentMasks(abi, nr); masks != nil {
					s.Args = profile.NewArguments(masks, tuples(rng, masks), false)
				}
				r.Syscalls = append(r.Syscalls, s)
			}
		}
		p, _, err := profile.Build([]*profile.Recording{r}, profile.BuildOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, stub := range []bool{false, true} {
			wrong, err := Check(p, stub)
			if err != nil {
				t.Fatal(err)
			}
			if len(wrong) > 0 {
				t.Fatalf("%v stub %t: %v", abis, stub, wrong)
			}
		}
	}
}

// tuples returns up to 12 different arguments, close to each other as real ones are.
func tuples(rng *rand.Rand, masks []uint32) [][]uint32 {
	seen := map[[6]uint32]bool{}
	var all [][]uint32
	for range 1 + rng.IntN(12) {
		var v [6]uint32
		for i, m := range masks {
			v[i] = uint32(rng.IntN(8)) * (1 + uint32(rng.IntN(2))*0x20000fff) & m
		}
		if !seen[v] {
			seen[v] = true
			all = append(all, v[:len(masks)])
		}
	}
	return all
}
