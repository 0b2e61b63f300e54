package hook

import (
	"encoding/json"
	"io"
	"maps"
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
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
	if err != nil || got == nil || got.name != "front-web-"+s.Annotations[sandboxAnnotation] {
		t.Fatalf("got %+v, %v", got, err)
	}
	// Started again by the kubelet.
	s.ID, s.Annotations[crioNameAnnotation] = "another", strings.TrimSuffix(s.Annotations[crioNameAnnotation], "0")+"1"
	if again, err := targetOf(t, s); err != nil || again == nil || again.name != got.name {
		t.Errorf("got %+v, %v", again, err)
	}
	s.Annotations[crioNameAnnotation] = strings.Replace(s.Annotations[crioNameAnnotation], "web", "db", 1)
	if other, err := targetOf(t, s); err != nil || other != nil {
		t.Errorf("another container is recorded: %+v, %v", other, err)
	}
	if keys := unmatched(s.Annotations); len(keys) != 1 || keys[0] != RecordAnnotation+"/web" {
		t.Errorf("the log is told of %q", keys)
	}
	sandbox := crioState(t, "sandbox")
	sandbox.Annotations[RecordAnnotation] = "all"
	if got, err := targetOf(t, sandbox); err != nil || got != nil {
		t.Errorf("the sandbox is recorded: %+v, %v", got, err)
	}
	if keys := unmatched(sandbox.Annotations); keys != nil {
		t.Errorf("the log is told of %q", keys)
	}
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
func TestNRIAsked(t *testing.T) {
	for _, name := range []string{"web", "k8s_web_shop-0_default_0f7b_0"} {
		lines := systemLog(t)
		forged := map[string]string{
			crioNameAnnotation: "k8s_db_x_x_x_0", criNameAnnotation: "db", containerNameAnnotation: "db", "io.kubernetes.cri-o.ContainerType": "sandbox",
			RecordAnnotation + "/web": "front",
		}
		if key, value, err := Asked(forged, "c1", name); err != nil || key != RecordAnnotation+"/web" || value != "front" {
			t.Errorf("%s: got %q, %q, %v", name, key, value, err)
		}
		if said := lines(); len(said) > 0 {
			t.Errorf("the log has %q", said)
		}
		if key, _, err := Asked(map[string]string{RecordAnnotation + "/wbe": "front"}, "c1", name); err != nil || key != "" {
			t.Errorf("%s: got %q, %v", name, key, err)
		}
		if said := lines(); len(said) != 1 || !strings.Contains(said[0], `event="unmatched" container="c1" name="web" annotations="dev.seccompgen.record/wbe"`) {
			t.Errorf("the log has %q", said)
		}
	}
}

// Whatever a pod writes into its annotations, it names no path, even where CRI-O runs Podman's hook file: for containers
// CRI-O sets its own over the pod's, for sandboxes the pod's go over CRI-O's.
func TestPodNamesNoPath(t *testing.T) {
	forged := map[string]string{
		TraceAnnotation: "of:/etc/cron.d/x", "io.container.manager": "libpod", "io.kubernetes.cri-o.ContainerType": "container", "io.kubernetes.cri-o.SandboxID": "x",
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
			delete(s.Annotations, RecordAnnotation+"/web")
			got, err := targetOf(t, &s, "--trace-annotation")
			if err != nil || got == nil || got.trace != nil || !strings.HasPrefix(got.name, "x-") {
				t.Errorf("%s without %s: got %+v, %v", kind, left, got, err)
			}
			s.Annotations[TraceAnnotation] += ";if:/etc/shadow"
			if got, err := targetOf(t, &s, "--trace-annotation"); err == nil {
				t.Errorf("%s without %s: if: is honoured: %+v", kind, left, got)
			}
		}
	}
	// containerd's, and another manager's.
	for key, value := range map[string]string{"io.kubernetes.cri.sandbox-id": "x", "io.container.manager": "other"} {
		s := &specs.State{ID: "c1", Annotations: map[string]string{TraceAnnotation: "of:/etc/cron.d/x", key: value}}
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
	if got, err := targetOf(t, &specs.State{ID: "c1", Annotations: podmans}, "--trace-annotation"); err != nil || got.trace == nil || got.trace.output != "/o" {
		t.Errorf("Podman's: got %+v, %v", got, err)
	}
}
