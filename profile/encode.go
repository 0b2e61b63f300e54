package profile

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
)

// ErrFormat says that a format has no way to say what a profile says.
var ErrFormat = errors.New("the format cannot say this")

// Format is a way to write a profile.
type Format string

// The formats.
const (
	FormatOCI      Format = "oci"      // runtime-spec linux.seccomp, which runc, crun and the kubelet take
	FormatDocker   Format = "docker"   // with comments and archMap
	FormatPodman   Format = "podman"   // the same, less what Podman's reader leaves out
	FormatSPO      Format = "spo"      // a SeccompProfile of the Security Profiles Operator
	FormatPod      Format = "pod"      // the part of a pod's specification that names the profile
	FormatArtifact Format = "artifact" // an OCI artifact in an image layout
)

// Formats returns all formats.
func Formats() []Format {
	return []Format{FormatOCI, FormatDocker, FormatPodman, FormatSPO, FormatPod, FormatArtifact}
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
func EncodeDocker(p *specs.LinuxSeccomp, w *Why) ([]byte, error) {
	d := dockerProfile{
		DefaultAction: p.DefaultAction, DefaultErrnoRet: p.DefaultErrnoRet, Flags: p.Flags, ListenerPath: p.ListenerPath,
		ListenerMetadata: p.ListenerMetadata, Syscalls: []dockerSyscall{},
	}
	if d.ArchMap = archMap(p.Architectures); d.ArchMap == nil {
		d.Architectures = p.Architectures
	}
	comments := map[string]string{}
	if w != nil {
		comments = w.comments()
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
	if err := writeJSON(&b, d); err != nil {
		return nil, fmt.Errorf("encode the profile: %w", err)
	}
	return b.Bytes(), nil
}

// EncodePodman writes a profile for Podman, Buildah and CRI-O, whose reader (containers-common, pkg/seccomp) takes Docker's
// format less flags, listeners and notification.
func EncodePodman(p *specs.LinuxSeccomp, w *Why) ([]byte, error) {
	if len(p.Flags) > 0 {
		return nil, fmt.Errorf("%w: containers-common leaves flags out", ErrFormat)
	}
	if err := noListener(p, "containers-common leaves listeners out"); err != nil {
		return nil, err
	}
	return EncodeDocker(p, w)
}

func noListener(p *specs.LinuxSeccomp, text string) error {
	notifies := p.DefaultAction == specs.ActNotify || slices.ContainsFunc(p.Syscalls, func(s specs.LinuxSyscall) bool { return s.Action == specs.ActNotify })
	if p.ListenerPath != "" || p.ListenerMetadata != "" || notifies {
		return fmt.Errorf("%w: %s (SCMP_ACT_NOTIFY, listenerPath, listenerMetadata)", ErrFormat, text)
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
	kind Kind
	text string
}{
	{KindObserved, "made by the workload"},
	{KindOCIRuntime, "made by the OCI runtime under the filter, before the workload"},
	{KindGoRuntime, "made by the Go runtime at any moment, without the program asking for it"},
	{KindImplicit, "can come at any moment without any program asking for it"},
	{KindErrno, "the answer makes callers fall back on another call"},
	{KindArgument, "for the arguments seen only"},
	{KindPortability, "made instead on other kernels or ABIs"},
	{KindRepair, "added by verify --repair"},
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

// comments returns a comment for each call: what the kinds of its reasons say.
func (w *Why) comments() map[string]string {
	kinds := map[string][]Kind{}
	for _, e := range w.Entries {
		key := commentKey(e.Name, e.Action)
		for _, r := range e.Reasons {
			kinds[key] = union(kinds[key], []Kind{r.Kind}, cmp.Compare[Kind])
		}
	}
	comments := map[string]string{}
	for key, all := range kinds {
		var parts []string
		for _, k := range kindTexts {
			if slices.Contains(all, k.kind) {
				parts = append(parts, k.text)
			}
		}
		for _, kind := range all {
			if !slices.ContainsFunc(kindTexts, func(k struct {
				kind Kind
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
		return fmt.Errorf("name %q is no Kubernetes object's name: lower case letters, digits, - and . only", name)
	}
	return nil
}

// EncodeSPO writes a SeccompProfile for the Security Profiles Operator.
func EncodeSPO(p *specs.LinuxSeccomp, name string) ([]byte, error) {
	if err := checkObjectName(name); err != nil {
		return nil, err
	}
	if v := verdict(p.DefaultAction, p.DefaultErrnoRet); v.Errno > epermErrno || p.DefaultErrnoRet != nil && v.Errno == 0 && v.Action == specs.ActErrno {
		return nil, fmt.Errorf("%w: SeccompProfile has no defaultErrnoRet, and the profile answers %s by default: list the calls instead", ErrFormat, v)
	}
	if p.DefaultAction == specs.ActNotify {
		return nil, fmt.Errorf("%w: SeccompProfile has no SCMP_ACT_NOTIFY as the default", ErrFormat)
	}
	if p.ListenerPath != "" && !spoListener.MatchString(p.ListenerPath) {
		return nil, fmt.Errorf("%w: SeccompProfile wants a listenerPath below /var/run/security-profiles-operator", ErrFormat)
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
				return nil, fmt.Errorf("%w: SeccompProfile has no errnoRet %d (call %s)", ErrFormat, *s.ErrnoRet, s.Names[0])
			}
			o.ErrnoRet = int32(*s.ErrnoRet)
		}
		for _, a := range s.Args {
			if a.Value > math.MaxInt64 || a.ValueTwo > math.MaxInt64 {
				return nil, fmt.Errorf("%w: SeccompProfile has no argument values above %d (call %s, argument %d)", ErrFormat, int64(math.MaxInt64), s.Names[0], a.Index)
			}
			if a.Index > 5 {
				return nil, fmt.Errorf("call %s has a condition on argument %d: there are 0 to 5", s.Names[0], a.Index)
			}
			o.Args = append(o.Args, spoArg{int32(a.Index), int64(a.Value), int64(a.ValueTwo), string(a.Op)})
		}
		const most = 6
		if len(o.Args) > most {
			return nil, fmt.Errorf("%w: SeccompProfile has no more than %d conditions in an entry (call %s)", ErrFormat, most, s.Names[0])
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

// EncodeArtifact returns what the layer of an OCI artifact holds: the profile as Encode writes it, if KEP-6061 takes it.
func EncodeArtifact(p *specs.LinuxSeccomp) ([]byte, error) {
	if err := noListener(p, "KEP-6061 refuses notification"); err != nil {
		return nil, err
	}
	if slices.Contains(p.Flags, specs.LinuxSeccompFlagWaitKillableRecv) {
		return nil, fmt.Errorf("%w: KEP-6061 refuses %s", ErrFormat, specs.LinuxSeccompFlagWaitKillableRecv)
	}
	data, err := Encode(p)
	if err == nil && len(data) > maxArtifact {
		return nil, fmt.Errorf("%w: KEP-6061 takes at most %d bytes, the profile has %d", ErrFormat, maxArtifact, len(data))
	}
	return data, err
}
