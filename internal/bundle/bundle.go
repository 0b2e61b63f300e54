// Package bundle makes OCI bundles from Go packages, commands and other bundles.
//
// A package's tests and a command see the host's root file system through an overlay that is thrown away, so that they
// find their files, tools and /etc as they do on the machine, and can change all of it without changing the machine.
package bundle

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seccompgen/seccompgen/internal/docker"
	"github.com/seccompgen/seccompgen/profile"
)

// Options shape the container.
type Options struct {
	Rootfs          string   // a directory to use as it is, instead of the overlay over the host's root
	Env             []string // additions, NAME=VALUE
	Mounts          []string // SRC:DST[:ro]
	User            string   // UID[:GID]
	Network         string   // "none" (own namespace, loopback up) or "host"
	NoNewPrivileges bool
	Race            bool // build the package's tests with the race detector
}

// Overlay is a writable overlay over one of the host's file systems, below the container's root.
type Overlay struct {
	Lower string `json:"lower"` // where the host has it
	Upper string `json:"upper"`
	Work  string `json:"work"`
	Dest  string `json:"dest"`
}

// Bundle is a container that can be run any number of times.
type Bundle struct {
	Spec     *specs.Spec
	Workload profile.Workload
	Binary   string // what the workload executes, where the host has it; "" in another root file system
	Init     bool   // the first program is our init, and the workload its child
	// Host is whether the container's root is the host's, seen through overlays.
	Host   bool
	Varied []string // how this bundle differs from the one asked for, see Vary
}

// Command makes a bundle that runs a command in the current directory.
func Command(args []string, o Options) (*Bundle, error) {
	if len(args) == 0 {
		return nil, errors.New("no command: give one after --exec --")
	}
	dir, err := os.Getwd()
	if err != nil {
		return nil, fmt.Errorf("find the current directory: %w", err)
	}
	args = slices.Clone(args)
	if o.Rootfs == "" {
		path, err := exec.LookPath(args[0])
		if err != nil {
			return nil, fmt.Errorf("find the command %q: %w", args[0], err)
		}
		if args[0], err = filepath.Abs(path); err != nil {
			return nil, err
		}
	} else {
		dir = "/"
	}
	b, err := fromHost(args, dir, o)
	if err != nil {
		return nil, err
	}
	b.Workload = profile.Workload{Args: args, User: b.Workload.User}
	if o.Rootfs == "" {
		b.Binary = args[0]
		b.Workload.SHA256, err = fileSHA256(b.Binary)
	}
	return b, err
}

// Open reads a bundle that somebody else made. Its process, mounts and namespaces stay as they are.
func Open(dir string, o Options) (*Bundle, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		return nil, fmt.Errorf("read the bundle: %w", err)
	}
	var spec specs.Spec
	if err := json.Unmarshal(data, &spec); err != nil {
		return nil, fmt.Errorf("decode %s/config.json: %w", dir, err)
	}
	switch {
	case spec.Process == nil || len(spec.Process.Args) == 0:
		return nil, fmt.Errorf("bundle %s: config.json has no process.args", dir)
	case spec.Root == nil || spec.Root.Path == "":
		return nil, fmt.Errorf("bundle %s: config.json has no root.path", dir)
	case spec.Linux == nil:
		return nil, fmt.Errorf("bundle %s: config.json has no linux section", dir)
	case spec.Process.Terminal:
		return nil, fmt.Errorf("bundle %s: process.terminal is true: set it to false, nobody sits at it", dir)
	}
	if !filepath.IsAbs(spec.Root.Path) {
		spec.Root.Path = filepath.Join(dir, spec.Root.Path)
	}
	if st, err := os.Stat(spec.Root.Path); err != nil {
		return nil, fmt.Errorf("bundle %s: %w", dir, err)
	} else if !st.IsDir() {
		return nil, fmt.Errorf("bundle %s: root %s is not a directory", dir, spec.Root.Path)
	}
	for i, m := range spec.Mounts {
		if slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind") || m.Type == "bind" {
			if !filepath.IsAbs(m.Source) {
				spec.Mounts[i].Source = filepath.Join(dir, m.Source)
			}
		}
	}
	b := &Bundle{Spec: &spec}
	if err := b.apply(o); err != nil {
		return nil, err
	}
	b.Workload = profile.Workload{Args: spec.Process.Args, User: userText(spec.Process.User)}
	return b, nil
}

// fromHost makes a container whose root is the host's, or o.Rootfs.
func fromHost(args []string, dir string, o Options) (*Bundle, error) {
	b := &Bundle{Host: o.Rootfs == "", Spec: &specs.Spec{
		Version:  "1.0.2",
		Hostname: "seccompgen",
		Root:     &specs.Root{Path: "rootfs"},
		Process: &specs.Process{
			Args: args,
			Cwd:  dir,
			Env:  append(os.Environ(), "PWD="+dir),
			Capabilities: &specs.LinuxCapabilities{
				Bounding: docker.Capabilities, Effective: docker.Capabilities, Permitted: docker.Capabilities,
			},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace},
				{Type: specs.NetworkNamespace},
				{Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace},
				{Type: specs.MountNamespace},
			},
			MaskedPaths:   []string{"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}}
	if o.Rootfs != "" {
		root, err := filepath.Abs(o.Rootfs)
		if err != nil {
			return nil, err
		}
		if st, err := os.Stat(root); err != nil || !st.IsDir() {
			return nil, fmt.Errorf("root file system %s is not a directory", root)
		}
		b.Spec.Root.Path = root
		b.Spec.Process.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	}
	b.Spec.Process.NoNewPrivileges = o.NoNewPrivileges
	if err := b.apply(o); err != nil {
		return nil, err
	}
	b.Workload.User = userText(b.Spec.Process.User)
	return b, nil
}

// apply puts the user's settings into the configuration.
func (b *Bundle) apply(o Options) error {
	for _, e := range o.Env {
		if name, _, ok := strings.Cut(e, "="); !ok || name == "" {
			return fmt.Errorf("environment %q is not of the form NAME=VALUE", e)
		}
	}
	b.Spec.Process.Env = append(b.Spec.Process.Env, o.Env...)
	for _, text := range o.Mounts {
		m, err := parseMount(text)
		if err != nil {
			return err
		}
		b.Spec.Mounts = append(b.Spec.Mounts, *m)
	}
	if o.User != "" {
		user, err := parseUser(o.User)
		if err != nil {
			return err
		}
		b.Spec.Process.User = *user
	}
	switch o.Network {
	case "", "none":
	case "host":
		b.Spec.Linux.Namespaces = slices.DeleteFunc(b.Spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace })
		// A new sysfs would need the network namespace to be the container's own.
		for i, m := range b.Spec.Mounts {
			if m.Type == "sysfs" {
				b.Spec.Mounts[i] = specs.Mount{Destination: m.Destination, Type: "bind", Source: "/sys", Options: []string{"rbind", "ro", "nosuid", "noexec", "nodev"}}
			}
		}
	default:
		return fmt.Errorf("network %q is not one of none, host", o.Network)
	}
	return nil
}

func parseMount(text string) (*specs.Mount, error) {
	parts := strings.Split(text, ":")
	m := &specs.Mount{Type: "bind", Options: []string{"rbind", "rw"}}
	if len(parts) == 3 && parts[2] == "ro" {
		m.Options[1] = "ro"
		parts = parts[:2]
	}
	if len(parts) != 2 || !filepath.IsAbs(parts[1]) {
		return nil, fmt.Errorf("mount %q is not of the form SRC:DST[:ro] with an absolute DST", text)
	}
	src, err := filepath.Abs(parts[0])
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(src); err != nil {
		return nil, fmt.Errorf("mount %q: %w", text, err)
	}
	m.Source, m.Destination = src, parts[1]
	return m, nil
}

func parseUser(text string) (*specs.User, error) {
	uid, gid, both := strings.Cut(text, ":")
	u, err := strconv.ParseUint(uid, 10, 32)
	g := u
	if err == nil && both {
		g, err = strconv.ParseUint(gid, 10, 32)
	}
	if err != nil {
		return nil, fmt.Errorf("user %q is not of the form UID[:GID] in numbers", text)
	}
	return &specs.User{UID: uint32(u), GID: uint32(g)}, nil
}

func userText(u specs.User) string { return fmt.Sprintf("%d:%d", u.UID, u.GID) }

// Overlays returns the overlays that make the host's root file system writable below dir, the root's first. The
// directories for them lie in dir too.
func Overlays(dir string) ([]Overlay, error) {
	mounts, err := mountinfo.GetMounts(nil)
	if err != nil {
		return nil, fmt.Errorf("read the host's mounts: %w", err)
	}
	points := []string{"/"}
	for _, m := range mounts {
		if m.Mountpoint != "/" && carriesFiles(m) && !slices.Contains(points, m.Mountpoint) {
			points = append(points, m.Mountpoint)
		}
	}
	slices.Sort(points)
	var all []Overlay
	for i, p := range points {
		n := strconv.Itoa(i)
		all = append(all, Overlay{
			Lower: p, Upper: filepath.Join(dir, "upper", n), Work: filepath.Join(dir, "work", n), Dest: filepath.Join(dir, "rootfs", p),
		})
	}
	return all, nil
}

// carriesFiles tells a mount that a workload may look for its files in from the kernel's own ones, which the
// container gets anew, and from single files that are mounted over others.
func carriesFiles(m *mountinfo.Info) bool {
	for _, kernel := range []string{"/proc", "/sys", "/dev", "/run"} {
		if m.Mountpoint == kernel || strings.HasPrefix(m.Mountpoint, kernel+"/") {
			return false
		}
	}
	switch m.FSType {
	case "autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs", "efivarfs", "fusectl", "hugetlbfs",
		"mqueue", "nsfs", "proc", "pstore", "ramfs", "rpc_pipefs", "securityfs", "sysfs", "tracefs":
		return false
	}
	st, err := os.Stat(m.Mountpoint)
	return err == nil && st.IsDir()
}
