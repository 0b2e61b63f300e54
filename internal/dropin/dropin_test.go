package dropin

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seccompgen/seccompgen/profile"
)

func TestExtend(t *testing.T) {
	errno := uint(38)
	native := string(profile.NativeABIs()[0])
	seen := &specs.LinuxSeccomp{
		DefaultAction: specs.ActErrno, Architectures: []specs.Arch{profile.NativeABIs()[0]},
		Syscalls: []specs.LinuxSyscall{{Names: []string{"write", "read", "mkdir"}, Action: specs.ActAllow}},
	}
	for _, c := range []struct {
		name, input, want string
		built             *specs.LinuxSeccomp
	}{
		{
			name: "nothing to extend",
			want: `{"architectures":["NATIVE"],"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["mkdir","read","write"],"action":"SCMP_ACT_ALLOW","args":[]}]}`,
		},
		{
			name:  "empty",
			input: `{}`,
			want:  `{"architectures":["NATIVE"],"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["mkdir","read","write"],"action":"SCMP_ACT_ALLOW","args":[]}]}`,
		},
		{
			name:  "blocked stays blocked, allowed is not allowed twice, the default is forced",
			input: `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"mkdir","action":"SCMP_ACT_KILL"},{"names":["read"],"action":"SCMP_ACT_ALLOW","comment":"mine"}]}`,
			want: `{"architectures":["NATIVE"],"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"name":"mkdir","action":"SCMP_ACT_KILL"},
				{"names":["read"],"action":"SCMP_ACT_ALLOW","comment":"mine"},{"names":["write"],"action":"SCMP_ACT_ALLOW","args":[]}]}`,
		},
		{
			name:  "nothing is left to add",
			input: `{"defaultAction":"SCMP_ACT_ERRNO","architectures":["NATIVE"],"syscalls":[{"names":["mkdir","read","write"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}}]}`,
			want:  `{"defaultAction":"SCMP_ACT_ERRNO","architectures":["NATIVE"],"syscalls":[{"names":["mkdir","read","write"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}}]}`,
		},
		{
			name:  "other architectures stay, the rest of the format too",
			input: `{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"defaultErrno":"ENOSYS","architectures":["SCMP_ARCH_MIPS"],"flags":["SECCOMP_FILTER_FLAG_LOG"],"syscalls":null}`,
			want: `{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"defaultErrno":"ENOSYS","architectures":["SCMP_ARCH_MIPS","NATIVE"],"flags":["SECCOMP_FILTER_FLAG_LOG"],
				"syscalls":[{"names":["mkdir","read","write"],"action":"SCMP_ACT_ALLOW","args":[]}]}`,
		},
		{
			name:  "a map of architectures gets no list beside it",
			input: `{"defaultAction":"SCMP_ACT_ERRNO","architectures":[],"archMap":[{"architecture":"NATIVE","subArchitectures":["SCMP_ARCH_ARM"]},{"architecture":"SCMP_ARCH_MIPS","subArchitectures":null}]}`,
			want: `{"defaultAction":"SCMP_ACT_ERRNO","archMap":[{"architecture":"NATIVE","subArchitectures":["SCMP_ARCH_ARM"]},{"architecture":"SCMP_ARCH_MIPS","subArchitectures":null}],
				"syscalls":[{"names":["mkdir","read","write"],"action":"SCMP_ACT_ALLOW","args":[]}]}`,
		},
		{
			name:  "a map without the native architecture",
			input: `{"archMap":[{"architecture":"SCMP_ARCH_MIPS","subArchitectures":null}]}`,
			want: `{"defaultAction":"SCMP_ACT_ERRNO","archMap":[{"architecture":"SCMP_ARCH_MIPS","subArchitectures":null},{"architecture":"NATIVE","subArchitectures":["SCMP_ARCH_X86"]}],
				"syscalls":[{"names":["open"],"action":"SCMP_ACT_ALLOW","args":[]}]}`,
			built: &specs.LinuxSeccomp{Architectures: []specs.Arch{specs.ArchX86}, Syscalls: []specs.LinuxSyscall{{Names: []string{"open"}, Action: specs.ActAllow}}},
		},
		{
			name:  "another ABI was seen",
			input: `{"architectures":["NATIVE"]}`,
			want:  `{"defaultAction":"SCMP_ACT_ERRNO","architectures":["NATIVE","SCMP_ARCH_X86"],"syscalls":[{"names":["open"],"action":"SCMP_ACT_ALLOW","args":[]}]}`,
			built: &specs.LinuxSeccomp{Architectures: []specs.Arch{specs.ArchX86}, Syscalls: []specs.LinuxSyscall{{Names: []string{"open"}, Action: specs.ActAllow}}},
		},
		{
			name:  "keys are read as engines read them",
			input: `{"DefaultAction":"SCMP_ACT_LOG","SYSCALLS":[{"NAMES":["read"],"action":"SCMP_ACT_ERRNO"}]}`,
			want: `{"architectures":["NATIVE"],"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"NAMES":["read"],"action":"SCMP_ACT_ERRNO"},
				{"names":["mkdir","write"],"action":"SCMP_ACT_ALLOW","args":[]}]}`,
		},
		{
			name:  "answers of the policy",
			input: `{"syscalls":[{"names":["clone3"],"action":"SCMP_ACT_ALLOW"}]}`,
			want: `{"architectures":["NATIVE"],"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["clone3"],"action":"SCMP_ACT_ALLOW"},
				{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[]},{"names":["statx"],"action":"SCMP_ACT_ERRNO","errnoRet":38,"args":[]}]}`,
			built: &specs.LinuxSeccomp{Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActAllow}, {Names: []string{"clone3", "statx"}, Action: specs.ActErrno, ErrnoRet: &errno}}},
		},
	} {
		var input []byte
		if c.input != "" {
			input = []byte(strings.ReplaceAll(c.input, "NATIVE", native))
		}
		built := seen
		if c.built != nil {
			built = c.built
		}
		data, err := Extend(input, built)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		var got, want any
		if err := json.Unmarshal(data, &got); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if err := json.Unmarshal([]byte(strings.ReplaceAll(c.want, "NATIVE", native)), &want); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
		if err := IsProfile(data); err != nil {
			t.Errorf("%s: not taken for a profile of ours: %v", c.name, err)
		}
		if again, err := Extend(input, built); err != nil || string(again) != string(data) {
			t.Errorf("%s: other bytes the second time", c.name)
		}
		if twice, err := Extend(data, built); err != nil || string(twice) != string(data) {
			t.Errorf("%s: extending what was extended changes it: %v\n%s", c.name, err, twice)
		}
	}
}

func TestExtendRefuses(t *testing.T) {
	for _, input := range []string{"", "x", "[]", "null", "1", `{"syscalls":{}}`, `{"syscalls":[1]}`, `{"syscalls":[{"names":"read"}]}`, `{"architectures":"x"}`, `{"archMap":{}}`, `{"syscalls":[],"Syscalls":[]}`, `{} {}`} {
		if data, err := Extend([]byte(input), &specs.LinuxSeccomp{}); err == nil {
			t.Errorf("%s is extended, to %s", input, data)
		}
	}
}

// The profile that Podman itself uses, where it is installed.
func TestExtendPodmansDefault(t *testing.T) {
	input, err := os.ReadFile("/usr/share/containers/seccomp.json")
	if err != nil {
		t.Skipf("SKIPPED: no profile of containers-common here: %v", err)
	}
	data, err := Extend(input, &specs.LinuxSeccomp{Syscalls: []specs.LinuxSyscall{{Names: []string{"read", "mount", "not_a_call"}, Action: specs.ActAllow}}})
	if err != nil {
		t.Fatal(err)
	}
	p, err := read(data)
	if err != nil {
		t.Fatal(err)
	}
	rules, err := get[[]entry](p, "syscalls")
	if err != nil || !slices.Equal(rules[len(rules)-1].Names, []string{"not_a_call"}) {
		t.Errorf("added %v, %v", rules[len(rules)-1], err)
	}
}

func FuzzExtend(f *testing.F) {
	for _, input := range []string{`{}`, `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ERRNO"}]}`, `{"archMap":[{"architecture":"SCMP_ARCH_X86_64"}]}`} {
		f.Add([]byte(input))
	}
	built := &specs.LinuxSeccomp{Syscalls: []specs.LinuxSyscall{{Names: []string{"read", "write"}, Action: specs.ActAllow}}}
	f.Fuzz(func(t *testing.T, input []byte) {
		p, err := read(input)
		if err != nil {
			return
		}
		before, err := mentioned(p)
		if err != nil {
			t.Fatal(err)
		}
		data, err := Extend(input, built)
		if err != nil {
			t.Fatalf("read and not extended: %v", err)
		}
		if p, err = read(data); err != nil {
			t.Fatal(err)
		}
		rules, err := get[[]struct{ Names []string }](p, "syscalls")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"read", "write"} {
			n := 0
			for _, r := range rules {
				for _, got := range r.Names {
					if got == name {
						n++
					}
				}
			}
			if !before[name] && n != 1 {
				t.Fatalf("%s stands %d times in %s", name, n, data)
			}
		}
	})
}
