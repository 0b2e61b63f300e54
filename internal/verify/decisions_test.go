package verify

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/internal/bundle"
	"github.com/seccompgen/seccompgen/internal/container"
	"github.com/seccompgen/seccompgen/internal/ociruntime"
	"github.com/seccompgen/seccompgen/profile"
)

var pass, fail = map[string]string{"TestA": "pass"}, map[string]string{"TestA": "fail"}

// Each case: what the runs record, and the verdict. Two runs, unless one decides.
func TestVerify(t *testing.T) {
	type recorded = func(int, container.Options) *profile.Recording
	good := func(o container.Options) *profile.Recording { return made(o.Seccomp, "read", "write") }
	denied := func(o container.Options) *profile.Recording { return made(o.Seccomp, "openat") }
	always := func(tests map[string]string) recorded {
		return func(_ int, o container.Options) *profile.Recording { return with(good(o), tests) }
	}
	in := func(run int, tests map[string]string) recorded { // in one run only
		return func(n int, o container.Options) *profile.Recording {
			if n == run {
				return with(good(o), tests)
			}
			return good(o)
		}
	}
	control := func(run int, tests map[string]string) func(int) *profile.Recording {
		return func(n int) *profile.Recording {
			if n == run {
				return with(made(profile.AllowAll()), tests)
			}
			return made(profile.AllowAll())
		}
	}
	for name, c := range map[string]struct {
		script    *script
		keepGoing bool
		want      Verdict
		reason    string
		controls  int // runs without the profile
		unders    int // and under it
		runs      int // of the report
	}{
		"all the same":        {&script{under: always(pass)}, false, Pass, "no denials and the same test results in 2 of 2 runs", 1, 2, 2},
		"denied":              {&script{under: func(_ int, o container.Options) *profile.Recording { return denied(o) }}, false, Fail, "openat was denied", 1, 1, 1},
		"denied, and goes on": {&script{under: func(_ int, o container.Options) *profile.Recording { return denied(o) }}, true, Fail, "openat was denied", 1, 2, 2},
		"the first to decide": {&script{under: func(n int, o container.Options) *profile.Recording {
			if n == 1 {
				return dropped(good(o), profile.DropDeadline)
			}
			return denied(o)
		}}, true, Inconclusive, "--timeout", 1, 2, 2},
		"denied by its own filter": {&script{under: func(_ int, o container.Options) *profile.Recording { return own(denied(o)) }}, false, Pass, "no denials", 1, 2, 2},
		"denied or not":            {&script{under: func(_ int, o container.Options) *profile.Recording { return dropped(denied(o), profile.DropMissed) }}, false, Inconclusive, "may not have shown", 1, 1, 1},
		"incomplete":               {&script{under: func(_ int, o container.Options) *profile.Recording { return dropped(good(o), profile.DropFork) }}, false, Inconclusive, "incomplete", 1, 1, 1},
		// An inconclusive run has no test results to excuse.
		"incomplete, and a test": {&script{under: func(_ int, o container.Options) *profile.Recording {
			return with(dropped(good(o), profile.DropFork), fail)
		}}, false, Inconclusive, "incomplete", 1, 1, 1},
		"another exit status": {&script{under: func(_ int, o container.Options) *profile.Recording {
			rec := good(o)
			rec.Runs[0].Exit = 3
			return rec
		}}, false, Fail, "the exit status is 3", 1, 1, 1},

		// A test that changes: three runs without the profile, then three under it, until it is seen to be flaky.
		"a test fails each time":               {&script{under: always(fail)}, false, Fail, "TestA says fail", 4, 4, 1},
		"a test fails without the profile too": {&script{under: always(fail), control: control(3, fail)}, false, Inconclusive, "the profile is not to blame", 3, 1, 1},
		"in the last run without":              {&script{under: always(fail), control: control(4, fail)}, false, Inconclusive, "the profile is not to blame", 4, 1, 1},
		"otherwise without the profile":        {&script{under: always(fail), control: control(2, map[string]string{"TestA": "skip"})}, false, Inconclusive, "the profile is not to blame", 2, 1, 1},
		"a test passes under the profile":      {&script{under: in(1, fail)}, false, Inconclusive, "the profile is not to blame", 4, 2, 1},
		"in the second run":                    {&script{under: in(2, fail)}, false, Inconclusive, "the profile is not to blame", 4, 3, 2},
		"only one of two is flaky":             {&script{under: always(map[string]string{"TestA": "fail", "TestB": "pass"}), control: control(2, map[string]string{"TestA": "pass", "TestB": "pass"})}, false, Fail, "TestA says fail", 4, 4, 1},
		"two, each in a run of its own":        {&script{under: in(1, map[string]string{"TestA": "fail", "TestB": "pass"}), control: control(3, map[string]string{"TestA": "fail"})}, false, Inconclusive, "not to blame", 4, 2, 1},
		"a denial beside it":                   {&script{under: func(_ int, o container.Options) *profile.Recording { return with(denied(o), fail) }}, false, Fail, "openat was denied", 1, 1, 1},
		"a denial when it is tried again": {&script{under: func(n int, o container.Options) *profile.Recording {
			return map[bool]*profile.Recording{true: with(good(o), fail), false: denied(o)}[n == 1]
		}}, false, Fail, "TestA says fail", 4, 2, 1},
		"its own denial when it is tried again": {&script{under: func(n int, o container.Options) *profile.Recording {
			return map[bool]*profile.Recording{true: with(good(o), fail), false: own(denied(o))}[n == 1]
		}}, false, Inconclusive, "not to blame", 4, 2, 1},
		"incomplete when it is tried again": {&script{under: func(n int, o container.Options) *profile.Recording {
			return map[bool]*profile.Recording{true: with(good(o), fail), false: dropped(good(o), profile.DropFork)}[n == 1]
		}}, false, Fail, "TestA says fail", 4, 2, 1},
		"incomplete without the profile: no word": {&script{under: always(fail), control: func(n int) *profile.Recording {
			return map[bool]*profile.Recording{true: made(profile.AllowAll()), false: dropped(with(made(profile.AllowAll()), fail), profile.DropFork)}[n == 1]
		}}, false, Fail, "TestA says fail", 4, 4, 1},
		// What counts is the run that decided, though others changed a test too.
		"another test in another run": {&script{under: func(n int, o container.Options) *profile.Recording {
			return with(good(o), map[int]map[string]string{1: {"TestA": "fail"}, 2: {"TestA": "pass", "TestB": "fail"}, 3: {"TestA": "pass", "TestB": "fail"}}[n])
		}}, true, Inconclusive, "not to blame", 4, 3, 2},
	} {
		s := c.script
		r, err := Verify(t.Context(), s, testBundle(), allowing("read", "write"), Options{Settings: make([]Setting, 1), Runs: 2, KeepGoing: c.keepGoing})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if r.Verdict != c.want || !strings.Contains(r.Reason, c.reason) {
			t.Errorf("%s: %s because %q, want %s with %q", name, r.Verdict, r.Reason, c.want, c.reason)
		}
		if denials := r.Verdict == Fail && strings.Contains(r.Reason, "was denied"); denials != (len(r.Denials) > 0) && !c.keepGoing {
			t.Errorf("%s: the report has the denials %+v", name, r.Denials)
		}
		if s.controls != c.controls || s.unders != c.unders || len(r.Runs) != c.runs {
			t.Errorf("%s: %d runs without the profile, %d under it, %d reported; want %d, %d, %d", name, s.controls, s.unders, len(r.Runs), c.controls, c.unders, c.runs)
		}
	}
}

// What is wrong with a run of any kind ends the verification, with its place.
func TestVerifyErrors(t *testing.T) {
	failing := func(_ int, o container.Options) *profile.Recording { return with(made(o.Seccomp), fail) }
	for name, c := range map[string]struct {
		script *script
		want   string
		is     error
	}{
		"control run":            {&script{fails: 1}, "control run without the profile", errBroken},
		"incomplete control run": {&script{control: func(int) *profile.Recording { return dropped(made(profile.AllowAll()), profile.DropFork) }}, "control run without the profile", profile.ErrIncomplete},
		"run":                    {&script{under: func(_ int, o container.Options) *profile.Recording { return made(o.Seccomp) }, fails: 3}, "run 2 under the profile", errBroken},
		"control run afterwards": {&script{under: failing, fails: 3}, "control run without the profile", errBroken},
		"run afterwards":         {&script{under: failing, fails: 6}, "", errBroken},
	} {
		r, err := Verify(t.Context(), c.script, testBundle(), allowing("read"), Options{Settings: make([]Setting, 1), Runs: 2})
		if r != nil && name != "run afterwards" && name != "control run afterwards" || !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
	if _, err := Verify(t.Context(), &script{}, testBundle(), allowing("frobnicate"), Options{Settings: make([]Setting, 1), Runs: 1}); err == nil {
		t.Error("a profile that does not load was verified")
	}
}

// A run has the settings of its turn, and what was recorded is compared instead of a control run.
func TestRunOptions(t *testing.T) {
	one, two := &ociruntime.Runtime{Path: "/one"}, &ociruntime.Runtime{Path: "/two"}
	var asked []int
	resolved := 0
	b := testBundle()
	b.Binary = "/binary"
	s := &script{under: func(_ int, o container.Options) *profile.Recording { return made(o.Seccomp, "read", "clone3") }}
	p := allowing("read")
	enosys := uint(unix.ENOSYS)
	p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: []string{"clone3"}, Action: specs.ActErrno, ErrnoRet: &enosys})
	var progress []int
	r, err := Verify(t.Context(), s, b, p, Options{
		Settings: []Setting{{one, true}, {two, false}}, Runs: 2, Recorded: made(profile.AllowAll()),
		Bundle: func(run int) *bundle.Bundle {
			asked = append(asked, run)
			return b
		},
		Resolve: func(_ *profile.Recording, binary string) error {
			if binary != "/binary" {
				t.Errorf("resolved with %q", binary)
			}
			resolved++
			return nil
		},
		Progress: func(done, of int) { progress = append(progress, done, of) },
	})
	if err != nil || r.Verdict != Pass || len(r.Denials) > 0 { // an entry of the profile answers clone3 with ENOSYS
		t.Fatal(r, err)
	}
	if s.controls != 0 || s.unders != 4 || resolved != 4 || !slices.Equal(asked, []int{1, 1, 2, 2}) || !slices.Equal(progress, []int{1, 4, 2, 4, 3, 4, 4, 4}) {
		t.Errorf("%d controls, %d runs, %d resolved, bundles %v, progress %v", s.controls, s.unders, resolved, asked, progress)
	}
	for i, o := range s.options {
		if o.Runtime != []*ociruntime.Runtime{one, two}[i%2] || s.bundles[i].Spec.Process.NoNewPrivileges != (i%2 == 0) || !o.Denials || o.StopAfterDenial != afterDenial {
			t.Errorf("run %d: %+v", i+1, o)
		}
	}
	if !strings.Contains(r.Reason, "2 under ") || !strings.Contains(r.Reason, "without no_new_privs") {
		t.Errorf("the reason does not name the settings: %s", r.Reason)
	}
}

// A repair adds what is denied, and only that.
func TestRepair(t *testing.T) {
	calls := func(names ...string) func(int, container.Options) *profile.Recording {
		return func(_ int, o container.Options) *profile.Recording { return made(o.Seccomp, names...) }
	}
	probe := func(o container.Options) bool { return o.Seccomp.DefaultAction == specs.ActLog }
	at := func(runs map[int][]string) func(int, container.Options) *profile.Recording { // other calls in other runs
		return func(n int, o container.Options) *profile.Recording { return made(o.Seccomp, runs[n]...) }
	}
	for name, c := range map[string]struct {
		under   func(int, container.Options) *profile.Recording
		allow   []string
		want    Verdict
		reason  string
		added   []string
		refused []string
		rounds  int
		probes  int
	}{
		"nothing to add":        {calls("read"), nil, Pass, "no denials", nil, nil, 1, 2},
		"all in one probe":      {calls("read", "openat", "statx"), nil, Pass, "no denials", []string{"openat", "statx"}, nil, 1, 3},
		"one probe is no proof": {at(map[int][]string{2: {"openat"}, 4: {"statx"}}), nil, Pass, "no denials", []string{"openat", "statx"}, nil, 1, 6},
		"under the profile only": {func(_ int, o container.Options) *profile.Recording {
			if probe(o) {
				return made(o.Seccomp, "read")
			}
			return made(o.Seccomp, "openat")
		}, nil, Pass, "no denials", []string{"openat"}, nil, 2, 4},
		"always another one": {func(n int, o container.Options) *profile.Recording {
			if probe(o) {
				return made(o.Seccomp)
			}
			return made(o.Seccomp, []string{"openat", "statx", "futex"}[n/3-1])
		}, nil, Fail, "still denied after 3 rounds: futex was denied", []string{"openat", "statx", "futex"}, nil, 3, 6},
		"dangerous":              {calls("read", "openat", "mount"), nil, Fail, "give --allow mount", []string{"openat"}, []string{"mount"}, 1, 1},
		"dangerous and wanted":   {calls("read", "mount"), []string{"mount"}, Pass, "no denials", []string{"mount"}, nil, 1, 3},
		"another that is wanted": {calls("read", "mount"), []string{"bpf"}, Fail, "give --allow mount", nil, []string{"mount"}, 1, 1},
		"without a name": {func(_ int, o container.Options) *profile.Recording {
			rec := made(o.Seccomp, "read")
			rec.Unknown = []profile.Unknown{{ABI: specs.ArchX86_64, Nr: 999}}
			return rec
		}, nil, Fail, "call number 999 was denied and not added", nil, []string{""}, 1, 1},
		"denied by its own filter": {func(_ int, o container.Options) *profile.Recording {
			return own(made(&specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: o.Seccomp.Architectures}, "openat"))
		}, nil, Pass, "no denials", nil, nil, 1, 2},
		"denied or not": {func(_ int, o container.Options) *profile.Recording {
			if !probe(o) {
				return made(o.Seccomp, "read")
			}
			return dropped(made(&specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: o.Seccomp.Architectures}, "openat"), profile.DropEntry)
		}, nil, Pass, "no denials", nil, nil, 1, 2},
		"a test fails, and nothing is denied": {func(_ int, o container.Options) *profile.Recording { return with(made(o.Seccomp, "openat"), fail) }, nil, Fail, "TestA says fail", []string{"openat"}, nil, 1, 3},
		"ENOSYS for clone3 is no denial":      {calls("read", "clone3"), nil, Pass, "no denials", nil, nil, 1, 2},
		"except where clone3 is wanted":       {calls("read", "clone3"), []string{"clone3"}, Pass, "no denials", []string{"clone3"}, nil, 1, 3},
	} {
		p := allowing("read", "write")
		enosys := uint(unix.ENOSYS)
		p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: []string{"clone3"}, Action: specs.ActErrno, ErrnoRet: &enosys})
		var said []string
		s := &script{under: c.under}
		fixed, r, err := RepairProfile(t.Context(), s, testBundle(), p, Options{Settings: make([]Setting, 1), Runs: 1}, RepairOptions{
			Allow: c.allow, Rounds: 3, Progress: func(text string) { said = append(said, text) },
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if r.Verdict != c.want || !strings.Contains(r.Reason, c.reason) {
			t.Errorf("%s: %s because %q, want %s with %q", name, r.Verdict, r.Reason, c.want, c.reason)
		}
		var added, refused []string
		for _, a := range r.Repair.Added {
			added = append(added, a.Name)
			if a.Reasons[0].Text == "" || a.Round < 1 || a.Round > c.rounds {
				t.Errorf("%s: %s was added in round %d for %q", name, a.Name, a.Round, a.Reasons[0].Text)
			}
		}
		for _, m := range r.Repair.Refused {
			refused = append(refused, m.Name)
		}
		if !slices.Equal(added, c.added) || !slices.Equal(refused, c.refused) || r.Repair.Rounds != c.rounds || r.Repair.Probes != c.probes {
			t.Errorf("%s: added %v, refused %v in %d rounds with %d probes; want %v, %v, %d, %d", name, added, refused, r.Repair.Rounds, r.Repair.Probes, c.added, c.refused, c.rounds, c.probes)
		}
		want := slices.Sorted(slices.Values(slices.Concat([]string{"read", "write"}, c.added)))
		if got := profile.Allowed(fixed); !slices.Equal(got, want) {
			t.Errorf("%s: the profile allows %v, want %v", name, got, want)
		}
		if len(c.added) > 0 && len(said) == 0 {
			t.Errorf("%s: nothing was said", name)
		}
		if got := profile.Allowed(p); !slices.Equal(got, []string{"read", "write"}) {
			t.Errorf("%s: the profile itself was changed to %v", name, got)
		}
	}
}

// In every setting the probes have to be quiet.
func TestRepairSettings(t *testing.T) {
	slow := &ociruntime.Runtime{Path: "/slow"}
	s := &script{under: func(_ int, o container.Options) *profile.Recording {
		if o.Runtime == slow {
			return made(o.Seccomp, "fstatfs")
		}
		return made(o.Seccomp, "read")
	}}
	_, r, err := RepairProfile(t.Context(), s, testBundle(), allowing("read"), Options{Settings: []Setting{{Runtime: &ociruntime.Runtime{}}, {Runtime: slow}}, Runs: 1}, RepairOptions{Rounds: 2, Progress: func(string) {}})
	if err != nil || r.Verdict != Pass || r.Repair.Probes != 5 || r.Repair.Rounds != 1 || len(r.Repair.Added) != 1 || r.Repair.Added[0].Name != "fstatfs" {
		t.Error(r, err)
	}
	for i, o := range s.options[1:6] {
		if want := i >= 2; (o.Runtime == slow) != want || o.StopAfterDenial != afterDenial {
			t.Errorf("probe %d: %+v", i+1, o)
		}
	}
}

func TestRepairErrors(t *testing.T) {
	progress := func(string) {}
	ok := func(_ int, o container.Options) *profile.Recording { return made(o.Seccomp, "read") }
	one := Options{Settings: make([]Setting, 1), Runs: 1}
	for want, c := range map[string]struct {
		script *script
		allow  []string
	}{
		"--allow frobnicate: no system call": {&script{under: ok}, []string{"mount", "frobnicate"}},
		"control run without the profile":    {&script{under: ok, fails: 1}, nil},
		"probe with SCMP_ACT_LOG":            {&script{under: ok, fails: 3}, nil},
		"run 1 under the profile":            {&script{under: ok, fails: 4}, nil},
	} {
		if _, _, err := RepairProfile(t.Context(), c.script, testBundle(), allowing("read"), one, RepairOptions{Allow: c.allow, Rounds: 2, Progress: progress}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// From the first run to the certificate.
func TestShrink(t *testing.T) {
	state := filepath.Join(t.TempDir(), "small.json.state.json")
	w := &world{needs: func(_ int, v func(string) string) bool { return v("read") == "allowed" }, calls: []string{"getpid", "read", "statx"}}
	p := allowing("getpid", "openat", "read", "statx")
	o := Options{Settings: make([]Setting, 1), Runs: 2, Jobs: 2, Run: container.Options{Timeout: time.Minute}}
	o.Settings[0].Runtime = &ociruntime.Runtime{}
	so := ShrinkOptions{Repeats: 2, Budget: time.Hour, Keep: []string{"openat"}, State: state, Progress: func(string) {}}
	small, cert, err := Shrink(t.Context(), w, testBundle(), p, o, so)
	if err != nil {
		t.Fatal(err)
	}
	if got := profile.Allowed(small); !slices.Equal(got, []string{"openat", "read"}) {
		t.Errorf("allowed: %v", got)
	}
	if len(cert.Needed) != 1 || cert.Needed[0].Name != "read" || !slices.Equal(cert.Kept, []string{"openat"}) || !slices.Equal(cert.Denied, []string{"getpid", "statx"}) ||
		!slices.Equal(cert.Removed, []Removed{{"getpid", "EPERM"}, {"statx", "EPERM"}}) || cert.Passed != 10 || cert.Deadline != 3 || cert.Profile == cert.From {
		t.Errorf("the certificate: %+v", cert)
	}
	if _, err := os.Stat(state); err == nil {
		t.Error("the state was not removed")
	}

	so.Keep = []string{"mount"}
	if _, _, err := Shrink(t.Context(), w, testBundle(), p, o, so); err == nil || !strings.Contains(err.Error(), "--keep mount: the profile does not allow it") {
		t.Errorf("got %v", err)
	}
	os.Remove(state)
	so.Keep = nil
	for name, c := range map[string]struct {
		script *script
		want   string
	}{
		"the exit status differs": {&script{control: func(n int) *profile.Recording {
			rec := made(profile.AllowAll())
			rec.Runs[0].Exit = n / 3
			return rec
		}}, "the exit status is 1 in one run without the profile and 0 in another"},
		"fails under the whole profile": {&script{under: func(_ int, o container.Options) *profile.Recording { return with(made(o.Seccomp), fail) }}, "the tests do not even pass under the whole profile: TestA says fail"},
	} {
		if _, _, err := Shrink(t.Context(), c.script, testBundle(), p, o, so); !errors.Is(err, ErrUnstable) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A shrink goes on from the state of an earlier one, of the same inputs only. A test that varies without a profile decides nothing.
func TestShrinkResumes(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state.json")
	s := &script{
		control: func(n int) *profile.Recording {
			return with(made(profile.AllowAll()), map[string]string{"TestA": "pass", "TestFlaky": []string{"pass", "fail"}[n%2]})
		},
		under: func(n int, o container.Options) *profile.Recording {
			return with(made(o.Seccomp, "read"), map[string]string{"TestA": "pass", "TestFlaky": []string{"pass", "fail"}[n%2]})
		},
	}
	o := Options{Settings: []Setting{{Runtime: &ociruntime.Runtime{}}}, Runs: 1, Run: container.Options{Timeout: time.Minute}, Recorded: with(made(profile.AllowAll()), map[string]string{"TestA": "pass", "TestFlaky": "pass"})}
	p := allowing("getpid", "read")
	so := ShrinkOptions{Repeats: 1, State: state, Progress: func(string) {}} // no budget at all
	if _, _, err := Shrink(t.Context(), s, testBundle(), p, o, so); !errors.Is(err, ErrBudget) {
		t.Fatal(err)
	}
	before := s.controls
	other := o
	other.Run.Timeout = time.Hour
	if _, _, err := Shrink(t.Context(), s, testBundle(), p, other, so); err == nil || !strings.Contains(err.Error(), "belongs to a shrink of another profile, workload or setting") {
		t.Errorf("got %v", err)
	}
	so.Budget = time.Hour
	small, cert, err := Shrink(t.Context(), s, testBundle(), p, o, so)
	if err != nil || len(profile.Allowed(small)) != 0 || s.controls != before {
		t.Errorf("%+v, %v, %d more runs without the profile", cert, err, s.controls-before)
	}
	for i, run := range s.options[before:] {
		if run.Seccomp.DefaultAction != specs.ActAllow && run.StopAfterDenial != 0 {
			t.Errorf("run %d ends after a denial", i)
		}
		if i > 1 && (run.Enough == nil || run.Enough("TestFlaky", "fail") || run.Enough("TestA", "pass") || !run.Enough("TestA", "fail")) {
			t.Errorf("run %d: another result of a test does not end it, or the same one does", i)
		}
	}
	for what, content := range map[string]any{"is not the state of a shrink": map[string]any{"version": stateVersion + 1}, "is not the state": "x"} {
		data, _ := json.Marshal(content)
		if err := os.WriteFile(state, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := Shrink(t.Context(), s, testBundle(), p, o, so); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("got %v, want %s", err, what)
		}
	}
}
