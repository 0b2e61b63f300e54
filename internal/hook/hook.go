// Package hook is the OCI hook: createRuntime or prestart arms the recorder for a container's init, poststop writes
// the recording. Which of the two it is, the state on stdin tells. It is linked into a small static binary, and
// nothing here may need cgo.
//
// What surprises: it runs as root on strings that strangers wrote. Without --output and --dir it records only containers
// that ask for it with an annotation, and can do nothing to others. What an annotation names is written beneath one
// directory; only --trace-annotation, for engines that only root can talk to, lets one name a path, and not that of a pod.
package hook

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/syslog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seccompgen/seccompgen/internal/programs"
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
	file    string   // --output; or
	name    string   // in options.dir, without .json; that of a pod's container is the same when it is started again
	request *request // the annotation that asked, if one did
	trace   *trace   // the profile that it wants beside, where it may say so; or
	profile bool     // one in options.dir

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
	// Who did not ask goes before anything can fail.
	annotations, err := o.annotations(data)
	if err != nil {
		return err
	}
	if !o.always {
		if r, err := asked(annotations); r == nil && err == nil {
			if s, err := decodeState(data); err == nil && s.Status != specs.StateStopped {
				tellUnmatched(annotations, s.ID)
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
	if r, ok := errors.AsType[*refusal](err); ok {
		pairs = append(pairs, "annotation", r.key, "value", r.value)
		event = "refused"
	}
	o.tell(syslog.LOG_ERR, event, pairs...)
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
	f.BoolVar(&o.honour, "trace-annotation", false, "write profiles where the annotation "+TraceAnnotation+" says: for engines that only root can talk to")
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
	if wrapper.Mentions(state) {
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
	if err != nil || !wrapper.Mentions(config) {
		return nil, nil
	}
	var c specs.Spec
	if err := json.Unmarshal(config, &c); err != nil {
		return nil, fmt.Errorf("decode %s/config.json: %w", s.Bundle, err)
	}
	return c.Annotations, nil
}

// target tells where a container's evidence goes, or nil for a container that nobody wants to record.
func (o *options) target(s *specs.State, annotations map[string]string) (*target, error) {
	if o.output != "" {
		return &target{file: o.output}, nil
	}
	r, err := asked(annotations)
	switch {
	case err != nil:
		return nil, err
	case r == nil && o.always:
		return &target{name: s.ID}, nil
	case r == nil:
		return nil, nil
	}
	t := &target{name: s.ID, request: r}
	t.container, t.sandbox = containerName(annotations), sandboxID(annotations)
	if t.container != "" {
		t.name = t.container + "-" + cmp.Or(t.sandbox, s.ID)
	}
	switch {
	case r.trace == nil:
		if r.name != "" {
			t.name = r.name + "-" + t.name
		}
	case r.trace != nil && o.honour && !ofPods(annotations):
		t.trace = r.trace
	case r.trace != nil:
		// Who may annotate may not say which files of the host are read and written. The name is harmless.
		if r.trace.input != "" {
			return nil, &refusal{r.key, r.value, fmt.Errorf("%w: if: is for hooks that run with --trace-annotation, and not for pods", errInvalid)}
		}
		t.profile = true
		if name, err := parseName(strings.TrimSuffix(filepath.Base(r.trace.output), ".json")); err == nil && name != "" {
			t.name = name + "-" + t.name
		}
	}
	return t, nil
}

// recorder is the tracer, or who speaks to it for us.
type recorder interface {
	Start(id string, pid int, o tracer.Options) error
	// Collect hands the programs of a recording that nobody has looked at to look, and then the recording to keep.
	Collect(id string, look func([]profile.Program) programs.Looked, keep func(*profile.Recording) error) error
}

// host is the tracer of a hook that runs as root.
type host struct{}

func (host) Start(id string, pid int, o tracer.Options) error { return tracer.Start(id, pid, o) }

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
		return t.trace.output
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
			return &refusal{t.request.key, t.request.value, err}
		}
		return err
	}
	header := profile.Recording{
		Runtime:         profile.Runtime{Name: parentExe()},
		NoNewPrivileges: spec.Process.NoNewPrivileges,
		Workload:        workload(spec),
	}
	if t.file == "" {
		o.wasCollected(s.ID) // of an earlier run: this one is another
		o.forsaken(time.Now())
		header.Runs = startedAt(s.ID, time.Now())
	}
	if _, rootless := o.recorder.(service); rootless {
		header.Runtime = runtimeOf(header.Runtime) // root executes nothing that a user names
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

// refuses tells whether a filter can refuse a call: watching for denials costs the whole host.
func refuses(s *specs.LinuxSeccomp) bool {
	lets := func(a specs.LinuxSeccompAction) bool { return a == specs.ActAllow || a == specs.ActLog }
	return !lets(s.DefaultAction) || slices.ContainsFunc(s.Syscalls, func(c specs.LinuxSyscall) bool { return !lets(c.Action) })
}

// startedAt notes in a recording under way when it was armed. The recorder puts the real runs in its place.
func startedAt(id string, now time.Time) []profile.Run {
	return []profile.Run{{ID: id, Seconds: float64(now.Unix())}}
}

// forsaken collects recordings whose container was created and never started: Podman does not call poststop for them.
// While one is left all tasks of the host pay for it. Those of --output have somebody who waits for them.
func (o *options) forsaken(now time.Time) {
	list, err := tracer.List()
	if err != nil {
		return // Start will say it better
	}
	for _, s := range list {
		if s.State != tracer.Ended || !overdue(s, now, o.grace) {
			continue
		}
		r, err := tracer.Peek(s.ID)
		if err != nil || r.Dropped[profile.DropNotStarted] == 0 {
			continue
		}
		err = tracer.Collect(s.ID, func(r *profile.Recording) error {
			r.Runtime = runtimeOf(r.Runtime)
			_, _, err := o.keep(&target{name: s.ID}, r)
			return err
		})
		if err != nil && !errors.Is(err, tracer.ErrNotRecording) {
			o.tell(syslog.LOG_ERR, "failed", "container", s.ID, "error", err.Error())
		} else {
			o.tell(syslog.LOG_WARNING, "never started", "container", s.ID, "output", filepath.Join(o.dir, s.ID+".json"))
		}
	}
}

// overdue tells whether a recording was armed, for an annotation, longer ago than its poststop hook may take to come.
func overdue(s tracer.Status, now time.Time, grace time.Duration) bool {
	runs := s.Options.Header.Runs
	return len(runs) == 1 && runs[0].ID == s.ID && now.Unix()-int64(runs[0].Seconds) >= int64(grace.Seconds())
}

// checkTarget refuses at the start what could not be written at the end.
func (o *options) checkTarget(t *target) error {
	if t.file != "" {
		return nil
	}
	dir, err := openDir(o.dir)
	if err != nil {
		return err
	}
	defer done(dir)
	if err := room(dir); err != nil {
		return err
	}
	if _, _, err := existing(dir, t.name+".json", isRecording); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if t.profile {
		if _, _, err := existing(dir, t.name+profileSuffix, isProfile); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if t.trace == nil {
		return nil
	}
	if _, err := inputOf(t.trace); err != nil {
		return err
	}
	if err := checkTrace(t.trace.output); err != nil {
		return fmt.Errorf("%w: output file: %w", errInvalid, err)
	}
	return nil
}

const profileSuffix = ".profile.json"

// inputOf reads the profile to extend, or nil if there is none.
func inputOf(t *trace) ([]byte, error) {
	if t.input == "" {
		return nil, nil
	}
	data, err := readTraceInput(t.input)
	if err != nil {
		return nil, fmt.Errorf("%w: error reading input file: %w", errInvalid, err)
	}
	if _, err := readInput(data); err != nil {
		return nil, fmt.Errorf("%w: error parsing input file %q", errInvalid, t.input) // its content is nobody's business
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

// parentExe returns the executable of the process that runs this hook, the runtime.
func parentExe() string {
	return executable("/proc/" + strconv.Itoa(os.Getppid()))
}

// executable returns what a process executes. crun runs itself from a copy that has no path: then it is what the process
// was called as.
func executable(proc string) string {
	exe, err := os.Readlink(proc + "/exe")
	if err != nil {
		return ""
	}
	if info, err := os.Stat(exe); err == nil && info.Mode().IsRegular() {
		return exe
	}
	cmdline, err := os.ReadFile(proc + "/cmdline")
	if err != nil {
		return exe
	}
	name, _, _ := strings.Cut(string(cmdline), "\x00")
	if path, err := exec.LookPath(name); err == nil && filepath.IsAbs(path) {
		return path
	}
	return exe
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
		key, _, _ := strings.Cut(t.request.key, "/")
		n.Annotations = map[string]string{key: t.request.value, containerNameAnnotation: t.container, sandboxAnnotation: t.sandbox}
	}
	return n
}

// Collect writes the recording of a container where its poststop hook, which did not come, would have: that of a killed
// monitor or engine. One whose tasks live is ended, and says so. It returns where the recording is.
func Collect(s tracer.Status) (string, error) {
	var n note
	if err := json.Unmarshal(s.Options.Hook, &n); err != nil {
		return "", fmt.Errorf("collect the recording of container %s: read what its hook was asked for: %w", s.ID, err)
	}
	o, err := parse(n.Args, io.Discard)
	if err != nil {
		return "", fmt.Errorf("collect the recording of container %s: %w", s.ID, err)
	}
	o.recorder = host{}
	t, err := o.target(&specs.State{ID: s.ID}, n.Annotations)
	if err == nil && t == nil {
		err = errors.New("nothing tells where it belongs")
	}
	if err == nil {
		err = o.collect(s.ID, n.Bundle, t)
	}
	if _, kept := errors.AsType[errKept](err); t.file == "" && (err == nil || kept) {
		err = errors.Join(err, o.inDir(func(dir *os.Root) error { return replace(dir, collectedBefore(s.ID), nil, false) }))
	}
	if err != nil {
		return "", fmt.Errorf("collect the recording of container %s: %w", s.ID, err)
	}
	return o.outputOf(t), nil
}

// collectedBefore is the name of an empty file that tells a poststop hook which comes after all, as an engine that was
// restarted calls it, that its recording is not lost.
func collectedBefore(id string) string { return ".collected-" + id }

// wasCollected tells whether Collect came before, and forgets it.
func (o *options) wasCollected(id string) bool {
	return o.inDir(func(dir *os.Root) error { return dir.Remove(collectedBefore(id)) }) == nil
}

// errKept says that what was to be made of a recording was not, and that the recording is kept.
type errKept struct{ error }

func (e errKept) Unwrap() error { return e.error }

// collect takes the recording out of the recorder, and writes what it becomes.
func (o *options) collect(id, bundle string, t *target) error {
	var after error
	err := o.recorder.Collect(id, func(all []profile.Program) programs.Looked { return o.look(bundle, all) }, func(r *profile.Recording) error {
		r.Runtime = runtimeOf(r.Runtime)
		var err error
		after, err = o.finish(t, r)
		return err
	})
	if err == nil && after != nil {
		return errKept{after}
	}
	if err == nil {
		o.tell(syslog.LOG_INFO, "recorded", "container", id, "output", o.outputOf(t))
	}
	return err
}

// look reads what ran in a container, while its root is there.
func (o *options) look(bundle string, all []profile.Program) programs.Looked {
	if o.blind || len(all) == 0 {
		return nil
	}
	spec, err := readConfig(bundle)
	return programs.PlaceOf(bundle, spec, err).Look(all, o.known)
}

// stop collects. Whatever fails, a file says so: an absent recording would be taken for one that is still to come.
func (o *options) stop(s *specs.State, t *target) error {
	err := o.collect(s.ID, s.Bundle, t)
	if err == nil || errors.Is(err, tracer.ErrNotRecording) && o.optional {
		return nil
	}
	if errors.Is(err, tracer.ErrNotRecording) && t.file == "" && o.wasCollected(s.ID) {
		return nil
	}
	if _, kept := errors.AsType[errKept](err); kept {
		return fmt.Errorf("container %s: %w", s.ID, err)
	}
	err = fmt.Errorf("collect the recording of container %s: %w", s.ID, err)
	r := &profile.Recording{ID: s.ID, Runs: []profile.Run{{ID: s.ID, Exit: -1}}, Workload: profile.Workload{Args: []string{}}}
	r.Drop(profile.DropCollect, 1)
	if t.file == "" {
		_, _, keepErr := o.keep(t, r)
		return errors.Join(err, keepErr)
	}
	if _, statErr := os.Stat(t.file); statErr == nil {
		return err // never over evidence
	}
	return errors.Join(err, write(t.file, r))
}

// finish writes what a container's recording becomes. after is an error for a profile that could not be written, with
// the recording kept; with err nothing is kept, and the recording stays in the recorder.
func (o *options) finish(t *target, r *profile.Recording) (after, err error) {
	if t.file != "" {
		return nil, write(t.file, r)
	}
	if t.trace != nil {
		after = o.writeTrace(t.trace, r)
		if after == nil {
			return nil, nil
		}
		file, _, err := o.keep(t, r)
		return fmt.Errorf("no profile in %s: %w; the recording is %s", t.trace.output, after, filepath.Join(o.dir, file)), err
	}
	file, all, err := o.keep(t, r)
	if err != nil || !t.profile {
		return nil, err
	}
	data, after := o.build(nil, all)
	if after == nil {
		after = o.inDir(func(dir *os.Root) error { return keepProfile(dir, t.name+profileSuffix, data) })
	}
	if after != nil {
		after = fmt.Errorf("no profile: %w; the recording is %s", after, filepath.Join(o.dir, file))
	}
	return after, nil
}

func (o *options) inDir(do func(*os.Root) error) error {
	dir, err := openDir(o.dir)
	if err != nil {
		return err
	}
	defer done(dir)
	return do(dir)
}

// keep writes the recording into the directory.
func (o *options) keep(t *target, r *profile.Recording) (file string, all *profile.Recording, err error) {
	err = o.inDir(func(dir *os.Root) (err error) {
		file, all, err = keep(dir, t, r)
		return err
	})
	return file, all, err
}

// writeTrace does what the drop-in's annotation asks for.
func (o *options) writeTrace(t *trace, r *profile.Recording) error {
	input, err := inputOf(t)
	if err != nil {
		return err
	}
	data, err := o.build(input, r)
	if err != nil {
		return err
	}
	return writeTrace(t.output, data)
}

// build makes the drop-in's profile: what was seen, in all phases, and for the ABIs seen.
func (o *options) build(input []byte, r *profile.Recording) ([]byte, error) {
	p, _, err := profile.Build([]*profile.Recording{r}, profile.BuildOptions{Policy: profile.Policy(o.policy)})
	if err != nil {
		return nil, err
	}
	return extend(input, p)
}

// runtimeOf names a runtime that is known by its executable, and asks it for its version.
func runtimeOf(r profile.Runtime) profile.Runtime {
	exe := r.Name
	if r.Name = filepath.Base(exe); !filepath.IsAbs(exe) {
		return r
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, exe, "--version").Output()
	if first, _, ok := strings.Cut(string(out), "\n"); err == nil && ok {
		if _, version, ok := strings.Cut(first, " version "); ok {
			r.Version = strings.TrimSpace(version)
		}
	}
	return r
}

func write(path string, r *profile.Recording) error {
	var b bytes.Buffer
	if err := r.Write(&b); err != nil {
		return fmt.Errorf("encode the recording: %w", err)
	}
	if err := renameio.WriteFile(path, b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write the recording: %w", err)
	}
	return nil
}
