// Package hook is the OCI hook: createRuntime or prestart arms the recorder for a container's init, poststop writes
// the recording. Which of the two it is, the state on stdin tells. It is linked into a small static binary, and
// nothing here may need cgo.
package hook

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seccompgen/seccompgen/profile"
	"github.com/seccompgen/seccompgen/tracer"
)

// DefaultDir is where recordings go that no argument sends elsewhere.
const DefaultDir = "/var/lib/seccompgen/recordings"

type options struct {
	output   string
	dir      string
	denials  bool
	init     bool
	optional bool
}

// Run is the hook: it decodes the state on stdin and starts or collects a recording.
func Run(args []string, stdin io.Reader, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	state, err := DecodeState(stdin)
	if err != nil {
		return err
	}
	if state.Status == specs.StateStopped {
		return o.stop(state)
	}
	if err := o.start(state); err != nil {
		err = fmt.Errorf("record container %s: %w", state.ID, err)
		if !o.optional {
			return err
		}
		fmt.Fprintf(stderr, "seccompgen: %v; the container runs unrecorded, as --optional says\n", err)
	}
	return nil
}

func parse(args []string, stderr io.Writer) (*options, error) {
	o := &options{}
	f := flag.NewFlagSet("oci-hook", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.output, "output", "", "write the recording to this `file` (default: DIR/ID.json)")
	f.StringVar(&o.dir, "dir", DefaultDir, "write recordings into this `directory`")
	f.BoolVar(&o.denials, "denials", false, "record the calls that the container's filter refuses too")
	f.BoolVar(&o.init, "init", false, "the container's first program is an init: its calls are the runtime's, its child is the workload")
	f.BoolVar(&o.optional, "optional", false, "let the container run when recording cannot start")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	// Engines append the name of the stage; nothing else may follow.
	if rest := f.Args(); len(rest) > 1 {
		return nil, fmt.Errorf("unexpected arguments %q", rest[1:])
	}
	for _, path := range []string{o.output, o.dir} {
		if path != "" && !filepath.IsAbs(path) {
			return nil, fmt.Errorf("output %q: give an absolute path", path)
		}
	}
	return o, nil
}

func (o *options) path(s *specs.State) string {
	if o.output != "" {
		return o.output
	}
	return filepath.Join(o.dir, s.ID+".json")
}

func (o *options) start(s *specs.State) error {
	spec, err := readConfig(s.Bundle)
	if err != nil {
		return err
	}
	path := o.path(s)
	if o.output == "" {
		if err := os.MkdirAll(o.dir, 0o700); err != nil {
			return fmt.Errorf("make the directory of the recordings: %w", err)
		}
	}
	filter := spec.Linux != nil && spec.Linux.Seccomp != nil
	return tracer.Start(s.ID, s.Pid, tracer.Options{
		// An allow-everything filter refuses nothing, and watching for denials costs the whole host.
		Denials: o.denials || filter && spec.Linux.Seccomp.DefaultAction != specs.ActAllow,
		Filter:  filter,
		Init:    o.init,
		Output:  path,
		Header: profile.Recording{
			Runtime:         profile.Runtime{Name: parentExe()},
			NoNewPrivileges: spec.Process.NoNewPrivileges,
			Workload:        workload(spec),
		},
	})
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
	exe, err := os.Readlink("/proc/" + strconv.Itoa(os.Getppid()) + "/exe")
	if err != nil {
		return ""
	}
	return exe
}

func readConfig(bundle string) (*specs.Spec, error) {
	data, err := os.ReadFile(filepath.Join(bundle, "config.json"))
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

// stop collects. Whatever fails, a file says so: an absent recording would be taken for one that is still to come.
func (o *options) stop(s *specs.State) error {
	path := o.path(s)
	err := tracer.Collect(s.ID, func(r *profile.Recording) error {
		r.Runtime = runtimeOf(r.Runtime.Name)
		return write(path, r)
	})
	if err == nil {
		return nil
	}
	if errors.Is(err, tracer.ErrNotRecording) && o.optional {
		return nil
	}
	err = fmt.Errorf("collect the recording of container %s: %w", s.ID, err)
	r := &profile.Recording{ID: s.ID, Runs: []profile.Run{{ID: s.ID, Exit: -1}}, Workload: profile.Workload{Args: []string{}}}
	r.Drop(profile.DropCollect, 1)
	if _, statErr := os.Stat(path); statErr == nil {
		return err // never over evidence
	}
	return errors.Join(err, write(path, r))
}

// runtimeOf names a runtime by its executable, and asks it for its version.
func runtimeOf(exe string) profile.Runtime {
	r := profile.Runtime{Name: filepath.Base(exe)}
	if !filepath.IsAbs(exe) {
		return r
	}
	out, err := exec.Command(exe, "--version").Output()
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
