package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// keyring is that of Debian's package debian-archive-keyring.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// apt fetches packages of one suite and architecture, and leaves the machine's own configuration alone.
type apt struct {
	dir     string
	options []string
}

func newApt(suite, arch string) (*apt, error) {
	mirror, err := mirror()
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(filepath.Join(cache, "apt", suite+"-"+arch))
	if err != nil {
		return nil, err
	}
	a := &apt{dir: dir, options: []string{
		"-o", "Dir::Etc::sourcelist=" + filepath.Join(dir, "sources.list"), "-o", "Dir::Etc::sourceparts=/dev/null",
		"-o", "Dir::State=" + dir, "-o", "Dir::State::status=/dev/null", "-o", "Dir::Cache=" + dir,
		"-o", "APT::Architecture=" + arch, "-o", "APT::Architectures=" + arch, "-o", "APT::Sandbox::User=root",
		"-o", "Acquire::Languages=none", "-o", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
	}}
	for _, sub := range []string{"lists/partial", "archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	line := fmt.Sprintf("deb [signed-by=%s] %s %s main\n", keyring, mirror, suite)
	if err := os.WriteFile(filepath.Join(dir, "sources.list"), []byte(line), 0o644); err != nil {
		return nil, err
	}
	_, err = a.run("", "apt-get", "-qq", "update", "--error-on=any")
	return a, err
}

// mirror is the first of Debian's that this machine's sources name.
func mirror() (string, error) {
	out, err := exec.Command("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian", "Component: main").Output()
	if err != nil {
		return "", fmt.Errorf("ask apt for its mirror: %w", err)
	}
	first, _, _ := strings.Cut(string(out), "\n")
	if first == "" {
		return "", errors.New("apt knows no mirror of Debian: run apt-get update")
	}
	return first, nil
}

func (a *apt) run(dir, name string, args ...string) (string, error) {
	cmd := exec.Command(name, slices.Concat(a.options, args)...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

var kernelPackage = regexp.MustCompile(`(?m)^ *Depends: (linux-(?:image|binary|modules|base)-[0-9].*)$`)

// kernelPackages resolves the package that depends on a suite's newest kernel.
func (a *apt) kernelPackages(name string) ([]string, error) {
	packages := []string{name}
	for i := 0; i < len(packages); i++ {
		out, err := a.run("", "apt-cache", "depends", packages[i])
		if err != nil {
			return nil, err
		}
		for _, m := range kernelPackage.FindAllStringSubmatch(out, -1) {
			if !slices.Contains(packages, m[1]) {
				packages = append(packages, m[1])
			}
		}
	}
	if len(packages) == 1 {
		return nil, fmt.Errorf("%s depends on no kernel", name)
	}
	return packages[1:], nil
}

// extract downloads packages and unpacks them into a new directory.
func (a *apt) extract(packages ...string) (tree string, err error) {
	if tree, err = os.MkdirTemp(a.dir, "tree"); err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(tree))
		}
	}()
	debs := filepath.Join(tree, "debs")
	if err := os.Mkdir(debs, 0o755); err != nil {
		return tree, err
	}
	if _, err := a.run(debs, "apt-get", append([]string{"-qq", "download"}, packages...)...); err != nil {
		return tree, err
	}
	files, err := filepath.Glob(debs + "/*.deb")
	if err != nil {
		return tree, err
	}
	for _, deb := range files {
		if out, err := exec.Command("dpkg-deb", "-x", deb, tree).CombinedOutput(); err != nil {
			return tree, fmt.Errorf("unpack %s: %w\n%s", deb, err, out)
		}
	}
	return tree, os.RemoveAll(debs)
}
