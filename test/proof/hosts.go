package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/seccompgen/seccompgen/internal/verify"
	"github.com/seccompgen/seccompgen/test/lab"
)

// hosts records testdata/hosts on each host, and verifies it under the profile on each other one.
func (p *proof) hosts(ctx context.Context, _ []workload) error {
	var all []lab.Host
	for _, h := range lab.Hosts {
		if lacks := h.Missing(); lacks != "" {
			fmt.Fprintf(p.out, "Not measured: %s, since this machine has no %s.\n\n", h.Name, lacks)
			continue
		}
		all = append(all, h)
	}
	fmt.Fprintln(p.out, "| built | verified on | recorded on | with a denial or another failure |")
	fmt.Fprintln(p.out, "|---|---|---|---|")
	failed := 0
	for _, cgo := range []bool{false, true} {
		root := filepath.Join(p.work, fmt.Sprintf("root-%t", cgo))
		if err := os.Mkdir(root, 0o755); err != nil {
			return err
		}
		if err := lab.HostRoot(root, cgo); err != nil {
			return err
		}
		path := func(i int, what string) string { return filepath.Join(p.work, fmt.Sprintf("%t-%d%s", cgo, i, what)) }
		for i, h := range all {
			if err := h.Bundle(path(i, ""), root, "listen", "serve", "work"); err != nil {
				return err
			}
			err := on(h, func() error {
				_, err := p.seccompgen(ctx, workload{}, p.work, "record", "-o", path(i, ".recording"), "--runtime", p.runtimes[0], "--bundle", path(i, ""))
				return err
			})
			if err == nil {
				_, err = p.seccompgen(ctx, workload{}, p.work, "build", "-o", path(i, ".profile"), path(i, ".recording"))
			}
			if err != nil {
				return fmt.Errorf("record on %s: %w", h.Name, err)
			}
		}
		for to, h := range all {
			bad := make([]string, len(all))
			err := on(h, func() error {
				var group sync.WaitGroup
				slots := make(chan struct{}, 2)
				for from := range all {
					if from == to {
						continue
					}
					group.Go(func() {
						slots <- struct{}{}
						defer func() { <-slots }()
						r, err := p.report(ctx, workload{}, p.work, p.runtimes[0], "--profile", path(from, ".profile"), "--bundle", path(to, ""))
						switch {
						case err != nil:
							bad[from] = fmt.Sprintf("%s: %v", all[from].Name, err)
						case r.Verdict != verify.Pass || len(r.Denials) > 0:
							bad[from] = fmt.Sprintf("%s: %s", all[from].Name, r.Reason)
						}
					})
				}
				group.Wait()
				return nil
			})
			if err != nil {
				return err
			}
			var said []string
			for _, b := range bad {
				if b != "" {
					said = append(said, b)
				}
			}
			failed += len(said)
			fmt.Fprintf(p.out, "| %s | %s | %d others | %s |\n", map[bool]string{false: "without cgo", true: "with cgo"}[cgo], h.Name, len(all)-1, strings.Join(append(said, fmt.Sprint(len(said))), "; "))
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d pairs of hosts do not hold", failed)
	}
	return nil
}

// on runs f while this machine is the host.
func on(h lab.Host, f func() error) error {
	leave, err := h.Enter()
	if err != nil {
		return fmt.Errorf("make this machine the host %q: %w", h.Name, err)
	}
	err = f()
	if e := leave(); e != nil {
		return fmt.Errorf("leave the host %q: %w", h.Name, e)
	}
	return err
}
