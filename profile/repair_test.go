package profile

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestAdd(t *testing.T) {
	const head = `{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64"],"syscalls":[`
	socket := func(args string) string {
		return `{"names":["socket"],"action":"SCMP_ACT_ALLOW","args":[` + args + `]}`
	}
	for name, c := range map[string]struct {
		profile, call string
		abi           specs.Arch
		args          [6]uint64
		want          []string // wider and changed, as diff says
		err           string
	}{
		"nothing allowed":        {`{"defaultAction":"SCMP_ACT_ERRNO"}`, "read", specs.ArchX86_64, [6]uint64{}, []string{"read: allowed"}, ""},
		"one of several":         {head + `{"names":["write"],"action":"SCMP_ACT_ALLOW"}]}`, "read", specs.ArchX86_64, [6]uint64{9}, []string{"read: allowed"}, ""},
		"answered with an errno": {head + `{"names":["clone3","statx"],"action":"SCMP_ACT_ERRNO","errnoRet":38}]}`, "statx", specs.ArchX86_64, [6]uint64{}, []string{"statx: allowed", "clone3: ENOSYS"}, ""},
		"a value": {
			head + socket(`{"index":0,"value":1,"op":"SCMP_CMP_EQ"}`) + "]}", "socket", specs.ArchX86_64,
			[6]uint64{2, 1, 6},
			[]string{"socket: allowed if arg0 == 0x1; allowed if arg0 == 0x2; else EPERM"},
			"",
		},
		"a mask": {
			head + socket(`{"index":1,"value":15,"valueTwo":1,"op":"SCMP_CMP_MASKED_EQ"},{"index":0,"value":1,"op":"SCMP_CMP_EQ"}`) + "]}", "socket", specs.ArchX86_64,
			[6]uint64{2, 0x80002, 6},
			[]string{"arg0 == 0x2 and arg1 & 0xf == 0x2"},
			"",
		},
		"a bound": {
			head + socket(`{"index":0,"value":3,"op":"SCMP_CMP_LT"}`) + "]}", "socket", specs.ArchX86_64,
			[6]uint64{16},
			[]string{"allowed if arg0 < 0x3", "allowed if arg0 == 0x10"},
			"",
		},
		"half a register": {
			`{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86"],"syscalls":[{"names":["prctl"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"}]}]}`,
			"prctl", specs.ArchX86,
			[6]uint64{0xffffffff00000007},
			[]string{"arg0 == 0x7"},
			"",
		},
		"an architecture": {head + `{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}`, "read", specs.ArchX86, [6]uint64{}, []string{"X86"}, ""},
		"a decision":      {head + `{"names":["socket"],"action":"SCMP_ACT_ERRNO","errnoRet":97,"args":[{"index":0,"value":40,"op":"SCMP_CMP_EQ"}]}]}`, "socket", specs.ArchX86_64, [6]uint64{40}, nil, "by hand"},
		"no name":         {head + "]}", "", specs.ArchX86_64, [6]uint64{}, nil, "no name"},
	} {
		p, err := ReadProfile(strings.NewReader(c.profile))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		before, _ := Encode(p)
		nr, _ := Number(c.abi, c.call)
		got, entry, err := Add(p, Missing{ABI: c.abi, Nr: nr, Name: c.call, Args: c.args, Reason: Reason{Kind: "repair", Text: "denied"}})
		if after, _ := Encode(p); !slices.Equal(before, after) {
			t.Errorf("%s: the profile itself was changed", name)
		}
		if c.err != "" {
			if !errors.Is(err, ErrNoRepair) || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: got %v, want an error with %q", name, err, c.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		r := Resolve(got)
		if v := r.Decide(c.abi, nr, c.args); v.Action != specs.ActAllow {
			t.Errorf("%s: the denied call is still %s", name, v)
		}
		said := strings.Join([]string{entry.Name, ": ", r.describe(c.abi, c.call), " clone3: ", r.describe(c.abi, "clone3"), strings.Join(abiNames(r.ABIs), " ")}, "")
		for _, want := range c.want {
			if !strings.Contains(said, want) {
				t.Errorf("%s: %q does not say %q", name, said, want)
			}
		}
		// Nothing else may be let through: every other call is answered as before, and this one for other arguments too.
		old := Resolve(p, got.Architectures...)
		if c.abi == specs.ArchX86 && !slices.Contains(p.Architectures, c.abi) {
			continue // the names of the profile count on a new architecture too: the format has no other way
		}
		for other := range uint32(500) {
			for _, args := range [][6]uint64{{}, {1, 1}, {2, 1}, {1, 2}, {40}, {^uint64(0)}} {
				if a, b := old.Decide(c.abi, other, args), r.Decide(c.abi, other, args); a != b && (other != nr || len(entry.Args) > 0 && decide([]Rule{{Verdict{Action: specs.ActAllow}, entry.Args}}, args, c.abi, a) == a) {
					t.Errorf("%s: %s%v was %s and is %s", name, Name(c.abi, other), args, a, b)
				}
			}
		}
	}
}

func abiNames(abis []specs.Arch) (names []string) {
	for _, abi := range abis {
		names = append(names, string(abi))
	}
	return names
}

func TestAskFirst(t *testing.T) {
	for _, name := range []string{
		"ptrace", "mount", "umount2", "move_mount", "pivot_root", "bpf", "kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module",
		"keyctl", "add_key", "userfaultfd", "perf_event_open", "io_uring_setup", "unshare", "setns", "open_by_handle_at", "reboot", "process_vm_writev",
	} {
		if AskFirst(name) == "" || !slices.Contains(AskFirstCalls(), name) {
			t.Errorf("%s would be added unasked", name)
		}
	}
	// What the runtimes themselves need under the filter, as measured, and what the Go runtime does, must not stop a repair.
	baselines, err := Baselines()
	if err != nil {
		t.Fatal(err)
	}
	plain := ImplicitCalls()
	for _, f := range baselines {
		plain = append(plain, f.Calls...)
	}
	for _, name := range plain {
		if why := AskFirst(name); why != "" {
			t.Errorf("%s is needed to start a container, and a repair would stop at it: %s", name, why)
		}
	}
}
