package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/seccompgen/seccompgen/test/lab"
)

const modulePath = "github.com/seccompgen/seccompgen"

// goPackage is what go list says of a package.
type goPackage struct {
	Dir, ImportPath, Name     string
	Imports, Deps             []string
	TestImports, XTestImports []string
	GoFiles, CgoFiles         []string
	IgnoredGoFiles            []string
}

func goList(t *testing.T, env []string, args ...string) []goPackage {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-json"}, args...)...)
	cmd.Dir, cmd.Env = lab.Repo, append(append(os.Environ(), "GOFLAGS="), env...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %q: %v\n%s", args, err, &said)
	}
	var all []goPackage
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func within(path, tree string) bool { return path == tree || strings.HasPrefix(path, tree+"/") }

// TestImports holds the borders between the packages (docs/explanation/architecture.md). The reasons stand beside them.
func TestImports(t *testing.T) {
	doors := []struct {
		lib  string
		in   []string
		text string
	}{
		{"github.com/cilium/ebpf", []string{"tracer", "tracer/bench"}, "what the kernel keeps has one owner, and the rest builds without it"},
		{"github.com/seccomp/libseccomp-golang", []string{"internal/scmp"}, "it is cgo, and a profile has one compiler"},
		{"github.com/opencontainers/runc", []string{"internal/verify"}, "it drags in cgroups, dbus and systemd, and its API moves"},
		{"github.com/containerd/nri", []string{"internal/nri", "cmd/nri-plugin"}, "it is containerd's protocol, and the hook is small"},
	}
	for _, p := range goList(t, nil, "-tags", "seccomp", "./...") {
		for _, imported := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			for _, door := range doors {
				if within(imported, door.lib) && !slices.Contains(door.in, strings.TrimPrefix(p.ImportPath, modulePath+"/")) {
					t.Errorf("%s imports %s, which only %s may: %s", p.ImportPath, imported, strings.Join(door.in, " and "), door.text)
				}
			}
		}
		// The way of imports: cmd -> internal, tracer -> profile; nothing points up.
		for _, imported := range p.Imports {
			switch from, to := strings.TrimPrefix(p.ImportPath, modulePath+"/"), strings.TrimPrefix(imported, modulePath+"/"); {
			case to == imported: // not ours
			case to == "test/lab" && (strings.HasPrefix(from, "test/") || from == "tracer/bench"): // what tests and measurements have in common
			case strings.HasPrefix(to, "cmd/") || strings.HasPrefix(to, "test/"):
				t.Errorf("%s imports %s: commands and tests are imported by nobody", from, to)
			case from == "profile":
				t.Errorf("profile imports %s: it is the leaf that all share", to)
			case from == "tracer" && to != "profile":
				t.Errorf("tracer imports %s: it may import profile only", to)
			case strings.HasPrefix(from, "internal/") && strings.HasPrefix(to, "internal/") && !slices.Contains(edges[from], to):
				t.Errorf("%s imports %s: add it to the edges here if that is meant", from, to)
			case strings.HasPrefix(from, "internal/") && to == "tracer" && !slices.Contains(recorders, from):
				t.Errorf("%s imports tracer: it is not one of those who record", from)
			}
		}
		from := strings.TrimPrefix(p.ImportPath, modulePath+"/")
		for _, to := range edges[from] {
			if !slices.Contains(p.Imports, modulePath+"/"+to) {
				t.Errorf("%s imports %s no more: remove the edge here", from, to)
			}
		}
	}
}

// edges are the imports between internal packages.
var edges = map[string][]string{
	"internal/bundle":     {"internal/docker", "internal/gotest"},
	"internal/container":  {"internal/bundle", "internal/ociruntime", "internal/testresult"},
	"internal/hook":       {"internal/annotation", "internal/dropin", "internal/journal", "internal/ociruntime", "internal/programs", "internal/recordings", "internal/rootless", "internal/version", "internal/wrapper"},
	"internal/nri":        {"internal/annotation", "internal/journal", "internal/recordings"},
	"internal/programs":   {"internal/gobin"},
	"internal/record":     {"internal/bundle", "internal/container", "internal/gobin"},
	"internal/recordings": {"internal/annotation", "internal/dropin"},
	"internal/report":     {"internal/verify"},
	"internal/rootless":   {"internal/annotation"},
	"internal/verify":     {"internal/bundle", "internal/container", "internal/docker", "internal/ociruntime", "internal/scmp"},
	"internal/wrapper":    {"internal/annotation"},
}

// recorders are the internal packages that call the tracer.
var recorders = []string{"internal/container", "internal/hook", "internal/rootless"}

// TestDependencies: what profile and the hook must stay free of, to the last dependency.
func TestDependencies(t *testing.T) {
	for _, rule := range []struct {
		pkg     string
		env     []string
		without []string
		text    string
	}{
		{
			"profile",
			[]string{"CGO_ENABLED=1"},
			[]string{
				"os/exec", "net", "runtime/cgo", "github.com/cilium/ebpf", "github.com/seccomp/libseccomp-golang", "github.com/opencontainers/runc",
			},
			"profile is pure: the same recordings give the same bytes on every host",
		},
		{
			"cmd/oci-hook",
			[]string{"CGO_ENABLED=0"},
			[]string{
				"runtime/cgo", "github.com/seccomp/libseccomp-golang", "github.com/opencontainers/runc", "github.com/urfave/cli/v2", "google.golang.org/grpc", modulePath + "/internal/verify",
				modulePath + "/internal/scmp", modulePath + "/internal/container",
			},
			"the hook is static, small, and starts in milliseconds between a runtime and its container",
		},
		{
			"cmd/oci-hook",
			[]string{"CGO_ENABLED=0"},
			[]string{"go.yaml.in/yaml/v3", "regexp", modulePath + "/profile/format"},
			"all that is initialized costs every container's start",
		},
		{
			"cmd/oci-runtime",
			[]string{"CGO_ENABLED=0"},
			[]string{modulePath + "/profile", modulePath + "/tracer", "encoding/json", "net"},
			"engines start it five times for a container",
		},
		{
			"cmd/nri-plugin",
			[]string{"CGO_ENABLED=0"},
			[]string{modulePath + "/tracer", "github.com/cilium/ebpf", modulePath + "/internal/rootless", modulePath + "/internal/bundle", modulePath + "/internal/container"},
			"the plugin records nothing: the hook does",
		},
	} {
		packages := goList(t, rule.env, "-deps", "./"+rule.pkg)
		for _, p := range packages {
			if len(p.CgoFiles) > 0 {
				t.Errorf("%s depends on %s, which is cgo: %s", rule.pkg, p.ImportPath, rule.text)
			}
			for _, lib := range rule.without {
				if p.ImportPath == lib || strings.Contains(lib, ".") && within(p.ImportPath, lib) {
					t.Errorf("%s depends on %s: %s", rule.pkg, strings.Join(chain(packages, modulePath+"/"+rule.pkg, p.ImportPath), " -> "), rule.text)
				}
			}
		}
	}
}

// chain returns a way of imports from one package to another, for whoever has to break it.
func chain(packages []goPackage, from, to string) []string {
	imports := map[string][]string{}
	for _, p := range packages {
		imports[p.ImportPath] = p.Imports
	}
	by := map[string]string{from: ""}
	for queue := []string{from}; len(queue) > 0; queue = queue[1:] {
		for _, imported := range imports[queue[0]] {
			if _, seen := by[imported]; !seen {
				by[imported] = queue[0]
				queue = append(queue, imported)
			}
		}
	}
	var way []string
	for at := to; at != ""; at = by[at] {
		way = append([]string{strings.TrimPrefix(at, modulePath+"/")}, way...)
	}
	return way
}

// TestHookIsStatic: the file that runtimes start, in whatever namespaces.
func TestHookIsStatic(t *testing.T) {
	if !lab.IsStatic(filepath.Join(binDir, "oci-hook")) {
		t.Error("oci-hook is linked dynamically")
	}
}

// TestPackageDocs: every package says once what it promises.
func TestPackageDocs(t *testing.T) {
	for _, p := range goList(t, nil, "-tags", "seccomp", "./...") {
		if strings.Contains(p.ImportPath, "/testdata/") {
			continue
		}
		// The files of all platforms and tags, so that the doc is there on each, once.
		var with []string
		for _, name := range slices.Concat(p.GoFiles, p.CgoFiles, p.IgnoredGoFiles) {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if f.Doc == nil {
				continue
			}
			with = append(with, name)
			if text := f.Doc.Text(); p.Name != "main" && !strings.HasPrefix(text, "Package "+p.Name+" ") {
				t.Errorf("%s: %s: the package doc begins with %.40q", p.ImportPath, name, text)
			}
		}
		if len(with) != 1 {
			t.Errorf("%s has its package doc in the files %q, want it in one", p.ImportPath, with)
		}
	}
}

// TestNoReplace: go install of a tagged version refuses a module with replace directives.
func TestNoReplace(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "mod", "edit", "-json")
	cmd.Dir = lab.Repo
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var mod struct{ Replace, Exclude []any }
	if err := json.Unmarshal(out, &mod); err != nil {
		t.Fatal(err)
	}
	if len(mod.Replace)+len(mod.Exclude) > 0 {
		t.Errorf("go.mod has replace or exclude directives: %v %v", mod.Replace, mod.Exclude)
	}
}

// TestOtherPlatforms: recordings are looked at on any machine.
func TestOtherPlatforms(t *testing.T) {
	for _, vet := range []struct {
		env  string
		args []string
	}{
		{"GOOS=darwin", []string{"./tracer", "./profile"}},
		{"GOARCH=arm64", []string{"./tracer", "./profile", "./cmd/oci-hook"}},
	} {
		t.Run(vet.env, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), "go", append([]string{"vet"}, vet.args...)...)
			cmd.Dir, cmd.Env = lab.Repo, append(os.Environ(), vet.env, "CGO_ENABLED=0", "GOFLAGS=")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s go vet %s: %v\n%s", vet.env, strings.Join(vet.args, " "), err, out)
			}
		})
	}
}
