// Package record records a bundle as often as it takes.
package record

import (
	"context"

	"github.com/seccompgen/seccompgen/internal/bundle"
	"github.com/seccompgen/seccompgen/internal/container"
	"github.com/seccompgen/seccompgen/profile"
)

// Options are the settings of a recording.
type Options struct {
	Run  container.Options // Seccomp and Programs are set here
	Runs int               // at most
	// Chance ends the recording once the next run shows a new call with a smaller chance, as profile.Saturate estimates it. 0 makes
	// all runs.
	Chance float64
	// Bundle returns what run i, from 1 on, executes.
	Bundle func(i int) *bundle.Bundle
	// Progress gets each run, and how many of its calls the runs before did not make. May be nil.
	Progress func(i int, run *profile.Recording, added int)
}

// Record runs a bundle and returns the recording of all runs. saturated says that Chance ended it.
func Record(ctx context.Context, s *container.Session, o Options) (all *profile.Recording, saturated bool, err error) {
	o.Run.Seccomp, o.Run.Programs = profile.AllowAll(), true
	for i := 1; i <= o.Runs && !saturated; i++ {
		b := o.Bundle(i)
		r, err := s.Run(ctx, b, o.Run)
		if err != nil {
			return nil, false, err
		}
		if b.Binary != "" {
			if err := Resolve(r, b.Binary); err != nil {
				return nil, false, err
			}
		}
		before := 0
		if all == nil {
			all = r
		} else {
			before = len(all.Syscalls)
			if all, err = profile.Merge(all, r); err != nil {
				return nil, false, err
			}
		}
		if o.Progress != nil {
			o.Progress(i, r, len(all.Syscalls)-before)
		}
		saturated = o.Chance > 0 && i > 1 && profile.Saturate(all).All.Chance < o.Chance
	}
	return all, saturated, nil
}
