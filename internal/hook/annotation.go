package hook

import (
	"cmp"
	"errors"
	"fmt"
	"log/syslog"
	"maps"
	"path/filepath"
	"slices"
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

// Asked returns the annotation by which a container of a pod asks for a recording, or "". id and name are what NRI calls the
// container, where annotations are the pod's own words.
func Asked(annotations map[string]string, id, name string) (key, value string, err error) {
	all := maps.Clone(annotations)
	maps.DeleteFunc(all, func(key, _ string) bool {
		return slices.Contains(typeAnnotations, key) || key == crioNameAnnotation || key == criNameAnnotation
	})
	all[containerNameAnnotation] = cmp.Or(nameInCRIO(name), name)
	r, err := asked(all)
	if r == nil {
		if err == nil {
			tellUnmatched(all, id)
		}
		return "", "", err
	}
	return r.key, r.value, nil
}

// typeAnnotations tell a pod's sandbox from its containers.
var typeAnnotations = []string{"io.kubernetes.cri-o.ContainerType", "io.kubernetes.cri.container-type"}

// asked returns what a container's annotations ask for, or nil. It does not yet look at the host's files.
func asked(annotations map[string]string) (*request, error) {
	// A pod's annotations are also those of the process that only holds its namespaces.
	for _, key := range typeAnnotations {
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

// tellUnmatched tells the log of annotations that ask for recordings of containers of other names, for a container that has
// none. Often that is as it should be; where a name was misspelt, or the engine tells none, nothing else says so.
func tellUnmatched(annotations map[string]string, id string) {
	if keys := unmatched(annotations); len(keys) > 0 {
		logLine(syslog.LOG_NOTICE, "event", "unmatched", "container", id, "name", containerName(annotations), "annotations", strings.Join(keys, " "))
	}
}

// unmatched returns these annotations of a container that [asked] finds nothing for.
func unmatched(annotations map[string]string) []string {
	if slices.ContainsFunc(typeAnnotations, func(key string) bool { return annotations[key] == "sandbox" }) {
		return nil
	}
	if _, _, ok := recordAnnotation(annotations); ok { // "false"
		return nil
	}
	var keys []string
	for key, value := range annotations {
		if (strings.HasPrefix(key, RecordAnnotation+"/") || strings.HasPrefix(key, TraceAnnotation+"/")) && value != "false" {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// What engines say of a container of a pod. CRI-O's Name is k8s_CONTAINER_POD_NAMESPACE_UID_ATTEMPT; older ones have the
// kubelet's label too, as an annotation.
const (
	containerNameAnnotation = "io.kubernetes.container.name"
	crioNameAnnotation      = "io.kubernetes.cri-o.Name"
	criNameAnnotation       = "io.kubernetes.cri.container-name" // containerd's
	sandboxAnnotation       = "io.kubernetes.cri-o.SandboxID"
	criSandboxAnnotation    = "io.kubernetes.cri.sandbox-id"
)

// containerName returns the name that a container has in its pod, or "".
func containerName(annotations map[string]string) string {
	return cmp.Or(oneOf(nameInCRIO(annotations[crioNameAnnotation]), nameIn(annotations, 63, criNameAnnotation)), nameIn(annotations, 63, containerNameAnnotation))
}

// nameInCRIO returns the name in its pod of the container that CRI-O calls so, or "".
func nameInCRIO(long string) string {
	parts := strings.Split(long, "_")
	if len(parts) != 6 || parts[0] != "k8s" || !wrapper.IsName(parts[1], 63, "-") {
		return ""
	}
	return parts[1]
}

// sandboxID returns the id of a container's pod, or "". It is the same for a container that the kubelet starts again,
// which has a new id of its own.
func sandboxID(annotations map[string]string) string {
	return oneOf(nameIn(annotations, 64, sandboxAnnotation), nameIn(annotations, 64, criSandboxAnnotation))
}

// oneOf returns what CRI-O or containerd says. Each sets its own annotation over what a stranger wrote; where both are there,
// and differ, one is a stranger's, who could add to another pod's recording.
func oneOf(crio, containerd string) string {
	if crio != "" && containerd != "" && crio != containerd {
		return ""
	}
	return cmp.Or(crio, containerd)
}

// ofPods reports whether an engine of pods made a container: its annotations are the words of whoever may make a pod. Such a
// one can give itself any annotation, and for a sandbox CRI-O even lets it replace CRI-O's own. But it can take none
// away. So it is the names that count: CRI-O sets more than twenty, of which Podman knows these four.
func ofPods(annotations map[string]string) bool {
	if manager, ok := annotations["io.container.manager"]; ok && manager != "libpod" {
		return true
	}
	for key := range annotations {
		crio, ok := strings.CutPrefix(key, "io.kubernetes.cri-o.")
		if ok && !slices.Contains([]string{"Created", "TTY", "ContainerType", "SandboxID"}, crio) || strings.HasPrefix(key, "io.kubernetes.cri.") {
			return true
		}
	}
	return false
}

func nameIn(annotations map[string]string, most int, key string) string {
	if name := annotations[key]; wrapper.IsName(name, most, "-") {
		return name
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
