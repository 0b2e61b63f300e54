package main

import (
	"context"
	"encoding/json"
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

// policies compares what the policies make of one run: how many of the runs that follow are denied nothing. Each run is a
// verification of its own, so that a failing one does not end the count.
func (p *proof) policies(ctx context.Context, all []workload) error {
	type outcome struct {
		allowed, passed int
		denied          map[string]int // runs
		err             error
	}
	variants := [][]string{{"--policy", "robust"}, {"--policy", "exact", "--args", "off"}, {"--policy", "exact"}}
	outcomes := make([][3]outcome, len(all))
	var group sync.WaitGroup
	slots := make(chan struct{}, runtime.NumCPU())
	for i, w := range all {
		dir, err := p.open(ctx, w)
		if err != nil {
			return err
		}
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			rec := filepath.Join(p.work, w.Name+"-recording.json")
			rest := append([]string{w.Package, "--"}, w.Flags...)
			_, _, failed := p.seccompgen(ctx, w, dir, append([]string{"record", "-o", rec}, rest...)...)
			for v, policy := range variants {
				o := &outcomes[i][v]
				o.denied = map[string]int{}
				prof := filepath.Join(p.work, fmt.Sprintf("%s-%d.json", w.Name, v))
				if o.err = failed; o.err == nil {
					_, _, o.err = p.seccompgen(ctx, w, dir, slices.Concat([]string{"build", "-o", prof}, policy, []string{rec})...)
				}
				for range p.runs {
					if o.err != nil {
						break
					}
					var out []byte
					var report verify.Report
					if out, _, o.err = p.seccompgen(ctx, w, dir, append([]string{"verify", "--json", "--profile", prof, "--recording", rec}, rest...)...); o.err == nil {
						o.err = json.Unmarshal(out, &report)
					}
					o.allowed = report.Profile.Allowed
					if report.Verdict == verify.Pass {
						o.passed++
					}
					names := map[string]bool{}
					for _, d := range report.Denials {
						names[d.Name] = true
					}
					for name := range names {
						o.denied[name]++
					}
				}
				fmt.Fprintf(os.Stderr, "%s %v %+v\n", w.Name, policy, *o)
			}
		})
	}
	group.Wait()
	fmt.Fprintln(p.out, "| workload | policy | calls allowed | runs passed | denied, in how many runs |")
	fmt.Fprintln(p.out, "|---|---|---|---|---|")
	bad := 0
	for i, w := range all {
		for v, policy := range variants {
			o := outcomes[i][v]
			if o.err != nil {
				return o.err
			}
			if v == 0 && o.passed < p.runs {
				bad++
			}
			var denied []string
			for _, name := range slices.Sorted(maps.Keys(o.denied)) {
				denied = append(denied, fmt.Sprintf("%s %d", name, o.denied[name]))
			}
			fmt.Fprintf(p.out, "| %s | %s | %d | %d of %d | %s |\n", w.Name, strings.Join(policy, " "), o.allowed, o.passed, p.runs, strings.Join(denied, ", "))
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d workloads do not always pass under the %s policy", bad, profile.PolicyRobust)
	}
	return nil
}
