package hook

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// maxState bounds what a runtime may send: annotations come from whoever may create a container.
const maxState = 1 << 20

// idPattern is what runc and crun accept as a container's id, and what is safe as a file name.
var idPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_+.-]*$`)

// DecodeState reads the OCI state that a runtime hands to its hooks, and checks all that the hook relies on. Keys
// that the runtime-spec does not name are let through, as it demands: crun sends "root".
func DecodeState(from io.Reader) (*specs.State, error) {
	data, err := io.ReadAll(io.LimitReader(from, maxState+1))
	if err != nil {
		return nil, fmt.Errorf("read the OCI state from stdin: %w", err)
	}
	if len(data) > maxState {
		return nil, fmt.Errorf("OCI state is larger than %d bytes", maxState)
	}
	if len(data) == 0 {
		return nil, errors.New("no OCI state on stdin: this program is a hook, an OCI runtime runs it")
	}
	var s specs.State
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("decode the OCI state: %w", err)
	}
	switch {
	case s.Version == "":
		return nil, errors.New("OCI state has no ociVersion")
	case len(s.ID) > 200 || !idPattern.MatchString(s.ID): // with ".json" it must do as a file name
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
