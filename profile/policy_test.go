package profile

import (
	"flag"
	"os"
	gocommand "os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seccompgen/seccompgen/internal/gobin"
)

var toolchains = flag.String("toolchains", "local", "compare the table with what these Go `VERSIONS` build, separated by commas")

// neverFound gives the reasons for rows of Go programs that the analysis does not show in what TestTableHoldsTheAnalysis builds.
var neverFound = map[string]string{
	"pipe2": "go1.22 and older are not built",
}

// The table stands in where a Go binary was not analyzed: it must hold all that an analysis finds, and nothing else.
func TestTableHoldsTheAnalysis(t *testing.T) {
	sources, err := filepath.Abs("../internal/gobin/testdata")
	if err != nil {
		t.Fatal(err)
	}
	server := []string{"build", filepath.Join(sources, "server", "main.go")}
	builds := []struct {
		name, goarch, cgo string
		args              []string
	}{
		{"cases", "amd64", "0", []string{"build", filepath.Join(sources, "cases", "main.go")}},
		{"test", "amd64", "0", []string{"test", "-c", "os/exec"}},
		{"server", "amd64", "0", server},
		{"pie", "amd64", "0", slices.Insert(slices.Clone(server), 1, "-buildmode=pie")},
		{"stripped", "amd64", "0", slices.Insert(slices.Clone(server), 1, "-ldflags=-s -w")},
		{"not optimized", "amd64", "0", slices.Insert(slices.Clone(server), 1, "-gcflags=all=-N -l")},
		{"386", "386", "0", server},
		{"386 not optimized", "386", "0", slices.Insert(slices.Clone(server), 1, "-gcflags=all=-N -l")},
		{"arm64", "arm64", "0", server},
		{"cgo", "amd64", "1", server},
	}
	rows := map[string]who{}
	for _, row := range implicit {
		rows[row.name] = row.who
	}
	found := map[string]bool{}
	for toolchain := range strings.SplitSeq(*toolchains, ",") {
		for _, b := range builds {
			t.Run(toolchain+"/"+b.name, func(t *testing.T) {
				if testing.Short() && strings.Contains(b.name, "not optimized") {
					t.Skip("builds the standard library anew")
				}
				binary := filepath.Join(t.TempDir(), "binary")
				build := gocommand.Command("go", slices.Insert(slices.Clone(b.args), len(b.args)-1, "-o", binary)...)
				build.Dir = filepath.Dir(binary) // no module, whose go.mod may ask for another version
				build.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off", "GOTOOLCHAIN="+toolchain, "GOOS=linux", "GOARCH="+b.goarch, "CGO_ENABLED="+b.cgo)
				if out, err := build.CombinedOutput(); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				if info, err := gobin.ReadInfo(binary); err != nil || toolchain != "local" && info.GoVersion != toolchain {
					t.Fatalf("built by %q, %v", info.GoVersion, err)
				}
				reach, err := gobin.Analyze(binary)
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range gobin.GoRuntime(reach) {
					abi := specs.Arch(e.ABI)
					name := Name(abi, uint32(e.Number))
					found[name] = true
					if !e.Default {
						continue
					}
					if _, ok := rows[name]; !ok || len(onlyOn[name]) > 0 && !slices.Contains(onlyOn[name], abi) {
						t.Errorf("the table lacks %s on %s, which %v make", name, abi, e.Funcs)
					}
				}
			})
		}
	}
	if testing.Short() {
		return
	}
	for _, row := range implicit {
		if excuse := neverFound[row.name]; row.who != anyProgram && found[row.name] == (excuse != "") {
			t.Errorf("%s: found is %t, and why it need not be is %q", row.name, found[row.name], excuse)
		}
	}
}

// A Go program of which nothing is known may do all that the table has. One that was analyzed, or is none of Go's, gets
// nothing of that for the moment at which runc's init, a Go program too, runs under the filter.
func TestTableOfUnknownPrograms(t *testing.T) {
	hash := strings.Repeat("a", 64)
	tests := []struct {
		name    string
		program Program
		all     bool
	}{
		{"Go, not analyzed", Program{Path: "/p", SHA256: hash, Go: "go1.26", Unread: "too large"}, true},
		{"not read", Program{Path: "/p", Unread: "gone"}, true},
		{"analyzed", Program{Path: "/p", SHA256: hash, Go: "go1.26", Static: &Static{}}, false},
		{"not Go", Program{Path: "/p", SHA256: hash}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := recording(t, "a", call(t, PhaseRuntime, x64, "execve"), call(t, PhaseWorkload, x64, "lseek"))
			r.Runtime.Name, r.Programs = "runc", []Program{tt.program}
			add := additions([]*Recording{r}, []specs.Arch{x64, i386}, nil)
			for _, row := range implicit {
				_, has := Number(x64, row.name)
				has = has && (onlyOn[row.name] == nil || slices.Contains(onlyOn[row.name], x64))
				want := has && (row.who != goWorkload || tt.all)
				if got := len(add[target{x64, row.name}]) > 0; got != want {
					t.Errorf("%s is allowed: %t, want %t", row.name, got, want)
				}
				if got := len(add[target{i386, row.name}]) > 0; got && row.who != anyProgram {
					t.Errorf("%s is allowed on i386, where nothing ran", row.name)
				}
			}
		})
	}
}
