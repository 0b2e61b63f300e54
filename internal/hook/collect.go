package hook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/syslog"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seccompgen/seccompgen/internal/annotation"
	"github.com/seccompgen/seccompgen/internal/dropin"
	"github.com/seccompgen/seccompgen/internal/ociruntime"
	"github.com/seccompgen/seccompgen/internal/programs"
	"github.com/seccompgen/seccompgen/internal/recordings"
	"github.com/seccompgen/seccompgen/profile"
	"github.com/seccompgen/seccompgen/tracer"
)

// This file is the end of a container: its recording is taken out of the recorder, and kept.

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
		err = errors.New("nothing says where it belongs")
	}
	if err == nil {
		err = o.collect(s.ID, n.Bundle, t)
	}
	if _, kept := errors.AsType[errKept](err); t.file == "" && (err == nil || kept) {
		err = errors.Join(err, o.inDir(func(dir *recordings.Dir) error { return dir.NoteCollected(s.ID) }))
	}
	if err != nil {
		return "", fmt.Errorf("collect the recording of container %s: %w", s.ID, err)
	}
	return o.outputOf(t), nil
}

// wasCollected reports whether Collect came before, and forgets it.
func (o *options) wasCollected(id string) (was bool) {
	err := o.inDir(func(dir *recordings.Dir) error {
		was = dir.WasCollected(id)
		return nil
	})
	return was && err == nil
}

// errKept says that what was to be made of a recording was not, and that the recording is kept.
type errKept struct{ error }

func (e errKept) Unwrap() error { return e.error }

// collect takes the recording out of the recorder, and writes what it becomes.
func (o *options) collect(id, bundle string, t *target) error {
	var after error
	err := o.recorder.Collect(id, func(all []profile.Program) programs.Looked { return o.look(bundle, all) }, func(r *profile.Recording) error {
		r.Runtime = ociruntime.Executed(r.Runtime)
		var err error
		after, err = o.finish(t, r)
		return err
	})
	if err == nil && after != nil {
		return errKept{after}
	}
	if err == nil {
		o.report(syslog.LOG_INFO, "recorded", "container", id, "output", o.outputOf(t))
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
		return fmt.Errorf("no profile in %s: %w; the recording is %s", t.trace.Output, after, filepath.Join(o.dir, file)), err
	}
	file, all, err := o.keep(t, r)
	if err != nil || !t.profile {
		return nil, err
	}
	data, after := o.build(nil, all)
	if after == nil {
		after = o.inDir(func(dir *recordings.Dir) error { return dir.KeepProfile(t.name, data) })
	}
	if after != nil {
		after = fmt.Errorf("no profile: %w; the recording is %s", after, filepath.Join(o.dir, file))
	}
	return after, nil
}

// collectStale collects the recordings of containers that were made and never started.
func (o *options) collectStale() {
	list, err := tracer.List()
	if err != nil {
		return // Start will say it better
	}
	for _, s := range list {
		if !s.Stale(o.grace) {
			continue
		}
		err := tracer.Collect(s.ID, func(r *profile.Recording) error {
			r.Runtime = ociruntime.Executed(r.Runtime)
			_, _, err := o.keep(&target{name: s.ID}, r)
			return err
		})
		if err != nil && !errors.Is(err, tracer.ErrNotRecording) {
			o.report(syslog.LOG_ERR, "failed", "container", s.ID, "error", err.Error())
		} else {
			o.report(syslog.LOG_WARNING, "never started", "container", s.ID, "output", filepath.Join(o.dir, s.ID+".json"))
		}
	}
}

func (o *options) inDir(do func(*recordings.Dir) error) error {
	dir, err := recordings.Open(o.dir)
	if err != nil {
		return err
	}
	return errors.Join(do(dir), dir.Close())
}

// keep writes the recording into the directory.
func (o *options) keep(t *target, r *profile.Recording) (file string, all *profile.Recording, err error) {
	err = o.inDir(func(dir *recordings.Dir) (err error) {
		file, all, err = dir.Keep(t.name, t.container != "" && t.sandbox != "", r)
		return err
	})
	return file, all, err
}

// writeTrace does what the drop-in's annotation asks for.
func (o *options) writeTrace(t *annotation.Trace, r *profile.Recording) error {
	input, err := inputOf(t)
	if err != nil {
		return err
	}
	data, err := o.build(input, r)
	if err != nil {
		return err
	}
	return recordings.WriteTrace(t.Output, data)
}

// build makes the drop-in's profile: what was seen, in all phases, and for the ABIs seen.
func (o *options) build(input []byte, r *profile.Recording) ([]byte, error) {
	p, _, err := profile.Build([]*profile.Recording{r}, profile.BuildOptions{Policy: profile.Policy(o.policy)})
	if err != nil {
		return nil, err
	}
	return dropin.Extend(input, p)
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
