package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seccompgen/seccompgen/internal/scmp"
	"github.com/seccompgen/seccompgen/profile"
)

// TestLevelsOfBinaries: for real programs each policy allows all that the one before it does, and the last one all that the
// machine code can call, but for what is dangerous; the filter that libseccomp makes of it is the one that is meant.
func TestLevelsOfBinaries(t *testing.T) {
	dir := t.TempDir()
	source := filepath.Join(dir, "main.go")
	if err := os.WriteFile(source, []byte(anything), 0o600); err != nil {
		t.Fatal(err)
	}
	server, err := filepath.Abs("../../testdata/server/main.go")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		source, goarch, flag string
		alone                bool // can be built without a recording
	}{
		"anything amd64": {source, "amd64", "-ldflags=-s -w", true},
		"anything arm64": {source, "arm64", "-ldflags=", true},
		"anything 386":   {source, "386", "-ldflags=", true},
		"server amd64":   {server, "amd64", "-ldflags=", true},
		"server arm64":   {server, "arm64", "-ldflags=-s -w", true},
		"server pie":     {server, "amd64", "-buildmode=pie", false},
	} {
		t.Run(name, func(t *testing.T) {
			binary := filepath.Join(t.TempDir(), "binary")
			cmd := exec.Command("go", "build", c.flag, "-o", binary, c.source)
			cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off", "CGO_ENABLED=0", "GOARCH="+c.goarch)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("go build: %v\n%s", err, out)
			}
			b, err := analyze(binary)
			if err != nil || len(b.Incomplete()) > 0 {
				t.Fatal(err, b.Incomplete())
			}
			r := &profile.Recording{
				Version: profile.RecordingVersion, ID: "a", Complete: true, Kernel: "6.18.0", Boundary: profile.BoundaryFilter, Runtime: profile.Runtime{Name: "crun"},
				Runs: []profile.Run{{ID: "1"}}, Programs: []profile.Program{b.Program},
			}
			for i, call := range b.Static.Reachable { // a third of them was seen
				if i%3 == 0 && profile.AskFirst(call.Name) == "" && call.Name != "socketcall" {
					r.Syscalls = append(r.Syscalls, profile.Syscall{Phase: profile.PhaseWorkload, ABI: call.ABI, Nr: call.Nr, Runs: []string{"1"}})
				}
			}
			o := profile.BuildOptions{Binaries: []profile.Binary{b}}
			var less, more *specs.LinuxSeccomp
			for _, o.Policy = range []profile.Policy{profile.PolicyExact, profile.PolicyRobust, profile.PolicyReachable} {
				if more, _, err = profile.Build([]*profile.Recording{r}, o); err != nil {
					t.Fatal(err)
				}
				if less != nil {
					for _, change := range profile.Diff(less, more, b.Static.Reachable[0].ABI).Changes {
						if change.Kind == profile.Narrower {
							t.Errorf("%s is narrower for %s: %s, %s", o.Policy, change.Name, change.Old, change.New)
						}
					}
				}
				less = more
			}
			o.For = []string{"runc", "crun"}
			alone, _, err := profile.Build(nil, o)
			if (err == nil) != c.alone {
				t.Fatalf("without a recording: %v", err)
			}
			for _, p := range []*specs.LinuxSeccomp{more, alone} {
				if p == nil {
					continue
				}
				for _, call := range b.Static.Reachable {
					if got, dangerous := slices.Contains(profile.Allowed(p), call.Name), profile.AskFirst(call.Name) != ""; got == dangerous {
						t.Errorf("%s, which %v make, is allowed: %t", call.Name, call.Functions, got)
					}
				}
				for _, stub := range []bool{false, true} {
					if wrong, err := scmp.Check(p, stub); err != nil || len(wrong) > 0 {
						t.Errorf("%v, %v", wrong, err)
					}
				}
			}
		})
	}
}
