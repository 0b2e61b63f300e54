package hook

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/seccompgen/seccompgen/internal/wrapper"
)

// The annotations that ask for a recording.
const (
	RecordAnnotation = wrapper.RecordAnnotation
	TraceAnnotation  = wrapper.TraceAnnotation
)

// request is what an annotation asks for.
type request struct {
	key, value string
	name       string // of RecordAnnotation; may be empty
	trace      *trace // of TraceAnnotation
}

// trace is the value of TraceAnnotation.
type trace struct {
	output string // absolute
	input  string // absolute, or empty
}

// errInvalid is how oci-seccomp-bpf-hook begins the errors that its users know.
var errInvalid = errors.New("invalid annotation")

// refusal is an error over what an annotation asks for. It prints as one line whatever the annotation holds.
type refusal struct {
	key, value string
	reason     error
}

func (r *refusal) Error() string {
	return fmt.Sprintf("annotation %s=%s: %v", r.key, shorten(r.value), r.reason)
}

func (r *refusal) Unwrap() error { return r.reason }

// shorten quotes a stranger's string for a line of text.
func shorten(s string) string {
	if len(s) > 80 {
		return fmt.Sprintf("%q (%d bytes)", s[:80], len(s))
	}
	return fmt.Sprintf("%q", s)
}

// Asked returns the annotation by which a container of a pod asks for a recording, or "".
func Asked(annotations map[string]string, container string) (key, value string, err error) {
	all := maps.Clone(annotations)
	all[containerNameAnnotation] = container
	r, err := asked(all)
	if r == nil {
		return "", "", err
	}
	return r.key, r.value, nil
}

// asked returns what a container's annotations ask for, or nil. It does not yet look at the host's files.
func asked(annotations map[string]string) (*request, error) {
	// A pod's annotations are also those of the process that only holds its namespaces.
	for _, key := range []string{"io.kubernetes.cri-o.ContainerType", "io.kubernetes.cri.container-type"} {
		if annotations[key] == "sandbox" {
			return nil, nil
		}
	}
	key, value, record := recordAnnotation(annotations)
	text, isTrace := annotations[TraceAnnotation]
	switch {
	case record && isTrace:
		return nil, &refusal{key, value, fmt.Errorf("%w: %s is there too, give one of the two", errInvalid, TraceAnnotation)}
	case record && value == "false":
		return nil, nil
	case record:
		name, err := parseName(value)
		if err != nil {
			return nil, &refusal{key, value, err}
		}
		return &request{key: key, value: value, name: name}, nil
	case isTrace:
		t, err := parseTrace(text)
		if err != nil {
			return nil, &refusal{TraceAnnotation, text, err}
		}
		return &request{key: TraceAnnotation, value: text, trace: t}, nil
	}
	return nil, nil
}

// recordAnnotation finds our annotation. That for one container of a pod goes before that for all.
func recordAnnotation(annotations map[string]string) (key, value string, ok bool) {
	if name := containerName(annotations); name != "" {
		key = RecordAnnotation + "/" + name
		if value, ok = annotations[key]; ok {
			return key, value, true
		}
	}
	value, ok = annotations[RecordAnnotation]
	return RecordAnnotation, value, ok
}

// CRI-O's names for what a container of a pod is called, and the id of the pod's sandbox.
const (
	containerNameAnnotation = "io.kubernetes.container.name"
	sandboxAnnotation       = "io.kubernetes.cri-o.SandboxID"
)

// containerName returns the name that a container has in its pod, or "".
func containerName(annotations map[string]string) string {
	return nameIn(annotations, 63, containerNameAnnotation, "io.kubernetes.cri.container-name")
}

// sandboxID returns the id of a container's pod, or "". It is the same for a container that the kubelet starts again,
// which has a new id of its own. Each engine sets its own annotation over what a stranger wrote; where both are there, and
// differ, one is a stranger's, who could add to another pod's recording.
func sandboxID(annotations map[string]string) string {
	crio, containerd := nameIn(annotations, 64, sandboxAnnotation), nameIn(annotations, 64, "io.kubernetes.cri.sandbox-id")
	if crio != "" && containerd != "" && crio != containerd {
		return ""
	}
	return cmp.Or(crio, containerd)
}

func nameIn(annotations map[string]string, most int, keys ...string) string {
	for _, key := range keys {
		if name := annotations[key]; wrapper.IsName(name, most, "-") {
			return name
		}
	}
	return ""
}

// parseName reads the value of RecordAnnotation.
func parseName(value string) (string, error) {
	if value == "" || value == "true" {
		return "", nil
	}
	if !wrapper.IsName(value, 64, "_.-") {
		return "", fmt.Errorf("%w: a name has 1 to 64 letters, digits, _, - and dots, and begins with a letter or digit", errInvalid)
	}
	return value, nil
}

// parseTrace reads the value of TraceAnnotation as oci-seccomp-bpf-hook does, and with its words. It is stricter on
// paths: no control characters and no "..".
func parseTrace(value string) (*trace, error) {
	if len(value) > 2*maxPath {
		return nil, fmt.Errorf("%w: longer than %d bytes", errInvalid, 2*maxPath)
	}
	parts := strings.Split(value, ";")
	if len(parts) > 2 {
		return nil, fmt.Errorf("%w: more than one semi-colon", errInvalid)
	}
	t := &trace{}
	for _, part := range parts {
		kind, path, to := "input", "", &t.input
		if rest, ok := strings.CutPrefix(part, "if:"); ok {
			path = rest
		} else if rest, ok := strings.CutPrefix(part, "of:"); ok {
			kind, path, to = "output", rest, &t.output
		} else {
			return nil, fmt.Errorf(`%w: must start "if:" or "of:" prefix`, errInvalid)
		}
		if *to != "" {
			return nil, fmt.Errorf("%w: two %s files", errInvalid, kind)
		}
		*to = strings.TrimSpace(path)
		if err := checkPath(*to); err != nil {
			return nil, fmt.Errorf("%w: %s file path %w", errInvalid, kind, err)
		}
	}
	if t.output == "" {
		return nil, fmt.Errorf("%w: providing output file is mandatory", errInvalid)
	}
	return t, nil
}

const maxPath = 4095 // PATH_MAX without its NUL

func checkPath(path string) error {
	switch {
	case !filepath.IsAbs(path):
		return errors.New("must be absolute")
	case len(path) > maxPath:
		return fmt.Errorf("is longer than %d bytes", maxPath)
	case !utf8.ValidString(path) || strings.ContainsFunc(path, unicode.IsControl):
		return errors.New("has control characters, or is not UTF-8")
	case strings.HasSuffix(path, "/"):
		return errors.New("is that of a directory")
	}
	for part := range strings.SplitSeq(path, "/") {
		if part == ".." || part == "." {
			return errors.New(`must not hold ".." or "."`)
		}
	}
	return nil
}
