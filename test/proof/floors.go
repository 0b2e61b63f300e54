package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seccompgen/seccompgen/profile"
)

// floors measures what each runtime's init calls under the filter, over many runs: runc's init is a Go program, and no
// two of its runs need be the same.
func (p *proof) floors(ctx context.Context, _ []workload) error {
	var all []profile.Floor
	path := filepath.Join(p.work, "floor.json")
	for _, rt := range p.runtimes {
		for _, nnp := range []bool{true, false} {
			args := []string{"record", "-o", path, "--runtime", rt, fmt.Sprintf("--no-new-privileges=%t", nnp), "--runs", fmt.Sprint(p.runs), "--exec", "--", "/bin/true"}
			if _, _, err := p.seccompgen(ctx, workload{}, p.work, args...); err != nil {
				return err
			}
			r, err := read(path, profile.ReadRecording)
			if err != nil {
				return err
			}
			if err := r.Incomplete(); err != nil {
				return err
			}
			byABI := map[specs.Arch][]string{}
			for _, s := range r.Syscalls {
				if s.Phase == profile.PhaseRuntime {
					byABI[s.ABI] = append(byABI[s.ABI], s.Name)
				}
			}
			for _, abi := range profile.ABIs() {
				if calls := byABI[abi]; len(calls) > 0 {
					slices.Sort(calls)
					all = append(all, profile.Floor{Runtime: r.Runtime, NoNewPrivileges: nnp, ABI: abi, Runs: p.runs, Calls: calls})
				}
			}
			fmt.Fprintln(os.Stderr, r.Runtime, nnp, byABI)
		}
	}
	data, err := profile.EncodeFloors(all)
	if err != nil {
		return err
	}
	_, err = p.out.Write(data)
	return err
}
