//go:build amd64

package tracer

import (
	"maps"
	"testing"
)

// TestByPerf records by way of perf events, as newer kernels need it, what other tests record by raw tracepoints.
func TestByPerf(t *testing.T) {
	needRoot(t)
	was := preemptible
	preemptible = func() bool { return true }
	defer func() { preemptible = was }()
	t.Run("arguments", TestArguments)
	t.Run("denials", TestDenials)
	t.Run("join", TestJoin)
	t.Run("beside", TestBeside)
	t.Run("life", TestLife)
}

func TestLost(t *testing.T) {
	before := map[string]uint64{"sched_process_fork": 7, "sched_process_exec": 1, "sched_process_exit": 0, "sys_enter": 3, "sys_exit": 2}
	tests := []struct {
		name    string
		grown   map[string]uint64
		byPerf  bool
		denials bool
		want    uint64
	}{
		{"nothing", nil, true, true, 0},
		{"entries", map[string]uint64{"sys_enter": 4}, false, false, 1},
		{"exits without denials", map[string]uint64{"sys_exit": 9}, true, false, 0},
		{"exits with denials", map[string]uint64{"sys_exit": 9}, true, true, 7},
		{"forks", map[string]uint64{"sched_process_fork": 9}, false, false, 2},
		{"forks of which one program of the two was skipped", map[string]uint64{"sched_process_fork": 9}, true, false, 0},
		{"forks of which both may have been", map[string]uint64{"sched_process_fork": 9, "task_newtask": 1}, true, false, 1},
		{"ends of tasks", map[string]uint64{"sched_process_exit": 2, "sched_process_exec": 2}, true, false, 3},
	}
	for _, test := range tests {
		now := maps.Clone(before)
		maps.Copy(now, test.grown)
		if got := lost(before, now, test.byPerf, test.denials); got != test.want {
			t.Errorf("%s: %d events may be lost, want %d", test.name, got, test.want)
		}
	}
}

func TestKernelVersion(t *testing.T) {
	for release, want := range map[string][2]int{"6.18.44-fc": {6, 18}, "7.2.13+deb": {7, 2}, "5.10.0": {5, 10}, "7.3-rc7-amd64": {7, 3}, "next": {0, 0}} {
		if major, minor := kernelVersion(release); [2]int{major, minor} != want {
			t.Errorf("release %s: version %d.%d, want %v", release, major, minor, want)
		}
	}
}
