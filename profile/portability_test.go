package profile

import (
	stdcmp "cmp"
	gobuild "go/build"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

const arm64 = specs.ArchAARCH64

// goRecording is one of a program that is nothing but Go, or, with a call that its code cannot make, of one with children.
func goRecording(t testing.TB, only bool, names ...string) *Recording {
	r := recording(t, "a")
	r.Runtime = Runtime{Name: "crun"}
	static := &Static{}
	r.Programs[0].Static = static
	for _, name := range names {
		s := call(t, PhaseWorkload, x64, name, "a")
		r.Syscalls = append(r.Syscalls, s)
		if only {
			static.Reachable = append(static.Reachable, StaticCall{ABI: x64, Nr: s.Nr})
		}
	}
	return r
}

func TestPortable(t *testing.T) {
	old := Kernels{Kernel{4, 19}, Kernel{6, 18}}
	for name, c := range map[string]struct {
		onlyGo  bool
		call    string
		abi     specs.Arch
		kernels Kernels
		want    string // calls of that ABI
	}{
		"Go maps":                           {true, "mmap", i386, Kernels{}, "mmap2"},
		"Go waits":                          {true, "futex", i386, Kernels{}, "futex futex_time64 uname"},
		"Go waits before 64-bit time":       {true, "futex", i386, Kernels{Kernel{4, 19}, Kernel{5, 0}}, "futex uname"},
		"Go on arm64 waits":                 {true, "futex", arm64, Kernels{}, "futex"},
		"Go on arm64 polls":                 {true, "epoll_wait", arm64, Kernels{}, "epoll_pwait"},
		"Go starts":                         {true, "execve", i386, Kernels{}, "brk execve open set_thread_area"},
		"C too, which reads the clock":      {false, "execve", i386, Kernels{}, "brk clock_gettime clock_gettime64 execve gettimeofday open set_thread_area"},
		"C reads the clock":                 {false, "execve", x64, old, "clock_gettime execve gettimeofday"},
		"Go reads it by its closure":        {true, "execve", x64, old, "execve"},
		"no storage call on arm64":          {true, "arch_prctl", arm64, Kernels{}, ""},
		"C stats on 32 bits":                {false, "newfstatat", i386, Kernels{}, "fstatat64 statx"},
		"C opens on arm64":                  {false, "open", arm64, Kernels{}, "openat"},
		"C sleeps on 32 bits":               {false, "clock_nanosleep", i386, Kernels{}, "clock_nanosleep clock_nanosleep_time64"},
		"C returns from a signal":           {false, "rt_sigreturn", i386, Kernels{}, "rt_sigreturn sigreturn"},
		"sockets":                           {true, "socket", i386, Kernels{}, "socket"},
		"C threads on old kernels":          {false, "clone3", x64, old, "clone clone3"},
		"and on new ones":                   {false, "clone3", x64, Kernels{Kernel{5, 3}, Kernel{6, 18}}, "clone clone3"},
		"Go has nothing for clone3":         {true, "clone3", x64, old, "clone3"},
		"Go looks for access":               {true, "faccessat2", x64, old, "capget faccessat2 getegid geteuid getgid getgroups getuid newfstatat"},
		"the same on 32 bits":               {true, "faccessat2", i386, old, "capget faccessat2 fstatat64 getegid32 geteuid32 getgid32 getgroups32 getuid32"},
		"an older call is no newer one's":   {true, "faccessat", x64, old, "faccessat"},
		"a name that the ABI does not have": {true, "modify_ldt", arm64, Kernels{}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			o := BuildOptions{Policy: PolicyExact, Kernels: c.kernels}
			if c.abi != x64 {
				o.Arch = []specs.Arch{c.abi}
			}
			_, w := build(t, o, goRecording(t, c.onlyGo, c.call))
			var got []string
			for _, e := range w.Entries {
				if e.ABI == c.abi {
					got = append(got, e.Name)
				}
				if e.Action == specs.ActErrno { // clone3, where C libraries make it
					continue
				}
				if observed := e.ABI == x64 && e.Name == c.call; observed != (e.Reasons[0].Kind == "observed") || !observed && (e.Reasons[0].Kind != "portability" || e.Reasons[0].Text == "") {
					t.Errorf("reason of %s %s: %+v", e.ABI, e.Name, e.Reasons)
				}
			}
			slices.Sort(got)
			if diff := cmp.Diff(c.want, strings.Join(got, " ")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// The same call keeps the conditions that were seen, but for ioctl's requests, in which a 32-bit ABI has other sizes.
func TestPortableArguments(t *testing.T) {
	for _, c := range []struct {
		call string
		abi  specs.Arch
		keep bool
	}{{"ioctl", arm64, true}, {"ioctl", i386, false}, {"prctl", arm64, true}, {"prctl", i386, true}} {
		r := goRecording(t, true, c.call)
		nr, _ := Number(x64, c.call)
		masks := ArgumentMasks(x64, nr)
		r.Syscalls[0].Args = NewArguments(masks, [][]uint32{{0, 0x80086601 & masks[len(masks)-1]}}, false)
		p, _ := build(t, BuildOptions{Policy: PolicyExact, Arch: []specs.Arch{c.abi}}, r)
		i := slices.IndexFunc(p.Syscalls, func(s specs.LinuxSyscall) bool { return slices.Contains(s.Names, c.call) })
		if i < 0 || (len(p.Syscalls[i].Args) > 0) != c.keep {
			t.Errorf("%s for %s: %+v", c.call, c.abi, p.Syscalls)
		}
	}
}

// What a call hides cannot be told elsewhere.
func TestPortableRefuses(t *testing.T) {
	r := recording(t, "a", call(t, PhaseWorkload, i386, "socketcall"))
	if _, _, err := Build([]*Recording{r}, BuildOptions{Arch: []specs.Arch{x64}}); err == nil || !strings.Contains(err.Error(), "socketcall of SCMP_ARCH_X86, which hides") {
		t.Errorf("got %v", err)
	}
	r = recording(t, "a", call(t, PhaseWorkload, x64, "read"))
	r.Kernel = "dream"
	if _, _, err := Build([]*Recording{r}, BuildOptions{Arch: []specs.Arch{arm64}}); err == nil || !strings.Contains(err.Error(), "give --kernel") {
		t.Errorf("got %v", err)
	}
	for text, want := range map[string]string{
		"": "not a range", "6": "not a range", "6.18.1": "not a range", "6.x": "not a range", "5.10..": "not a range", "..5.10": "not a range", "-1.2": "not a range", "+5.+4": "not a range",
		"6.1..5.1": "end before", "3.10": "not within", "5.10..8.0": "not within",
	} {
		if ks, err := ParseKernels(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, %v, want an error with %q", text, ks, err, want)
		}
	}
	for _, text := range []string{"4.19..6.18", "5.10"} {
		if _, err := ParseKernels(text); err != nil {
			t.Error(err)
		}
	}
	for text, want := range map[string]specs.Arch{"amd64": x64, "386": i386, "arm64": arm64, "arm": specs.ArchARM, "SCMP_ARCH_X32": specs.ArchX32, "vax": "", "": ""} {
		if got, err := ParseArch(text); got != want || (err == nil) != (want != "") {
			t.Errorf("%q is %q, %v", text, got, err)
		}
	}
}

// A row with a name that no ABI has would do nothing, and one without a source nobody could check.
func TestAlternatesExist(t *testing.T) {
	somewhere := func(name string) bool {
		return slices.ContainsFunc(ABIs(), func(abi specs.Arch) bool { _, ok := Number(abi, name); return ok })
	}
	for _, group := range allAlternates {
		if group.text == "" || group.source == "" || len(group.rows) == 0 {
			t.Errorf("group without text, source or rows: %+v", group)
		}
		for _, row := range group.rows {
			for _, name := range row {
				if !somewhere(name) {
					t.Errorf("no ABI has %s", name)
				}
			}
			if _, ok := since()[row[0]]; group.when == olderKern && !ok {
				t.Errorf("in which kernel %s came is not known", row[0])
			}
		}
	}
}

// TestAlternatesFollowGo reads, in Go's own sources, which number each function of package syscall and of x/sys/unix has on
// each ABI: where it is another call there, the table must say so.
func TestAlternatesFollowGo(t *testing.T) {
	abis := map[string]specs.Arch{"amd64": x64, "386": i386, "arm64": arm64, "arm": specs.ArchARM}
	compared := 0
	for _, dir := range []string{"syscall", "cmd/vendor/golang.org/x/sys/unix"} {
		byABI := map[specs.Arch]map[string][]string{}
		for goarch, abi := range abis {
			byABI[abi] = goCalls(t, filepath.Join(gobuild.Default.GOROOT, "src", dir), goarch, abi)
		}
		for from, functions := range byABI {
			for function, calls := range functions {
				for to, others := range byABI {
					for _, other := range others[function] {
						if from == to || slices.Contains(calls, other) || len(calls) != 1 {
							continue
						}
						compared++
						w := walk{from: target{from, calls[0]}, abi: to, code: goCode, kernels: Kernels{oldestKernel, newestKernel}, found: map[string]Reason{}}
						if w.follow(calls[0]); w.found[other].Text == "" {
							t.Errorf("%s.%s makes %s on %s and %s on %s", dir, function, calls[0], from, other, to)
						}
					}
				}
			}
		}
	}
	if compared < 100 {
		t.Errorf("only %d functions make other calls elsewhere: the sources are not read right", compared)
	}
}

var (
	goFunction = regexp.MustCompile(`(?m)^func (\w+)\(`)
	goCall     = regexp.MustCompile(`(?i)\b(?:raw)?syscall(?:6|NoError)?\((_?SYS_\w+)`)
	goNumber   = regexp.MustCompile(`(?m)^\s*(_?SYS_\w+)\s*=\s*(\d+)`)
)

// goCalls returns the calls that the functions of a package make on one architecture.
func goCalls(t *testing.T, dir, goarch string, abi specs.Arch) map[string][]string {
	var text strings.Builder
	for _, name := range []string{"zsysnum_linux_", "zsyscall_linux_", "syscall_linux_"} {
		data, err := os.ReadFile(filepath.Join(dir, name+goarch+".go"))
		if err != nil {
			t.Fatal(err)
		}
		text.Write(data)
	}
	numbers := map[string]string{}
	for _, m := range goNumber.FindAllStringSubmatch(text.String(), -1) {
		nr, err := strconv.ParseUint(m[2], 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		numbers[m[1]] = Name(abi, uint32(nr))
	}
	numbers["SYS_FSTATAT"] = stdcmp.Or(numbers["SYS_FSTATAT"], numbers["SYS_NEWFSTATAT"])
	calls := map[string][]string{}
	functions := goFunction.FindAllStringSubmatchIndex(text.String(), -1)
	for i, at := range functions {
		end := text.Len()
		if i+1 < len(functions) {
			end = functions[i+1][0]
		}
		for _, m := range goCall.FindAllStringSubmatch(text.String()[at[0]:end], -1) {
			if name := numbers[m[1]]; name != "" {
				function := text.String()[at[2]:at[3]]
				calls[function] = append(calls[function], name)
			}
		}
	}
	return calls
}

// Asking for more never takes a call away either.
func TestPortableMonotone(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	for range 50 {
		a, b := random(t, rng, "a"), random(t, rng, "b")
		for _, r := range []*Recording{a, b} {
			r.Syscalls = slices.DeleteFunc(r.Syscalls, func(s Syscall) bool { return s.Name == "socketcall" || s.Name == "ipc" })
			r.Syscalls = append(r.Syscalls, call(t, PhaseWorkload, x64, "read", r.ID))
		}
		plain, _ := build(t, BuildOptions{AllowIncomplete: true}, a)
		o := BuildOptions{AllowIncomplete: true, Arch: []specs.Arch{arm64}, Kernels: Kernels{Kernel{5, 4}, Kernel{6, 1}}}
		some, _ := build(t, o, a)
		more, _ := build(t, o, a, b)
		o.Arch, o.Kernels = []specs.Arch{i386, arm64}, Kernels{Kernel{4, 19}, Kernel{6, 18}}
		most, _ := build(t, o, a, b)
		steps := [][]string{Allowed(plain), Allowed(some), Allowed(more), Allowed(most)}
		for i, step := range steps[:3] {
			for _, name := range step {
				if !slices.Contains(steps[i+1], name) {
					t.Fatalf("%s went away in step %d", name, i+1)
				}
			}
		}
	}
}

// The same recordings give the same bytes in any order, on one processor and on two.
func TestBuildSameBytesOfManyRecordings(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 10))
	var rs []*Recording
	for _, id := range []string{"a", "b", "c", "d", "e"} {
		r := random(t, rng, id)
		r.Syscalls = slices.DeleteFunc(r.Syscalls, func(s Syscall) bool { return s.Name == "socketcall" || s.Name == "ipc" })
		rs = append(rs, r)
	}
	rs = append(rs, sample(t))
	o := BuildOptions{AllowIncomplete: true, For: []string{"runc@1.1", "crun"}, Arch: []specs.Arch{i386, arm64}, Kernels: Kernels{Kernel{4, 19}, Kernel{6, 18}}}
	var want string
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for i := range 100 {
		runtime.GOMAXPROCS(1 + i%2)
		rng.Shuffle(len(rs), func(i, j int) { rs[i], rs[j] = rs[j], rs[i] })
		p, w := build(t, o, rs...)
		data, err := Encode(p)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		if err := w.Write(&b); err != nil {
			t.Fatal(err)
		}
		if got := string(data) + b.String(); i == 0 {
			want = got
		} else if got != want {
			t.Fatalf("other bytes in build %d:\n%s", i, cmp.Diff(want, got))
		}
	}
}

func TestUnknownTo(t *testing.T) {
	p := &specs.LinuxSeccomp{Architectures: []specs.Arch{x64}, Syscalls: []specs.LinuxSyscall{
		{Names: []string{"clone3", "fchmodat2", "getrlimit", "mseal", "read"}, Action: specs.ActAllow}, {Names: []string{"futex_waitv", "openat2"}, Action: specs.ActErrno},
	}}
	for _, c := range []struct {
		version         string
		abi             specs.Arch
		allowed, others string
	}{
		{"2.6.1", x64, "", ""},
		{"2.5.5", x64, "mseal", ""},
		{"2.5.4", x64, "fchmodat2 mseal", ""},
		{"2.5.3", x64, "fchmodat2 mseal", "futex_waitv"},
		{"2.4.3", x64, "fchmodat2 mseal", "futex_waitv openat2"},
		{"2.4.3", arm64, "clone3 on SCMP_ARCH_AARCH64 fchmodat2 getrlimit on SCMP_ARCH_AARCH64 mseal", "futex_waitv openat2"},
		{"2.3.0", arm64, "clone3 fchmodat2 mseal", "futex_waitv openat2"},
	} {
		p.Architectures = []specs.Arch{c.abi}
		allowed, others, err := UnknownTo(c.version, p)
		if err != nil || strings.Join(allowed, " ") != c.allowed || strings.Join(others, " ") != c.others {
			t.Errorf("%s on %s: %v, %v, %v", c.version, c.abi, allowed, others, err)
		}
	}
	for _, version := range []string{"", "2.2.3", "2.7.0", "2.5", "v2.5.4"} {
		if _, _, err := UnknownTo(version, p); err == nil || !strings.Contains(err.Error(), "2.5.4") {
			t.Errorf("%q: %v", version, err)
		}
	}
	for _, gap := range libseccompGaps {
		if !slices.Contains(libseccompVersions, gap.until) || gap.from != "" && !slices.Contains(libseccompVersions, gap.from) {
			t.Errorf("%s..%s is no range of releases", gap.from, gap.until)
		}
	}
	for _, r := range releasedWith {
		if !slices.Contains(libseccompVersions, r.libseccomp) {
			t.Errorf("%s: libseccomp %s is not known", r.runtime, r.libseccomp)
		}
	}
	if lib, runc := ReleasedWith("runc@1.1"); lib != "2.5.3" || runc != "runc@1.1.0" {
		t.Errorf("runc@1.1 was released with %s of %s", lib, runc)
	}
}

func TestSavings(t *testing.T) {
	r := recording(t, "a", call(t, PhaseRuntime, x64, "setuid"), call(t, PhaseRuntime, x64, "setgid"), call(t, PhaseRuntime, x64, "fstatfs"), call(t, PhaseWorkload, x64, "setgid"))
	for _, c := range []struct {
		recordedNNP, nnp bool
		runtimes         []string
		version, want    string
	}{
		{true, false, nil, "1.1.5", ""},
		{false, false, nil, "1.1.5", "setuid"},
		{true, true, []string{"crun"}, "1.1.5", ""},
		{false, false, nil, "9", " unmeasured runc@9"},
	} {
		r.NoNewPrivileges, r.Runtime.Version = c.recordedNNP, c.version
		o := BuildOptions{Policy: PolicyExact, For: c.runtimes, NoNewPrivileges: c.nnp}
		_, w := build(t, o, r)
		calls, unmeasured := Savings([]*Recording{r}, w, o)
		got := strings.Join(calls, " ")
		if len(unmeasured) > 0 {
			got += " unmeasured " + strings.Join(unmeasured, " ")
		}
		if got != c.want {
			t.Errorf("%+v: got %q", c, got)
		}
	}
}
