package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// kernel is one that guests are booted with.
type kernel struct {
	name, arch string
	suite      string // of Debian
	flavour    string // of the package: cloud or rt
	cmdline    string
	old        bool // older than what the recorder needs
}

var kernels = []kernel{
	{name: "amd64-5.10", arch: "amd64", suite: "bullseye", flavour: "cloud", old: true},
	{name: "amd64-6.1", arch: "amd64", suite: "bookworm", flavour: "cloud"},
	{name: "amd64-6.12", arch: "amd64", suite: "trixie", flavour: "cloud"},
	{name: "amd64-6.12-preempt", arch: "amd64", suite: "trixie", flavour: "cloud", cmdline: "preempt=full"},
	{name: "amd64-sid", arch: "amd64", suite: "sid", flavour: "cloud"},
	{name: "amd64-sid-preempt", arch: "amd64", suite: "sid", flavour: "cloud", cmdline: "preempt=full"},
	{name: "amd64-experimental", arch: "amd64", suite: "experimental", flavour: "cloud"},
	{name: "amd64-experimental-preempt", arch: "amd64", suite: "experimental", flavour: "cloud", cmdline: "preempt=full"},
	{name: "arm64-6.1", arch: "arm64", suite: "bookworm", flavour: "cloud"},
	{name: "arm64-6.12", arch: "arm64", suite: "trixie", flavour: "cloud"},
	{name: "arm64-6.12-preempt", arch: "arm64", suite: "trixie", flavour: "cloud", cmdline: "preempt=full"},
	{name: "arm64-sid", arch: "arm64", suite: "sid", flavour: "cloud"},
}

// machine is what an architecture takes.
type machine struct {
	qemu    []string
	console string
	triplet string
	loader  string
	compat  string // GOARCH of the 32-bit programs that its kernels run
}

var machines = map[string]machine{
	"amd64": {[]string{"qemu-system-x86_64", "-cpu", "max"}, "ttyS0", "x86_64-linux-gnu", "lib64/ld-linux-x86-64.so.2", "386"},
	"arm64": {[]string{"qemu-system-aarch64", "-M", "virt", "-cpu", "max,pauth-impdef=on"}, "ttyAMA0", "aarch64-linux-gnu", "lib/ld-linux-aarch64.so.1", "arm"},
}

func find(name string) (kernel, error) {
	i := slices.IndexFunc(kernels, func(k kernel) bool { return k.name == name })
	if i < 0 {
		return kernel{}, fmt.Errorf("no kernel is called %q: see kernels list", name)
	}
	return kernels[i], nil
}

// dir is where the kernel's files are kept: vmlinuz, config, overlay.ko, and the package's version.
func (k kernel) dir() string { return filepath.Join(cache, k.suite+"-"+k.flavour+"-"+k.arch) }

// fetch gets the kernel, if it is not there. A suite's newest stays until its directory is deleted.
func (k kernel) fetch() error {
	version := filepath.Join(k.dir(), "version")
	if _, err := os.Stat(version); err == nil {
		return nil
	}
	a, err := newApt(k.suite, k.arch)
	if err != nil {
		return err
	}
	packages, err := a.kernelPackages("linux-image-" + k.flavour + "-" + k.arch)
	if err != nil {
		return err
	}
	tree, err := a.extract(packages...)
	if err != nil {
		return err
	}
	defer os.RemoveAll(tree)
	if err := os.MkdirAll(k.dir(), 0o755); err != nil {
		return err
	}
	for file, patterns := range map[string][]string{
		"vmlinuz":    {"boot/vmlinuz-*", "usr/lib/modules/*/vmlinuz"},
		"config":     {"boot/config-*", "usr/lib/modules/*/config"},
		"overlay.ko": {"lib/modules/*/kernel/fs/overlayfs/overlay.ko*", "usr/lib/modules/*/kernel/fs/overlayfs/overlay.ko*"},
	} {
		if err := unpack(filepath.Join(k.dir(), file), tree, patterns...); err != nil {
			return fmt.Errorf("unpack %v: %w", packages, err)
		}
	}
	return os.WriteFile(version, []byte(strings.Join(packages, " ")+"\n"), 0o644)
}

// unpack copies the one file that matches one of the patterns in the tree, decompressed.
func unpack(to, tree string, patterns ...string) error {
	for _, pattern := range patterns {
		matches, err := filepath.Glob(filepath.Join(tree, pattern))
		if err != nil || len(matches) == 0 {
			continue
		}
		from := matches[0]
		cat := map[string]string{".xz": "xzcat", ".zst": "zstdcat", ".gz": "zcat"}[filepath.Ext(from)]
		if cat == "" {
			cat = "cat"
		}
		data, err := exec.Command(cat, from).Output()
		if err != nil {
			return fmt.Errorf("%s %s: %w", cat, from, err)
		}
		return os.WriteFile(to, data, 0o644)
	}
	return fmt.Errorf("nothing is called %s", strings.Join(patterns, " or "))
}

// preemption says how the kernel preempts, by its configuration and command line.
func (k kernel) preemption() string {
	config, err := os.ReadFile(filepath.Join(k.dir(), "config"))
	if err != nil {
		return "unknown"
	}
	set := func(option string) bool { return bytes.Contains(config, []byte("\nCONFIG_"+option+"=y\n")) }
	switch {
	case k.cmdline == "preempt=full" && set("PREEMPT_DYNAMIC"):
		return "full"
	case k.cmdline != "":
		return "not dynamic"
	}
	for _, mode := range []string{"PREEMPT_RT", "PREEMPT_LAZY", "PREEMPT_VOLUNTARY", "PREEMPT_NONE", "PREEMPT"} {
		if set(mode) {
			return strings.ToLower(strings.TrimPrefix(mode, "PREEMPT_"))
		}
	}
	return "unknown"
}
