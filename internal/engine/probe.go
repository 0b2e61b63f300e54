package engine

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/seccompgen/seccompgen/profile"
)

// Probe is a throw-away container that asks for a recording, as a user's would.
type Probe struct {
	Name       string // of the container and its recording: one that nobody has
	Recordings string // the directory where the hook puts it
}

// ErrNotRecorded says that a container ran and left no recording.
var ErrNotRecorded = errors.New("the container ran, and left no recording")

const (
	probeTime    = 20 * time.Second // for the hook that comes after a container's end
	probeProgram = "/oci-hook"      // the container runs the hook itself, which is static, and says its version
)

// CanProbe reports whether a probe can start containers of an engine. Those of the others are the kubelet's.
func CanProbe(engine string) bool { return engine == "podman" || engine == "docker" }

// Run starts the container in an engine of this host, and returns its recording. It leaves no container, no image and no
// file.
func (p *Probe) Run(ctx context.Context, engine string) (r *profile.Recording, err error) {
	if !CanProbe(engine) {
		return nil, errors.New("the kubelet starts its containers: annotate a pod (docs/howto/kubernetes.md)")
	}
	s := (&Host{}).status(engine)
	switch {
	case s.Version == "":
		return nil, errors.New("it is not installed, or does not say its version")
	case len(s.Problems) > 0:
		return nil, errors.New(strings.Join(s.Problems, "; "))
	case len(s.Registered) == 0:
		return nil, fmt.Errorf("nothing of ours is registered where it looks: seccompgen install %s", engine)
	}
	program, err := os.ReadFile(filepath.Join(filepath.Dir(s.Programs[0]), "oci-hook"))
	if err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp("", "seccompgen-probe-")
	if err != nil {
		return nil, err
	}
	_, statErr := os.Stat(p.Recordings)
	defer func() {
		err = errors.Join(err, os.RemoveAll(tmp))
		if statErr != nil {
			_ = os.Remove(p.Recordings) // if nothing came there
		}
	}()
	if err := os.MkdirAll(p.Recordings, 0o700); err != nil { // as the hook does
		return nil, err
	}
	appears, err := watch(p.Recordings)
	if err != nil {
		return nil, err
	}
	defer appears.Close()
	if engine == "podman" {
		err = p.podman(ctx, tmp, program)
	} else {
		err = p.docker(ctx, program)
	}
	if err != nil {
		return nil, err
	}
	file, err := p.await(appears)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.Remove(file)) }()
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if r, err = profile.ReadRecording(f); err != nil {
		return nil, fmt.Errorf("read the recording %s: %w", file, err)
	}
	if !r.Complete {
		return nil, fmt.Errorf("it records, and evidence is missing: %v", r.Dropped)
	}
	return r, nil
}

// await returns the recording's file. Each event in the directory is a reason to look.
func (p *Probe) await(appears *os.File) (string, error) {
	if err := appears.SetReadDeadline(time.Now().Add(probeTime)); err != nil {
		return "", err
	}
	for events := make([]byte, 4096); ; {
		if files, err := filepath.Glob(filepath.Join(p.Recordings, p.Name+"-*.json")); err != nil || len(files) > 0 {
			return strings.Join(files, ""), err
		}
		if _, err := appears.Read(events); errors.Is(err, os.ErrDeadlineExceeded) {
			return "", fmt.Errorf("%w in %s within %v", ErrNotRecorded, p.Recordings, probeTime)
		} else if err != nil {
			return "", fmt.Errorf("wait for the recording: %w", err)
		}
	}
}

func (p *Probe) podman(ctx context.Context, tmp string, program []byte) error {
	root, stderr := filepath.Join(tmp, "root"), filepath.Join(tmp, "stderr")
	if err := errors.Join(os.Chmod(tmp, 0o755), os.Mkdir(root, 0o755), os.WriteFile(filepath.Join(root, probeProgram), program, 0o755)); err != nil { //nolint:forbidigo // a directory of our own
		return err
	}
	defer p.remove("podman", "rm", "--force", "--ignore", p.Name) // one that was killed
	// SELinux: the program has no container's label. crun gives hooks no stderr of its own.
	err := p.engine(ctx, nil, "podman", "run", "--rm", "--name", p.Name, "--network", "none", "--security-opt", "label=disable", "--annotation", "dev.seccompgen.record="+p.Name,
		"--annotation", "run.oci.hooks.stderr="+stderr, "--rootfs", root, probeProgram, "--version")
	if said, readErr := os.ReadFile(stderr); err != nil && readErr == nil {
		err = fmt.Errorf("%w\n%s", err, bytes.TrimSpace(said))
	}
	return err
}

func (p *Probe) docker(ctx context.Context, program []byte) error {
	var image bytes.Buffer
	w := tar.NewWriter(&image)
	err := w.WriteHeader(&tar.Header{Name: probeProgram[1:], Mode: 0o755, Size: int64(len(program)), Typeflag: tar.TypeReg})
	if err == nil {
		_, err = w.Write(program)
	}
	if err := errors.Join(err, w.Close()); err != nil {
		return err
	}
	if err := p.engine(ctx, image.Bytes(), "docker", "import", "-", p.Name); err != nil {
		return err
	}
	defer p.remove("docker", "rmi", "--force", p.Name)
	defer p.remove("docker", "rm", "--force", p.Name)
	if err := p.engine(ctx, nil, "docker", "run", "--rm", "--name", p.Name, "--network", "none", "--runtime", handler, "--env", "SECCOMPGEN_RECORD="+p.Name, p.Name, probeProgram, "--version"); err != nil {
		return fmt.Errorf("%w\n(a runtime that Docker does not know: it has not read %s again, systemctl reload docker)", err, dockerFile)
	}
	return nil
}

// engine runs a command of an engine's. The container's output, if it is one, is the hook's.
func (p *Probe) engine(ctx context.Context, stdin []byte, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	if args[0] == "run" && !strings.HasPrefix(stdout.String(), "seccompgen oci-hook") {
		return fmt.Errorf("%s %s: the container says %.100q", name, strings.Join(args, " "), stdout.String())
	}
	return nil
}

// remove removes what may be left, when the context has ended too.
func (p *Probe) remove(name string, args ...string) {
	ctx, cancel := context.WithTimeout(context.Background(), probeTime)
	defer cancel()
	_ = exec.CommandContext(ctx, name, args...).Run() // it is gone already, or the engine is
}
