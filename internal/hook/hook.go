// Package hook is the OCI hook: createRuntime or prestart arms the recorder for a container's init, poststop writes
// the recording. Which of the two it is, the state on stdin tells. It is linked into a small static binary, and
// nothing here may need cgo.
//
// What surprises: it runs as root on strings that strangers wrote. Without --output and --dir it records only containers
// that ask for it with an annotation, and can do nothing to others. What an annotation names is written beneath one
// directory; only --trace-annotation, for engines that only root can talk to, lets one name a path, and not that of a pod.
package hook

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/syslog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seccompgen/seccompgen/internal/annotation"
	"github.com/seccompgen/seccompgen/internal/dropin"
	"github.com/seccompgen/seccompgen/internal/journal"
	"github.com/seccompgen/seccompgen/internal/ociruntime"
	"github.com/seccompgen/seccompgen/internal/programs"
	"github.com/seccompgen/seccompgen/internal/recordings"
	"github.com/seccompgen/seccompgen/internal/rootless"
	"github.com/seccompgen/seccompgen/internal/version"
	"github.com/seccompgen/seccompgen/internal/wrapper"
	"github.com/seccompgen/seccompgen/profile"
	"github.com/seccompgen/seccompgen/tracer"
)

// DefaultDir is where recordings go that no argument sends elsewhere.
const DefaultDir = "/var/lib/seccompgen/recordings"

type options struct {
	output    string
	dir       string
	always    bool // --output or --dir is given: no annotation is needed
	dirGiven  bool
	socket    string
	recorder  recorder
	denials   bool
	init      bool
	optional  bool
	honour    bool // --trace-annotation
	policy    string
	grace     time.Duration
	metrics   string
	version   bool
	blind     bool     // --no-programs
	known     []string // hashes of programs that need no analysis
	args      []string // these options as they were given
	container string   // for the log
}

// target is where the evidence of a container goes.
type target struct {
	file    string              // --output; or
	name    string              // in options.dir, without .json; that of a pod's container is the same when it is started again
	request *annotation.Request // the annotation that asked, if one did
	trace   *annotation.Trace   // the profile that it wants beside, where it may say so; or
	profile bool                // one in options.dir

	container, sandbox string // of a pod
}

// Run is the hook: it decodes the state on stdin and starts or collects a recording.
func Run(args []string, stdin io.Reader, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	if o.version {
		_, err := fmt.Println("seccompgen oci-hook " + version.String())
		return err
	}
	err = o.run(stdin, stderr)
	if err != nil {
		o.logError("failed", err)
	}
	return err
}

func (o *options) run(stdin io.Reader, stderr io.Writer) error {
	data, err := readState(stdin)
	if err != nil {
		return err
	}
	// Return early for containers that did not ask, before anything can fail.
	annotations, err := o.annotations(data)
	if err != nil {
		return err
	}
	if !o.always {
		if r, err := annotation.Asked(annotations); r == nil && err == nil {
			if s, err := decodeState(data); err == nil && s.Status != specs.StateStopped {
				journal.Unmatched(s.ID, annotation.ContainerName(annotations), annotation.Unmatched(annotations))
			}
			return nil
		}
	}
	state, err := decodeState(data)
	if err != nil {
		return err
	}
	o.container = state.ID
	t, err := o.target(state, annotations)
	if err == nil && t == nil {
		return nil
	}
	if err == nil {
		err = o.findRecorder()
	}
	if state.Status == specs.StateStopped {
		if err != nil {
			return fmt.Errorf("collect the recording of container %s: %w", state.ID, err)
		}
		return o.stop(state, t)
	}
	if err == nil {
		err = o.start(state, t)
	}
	if err == nil {
		return nil
	}
	err = fmt.Errorf("record container %s: %w", state.ID, err)
	if !o.optional {
		return err
	}
	o.logError("unrecorded", err)
	fmt.Fprintf(stderr, "seccompgen: %v; the container runs unrecorded, as --optional says\n", err)
	return nil
}

// logError tells the system's log of a failure. If it was over an annotation the line has its parts.
func (o *options) logError(event string, err error) {
	pairs := []string{"container", o.container, "error", err.Error()}
	if r, ok := errors.AsType[*annotation.Refusal](err); ok {
		pairs = append(pairs, "annotation", r.Key, "value", r.Value)
		event = "refused"
	}
	o.report(syslog.LOG_ERR, event, pairs...)
}

func parse(args []string, stderr io.Writer) (*options, error) {
	o := &options{args: args}
	f := flag.NewFlagSet("oci-hook", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.output, "output", "", "record always, and write the recording to this `file`")
	f.StringVar(&o.dir, "dir", DefaultDir, "record always, and write the recording into this `directory` (default in a rootless engine: ~/.local/share/seccompgen/recordings); without --output and --dir only annotated containers are recorded")
	f.BoolVar(&o.denials, "denials", false, "record the calls that the container's filter refuses too")
	f.BoolVar(&o.init, "init", false, "the container's first program is an init: its calls are the runtime's, its child is the workload")
	f.BoolVar(&o.optional, "optional", false, "let the container run when recording cannot start")
	f.BoolVar(&o.honour, "trace-annotation", false, "write profiles where the annotation "+annotation.TraceSyscall+" says: for engines that only root can talk to")
	f.StringVar(&o.policy, "trace-policy", string(profile.PolicyRobust), "`policy` of these profiles, robust or exact")
	f.DurationVar(&o.grace, "grace", time.Minute, "give up after this `time` on containers that were created, never started, and whose poststop hook nobody calls")
	f.StringVar(&o.metrics, "metrics", "", "count what hooks do in this `file`, for the textfile collector of Prometheus' node_exporter")
	f.StringVar(&o.socket, "socket", rootless.Socket, "`socket` of seccompgen serve, which records for rootless engines")
	f.BoolVar(&o.blind, "no-programs", false, "do not look at the executables that ran: whoever builds a profile from the recording takes all of them for Go programs of which nothing is known")
	known := f.String("known", "", "do not analyze again the programs whose SHA-256 is a line of this `file`")
	f.BoolVar(&o.version, "version", false, "print the version")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	f.Visit(func(f *flag.Flag) {
		o.dirGiven = o.dirGiven || f.Name == "dir"
		o.always = o.dirGiven || o.always || f.Name == "output"
	})
	// Engines append the name of the stage; nothing else may follow.
	if rest := f.Args(); len(rest) > 1 {
		return nil, fmt.Errorf("unexpected arguments %q", rest[1:])
	}
	if data, err := os.ReadFile(*known); err == nil { // there may be none yet
		o.known = strings.Fields(string(data))
	}
	for _, path := range []string{o.output, o.dir, o.metrics, *known} {
		if path != "" && !filepath.IsAbs(path) {
			return nil, fmt.Errorf("output %q: give an absolute path", path)
		}
	}
	if p := profile.Policy(o.policy); p != profile.PolicyExact && p != profile.PolicyRobust {
		return nil, fmt.Errorf("--trace-policy %q is not one of exact, robust", o.policy)
	}
	return o, nil
}

// annotations returns a container's annotations if they may hold one of ours, or nil. crun's state has none at some
// stages; the configuration has them always. It decodes only what mentions us.
func (o *options) annotations(state []byte) (map[string]string, error) {
	if o.output != "" {
		return nil, nil
	}
	var s struct {
		Bundle      string            `json:"bundle"`
		Annotations map[string]string `json:"annotations"`
	}
	if annotation.Mentions(state) {
		if len(state) > maxState {
			return nil, fmt.Errorf("OCI state of a container that asks for a recording is larger than %d bytes", maxState)
		}
		if err := json.Unmarshal(state, &s); err != nil {
			return nil, fmt.Errorf("decode the OCI state: %w", err)
		}
		return s.Annotations, nil
	}
	if len(state) > maxState || json.Unmarshal(state, &s) != nil || len(s.Annotations) > 0 {
		return nil, nil
	}
	config, err := wrapper.ReadConfig(s.Bundle)
	if err != nil || !annotation.Mentions(config) {
		return nil, nil
	}
	var c specs.Spec
	if err := json.Unmarshal(config, &c); err != nil {
		return nil, fmt.Errorf("decode %s/config.json: %w", s.Bundle, err)
	}
	return c.Annotations, nil
}

// target returns where a container's evidence goes, or nil for a container that nobody wants to record.
func (o *options) target(s *specs.State, annotations map[string]string) (*target, error) {
	if o.output != "" {
		return &target{file: o.output}, nil
	}
	r, err := annotation.Asked(annotations)
	switch {
	case err != nil:
		return nil, err
	case r == nil && o.always:
		return &target{name: s.ID}, nil
	case r == nil:
		return nil, nil
	}
	t := &target{name: s.ID, request: r}
	t.container, t.sandbox = annotation.ContainerName(annotations), annotation.SandboxID(annotations)
	if t.container != "" {
		t.name = t.container + "-" + cmp.Or(t.sandbox, s.ID)
	}
	switch {
	case r.Trace == nil:
		if r.Name != "" {
			t.name = r.Name + "-" + t.name
		}
	case r.Trace != nil && o.honour && !annotation.OfPods(annotations):
		t.trace = r.Trace
	case r.Trace != nil:
		// Who may annotate may not say which files of the host are read and written. The name is harmless.
		if r.Trace.Input != "" {
			return nil, &annotation.Refusal{Key: r.Key, Value: r.Value, Reason: fmt.Errorf("%w: if: is for hooks that run with --trace-annotation, and not for pods", annotation.ErrInvalid)}
		}
		t.profile = true
		if name, err := annotation.ParseName(strings.TrimSuffix(filepath.Base(r.Trace.Output), ".json")); err == nil && name != "" {
			t.name = name + "-" + t.name
		}
	}
	return t, nil
}

// recorder is the tracer, or what speaks to it for us.
type recorder interface {
	Start(id string, pid int, o tracer.Options) error
	// Collect hands the programs of a recording that nobody has looked at to look, and then the recording to keep.
	Collect(id string, look func([]profile.Program) programs.Looked, keep func(*profile.Recording) error) error
}

// host is the tracer of a hook that runs as root.
type host struct{ tracer.Host }

// Collect looks before it collects: it takes its time, during which the evidence is safe in the kernel and nobody waits for
// the recorder's lock.
func (host) Collect(id string, look func([]profile.Program) programs.Looked, keep func(*profile.Recording) error) error {
	var looked programs.Looked
	if r, err := tracer.Peek(id); err == nil { // else Collect says it
		looked = look(r.Programs)
	}
	return tracer.Collect(id, func(r *profile.Recording) error {
		looked.Fill(r.Programs)
		return keep(r)
	})
}

// service is who speaks to the tracer for a hook in a user namespace: the files are those of its user.
type service struct{ *rootless.Client }

func (s service) Collect(id string, look func([]profile.Program) programs.Looked, keep func(*profile.Recording) error) error {
	return s.Client.Collect(id, func(r *profile.Recording) error {
		look(r.Programs).Fill(r.Programs)
		return keep(r)
	})
}

// findRecorder tells root from the root of a user namespace, for whom a service has to record.
func (o *options) findRecorder() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("recording needs root, and this hook runs as user %d", os.Geteuid())
	}
	ids, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return fmt.Errorf("read the user namespace: %w", err)
	}
	if slices.Equal(strings.Fields(string(ids)), []string{"0", "0", "4294967295"}) {
		o.recorder = host{}
		return nil
	}
	o.recorder = service{&rootless.Client{Socket: o.socket}}
	if o.dirGiven {
		return nil
	}
	home, err := rootless.Home()
	o.dir = filepath.Join(home, ".local/share/seccompgen/recordings")
	return err
}

// output is the path that the user is told.
func (o *options) outputOf(t *target) string {
	switch {
	case t.file != "":
		return t.file
	case t.trace != nil:
		return t.trace.Output
	}
	return filepath.Join(o.dir, t.name+".json")
}

func (o *options) start(s *specs.State, t *target) error {
	spec, err := readConfig(s.Bundle)
	if err != nil {
		return err
	}
	if err := o.checkTarget(t); err != nil {
		if t.request != nil {
			return &annotation.Refusal{Key: t.request.Key, Value: t.request.Value, Reason: err}
		}
		return err
	}
	header := profile.Recording{
		Runtime:         profile.Runtime{Name: ociruntime.Executable("/proc/" + strconv.Itoa(os.Getppid()))},
		NoNewPrivileges: spec.Process.NoNewPrivileges,
		Capabilities:    bounding(spec),
		Workload:        workload(spec),
	}
	if t.file == "" {
		o.wasCollected(s.ID) // of an earlier run: this one is another
		o.collectStale()
	}
	if _, rootless := o.recorder.(service); rootless {
		header.Runtime = ociruntime.Executed(header.Runtime) // root executes nothing that a user names
	}
	note, err := json.Marshal(noteFor(o, t, s.Bundle))
	if err != nil {
		return fmt.Errorf("note what was asked for: %w", err)
	}
	filter := spec.Linux != nil && spec.Linux.Seccomp != nil
	var refusals []profile.Refusal
	if filter {
		refusals = profile.Refusals(spec.Linux.Seccomp)
	}
	err = o.recorder.Start(s.ID, s.Pid, tracer.Options{
		Refusals: refusals,
		Awaited:  t.file != "",
		Denials:  o.denials || filter && refuses(spec.Linux.Seccomp),
		Filter:   filter,
		Init:     o.init,
		Output:   o.outputOf(t),
		Hook:     note,
		Header:   header,
	})
	if errors.Is(err, rootless.ErrNoService) {
		return fmt.Errorf("bpf() is refused in a user namespace, and %w: root can start one (seccompgen serve), or run the engine as root", err)
	}
	if errors.Is(err, tracer.ErrFull) {
		return fmt.Errorf("%w on this host: wait for others to end (seccompgen status lists them)", err)
	}
	return err
}

// bounding returns the capabilities that a process can ever have.
func bounding(spec *specs.Spec) []string {
	all := []string{}
	if c := spec.Process.Capabilities; c != nil {
		all = append(all, c.Bounding...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// refuses reports whether a filter can refuse a call: watching for denials costs the whole host.
func refuses(s *specs.LinuxSeccomp) bool {
	lets := func(a specs.LinuxSeccompAction) bool { return a == specs.ActAllow || a == specs.ActLog }
	return !lets(s.DefaultAction) || slices.ContainsFunc(s.Syscalls, func(c specs.LinuxSyscall) bool { return !lets(c.Action) })
}

// checkTarget refuses at the start what could not be written at the end.
func (o *options) checkTarget(t *target) error {
	if t.file != "" {
		return nil
	}
	if err := o.inDir(func(dir *recordings.Dir) error { return dir.Check(t.name, t.profile) }); err != nil {
		return err
	}
	if t.trace == nil {
		return nil
	}
	if _, err := inputOf(t.trace); err != nil {
		return err
	}
	if err := recordings.CheckTrace(t.trace.Output); err != nil {
		return fmt.Errorf("%w: output file: %w", annotation.ErrInvalid, err)
	}
	return nil
}

// inputOf reads the profile to extend, or nil if there is none.
func inputOf(t *annotation.Trace) ([]byte, error) {
	if t.Input == "" {
		return nil, nil
	}
	data, err := recordings.ReadTraceInput(t.Input)
	if err != nil {
		return nil, fmt.Errorf("%w: error reading input file: %w", annotation.ErrInvalid, err)
	}
	if err := dropin.Check(data); err != nil {
		return nil, fmt.Errorf("%w: error parsing input file %q", annotation.ErrInvalid, t.Input) // its content is nobody's business
	}
	return data, nil
}

// workload describes what the configuration runs. Very long arguments are cut: the recorder keeps this in the kernel.
func workload(spec *specs.Spec) profile.Workload {
	w := profile.Workload{Args: []string{}, User: fmt.Sprintf("%d:%d", spec.Process.User.UID, spec.Process.User.GID)}
	for room := 4096; len(spec.Process.Args) > len(w.Args); {
		arg := spec.Process.Args[len(w.Args)]
		if room -= len(arg); room < 0 {
			w.Args = append(w.Args, "...")
			break
		}
		w.Args = append(w.Args, arg)
	}
	return w
}

func readConfig(bundle string) (*specs.Spec, error) {
	data, err := wrapper.ReadConfig(bundle)
	if err != nil {
		return nil, fmt.Errorf("read the container's configuration: %w", err)
	}
	var spec specs.Spec
	if err := json.Unmarshal(data, &spec); err != nil {
		return nil, fmt.Errorf("decode %s/config.json: %w", bundle, err)
	}
	if spec.Process == nil {
		return nil, fmt.Errorf("%s/config.json has no process", bundle)
	}
	return &spec, nil
}

// note is what the recorder keeps of a hook's call, so that somebody else can collect where no poststop hook comes.
type note struct {
	Args        []string          `json:"args,omitempty"`
	Bundle      string            `json:"bundle,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

func noteFor(o *options, t *target, bundle string) note {
	n := note{Args: o.args, Bundle: bundle}
	if t.request != nil {
		// The plain key also for a container of a pod, whose name stands beside it.
		key, _, _ := strings.Cut(t.request.Key, "/")
		n.Annotations = map[string]string{key: t.request.Value, annotation.ContainerNameKey: t.container, annotation.SandboxKey: t.sandbox}
	}
	return n
}
