package e2e

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/text"

	"github.com/seccompgen/seccompgen/test/lab"
)

// page is a document in Markdown.
type page struct {
	links   []string
	anchors map[string]bool
}

func readPage(t *testing.T, path string) page {
	t.Helper()
	source, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p := page{anchors: map[string]bool{}}
	root := goldmark.New(goldmark.WithExtensions(extension.GFM)).Parser().Parse(text.NewReader(source))
	err = ast.Walk(root, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		switch n := n.(type) {
		case *ast.Link:
			p.links = append(p.links, string(n.Destination))
		case *ast.Image:
			p.links = append(p.links, string(n.Destination))
		case *ast.Heading:
			p.anchors[anchor(words(n, source))] = true
		}
		return ast.WalkContinue, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// words returns the text of a node without its markup.
func words(n ast.Node, source []byte) string {
	var b strings.Builder
	for c := n.FirstChild(); c != nil; c = c.NextSibling() {
		if leaf, ok := c.(*ast.Text); ok {
			b.Write(leaf.Value(source))
			continue
		}
		b.WriteString(words(c, source))
	}
	return b.String()
}

// anchor returns the anchor that GitHub gives a heading.
func anchor(heading string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			return unicode.ToLower(r)
		}
		return -1
	}, heading)
}

// TestLinks: every link of the documents to a file of the repository, or to a heading in one, leads there. The index leads to
// every document.
func TestLinks(t *testing.T) {
	paths := []string{filepath.Join(lab.Repo, "README.md")}
	for _, pattern := range []string{"docs/*.md", "docs/*/*.md"} {
		found, err := filepath.Glob(filepath.Join(lab.Repo, pattern))
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, found...)
	}
	if len(paths) < 10 {
		t.Fatalf("only %d documents were found", len(paths))
	}
	pages := map[string]page{}
	for _, path := range paths {
		pages[path] = readPage(t, path)
	}
	index := filepath.Join(lab.Repo, "docs/README.md")
	indexed := map[string]bool{index: true, paths[0]: true}
	for path, p := range pages {
		name, _ := filepath.Rel(lab.Repo, path)
		for _, link := range p.links {
			u, err := url.Parse(link)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if u.IsAbs() {
				continue
			}
			to := path
			if u.Path != "" {
				to = filepath.Join(filepath.Dir(path), u.Path)
			}
			if path == index {
				indexed[to] = true
			}
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s links to %s, which is not there", name, link)
			} else if u.Fragment != "" && !pages[to].anchors[u.Fragment] {
				t.Errorf("%s links to %s, which has no such heading", name, link)
			}
		}
	}
	for _, path := range paths {
		if !indexed[path] {
			name, _ := filepath.Rel(lab.Repo, path)
			t.Errorf("docs/README.md does not lead to %s", name)
		}
	}
}
