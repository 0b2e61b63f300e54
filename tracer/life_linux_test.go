//go:build amd64

package tracer

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/profile"
)

// TestJoin records processes that join a container, as runc exec does.
func TestJoin(t *testing.T) {
	needRoot(t)
	const read = "read exit_group"
	tests := []struct {
		install, shape, joiner string
		exec                   string
	}{
		{"seccomp", "join", "seccomp", "execve getpid exit_group"},
		{"prctl", "join", "prctl", "execve getpid exit_group"},
		{"seccomp", "join-fork", "seccomp", "execve getpid exit_group"},
		{"seccomp", "join", "none", ""},
		{"seccomp", "plain", "seccomp", ""},
		{"none", "join", "none", "getpid exit_group"},
		{"none", "join-fork", "none", "getpid exit_group"},
		{"none", "join", "seccomp", "execve getpid exit_group"},
	}
	for _, test := range tests {
		for _, denials := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%s/%s/denials=%v", test.install, test.shape, test.joiner, denials), func(t *testing.T) {
				c := newContainer(t, true, nil, test.install, "plain", "await", "")
				c.record(Options{Filter: test.install != "none", Denials: denials}).goOn()
				joiner := newContainer(t, false, c, test.joiner, test.shape, "calls", "39")
				joiner.goOn().wait() // before or after the container's own execve: it makes no difference
				c.in.Close()
				want := result{Boundary: profile.BoundaryFilter, Runtime: "execve", Workload: read, Exec: test.exec}
				if test.install == "none" {
					want.Boundary, want.Runtime = profile.BoundaryExecve, ""
				}
				check(t, c.wait().collect(), want)
			})
		}
	}
}

// TestSharedNamespace records two containers in one mount namespace: who joins it cannot be told to belong to one.
func TestSharedNamespace(t *testing.T) {
	needRoot(t)
	keeper := newContainer(t, true, nil, "none", "plain", "await", "").record(Options{}).goOn()
	a := newContainer(t, true, nil, "none", "plain", "await", "").record(Options{}).goOn()
	b := newContainer(t, true, a, "none", "guest", "await", "").record(Options{}).goOn()
	newContainer(t, false, a, "none", "join", "calls", "39").goOn().wait()
	want := result{Boundary: profile.BoundaryExecve, Workload: "read exit_group", Dropped: map[string]uint64{profile.DropJoin: 1}}
	for _, c := range []*container{a, b} {
		c.in.Close()
		check(t, c.wait().collect(), want)
		want.Dropped = map[string]uint64{profile.DropJoin: 1}
	}
	keeper.in.Close()
	check(t, keeper.wait().collect(), result{Boundary: profile.BoundaryExecve, Workload: "read exit_group"})
}

// TestSharedNamespaceEnds records a container in a mount namespace that two others have shared before.
func TestSharedNamespaceEnds(t *testing.T) {
	needRoot(t)
	home := newContainer(t, true, nil, "none", "plain", "await", "") // not recorded
	keeper := newContainer(t, true, nil, "none", "plain", "await", "").record(Options{}).goOn()
	a := newContainer(t, true, home, "none", "guest", "calls", "").record(Options{})
	newContainer(t, true, home, "none", "guest", "calls", "").record(Options{}).goOn().wait().collect()
	a.goOn().wait().collect()
	c := newContainer(t, true, home, "none", "guest", "await", "").record(Options{}).goOn()
	newContainer(t, false, home, "none", "join", "calls", "39").goOn().wait()
	c.in.Close()
	check(t, c.wait().collect(), result{Boundary: profile.BoundaryExecve, Workload: "read exit_group", Exec: "getpid exit_group"})
	keeper.in.Close()
	keeper.wait().collect()
}

// TestReusedNamespace records a container in a mount namespace that has the number of one whose container has ended,
// and was not collected yet.
func TestReusedNamespace(t *testing.T) {
	needRoot(t)
	old := newContainer(t, true, nil, "none", "plain", "calls", "39").record(Options{})
	number, err := mountNS(old.cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	old.goOn().wait()
	for range 200 { // the kernel gives the lowest number that is free, to whoever comes first
		c := newContainer(t, true, nil, "none", "plain", "await", "")
		if n, err := mountNS(c.cmd.Process.Pid); err != nil {
			t.Fatal(err)
		} else if n != number {
			continue
		}
		c.record(Options{}).goOn()
		newContainer(t, false, c, "none", "join", "calls", "110").goOn().wait()
		check(t, old.collect(), result{Boundary: profile.BoundaryExecve, Workload: "getpid exit_group"})
		newContainer(t, false, c, "none", "join", "calls", "102").goOn().wait()
		c.in.Close()
		check(t, c.wait().collect(), result{Boundary: profile.BoundaryExecve, Workload: "read exit_group", Exec: "getppid getuid exit_group"})
		return
	}
	old.collect()
	t.Log("NOT TESTED this time: others on this host took the number of the old namespace")
}

// TestFifty records fifty containers at once, each of which makes a call of its own.
func TestFifty(t *testing.T) {
	needRoot(t)
	numbers, names := strings.Split(fdCalls, ","), strings.Fields(fdNames)
	var all []*container
	for _, nr := range numbers {
		all = append(all, newContainer(t, true, nil, "seccomp", "plain", "calls", nr).record(Options{Filter: true, Denials: true}))
	}
	if list, err := List(); err != nil || len(list) != len(all) {
		t.Errorf("List gives %d of %d recordings: %v", len(list), len(all), err)
	}
	for _, c := range all {
		c.goOn()
	}
	for i, c := range all {
		check(t, c.wait().collect(), result{Boundary: profile.BoundaryFilter, Runtime: "execve", Workload: names[i] + " exit_group"})
	}
}

// TestBeside lets two containers and a process that is not recorded fork as fast as they can: the kernel gives the stacks
// of their dead to each other's newborn, and each recording must have its own calls and no other.
func TestBeside(t *testing.T) {
	needRoot(t)
	run := func(list string) *container {
		return newContainer(t, true, nil, "seccomp", "plain", "forks", list, "4000")
	}
	a, b, c := run("39,40,1000").record(Options{Filter: true, Denials: true}), run("110,102,48").record(Options{Filter: true}), run("104,107,1001")
	for _, c := range []*container{a, b, c} {
		c.goOn()
	}
	want := result{Boundary: profile.BoundaryFilter, Runtime: "execve", Workload: "fork wait4 exit_group getpid sendfile", Unknown: "1000*1333"}
	check(t, a.wait().collect(), want)
	want.Workload, want.Unknown = "fork wait4 exit_group getppid getuid shutdown", ""
	check(t, b.wait().collect(), want)
	c.wait()
}

// TestLife goes through what can happen to a recording beside its end.
func TestLife(t *testing.T) {
	needRoot(t)
	want := result{Boundary: profile.BoundaryFilter, Runtime: "execve", Workload: "getpid exit_group"}
	c := newContainer(t, false, nil, "seccomp", "plain", "calls", "39")
	began := time.Now()
	o := Options{Filter: true, Output: "/nowhere", Header: profile.Recording{Workload: profile.Workload{Package: "p"}}}
	c.record(o)
	if err := Start(c.id, c.cmd.Process.Pid, Options{}); err != nil {
		t.Errorf("a second Start: %v", err)
	}
	if err := Start(c.id, os.Getpid(), Options{}); !errors.Is(err, ErrExists) {
		t.Errorf("a second Start with another pid: %v", err)
	}
	list, err := List()
	if err != nil {
		t.Fatal(err)
	}
	if len(list) == 1 && (time.Since(list[0].Armed) > time.Since(began)+time.Second || time.Now().Before(list[0].Armed)) {
		t.Errorf("armed at %v, by a Start after %v", list[0].Armed, began)
	}
	if diff := cmp.Diff([]Status{{ID: c.id, Pid: c.cmd.Process.Pid, State: Armed, Options: o}}, list, cmpopts.IgnoreFields(Status{}, "Armed")); diff != "" {
		t.Errorf("List (-want +got):\n%s", diff)
	}
	c.goOn().wait()
	if list, err := List(); err != nil || len(list) != 1 || list[0].State != Ended || !list[0].Started || list[0].Stale(0) {
		t.Errorf("after its end: %+v, %v", list, err)
	}
	r, err := Peek(c.id)
	if err != nil {
		t.Fatal(err)
	}
	check(t, summary(r), want)
	full := errors.New("disk full")
	if err := Collect(c.id, func(*profile.Recording) error { return full }); !errors.Is(err, full) {
		t.Errorf("Collect that cannot be kept: %v", err)
	}
	check(t, c.collect(), want)

	for name, err := range map[string]error{
		"Collect": Collect(c.id, func(*profile.Recording) error { t.Error("there is something to keep"); return nil }),
		"Abort":   Abort(c.id),
		"Peek":    func() error { _, err := Peek(c.id); return err }(),
	} {
		if !errors.Is(err, ErrNotRecording) {
			t.Errorf("%s of what is not recorded: %v", name, err)
		}
	}
	if err := Start("gone", 1<<22+1, Options{}); err == nil || !strings.Contains(err.Error(), "process 4194305") {
		t.Errorf("Start of a process that does not exist: %v", err)
	}
	big := Options{Output: strings.Repeat("x", int(recorderLimitsMETA_SIZE))}
	if err := Start(c.id, os.Getpid(), big); err == nil {
		t.Error("Start keeps more than there is room for")
	}
}

// TestReuse aborts a recording whose tasks live on and records another in its place; then the same process again.
func TestReuse(t *testing.T) {
	needRoot(t)
	want := result{Boundary: profile.BoundaryFilter, Runtime: "execve", Workload: "read getpid exit_group"}
	old := newContainer(t, true, nil, "seccomp", "plain", "await", "110,102").record(Options{Filter: true, Denials: true}).goOn()
	waitFor(t, "the old workload", func() bool {
		r, err := Peek(old.id)
		return err == nil && strings.Contains(summary(r).Workload, "read")
	})
	keeper := newContainer(t, true, nil, "seccomp", "plain", "await", "39").record(Options{Filter: true}).goOn()
	if err := Abort(old.id); err != nil {
		t.Fatal(err)
	}
	c := newContainer(t, true, nil, "seccomp", "plain", "await", "39").record(Options{Filter: true, Denials: true}).goOn()
	old.in.Close()
	old.wait()
	for _, c := range []*container{c, keeper} {
		c.in.Close()
		check(t, c.wait().collect(), want)
	}

	keeper = newContainer(t, true, nil, "seccomp", "plain", "await", "39").record(Options{Filter: true}).goOn()
	c = newContainer(t, true, nil, "seccomp", "twice", "calls", "39").record(Options{Filter: true})
	if _, err := c.in.Write([]byte("g")); err != nil {
		t.Fatal(err)
	}
	c.ready() // and so has made calls as a member
	if err := Abort(c.id); err != nil {
		t.Fatal(err)
	}
	check(t, c.record(Options{Filter: true}).goOn().wait().collect(), result{Boundary: profile.BoundaryFilter, Runtime: "execve", Workload: "getpid exit_group"})
	keeper.in.Close()
	check(t, keeper.wait().collect(), want)
}

// TestAlive collects a container with a task that lives on, which must show.
func TestAlive(t *testing.T) {
	needRoot(t)
	c := newContainer(t, true, nil, "seccomp", "plain", "daemon", "39").record(Options{Filter: true}).goOn()
	if _, err := c.cmd.Process.Wait(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the daemon", func() bool {
		r, err := Peek(c.id)
		return err == nil && strings.Contains(summary(r).Workload, "read")
	})
	check(t, c.collect(), result{
		Boundary: profile.BoundaryFilter, Runtime: "execve", Workload: "fork setsid read wait4 exit_group",
		Dropped: map[string]uint64{profile.DropAlive: 1},
	})
}

// TestWatch counts denials of one container, and not of another, without a call of bpf(2).
func TestWatch(t *testing.T) {
	needRoot(t)
	// clone3 with ENOSYS is an answer after which callers go on.
	rules := []rule{{native, 39, errno(unix.EPERM)}, {native, 435, errno(unix.ENOSYS)}}
	other := newContainer(t, true, nil, "seccomp", "plain", "calls", "39").record(Options{Denials: true, Filter: true})
	c := newContainer(t, true, nil, "seccomp", "plain", "await", "39,435,110,435,39").record(Options{Denials: true, Filter: true})
	denied, err := Watch(c.id)
	if err != nil {
		t.Fatal(err)
	}
	other.goOn(rules...).wait()
	if n := denied(); n != 0 {
		t.Errorf("%d calls look denied before the container has begun", n)
	}
	c.goOn(rules...)
	c.asleep("0")
	if _, err := c.in.Write([]byte{0}); err != nil {
		t.Fatal(err)
	}
	c.wait()
	if n := denied(); n != 2 {
		t.Errorf("%d calls look denied, want 2", n)
	}
	other.collect()
	if got := c.collect(); len(got.Denied) != 2 || !strings.Contains(got.Denied[1], "clone3(435) errno 38 x2") {
		t.Errorf("denied are %q", got.Denied)
	}
	if n := denied(); n != 0 {
		t.Errorf("%d calls look denied after the recording was collected", n)
	}
}
