package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Host is a host as testdata/hosts meets it in a bundle.
type Host struct {
	Name   string
	Sysctl map[string]string // of the bundle's network namespace; nil: Multipath TCP and IPv6 are on
	Traits []string          // what testdata/hosts makes of the process
	Env    []string
	THP    string // of this machine, while the bundle runs; empty: as it is
	Cgroup string // v1 or v2, mounted in the bundle; empty: none
}

const disableIPv6 = "net.ipv6.conf.all.disable_ipv6"

// Hosts are those of the matrix. The first differs from each other one in one thing.
var Hosts = []Host{
	{Name: "usual"},
	{Name: "no multipath", Sysctl: map[string]string{"net.mptcp.enabled": "0"}},
	{Name: "IPv6 disabled", Sysctl: map[string]string{disableIPv6: "1"}},
	{Name: "no IPv6 in the kernel", Traits: []string{"no-inet6"}},
	{Name: "one processor", Traits: []string{"one-cpu"}},
	{Name: "no vDSO", Traits: []string{"no-vdso"}},
	{Name: "GOGC=1", Env: []string{"GOGC=1"}},
	{Name: "GOGC=off", Env: []string{"GOGC=off"}},
	{Name: "huge pages always", THP: "always"},
	{Name: "huge pages never", THP: "never"},
	{Name: "cgroup v1", Cgroup: "v1"},
	{Name: "cgroup v2", Cgroup: "v2"},
}

// HostRoot makes a root file system with testdata/hosts in it, built with cgo or without.
func HostRoot(dir string, cgo bool) error {
	program, enabled := filepath.Join(dir, "hosts"), "0"
	if cgo {
		enabled = "1"
	}
	cmd := exec.Command("go", "build", "-o", program, "./testdata/hosts")
	cmd.Dir, cmd.Env = Repo, append(os.Environ(), "CGO_ENABLED="+enabled, "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build testdata/hosts: %w\n%s", err, out)
	}
	etc := filepath.Join(dir, "etc")
	err := errors.Join(os.Mkdir(etc, 0o755), os.WriteFile(filepath.Join(etc, "hosts"), []byte("127.0.0.1 localhost\n::1 localhost\n"), 0o644))
	if !cgo || err != nil {
		return err
	}
	needs, err := exec.Command("ldd", program).Output()
	if err != nil {
		return fmt.Errorf("list the libraries of testdata/hosts: %w", err)
	}
	for _, lib := range regexp.MustCompile(`/\S+`).FindAllString(string(needs), -1) {
		data, err := os.ReadFile(lib)
		if err != nil {
			return err
		}
		to := filepath.Join(dir, lib)
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, data, 0o755)); err != nil {
			return err
		}
	}
	return nil
}

// Bundle writes a bundle that runs testdata/hosts on the host, in some of its modes.
func (h Host) Bundle(dir, root string, modes ...string) error {
	args := append(append([]string{"/hosts"}, h.Traits...), "--")
	spec := specs.Spec{
		Version: "1.0.2", Root: &specs.Root{Path: root},
		Process: &specs.Process{Args: append(args, modes...), Cwd: "/", Env: append([]string{"TMPDIR=/tmp", "GODEBUG=netdns=cgo"}, h.Env...), NoNewPrivileges: true},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=755"}},
			{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs"},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"ro"}},
		},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.NetworkNamespace}},
			Sysctl:     map[string]string{"net.mptcp.enabled": "1", disableIPv6: "0"},
		},
	}
	maps.Copy(spec.Linux.Sysctl, h.Sysctl)
	switch h.Cgroup {
	case "v1":
		spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro"}})
	case "v2":
		spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/sys/fs/cgroup", Type: "bind", Source: cgroup2, Options: []string{"bind", "ro"}})
	}
	data, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	return errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "config.json"), data, 0o600))
}

const (
	cgroup2   = "/sys/fs/cgroup/unified"
	hugePages = "/sys/kernel/mm/transparent_hugepage/enabled"
)

// Missing says what this machine lacks to be the host; empty: nothing.
func (h Host) Missing() string {
	_, noUnified := os.Stat(cgroup2)
	if h.Cgroup != "" && noUnified != nil { // v1 and v2 side by side
		return "cgroup " + h.Cgroup + " beside the other"
	}
	return ""
}

// Enter makes this machine the host, as far as that is not up to the bundle, until the returned function is called.
func (h Host) Enter() (leave func() error, err error) {
	if h.THP == "" {
		return func() error { return nil }, nil
	}
	modes, err := os.ReadFile(hugePages)
	if err != nil {
		return nil, err
	}
	before := string(modes[strings.IndexByte(string(modes), '[')+1 : strings.IndexByte(string(modes), ']')])
	set := func(mode string) error { return os.WriteFile(hugePages, []byte(mode), 0o644) }
	return func() error { return set(before) }, set(h.THP)
}
