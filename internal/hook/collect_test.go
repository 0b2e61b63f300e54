package hook

import (
	"bufio"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seccompgen/seccompgen/internal/programs"
	"github.com/seccompgen/seccompgen/internal/recordings"
	"github.com/seccompgen/seccompgen/internal/rootless"
	"github.com/seccompgen/seccompgen/profile"
	"github.com/seccompgen/seccompgen/tracer"
)

// gone is a recorder that has no recording.
type gone struct{}

func (gone) Start(string, int, tracer.Options) error { return nil }

func (gone) Collect(string, func([]profile.Program) programs.Looked, func(*profile.Recording) error) error {
	return tracer.ErrNotRecording
}

// A poststop hook that comes after its recording was collected in its place is told so once; without that it leaves evidence.
func TestCollectedBefore(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	o := &options{dir: w.dir, recorder: gone{}}
	if err := o.inDir(func(dir *recordings.Dir) error { return dir.NoteCollected("c1") }); err != nil {
		t.Fatal(err)
	}
	if err := o.stop(&specs.State{ID: "c2", Bundle: w.bundle}, &target{name: "c2"}); !errors.Is(err, tracer.ErrNotRecording) {
		t.Errorf("of another container: %v", err)
	}
	files := func() (names []string) {
		entries, err := os.ReadDir(w.dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	if err := o.stop(&specs.State{ID: "c1", Bundle: w.bundle}, &target{name: "c1"}); err != nil {
		t.Errorf("after it was collected: %v", err)
	}
	if got := files(); !slices.Equal(got, []string{"c2.json"}) {
		t.Errorf("the directory holds %v", got)
	}
	if err := o.stop(&specs.State{ID: "c1", Bundle: w.bundle}, &target{name: "c1"}); !errors.Is(err, tracer.ErrNotRecording) {
		t.Errorf("the second time: %v", err)
	}
	if got := files(); !slices.Equal(got, []string{"c1.json", "c2.json"}) {
		t.Errorf("the directory holds %v", got)
	}
}

// A service gets the name of a runtime and its version, and no path: it runs as root, and a user chooses the runtime.
func TestRootlessRuntimeIsAName(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	socket := filepath.Join(w.top, "socket")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	sent := make(chan string, 1)
	go func() {
		defer close(sent)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		line, _ := bufio.NewReader(conn).ReadString('\n')
		sent <- line
	}()
	o := &options{recorder: service{&rootless.Client{Socket: socket}}}
	if err := o.start(&specs.State{ID: "c1", Pid: os.Getpid(), Bundle: w.bundle}, &target{file: filepath.Join(w.top, "o.json")}); err == nil {
		t.Error("a service that answers nothing has started a recording")
	}
	var request struct{ Runtime profile.Runtime }
	if line := <-sent; json.Unmarshal([]byte(line), &request) != nil || request.Runtime.Name == "" || strings.Contains(request.Runtime.Name, "/") {
		t.Errorf("the service was sent %s", line)
	}
}
