package e2e

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/profile"
	"github.com/seccompgen/seccompgen/test/lab"
)

// harmless are calls of x86-64 that do nothing when every argument is nonsense.
var harmless = []uint32{
	0, 1, 3, 5, 8, 16, 17, 18, 19, 20, 24, 32, 33, 39, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 54, 55, 72, 73, 74, 75, 77, 81, 91, 93,
	102, 104, 107, 108, 110, 111, 121, 124, 138, 186, 217, 233, 285, 290, 306,
}

// TestFiftyAtOnce: fifty containers that make one call each, a different one, and live at the same time. Each recording
// has exactly its own.
func TestFiftyAtOnce(t *testing.T) {
	needRoot(t)
	lab.NeedTool(t, "flock")
	n := len(harmless)
	if memAvailable(t) < 6<<30 {
		n /= 2
	}
	rootfs := t.TempDir()
	lab.Calls(t, filepath.Join(rootfs, "calls"))
	out := t.TempDir()
	for batch := range slices.Chunk(harmless, n) {
		gate := newGate(t, "start")
		var group sync.WaitGroup
		for _, nr := range batch {
			group.Go(func() {
				cmd := command(t, "record", "-o", filepath.Join(out, fmt.Sprint(nr)), "--hook", gate.hook, "--rootfs", rootfs,
					"--exec", "--", "/calls", "run", "calls", fmt.Sprint(nr))
				if r := finish(t, cmd); r.exit != 0 {
					t.Errorf("record of call %d: %s", nr, r)
				}
			})
		}
		gate.await(t, len(batch))
		if got := len(readStatus(t).Recordings); got != len(batch) {
			t.Errorf("status shows %d recordings, want %d", got, len(batch))
		}
		gate.open(t)
		group.Wait()
	}
	if t.Failed() {
		return
	}
	for _, nr := range harmless {
		r := lab.ReadRecording(t, filepath.Join(out, fmt.Sprint(nr)))
		if err := r.Incomplete(); err != nil {
			t.Errorf("call %d: %v", nr, err)
		}
		want := []string{
			fmt.Sprintf("SCMP_ARCH_X86_64 %d %s", nr, profile.Name("SCMP_ARCH_X86_64", nr)),
			"SCMP_ARCH_X86_64 231 exit_group",
		}
		slices.Sort(want)
		if diff := cmp.Diff(want, calls(r, profile.PhaseWorkload)); diff != "" {
			t.Errorf("call %d: what was made (-) and what was recorded (+) differ:\n%s", nr, diff)
		}
	}
	nothingLeft(t)
}

func memAvailable(t testing.TB) uint64 {
	t.Helper()
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var kb uint64
		if n, _ := fmt.Sscanf(s.Text(), "MemAvailable: %d", &kb); n == 1 {
			return kb << 10
		}
	}
	t.Fatal("/proc/meminfo has no MemAvailable")
	return 0
}

// A gate is a hook that holds its container, after the recording has started or before it is collected, until the gate
// opens. A container that has come says so through a pipe; the gate itself is a file lock, which late comers pass too.
type gate struct {
	hook    string // path of the hook
	hold    string // what a shell does to be held
	arrived *os.File
	lock    *os.File
}

func newGate(t testing.TB, stage string) *gate {
	t.Helper()
	dir := t.TempDir()
	arrived := filepath.Join(dir, "arrived")
	if err := unix.Mkfifo(arrived, 0o600); err != nil {
		t.Fatal(err)
	}
	g := &gate{}
	var err error
	if g.arrived, err = os.OpenFile(arrived, os.O_RDWR, 0); err != nil { // both ends: no open blocks
		t.Fatal(err)
	}
	t.Cleanup(func() { g.arrived.Close() })
	if g.lock, err = os.Create(filepath.Join(dir, "lock")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.lock.Close() })
	if err := unix.Flock(int(g.lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	g.hold = fmt.Sprintf("echo here >%q && flock --shared %q true", arrived, g.lock.Name())
	g.hook = hookScript(t, map[string]string{"start": `start) real "$@" && ` + g.hold, "stop": "stop) " + g.hold + ` && real "$@"`}[stage])
	return g
}

// await waits until n containers are held.
func (g *gate) await(t testing.TB, n int) {
	t.Helper()
	if err := g.arrived.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	s := bufio.NewScanner(g.arrived)
	for ; n > 0 && s.Scan(); n-- {
	}
	if n > 0 {
		g.open(t)
		t.Fatalf("%d containers have not come: %v", n, s.Err())
	}
}

func (g *gate) open(t testing.TB) {
	t.Helper()
	if err := unix.Flock(int(g.lock.Fd()), unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
}

// hookScript wraps oci-hook: cases of a shell's case statement name the stage, start or stop, and say what to do there
// instead of calling real, which is oci-hook with the state on its standard input.
func hookScript(t testing.TB, cases ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hook")
	script := `#!/bin/sh
state=$(cat)
real() { printf %s "$state" | ` + strconv.Quote(filepath.Join(binDir, "oci-hook")) + ` "$@"; }
case $state in
*'"status"'*'"stopped"'*) stage=stop ;;
*) stage=start ;;
esac
case $stage in
`
	for _, c := range cases {
		script += c + " ;;\n"
	}
	script += "*) real \"$@\" ;;\nesac\n"
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}
