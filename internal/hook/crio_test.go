package hook

import (
	"encoding/json"
	"io"
	"maps"
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seccompgen/seccompgen/internal/annotation"
)

// crioState is what CRI-O 1.37 hands to hooks, by its source: testdata/crio-KIND.json.
func crioState(t *testing.T, kind string) *specs.State {
	t.Helper()
	data, err := os.ReadFile("testdata/crio-" + kind + ".json")
	if err != nil {
		t.Fatal(err)
	}
	s, err := decodeAll(string(data))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func targetOf(t *testing.T, s *specs.State, args ...string) (*target, error) {
	t.Helper()
	o, err := parse(args, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return o.target(s, s.Annotations)
}

// A pod of CRI-O's: its container is known by its name in the pod, and its sandbox left out.
func TestCRIO(t *testing.T) {
	s := crioState(t, "container")
	got, err := targetOf(t, s)
	if err != nil || got == nil || got.name != "front-web-"+s.Annotations[annotation.SandboxKey] {
		t.Fatalf("got %+v, %v", got, err)
	}
	// Started again by the kubelet.
	s.ID, s.Annotations["io.kubernetes.cri-o.Name"] = "another", strings.TrimSuffix(s.Annotations["io.kubernetes.cri-o.Name"], "0")+"1"
	if again, err := targetOf(t, s); err != nil || again == nil || again.name != got.name {
		t.Errorf("got %+v, %v", again, err)
	}
	s.Annotations["io.kubernetes.cri-o.Name"] = strings.Replace(s.Annotations["io.kubernetes.cri-o.Name"], "web", "db", 1)
	if other, err := targetOf(t, s); err != nil || other != nil {
		t.Errorf("another container is recorded: %+v, %v", other, err)
	}
	if keys := annotation.Unmatched(s.Annotations); len(keys) != 1 || keys[0] != annotation.Record+"/web" {
		t.Errorf("the log is told of %q", keys)
	}
	sandbox := crioState(t, "sandbox")
	sandbox.Annotations[annotation.Record] = "all"
	if got, err := targetOf(t, sandbox); err != nil || got != nil {
		t.Errorf("the sandbox is recorded: %+v, %v", got, err)
	}
	if keys := annotation.Unmatched(sandbox.Annotations); keys != nil {
		t.Errorf("the log is told of %q", keys)
	}
}

// Whatever a pod writes into its annotations, it names no path, even where CRI-O runs Podman's hook file: for containers
// CRI-O sets its own over the pod's, for sandboxes the pod's go over CRI-O's.
func TestPodNamesNoPath(t *testing.T) {
	forged := map[string]string{
		annotation.TraceSyscall: "of:/etc/cron.d/x", "io.container.manager": "libpod", "io.kubernetes.cri-o.ContainerType": "container", "io.kubernetes.cri-o.SandboxID": "x",
		"io.kubernetes.cri-o.Created": "x", "io.kubernetes.cri-o.TTY": "x",
	}
	for _, kind := range []string{"container", "sandbox"} {
		honest := crioState(t, kind)
		// Each single one of CRI-O's that another version may leave out, too.
		for left := range honest.Annotations {
			s := *honest
			s.Annotations = maps.Clone(forged)
			for key, value := range honest.Annotations {
				if _, ok := forged[key]; (!ok || kind == "container") && key != left {
					s.Annotations[key] = value
				}
			}
			if kind == "container" && left != "io.container.manager" {
				s.Annotations["io.container.manager"] = "cri-o"
			}
			delete(s.Annotations, annotation.Record+"/web")
			got, err := targetOf(t, &s, "--trace-annotation")
			if err != nil || got == nil || got.trace != nil || !strings.HasPrefix(got.name, "x-") {
				t.Errorf("%s without %s: got %+v, %v", kind, left, got, err)
			}
			s.Annotations[annotation.TraceSyscall] += ";if:/etc/shadow"
			if got, err := targetOf(t, &s, "--trace-annotation"); err == nil {
				t.Errorf("%s without %s: if: is honoured: %+v", kind, left, got)
			}
		}
	}
	// containerd's, and another manager's.
	for key, value := range map[string]string{"io.kubernetes.cri.sandbox-id": "x", "io.container.manager": "other"} {
		s := &specs.State{ID: "c1", Annotations: map[string]string{annotation.TraceSyscall: "of:/etc/cron.d/x", key: value}}
		if got, err := targetOf(t, s, "--trace-annotation"); err != nil || got.trace != nil {
			t.Errorf("%s: got %+v, %v", key, got, err)
		}
	}
	// Podman's own, of a pod of Podman's too.
	var podmans map[string]string
	text := `{"io.container.manager":"libpod","io.kubernetes.cri-o.Created":"2026-11-26T12:04:30Z","io.kubernetes.cri-o.TTY":"false","io.kubernetes.cri-o.SandboxID":"x",
		"io.kubernetes.cri-o.ContainerType":"container","io.podman.annotations.init":"FALSE","io.containers.trace-syscall":"of:/o"}`
	if err := json.Unmarshal([]byte(text), &podmans); err != nil {
		t.Fatal(err)
	}
	if got, err := targetOf(t, &specs.State{ID: "c1", Annotations: podmans}, "--trace-annotation"); err != nil || got.trace == nil || got.trace.Output != "/o" {
		t.Errorf("Podman's: got %+v, %v", got, err)
	}
}

// Where recordings of a pod's containers go, by their hooks and by Collect, which knows less.
func TestNames(t *testing.T) {
	const by, in = "io.kubernetes.cri.container-name", "io.kubernetes.cri.sandbox-id"
	for _, c := range []struct {
		annotations map[string]string
		want        string
	}{
		{map[string]string{annotation.Record: "shop"}, "shop-ID"},
		{map[string]string{annotation.Record: ""}, "ID"},
		{map[string]string{annotation.Record: "shop", by: "web"}, "shop-web-ID"},
		{map[string]string{annotation.Record: "true", by: "web"}, "web-ID"},
		{map[string]string{annotation.Record: "shop", annotation.Record + "/web": "front", by: "web"}, "front-web-ID"},
		{map[string]string{annotation.Record: "shop", by: "web", in: "POD"}, "shop-web-POD"},
		{map[string]string{annotation.Record: "", by: "web", in: "POD"}, "web-POD"},
		{map[string]string{annotation.Record: "shop", by: "web", in: "../POD"}, "shop-web-ID"},
		{map[string]string{annotation.Record: "shop", in: "POD"}, "shop-ID"},
		{map[string]string{annotation.Record: "shop", by: "web", in: "POD", annotation.SandboxKey: "VICTIM"}, "shop-web-ID"},
		{map[string]string{annotation.TraceSyscall: "of:/a/web.json", annotation.ContainerNameKey: "web", annotation.SandboxKey: "POD"}, "web-web-POD"},
		{map[string]string{annotation.Record: "shop", by: "../../web"}, "shop-ID"},
		{map[string]string{annotation.TraceSyscall: "of:/a/web.json"}, "web-ID"},
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
