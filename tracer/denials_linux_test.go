//go:build amd64

package tracer

import (
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/profile"
)

func errno(e syscall.Errno) uint32 { return 0x00050000 | uint32(e) }

// TestDenials watches what filters refuse.
func TestDenials(t *testing.T) {
	needRoot(t)
	const (
		nargs = "[ffffffffffffffff 101 102 103 104 105]"
		cargs = "[ffffffff 101 102 103 104 105]"
	)
	tests := []struct {
		name     string
		args     []string
		rules    []rule
		runtime  string
		workload string
		denied   []string
	}{
		{
			"errno",
			[]string{"calls", "39,110,39"},
			[]rule{{native, 39, errno(unix.EPERM)}},
			"execve", "getppid exit_group",
			[]string{"1: workload getpid(39) errno 1 x2 " + nargs + " calls"},
		},
		{
			"order",
			[]string{"calls", "102,39,104,102"},
			[]rule{{native, 39, errno(unix.EPERM)}, {native, 102, errno(unix.ENOSYS)}, {native, 104, errno(0)}},
			"execve", "exit_group",
			[]string{
				"1: workload getuid(102) errno 38 x2 " + nargs + " calls",
				"2: workload getpid(39) errno 1 x1 " + nargs + " calls",
				"3: workload getgid(104) errno 0 x1 " + nargs + " calls",
			},
		},
		{
			"number 0 with errno 0, number -1 with errno 1",
			[]string{"calls", "0,-1,-38"},
			[]rule{{native, 0, errno(0)}, {native, 0xffffffff, errno(1)}, {native, 0xffffffda, errno(38)}},
			"execve", "exit_group",
			[]string{
				"1: workload read(0) errno 0 x1 " + nargs + " calls",
				"2: workload (-1) errno 1 x1 [ffffffffffffffff 101 102 103 104 105] calls",
				"3: workload (-38) errno 38 x1 [ffffffffffffffff 101 102 103 104 105] calls",
			},
		},
		{
			"number 0 trapped",
			[]string{"fork", "0"},
			[]rule{{native, 0, trap}},
			"execve", "fork wait4 exit_group",
			[]string{"1: workload read(0) trap 0 x1 " + nargs + " calls"},
		},
		{
			"i386",
			[]string{"calls", "i20,20,39,i39"},
			[]rule{{compat, 20, errno(unix.EACCES)}, {native, 39, errno(unix.ENOSYS)}, {native, 20, errno(unix.EPERM)}},
			"execve", "i386:mkdir exit_group",
			[]string{
				"1: workload i386:getpid(20) errno 13 x1 " + cargs + " calls",
				"2: workload writev(20) errno 1 x1 " + nargs + " calls",
				"3: workload getpid(39) errno 38 x1 " + nargs + " calls",
			},
		},
		{
			"x32",
			[]string{"calls", "1073741863,39"},
			[]rule{{native, 0x40000027, errno(unix.EPERM)}},
			"execve", "getpid exit_group",
			[]string{"1: workload x32:getpid(39) errno 1 x1 " + nargs + " calls"},
		},
		{
			"trap kills",
			[]string{"fork", "39,110"},
			[]rule{{native, 39, trap}},
			"execve", "fork wait4 exit_group",
			[]string{"1: workload getpid(39) trap 0 x1 " + nargs + " calls"},
		},
		{
			"trap is handled",
			[]string{"handled", "39,110,39"},
			[]rule{{native, 39, trap}},
			"execve", "rt_sigaction rt_sigreturn getppid exit_group",
			[]string{"1: workload getpid(39) trap 0 x2 " + nargs + " calls"},
		},
		{
			"i386 trap",
			[]string{"fork", "i20,110"},
			[]rule{{compat, 20, trap}},
			"execve", "fork wait4 exit_group",
			[]string{"1: workload i386:getpid(20) trap 0 x1 " + cargs + " calls"},
		},
		{
			"kill process",
			[]string{"fork", "39,110"},
			[]rule{{native, 39, killProcess}},
			"execve", "fork wait4 exit_group",
			[]string{"1: workload getpid(39) kill 0 x1 " + nargs + " calls"},
		},
		{
			"kill the container",
			[]string{"calls", "110,39,102"},
			[]rule{{native, 39, killProcess}},
			"execve", "getppid",
			[]string{"1: workload getpid(39) kill 0 x1 " + nargs + " calls"},
		},
		{
			"kill the only thread",
			[]string{"fork", "39,110"},
			[]rule{{native, 39, killThread}},
			"execve", "fork wait4 exit_group",
			[]string{"1: workload getpid(39) kill 0 x1 " + nargs + " calls"},
		},
		{
			"kill a thread beside others",
			[]string{"threads", "39,110", "3"},
			[]rule{{native, 39, killThread}},
			"execve", "clone exit_group",
			[]string{"1: workload getpid(39) kill 0 x3 " + nargs + " calls"},
		},
		{
			"i386 kill a thread beside others",
			[]string{"threads", "i20,110", "3"},
			[]rule{{compat, 20, killThread}},
			"execve", "clone exit_group",
			[]string{"1: workload i386:getpid(20) kill 0 x3 " + cargs + " calls"},
		},
		{
			"kill the process of a thread",
			[]string{"threads", "39,110", "1"},
			[]rule{{native, 39, killProcess}},
			"execve", "clone",
			[]string{"1: workload getpid(39) kill 0 x1 " + nargs + " calls"},
		},
		{
			"in children",
			[]string{"forks", "39,110", "500"},
			[]rule{{native, 39, errno(unix.EPERM)}},
			"execve", "fork wait4 getppid exit_group",
			[]string{"1: workload getpid(39) errno 1 x250 " + nargs + " calls"},
		},
		{
			"by another name",
			[]string{"renamed", "39"},
			[]rule{{native, 39, errno(unix.EPERM)}},
			"execve", "prctl exit_group",
			[]string{"1: workload getpid(39) errno 1 x1 " + nargs + " runc:[2:INIT]"},
		},
		{
			"last of a thread",
			[]string{"threads", "110,39", "5"},
			[]rule{{native, 39, errno(unix.EPERM)}},
			"execve", "clone getppid exit exit_group",
			[]string{"1: workload getpid(39) errno 1 x5 " + nargs + " calls"},
		},
	}
	for _, install := range []string{"seccomp", "prctl", "tsync"} {
		for _, test := range tests {
			t.Run(test.name+"/"+install, func(t *testing.T) {
				needCompat(t, test.args...)
				other := newContainer(t, true, nil, "seccomp", "plain", "fork", "39") // wants no denials, and has some
				other.record(Options{Filter: true})
				c := newContainer(t, false, nil, append([]string{install, "plain"}, test.args...)...)
				c.record(Options{Denials: true, Filter: true}).goOn(test.rules...).wait()
				other.goOn(test.rules...).wait()
				check(t, c.collect(), result{Boundary: profile.BoundaryFilter, Runtime: test.runtime, Workload: test.workload, Denied: test.denied})
				if r := other.collect(); r.Denied != nil || r.Incomplete {
					t.Errorf("the container beside has denials: %+v", r)
				}
			})
		}
	}
}

// TestOwnFilter runs a workload with a filter of its own: what that refuses is told from what the container's refuses.
func TestOwnFilter(t *testing.T) {
	needRoot(t)
	rules := []rule{{native, 39, errno(unix.EPERM)}}
	tests := []struct {
		name, mode string
		refusals   []profile.Refusal
		denied     []string
		own        []bool
		dropped    map[string]uint64
	}{
		{"both", "own", []profile.Refusal{{Action: "errno", Errno: 1}}, []string{"getpid", "getuid"}, []bool{false, true}, nil},
		{"refusals that are not known", "own", nil, []string{"getpid", "getuid"}, []bool{false, false}, nil},
		{"another filter than the container's cannot have been", "calls", []profile.Refusal{{Action: "errno", Errno: 38}}, nil, nil, map[string]uint64{profile.DropEntry: 1}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := newContainer(t, false, nil, "seccomp", "plain", test.mode, "39,102,110")
			c.record(Options{Denials: true, Filter: true, Refusals: test.refusals}).goOn(rules...).wait()
			err := Collect(c.id, func(r *profile.Recording) error {
				var denied []string
				var own []bool
				for _, s := range r.Syscalls {
					if s.Denied != nil {
						denied, own = append(denied, s.Name), append(own, s.Denied.Own)
					}
				}
				if diff := cmp.Diff(test.denied, denied) + cmp.Diff(test.own, own) + cmp.Diff(test.dropped, r.Dropped); diff != "" {
					t.Error(diff)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestDeniedInit denies calls of the runtime: its execve, the first call of a thread that came under the filter in its sleep.
func TestDeniedInit(t *testing.T) {
	needRoot(t)
	c := newContainer(t, false, nil, "seccomp", "plain", "calls", "39").record(Options{Denials: true, Filter: true})
	r := c.goOn(rule{native, 59, errno(unix.EACCES)}).wait().collect()
	if len(r.Denied) != 1 || !strings.HasPrefix(r.Denied[0], "1: oci-runtime execve(59) errno 13 x1 [") {
		t.Errorf("denied: %q", r.Denied)
	}
	r.Denied = nil
	check(t, r, result{Boundary: profile.BoundaryFilter, Runtime: "exit_group", Dropped: map[string]uint64{profile.DropNotStarted: 1}})

	c = newContainer(t, false, nil, "tsync", "sleeper", "calls", "39")
	c.asleep("0")
	c.record(Options{Denials: true, Filter: true})
	check(t, c.goOn(rule{native, unix.SYS_GETPGRP, errno(unix.EPERM)}).wait().collect(), result{
		Boundary: profile.BoundaryFilter, Runtime: "write execve", Workload: "getpid exit_group",
		Denied: []string{"1: oci-runtime getpgrp(111) errno 1 x1 [0 0 0 0 0 0] calls"},
	})
}

// TestRestart stops and continues a process in its call: the kernel restarts it by itself.
func TestRestart(t *testing.T) {
	needRoot(t)
	c := newContainer(t, false, nil, "seccomp", "plain", "restart", "39").record(Options{Denials: true, Filter: true}).goOn()
	pid := c.cmd.Process.Pid
	c.asleep("7")
	for range 3 {
		if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		var status unix.WaitStatus
		if _, err := unix.Wait4(pid, &status, unix.WUNTRACED, nil); err != nil || !status.Stopped() {
			t.Fatalf("wait for the stop: %v %v", status, err)
		}
		if err := unix.Kill(pid, unix.SIGCONT); err != nil {
			t.Fatal(err)
		}
		c.asleep("219")
	}
	c.in.Close()
	check(t, c.wait().collect(), result{Boundary: profile.BoundaryFilter, Runtime: "execve", Workload: "poll restart_syscall getpid exit_group"})
}
