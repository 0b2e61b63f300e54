package bundle

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/seccompgen/seccompgen/internal/gotest"
	"github.com/seccompgen/seccompgen/profile"
)

// Package builds the tests of a Go package as go test -c does, into dir, and makes a bundle that runs them in the
// package's directory. Go's environment variables count as they do for go test. What the build says goes to progress.
func Package(ctx context.Context, pkg string, flags []string, dir string, o Options, progress io.Writer) (*Bundle, error) {
	if o.Rootfs != "" {
		return nil, fmt.Errorf("package %s needs the host's root file system, where its directory is: leave out --rootfs", pkg)
	}
	var info struct {
		Dir, ImportPath string
		Module          *struct{ Path, Version string }
	}
	var said bytes.Buffer
	list := exec.CommandContext(ctx, "go", "list", "-json=Dir,ImportPath,Module", "--", pkg)
	list.Stderr = &said
	out, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("go list %s: %w\n%s", pkg, err, bytes.TrimSpace(said.Bytes()))
	}
	d := json.NewDecoder(bytes.NewReader(out))
	if err := d.Decode(&info); err != nil {
		return nil, fmt.Errorf("go list %s: decode: %w", pkg, err)
	}
	if info.ImportPath == "command-line-arguments" {
		return nil, fmt.Errorf("%s is a file: give its package, by directory or import path", pkg)
	}
	if d.More() {
		return nil, fmt.Errorf("%s names several packages: give one", pkg)
	}
	bin, args := filepath.Join(dir, filepath.Base(info.ImportPath)+".test"), []string{"test", "-c"}
	if o.Race {
		bin, args = filepath.Join(dir, filepath.Base(info.ImportPath)+".race.test"), append(args, "-race")
	}
	build := exec.CommandContext(ctx, "go", append(args, "-o", bin, info.ImportPath)...)
	build.Stdout, build.Stderr = progress, progress
	if err := build.Run(); err != nil {
		return nil, fmt.Errorf("build the tests of %s: %w", info.ImportPath, err)
	}
	if _, err := os.Stat(bin); err != nil {
		return nil, fmt.Errorf("package %s has no tests", info.ImportPath)
	}
	module := "std"
	if m := info.Module; m != nil {
		module = m.Path
		if m.Version != "" {
			module += "@" + m.Version
		}
	}
	return Tests(&gotest.Test{Package: info.ImportPath, Module: module, Binary: bin, Dir: info.Dir, Flags: flags}, o)
}

// Tests makes a bundle that runs a test binary in its package's directory. The init that it runs as a child of is written beside
// the binary.
func Tests(t *gotest.Test, o Options) (*Bundle, error) {
	if o.Rootfs != "" {
		return nil, fmt.Errorf("package %s needs the host's root file system, where its directory is: leave out --rootfs", t.Package)
	}
	// -test.v=test2json marks the lines that name results, so that no output of a test is taken for one.
	args := append([]string{t.Binary, "-test.paniconexit0", "-test.v=test2json"}, TestFlags(t.Flags)...)
	init, err := writeInit(filepath.Dir(t.Binary))
	if err != nil {
		return nil, err
	}
	b, err := fromHost(append([]string{init}, args...), t.Dir, o)
	if err != nil {
		return nil, err
	}
	b.Binary, b.Init = t.Binary, true
	b.Workload = profile.Workload{Package: t.Package, Module: t.Module, Args: args[1:], User: b.Workload.User}
	built, err := buildinfo.ReadFile(t.Binary)
	if err != nil {
		return nil, fmt.Errorf("read the build info of the tests: %w", err)
	}
	b.Workload.Go = built.GoVersion
	b.Workload.SHA256, err = fileSHA256(t.Binary)
	return b, err
}

// ownArgs is how many arguments stand before the user's: the init, the test binary and our flags.
const ownArgs = 4

// testFlags are those that go test hands to the test binary; there they are called -test.NAME.
var testFlags = []string{
	"bench", "benchmem", "benchtime", "blockprofile", "blockprofilerate", "count", "coverprofile", "cpu", "cpuprofile", "failfast",
	"fullpath", "fuzz", "fuzztime", "list", "memprofile", "memprofilerate", "mutexprofile", "mutexprofilefraction", "outputdir", "parallel",
	"run", "short", "shuffle", "skip", "timeout", "trace", "v",
}

// TestFlags writes go test's flags as the test binary knows them, and leaves all others alone.
func TestFlags(flags []string) []string {
	flags = slices.Clone(flags)
	for i, f := range flags {
		if f == "-args" || f == "--args" {
			return slices.Delete(flags, i, i+1)
		}
		name := strings.TrimPrefix(strings.TrimPrefix(f, "-"), "-")
		key, _, _ := strings.Cut(name, "=")
		if name != f && slices.Contains(testFlags, key) {
			flags[i] = "-test." + name
		}
	}
	return flags
}

func fileSHA256(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("hash %s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
