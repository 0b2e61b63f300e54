package hook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// RecordEnv in a container's environment asks for a recording as RecordAnnotation does: Docker tells its runtimes of
// no labels, and of annotations only since API 1.43.
const RecordEnv = "SECCOMPGEN_RECORD"

// runtimePrefix begins the names under which this program is an OCI runtime: seccompgen-runc is runc with the hook.
const runtimePrefix = "seccompgen-"

// RuntimeOf returns the runtime that a program's name stands for.
func RuntimeOf(argv0 string) (string, bool) {
	return strings.CutPrefix(filepath.Base(argv0), runtimePrefix)
}

// Runtime becomes a real runtime, for engines that know no hooks. Where a container that asks for a recording is created
// it adds the hook to its configuration before; all other calls are handed over as they are.
func Runtime(name string, args []string) error {
	path, err := exec.LookPath(name)
	if err != nil {
		return fmt.Errorf("find the runtime: %w", err)
	}
	if bundle, ok := created(args); ok {
		self, err := os.Executable()
		if err == nil {
			err = addHooks(filepath.Join(bundle, "config.json"), self)
		}
		if err != nil {
			return fmt.Errorf("add the hook to the container's configuration: %w", err)
		}
	}
	return fmt.Errorf("execute %s: %w", path, unix.Exec(path, append([]string{path}, args...), os.Environ()))
}

// created returns the bundle of a runtime's command line that creates a container.
func created(args []string) (bundle string, ok bool) {
	i := slices.IndexFunc(args, func(a string) bool { return a == "create" || a == "run" })
	if i < 0 {
		return "", false
	}
	bundle = "."
	for rest := args[i+1:]; len(rest) > 0; rest = rest[1:] {
		name, value, has := strings.Cut(rest[0], "=")
		if name != "--bundle" && name != "-bundle" && name != "-b" {
			continue
		}
		if !has && len(rest) > 1 {
			value = rest[1]
		}
		bundle = value
	}
	return bundle, true
}

// addHooks adds the hook to a configuration that asks for a recording. It decodes no more than it changes: what a newer
// runtime-spec has stays as it is. A configuration that cannot be read is the runtime's to complain about.
func addHooks(path, self string) error {
	data, err := readFile(path)
	if err != nil || !mentions(data) && !bytes.Contains(data, []byte(RecordEnv+"=")) {
		return nil //nolint:nilerr // see above
	}
	changed, err := withHooks(data, self)
	if err != nil || changed == nil {
		return err
	}
	return renameio.WriteFile(path, changed, 0o600, renameio.WithExistingPermissions())
}

// withHooks returns the configuration with the hook in it, or nil if nobody asks or it is there.
func withHooks(data []byte, self string) ([]byte, error) {
	var spec struct {
		Process     *specs.Process
		Annotations map[string]string
		Hooks       map[string][]json.RawMessage
	}
	var config map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal(data, &config), json.Unmarshal(data, &spec)); err != nil {
		return nil, err
	}
	if spec.Process == nil {
		return nil, nil
	}
	if _, _, ok := recordAnnotation(spec.Annotations); !ok && spec.Annotations[TraceAnnotation] == "" {
		// As for the workload, the last one counts.
		for _, env := range slices.Backward(spec.Process.Env) {
			if name, ok := strings.CutPrefix(env, RecordEnv+"="); ok {
				if spec.Annotations == nil {
					spec.Annotations = map[string]string{}
				}
				spec.Annotations[RecordAnnotation] = name
				break
			}
		}
	}
	if r, err := asked(spec.Annotations); r == nil && err == nil {
		return nil, nil
	}
	hook, err := json.Marshal(specs.Hook{Path: self, Args: []string{"oci-hook"}, Timeout: &hookTimeout})
	if err != nil {
		return nil, err
	}
	if spec.Hooks == nil {
		spec.Hooks = map[string][]json.RawMessage{}
	}
	for _, stage := range []string{"createRuntime", "poststop"} {
		var there specs.Hook
		if slices.ContainsFunc(spec.Hooks[stage], func(h json.RawMessage) bool { return json.Unmarshal(h, &there) == nil && there.Path == self }) {
			return nil, nil
		}
		spec.Hooks[stage] = append(spec.Hooks[stage], hook)
	}
	if config["hooks"], err = json.Marshal(spec.Hooks); err != nil {
		return nil, err
	}
	if config["annotations"], err = json.Marshal(spec.Annotations); err != nil {
		return nil, err
	}
	return json.Marshal(config)
}

var hookTimeout = 60 // seconds
