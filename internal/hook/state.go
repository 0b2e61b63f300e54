package hook

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seccompgen/seccompgen/internal/annotation"
)

// maxState bounds what a runtime may send: annotations come from whoever may create a container.
const maxState = 1 << 20

// maxDrain bounds the search for our annotations in a state that is too large: who did not ask is not refused for it.
const maxDrain = 64 << 20

// readState reads the OCI state that a runtime hands to its hooks.
func readState(from io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(from, maxDrain))
	if err != nil {
		return nil, fmt.Errorf("read the OCI state from stdin: %w", err)
	}
	if len(data) == 0 {
		return nil, errors.New("no OCI state on stdin: this program is a hook, an OCI runtime runs it")
	}
	return data, nil
}

// decodeState decodes the state and checks all that the hook relies on. Keys that the runtime-spec does not name are
// let through, as it demands: crun sends "root".
func decodeState(data []byte) (*specs.State, error) {
	if len(data) > maxState {
		return nil, fmt.Errorf("OCI state is larger than %d bytes", maxState)
	}
	var s specs.State
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("decode the OCI state: %w", err)
	}
	switch {
	case s.Version == "":
		return nil, errors.New("OCI state has no ociVersion")
	case !annotation.IsID(s.ID):
		return nil, fmt.Errorf("OCI state has the container id %.64q, which is not one", s.ID)
	case !filepath.IsAbs(s.Bundle):
		return nil, fmt.Errorf("OCI state of %q has the bundle %q, which is not an absolute path", s.ID, s.Bundle)
	case s.Pid < 0:
		return nil, fmt.Errorf("OCI state of %q has the pid %d", s.ID, s.Pid)
	}
	switch s.Status {
	case specs.StateCreating, specs.StateCreated, specs.StateRunning:
		if s.Pid <= 1 {
			return nil, fmt.Errorf("OCI state of %q is %q with pid %d: register this hook as createRuntime or prestart, which get the host's pid", s.ID, s.Status, s.Pid)
		}
	case specs.StateStopped:
	default:
		return nil, fmt.Errorf("OCI state of %q has the status %q", s.ID, s.Status)
	}
	return &s, nil
}
