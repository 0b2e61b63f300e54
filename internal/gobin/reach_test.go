package gobin

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var scratch string // for binaries that several tests use

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "gobin")
	if err != nil {
		panic(err)
	}
	scratch = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// goCommand runs the go command, free of the settings of the one that runs the test.
func goCommand(t testing.TB, dir, goarch string, args ...string) {
	t.Helper()
	c := exec.Command("go", args...)
	c.Dir = dir
	c.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off", "GOOS=linux", "CGO_ENABLED=0", "GOARCH="+goarch)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

var (
	builtMu sync.Mutex
	built   = map[string]string{}
)

// buildCases builds testdata/cases, once for each set of arguments.
func buildCases(t testing.TB, goarch string, flags ...string) string {
	t.Helper()
	builtMu.Lock()
	defer builtMu.Unlock()
	key := goarch + strings.Join(flags, "")
	if path, ok := built[key]; ok {
		return path
	}
	src := filepath.Join(scratch, "src")
	if err := os.MkdirAll(src, 0o700); err != nil {
		t.Fatal(err)
	}
	code, err := os.ReadFile("testdata/cases/main.go")
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{"main.go": string(code), "go.mod": "module cases\n\ngo 1.25\n"} {
		if err := os.WriteFile(filepath.Join(src, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(scratch, "cases"+strconv.Itoa(len(built)))
	goCommand(t, src, goarch, append(append([]string{"build", "-o", path}, flags...), ".")...)
	built[key] = path
	return path
}

func analyze(t testing.TB, path string) *Reach {
	t.Helper()
	r, err := Analyze(path)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// madeBy gives the functions that make a call of the binary's own ABI, joined.
func madeBy(r *Reach, nr int) string {
	for _, c := range r.Calls {
		if c.ABI == r.ABI && c.Number == nr {
			return strings.Join(c.Funcs, " ")
		}
	}
	return ""
}

var variants = []struct {
	name, goarch string
	flags        []string
	stripped     bool
}{
	{"amd64", "amd64", nil, false},
	{"amd64 stripped", "amd64", []string{"-ldflags=-s -w"}, true},
	{"amd64 pie", "amd64", []string{"-buildmode=pie"}, false},
	{"amd64 pie stripped", "amd64", []string{"-buildmode=pie", "-ldflags=-s -w"}, true},
	{"amd64 not optimized", "amd64", []string{"-gcflags=all=-N -l"}, false},
	{"386", "386", nil, false},
	{"386 stripped", "386", []string{"-ldflags=-s -w"}, true},
	{"arm64", "arm64", nil, false},
	{"arm64 stripped", "arm64", []string{"-ldflags=-s -w"}, true},
	{"arm64 pie stripped", "arm64", []string{"-buildmode=pie", "-ldflags=-s -w"}, true},
}

func TestCases(t *testing.T) {
	want := map[int]string{
		1001: "main.direct", 1002: "main.wrapped", 1003: "main.branches", 1004: "main.branches",
		1030: "main.variable", 1031: "main.variableStored", 1032: "main.store", 1033: "main.structArg",
		1034: "main.deferred.deferwrap1", 1035: "main.started.gowrap1", 1036: "main.bigFrame",
		1037: "main.main", 1038: "main.recursive", 1039: "main.callsGeneric",
	}
	for i := range 8 {
		want[1010+i] = "main.cases"
	}
	for i := range 9 {
		want[1020+i] = "main.jumpTable"
	}
	unresolved := []string{
		"main.(*impl).call", "main.asValue", "main.closure.func1", "main.computed", "main.element", "main.local",
		"main.throughPointer", "main.variableInArray", "main.variableInStruct", "main.variablePointed", "main.viaAtomic", "main.viaChannel",
		"main.viaInterface", "main.viaMap", "main.viaReflection", "main.viaResult", "main.viaString", "main.wrap2",
	}
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			if testing.Short() && strings.Contains(v.name, "not optimized") {
				t.Skip("builds the standard library anew")
			}
			r := analyze(t, buildCases(t, v.goarch, v.flags...))
			for nr, fn := range want {
				got := madeBy(r, nr)
				if strings.Contains(v.name, "not optimized") { // nothing is inlined, and structures go by memory
					if got == "" && nr != 1033 {
						t.Errorf("call %d is missing", nr)
					}
				} else if got != fn {
					t.Errorf("call %d is made by %q, want %q", nr, got, fn)
				}
			}
			var got []string
			for _, u := range r.Unresolved {
				if u.Func != "main.assign" { // one of the ways to see variableAssigned
					got = append(got, u.Func)
				}
			}
			slices.Sort(got)
			got = slices.Compact(got)
			expect := unresolved
			if v.stripped { // without symbols any variable may be a part of one that is written through a pointer
				expect = slices.Concat(expect, []string{"main.variable", "main.variableAssigned", "main.variableStored"})
				slices.Sort(expect)
				expect = slices.Compact(expect)
			}
			if strings.Contains(v.name, "not optimized") {
				for _, fn := range expect {
					if !slices.Contains(got, fn) {
						t.Errorf("%s is not reported as unresolved", fn)
					}
				}
			} else if diff := cmp.Diff(expect, got); diff != "" {
				t.Errorf("unresolved functions (-want +got):\n%s\n%v", diff, r.Unresolved)
			}
		})
	}
}

// TestKnownCalls checks calls of the runtime, whose numbers differ between machines.
func TestKnownCalls(t *testing.T) {
	tests := []struct {
		goarch, abi string
		calls       map[int]string
	}{
		{"amd64", ABIX8664, map[int]string{24: "runtime.osyield", 11: "runtime.sysMunmap syscall.munmap", 15: "runtime.sigreturn__sigaction", 202: "runtime.futex", 35: "runtime.usleep", 281: "internal/runtime/syscall/linux.EpollWait"}},
		{"386", ABIX86, map[int]string{158: "runtime.osyield", 91: "runtime.munmap syscall.munmap", 422: "runtime.futex_time64", 240: "runtime.futex_time32", 243: "runtime.setldt", 1: "exit1 runtime.exitThread"}},
		{"arm64", ABIAArch64, map[int]string{124: "runtime.osyield", 215: "runtime.sysMunmap syscall.munmap", 98: "runtime.futex", 101: "runtime.usleep", 22: "internal/runtime/syscall/linux.EpollWait"}},
	}
	for _, tt := range tests {
		r := analyze(t, buildCases(t, tt.goarch))
		if r.ABI != tt.abi {
			t.Errorf("%s: ABI %s, want %s", tt.goarch, r.ABI, tt.abi)
		}
		for nr, fns := range tt.calls {
			if got := madeBy(r, nr); got != fns {
				t.Errorf("%s: call %d is made by %q, want %q", tt.goarch, nr, got, fns)
			}
		}
		for _, c := range r.Calls {
			if c.ABI == r.ABI && c.Number < 1000 && c.Number > 0 && c.Runtime && len(c.RuntimeFuncs) != len(c.Funcs) {
				t.Errorf("%s: call %d: %v", tt.goarch, c.Number, c)
			}
		}
	}
}

func TestDeterministic(t *testing.T) {
	path := buildCases(t, "amd64")
	first := analyze(t, path)
	for range 20 {
		if diff := cmp.Diff(first, analyze(t, path)); diff != "" {
			t.Fatalf("a second analysis differs:\n%s", diff)
		}
	}
}

func TestGoRuntime(t *testing.T) {
	type nrs = []int
	tests := []struct {
		goarch  string
		on, off nrs
		absent  nrs
	}{
		{"amd64", nrs{0, 1, 9, 11, 14, 15, 17, 24, 28, 35, 39, 56, 60, 131, 186, 202, 219, 228, 231, 233, 234, 281}, nrs{62, 222, 223, 226}, nrs{59, 41}},
		{"386", nrs{0, 3, 4, 91, 158, 162, 20, 270, 173, 219, 240, 422, 265, 252, 319, 1}, nrs{37, 259}, nrs{11, 102, 403}},
		{"arm64", nrs{63, 64, 215, 124, 101, 172, 131, 139, 233, 98, 128, 113, 94, 22, 93}, nrs{129, 107}, nrs{221}},
	}
	for _, tt := range tests {
		entries := GoRuntime(analyze(t, buildCases(t, tt.goarch)))
		got := map[int]RuntimeCall{}
		for _, e := range entries {
			if e.Category == Other || e.Reason == "" {
				t.Errorf("%s: no reason for %+v", tt.goarch, e)
			}
			if len(e.Funcs) == 0 && e.Category != Restart {
				t.Errorf("%s: no function for %+v", tt.goarch, e)
			}
			got[e.Number] = e
		}
		for _, nr := range tt.on {
			if !got[nr].Default {
				t.Errorf("%s: %d is not on by default: %+v", tt.goarch, nr, got[nr])
			}
		}
		for _, nr := range tt.off {
			if e, ok := got[nr]; !ok || e.Default {
				t.Errorf("%s: %d is on by default or missing: %+v", tt.goarch, nr, e)
			}
		}
		for _, nr := range tt.absent {
			if e, ok := got[nr]; ok {
				t.Errorf("%s: %d is among the runtime's own: %+v", tt.goarch, nr, e)
			}
		}
	}
}

// Where nothing is inlined the runtime's calls are made by other functions: what it does on its own stays the same.
func TestGoRuntimeNotOptimized(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the standard library anew")
	}
	for _, goarch := range []string{"amd64", "386", "arm64"} {
		own := func(flags ...string) []int {
			path := filepath.Join(t.TempDir(), "server")
			goCommand(t, "testdata/server", goarch, append(append([]string{"build", "-o", path}, flags...), "main.go")...)
			var on []int
			for _, e := range GoRuntime(analyze(t, path)) {
				if e.Category == Other {
					t.Errorf("%s %v: the table of the runtime's functions lacks %v", goarch, flags, e.Funcs)
				}
				if e.Default {
					on = append(on, e.Number)
				}
			}
			return on
		}
		if diff := cmp.Diff(own(), own("-gcflags=all=-N -l")); diff != "" {
			t.Errorf("%s: calls (-optimized +not optimized):\n%s", goarch, diff)
		}
	}
}

func TestGoRuntimeByFunction(t *testing.T) {
	r := &Reach{ABI: ABIX8664, VDSO: []string{"runtime.vgetrandom"}, Calls: []Call{
		{ABI: ABIX8664, Number: 7, RuntimeFuncs: []string{"runtime.newInGo99"}},
		{ABI: ABIX8664, Number: 8, Funcs: []string{"syscall.Seek"}},
		{ABI: ABIX8664, Number: 27, RuntimeFuncs: []string{"runtime.mincore"}},
		{ABI: ABIX8664, Number: 38, RuntimeFuncs: []string{"runtime.setitimer"}},
		{ABI: ABIX8664, Number: 39, RuntimeFuncs: []string{"runtime.getpid", "runtime.raise"}},
		{ABI: ABIX8664, Number: 62, RuntimeFuncs: []string{"runtime.raiseproc"}},
	}}
	want := []RuntimeCall{
		{ABIX8664, 7, Other, false, "a function of the runtime makes it for a reason that is not known", []string{"runtime.newInGo99"}},
		{ABIX8664, 27, Debug, false, runtimeFuncs()["runtime.mincore"].reason, []string{"runtime.mincore"}},
		{ABIX8664, 38, Profiling, false, runtimeFuncs()["runtime.setitimer"].reason, []string{"runtime.setitimer"}},
		{ABIX8664, 39, Preemption, true, runtimeFuncs()["runtime.getpid"].reason, []string{"runtime.getpid", "runtime.raise"}},
		{ABIX8664, 62, Crash, false, runtimeFuncs()["runtime.raiseproc"].reason, []string{"runtime.raiseproc"}},
		{ABIX8664, 219, Restart, true, implied[2].why.reason, nil},
		{ABIX8664, 318, VDSO, true, implied[0].why.reason, []string{"runtime.vgetrandom"}},
	}
	if diff := cmp.Diff(want, GoRuntime(r)); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	for fn, w := range runtimeFuncs() {
		if !isRuntime(fn) || !slices.Contains(categories, w.category) || w.reason == "" {
			t.Errorf("table entry of %s: %+v", fn, w)
		}
	}
}

func TestReadInfo(t *testing.T) {
	got, err := ReadInfo(buildCases(t, "386", "-ldflags=-s -w"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(got.GoVersion, "go1.") {
		t.Errorf("GoVersion = %q", got.GoVersion)
	}
	got.GoVersion = ""
	want := Info{Path: "cases", Module: "cases", ModuleVersion: "(devel)", GOOS: "linux", GOARCH: "386", GODEBUG: got.GODEBUG}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("info (-want +got):\n%s", diff)
	}
	if strings.Contains(got.GODEBUG, "=") != true {
		t.Errorf("GODEBUG = %q, want the defaults of go 1.25", got.GODEBUG)
	}
}

func TestNotGo(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte("#!/bin/sh\necho hello, this is no ELF file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	paths := []string{text}
	if _, err := os.Stat("/bin/sh"); err == nil {
		paths = append(paths, "/bin/sh")
	}
	for _, path := range paths {
		if _, err := Analyze(path); !errors.Is(err, ErrNotGo) {
			t.Errorf("Analyze(%s): %v, want ErrNotGo", path, err)
		}
		if _, err := ReadInfo(path); !errors.Is(err, ErrNotGo) {
			t.Errorf("ReadInfo(%s): %v, want ErrNotGo", path, err)
		}
	}
	missing := filepath.Join(dir, "missing")
	if _, err := Analyze(missing); !errors.Is(err, os.ErrNotExist) || errors.Is(err, ErrNotGo) {
		t.Errorf("Analyze of a missing file: %v", err)
	}
	if _, err := ReadInfo(missing); !errors.Is(err, os.ErrNotExist) || errors.Is(err, ErrNotGo) {
		t.Errorf("ReadInfo of a missing file: %v", err)
	}
}

// TestStd checks that every number in the test binaries of the standard library is found.
func TestStd(t *testing.T) {
	if testing.Short() {
		t.Skip("builds test binaries of the standard library")
	}
	for _, goarch := range []string{"amd64", "386", "arm64"} {
		for _, pkg := range []string{"encoding/json", "os/exec", "net"} {
			path := filepath.Join(t.TempDir(), "test")
			goCommand(t, "", goarch, "test", "-c", "-o", path, pkg)
			r := analyze(t, path)
			for _, u := range r.Unresolved {
				t.Errorf("%s %s: %v", goarch, pkg, u)
			}
			if len(r.Calls) < 80 || len(r.Calls) > 130 {
				t.Errorf("%s %s: %d calls", goarch, pkg, len(r.Calls))
			}
			for _, e := range GoRuntime(r) {
				if e.Category == Other {
					t.Errorf("%s %s: the table of the runtime's functions lacks %v", goarch, pkg, e.Funcs)
				}
			}
		}
	}
}
