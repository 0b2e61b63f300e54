package rootless

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/profile"
	"github.com/seccompgen/seccompgen/tracer"
)

// The users of the tests. Root is a user like others here: what counts is whose a user namespace is.
const (
	nobody  = 65534
	someone = 4242
)

// asUser makes this test binary a client: it starts or collects, and prints what came of it.
const asUser = "SECCOMPGEN_ROOTLESS_CLIENT"

func TestMain(m *testing.M) {
	if os.Getenv(asUser) == "" {
		os.Exit(m.Run())
	}
	c := &Client{os.Args[1]}
	var err error
	if os.Args[2] == "start" {
		var pid int
		_, _ = fmt.Sscan(os.Args[4], &pid) // 0 is refused
		err = c.Start(os.Args[3], pid, options())
	} else {
		err = c.Collect(os.Args[3], func(r *profile.Recording) error { return r.Write(os.Stdout) })
	}
	if err != nil {
		fmt.Println("error:", err)
	}
}

func options() tracer.Options {
	return tracer.Options{Denials: true, Header: profile.Recording{Runtime: profile.Runtime{Name: "runc", Version: "1.1.5"}, Workload: profile.Workload{Args: []string{"/bin/x"}}}}
}

// fake is a recorder that keeps what it is told.
type fake struct {
	mu    sync.Mutex
	all   map[string]tracer.Status
	alive int // looks until the last task has gone
}

func (f *fake) set(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

func (f *fake) Start(id string, pid int, o tracer.Options) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.all[id]; ok {
		return tracer.ErrExists
	}
	f.all[id] = tracer.Status{ID: id, Pid: pid, State: tracer.Armed, Options: o}
	return nil
}

func (f *fake) Peek(id string) (*profile.Recording, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, ok := f.all[id]
	if !ok {
		return nil, fmt.Errorf("container %q: %w", id, tracer.ErrNotRecording)
	}
	r := s.Options.Header
	r.ID, r.Complete = id, true
	r.Runs = []profile.Run{{ID: id, Exit: -1}}
	for _, phase := range []profile.Phase{profile.PhaseWorkload, profile.PhaseExec} {
		r.Syscalls = append(r.Syscalls, profile.Syscall{Phase: phase, ABI: "SCMP_ARCH_X86_64", Nr: 39, Runs: []string{id}, Callers: []profile.Caller{{Comm: "x"}}})
	}
	if f.alive > 0 {
		f.alive--
		r.Drop(profile.DropAlive, 1)
	}
	if s.State == tracer.Ended {
		r.Drop(profile.DropNotStarted, 1)
	}
	return &r, nil
}

func (f *fake) Abort(id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.all[id]; !ok {
		return tracer.ErrNotRecording
	}
	delete(f.all, id)
	return nil
}

func (f *fake) Collect(string, func(*profile.Recording) error) error { return errors.ErrUnsupported }

func (f *fake) List() (list []tracer.Status, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.all {
		list = append(list, s)
	}
	return list, nil
}

func (f *fake) ids() (ids []string) {
	list, _ := f.List()
	for _, s := range list {
		ids = append(ids, s.ID)
	}
	slices.Sort(ids)
	return ids
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: only root can be several users")
	}
}

// service starts a service over a recorder that is none.
func service(t *testing.T, gid int) (*fake, string) {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	for d := dir; d != os.TempDir(); d = filepath.Dir(d) { // TempDir's own are for their maker alone
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	socket := filepath.Join(dir, "run/rootless.sock")
	l, err := Listen(socket, gid)
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{all: map[string]tracer.Status{}}
	s := New(slog.New(slog.NewTextHandler(io.Discard, nil)))
	s.tracer = f
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return f, socket
}

// sleeper starts a process of a user's in as many user namespaces, and returns its pid.
func sleeper(t *testing.T, uid uint32, namespaces int) int {
	t.Helper()
	args := append(slices.Repeat([]string{"unshare", "--user", "--map-root-user"}, namespaces), "sh", "-c", "echo $$; exec sleep 1000")
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	var pid int
	if _, scanErr := fmt.Sscan(line, &pid); err != nil || scanErr != nil {
		t.Fatalf("the process said %q, %v", line, err)
	}
	return pid
}

// client runs a client as a user, and returns what it printed.
func client(t *testing.T, uid uint32, socket string, args ...string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(filepath.Dir(socket), "client") // go test's own directory is for root alone
	if data, err := os.ReadFile(self); err != nil || os.WriteFile(exe, data, 0o755) != nil {
		t.Fatal(err)
	}
	defer os.Remove(exe)
	cmd := exec.CommandContext(t.Context(), exe, append([]string{socket}, args...)...)
	cmd.Dir, cmd.Env = "/", []string{asUser + "=1"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestOwnedBy(t *testing.T) {
	needRoot(t)
	one, three, rootsOwn, none := sleeper(t, nobody, 1), sleeper(t, nobody, 3), sleeper(t, 0, 1), sleeper(t, nobody, 0)
	for _, c := range []struct {
		pid  int
		uid  uint32
		want string // of the error
	}{
		{one, nobody, ""},
		{three, nobody, ""},
		{rootsOwn, 0, ""},
		{one, someone, "belongs to user 65534, not to 4242"},
		{three, 0, "belongs to user 65534, not to 0"},
		{rootsOwn, nobody, "belongs to user 0, not to 65534"},
		{none, nobody, "in no user namespace of its own"},
		{os.Getpid(), 0, "in no user namespace of its own"},
		{1 << 30, nobody, "no such file"},
	} {
		err := ownedBy(c.pid, c.uid)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("process %d for user %d: got %v, want %q", c.pid, c.uid, err, c.want)
		}
	}
}

// A user's container is recorded, and the recording goes to that user alone.
func TestService(t *testing.T) {
	f, socket := service(t, -1)
	f.set(func() { f.alive = 3 })
	pid := fmt.Sprint(sleeper(t, nobody, 1))
	if said := client(t, nobody, socket, "start", "c1", pid); said != "" {
		t.Fatal(said)
	}
	list, _ := f.List()
	if s := list[0]; s.ID != "65534@c1" || fmt.Sprint(s.Pid) != pid || !s.Options.Denials || s.Options.Filter || s.Options.Header.Runtime.Version != "1.1.5" || s.Options.Header.Workload.Args[0] != "/bin/x" {
		t.Errorf("got %+v", s)
	}
	for _, uid := range []uint32{someone, 0} {
		if said := client(t, uid, socket, "collect", "c1"); !strings.Contains(said, "not being recorded") {
			t.Errorf("user %d was told %s", uid, said)
		}
	}
	r, err := profile.ReadRecording(strings.NewReader(client(t, nobody, socket, "collect", "c1")))
	if err != nil || r.ID != "c1" || r.Runs[0].ID != "c1" || !r.Complete || r.Runtime.Name != "runc" || len(r.Syscalls) != 2 {
		t.Fatalf("got %+v, %v", r, err)
	}
	for _, c := range r.Syscalls {
		if (c.Callers == nil) != (c.Phase == profile.PhaseExec) || c.Runs[0] != "c1" {
			t.Errorf("got %+v", c)
		}
	}
	if len(f.ids()) > 0 {
		t.Errorf("left: %q", f.ids())
	}
}

func TestRefusals(t *testing.T) {
	f, socket := service(t, -1)
	mine, roots := sleeper(t, nobody, 1), sleeper(t, 0, 1)
	for _, c := range []struct {
		id   string
		pid  int
		want string
	}{
		{"c1", roots, "belongs to user 0"},
		{"c1", os.Getpid(), "in no user namespace"},
		{"../c1", mine, "is not one"},
		{"4242@c1", mine, "is not one"},
		{"", mine, "is not one"},
		{"c1", 1, "has ended"}, // or is one that a service must not see
		{"c1", 1 << 30, "no such process"},
	} {
		if said := client(t, nobody, socket, "start", c.id, fmt.Sprint(c.pid)); !strings.Contains(said, c.want) {
			t.Errorf("%q, %d: got %q, want %q", c.id, c.pid, said, c.want)
		}
	}
	if len(f.ids()) > 0 {
		t.Errorf("recorded: %q", f.ids())
	}
	// Of what hooks do not send.
	pidfd := func(pid int) int {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		return fd
	}
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	start := `{"version":1,"do":"start","id":"c1","runtime":{"name":"runc"}}` + "\n"
	for text, c := range map[string]struct {
		fds  []int
		want string
	}{
		start: {nil, "0 descriptors"},
		strings.Replace(start, "runc", "/tmp/evil", 1):    {[]int{pidfd(roots)}, "is not a name"},
		strings.Replace(start, "runc", "tmp/evil", 1):     {[]int{pidfd(roots)}, "is not a name"},
		strings.Replace(start, `"c1"`, `"c2"`, 1):         {[]int{int(null.Fd())}, "not a pidfd"},
		strings.Replace(start, `"c1"`, `"c3"`, 1):         {[]int{pidfd(roots), pidfd(roots)}, "too many descriptors"},
		strings.Replace(start, `:1`, `:2`, 1):             {nil, "of one release"},
		strings.Replace(start, `"id"`, `"uid":0,"id"`, 1): {[]int{pidfd(roots)}, "unknown field"},
		`{"version":1,"do":"abort","id":"c1"}` + "\n":     {nil, "is not known"},
		`{"version":1,"do":"kept","id":"c1"}` + "\n":      {nil, "is not known"},
		"no JSON\n": {nil, "decode the request"},
		`{"version":1,"id":"` + strings.Repeat("a", 2*maxRequest) + "\"}\n": {nil, "larger than"},
	} {
		conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		var oob []byte
		if c.fds != nil {
			oob = unix.UnixRights(c.fds...)
		}
		if _, _, err := conn.WriteMsgUnix([]byte(text), oob, nil); err != nil && len(text) < maxRequest {
			t.Error(err)
		}
		// One that sent too much may see its connection end before it reads why.
		if said, err := io.ReadAll(conn); !strings.Contains(string(said), c.want) && (len(text) < maxRequest || err == nil) {
			t.Errorf("%.80q: got %q, %v, want %q", text, said, err, c.want)
		}
		conn.Close()
	}
	if len(f.ids()) > 0 {
		t.Errorf("recorded: %q", f.ids())
	}
}

// A recording that the hook could not keep stays, and one user's many do not keep others from theirs.
func TestKeptAndLimits(t *testing.T) {
	f, socket := service(t, -1)
	pid := sleeper(t, 0, 1)
	c := &Client{socket}
	if err := c.Start("c1", pid, options()); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("no space")
	if err := c.Collect("c1", func(*profile.Recording) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if !slices.Equal(f.ids(), []string{"0@c1"}) {
		t.Fatalf("left: %q", f.ids())
	}
	if err := c.Collect("c1", func(*profile.Recording) error { return nil }); err != nil {
		t.Error(err)
	}
	if err := c.Collect("c1", func(*profile.Recording) error { return nil }); !errors.Is(err, tracer.ErrNotRecording) {
		t.Errorf("got %v", err)
	}
	for i := range userRecordings {
		if err := c.Start(fmt.Sprint("many", i), pid, options()); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Start("more", pid, options()); !errors.Is(err, tracer.ErrFull) {
		t.Errorf("got %v", err)
	}
	if said := client(t, nobody, socket, "start", "c1", fmt.Sprint(sleeper(t, nobody, 1))); said != "" {
		t.Error(said)
	}
	// One that never started, long ago, makes room.
	f.set(func() {
		gone := f.all["0@many0"]
		gone.State = tracer.Ended
		gone.Armed = time.Now().Add(-2 * staleAfter)
		f.all["0@many0"] = gone
	})
	if err := c.Start("more", pid, options()); err != nil || slices.Contains(f.ids(), "0@many0") {
		t.Errorf("got %v", err)
	}
}
