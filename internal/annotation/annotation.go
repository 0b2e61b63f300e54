// Package annotation is the grammar of what asks for a recording: annotations of containers and pods, and a variable of the
// environment.
//
// What surprises: whoever may create a container writes these, so that they are data of strangers. Engines that know no hooks
// read them at every call of their runtime: this imports little, so that it starts fast.
package annotation

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// What asks for a recording.
const (
	// Record holds a name for the recording, or true. Record/CONTAINER is for that container of a pod.
	Record = "dev.seccompgen.record"
	// TraceSyscall is that of oci-seccomp-bpf-hook: of:OUTPUT[;if:INPUT].
	TraceSyscall = "io.containers.trace-syscall"
	// RecordEnv in a container's environment does what Record does: Docker tells its runtimes of no labels, and of annotations
	// only since API 1.43.
	RecordEnv = "SECCOMPGEN_RECORD"
)

// Request is what an annotation asks for.
type Request struct {
	Key, Value string
	Name       string // of Record; may be empty
	Trace      *Trace // of TraceSyscall
}

// Trace is the value of TraceSyscall.
type Trace struct {
	Output string // absolute
	Input  string // absolute, or empty
}

// ErrInvalid is how oci-seccomp-bpf-hook begins the errors that its users know.
var ErrInvalid = errors.New("invalid annotation")

// Refusal is an error over what an annotation asks for. It prints as one line whatever the annotation holds.
type Refusal struct {
	Key, Value string
	Reason     error
}

func (r *Refusal) Error() string {
	return fmt.Sprintf("annotation %s=%s: %v", r.Key, shorten(r.Value), r.Reason)
}

func (r *Refusal) Unwrap() error { return r.Reason }

// shorten quotes a stranger's string for a line of text.
func shorten(s string) string {
	if len(s) > 80 {
		return fmt.Sprintf("%q (%d bytes)", s[:80], len(s))
	}
	return fmt.Sprintf("%q", s)
}

// InPod returns the annotations of a container of a pod as its hook will see them. name is what NRI calls the container, where
// annotations are the pod's own words.
func InPod(annotations map[string]string, name string) map[string]string {
	all := map[string]string{ContainerNameKey: cmp.Or(nameInCRIO(name), name)}
	for key, value := range annotations {
		if !slices.Contains(typeKeys, key) && key != crioNameKey && key != criNameKey && key != ContainerNameKey {
			all[key] = value
		}
	}
	return all
}

// typeKeys tell a pod's sandbox from its containers.
var typeKeys = []string{"io.kubernetes.cri-o.ContainerType", "io.kubernetes.cri.container-type"}

// Asked returns what a container's annotations ask for, or nil. It does not yet look at the host's files.
func Asked(annotations map[string]string) (*Request, error) {
	// A pod's annotations are also those of the process that only holds its namespaces.
	for _, key := range typeKeys {
		if annotations[key] == "sandbox" {
			return nil, nil
		}
	}
	key, value, record := recordAnnotation(annotations)
	text, isTrace := annotations[TraceSyscall]
	switch {
	case record && isTrace:
		return nil, &Refusal{key, value, fmt.Errorf("%w: %s is there too, give one of the two", ErrInvalid, TraceSyscall)}
	case record && value == "false":
		return nil, nil
	case record:
		name, err := ParseName(value)
		if err != nil {
			return nil, &Refusal{key, value, err}
		}
		return &Request{Key: key, Value: value, Name: name}, nil
	case isTrace:
		t, err := parseTrace(text)
		if err != nil {
			return nil, &Refusal{TraceSyscall, text, err}
		}
		return &Request{Key: TraceSyscall, Value: text, Trace: t}, nil
	}
	return nil, nil
}

// Records reports whether a container has an annotation of ours, whatever its value.
func Records(annotations map[string]string) bool {
	_, _, ok := recordAnnotation(annotations)
	return ok
}

// recordAnnotation finds our annotation. That for one container of a pod goes before that for all.
func recordAnnotation(annotations map[string]string) (key, value string, ok bool) {
	if name := ContainerName(annotations); name != "" {
		key = Record + "/" + name
		if value, ok = annotations[key]; ok {
			return key, value, true
		}
	}
	value, ok = annotations[Record]
	return Record, value, ok
}

// Unmatched returns the annotations that ask for recordings of containers of other names, of a container that has none. Often
// that is as it should be; where a name was misspelt, or the engine gives none, nothing else says so.
func Unmatched(annotations map[string]string) []string {
	if slices.ContainsFunc(typeKeys, func(key string) bool { return annotations[key] == "sandbox" }) {
		return nil
	}
	if _, _, ok := recordAnnotation(annotations); ok { // "false"
		return nil
	}
	var keys []string
	for key, value := range annotations {
		if (strings.HasPrefix(key, Record+"/") || strings.HasPrefix(key, TraceSyscall+"/")) && value != "false" {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// What engines say of a container of a pod. CRI-O's Name is k8s_CONTAINER_POD_NAMESPACE_UID_ATTEMPT; older ones have the
// kubelet's label too, as an annotation.
const (
	ContainerNameKey = "io.kubernetes.container.name"
	crioNameKey      = "io.kubernetes.cri-o.Name"
	criNameKey       = "io.kubernetes.cri.container-name" // containerd's
	SandboxKey       = "io.kubernetes.cri-o.SandboxID"
	criSandboxKey    = "io.kubernetes.cri.sandbox-id"
)

// ContainerName returns the name that a container has in its pod, or "".
func ContainerName(annotations map[string]string) string {
	return cmp.Or(oneOf(nameInCRIO(annotations[crioNameKey]), nameIn(annotations, 63, criNameKey)), nameIn(annotations, 63, ContainerNameKey))
}

// nameInCRIO returns the name in its pod of the container that CRI-O calls so, or "".
func nameInCRIO(long string) string {
	parts := strings.Split(long, "_")
	if len(parts) != 6 || parts[0] != "k8s" || !IsName(parts[1], 63, "-") {
		return ""
	}
	return parts[1]
}

// SandboxID returns the id of a container's pod, or "". It is the same for a container that the kubelet starts again,
// which has a new id of its own.
func SandboxID(annotations map[string]string) string {
	return oneOf(nameIn(annotations, 64, SandboxKey), nameIn(annotations, 64, criSandboxKey))
}

// oneOf returns what CRI-O or containerd says. Each sets its own annotation over what a stranger wrote; where both are there,
// and differ, one is a stranger's, who could add to another pod's recording.
func oneOf(crio, containerd string) string {
	if crio != "" && containerd != "" && crio != containerd {
		return ""
	}
	return cmp.Or(crio, containerd)
}

// OfPods reports whether an engine of pods made a container: its annotations are the words of whoever may make a pod. Such a
// one can give itself any annotation, and for a sandbox CRI-O even lets it replace CRI-O's own. But it can take none
// away. So it is the names that count: CRI-O sets more than twenty, of which Podman knows these four.
func OfPods(annotations map[string]string) bool {
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
	if name := annotations[key]; IsName(name, most, "-") {
		return name
	}
	return ""
}

// ParseName reads the value of Record.
func ParseName(value string) (string, error) {
	if value == "" || value == "true" {
		return "", nil
	}
	if !IsName(value, 64, "_.-") {
		return "", fmt.Errorf("%w: a name has 1 to 64 letters, digits, _, - and dots, and begins with a letter or digit", ErrInvalid)
	}
	return value, nil
}

// parseTrace reads the value of TraceSyscall as oci-seccomp-bpf-hook does, and with its words. It is stricter on
// paths: no control characters and no "..".
func parseTrace(value string) (*Trace, error) {
	if len(value) > 2*maxPath {
		return nil, fmt.Errorf("%w: longer than %d bytes", ErrInvalid, 2*maxPath)
	}
	parts := strings.Split(value, ";")
	if len(parts) > 2 {
		return nil, fmt.Errorf("%w: more than one semi-colon", ErrInvalid)
	}
	t := &Trace{}
	for _, part := range parts {
		kind, path, to := "input", "", &t.Input
		if rest, ok := strings.CutPrefix(part, "if:"); ok {
			path = rest
		} else if rest, ok := strings.CutPrefix(part, "of:"); ok {
			kind, path, to = "output", rest, &t.Output
		} else {
			return nil, fmt.Errorf(`%w: must start "if:" or "of:" prefix`, ErrInvalid)
		}
		if *to != "" {
			return nil, fmt.Errorf("%w: two %s files", ErrInvalid, kind)
		}
		*to = strings.TrimSpace(path)
		if err := checkPath(*to); err != nil {
			return nil, fmt.Errorf("%w: %s file path %w", ErrInvalid, kind, err)
		}
	}
	if t.Output == "" {
		return nil, fmt.Errorf("%w: providing output file is mandatory", ErrInvalid)
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

// Mentions reports whether a state or configuration can hold an annotation of ours.
func Mentions(data []byte) bool {
	return bytes.Contains(data, []byte(Record)) || bytes.Contains(data, []byte(TraceSyscall))
}

// Asks reports whether a configuration can ask for a recording.
func Asks(config []byte) bool {
	return Mentions(config) || bytes.Contains(config, []byte(RecordEnv+"="))
}

// IsName reports whether a stranger's string may begin a file's name: letters, digits and some others, of which none at the
// beginning; no separator, no leading dot, nothing that a shell or a terminal minds. (A regexp would cost every start.)
func IsName(s string, most int, others string) bool {
	for i := range len(s) {
		c := s[i]
		alnum := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !alnum && (i == 0 || strings.IndexByte(others, c) < 0) {
			return false
		}
	}
	return s != "" && len(s) <= most
}

// IsID reports whether a container's id is one that runc and crun accept, and does as a file name with ".json".
func IsID(id string) bool { return IsName(id, 200, "_+.-") }
