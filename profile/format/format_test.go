package format

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"go.yaml.in/yaml/v3"

	"github.com/seccompgen/seccompgen/profile"
	"github.com/seccompgen/seccompgen/test/golden"
)

const (
	x64  = specs.ArchX86_64
	i386 = specs.ArchX86
)

// built returns what package profile's tests have built.
func built(t *testing.T, name string) (*specs.LinuxSeccomp, *profile.Why) {
	t.Helper()
	p, err := os.ReadFile("../testdata/" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	why, err := os.ReadFile("../testdata/" + name + ".why.json")
	if err != nil {
		t.Fatal(err)
	}
	w, err := profile.ReadWhy(bytes.NewReader(why))
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, string(p)), w
}

func parse(t *testing.T, text string) *specs.LinuxSeccomp {
	t.Helper()
	p, err := profile.ReadProfile(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestArchMap(t *testing.T) {
	for _, c := range []struct {
		abis []specs.Arch
		want []archFamily
	}{
		{[]specs.Arch{x64}, nil},
		{[]specs.Arch{i386}, nil},
		{[]specs.Arch{x64, i386}, []archFamily{{x64, []specs.Arch{i386}}}},
		{[]specs.Arch{x64, i386, specs.ArchAARCH64}, []archFamily{{x64, []specs.Arch{i386}}, {specs.ArchAARCH64, []specs.Arch{}}}},
		{[]specs.Arch{x64, specs.ArchAARCH64}, nil},
		{[]specs.Arch{x64, i386, specs.ArchARM}, nil},
		{[]specs.Arch{x64, i386, specs.ArchS390X}, nil},
	} {
		if diff := cmp.Diff(c.want, archMap(c.abis)); diff != "" {
			t.Errorf("%v: %s", c.abis, diff)
		}
	}
}

func TestEncodeSPO(t *testing.T) {
	p, _ := built(t, "robust")
	p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: []string{"clone"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 0, Value: 2114060288, Op: specs.OpMaskedEqual}}})
	data, err := EncodeSPO(p, "example-p")
	if err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "testdata/robust.spo.yaml", data)
	var back spoProfile
	if err := yaml.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	again := &specs.LinuxSeccomp{DefaultAction: specs.LinuxSeccompAction(back.Spec.DefaultAction)}
	for _, abi := range back.Spec.Architectures {
		again.Architectures = append(again.Architectures, specs.Arch(abi))
	}
	for _, s := range back.Spec.Syscalls {
		o := specs.LinuxSyscall{Names: s.Names, Action: specs.LinuxSeccompAction(s.Action)}
		if s.ErrnoRet != 0 {
			errno := uint(s.ErrnoRet)
			o.ErrnoRet = &errno
		}
		for _, a := range s.Args {
			o.Args = append(o.Args, specs.LinuxSeccompArg{Index: uint(a.Index), Value: uint64(a.Value), ValueTwo: uint64(a.ValueTwo), Op: specs.LinuxSeccompOperator(a.Op)})
		}
		again.Syscalls = append(again.Syscalls, o)
	}
	if d := profile.Diff(p, again, x64); len(d.Changes) > 0 {
		t.Errorf("the operator reads another profile: %+v", d)
	}
}

func TestFormatsRefuse(t *testing.T) {
	profileWith := func(text string) *specs.LinuxSeccomp { return parse(t, `{"defaultAction":"SCMP_ACT_ERRNO",`+text+`}`) }
	spo := func(p *specs.LinuxSeccomp) error { _, err := EncodeSPO(p, "p"); return err }
	podman := func(p *specs.LinuxSeccomp) error { _, err := EncodePodman(p, nil); return err }
	artifact := func(p *specs.LinuxSeccomp) error { _, err := EncodeArtifact(p); return err }
	notify := profileWith(`"syscalls":[{"names":["mount"],"action":"SCMP_ACT_NOTIFY"}]`)
	for name, c := range map[string]struct {
		encode func(*specs.LinuxSeccomp) error
		p      *specs.LinuxSeccomp
		want   string
	}{
		"spo default errno":  {spo, profileWith(`"defaultErrnoRet":38`), "no defaultErrnoRet, and the profile answers ENOSYS"},
		"spo default zero":   {spo, profileWith(`"defaultErrnoRet":0`), "no defaultErrnoRet"},
		"spo errno zero":     {spo, profileWith(`"syscalls":[{"names":["read"],"action":"SCMP_ACT_ERRNO","errnoRet":0}]`), "no errnoRet 0 (call read)"},
		"spo errno":          {spo, profileWith(`"syscalls":[{"names":["read"],"action":"SCMP_ACT_ERRNO","errnoRet":4096}]`), "no errnoRet 4096"},
		"spo value":          {spo, profileWith(`"syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":2,"value":18446744073709551615,"op":"SCMP_CMP_EQ"}]}]`), "no argument values above 9223372036854775807 (call read, argument 2)"},
		"spo listener":       {spo, profileWith(`"listenerPath":"/run/agent.sock"`), "listenerPath below"},
		"spo default notify": {spo, parse(t, `{"defaultAction":"SCMP_ACT_NOTIFY"}`), "SCMP_ACT_NOTIFY as the default"},
		"podman notify":      {podman, notify, "leaves listeners out"},
		"podman flags":       {podman, profileWith(`"flags":["SECCOMP_FILTER_FLAG_LOG"]`), "leaves flags out"},
		"artifact notify":    {artifact, notify, "KEP-6061 refuses notification"},
		"artifact listener":  {artifact, profileWith(`"listenerMetadata":"x"`), "KEP-6061 refuses notification"},
		"artifact flag":      {artifact, profileWith(`"flags":["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]`), "KEP-6061 refuses SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"},
		"artifact too large": {artifact, profileWith(`"syscalls":[{"names":["` + strings.Repeat("x", maxArtifact) + `"],"action":"SCMP_ACT_ALLOW"}]`), "at most 1048576 bytes"},
	} {
		if err := c.encode(c.p); !errors.Is(err, ErrCannotSay) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want ErrCannotSay with %q", name, err, c.want)
		}
	}
	if err := spo(profileWith(`"defaultErrnoRet":1`)); err != nil {
		t.Errorf("EPERM is what no defaultErrnoRet means: %v", err)
	}
	for _, name := range []string{"", "Upper", "a/b", "-a", strings.Repeat("a", 254)} {
		if _, err := EncodeSPO(profileWith(`"flags":[]`), name); err == nil {
			t.Errorf("name %q is taken", name)
		}
	}
	for _, path := range []string{"", "/etc/p.json", "../p.json", "a/../p.json", "..", ".", "a//b"} {
		if _, err := EncodePod(path); err == nil {
			t.Errorf("path %q is taken", path)
		}
	}
}

func TestObjectName(t *testing.T) {
	for text, want := range map[string]string{
		"github.com/Foo/bar_baz": "github-com-foo-bar-baz", "encoding/json": "encoding-json", "": "profile", "///": "profile", strings.Repeat("a/", 300): strings.Repeat("a-", 126) + "a",
	} {
		if got := ObjectName(text); got != want || checkObjectName(got) != nil {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}

func TestEncodePod(t *testing.T) {
	data, err := EncodePod("profiles/p.json")
	if err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "testdata/pod.yaml", data)
}
