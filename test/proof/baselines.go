package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/internal/bundle"
	"github.com/seccompgen/seccompgen/internal/ociruntime"
	"github.com/seccompgen/seccompgen/profile"
)

// baselines measures what each runtime's init calls under the filter, over many runs: runc's init is a Go program, and no
// two of its runs need be the same. Half of the containers are made by create and start, as engines do, half by run: the
// wait between create and start is under the filter too.
func (p *proof) baselines(ctx context.Context, _ []workload) error {
	var all []profile.Baseline
	rootfs := filepath.Join(p.work, "rootfs")
	if err := copyProgram(filepath.Join(p.bin, "oci-hook"), filepath.Join(rootfs, "program")); err != nil {
		return err
	}
	for _, name := range p.runtimes {
		rt, err := ociruntime.Find(name)
		if err != nil {
			return err
		}
		for _, nnp := range []bool{true, false} {
			byABI := map[specs.Arch][]string{}
			for i := range p.runs {
				r, err := p.start(ctx, rt, rootfs, nnp, i%2 == 0)
				if err != nil {
					return fmt.Errorf("%s %s, noNewPrivileges %t: %w", rt.Name, rt.Version, nnp, err)
				}
				for _, s := range r.Syscalls {
					if s.Phase == profile.PhaseRuntime {
						byABI[s.ABI] = append(byABI[s.ABI], s.Name)
					}
				}
			}
			for _, abi := range profile.ABIs() {
				if calls := byABI[abi]; len(calls) > 0 {
					slices.Sort(calls)
					all = append(all, profile.Baseline{Runtime: rt.Runtime, NoNewPrivileges: nnp, ABI: abi, Runs: p.runs, Calls: slices.Compact(calls)})
				}
			}
			fmt.Fprintln(os.Stderr, rt.Name, rt.Version, nnp, all[len(all)-1].Calls)
		}
	}
	data, err := profile.EncodeBaselines(all)
	if err != nil {
		return err
	}
	_, err = p.out.Write(data)
	return err
}

// copyProgram copies a static program, which runs in a root file system that holds nothing else.
func copyProgram(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, data, 0o755))
}

// start runs one container with the hook in it, and returns what the hook recorded.
func (p *proof) start(ctx context.Context, rt *ociruntime.Runtime, rootfs string, nnp, separately bool) (*profile.Recording, error) {
	dir, err := os.MkdirTemp(p.work, "floor-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	b, err := bundle.Command([]string{"/program", "--version"}, bundle.Options{Rootfs: rootfs, NoNewPrivileges: nnp})
	if err != nil {
		return nil, err
	}
	recording := filepath.Join(dir, "recording.json")
	hook := []specs.Hook{{Path: filepath.Join(p.bin, "oci-hook"), Args: []string{"oci-hook", "--output", recording}}}
	b.Spec.Hooks = &specs.Hooks{CreateRuntime: hook, Poststop: hook}
	b.Spec.Linux.Seccomp = profile.AllowAll()
	config, err := json.Marshal(b.Spec)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), config, 0o600); err != nil {
		return nil, err
	}
	id, pidFile := "seccompgen-"+filepath.Base(dir), filepath.Join(dir, "pid")
	call := func(args ...string) error { return runtimeCall(ctx, rt, dir, args...) }
	if !separately {
		err = call("run", "--bundle", dir, id)
	} else if err = call("create", "--bundle", dir, "--pid-file", pidFile, id); err == nil {
		var ended func() error
		if ended, err = awaitProcess(pidFile); err == nil {
			if err = call("start", id); err == nil {
				err = ended()
			}
		}
		err = errors.Join(err, call("delete", "--force", id)) // it runs the poststop hook
	}
	if err != nil {
		return nil, err
	}
	r, err := read(recording, profile.ReadRecording)
	if err == nil {
		err = r.Incomplete()
	}
	return r, err
}

// runtimeCall runs a command of the runtime. What create makes keeps the output open: it goes to a file.
func runtimeCall(ctx context.Context, rt *ociruntime.Runtime, dir string, args ...string) error {
	out, err := os.Create(filepath.Join(dir, "output"))
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.CommandContext(ctx, rt.Path, append([]string{"--root", filepath.Join(dir, "state")}, args...)...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		_, _ = out.Seek(0, io.SeekStart)
		said, _ := io.ReadAll(out)
		return fmt.Errorf("%s: %w: %s", args[0], err, said)
	}
	return nil
}

// awaitProcess returns a function that waits for the end of the process in the file. It need not be a child.
func awaitProcess(pidFile string) (func() error, error) {
	data, err := os.ReadFile(pidFile)
	if err != nil {
		return nil, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return nil, err
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	return func() error {
		defer unix.Close(fd)
		for {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 60_000)
			switch {
			case errors.Is(err, unix.EINTR):
			case err != nil:
				return err
			case n == 0:
				return fmt.Errorf("process %d does not end", pid)
			default:
				return nil
			}
		}
	}, nil
}
