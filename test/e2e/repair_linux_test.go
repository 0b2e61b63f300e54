package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seccompgen/seccompgen/internal/verify"
	"github.com/seccompgen/seccompgen/profile"
	"github.com/seccompgen/seccompgen/test/lab"
)

func readReport(t testing.TB, text string) *verify.Report {
	t.Helper()
	r := &verify.Report{}
	if err := json.Unmarshal([]byte(text), r); err != nil {
		t.Fatalf("%v:\n%s", err, text)
	}
	return r
}

func writeProfile(t testing.TB, p *specs.LinuxSeccomp) string {
	t.Helper()
	data, err := profile.Encode(p)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "profile.json")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestSettings: one verification over all runtimes, with and without no_new_privs, whose report does not depend on how many
// runs are made at a time; a profile that lacks what one of them needs fails there.
func TestSettings(t *testing.T) {
	needRoot(t)
	t.Parallel()
	var runtimes []string
	for _, rt := range ociRuntimes {
		runtimes = append(runtimes, rt.find(t))
	}
	dir, files := module(t, "tiny_test.go", tiny), t.TempDir()
	recording, built := filepath.Join(files, "recording.json"), filepath.Join(files, "profile.json")
	inModule(t, 0, dir, nil, "record", "-o", recording, ".")
	seccompgen(t, 0, "build", "--for", "runc,crun", "-o", built, recording)
	flags := []string{"--runtime", strings.Join(runtimes, ","), "--no-new-privileges=both", "--recording", recording, "--json", "."}
	for _, jobs := range []string{"1", "4"} {
		r := readReport(t, inModule(t, 0, dir, nil, append([]string{"verify", "--profile", built, "--runs", "2", "--jobs", jobs}, flags...)...).stdout)
		seen := map[string]int{}
		for _, run := range r.Runs {
			seen[fmt.Sprint(run.Runtime, run.NoNewPrivileges)]++
		}
		if r.Verdict != verify.Pass || len(r.Runs) != 12 || len(seen) != 6 {
			t.Errorf("%s jobs: %s, %d runs: %v", jobs, r.Reason, len(r.Runs), seen)
		}
	}
	// capset is the runtimes' own, and only without no_new_privs: runs 1, 3 and 5 of the six settings do without.
	var before *verify.Report
	for _, jobs := range []string{"1", "4"} {
		r := readReport(t, inModule(t, 2, dir, nil, append([]string{"verify", "--profile", without(t, built, "capset"), "--jobs", jobs}, flags...)...).stdout)
		if len(r.Runs) != 2 || r.Runs[1].NoNewPrivileges || r.Denials[0].Name != "capset" || r.Denials[0].Run != 2 || !strings.Contains(r.Reason, "itself needs that call") {
			t.Errorf("%s jobs: %s: %+v %+v", jobs, r.Reason, r.Runs, r.Denials)
		}
		if before != nil && before.Reason != r.Reason {
			t.Errorf("one job says %q, four say %q", before.Reason, r.Reason)
		}
		before = r
	}
	all := readReport(t, inModule(t, 2, dir, nil, append([]string{"verify", "--keep-going", "--profile", without(t, built, "capset")}, flags...)...).stdout)
	failed := map[int]bool{}
	for _, d := range all.Denials {
		failed[d.Run] = true
	}
	if len(all.Runs) != 6 || len(failed) != 3 || !strings.HasPrefix(all.Reason, "capset was denied") {
		t.Errorf("--keep-going: %s: %d runs, with denials %v", all.Reason, len(all.Runs), failed)
	}
}

// TestStress: the variations come by the number of the run, the program sees them, and what the user has set stays.
func TestStress(t *testing.T) {
	needRoot(t)
	t.Parallel()
	dir := module(t, "stress_test.go", `package stress

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"testing"
)

func TestVaried(t *testing.T) {
	cpu, shuffle := flag.Lookup("test.cpu").Value, flag.Lookup("test.shuffle").Value
	fmt.Printf("sees %s %d %s %s %s\n", os.Getenv("GOGC"), runtime.GOMAXPROCS(0), os.Getenv("GODEBUG"), cpu, shuffle)
}
`)
	files := t.TempDir()
	recording, built := filepath.Join(files, "recording.json"), filepath.Join(files, "profile.json")
	env := []string{"GODEBUG=madvdontneed=1", "GOMAXPROCS=3"}
	said := inModule(t, 0, dir, env, "record", "--stress", "--runs", "7", "-o", recording, ".", "--", "-shuffle", "9").stderr
	var saw []string
	for line := range strings.Lines(said) {
		if _, what, ok := strings.Cut(line, "sees "); ok {
			saw = append(saw, strings.TrimSpace(what))
		}
	}
	want := []string{" 3 madvdontneed=1  9", "5 3 madvdontneed=1  9", " 3 madvdontneed=1  9", " 3 madvdontneed=1,asyncpreemptoff=1  9", "10 3 madvdontneed=1  9", " 4 madvdontneed=1 4 9", "off 2 madvdontneed=1 2 9"}
	if !slices.Equal(saw, trimmed(want)) {
		t.Errorf("the tests saw %q, want %q", saw, want)
	}
	r := lab.ReadRecording(t, recording)
	varied := map[string]bool{}
	for _, run := range r.Runs {
		varied[strings.Join(run.Varied, " ")] = true
	}
	if len(r.Runs) != 7 || !varied[""] || !varied["GOGC=5"] || !varied["GODEBUG=asyncpreemptoff=1"] || !varied["-test.cpu=4 -test.shuffle=6"] {
		t.Errorf("%d runs, varied by %v", len(r.Runs), varied)
	}
	seccompgen(t, 0, "build", "-o", built, recording)
	report := readReport(t, inModule(t, 0, dir, nil, "verify", "--stress", "--runs", "7", "--profile", built, "--recording", recording, "--json", ".").stdout)
	if got := report.Runs[3].Varied; !slices.Equal(got, []string{"GODEBUG=asyncpreemptoff=1"}) {
		t.Errorf("the report says of run 4 %q", got)
	}
}

func trimmed(all []string) []string {
	for i, s := range all {
		all[i] = strings.TrimSpace(s)
	}
	return all
}

// TestRepair: from a profile that allows nothing to one that verifies, in few rounds, under every runtime; what was added
// is no more than a recording shows, and every entry has its denial for a reason.
func TestRepair(t *testing.T) {
	needRoot(t)
	dir := module(t, "tiny_test.go", tiny)
	for _, rt := range ociRuntimes {
		for _, action := range []string{"SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS"} {
			t.Run(rt.name+" "+action, func(t *testing.T) {
				t.Parallel()
				empty := writeProfile(t, &specs.LinuxSeccomp{DefaultAction: specs.LinuxSeccompAction(action)})
				files := t.TempDir()
				fixed, recording, exact := filepath.Join(files, "fixed.json"), filepath.Join(files, "recording.json"), filepath.Join(files, "exact.json")
				flags := []string{"--runtime", rt.find(t), "--no-new-privileges=false", "."}
				r := readReport(t, inModule(t, 0, dir, nil, append([]string{"verify", "--runs", "5", "--profile", empty, "--repair", fixed, "--json"}, flags...)...).stdout)
				if r.Verdict != verify.Pass || r.Repair.Rounds > 5 || len(r.Repair.Added) < 25 || len(r.Repair.Refused) > 0 {
					t.Fatalf("%s: %+v", r.Reason, r.Repair)
				}
				// Everything that was added is a call that this very workload makes under this runtime.
				inModule(t, 0, dir, nil, append([]string{"record", "--stress", "--runs", "14", "-o", recording}, flags...)...)
				seccompgen(t, 0, "build", "--policy", "robust", "-o", exact, recording)
				seen := profile.Allowed(readProfile(t, exact))
				for _, a := range r.Repair.Added {
					if !slices.Contains(seen, a.Name) {
						t.Errorf("%s was added, and neither 14 runs nor what the Go runtime does unasked hold it: %+v", a.Name, a)
					}
				}
				var why profile.Explanation
				if err := json.Unmarshal([]byte(seccompgen(t, 0, "explain", "--json", fixed).stdout), &why); err != nil {
					t.Fatal(err)
				}
				for _, e := range why.Entries {
					if e.Reasons[0].Kind != "repair" {
						t.Errorf("explain has no denial for %+v", e)
					}
				}
			})
		}
	}
}

// TestRepairKeeps: a repair of a built profile keeps its entries and their reasons, and adds the one call.
func TestRepairKeeps(t *testing.T) {
	needRoot(t)
	t.Parallel()
	dir, files := module(t, "tiny_test.go", tiny), t.TempDir()
	recording, built, fixed := filepath.Join(files, "recording.json"), filepath.Join(files, "profile.json"), filepath.Join(files, "fixed.json")
	inModule(t, 0, dir, nil, "record", "-o", recording, ".")
	seccompgen(t, 0, "build", "-o", built, recording)
	why := filepath.Join(files, "reasons.json")
	inModule(t, 0, dir, nil, "verify", "--profile", without(t, built, "eventfd2"), "--repair", fixed, "--why", why, "--recording", recording, ".")
	if a, b := readProfile(t, built), readProfile(t, fixed); !slices.Equal(profile.Allowed(a), profile.Allowed(b)) || len(a.Syscalls) != len(b.Syscalls) {
		t.Errorf("the profile was %v and became %v", a, b)
	}
	said := seccompgen(t, 0, "explain", "--why", why, fixed, "eventfd2").stdout
	if !strings.Contains(said, "SCMP_ACT_ERRNO") || !strings.Contains(said, "TestRead") {
		t.Errorf("explain says of eventfd2: %s", said)
	}
}

// TestRepairStops: a dangerous call is neither made nor added unless it is named.
func TestRepairStops(t *testing.T) {
	needRoot(t)
	t.Parallel()
	empty, fixed := writeProfile(t, &specs.LinuxSeccomp{DefaultAction: specs.ActErrno}), filepath.Join(t.TempDir(), "fixed.json")
	args := []string{"verify", "--profile", empty, "--repair", fixed, "--exec", "--", lab.NeedTool(t, "unshare"), "--uts", "true"}
	r := seccompgen(t, 2, args...)
	if !strings.Contains(r.stdout, "fail: unshare was denied and not added") || !strings.Contains(r.stderr, "--allow unshare") {
		t.Errorf("without --allow: %s", r)
	}
	if _, err := os.Stat(fixed); err == nil {
		t.Error("a profile was written all the same")
	}
	seccompgen(t, 0, append([]string{"verify", "--allow", "unshare"}, args[1:]...)...)
	if got := profile.Allowed(readProfile(t, fixed)); !slices.Contains(got, "unshare") || slices.Contains(got, "mount") {
		t.Errorf("with --allow unshare the profile allows %v", got)
	}
}

// TestRepairArguments: where a call has conditions only the denied arguments are added, in a way that means just that.
func TestRepairArguments(t *testing.T) {
	needRoot(t)
	t.Parallel()
	dir := module(t, "socket_test.go", `package socket

import (
	"syscall"
	"testing"
)

func TestSocket(t *testing.T) {
	for _, domain := range []int{syscall.AF_UNIX, syscall.AF_INET} {
		fd, err := syscall.Socket(domain, syscall.SOCK_DGRAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		syscall.Close(fd)
	}
}
`)
	files := t.TempDir()
	recording, built, fixed := filepath.Join(files, "recording.json"), filepath.Join(files, "profile.json"), filepath.Join(files, "fixed.json")
	inModule(t, 0, dir, nil, "record", "-o", recording, ".")
	seccompgen(t, 0, "build", "-o", built, recording)
	p := readProfile(t, without(t, built, "socket"))
	p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: []string{"socket"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 0, Value: 1, Op: specs.OpEqualTo}}})
	inModule(t, 0, dir, nil, "verify", "--profile", writeProfile(t, p), "--repair", fixed, "--recording", recording, ".")
	check := func(t *testing.T, inet6 specs.LinuxSeccompAction) {
		t.Helper()
		r := profile.Resolve(readProfile(t, fixed))
		for domain, want := range map[uint64]specs.LinuxSeccompAction{1: specs.ActAllow, 2: specs.ActAllow, 10: inet6, 16: specs.ActErrno} {
			nr, _ := profile.Number(specs.ArchX86_64, "socket")
			if got := r.Decide(specs.ArchX86_64, nr, [6]uint64{domain, 2}); got.Action != want {
				t.Errorf("socket(%d) is %s, want %s", domain, got, want)
			}
		}
	}
	check(t, specs.ActErrno)
	// The conditions that build makes, which have AF_INET6 where AF_INET was seen, less those of AF_INET: here the recorder kept what they ask for.
	p = readProfile(t, built)
	before := len(p.Syscalls)
	p.Syscalls = slices.DeleteFunc(p.Syscalls, func(s specs.LinuxSyscall) bool {
		return s.Names[0] == "socket" && slices.ContainsFunc(s.Args, func(a specs.LinuxSeccompArg) bool { return a.Index == 0 && a.ValueTwo == 2 })
	})
	if len(p.Syscalls) == before {
		t.Fatal("the built profile has no condition for AF_INET")
	}
	r := readReport(t, inModule(t, 0, dir, nil, "verify", "--profile", writeProfile(t, p), "--repair", fixed, "--recording", recording, "--json", ".").stdout)
	if len(r.Repair.Added) != 1 || r.Repair.Rounds != 1 || r.Repair.Added[0].Name != "socket" {
		t.Errorf("the repair: %+v", r.Repair)
	}
	check(t, specs.ActAllow)
}

// TestShrink: the result is smaller, its tests pass, and every call that it still has is needed, as the certificate says and
// as is tried here again. Stopped in the middle it goes on where it was.
func TestShrink(t *testing.T) {
	needRoot(t)
	t.Parallel()
	dir, files := t.TempDir(), t.TempDir()
	lab.Calls(t, filepath.Join(dir, "rootfs/calls"))
	recording, built, small := filepath.Join(files, "recording.json"), filepath.Join(files, "profile.json"), filepath.Join(files, "small.json")
	// The program makes getpid, getppid and gettid, ignores their results and exits with 0; crun needs a few more.
	workload := []string{"--runtime", findCrun(t), "--rootfs", filepath.Join(dir, "rootfs"), "--exec", "--", "/calls", "run", "calls", "39,110,186"}
	seccompgen(t, 0, append([]string{"record", "-o", recording}, workload...)...)
	seccompgen(t, 0, "build", "--policy", "exact", "-o", built, recording)
	args := append([]string{"verify", "--profile", built, "--shrink", small, "--repeats", "2", "--jobs", "2"}, workload...)
	r := seccompgen(t, 1, append([]string{"verify", "--budget", "700ms"}, args[1:]...)...)
	if _, err := os.Stat(small + ".state.json"); err != nil || !strings.Contains(r.stderr, "run it again to go on") {
		t.Fatalf("a short budget: %v: %s", err, r)
	}
	r = seccompgen(t, 0, args...)
	if !strings.Contains(r.stderr, "goes on after") || !strings.Contains(r.stdout, "denies calls that the workload makes") {
		t.Errorf("it did not go on, or does not say what it accepts: %s", r)
	}
	if _, err := os.Stat(small + ".state.json"); err == nil {
		t.Error("the state is left")
	}
	cert := &verify.Certificate{}
	data, err := os.ReadFile(small + ".certificate.json")
	if err == nil {
		err = json.Unmarshal(data, cert)
	}
	if err != nil {
		t.Fatal(err)
	}
	before, after := profile.Allowed(readProfile(t, built)), profile.Allowed(readProfile(t, small))
	var needed, removed []string
	for _, n := range cert.Needed {
		needed = append(needed, n.Name)
		for _, trial := range n.Trials {
			if trial.Failed == 0 || trial.Of != 2 || trial.What == "" {
				t.Errorf("the certificate does not show that %s is needed: %+v", n.Name, trial)
			}
		}
	}
	for _, r := range cert.Removed {
		removed = append(removed, r.Name)
	}
	if !slices.Equal(needed, after) || len(needed)+len(removed) != len(before) || !slices.Contains(cert.Denied, "gettid") || !slices.Equal(needed, []string{"execve", "exit_group"}) {
		t.Errorf("%d calls were allowed; needed %v, removed %v", len(before), needed, removed)
	}
	for _, name := range needed {
		failed := finish(t, command(t, append([]string{"verify", "--timeout", "4s", "--profile", without(t, small, name), "--recording", recording}, workload...)...))
		if failed.exit != 2 || !strings.Contains(failed.stdout, "\n"+name+" ") {
			t.Errorf("without %s: %s", name, failed)
		}
	}
}

// TestHang: a workload that hangs under its profile ends by the deadline, with a verdict, and leaves nothing.
func TestHang(t *testing.T) {
	needRoot(t)
	dir, files := module(t, "hang_test.go", `package hang

import (
	"runtime"
	"syscall"
	"testing"
)

func TestThread(t *testing.T) {
	done := make(chan bool)
	go func() {
		runtime.LockOSThread()
		syscall.Syscall(syscall.SYS_GETPRIORITY, 0, 0, 0)
		close(done)
	}()
	<-done
}
`), t.TempDir()
	before := inits(t)
	recording, built := filepath.Join(files, "recording.json"), filepath.Join(files, "profile.json")
	inModule(t, 0, dir, nil, "record", "-o", recording, ".")
	seccompgen(t, 0, "build", "-o", built, recording)
	for _, c := range []struct {
		action specs.LinuxSeccompAction
		call   string
		answer string
	}{
		{specs.ActKillThread, "getpriority", "killed"},
		{specs.ActKillThread, "futex", "killed"},
		{specs.ActErrno, "futex", "EPERM"},
		{specs.ActTrap, "getpriority", "SIGSYS"},
		{specs.ActKillProcess, "getpriority", "killed"},
	} {
		p := readProfile(t, without(t, built, c.call))
		p.DefaultAction = c.action
		began := time.Now()
		r := inModule(t, 2, dir, nil, "verify", "--timeout", "3s", "--profile", writeProfile(t, p), "--recording", recording, ".")
		if !strings.Contains(r.stdout, "fail: "+c.call+" was denied") || !strings.Contains(r.stdout, " "+c.answer+" ") {
			t.Errorf("%s for %s: %s", c.action, c.call, r)
		}
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("%s for %s took %s", c.action, c.call, took)
		}
		nothingLeft(t)
	}
	// KILL_THREAD takes the first thread of the runtime's init only: runtimes then take the container for dead.
	left := slices.DeleteFunc(inits(t), func(comm string) bool { return slices.Contains(before, comm) })
	for end := time.Now().Add(20 * time.Second); len(left) > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("inits are left: %v", left)
		}
		now := inits(t)
		left = slices.DeleteFunc(left, func(comm string) bool { return !slices.Contains(now, comm) })
	}
}

// inits returns the comm files of all runtimes' inits: those of other tests come and go.
func inits(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, f := range files {
		if comm, err := os.ReadFile(f); err == nil && strings.HasPrefix(string(comm), "runc:[2:INIT]") {
			all = append(all, f)
		}
	}
	return all
}
