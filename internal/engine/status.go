package engine

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// Status is what one engine knows of us.
type Status struct {
	Engine     string   `json:"engine"`
	Version    string   `json:"version,omitempty"` // of the engine; "" where it is not installed
	Registered []string `json:"registered"`        // the files that do it
	Programs   []string `json:"programs"`          // what these files make the engine run
	Hook       string   `json:"hook,omitempty"`    // the version of the hook beside these programs
	Problems   []string `json:"problems,omitempty"`
}

// Status looks at what is registered with each engine.
func (h *Host) Status() []Status {
	var all []Status
	for _, name := range Names {
		all = append(all, h.status(name))
	}
	return all
}

func (h *Host) status(name string) Status {
	s := Status{Engine: name, Registered: []string{}, Programs: []string{}}
	s.Version, _ = engineVersion(name) // it is not installed, or does not say
	switch name {
	case "podman", "crio":
		h.hooksDStatus(&s)
	case "docker":
		h.dockerStatus(&s)
	case "containerd":
		h.containerdStatus(&s)
	}
	return s
}

// load reads a file that may register us. It has to be root's alone.
func (s *Status) load(path string) []byte {
	data, err := read(path)
	if err != nil {
		s.problem(err)
	}
	if info, err := os.Lstat(path); err == nil && data != nil {
		if err := writable(path, info); err != nil && info.Mode().Type() != os.ModeSymlink {
			s.problem(err)
		}
	}
	return data
}

func (s *Status) problem(err error) { s.Problems = append(s.Problems, err.Error()) }

// runs notes that a file makes the engine run a program.
func (s *Status) runs(file, program string) {
	s.Registered = append(s.Registered, file)
	if slices.Contains(s.Programs, program) {
		return
	}
	s.Programs = append(s.Programs, program)
	info, err := os.Stat(program)
	if err == nil {
		err = writable(program, info)
	}
	if err == nil && info.Mode()&0o111 == 0 {
		err = fmt.Errorf("%s cannot be executed", program)
	}
	if err != nil {
		s.problem(err)
		return
	}
	hook := filepath.Join(filepath.Dir(program), "oci-hook")
	if info, err = os.Stat(hook); err == nil {
		err = writable(hook, info)
	}
	var out []byte
	if err == nil {
		out, err = output(hook, "--version")
	}
	if err != nil {
		s.problem(fmt.Errorf("ask the hook for its version: %w", err))
		return
	}
	s.Hook = strings.TrimPrefix(strings.TrimSpace(string(out)), "seccompgen oci-hook ")
}

func (h *Host) dockerStatus(s *Status) {
	path := h.path(dockerFile)
	var doc map[string]any
	data := s.load(path)
	if data == nil {
		return
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		s.problem(fmt.Errorf("decode %s: %w", path, err))
		return
	}
	if program, ok := at(doc, "runtimes", handler, "path").(string); ok {
		s.runs(path, program)
	}
}

func (h *Host) containerdStatus(s *Status) {
	link := h.path(filepath.Join(nriDir, pluginName))
	if target, err := os.Readlink(link); err == nil {
		s.runs(link, target)
	}
	path := h.path(containerdFile)
	var doc map[string]any
	if err := toml.Unmarshal(s.load(path), &doc); err != nil {
		s.problem(fmt.Errorf("decode %s: %w", path, err))
		return
	}
	base, ok := at(doc, "plugins", "io.containerd.grpc.v1.cri", "containerd", "runtimes", handler, "base_runtime_spec").(string)
	if !ok {
		return
	}
	if disabled, _ := doc["disabled_plugins"].([]any); slices.Contains(disabled, any("cri")) || slices.Contains(disabled, any("io.containerd.grpc.v1.cri")) {
		s.problem(fmt.Errorf("%s disables the CRI: the runtime handler is never used", path))
	}
	s.Registered = append(s.Registered, path)
	var spec struct {
		Hooks struct{ CreateRuntime []struct{ Path string } }
	}
	base = h.path(base)
	if err := json.Unmarshal(s.load(base), &spec); err != nil {
		s.problem(fmt.Errorf("decode %s: %w", base, err))
	}
	for _, hook := range spec.Hooks.CreateRuntime {
		s.runs(base, hook.Path)
	}
}

// engineVersion asks an engine for its version.
func engineVersion(name string) (string, error) {
	program := name
	if name == "docker" {
		program = "dockerd"
	}
	out, err := output(program, "--version")
	if err != nil {
		return "", err
	}
	// podman version 4.3.1; containerd github.com/containerd/containerd 1.6.20~ds1 ...; Docker version 20.10.24, build ...
	for word := range strings.FieldsSeq(string(out)) {
		word = strings.Trim(word, ",")
		if v := strings.TrimPrefix(word, "v"); v != "" && '0' <= v[0] && v[0] <= '9' {
			return v, nil
		}
	}
	return "", fmt.Errorf("%s --version says %.100q", program, out)
}

func major(version string) int {
	first, _, _ := strings.Cut(version, ".")
	n, err := strconv.Atoi(first)
	if err != nil {
		return 0
	}
	return n
}
