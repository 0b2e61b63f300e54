// Package engine registers the hook with container engines. It knows their files: it plans changes to them, makes the
// changes, and tells what is registered.
//
// What surprises: a file that it does not understand, or in which our name is taken, is an error that says what to add by
// hand. Nothing is restarted: that is the administrator's to do.
package engine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"

	"github.com/google/renameio/v2"
	"github.com/rogpeppe/go-internal/diff"
)

// Names are the engines that can be told of the hook.
var Names = []string{"podman", "crio", "containerd", "docker"}

// Host is where the engines and their files are.
type Host struct {
	Root string // their files are beneath; "" is this host
	Dir  string // of oci-hook, seccompgen-runc and nri-plugin
}

// Change is a file that is to be written, or removed where New is nil.
type Change struct {
	Path     string
	Old, New []byte // nil: there is none
	Link     string // instead of New: the target of a symbolic link
}

// Removes says that a change removes a file.
func (c Change) Removes() bool { return c.New == nil && c.Link == "" }

// text is what the file will be; a symbolic link is shown as read shows it.
func (c Change) text() []byte {
	if c.Link != "" {
		return []byte("-> " + c.Link + "\n")
	}
	return c.New
}

// Plan is what to do for one engine.
type Plan struct {
	Changes []Change
	After   string // what is left to the administrator
}

// Diff prints a plan as a patch.
func (p *Plan) Diff() []byte {
	var b bytes.Buffer
	for _, c := range p.Changes {
		from, to := "a"+c.Path, "b"+c.Path
		if c.Old == nil {
			from = "/dev/null"
		}
		if c.Removes() {
			to = "/dev/null"
		}
		b.Write(diff.Diff(from, c.Old, to, c.text()))
	}
	return b.Bytes()
}

const backupSuffix = ".before-seccompgen"

// Apply makes the changes. Files that are not ours alone keep a copy of what they were, NAME.before-seccompgen, until they
// are that again.
func (p *Plan) Apply() error {
	for _, c := range p.Changes {
		if err := c.apply(); err != nil {
			return err
		}
	}
	return nil
}

func (c Change) apply() error {
	// What was planned is still what is there.
	now, err := read(c.Path)
	if err == nil && !bytes.Equal(now, c.Old) {
		err = errors.New("somebody changed it meanwhile: try again")
	}
	if err != nil {
		return fmt.Errorf("change %s: %w", c.Path, err)
	}
	backup := c.Path + backupSuffix
	before, err := read(backup)
	if err != nil {
		return fmt.Errorf("read the copy of %s: %w", c.Path, err)
	}
	switch {
	case c.Removes():
		if err = os.Remove(c.Path); err == nil {
			removeMade(c.Path)
		}
	case c.Link != "":
		if err = os.MkdirAll(filepath.Dir(c.Path), 0o755); err == nil {
			err = renameio.Symlink(c.Link, c.Path)
		}
	default:
		if err = os.MkdirAll(filepath.Dir(c.Path), 0o755); err != nil {
			break
		}
		if c.Old != nil && before == nil && !ours(c.Old) {
			if err = renameio.WriteFile(backup, c.Old, 0o600); err != nil {
				break
			}
		}
		err = renameio.WriteFile(c.Path, c.New, 0o644, renameio.WithExistingPermissions())
	}
	if err == nil && before != nil && bytes.Equal(before, c.New) {
		err = os.Remove(backup)
	}
	if err != nil {
		return fmt.Errorf("change %s: %w", c.Path, err)
	}
	return nil
}

// removeMade removes the directories that apply may have made for a file, if nothing is left in them.
func removeMade(path string) {
	for dir := filepath.Dir(path); slices.ContainsFunc(madeDirs, func(made string) bool { return strings.HasSuffix(dir, made) }); dir = filepath.Dir(dir) {
		if os.Remove(dir) != nil {
			return
		}
	}
}

var madeDirs = []string{
	podmanHooks, filepath.Dir(podmanHooks), filepath.Dir(podmanDropIn), vendorHooks, filepath.Dir(vendorHooks), nriDir, filepath.Dir(nriDir),
	filepath.Dir(dockerFile), filepath.Dir(containerdFile),
}

// read returns a file's content, or nil if there is none. A symbolic link's is its target: that is what we make of it.
func read(path string) ([]byte, error) {
	if target, err := os.Readlink(path); err == nil && filepath.Base(path) == pluginName {
		return []byte("-> " + target + "\n"), nil
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil && data == nil {
		data = []byte{}
	}
	return data, err
}

// ours reports whether a whole file is one that we wrote: it can be replaced and removed.
func ours(data []byte) bool {
	var file struct {
		Hook  struct{ Path string }
		Hooks struct{ CreateRuntime []struct{ Path string } }
	}
	if bytes.HasPrefix(data, []byte(dropInHead)) {
		return true
	}
	if json.Unmarshal(data, &file) != nil {
		return strings.HasPrefix(string(data), "-> ") && strings.HasSuffix(strings.TrimSpace(string(data)), "/nri-plugin")
	}
	for _, h := range file.Hooks.CreateRuntime {
		if filepath.Base(h.Path) == "oci-hook" {
			return true
		}
	}
	return filepath.Base(file.Hook.Path) == "oci-hook"
}

// Install plans to register the hook with an engine.
func (h *Host) Install(name string) (*Plan, error) { return h.plan(name, true) }

// Uninstall plans to take it away again.
func (h *Host) Uninstall(name string) (*Plan, error) { return h.plan(name, false) }

func (h *Host) plan(name string, install bool) (*Plan, error) {
	plan := &Plan{}
	var err error
	if install {
		if err := h.check(name); err != nil {
			return nil, err
		}
	}
	switch name {
	case "podman":
		err = h.podman(plan, install)
	case "crio":
		err = h.crio(plan, install)
	case "docker":
		err = h.docker(plan, install)
		plan.After = "tell Docker: systemctl reload docker"
	case "containerd":
		err = h.containerd(plan, install)
		plan.After = "restart containerd: systemctl restart containerd"
	default:
		return nil, fmt.Errorf("no engine %q: give one of %s", name, strings.Join(Names, ", "))
	}
	if err != nil {
		return nil, err
	}
	// Nothing to do is nothing to say.
	plan.Changes = slices.DeleteFunc(plan.Changes, func(c Change) bool {
		return bytes.Equal(c.Old, c.text()) && (c.Old == nil) == c.Removes()
	})
	if len(plan.Changes) == 0 {
		plan.After = ""
	}
	return plan, nil
}

// programs are what engines run, and what that runs.
var programs = map[string][]string{
	"podman": {"oci-hook"}, "crio": {"oci-hook"}, "docker": {"seccompgen-runc", "oci-hook"}, "containerd": {"oci-hook"},
}

// check refuses programs that others than root can change: they run as root.
func (h *Host) check(name string) error {
	for _, program := range programs[name] {
		for path := filepath.Join(h.Dir, program); ; path = filepath.Dir(path) {
			info, err := os.Stat(path)
			if err != nil {
				return fmt.Errorf("the program that %s is to run: %w (make install puts it below /usr/local)", name, err)
			}
			if problem := writable(path, info); problem != nil {
				return fmt.Errorf("%w, and %s is to run it as root: install it as root's (make install)", problem, name)
			}
			if path == "/" {
				break
			}
		}
	}
	return nil
}

// writable reports whether others than root can change a file.
func writable(path string, info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case ok && st.Uid != 0:
		return fmt.Errorf("%s belongs to user %d", path, st.Uid)
	case info.Mode().Perm()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0:
		return fmt.Errorf("%s may be changed by others than root (mode %04o)", path, info.Mode().Perm())
	}
	return nil
}

func (h *Host) path(path string) string { return filepath.Join(h.Root, path) }

// sameBut reports whether two documents are the same but for the value at a path of keys: the proof that an edit changed
// nothing else.
func sameBut(a, b map[string]any, keys ...string) bool {
	return reflect.DeepEqual(without(a, keys), without(b, keys))
}

// without returns a document without the value at a path of keys, and without what is empty then.
func without(doc map[string]any, keys []string) map[string]any {
	out := map[string]any{}
	for k, v := range doc {
		if k != keys[0] {
			out[k] = v
			continue
		}
		inner, ok := v.(map[string]any)
		if len(keys) == 1 {
			continue
		}
		if !ok {
			out[k] = v
			continue
		}
		if inner = without(inner, keys[1:]); len(inner) > 0 {
			out[k] = inner
		}
	}
	return out
}

// at returns the value at a path of keys, or nil.
func at(doc map[string]any, keys ...string) any {
	for _, key := range keys[:len(keys)-1] {
		doc, _ = doc[key].(map[string]any)
	}
	return doc[keys[len(keys)-1]]
}

// output runs a program of an engine's.
func output(name string, args ...string) ([]byte, error) {
	out, err := exec.Command(name, args...).Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return out, nil
}
