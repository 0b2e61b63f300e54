package hook

import (
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestParseName(t *testing.T) {
	for value, want := range map[string]string{
		"": "", "true": "", "web": "web", "Web-1.2_x": "Web-1.2_x", "0": "0", strings.Repeat("a", 64): strings.Repeat("a", 64), "a..b": "a..b",
	} {
		if got, err := parseName(value); err != nil || got != want {
			t.Errorf("%q: got %q, %v", value, got, err)
		}
	}
	for _, value := range []string{
		".", "..", "../x", "a/b", "/etc/passwd", "-rf", "_x", ".x", " x", "x ", "x\n", "\nx", "x\x00", "x\x00y", "é", "a b", "a;b", "$(id)", "a\\b",
		"a%2fb", "\xff", "of:/tmp/x", strings.Repeat("a", 65), strings.Repeat("a", 1<<20),
	} {
		if got, err := parseName(value); !errors.Is(err, errInvalid) {
			t.Errorf("%.80q is taken, as %.80q", value, got)
		}
	}
}

func TestParseTrace(t *testing.T) {
	for value, want := range map[string]trace{
		"of:/o.json":                {output: "/o.json"},
		"of:/o;if:/i":               {"/o", "/i"},
		"if:/i;of:/o":               {"/o", "/i"},
		"of: /o ;if:\t/i ":          {"/o", "/i"},
		"if: /a b/i ; of:/o":        {},
		"of:/o":                     {output: "/o"},
		"of:/a/.../o":               {output: "/a/.../o"},
		"of:/a//o":                  {output: "/a//o"},
		"of:/of:/if:":               {output: "/of:/if:"},
		"if:/home/i j.json;of:/o=1": {"/o=1", "/home/i j.json"},
	} {
		got, err := parseTrace(value)
		if want == (trace{}) { // a blank before the prefix
			if err == nil {
				t.Errorf("%q is taken, as %+v", value, got)
			}
			continue
		}
		if err != nil || *got != want {
			t.Errorf("%q: got %+v, %v", value, got, err)
		}
	}
	for value, want := range map[string]string{
		"":                                       "must start",
		"true":                                   "must start",
		"/o":                                     "must start",
		"OF:/o":                                  "must start",
		"of:/o;":                                 "must start",
		";of:/o":                                 "must start",
		"of:/o;xx:/i":                            "must start",
		"of:/o,if:/i;":                           "must start",
		"if:/i":                                  "output file is mandatory",
		"of:":                                    "output file path must be absolute",
		"of:o":                                   "output file path must be absolute",
		"of: ":                                   "output file path must be absolute",
		"of:./o":                                 "output file path must be absolute",
		"of:~/o":                                 "output file path must be absolute",
		"if:i;of:/o":                             "input file path must be absolute",
		"if:;of:/o":                              "input file path must be absolute",
		"if:/i;if:/j;of:/o":                      "more than one semi-colon",
		"of:/o;if:/i;":                           "more than one semi-colon",
		"of:/o;of:/p":                            "two output files",
		"if:/i;if:/j":                            "two input files",
		"of:/a/../o":                             `".."`,
		"of:/..":                                 `".."`,
		"of:/o;if:/../i":                         `".."`,
		"of:/a/./o":                              `"."`,
		"of:/":                                   "directory",
		"of:/a/":                                 "directory",
		"of:/a\x00b":                             "control characters",
		"of:/a\nb":                               "control characters",
		"of:/a\x1b[2Jb":                          "control characters",
		"of:/a\xffb":                             "not UTF-8",
		"of:/" + strings.Repeat("a", maxPath):    "longer than",
		"of:/" + strings.Repeat("a", 1<<20):      "longer than",
		"of:/o;if:/" + strings.Repeat("b", 5000): "longer than",
	} {
		if got, err := parseTrace(value); !errors.Is(err, errInvalid) || !strings.Contains(err.Error(), want) || strings.ContainsAny(err.Error(), "\n\x00") {
			t.Errorf("%.80q: got %+v, %v, want an error with %q", value, got, err, want)
		}
	}
}

func TestAsked(t *testing.T) {
	type list = map[string]string
	const name, kind = "io.kubernetes.container.name", "io.kubernetes.cri-o.ContainerType"
	for _, c := range []struct {
		annotations list
		want        string // key and what it asks for; empty is nothing
	}{
		{nil, ""},
		{list{"a": "b"}, ""},
		{list{RecordAnnotation + "er": "x"}, ""},
		{list{RecordAnnotation: "false"}, ""},
		{list{RecordAnnotation: ""}, RecordAnnotation + " "},
		{list{RecordAnnotation: "true"}, RecordAnnotation + " "},
		{list{RecordAnnotation: "web"}, RecordAnnotation + " web"},
		{list{RecordAnnotation + "/web": "x"}, ""},
		{list{RecordAnnotation + "/web": "x", name: "db"}, ""},
		{list{RecordAnnotation + "/web": "x", name: "web"}, RecordAnnotation + "/web x"},
		{list{RecordAnnotation + "/web": "x", RecordAnnotation: "all", name: "web"}, RecordAnnotation + "/web x"},
		{list{RecordAnnotation + "/web": "false", RecordAnnotation: "all", name: "web"}, ""},
		{list{RecordAnnotation + "/web": "x", RecordAnnotation: "all", name: "db"}, RecordAnnotation + " all"},
		{list{RecordAnnotation: "web", kind: "sandbox"}, ""},
		{list{RecordAnnotation: "../x", kind: "sandbox"}, ""},
		{list{RecordAnnotation: "web", kind: "container"}, RecordAnnotation + " web"},
		{list{TraceAnnotation: "of:/o;if:/i"}, TraceAnnotation + " /o /i"},
		{list{TraceAnnotation + "/web": "of:/o"}, ""}, // CRI-O's to rewrite
	} {
		r, err := asked(c.annotations)
		got := ""
		if r != nil && r.trace != nil {
			got = r.key + " " + r.trace.output + " " + r.trace.input
		} else if r != nil {
			got = r.key + " " + r.name
		}
		if err != nil || got != c.want {
			t.Errorf("%v: got %q, %v, want %q", c.annotations, got, err, c.want)
		}
	}
	for _, annotations := range []list{
		{RecordAnnotation: "web", TraceAnnotation: "of:/o"}, {RecordAnnotation: "false", TraceAnnotation: "of:/o"}, {RecordAnnotation: "a/b"}, {TraceAnnotation: "true"},
	} {
		r, err := asked(annotations)
		var refused *refusal
		if r != nil || !errors.As(err, &refused) {
			t.Errorf("%v: got %+v, %v", annotations, r, err)
		}
	}
}

func FuzzAnnotations(f *testing.F) {
	for _, value := range []string{"of:/o", "of:/o;if:/i", "if: /i ;of:/o", "web", "../x", "of:/a\x00", "of:/;", ";;;", "of:of:/x"} {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		if name, err := parseName(value); err == nil && name != "" {
			if file := name + "-c1.json"; !filepath.IsLocal(file) || filepath.Base(file) != file || strings.ContainsAny(name, "/\x00\n ") || name[0] == '.' || name[0] == '-' {
				t.Fatalf("let through as a name: %q", name)
			}
		}
		r, err := parseTrace(value)
		if err != nil {
			if !errors.Is(err, errInvalid) || strings.ContainsAny(err.Error(), "\n\x00\x1b") {
				t.Fatalf("error %q", err)
			}
			return
		}
		for _, path := range []string{r.output, r.input} {
			if path == "" && r.input == "" {
				continue
			}
			if !filepath.IsAbs(path) || strings.Contains(path+"/", "/../") || strings.ContainsAny(path, "\x00\n") || strings.HasSuffix(path, "/") {
				t.Fatalf("let through as a path: %q", path)
			}
		}
		// What was understood says the same again.
		text := "of:" + r.output
		if r.input != "" {
			text += ";if:" + r.input
		}
		if again, err := parseTrace(text); err != nil || *again != *r {
			t.Fatalf("%q: got %+v, %v", text, again, err)
		}
	})
}

// Where recordings of a pod's containers go, by their hooks and by Collect, which knows less.
func TestNames(t *testing.T) {
	const by, in = "io.kubernetes.cri.container-name", "io.kubernetes.cri.sandbox-id"
	for _, c := range []struct {
		annotations map[string]string
		want        string
	}{
		{map[string]string{RecordAnnotation: "shop"}, "shop-ID"},
		{map[string]string{RecordAnnotation: ""}, "ID"},
		{map[string]string{RecordAnnotation: "shop", by: "web"}, "shop-web-ID"},
		{map[string]string{RecordAnnotation: "true", by: "web"}, "web-ID"},
		{map[string]string{RecordAnnotation: "shop", RecordAnnotation + "/web": "front", by: "web"}, "front-web-ID"},
		{map[string]string{RecordAnnotation: "shop", by: "web", in: "POD"}, "shop-web-POD"},
		{map[string]string{RecordAnnotation: "", by: "web", in: "POD"}, "web-POD"},
		{map[string]string{RecordAnnotation: "shop", by: "web", in: "../POD"}, "shop-web-ID"},
		{map[string]string{RecordAnnotation: "shop", in: "POD"}, "shop-ID"},
		{map[string]string{RecordAnnotation: "shop", by: "web", in: "POD", sandboxAnnotation: "VICTIM"}, "shop-web-ID"},
		{map[string]string{TraceAnnotation: "of:/a/web.json", containerNameAnnotation: "web", sandboxAnnotation: "POD"}, "web-web-POD"},
		{map[string]string{RecordAnnotation: "shop", by: "../../web"}, "shop-ID"},
		{map[string]string{TraceAnnotation: "of:/a/web.json"}, "web-ID"},
	} {
		o, err := parse(nil, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		target, err := o.target(&specs.State{ID: "ID"}, c.annotations)
		if err != nil || target.name != c.want {
			t.Errorf("%q: got %+v, %v", c.annotations, target, err)
			continue
		}
		n := noteFor(o, target, "/b")
		if again, err := o.target(&specs.State{ID: "ID"}, n.Annotations); err != nil || again.name != c.want {
			t.Errorf("%q: collected as %+v, %v", c.annotations, again, err)
		}
	}
}
