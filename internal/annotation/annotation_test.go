package annotation

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestParseName(t *testing.T) {
	for value, want := range map[string]string{
		"": "", "true": "", "web": "web", "Web-1.2_x": "Web-1.2_x", "0": "0", strings.Repeat("a", 64): strings.Repeat("a", 64), "a..b": "a..b",
	} {
		if got, err := ParseName(value); err != nil || got != want {
			t.Errorf("%q: got %q, %v", value, got, err)
		}
	}
	for _, value := range []string{
		".", "..", "../x", "a/b", "/etc/passwd", "-rf", "_x", ".x", " x", "x ", "x\n", "\nx", "x\x00", "x\x00y", "é", "a b", "a;b", "$(id)", "a\\b",
		"a%2fb", "\xff", "of:/tmp/x", strings.Repeat("a", 65), strings.Repeat("a", 1<<20),
	} {
		if got, err := ParseName(value); !errors.Is(err, ErrInvalid) {
			t.Errorf("%.80q is taken, as %.80q", value, got)
		}
	}
}

func TestParseTrace(t *testing.T) {
	for value, want := range map[string]Trace{
		"of:/o.json":                {Output: "/o.json"},
		"of:/o;if:/i":               {"/o", "/i"},
		"if:/i;of:/o":               {"/o", "/i"},
		"of: /o ;if:\t/i ":          {"/o", "/i"},
		"if: /a b/i ; of:/o":        {},
		"of:/o":                     {Output: "/o"},
		"of:/a/.../o":               {Output: "/a/.../o"},
		"of:/a//o":                  {Output: "/a//o"},
		"of:/of:/if:":               {Output: "/of:/if:"},
		"if:/home/i j.json;of:/o=1": {"/o=1", "/home/i j.json"},
	} {
		got, err := parseTrace(value)
		if want == (Trace{}) { // a blank before the prefix
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
		if got, err := parseTrace(value); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) || strings.ContainsAny(err.Error(), "\n\x00") {
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
		{list{Record + "er": "x"}, ""},
		{list{Record: "false"}, ""},
		{list{Record: ""}, Record + " "},
		{list{Record: "true"}, Record + " "},
		{list{Record: "web"}, Record + " web"},
		{list{Record + "/web": "x"}, ""},
		{list{Record + "/web": "x", name: "db"}, ""},
		{list{Record + "/web": "x", name: "web"}, Record + "/web x"},
		{list{Record + "/web": "x", Record: "all", name: "web"}, Record + "/web x"},
		{list{Record + "/web": "false", Record: "all", name: "web"}, ""},
		{list{Record + "/web": "x", Record: "all", name: "db"}, Record + " all"},
		{list{Record: "web", kind: "sandbox"}, ""},
		{list{Record: "../x", kind: "sandbox"}, ""},
		{list{Record: "web", kind: "container"}, Record + " web"},
		{list{TraceSyscall: "of:/o;if:/i"}, TraceSyscall + " /o /i"},
		{list{TraceSyscall + "/web": "of:/o"}, ""}, // CRI-O's to rewrite
	} {
		r, err := Asked(c.annotations)
		got := ""
		if r != nil && r.Trace != nil {
			got = r.Key + " " + r.Trace.Output + " " + r.Trace.Input
		} else if r != nil {
			got = r.Key + " " + r.Name
		}
		if err != nil || got != c.want {
			t.Errorf("%v: got %q, %v, want %q", c.annotations, got, err, c.want)
		}
	}
	for _, annotations := range []list{
		{Record: "web", TraceSyscall: "of:/o"}, {Record: "false", TraceSyscall: "of:/o"}, {Record: "a/b"}, {TraceSyscall: "true"},
	} {
		r, err := Asked(annotations)
		var refused *Refusal
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
		if name, err := ParseName(value); err == nil && name != "" {
			if file := name + "-c1.json"; !filepath.IsLocal(file) || filepath.Base(file) != file || strings.ContainsAny(name, "/\x00\n ") || name[0] == '.' || name[0] == '-' {
				t.Fatalf("let through as a name: %q", name)
			}
		}
		r, err := parseTrace(value)
		if err != nil {
			if !errors.Is(err, ErrInvalid) || strings.ContainsAny(err.Error(), "\n\x00\x1b") {
				t.Fatalf("error %q", err)
			}
			return
		}
		for _, path := range []string{r.Output, r.Input} {
			if path == "" && r.Input == "" {
				continue
			}
			if !filepath.IsAbs(path) || strings.Contains(path+"/", "/../") || strings.ContainsAny(path, "\x00\n") || strings.HasSuffix(path, "/") {
				t.Fatalf("let through as a path: %q", path)
			}
		}
		// What was understood says the same again.
		text := "of:" + r.Output
		if r.Input != "" {
			text += ";if:" + r.Input
		}
		if again, err := parseTrace(text); err != nil || *again != *r {
			t.Fatalf("%q: got %+v, %v", text, again, err)
		}
	})
}

func TestNameInCRIO(t *testing.T) {
	for long, want := range map[string]string{
		"k8s_web_shop-0_default_0f7b_0": "web", "web": "", "": "", "k8s_web_shop": "", "docker_web_shop-0_default_0f7b_0": "", "k8s_we_b_shop-0_default_0f7b_0": "",
		"k8s_../x_shop-0_default_0f7b_0": "", "k8s__shop-0_default_0f7b_0": "",
	} {
		if got := nameInCRIO(long); got != want {
			t.Errorf("%q is %q, want %q", long, got, want)
		}
	}
}

// NRI names a container, and what a pod says of itself does not count. CRI-O gives the long name there.
func TestInPod(t *testing.T) {
	for _, name := range []string{"web", "k8s_web_shop-0_default_0f7b_0"} {
		forged := map[string]string{
			crioNameKey: "k8s_db_x_x_x_0", criNameKey: "db", ContainerNameKey: "db", "io.kubernetes.cri-o.ContainerType": "sandbox",
			Record + "/web": "front",
		}
		if r, err := Asked(InPod(forged, name)); err != nil || r == nil || r.Key != Record+"/web" || r.Value != "front" {
			t.Errorf("%s: got %+v, %v", name, r, err)
		}
		all := InPod(map[string]string{Record + "/wbe": "front"}, name)
		if r, err := Asked(all); err != nil || r != nil {
			t.Errorf("%s: got %+v, %v", name, r, err)
		}
		if ContainerName(all) != "web" || !slices.Equal(Unmatched(all), []string{Record + "/wbe"}) {
			t.Errorf("%s: got %q, %q", name, ContainerName(all), Unmatched(all))
		}
	}
	if all := InPod(nil, "web"); ContainerName(all) != "web" {
		t.Errorf("got %v", all)
	}
}
