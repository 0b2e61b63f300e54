package engine

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/tailscale/hujson"
)

// Where the others look.
const (
	dockerFile     = "/etc/docker/daemon.json"
	containerdFile = "/etc/containerd/config.toml"
	baseSpecFile   = "/etc/containerd/seccompgen-base.json"
	nriDir         = "/opt/nri/plugins"
	pluginName     = "10-seccompgen"
	handler        = "seccompgen" // the name of our runtime in Docker and containerd
)

// docker plans the runtime in daemon.json.
func (h *Host) docker(plan *Plan, install bool) error {
	path, runtime := h.path(dockerFile), filepath.Join(h.Dir, "seccompgen-runc")
	value, err := json.Marshal(map[string]string{"path": runtime})
	if err != nil {
		return err
	}
	refuse := func(why string, args ...any) error {
		return fmt.Errorf("%s %s; by hand: \"runtimes\": {%q: %s}", path, fmt.Sprintf(why, args...), handler, value)
	}
	old, err := read(path)
	if err != nil {
		return err
	}
	if old == nil && !install {
		return nil
	}
	text := old
	if len(bytes.TrimSpace(text)) == 0 {
		text = []byte("{}\n")
	}
	var before, after map[string]any
	if err := json.Unmarshal(text, &before); err != nil {
		return refuse("is no JSON object (%v)", err)
	}
	there, isObject := before["runtimes"].(map[string]any)
	if _, has := before["runtimes"]; has && !isObject {
		return refuse(`has "runtimes" that are no object`)
	}
	if was := there[handler]; was != nil {
		if p, _ := at(there, handler, "path").(string); filepath.Base(p) != "seccompgen-runc" {
			return refuse("has a runtime %q that is not ours", handler)
		}
	} else if !install {
		return nil
	}
	if before["default-runtime"] == handler && !install {
		return refuse("makes %q the default runtime: take \"default-runtime\" away first", handler)
	}
	doc, err := hujson.Parse(text)
	if err != nil {
		return refuse("cannot be edited (%v)", err)
	}
	type operation struct {
		Op    string          `json:"op"`
		Path  string          `json:"path"`
		Value json.RawMessage `json:"value,omitempty"`
	}
	var patch []operation
	switch {
	case install && there == nil:
		patch = []operation{{"add", "/runtimes", json.RawMessage(fmt.Sprintf("{%q:%s}", handler, value))}}
	case install:
		patch = []operation{{"add", "/runtimes/" + handler, value}}
	case len(there) == 1:
		patch = []operation{{"remove", "/runtimes", nil}}
	default:
		patch = []operation{{"remove", "/runtimes/" + handler, nil}}
	}
	edit, err := json.Marshal(patch)
	if err != nil {
		return err
	}
	if err := doc.Patch(edit); err != nil {
		return refuse("cannot be edited (%v)", err)
	}
	c := Change{Path: path, Old: old, New: indentAs(text, doc.Pack())}
	if err := json.Unmarshal(c.New, &after); err != nil || !sameBut(before, after, "runtimes", handler) {
		return refuse("cannot be edited without changing more (%v)", err)
	}
	if !install && len(after) == 0 {
		c.New = nil
	}
	plan.Changes = append(plan.Changes, c)
	return nil
}

// indentAs indents JSON as another text was, if that was indented in one of the usual ways.
func indentAs(old, text []byte) []byte {
	for _, indent := range []string{"    ", "  ", "\t"} {
		var was, is bytes.Buffer
		if json.Indent(&was, old, "", indent) == nil && bytes.Equal(bytes.TrimSpace(was.Bytes()), bytes.TrimSpace(old)) && json.Indent(&is, text, "", indent) == nil {
			return append(bytes.TrimSpace(is.Bytes()), '\n')
		}
	}
	return text
}

const (
	blockBegin = "# seccompgen: begin. seccompgen uninstall containerd takes this block away.\n"
	blockEnd   = "# seccompgen: end\n"
)

// containerd plans the NRI plugin for versions that have it on by default, and a runtime handler for those before.
func (h *Host) containerd(plan *Plan, install bool) error {
	version, err := engineVersion("containerd")
	if install && err != nil {
		return fmt.Errorf("ask containerd for its version: %w", err)
	}
	if major(version) >= 2 || !install {
		if err := h.nri(plan, install); err != nil {
			return err
		}
	}
	if major(version) >= 2 && install {
		return nil
	}
	return h.handler(plan, install)
}

// nri plans the link by which containerd finds and starts the plugin.
func (h *Host) nri(plan *Plan, install bool) error {
	c := Change{Path: h.path(filepath.Join(nriDir, pluginName))}
	var err error
	if c.Old, err = read(c.Path); err != nil {
		return err
	}
	if c.Old != nil && !ours(c.Old) {
		return fmt.Errorf("%s is there and is not a link to our plugin: remove it first", c.Path)
	}
	if install {
		c.Link = filepath.Join(h.Dir, "nri-plugin")
		info, err := os.Stat(c.Link)
		if err == nil {
			err = writable(c.Link, info)
		}
		if err != nil {
			return fmt.Errorf("the plugin that containerd is to run: %w (make install puts it below /usr/local)", err)
		}
	}
	plan.Changes = append(plan.Changes, c)
	return nil
}

// handler plans a runtime handler of the CRI, whose containers get the hook from a base_runtime_spec.
func (h *Host) handler(plan *Plan, install bool) error {
	path := h.path(containerdFile)
	const cri = "io.containerd.grpc.v1.cri"
	runtimes := []string{"plugins", cri, "containerd", "runtimes"}
	ours := fmt.Sprintf(`[plugins.%q.containerd.runtimes.%s]
  runtime_type = "io.containerd.runc.v2"
  base_runtime_spec = %q
  pod_annotations = ["dev.seccompgen.record", "dev.seccompgen.record/*"]
  container_annotations = ["dev.seccompgen.record", "dev.seccompgen.record/*"]
`, cri, handler, baseSpecFile)
	block := blockBegin + ours + blockEnd
	refuse := func(why string, args ...any) error {
		return fmt.Errorf("%s %s; by hand:\n%s", path, fmt.Sprintf(why, args...), block)
	}
	old, err := read(path)
	if err != nil {
		return err
	}
	rest, was, err := cutBlock(string(old))
	if err != nil {
		return refuse("%v", err)
	}
	if !install && !was {
		return h.baseSpec(plan, false)
	}
	var before, after map[string]any
	if err := toml.Unmarshal([]byte(rest), &before); err != nil {
		return refuse("is no TOML (%v)", err)
	}
	c := Change{Path: path, Old: old, New: []byte(rest)}
	keys := append(slices.Clone(runtimes), handler)
	if install {
		switch version := before["version"]; {
		case strings.TrimSpace(rest) == "":
			rest = "version = 2\n"
			before = map[string]any{"version": int64(2)}
		case version != int64(2):
			return refuse("has the version %v, and this is for 2", version)
		case at(before, keys...) != nil:
			return refuse("has a runtime %q that is not ours", handler)
		}
		if rest[len(rest)-1] != '\n' {
			rest += "\n"
		}
		if at(before, runtimes...) == nil {
			// containerd forgets its default runtime where the file has any.
			keys = runtimes
			block = fmt.Sprintf("%s[plugins.%q.containerd.runtimes.runc]\n  runtime_type = \"io.containerd.runc.v2\"\n%s%s", blockBegin, cri, ours, blockEnd)
		}
		if options, ok := at(before, append(slices.Clone(runtimes), "runc", "options")...).(map[string]any); ok {
			// SystemdCgroup, for one, is the node's way, not that of one runtime.
			text, err := toml.Marshal(options)
			if err != nil {
				return refuse("cannot be added to (%v)", err)
			}
			block = strings.TrimSuffix(block, blockEnd) + fmt.Sprintf("[plugins.%q.containerd.runtimes.%s.options]\n%s%s", cri, handler, text, blockEnd)
		}
		c.New = []byte(rest + block)
		if err := toml.Unmarshal(c.New, &after); err != nil || at(after, keys...) == nil || !sameBut(before, after, keys...) {
			return refuse("cannot be added to (%v)", err)
		}
	} else if rest == "version = 2\n" {
		c.New = nil // we made it
	}
	plan.Changes = append(plan.Changes, c)
	return h.baseSpec(plan, install)
}

// cutBlock takes our block out of a text.
func cutBlock(text string) (rest string, was bool, err error) {
	before, block, was := strings.Cut(text, blockBegin)
	if !was {
		return text, false, nil
	}
	_, after, ended := strings.Cut(block, blockEnd)
	if !ended || strings.Contains(after, blockBegin) {
		return "", false, fmt.Errorf("has a broken block of ours: take the lines from %q on away", strings.TrimSpace(blockBegin))
	}
	return before + after, true, nil
}

// baseSpec plans the configuration that this containerd gives containers, with the hook.
func (h *Host) baseSpec(plan *Plan, install bool) error {
	c := Change{Path: h.path(baseSpecFile)}
	var err error
	if c.Old, err = read(c.Path); err != nil {
		return err
	}
	if c.Old != nil && !ours(c.Old) {
		return fmt.Errorf("%s is there and is not ours: take it away first", c.Path)
	}
	if install {
		text, err := output("ctr", "oci", "spec")
		if err != nil {
			return err
		}
		var spec map[string]json.RawMessage
		if err := json.Unmarshal(text, &spec); err != nil {
			return fmt.Errorf("decode what ctr oci spec says: %w", err)
		}
		hook := []map[string]any{{"path": filepath.Join(h.Dir, "oci-hook"), "args": []string{"oci-hook"}, "timeout": 60}}
		if spec["hooks"], err = json.Marshal(map[string]any{"createRuntime": hook, "poststop": hook}); err != nil {
			return err
		}
		if c.New, err = json.MarshalIndent(spec, "", "  "); err != nil {
			return err
		}
		c.New = append(c.New, '\n')
	}
	plan.Changes = append(plan.Changes, c)
	return nil
}
