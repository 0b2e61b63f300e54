package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"
)

// cache holds what is fetched and built, below the module's directory.
const cache = "bin/kernels"

type options struct {
	bin     string
	files   files
	timeout time.Duration
	debug   bool
	n       int
	out     string
}

// files are pairs FROM:TO.
type files []string

func (f *files) String() string     { return strings.Join(*f, " ") }
func (f *files) Set(s string) error { *f = append(*f, s); return nil }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	status, err := run(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "kernels:", err)
		status = 1
	}
	os.Exit(status)
}

func run(ctx context.Context) (int, error) {
	var o options
	flag.StringVar(&o.bin, "bin", "", "take seccompgen and oci-hook for amd64 from `DIR`, and for arm64 from DIR/arm64 (default: build them from this tree)")
	flag.Var(&o.files, "file", "put the file FROM into the guest as TO, as in `FROM:TO`; can be repeated")
	flag.DurationVar(&o.timeout, "timeout", time.Hour, "stop a guest after `D`")
	flag.BoolVar(&o.debug, "debug", false, "show what the guest's kernel says")
	flag.IntVar(&o.n, "n", 50, "with accept: make `N` recordings and verifications")
	flag.StringVar(&o.out, "o", "", "with accept: write the table to `FILE`")
	flag.Parse()
	switch args := flag.Args(); {
	case len(args) == 1 && args[0] == "list":
		for _, k := range kernels {
			version, err := os.ReadFile(filepath.Join(k.dir(), "version"))
			if err != nil {
				version = []byte("not fetched\n")
			}
			fmt.Printf("%-28s %s", k.name, version)
		}
		return 0, nil
	case len(args) > 2 && args[0] == "run":
		k, err := find(args[1])
		if err != nil {
			return 1, err
		}
		im, err := o.prepare(k)
		if err != nil {
			return 1, err
		}
		return o.boot(ctx, k, im, args[2:], os.Stdout)
	}
	if args := flag.Args(); len(args) > 0 && args[0] == "accept" {
		return o.accept(ctx, args[1:])
	}
	return 1, errors.New("usage: kernels [flags] list | run KERNEL COMMAND [ARGUMENT ...] | accept [KERNEL ...]")
}

func (o options) boot(ctx context.Context, k kernel, im image, command []string, out io.Writer) (int, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, o.timeout, fmt.Errorf("it took more than %v", o.timeout))
	defer cancel()
	log := io.Discard
	if o.debug {
		log = os.Stderr
	}
	return k.boot(ctx, im, command, out, log)
}

// prepare fetches and builds what a guest of the kernel needs.
func (o options) prepare(k kernel) (image, error) {
	if err := k.fetch(); err != nil {
		return nil, err
	}
	root, err := userland(k.arch)
	if err != nil {
		return nil, err
	}
	bin, err := o.build(k.arch, root)
	if err != nil {
		return nil, err
	}
	m, work := machines[k.arch], filepath.Join(cache, "work-"+k.arch)
	im := image{"lib/overlay.ko": filepath.Join(k.dir(), "overlay.ko")}
	for _, p := range [][2]string{
		{"bin/busybox", filepath.Join(root, "bin/busybox")},
		{"usr/sbin/runc", filepath.Join(root, "usr/sbin/runc")},
		{"usr/local/bin/seccompgen", filepath.Join(bin, "seccompgen")},
		{"usr/local/bin/oci-hook", filepath.Join(bin, "oci-hook")},
		{"work/hammer", filepath.Join(work, "hammer")},
		{"work/go.test", filepath.Join(work, "go.test")},
	} {
		if err := im.add(p[0], p[1], root, m); err != nil {
			return nil, err
		}
	}
	im["work/accept.sh"] = "test/kernels/accept.sh"
	if k.arch == "amd64" {
		im["work/calls"] = filepath.Join(work, "calls")
	}
	for _, file := range o.files {
		from, to, ok := strings.Cut(file, ":")
		if !ok {
			return nil, fmt.Errorf("-file %s: want FROM:TO", file)
		}
		im[strings.TrimPrefix(to, "/")] = from
	}
	return im, nil
}

// build builds the programs under test, if none are given, and those that the tests run. It returns where the former are.
func (o options) build(arch, root string) (string, error) {
	m, work := machines[arch], filepath.Join(cache, "work-"+arch)
	if err := os.MkdirAll(work, 0o755); err != nil {
		return "", err
	}
	root, err := filepath.Abs(root)
	if err != nil {
		return "", err
	}
	gcc := m.triplet + "-gcc"
	static := []string{"CGO_ENABLED=0", "GOARCH=" + arch}
	cgo := []string{
		"CGO_ENABLED=1", "GOARCH=" + arch, "CC=" + gcc, "PKG_CONFIG_SYSROOT_DIR=" + root,
		"PKG_CONFIG_LIBDIR=" + filepath.Join(root, "usr/lib", m.triplet, "pkgconfig"),
	}
	builds := []struct {
		env  []string
		args []string
	}{
		{nil, []string{gcc, "-static", "-pthread", "-O1", "-o", work + "/hammer", "testdata/hammer/hammer.c"}},
		{static, []string{"go", "test", "-c", "-o", work + "/go.test", "io"}},
	}
	if arch == "amd64" {
		builds = append(builds, struct {
			env  []string
			args []string
		}{nil, []string{gcc, "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-fno-builtin", "-O1", "-o", work + "/calls", "testdata/calls/calls.c"}})
	}
	bin := o.bin
	if bin == "" {
		bin = work
		builds = append(builds, []struct {
			env  []string
			args []string
		}{
			{cgo, []string{"go", "build", "-trimpath", "-ldflags", "-s -w", "-tags", "seccomp", "-o", work + "/seccompgen", "./cmd/seccompgen"}},
			{static, []string{"go", "build", "-trimpath", "-ldflags", "-s -w", "-o", work + "/oci-hook", "./cmd/oci-hook"}},
		}...)
	} else if arch != "amd64" {
		bin = filepath.Join(bin, arch)
	}
	for _, b := range builds {
		cmd := exec.Command(b.args[0], b.args[1:]...)
		cmd.Env = append(os.Environ(), b.env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("%s: %w\n%s", strings.Join(b.args, " "), err, out)
		}
	}
	return bin, nil
}
