package hook

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seccompgen/seccompgen/internal/annotation"
	"github.com/seccompgen/seccompgen/internal/journal"
	"github.com/seccompgen/seccompgen/internal/wrapper"
)

// Runtime becomes a real runtime, with the hook added to the configuration of a container that is created and asks for a
// recording. It is called in the place of [wrapper.Run], which has looked whether one can ask.
func Runtime(name string, args []string) error {
	if bundle, ok := wrapper.Created(args); ok {
		self, err := os.Executable()
		if err == nil {
			err = addHooks(bundle, self)
		}
		if err != nil {
			return fmt.Errorf("add the hook to the container's configuration: %w", err)
		}
	}
	return wrapper.Become(name, args)
}

// addHooks adds the hook to a configuration that asks for a recording. It decodes no more than it changes: what a newer
// runtime-spec has stays as it is. A configuration that cannot be read is the runtime's to complain about.
func addHooks(bundle, self string) error {
	data, err := wrapper.ReadConfig(bundle)
	if err != nil || !annotation.Asks(data) {
		return nil //nolint:nilerr // see above
	}
	changed, err := withHooks(data, self, filepath.Base(bundle))
	if err != nil || changed == nil {
		return err
	}
	return renameio.WriteFile(filepath.Join(bundle, "config.json"), changed, 0o600, renameio.WithExistingPermissions())
}

// withHooks returns the configuration of a container with the hook in it, or nil if nobody asks or it is there.
func withHooks(data []byte, self, id string) ([]byte, error) {
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
	if !annotation.Records(spec.Annotations) && spec.Annotations[annotation.TraceSyscall] == "" {
		// As for the workload, the last one counts.
		for _, env := range slices.Backward(spec.Process.Env) {
			if name, ok := strings.CutPrefix(env, annotation.RecordEnv+"="); ok {
				if spec.Annotations == nil {
					spec.Annotations = map[string]string{}
				}
				spec.Annotations[annotation.Record] = name
				break
			}
		}
	}
	if r, err := annotation.Asked(spec.Annotations); r == nil && err == nil {
		journal.Unmatched(id, annotation.ContainerName(spec.Annotations), annotation.Unmatched(spec.Annotations))
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
