package profile

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// RecordingVersion is the version of recording.json that this package writes. It reads version 1 too.
const RecordingVersion = 2

// ErrIncomplete says that evidence is missing, and that a profile made from it would be too thin.
var ErrIncomplete = errors.New("recording is incomplete")

// Phase says when in a container's life a call was made.
type Phase string

// The phases of a container.
const (
	PhaseRuntime  Phase = "oci-runtime" // the filter is installed, the workload not yet executed: the OCI runtime's own calls
	PhaseWorkload Phase = "workload"    // from the workload's execve on
	PhaseExec     Phase = "exec"        // processes that joined the container later, as with runc exec
)

// Phases returns all phases in the order of a container's life.
func Phases() []Phase { return []Phase{PhaseRuntime, PhaseWorkload, PhaseExec} }

// Boundary says where recording began.
type Boundary string

// The boundaries. BoundaryNone means that the container never came to either.
const (
	BoundaryNone   Boundary = ""
	BoundaryFilter Boundary = "filter" // at the installation of the container's filter: exact
	BoundaryExecve Boundary = "execve" // at the workload's execve: the runtime's calls under a filter are not in it
)

// Recording is the evidence of one or more runs of the same workload under the same runtime. docs/reference/recording.md
// describes the file.
type Recording struct {
	Version         int               `json:"version"`
	ID              string            `json:"id"`
	Complete        bool              `json:"complete"`
	Dropped         map[string]uint64 `json:"dropped,omitempty"`
	Runtime         Runtime           `json:"runtime"`
	Kernel          string            `json:"kernel"`
	Boundary        Boundary          `json:"boundary"`
	NoNewPrivileges bool              `json:"noNewPrivileges"`
	Capabilities    []string          `json:"capabilities,omitzero"` // the process's bounding set, sorted; nil if it is not known
	Workload        Workload          `json:"workload"`
	Tests           map[string]string `json:"tests,omitempty"`
	Runs            []Run             `json:"runs"`
	Programs        []Program         `json:"programs,omitempty"`
	Syscalls        []Syscall         `json:"syscalls"`
	Unknown         []Unknown         `json:"unknown,omitempty"`
}

// Runtime is the OCI runtime that made the container.
type Runtime struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
}

// Workload is what ran in the container.
type Workload struct {
	Package string   `json:"package,omitempty"`
	Module  string   `json:"module,omitempty"`
	Go      string   `json:"go,omitempty"`
	SHA256  string   `json:"sha256,omitempty"`
	Args    []string `json:"args"`
	User    string   `json:"user,omitempty"`
	// Packages are those of a recording of several: Package and SHA256 are empty then, and Args are what all of them were given.
	Packages []Package `json:"packages,omitempty"`
}

// Package is one of several packages whose tests ran.
type Package struct {
	Path   string `json:"path"` // its import path
	Module string `json:"module,omitempty"`
	SHA256 string `json:"sha256"` // of its test binary
}

// Run is one run of the container.
type Run struct {
	ID      string  `json:"id"`
	Package string  `json:"package,omitempty"` // in a recording of several packages: whose tests ran
	Exit    int     `json:"exit"`              // the runtime's exit status; -1 if it is not known
	Seconds float64 `json:"seconds,omitempty"`
	// Varied is what record --stress set for this run, such as GOGC=5 or -test.shuffle=3.
	Varied []string `json:"varied,omitempty"`
}

// Syscall is one call of one ABI in one phase. A call that was allowed and one that was denied are two entries.
type Syscall struct {
	Phase   Phase      `json:"phase"`
	ABI     specs.Arch `json:"abi"`
	Nr      uint32     `json:"nr"`
	Name    string     `json:"name,omitempty"` // for readers; the number counts
	Denied  *Denied    `json:"denied,omitempty"`
	Args    *Arguments `json:"args,omitempty"` // of the calls whose arguments are kept
	Callers []Caller   `json:"callers,omitempty"`
	Runs    []string   `json:"runs"` // the ids of the runs that made it
}

// Outcome is what became of a call that was denied.
type Outcome string

// The outcomes.
const (
	OutcomeErrno Outcome = "errno" // it failed with an errno
	OutcomeTrap  Outcome = "trap"  // SIGSYS, which the program may have caught
	OutcomeKill  Outcome = "kill"  // the thread or the process was killed
)

// Denied is how a call was refused, as seen at its first refusal.
type Denied struct {
	Action Outcome   `json:"action"`
	Errno  uint32    `json:"errno,omitempty"`
	Count  uint64    `json:"count"`
	Args   [6]uint64 `json:"args"`  // raw registers
	Order  int       `json:"order"` // 1 for the container's first kind of denial, 2 for the next
	// Own says that the container's filter cannot have done it, and that the task had filters of its own.
	Own bool `json:"own,omitempty"`
}

// Refused reports whether the container's filter refused the call.
func (s Syscall) Refused() bool { return s.Denied != nil && !s.Denied.Own }

// Caller is who made the call first.
type Caller struct {
	Comm  string   `json:"comm"`
	Exe   string   `json:"exe,omitempty"`   // last part of the executable's path, at most 31 bytes
	PCs   []uint64 `json:"pcs,omitempty"`   // the user stack, innermost first, where nobody has resolved it
	Stack []string `json:"stack,omitempty"` // the same as functions
	Test  string   `json:"test,omitempty"`  // the test function on the stack
	// Package is whose tests ran, in a recording of several packages.
	Package string `json:"package,omitempty"`
}

// Function returns the innermost function on the stack that is not the way into the kernel, or "".
func (c Caller) Function() string {
	for _, f := range c.Stack {
		if !strings.HasPrefix(f, "syscall.") && !strings.HasPrefix(f, "internal/runtime/") && !strings.HasPrefix(f, "golang.org/x/sys/unix.") {
			return f
		}
	}
	return ""
}

// String names the caller as reports do: the function, or else the process, the test, and of several packages which.
func (c Caller) String() string {
	name := cmp.Or(c.Function(), c.Comm)
	if c.Test != "" && !strings.HasSuffix(name, "."+c.Test) {
		name += " <- " + c.Test
	}
	if c.Package != "" {
		name += " in " + c.Package
	}
	return name
}

// compareCallers puts the callers that say most first.
func compareCallers(a, b Caller) int {
	return cmp.Or(cmp.Compare(min(len(b.Test), 1), min(len(a.Test), 1)), cmp.Compare(a.String(), b.String()), cmp.Compare(a.Exe, b.Exe), slices.Compare(a.Stack, b.Stack), slices.Compare(a.PCs, b.PCs))
}

// Unknown is a number that has no name here, so that no profile can list it.
type Unknown struct {
	ABI   specs.Arch `json:"abi"`
	Nr    uint32     `json:"nr"`
	Count uint64     `json:"count"`
}

// Static is what the machine code of a Go program can call. It knows nothing of C libraries and children.
type Static struct {
	GoRuntime  []StaticCall `json:"goRuntime"`  // what the Go runtime calls at any moment, without the program asking
	Reachable  []StaticCall `json:"reachable"`  // all that the code can call
	Unresolved []string     `json:"unresolved"` // functions that make calls whose numbers could not be told; if any, Reachable may lack some
}

// StaticCall is a call that code can make.
type StaticCall struct {
	ABI       specs.Arch `json:"abi"`
	Nr        uint32     `json:"nr"`
	Name      string     `json:"name,omitempty"` // for readers; the number counts
	Text      string     `json:"text,omitempty"` // why the runtime makes it
	Functions []string   `json:"functions"`
}

// Drop counts evidence that was lost, and marks the recording incomplete.
func (r *Recording) Drop(reason string, n uint64) {
	if n == 0 {
		return
	}
	if r.Dropped == nil {
		r.Dropped = map[string]uint64{}
	}
	r.Dropped[reason] += n
	r.Complete = false
}

// ReadRecording decodes and checks one recording.
func ReadRecording(from io.Reader) (*Recording, error) {
	data, err := io.ReadAll(from)
	if err != nil {
		return nil, fmt.Errorf("read recording: %w", err)
	}
	var v struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return nil, fmt.Errorf("recording is not whole JSON, record again: %w", err)
	}
	r := &Recording{}
	switch v.Version {
	case 1:
		var old recordingV1
		if err = strictJSON(data, &old); err == nil {
			r, err = old.upgrade()
		}
	case RecordingVersion:
		err = strictJSON(data, r)
	default:
		return nil, fmt.Errorf("recording has version %d, this seccompgen reads versions 1 to %d", v.Version, RecordingVersion)
	}
	if err != nil {
		return nil, fmt.Errorf("decode recording: %w", err)
	}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("recording %q: %w", r.ID, err)
	}
	return r, nil
}

// strictJSON decodes exactly one JSON value and refuses keys that it does not know.
func strictJSON(data []byte, to any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("text after the JSON value")
	}
	return nil
}

func (r *Recording) check() error {
	if r.ID == "" || len(r.Runs) == 0 {
		return errors.New("no id or no runs")
	}
	if r.Complete && len(r.Dropped) != 0 {
		return errors.New("says complete, and that evidence was dropped")
	}
	runs := map[string]bool{}
	for _, run := range r.Runs {
		if run.ID == "" || runs[run.ID] {
			return fmt.Errorf("run id %q is empty or stands twice", run.ID)
		}
		if in := func(p Package) bool { return p.Path == run.Package }; len(r.Workload.Packages) > 0 != (run.Package != "") || run.Package != "" && !slices.ContainsFunc(r.Workload.Packages, in) {
			return fmt.Errorf("run %q is of package %q, which the workload does not list", run.ID, run.Package)
		}
		runs[run.ID] = true
	}
	switch r.Boundary {
	case BoundaryNone, BoundaryFilter, BoundaryExecve:
	default:
		return fmt.Errorf("boundary %q is not one of filter, execve", r.Boundary)
	}
	for _, s := range r.Syscalls {
		if !slices.Contains(Phases(), s.Phase) {
			return fmt.Errorf("phase %q of call %d is not known", s.Phase, s.Nr)
		}
		if table(s.ABI) == nil {
			return fmt.Errorf("ABI %q of call %d is not known", s.ABI, s.Nr)
		}
		name := Name(s.ABI, s.Nr)
		if name == "" && s.Denied == nil {
			return fmt.Errorf("call %d of %s has no name here: it belongs under unknown", s.Nr, s.ABI)
		}
		if s.Name != "" && s.Name != name {
			return fmt.Errorf("call %d of %s is %s, not %q", s.Nr, s.ABI, label(s.ABI, s.Nr), s.Name)
		}
		if len(s.Runs) == 0 {
			return fmt.Errorf("call %s of %s belongs to no run", label(s.ABI, s.Nr), s.ABI)
		}
		for _, id := range s.Runs {
			if !runs[id] {
				return fmt.Errorf("call %s of %s belongs to run %q, which is not listed", label(s.ABI, s.Nr), s.ABI, id)
			}
		}
		if s.Args != nil {
			if err := s.Args.check(); err != nil {
				return fmt.Errorf("call %s of %s: %w", label(s.ABI, s.Nr), s.ABI, err)
			}
		}
		if s.Denied != nil && !slices.Contains([]Outcome{OutcomeErrno, OutcomeTrap, OutcomeKill}, s.Denied.Action) {
			return fmt.Errorf("call %s was denied by %q, which is not one of errno, trap, kill", label(s.ABI, s.Nr), s.Denied.Action)
		}
	}
	for _, u := range r.Unknown {
		if table(u.ABI) == nil {
			return fmt.Errorf("ABI %q of unknown number %d is not known", u.ABI, u.Nr)
		}
	}
	for _, p := range r.Programs {
		if err := p.check(); err != nil {
			return err
		}
	}
	return nil
}

// Write encodes the recording as recording.json: sorted, indented, the same bytes for the same evidence.
func (r *Recording) Write(to io.Writer) error {
	r.Version = RecordingVersion
	r.sort()
	return WriteJSON(to, r)
}

// WriteJSON writes a value as all of the program is written: indented, with no characters escaped for HTML.
func WriteJSON(to io.Writer, v any) error {
	e := json.NewEncoder(to)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// key orders calls and tells them apart.
func (s Syscall) key() string {
	denied := ""
	if s.Denied != nil {
		denied = fmt.Sprintf("%s %05d %t", s.Denied.Action, s.Denied.Errno, s.Denied.Own)
	}
	return fmt.Sprintf("%d %d %010d %s", slices.Index(Phases(), s.Phase), abiOrder(s.ABI), s.Nr, denied)
}

func (r *Recording) sort() {
	slices.SortFunc(r.Runs, func(a, b Run) int { return cmp.Compare(a.ID, b.ID) })
	r.Programs = mergePrograms(r.Programs, nil)
	if r.Syscalls == nil {
		r.Syscalls = []Syscall{}
	}
	for i := range r.Syscalls {
		s := &r.Syscalls[i]
		s.Name = Name(s.ABI, s.Nr)
		slices.Sort(s.Runs)
		slices.SortFunc(s.Callers, compareCallers)
	}
	slices.SortFunc(r.Syscalls, func(a, b Syscall) int { return cmp.Compare(a.key(), b.key()) })
	slices.SortFunc(r.Unknown, func(a, b Unknown) int {
		return cmp.Or(cmp.Compare(abiOrder(a.ABI), abiOrder(b.ABI)), cmp.Compare(a.Nr, b.Nr))
	})
}

// Incomplete returns nil, or an error that wraps [ErrIncomplete] and says what is missing.
func (r *Recording) Incomplete() error {
	if r.Complete {
		return nil
	}
	var why []string
	for _, reason := range slices.Sorted(maps.Keys(r.Dropped)) {
		text := dropTexts[reason]
		if text == "" {
			text = reason
		}
		why = append(why, fmt.Sprintf("%s (%d)", text, r.Dropped[reason]))
	}
	if len(why) == 0 {
		why = []string{"no reason is given"}
	}
	return fmt.Errorf("%w: %s", ErrIncomplete, strings.Join(why, "; "))
}

// Unsure reports whether calls that look denied may be calls whose beginning was not seen.
func (r *Recording) Unsure() bool { return r.Dropped[DropMissed] > 0 || r.Dropped[DropEntry] > 0 }

// The reasons for which evidence can be missing, keys of Recording.Dropped.
const (
	DropFork       = "fork"
	DropAdopt      = "adopt"
	DropCaller     = "caller"
	DropUnknown    = "unknown"
	DropDenial     = "denial"
	DropMissed     = "missed"
	DropEntry      = "entry"
	DropUnfiltered = "unfiltered"
	DropAlive      = "alive"
	DropJoin       = "join"
	DropNotStarted = "not-started"
	DropDeadline   = "deadline"
	DropKilled     = "killed"
	DropCollect    = "collect"
	DropBuild      = "build"
)

var dropTexts = map[string]string{
	DropFork:       "children that the kernel had no memory to follow",
	DropAdopt:      "threads of the container's init that the kernel had no memory to follow",
	DropCaller:     "first callers that there was no room to keep",
	DropUnknown:    "unknown numbers that there was no room to keep",
	DropDenial:     "denials that there was no room to keep",
	DropMissed:     "calls, forks or exits that the kernel may not have shown to the recorder, whose programs it had preempted",
	DropEntry:      "calls that were seen to end, and not to begin",
	DropUnfiltered: "workloads executed without the filter that their configuration has",
	DropAlive:      "tasks of the container that lived on after its end",
	DropJoin:       "processes that joined a mount namespace which recorded containers share",
	DropNotStarted: "workloads that were never executed",
	DropDeadline:   "runs ended by the deadline",
	DropCollect:    "recordings that the poststop hook could not collect",
	DropBuild:      "packages whose tests did not build",
	DropKilled:     "runs ended by a signal to seccompgen or to the runtime",
}
