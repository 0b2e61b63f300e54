// Package format writes profiles in the formats of the programs that read them.
package format

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"go.yaml.in/yaml/v3"

	"github.com/seccompgen/seccompgen/profile"
)

// ErrCannotSay says that a format has no way to say what a profile says.
var ErrCannotSay = errors.New("the format cannot say this")

// Format is a way to write a profile.
type Format string

// The formats.
const (
	OCI      Format = "oci"      // runtime-spec linux.seccomp, which runc, crun and the kubelet take
	Docker   Format = "docker"   // with comments and archMap
	Podman   Format = "podman"   // the same, less what Podman's reader leaves out
	SPO      Format = "spo"      // a SeccompProfile of the Security Profiles Operator
	Pod      Format = "pod"      // the part of a pod's specification that names the profile
	Artifact Format = "artifact" // an OCI artifact in an image layout
)

// All returns all formats.
func All() []Format {
	return []Format{OCI, Docker, Podman, SPO, Pod, Artifact}
}

// dockerProfile is the superset of runtime-spec that Docker and containers-common read.
type dockerProfile struct {
	DefaultAction    specs.LinuxSeccompAction `json:"defaultAction"`
	DefaultErrnoRet  *uint                    `json:"defaultErrnoRet,omitempty"`
	Architectures    []specs.Arch             `json:"architectures,omitempty"`
	ArchMap          []archFamily             `json:"archMap,omitempty"`
	Flags            []specs.LinuxSeccompFlag `json:"flags,omitempty"`
	ListenerPath     string                   `json:"listenerPath,omitempty"`
	ListenerMetadata string                   `json:"listenerMetadata,omitempty"`
	Syscalls         []dockerSyscall          `json:"syscalls"`
}

type archFamily struct {
	Architecture     specs.Arch   `json:"architecture"`
	SubArchitectures []specs.Arch `json:"subArchitectures"`
}

type dockerSyscall struct {
	Names    []string                 `json:"names"`
	Action   specs.LinuxSeccompAction `json:"action"`
	ErrnoRet *uint                    `json:"errnoRet,omitempty"`
	Args     []specs.LinuxSeccompArg  `json:"args,omitempty"`
	Comment  string                   `json:"comment,omitempty"`
}

// EncodeDocker writes a profile in Docker's format, in groups of calls that are there for the same reasons. w may be nil.
func EncodeDocker(p *specs.LinuxSeccomp, w *profile.Why) ([]byte, error) {
	d := dockerProfile{
		DefaultAction: p.DefaultAction, DefaultErrnoRet: p.DefaultErrnoRet, Flags: p.Flags, ListenerPath: p.ListenerPath,
		ListenerMetadata: p.ListenerMetadata, Syscalls: []dockerSyscall{},
	}
	if d.ArchMap = archMap(p.Architectures); d.ArchMap == nil {
		d.Architectures = p.Architectures
	}
	comments := map[string]string{}
	if w != nil {
		comments = commentsOf(w)
	}
	for _, s := range p.Syscalls {
		groups := map[string][]string{}
		for _, name := range s.Names {
			comment := comments[commentKey(name, s.Action)]
			groups[comment] = append(groups[comment], name)
		}
		for _, comment := range slices.SortedFunc(maps.Keys(groups), compareComments) {
			d.Syscalls = append(d.Syscalls, dockerSyscall{groups[comment], s.Action, s.ErrnoRet, s.Args, comment})
		}
	}
	var b bytes.Buffer
	if err := profile.WriteJSON(&b, d); err != nil {
		return nil, fmt.Errorf("encode the profile: %w", err)
	}
	return b.Bytes(), nil
}

// EncodePodman writes a profile for Podman, Buildah and CRI-O, whose reader (containers-common, pkg/seccomp) takes Docker's
// format less flags, listeners and notification.
func EncodePodman(p *specs.LinuxSeccomp, w *profile.Why) ([]byte, error) {
	if len(p.Flags) > 0 {
		return nil, fmt.Errorf("%w: containers-common leaves flags out", ErrCannotSay)
	}
	if err := noListener(p, "containers-common leaves listeners out"); err != nil {
		return nil, err
	}
	return EncodeDocker(p, w)
}

func noListener(p *specs.LinuxSeccomp, text string) error {
	notifies := p.DefaultAction == specs.ActNotify || slices.ContainsFunc(p.Syscalls, func(s specs.LinuxSyscall) bool { return s.Action == specs.ActNotify })
	if p.ListenerPath != "" || p.ListenerMetadata != "" || notifies {
		return fmt.Errorf("%w: %s (SCMP_ACT_NOTIFY, listenerPath, listenerMetadata)", ErrCannotSay, text)
	}
	return nil
}

// families are the ABIs that a kernel of the first one runs too.
var families = [][]specs.Arch{{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}, {specs.ArchAARCH64, specs.ArchARM}}

// archMap returns the architectures as families, if more than one of a family is listed and the map can say it: Docker takes
// the family whose first member is the host's, so that a family without it would be lost.
func archMap(abis []specs.Arch) []archFamily {
	var all []archFamily
	several, n := false, 0
	for _, family := range families {
		var listed []specs.Arch
		for _, abi := range family {
			if slices.Contains(abis, abi) {
				listed = append(listed, abi)
			}
		}
		if len(listed) == 0 {
			continue
		}
		if listed[0] != family[0] {
			return nil
		}
		n += len(listed)
		several = several || len(listed) > 1
		all = append(all, archFamily{listed[0], append([]specs.Arch{}, listed[1:]...)})
	}
	if !several || n != len(abis) {
		return nil
	}
	return all
}

// kindTexts say in an entry's comment what a kind of reason means; why.json has the reasons themselves.
var kindTexts = []struct {
	kind profile.Kind
	text string
}{
	{profile.KindObserved, "made by the workload"},
	{profile.KindOCIRuntime, "made by the OCI runtime under the filter, before the workload"},
	{profile.KindGoRuntime, "made by the Go runtime at any moment, without the program asking for it"},
	{profile.KindImplicit, "can come at any moment without any program asking for it"},
	{profile.KindReachable, "in the program's machine code"},
	{profile.KindErrno, "the answer makes callers fall back on another call"},
	{profile.KindArgument, "for the arguments seen only"},
	{profile.KindPortability, "made instead on other kernels or ABIs"},
	{profile.KindRepair, "added by verify --repair"},
}

// compareComments orders groups by the first kind of their reasons: what was seen comes first.
func compareComments(a, b string) int {
	first := func(comment string) int {
		for i, k := range kindTexts {
			if strings.HasPrefix(comment, k.text) {
				return i
			}
		}
		return len(kindTexts)
	}
	return cmp.Or(cmp.Compare(first(a), first(b)), cmp.Compare(a, b))
}

func commentKey(name string, action specs.LinuxSeccompAction) string {
	return name + " " + string(action)
}

// commentsOf returns a comment for each call: what the kinds of its reasons say.
func commentsOf(w *profile.Why) map[string]string {
	kinds := map[string][]profile.Kind{}
	for _, e := range w.Entries {
		key := commentKey(e.Name, e.Action)
		for _, r := range e.Reasons {
			if !slices.Contains(kinds[key], r.Kind) {
				kinds[key] = append(kinds[key], r.Kind)
			}
		}
	}
	comments := map[string]string{}
	for key, all := range kinds {
		slices.Sort(all)
		var parts []string
		for _, k := range kindTexts {
			if slices.Contains(all, k.kind) {
				parts = append(parts, k.text)
			}
		}
		for _, kind := range all {
			if !slices.ContainsFunc(kindTexts, func(k struct {
				kind profile.Kind
				text string
			},
			) bool {
				return k.kind == kind
			}) {
				parts = append(parts, string(kind))
			}
		}
		comments[key] = strings.Join(parts, "; ")
	}
	return comments
}

// The SeccompProfile of the Security Profiles Operator, v1 (api/seccompprofile/v1/seccompprofile_types.go).
type spoProfile struct {
	APIVersion string      `yaml:"apiVersion"`
	Kind       string      `yaml:"kind"`
	Metadata   spoMetadata `yaml:"metadata"`
	Spec       spoSpec     `yaml:"spec"`
}

type spoMetadata struct {
	Name string `yaml:"name"`
}

type spoSpec struct {
	DefaultAction    string       `yaml:"defaultAction"`
	Architectures    []string     `yaml:"architectures,omitempty"`
	Flags            []string     `yaml:"flags,omitempty"`
	ListenerPath     string       `yaml:"listenerPath,omitempty"`
	ListenerMetadata string       `yaml:"listenerMetadata,omitempty"`
	Syscalls         []spoSyscall `yaml:"syscalls,omitempty"`
}

type spoSyscall struct {
	Names    []string `yaml:"names"`
	Action   string   `yaml:"action"`
	ErrnoRet int32    `yaml:"errnoRet,omitempty"`
	Args     []spoArg `yaml:"args,omitempty"`
}

type spoArg struct {
	Index    int32  `yaml:"index"`
	Value    int64  `yaml:"value,omitempty"`
	ValueTwo int64  `yaml:"valueTwo,omitempty"`
	Op       string `yaml:"op"`
}

var (
	objectName  = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)
	spoListener = regexp.MustCompile(`^/var/run/security-profiles-operator/[a-zA-Z0-9_\-.]+$`)
	notInName   = regexp.MustCompile(`[^a-z0-9]+`)
)

// eperm is what a default action without an errno answers.
const eperm = 1

// spoMaxErrno is the highest errno of its schema.
const spoMaxErrno = 4095

// ObjectName makes a Kubernetes object's name from any text, such as an import path.
func ObjectName(text string) string {
	const most = 253
	name := strings.Trim(notInName.ReplaceAllString(strings.ToLower(text), "-"), "-")
	return cmp.Or(strings.Trim(name[:min(len(name), most)], "-"), "profile")
}

func checkObjectName(name string) error {
	const most = 253
	if len(name) > most || !objectName.MatchString(name) {
		return fmt.Errorf("name %q is not a Kubernetes object's name: lower case letters, digits, - and . only", name)
	}
	return nil
}

// EncodeSPO writes a SeccompProfile for the Security Profiles Operator.
func EncodeSPO(p *specs.LinuxSeccomp, name string) ([]byte, error) {
	if err := checkObjectName(name); err != nil {
		return nil, err
	}
	if v := profile.Resolve(p).Default; v.Errno > eperm || p.DefaultErrnoRet != nil && v.Errno == 0 && v.Action == specs.ActErrno {
		return nil, fmt.Errorf("%w: SeccompProfile has no defaultErrnoRet, and the profile answers %s by default: list the calls instead", ErrCannotSay, v)
	}
	if p.DefaultAction == specs.ActNotify {
		return nil, fmt.Errorf("%w: SeccompProfile has no SCMP_ACT_NOTIFY as the default", ErrCannotSay)
	}
	if p.ListenerPath != "" && !spoListener.MatchString(p.ListenerPath) {
		return nil, fmt.Errorf("%w: SeccompProfile wants a listenerPath below /var/run/security-profiles-operator", ErrCannotSay)
	}
	out := spoProfile{
		APIVersion: "security-profiles-operator.x-k8s.io/v1", Kind: "SeccompProfile", Metadata: spoMetadata{name},
		Spec: spoSpec{DefaultAction: string(p.DefaultAction), ListenerPath: p.ListenerPath, ListenerMetadata: p.ListenerMetadata},
	}
	for _, abi := range p.Architectures {
		out.Spec.Architectures = append(out.Spec.Architectures, string(abi))
	}
	for _, flag := range p.Flags {
		out.Spec.Flags = append(out.Spec.Flags, string(flag))
	}
	for _, s := range p.Syscalls {
		names := slices.Sorted(slices.Values(s.Names))
		o := spoSyscall{Names: slices.Compact(names), Action: string(s.Action)} // names are a set there
		if s.ErrnoRet != nil {
			if *s.ErrnoRet == 0 && s.Action == specs.ActErrno || *s.ErrnoRet > spoMaxErrno {
				return nil, fmt.Errorf("%w: SeccompProfile has no errnoRet %d (call %s)", ErrCannotSay, *s.ErrnoRet, s.Names[0])
			}
			o.ErrnoRet = int32(*s.ErrnoRet)
		}
		for _, a := range s.Args {
			if a.Value > math.MaxInt64 || a.ValueTwo > math.MaxInt64 {
				return nil, fmt.Errorf("%w: SeccompProfile has no argument values above %d (call %s, argument %d)", ErrCannotSay, int64(math.MaxInt64), s.Names[0], a.Index)
			}
			if a.Index > 5 {
				return nil, fmt.Errorf("call %s has a condition on argument %d: there are 0 to 5", s.Names[0], a.Index)
			}
			o.Args = append(o.Args, spoArg{int32(a.Index), int64(a.Value), int64(a.ValueTwo), string(a.Op)})
		}
		const most = 6
		if len(o.Args) > most {
			return nil, fmt.Errorf("%w: SeccompProfile has no more than %d conditions in an entry (call %s)", ErrCannotSay, most, s.Names[0])
		}
		out.Spec.Syscalls = append(out.Spec.Syscalls, o)
	}
	return writeYAML(out)
}

func writeYAML(v any) ([]byte, error) {
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := errors.Join(e.Encode(v), e.Close()); err != nil {
		return nil, fmt.Errorf("encode YAML: %w", err)
	}
	return b.Bytes(), nil
}

// KubeletSeccomp is the directory of a node in which the kubelet looks for profiles, with its default --root-dir.
const KubeletSeccomp = "/var/lib/kubelet/seccomp"

// EncodePod writes the part of a pod's or container's specification that uses the profile in localhost, a path below
// KubeletSeccomp.
func EncodePod(localhost string) ([]byte, error) {
	clean := path.Clean(localhost)
	if localhost == "" || path.IsAbs(localhost) || clean != localhost || clean == "." || clean == ".." || strings.HasPrefix(clean, "../") {
		return nil, fmt.Errorf("path %q is not a plain relative one: the kubelet takes it below %s", localhost, KubeletSeccomp)
	}
	type seccompProfile struct {
		Type             string `yaml:"type"`
		LocalhostProfile string `yaml:"localhostProfile"`
	}
	type securityContext struct {
		SeccompProfile seccompProfile `yaml:"seccompProfile"`
	}
	data, err := writeYAML(struct {
		SecurityContext securityContext `yaml:"securityContext"`
	}{securityContext{seccompProfile{"Localhost", localhost}}})
	if err != nil {
		return nil, err
	}
	head := fmt.Sprintf("# On every node the profile (build --format oci) must be the file\n#   %s\n# or the container stays in CreateContainerError. The directory is <root-dir>/seccomp of the kubelet.\n", path.Join(KubeletSeccomp, localhost))
	return append([]byte(head), data...), nil
}

// maxArtifact is the largest profile that KEP-6061 takes.
const maxArtifact = 1 << 20

// EncodeArtifact returns what the layer of an OCI artifact holds: the profile as profile.Encode writes it, if KEP-6061 takes it.
func EncodeArtifact(p *specs.LinuxSeccomp) ([]byte, error) {
	if err := noListener(p, "KEP-6061 refuses notification"); err != nil {
		return nil, err
	}
	if slices.Contains(p.Flags, specs.LinuxSeccompFlagWaitKillableRecv) {
		return nil, fmt.Errorf("%w: KEP-6061 refuses %s", ErrCannotSay, specs.LinuxSeccompFlagWaitKillableRecv)
	}
	data, err := profile.Encode(p)
	if err == nil && len(data) > maxArtifact {
		return nil, fmt.Errorf("%w: KEP-6061 takes at most %d bytes, the profile has %d", ErrCannotSay, maxArtifact, len(data))
	}
	return data, err
}
