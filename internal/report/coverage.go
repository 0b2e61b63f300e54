package report

import (
	"bytes"
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/tools/cover"
)

// ReadCoverage reads a cover profile, as `go test -coverprofile` writes it, and counts it by function. The sources of its
// packages are found by the go command in the directory dir. The tests themselves are not run with coverage here: that would
// change the binary, and the calls that it makes.
func ReadCoverage(ctx context.Context, from io.Reader, dir string) (map[string]Statement, error) {
	files, err := cover.ParseProfilesFromReader(from)
	if err != nil {
		return nil, fmt.Errorf("cover profile: %w", err)
	}
	var packages []string
	for _, f := range files {
		packages = append(packages, path.Dir(f.FileName))
	}
	slices.Sort(packages)
	packages = slices.Compact(packages)
	if len(packages) == 0 {
		return map[string]Statement{}, nil
	}
	cmd := exec.CommandContext(ctx, "go", append([]string{"list", "-f", "{{.ImportPath}}\t{{.Dir}}", "--"}, packages...)...)
	cmd.Dir = dir
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("find the sources of the cover profile: go list: %w: %s", err, bytes.TrimSpace(said.Bytes()))
	}
	dirs := map[string]string{}
	for line := range strings.Lines(string(out)) {
		pkg, dir, _ := strings.Cut(strings.TrimSpace(line), "\t")
		dirs[pkg] = dir
	}
	all := map[string]Statement{}
	for _, f := range files {
		pkg := path.Dir(f.FileName)
		if err := count(all, pkg, filepath.Join(dirs[pkg], path.Base(f.FileName)), f); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func count(all map[string]Statement, pkg, file string, p *cover.Profile) error {
	set := token.NewFileSet()
	parsed, err := parser.ParseFile(set, file, nil, parser.SkipObjectResolution)
	if err != nil {
		return fmt.Errorf("source of the cover profile: %w", err)
	}
	for _, decl := range parsed.Decls {
		f, ok := decl.(*ast.FuncDecl)
		if !ok || f.Body == nil {
			continue
		}
		name := pkg + "." + receiver(f) + f.Name.Name
		begin, end := set.Position(f.Pos()), set.Position(f.End())
		s := all[name]
		for _, b := range p.Blocks {
			after := b.StartLine > begin.Line || b.StartLine == begin.Line && b.StartCol >= begin.Column
			before := b.EndLine < end.Line || b.EndLine == end.Line && b.EndCol <= end.Column
			if after && before {
				s.All += b.NumStmt
				if b.Count > 0 {
					s.Covered += b.NumStmt
				}
			}
		}
		all[name] = s
	}
	return nil
}

// receiver is the part of a method's name in the symbol table that comes before its own.
func receiver(f *ast.FuncDecl) string {
	if f.Recv == nil || len(f.Recv.List) == 0 {
		return ""
	}
	t, pointer := f.Recv.List[0].Type, false
	for {
		switch x := t.(type) {
		case *ast.ParenExpr:
			t = x.X
		case *ast.StarExpr:
			t, pointer = x.X, true
		case *ast.IndexExpr:
			t = x.X
		case *ast.IndexListExpr:
			t = x.X
		case *ast.Ident:
			if pointer {
				return "(*" + x.Name + ")."
			}
			return x.Name + "."
		default:
			return ""
		}
	}
}

var (
	inner    = regexp.MustCompile(`(\.(func|gowrap|deferwrap)?\d+)+$`)
	typeArgs = regexp.MustCompile(`\[[^\]]*\]`)
)

// plain turns a symbol into the name of the function that is declared: without closures, wrappers and type arguments.
func plain(symbol string) string {
	symbol = strings.TrimSuffix(typeArgs.ReplaceAllString(symbol, ""), "-fm")
	return strings.ReplaceAll(inner.ReplaceAllString(symbol, ""), "%2e", ".")
}
