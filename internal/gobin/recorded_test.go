package gobin

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/seccompgen/seccompgen/test/lab"
)

var straceLine = regexp.MustCompile(`^\d+ +\[ *(\d+)\] (\w+)\(`)

// TestRecordedIsReachable runs test binaries under strace and checks that all they do was found.
func TestRecordedIsReachable(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace is not installed: what real runs do is NOT compared with the analysis")
	}
	tests := []struct {
		goarch, pkg, run string
	}{
		{"amd64", "encoding/json", "."},
		{"amd64", "internal/poll", "."},
		{"386", "encoding/json", "."},
		{"386", "time", "TestAfter|TestSleep|TestTicker$|TestReset"},
	}
	for _, tt := range tests {
		t.Run(tt.goarch+" "+tt.pkg, func(t *testing.T) {
			if testing.Short() && tt.pkg != "internal/poll" {
				t.Skip("builds test binaries of the standard library")
			}
			if tt.goarch == "386" {
				lab.NeedCompat(t)
			}
			dir := t.TempDir()
			path := filepath.Join(dir, "test")
			goCommand(t, "", tt.goarch, "test", "-c", "-o", path, tt.pkg)
			reach := map[int]bool{}
			r := analyze(t, path)
			for _, c := range r.Calls {
				if c.ABI == r.ABI {
					reach[c.Number] = true
				}
			}
			for _, e := range GoRuntime(r) {
				reach[e.Number] = true
			}
			trace := filepath.Join(dir, "trace")
			c := exec.Command(strace, "-f", "-n", "-qq", "--signal=none", "-o", trace, path, "-test.short", "-test.run", tt.run)
			c.Dir = dir
			c.Env = append(os.Environ(), "GOGC=5")
			out, runErr := c.CombinedOutput() // a test may fail for want of its testdata; its calls count all the same
			data, err := os.ReadFile(trace)
			if err != nil {
				t.Skipf("strace cannot trace here: %v, %v\n%s", runErr, err, out)
			}
			seen := map[int]bool{}
			for i, line := range bytes.Split(data, []byte("\n")) {
				m := straceLine.FindSubmatch(line)
				if m == nil || i == 0 && string(m[2]) == "execve" {
					continue
				}
				nr, _ := strconv.Atoi(string(m[1]))
				if !reach[nr] && !seen[nr] {
					t.Errorf("%s (%d) was made, but not found", m[2], nr)
				}
				seen[nr] = true
			}
			if len(seen) < 15 {
				t.Errorf("strace saw %d calls: %v\n%s", len(seen), runErr, out)
			}
			t.Logf("%d calls seen, %d found", len(seen), len(reach))
		})
	}
}

func BenchmarkAnalyze(b *testing.B) {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		b.Fatal(err)
	}
	path := filepath.Join(strings.TrimSpace(string(out)), "bin", "go")
	for b.Loop() {
		if _, err := Analyze(path); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzProgram changes words of a binary; whatever comes out, the analysis must end without a panic.
func FuzzProgram(f *testing.F) {
	type target struct {
		data   []byte
		places []int // that matter: headers, section headers, the function table, the first code and data
	}
	var targets []target
	for _, goarch := range []string{"amd64", "386", "arm64"} {
		data, err := os.ReadFile(buildCases(f, goarch, "-ldflags=-s -w"))
		if err != nil {
			f.Fatal(err)
		}
		ef, err := elf.NewFile(bytes.NewReader(data))
		if err != nil {
			f.Fatal(err)
		}
		t := target{data: data}
		for off := 16; off < 64; off += 8 {
			t.places = append(t.places, off)
		}
		for i, s := range ef.Sections {
			headers, size := int(data[0x28])|int(data[0x29])<<8|int(data[0x2a])<<16, 64
			if ef.Class == elf.ELFCLASS32 {
				headers, size = int(data[0x20])|int(data[0x21])<<8|int(data[0x22])<<16, 40
			}
			for off := 4; off < size-8; off += 8 {
				t.places = append(t.places, headers+size*i+off)
			}
			if s.Name == ".gopclntab" || s.Name == ".text" || s.Name == ".rodata" || s.Name == ".go.module" {
				for off := 0; off < 128; off += 4 {
					t.places = append(t.places, int(s.Offset)+off)
				}
			}
		}
		targets = append(targets, t)
	}
	for i, t := range targets {
		for j := range t.places {
			if j%5 == i { // a share of the places for the run as a plain test
				f.Add(byte(i), uint16(j), ^uint64(0), uint32(70000*j), byte(0x0f))
				f.Add(byte(i), uint16(j+1), uint64(0x7fffffff), uint32(100*j), byte(j))
			}
		}
	}
	f.Fuzz(func(_ *testing.T, which byte, place uint16, word uint64, at uint32, b byte) {
		tg := targets[int(which)%len(targets)]
		data := bytes.Clone(tg.data)
		off := tg.places[int(place)%len(tg.places)]
		binary.LittleEndian.PutUint64(data[off:], word)
		data[int(at)%len(data)] ^= b
		ef, err := elf.NewFile(bytes.NewReader(data))
		if err != nil {
			return
		}
		p, err := newProgram(ef)
		if err != nil {
			return
		}
		p.reach()
	})
}

// TestTruncated keeps the package from reading less than it says of a file that is cut short.
func TestTruncated(t *testing.T) {
	data, err := os.ReadFile(buildCases(t, "arm64"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "cut")
	for _, n := range []int{0, 3, 64, 4096, len(data) / 4, len(data) / 2} {
		if err := os.WriteFile(path, data[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if r, err := Analyze(path); err == nil && len(r.Calls) == 0 {
			t.Errorf("%d bytes: no error and no calls", n)
		}
	}
}

// TestLoading: what comes from outside of the file, and C within it, is said.
func TestLoading(t *testing.T) {
	const (
		plain  = "package main\n\nfunc main() { println(1) }\n"
		cgo    = "package main\n\n// static int one(void) { return 1; }\nimport \"C\"\n\nfunc main() { println(C.one()) }\n"
		plugin = "package main\n\nimport \"plugin\"\n\nfunc main() { println(plugin.Open(\"x\")) }\n"
	)
	for _, c := range []struct {
		name, source, cgo, flag string
		loader, c, plugins      bool
	}{
		{"plain", plain, "0", "", false, false, false},
		{"stripped", plain, "0", "-ldflags=-s -w", false, false, false},
		{"pie", plain, "0", "-buildmode=pie", true, false, false},
		{"cgo", cgo, "1", "", true, true, false},
		{"cgo, stripped", cgo, "1", "-ldflags=-s -w", true, true, false},
		{"cgo, static", cgo, "1", "-ldflags=-extldflags=-static", false, true, false},
		{"cgo, static and stripped", cgo, "1", "-ldflags=-s -w -extldflags=-static", false, true, false},
		{"plugin", plugin, "1", "", true, true, true},
		{"plugin without cgo", plugin, "0", "", false, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.cgo == "1" {
				lab.NeedTool(t, "gcc")
			}
			dir := t.TempDir()
			source, binary := filepath.Join(dir, "main.go"), filepath.Join(dir, "binary")
			if err := os.WriteFile(source, []byte(c.source), 0o600); err != nil {
				t.Fatal(err)
			}
			t.Setenv("CGO_ENABLED", c.cgo)
			cmd := exec.Command("go", slices.DeleteFunc([]string{"build", c.flag, "-o", binary, source}, func(arg string) bool { return arg == "" })...)
			cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOFLAGS=", "GOWORK=off")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			r := analyze(t, binary)
			if (r.Interpreter != "") != c.loader || r.C != c.c || r.Plugins != c.plugins {
				t.Errorf("loaded by %q, C %t, plugins %t", r.Interpreter, r.C, r.Plugins)
			}
		})
	}
}
