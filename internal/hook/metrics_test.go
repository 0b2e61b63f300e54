package hook

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestCount(t *testing.T) {
	path := filepath.Join(t.TempDir(), "seccompgen.prom")
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := count(path, "never started"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	// An event of the hook's own.
	if err := Run([]string{"--metrics", path}, strings.NewReader(`{"ociVersion":"1.0","id":"c1","status":"creating","pid":4194304,"bundle":"/b","annotations":{"dev.seccompgen.record":"../x"}}`), &strings.Builder{}); err == nil {
		t.Error("a bad name is taken")
	}
	want := `# HELP seccompgen_hook_events_total What the hooks of seccompgen did.
# TYPE seccompgen_hook_events_total counter
seccompgen_hook_events_total{event="recorded"} 0
seccompgen_hook_events_total{event="refused"} 1
seccompgen_hook_events_total{event="failed"} 0
seccompgen_hook_events_total{event="unrecorded"} 0
seccompgen_hook_events_total{event="never_started"} 20
`
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("got %s, %v", got, err)
	}
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{fifo, filepath.Join(t.TempDir(), "no/such")} {
		if err := count(path, "failed"); err == nil {
			t.Errorf("a counter is written to %s", path)
		}
	}
}

func TestRefuses(t *testing.T) {
	for _, c := range []struct {
		filter specs.LinuxSeccomp
		want   bool
	}{
		{specs.LinuxSeccomp{DefaultAction: specs.ActAllow}, false},
		{specs.LinuxSeccomp{DefaultAction: specs.ActLog, Syscalls: []specs.LinuxSyscall{{Action: specs.ActAllow}}}, false},
		{specs.LinuxSeccomp{DefaultAction: specs.ActErrno}, true},
		{specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Action: specs.ActAllow}, {Action: specs.ActKillProcess}}}, true},
	} {
		if got := refuses(&c.filter); got != c.want {
			t.Errorf("%+v: got %v", c.filter, got)
		}
	}
}
