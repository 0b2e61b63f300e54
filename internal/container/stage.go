package container

import (
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"github.com/moby/sys/reexec"
	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/internal/bundle"
)

const stageName = "seccompgen-stage"

// stagePlan is what the stage does before it becomes the runtime.
type stagePlan struct {
	Overlays []bundle.Overlay `json:"overlays"`
	Tmpfs    string           `json:"tmpfs,omitempty"` // hold the overlays' upper layers in memory, mounted here
	Argv     []string         `json:"argv"`
}

func init() { reexec.Register(stageName, stage) }

// stage runs in a mount namespace of its own, between seccompgen and the runtime: it mounts the overlays, resets the
// signal dispositions and executes the runtime. The mounts end with the last process that sees them, however that one
// ends: nothing has to clean them up.
func stage() {
	if err := runStage(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "seccompgen:", err)
		os.Exit(1)
	}
}

func runStage(plan string) error {
	runtime.LockOSThread()
	var p stagePlan
	if err := json.Unmarshal([]byte(plan), &p); err != nil {
		return fmt.Errorf("decode the stage's plan: %w", err)
	}
	// What the host unmounts meanwhile must not be kept busy here; what is mounted here must not show there.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("make the mounts slaves: %w", err)
	}
	if p.Tmpfs != "" {
		if err := unix.Mount("seccompgen", p.Tmpfs, "tmpfs", 0, "mode=0700"); err != nil {
			return fmt.Errorf("mount a tmpfs for the overlay: %w", err)
		}
	}
	for _, o := range p.Overlays {
		for _, dir := range []string{o.Upper, o.Work} {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return fmt.Errorf("make the overlay's directories: %w", err)
			}
		}
		// The upper directory's own mode and owner are what the container sees at the mount point.
		var st unix.Stat_t
		if err := unix.Stat(o.Lower, &st); err != nil {
			return fmt.Errorf("overlay over %s: %w", o.Lower, err)
		}
		if err := unix.Chmod(o.Upper, st.Mode&0o7777); err != nil {
			return fmt.Errorf("overlay over %s: %w", o.Lower, err)
		}
		if err := unix.Chown(o.Upper, int(st.Uid), int(st.Gid)); err != nil {
			return fmt.Errorf("overlay over %s: %w", o.Lower, err)
		}
		options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", escape(o.Lower), escape(o.Upper), escape(o.Work))
		if err := unix.Mount("overlay", o.Dest, "overlay", 0, options); err != nil {
			return fmt.Errorf("mount a writable overlay over %s: %w: give --rootfs DIR to use another root file system", o.Lower, err)
		}
	}
	resetSignals()
	return fmt.Errorf("execute %s: %w", p.Argv[0], syscall.Exec(p.Argv[0], p.Argv, os.Environ()))
}

// escape protects a path in overlayfs's options.
func escape(path string) string {
	return strings.NewReplacer(`\`, `\\`, `,`, `\,`, `:`, `\:`).Replace(path)
}

// resetSignals lets no ignored or blocked signal through to the container: a shell's "&" ignores SIGINT, and os tests
// then hang. The kernel resets a caught signal at execve, and an ignored one becomes a caught one here.
func resetSignals() {
	caught := make(chan os.Signal, 1)
	signal.Notify(caught)
	var none unix.Sigset_t
	_ = unix.PthreadSigmask(unix.SIG_SETMASK, &none, nil) // cannot fail with these arguments
}
