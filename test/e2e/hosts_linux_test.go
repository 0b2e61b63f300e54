package e2e

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seccompgen/seccompgen/test/lab"
)

// hostRoot is a root file system of testdata/hosts without cgo, for the bundles of a test.
func hostRoot(t *testing.T) string {
	t.Helper()
	needRoot(t)
	lab.NeedTool(t, "runc")
	root := t.TempDir()
	if err := lab.HostRoot(root, false); err != nil {
		t.Fatal(err)
	}
	return root
}

func hostBundle(t *testing.T, root, host string, modes ...string) string {
	t.Helper()
	i := slices.IndexFunc(lab.Hosts, func(h lab.Host) bool { return h.Name == host })
	if i < 0 {
		t.Fatalf("no host is called %q", host)
	}
	dir := filepath.Join(t.TempDir(), fmt.Sprint(i))
	if err := lab.Hosts[i].Bundle(dir, root, modes...); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestHosts: what is recorded on one of these hosts is enough on the other, and would not be without what the robust policy
// adds. make hosts has all pairs.
func TestHosts(t *testing.T) {
	root := hostRoot(t)
	for _, c := range []struct {
		from, to string
		modes    []string
		denied   string // with the exact policy's arguments of this call; empty: nothing need be
	}{
		{"usual", "no multipath", []string{"listen"}, "socket"},
		{"no multipath", "usual", []string{"listen", "serve"}, ""},
		{"no IPv6 in the kernel", "usual", []string{"serve"}, "setsockopt"},
		{"usual", "no IPv6 in the kernel", []string{"serve"}, ""},
		{"usual", "no vDSO", []string{"work"}, ""},
		{"one processor", "GOGC=1", []string{"work"}, ""},
	} {
		t.Run(c.from+", "+c.to, func(t *testing.T) {
			dir := t.TempDir()
			recording, to := filepath.Join(dir, "recording.json"), hostBundle(t, root, c.to, c.modes...)
			seccompgen(t, 0, "record", "-o", recording, "--bundle", hostBundle(t, root, c.from, c.modes...))
			robust := filepath.Join(dir, "robust.json")
			seccompgen(t, 0, "build", "-o", robust, recording)
			if said := seccompgen(t, 0, "verify", "--profile", robust, "--bundle", to).stdout; !strings.HasPrefix(said, "pass: no denials") {
				t.Errorf("robust: %s", said)
			}
			if c.denied == "" {
				return
			}
			exact := filepath.Join(dir, "exact.json")
			seccompgen(t, 0, "build", "--policy", "exact", "-o", exact, recording)
			seccompgen(t, 2, "verify", "--profile", exact, "--bundle", to)
			mixed := writeProfile(t, withRulesOf(readProfile(t, robust), readProfile(t, exact), c.denied))
			if said := seccompgen(t, 2, "verify", "--profile", mixed, "--bundle", to).stdout; !strings.Contains(said, "fail: "+c.denied+" was denied") {
				t.Errorf("with the exact arguments of %s:\n%s", c.denied, said)
			}
		})
	}
}

// withRulesOf returns a profile with another's rules of one call.
func withRulesOf(p, other *specs.LinuxSeccomp, call string) *specs.LinuxSeccomp {
	of := func(s specs.LinuxSyscall) bool { return slices.Equal(s.Names, []string{call}) }
	mixed := *p
	mixed.Syscalls = slices.DeleteFunc(slices.Clone(p.Syscalls), of)
	for _, s := range other.Syscalls {
		if of(s) {
			mixed.Syscalls = append(mixed.Syscalls, s)
		}
	}
	return &mixed
}
