package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/seccompgen/seccompgen/internal/verify"
	"github.com/seccompgen/seccompgen/profile"
)

// policies compares what the policies make of one run: how many of the runs that follow are denied something.
func (p *proof) policies(ctx context.Context, all []workload) error {
	type outcome struct {
		report *verify.Report
		err    error
	}
	variants := []profile.Policy{profile.PolicyRobust, profile.PolicyExact}
	outcomes := make([][]outcome, len(all))
	var group sync.WaitGroup
	slots := make(chan struct{}, runtime.NumCPU())
	for i, w := range all {
		dir, err := p.open(ctx, w)
		if err != nil {
			return err
		}
		outcomes[i] = make([]outcome, len(variants))
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			rec := filepath.Join(p.work, w.Name+"-recording.json")
			_, failed := p.seccompgen(ctx, w, dir, append([]string{"record", "-o", rec, "--runtime", p.runtimes[0]}, w.rest()...)...)
			for v, policy := range variants {
				o := &outcomes[i][v]
				prof := filepath.Join(p.work, fmt.Sprintf("%s-%s.json", w.Name, policy))
				if o.err = failed; o.err == nil {
					_, o.err = p.seccompgen(ctx, w, dir, "build", "--policy", string(policy), "-o", prof, rec)
				}
				if o.err == nil {
					o.report, o.err = p.report(ctx, w, dir, p.runtimes[0], "--profile", prof, "--recording", rec, "--runs", fmt.Sprint(p.runs), "--keep-going")
				}
				fmt.Fprintln(os.Stderr, w.Name, policy, o.err)
			}
		})
	}
	group.Wait()
	fmt.Fprintln(p.out, "| workload | policy | calls allowed | runs | with a denial | with another test result | denied, in how many runs |")
	fmt.Fprintln(p.out, "|---|---|---|---|---|---|---|")
	bad := 0
	for i, w := range all {
		for v, policy := range variants {
			r, err := outcomes[i][v].report, outcomes[i][v].err
			if err != nil {
				return fmt.Errorf("%s: %w", w.Name, err)
			}
			denied, calls, changed := map[int]bool{}, map[string]map[int]bool{}, map[int]bool{}
			for _, d := range r.Denials {
				denied[d.Run] = true
				if calls[d.Name] == nil {
					calls[d.Name] = map[int]bool{}
				}
				calls[d.Name][d.Run] = true
			}
			for _, t := range r.Tests {
				changed[t.Run] = true
			}
			var names []string
			for _, name := range slices.Sorted(maps.Keys(calls)) {
				names = append(names, fmt.Sprintf("%s %d", name, len(calls[name])))
			}
			fmt.Fprintf(p.out, "| %s | %s | %d | %d | %d | %d | %s |\n", w.Name, policy, r.Profile.Allowed, len(r.Runs), len(denied), len(changed), strings.Join(names, ", "))
			if policy == profile.PolicyRobust && (len(r.Runs) < p.runs || len(denied)+len(changed) > 0) {
				bad++
			}
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d workloads do not always pass under the %s policy", bad, profile.PolicyRobust)
	}
	return nil
}
