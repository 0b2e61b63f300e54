package nri

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/nri/pkg/api"
)

const recordKey = "dev.seccompgen.record"

func TestCreateContainer(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: needs root: the directory of profiles must be root's")
	}
	profiles := t.TempDir()
	for name, text := range map[string]string{
		"web":   `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}`,
		"errno": `{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38}`,
	} {
		if err := os.WriteFile(filepath.Join(profiles, name+".json"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	filters := `{"filters":true,"profiles":"` + profiles + `"}`
	type annotations = map[string]string
	for name, c := range map[string]struct {
		config           string
		pod, container   annotations
		key, filter, err string
	}{
		"who does not ask":        {pod: annotations{"a": "b"}},
		"false":                   {pod: annotations{recordKey: "false"}},
		"a pod":                   {pod: annotations{recordKey: "x"}, key: recordKey + "=x"},
		"the container first":     {pod: annotations{recordKey: "x"}, container: annotations{recordKey: "y"}, key: recordKey + "=y"},
		"this container":          {pod: annotations{recordKey: "x", recordKey + "/web": "y"}, key: recordKey + "/web=y"},
		"another container":       {pod: annotations{recordKey + "/db": "y"}},
		"a bad name":              {pod: annotations{recordKey: "../x"}, err: "a name has"},
		"a filter, not allowed":   {pod: annotations{FilterAnnotation: "all"}, err: "not allowed on this host"},
		"all":                     {config: filters, pod: annotations{FilterAnnotation: "all", recordKey: ""}, key: recordKey + "=", filter: "SCMP_ACT_ALLOW"},
		"a profile":               {config: filters, pod: annotations{FilterAnnotation + "/web": "profile:web", FilterAnnotation: "all"}, filter: "SCMP_ACT_ERRNO"},
		"of another container":    {config: filters, pod: annotations{FilterAnnotation + "/db": "profile:web"}},
		"no such profile":         {config: filters, pod: annotations{FilterAnnotation: "profile:no"}, err: "no such file"},
		"a profile elsewhere":     {config: filters, pod: annotations{FilterAnnotation: "profile:../web"}, err: "a profile's name"},
		"what containerd forgets": {config: filters, pod: annotations{FilterAnnotation: "profile:errno"}, err: "defaultErrnoRet"},
		"no filter":               {config: filters, pod: annotations{FilterAnnotation: "none"}, err: `give "all"`},
	} {
		p := &Plugin{Hook: "/h/oci-hook"}
		if _, err := p.Configure(t.Context(), c.config, "", ""); err != nil {
			t.Fatal(err)
		}
		a, _, err := p.CreateContainer(t.Context(), &api.PodSandbox{Name: "p", Annotations: c.pod}, &api.Container{Name: "web", Annotations: c.container})
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: want %q, got %v", name, c.err, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		key := ""
		for k, v := range a.GetAnnotations() {
			key += k + "=" + v
		}
		if key != c.key || a.GetLinux().GetSeccompPolicy().GetDefaultAction() != c.filter {
			t.Errorf("%s: annotations %q, filter %v", name, key, a.GetLinux().GetSeccompPolicy())
		}
		hooks := a.GetHooks()
		if (key != "") != (len(hooks.GetCreateRuntime()) == 1 && len(hooks.GetPoststop()) == 1 && hooks.GetPoststop()[0].GetPath() == "/h/oci-hook") {
			t.Errorf("%s: hooks %v", name, hooks)
		}
	}
}

func TestConfigure(t *testing.T) {
	p := &Plugin{}
	for _, config := range []string{`{`, `{"filter":true}`, `filters: true`} {
		if _, err := p.Configure(t.Context(), config, "", ""); err == nil {
			t.Errorf("%s is taken", config)
		}
	}
	if mask, err := p.Configure(t.Context(), "", "containerd", "v2"); err != nil || !mask.IsSet(api.Event_CREATE_CONTAINER) || p.config.Filters || p.config.Profiles != DefaultProfiles {
		t.Errorf("got %v, %+v, %v", mask, p.config, err)
	}
}
