package engine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	hooksd "github.com/seccompgen/seccompgen/hooks.d"
)

// Podman and CRI-O read hooks.d directories. With nothing configured both read the one in /usr/share alone. Ours of Podman's
// are in /etc: not in a directory of packages, and not where CRI-O looks, so that each has its own. A drop-in file makes Podman
// read them. It takes a file there before that of the same name in /usr/share.
const (
	vendorHooks  = "/usr/share/containers/oci/hooks.d"
	podmanHooks  = "/etc/containers/oci/hooks.d"
	podmanDropIn = "/etc/containers/containers.conf.d/90-seccompgen.conf"
	dropInHead   = "# seccompgen uninstall podman takes this file away.\n"
)

// hooksDirs are the directories that an engine reads, in its order, and the file that says so, or "".
type hooksDirs struct {
	dirs []string
	by   string
}

// podmanDirs returns the directories of Podman's, as root and without options. With dropIn the files are read as if ours had
// that content, or were not there where it is nil.
func (h *Host) podmanDirs(dropIn []byte) (hooksDirs, error) {
	files := []string{h.path("/usr/share/containers/containers.conf"), h.path("/etc/containers/containers.conf")}
	ours := h.path(podmanDropIn)
	dropIns, err := filepath.Glob(filepath.Join(filepath.Dir(ours), "*.conf"))
	if err != nil {
		return hooksDirs{}, err
	}
	if !slices.Contains(dropIns, ours) {
		dropIns = append(dropIns, ours)
		slices.Sort(dropIns)
	}
	files = append(files, dropIns...)
	if h.Root == "" { // containers.conf(5)
		if file := os.Getenv("CONTAINERS_CONF"); file != "" {
			files = []string{file}
		}
		if file := os.Getenv("CONTAINERS_CONF_OVERRIDE"); file != "" {
			files = append(files, file)
		}
	}
	return readHooksDirs(files, map[string][]byte{ours: dropIn}, "engine", "hooks_dir")
}

// crioDirs returns the directories of CRI-O's.
func (h *Host) crioDirs() (hooksDirs, error) {
	files, err := filepath.Glob(h.path("/etc/crio/crio.conf.d/*"))
	if err != nil {
		return hooksDirs{}, err
	}
	return readHooksDirs(append([]string{h.path("/etc/crio/crio.conf")}, files...), nil, "crio", "runtime", "hooks_dir")
}

// readHooksDirs reads configurations as the engines do: the last one that has a list replaces it, unless it says {append=true},
// which Podman 5 knows.
func readHooksDirs(files []string, instead map[string][]byte, keys ...string) (hooksDirs, error) {
	result, appends := hooksDirs{dirs: []string{vendorHooks}}, false
	for _, file := range files {
		data, replaced := instead[file]
		if !replaced {
			var err error
			if data, err = os.ReadFile(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return result, err
			}
		}
		var doc map[string]any
		if err := toml.Unmarshal(data, &doc); err != nil {
			return result, fmt.Errorf("decode %s: %w", file, err)
		}
		list, ok := at(doc, keys...).([]any)
		if !ok {
			continue
		}
		var dirs []string
		for _, item := range list {
			switch item := item.(type) {
			case string:
				dirs = append(dirs, filepath.Clean(item))
			case map[string]any:
				appends, _ = item["append"].(bool)
			}
		}
		if appends {
			dirs = slices.Concat(result.dirs, dirs)
		}
		result = hooksDirs{dirs, file}
	}
	return result, nil
}

// own returns the last directory that is not the packages' one, or "".
func (d hooksDirs) own() string {
	for _, dir := range slices.Backward(d.dirs) {
		if dir != vendorHooks {
			return dir
		}
	}
	return ""
}

// podman plans the files for Podman, in a directory of its administrator's if there is one.
func (h *Host) podman(plan *Plan, install bool) error {
	set, err := h.podmanDirs(nil)
	if err != nil {
		return err
	}
	crio, err := h.crioTarget()
	if err != nil {
		return err
	}
	target := set.own()
	dropIn := Change{Path: h.path(podmanDropIn)}
	if dropIn.Old, err = read(dropIn.Path); err != nil {
		return err
	}
	if dropIn.Old != nil && !ours(dropIn.Old) {
		return fmt.Errorf("%s is there and is not ours: take it away first", dropIn.Path)
	}
	if install && target == "" {
		target = podmanHooks
		list, err := toml.Marshal(map[string]any{"hooks_dir": slices.Concat(set.dirs, []string{target})})
		if err != nil {
			return err
		}
		dropIn.New = fmt.Appendf(nil, "%s[engine]\n%s", dropInHead, list)
		after, err := h.podmanDirs(dropIn.New)
		if err != nil {
			return err
		}
		if !slices.Contains(after.dirs, target) {
			return fmt.Errorf("%s sets the hooks_dir of Podman after all drop-in files: add %q to it there, and install again", after.by, target)
		}
	}
	for _, dir := range unique(append(slices.DeleteFunc(slices.Clone(set.dirs), func(dir string) bool { return dir == vendorHooks }), podmanHooks)) {
		if dir == crio && dir != target && install {
			continue // CRI-O's
		}
		if err := h.hooksD(plan, "podman", dir, install && dir == target); err != nil {
			return err
		}
		if dir == crio && !install {
			plan.After = "CRI-O reads " + dir + " too: if it is to record, seccompgen install crio"
		}
	}
	plan.Changes = append(plan.Changes, dropIn)
	return nil
}

// crioTarget returns the directory for CRI-O's files.
func (h *Host) crioTarget() (string, error) {
	set, err := h.crioDirs()
	if err != nil || slices.Equal(set.dirs, []string{vendorHooks}) {
		return vendorHooks, err
	}
	if len(set.dirs) == 0 {
		return "", fmt.Errorf("%s has an empty hooks_dir: give CRI-O a directory there first", set.by)
	}
	if dir := set.own(); dir != "" {
		return dir, nil
	}
	return vendorHooks, nil
}

// crio plans the files for CRI-O.
func (h *Host) crio(plan *Plan, install bool) error {
	target, err := h.crioTarget()
	if err != nil {
		return err
	}
	set, err := h.podmanDirs(nil)
	if err != nil {
		return err
	}
	if own := set.own(); install && (target == own || own == "" && target == podmanHooks) {
		// Podman's files there serve CRI-O as well, whose pods are told from Podman's containers.
		data, err := read(h.path(filepath.Join(target, "seccompgen-trace.json")))
		if err == nil && ours(data) && bytes.Contains(data, []byte("--trace-annotation")) {
			return h.hooksD(plan, "podman", target, true)
		}
	}
	for _, dir := range unique([]string{vendorHooks, target}) {
		if err := h.hooksD(plan, "crio", dir, install && dir == target); err != nil {
			return err
		}
	}
	return nil
}

func unique(list []string) []string {
	slices.Sort(list)
	return slices.Compact(list)
}

// hooksD plans the files of one engine in one directory.
func (h *Host) hooksD(plan *Plan, name, dir string, install bool) error {
	files, err := hooksd.Files.ReadDir(name)
	if err != nil {
		return err
	}
	for _, f := range files {
		path := h.path(filepath.Join(dir, f.Name()))
		old, err := read(path)
		if err != nil {
			return err
		}
		if old != nil && !ours(old) {
			return fmt.Errorf("%s is there and is not ours: take it away, or register %s by hand (docs/howto/podman.md)", path, filepath.Join(h.Dir, "oci-hook"))
		}
		c := Change{Path: path, Old: old}
		if install {
			if c.New, err = hooksd.Files.ReadFile(name + "/" + f.Name()); err != nil {
				return err
			}
			hook, err := json.Marshal(filepath.Join(h.Dir, "oci-hook"))
			if err != nil {
				return err
			}
			c.New = bytes.Replace(c.New, []byte(`"`+hooksd.Hook+`"`), hook, 1)
		}
		plan.Changes = append(plan.Changes, c)
	}
	return nil
}

// hooksDStatus looks where an engine looks.
func (h *Host) hooksDStatus(s *Status) {
	dropIn, err := read(h.path(podmanDropIn))
	var set hooksDirs
	if err == nil && s.Engine == "podman" {
		set, err = h.podmanDirs(dropIn)
	} else if err == nil {
		set, err = h.crioDirs()
	}
	if err != nil {
		s.problem(err)
	}
	files, err := hooksd.Files.ReadDir(s.Engine)
	if err != nil {
		s.problem(err)
	}
	for _, f := range files {
		for _, dir := range slices.Backward(set.dirs) { // the last one of a name counts
			path := h.path(filepath.Join(dir, f.Name()))
			data := s.load(path)
			if data == nil {
				continue
			}
			var file struct{ Hook struct{ Path string } }
			if err := json.Unmarshal(data, &file); err != nil {
				s.problem(fmt.Errorf("decode %s: %w", path, err))
			} else {
				s.runs(path, file.Hook.Path)
			}
			break
		}
		// Where earlier versions put them.
		if path := h.path(filepath.Join(podmanHooks, f.Name())); s.Engine == "podman" && !slices.Contains(set.dirs, podmanHooks) {
			if data, err := read(path); err == nil && data != nil {
				s.problem(fmt.Errorf("%s is not read: Podman reads %s%s; seccompgen install podman mends it", path, strings.Join(set.dirs, ", "), set.says()))
			}
		}
	}
	for _, dir := range set.dirs {
		other := h.path(filepath.Join(dir, "oci-seccomp-bpf-hook.json"))
		if _, err := os.Lstat(other); err == nil && len(s.Registered) > 0 {
			s.problem(fmt.Errorf("%s is there too: both record what %s asks for", other, "io.containers.trace-syscall"))
		}
	}
}

func (d hooksDirs) says() string {
	if d.by == "" {
		return ""
	}
	return " (" + d.by + ")"
}
