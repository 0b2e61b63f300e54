// Package tracer records, in the kernel, the system calls of containers.
//
// One set of eBPF programs serves all containers of the host. It is loaded by the first [Start], pinned under bpffs
// so that it outlives the process that started it, and removed by the last [Collect] or [Abort]: while nothing is
// recorded nothing is attached. No process of ours lives beside a container.
//
// What surprises: the pid given to [Start] must be one of the host's pid namespace; a recording belongs to the host
// until it is collected or aborted, also if every process of ours dies; all functions need root. On kernels before
// 6.2 that are built with full preemption, task-local storage can refuse a look-up while the CPU is inside another
// one, which no counter sees; see docs/explanation/architecture.md.
package tracer

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/seccompgen/seccompgen/profile"
)

// Errors that callers tell apart.
var (
	ErrNotRecording = errors.New("not being recorded")
	ErrExists       = errors.New("is being recorded already")
	ErrFull         = errors.New("no room for another recording")
	ErrUnsupported  = errors.New("this host cannot record")
)

// Options are the settings of one recording. They are kept with it, and come back from [List].
type Options struct {
	// Denials watches the calls that the container's filter refuses. It costs all tasks of the host a second
	// tracepoint until the last recording of the host ends.
	Denials bool `json:"denials,omitempty"`
	// Filter says that the container's configuration has a seccomp filter, so that recording must not begin without one.
	Filter bool `json:"filter,omitempty"`
	// Init says that the container's first program is an init, and that the workload is what its child executes. The
	// init's own calls count as the runtime's.
	Init bool `json:"init,omitempty"`
	// Refusals are those of the container's filter. Other denials are another filter's, or none; nil takes all for its own.
	Refusals []profile.Refusal `json:"refusals,omitempty"`
	// Awaited says that somebody waits for the recording: nobody else takes it for stale.
	Awaited bool `json:"awaited,omitempty"`
	// Output is where the hook writes the recording; kept for the user who collects it by hand.
	Output string `json:"output,omitempty"`
	// Hook is what the hook notes for whoever collects in its place.
	Hook json.RawMessage `json:"hook,omitempty"`
	// Header holds what the recording says of itself: runtime, workload, noNewPrivileges.
	Header profile.Recording `json:"header"`
}

// State is how far a recording is.
type State string

// The states of a recording.
const (
	Armed     State = "armed"     // the container's init waits for its filter or its workload
	Recording State = "recording" // tasks are recorded
	Ended     State = "ended"     // no task is left, and nobody has collected: a crash, or a hook about to
)

// Status describes a recording that was not collected yet.
type Status struct {
	ID       string
	Pid      int
	Mount    uint32 // inode number of its mount namespace; 0 if it is the host's
	State    State
	Armed    time.Time // when [Start] was called
	Started  bool      // the workload, or a program that joined, was executed
	Boundary profile.Boundary
	Calls    int    // distinct (phase, ABI, number) so far
	Alive    uint64 // recorded tasks that live
	Denied   int    // distinct denials so far, also those by filters of the workload's own
	Options  Options
}

// Stale reports whether a recording's container was made some time ago and has gone without having been started, so that nobody
// may come to collect it: Podman calls no poststop hook for such a container. While one is left all tasks of the host pay for it.
func (s Status) Stale(grace time.Duration) bool {
	return s.State == Ended && !s.Started && !s.Options.Awaited && time.Since(s.Armed) >= grace
}

// Recorder is what records: [Host], or what stands for it.
type Recorder interface {
	Start(id string, pid int, o Options) error
	Peek(id string) (*profile.Recording, error)
	Collect(id string, keep func(*profile.Recording) error) error
	Abort(id string) error
	List() ([]Status, error)
}

// Host is the recorder of this host: the functions of this package.
type Host struct{}

// Start is [Start].
func (Host) Start(id string, pid int, o Options) error { return Start(id, pid, o) }

// Peek is [Peek].
func (Host) Peek(id string) (*profile.Recording, error) { return Peek(id) }

// Collect is [Collect].
func (Host) Collect(id string, keep func(*profile.Recording) error) error { return Collect(id, keep) }

// Abort is [Abort].
func (Host) Abort(id string) error { return Abort(id) }

// List is [List].
func (Host) List() ([]Status, error) { return List() }

func notRecording(id string) error {
	return fmt.Errorf("container %q: %w", id, ErrNotRecording)
}
