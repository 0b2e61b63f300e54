package verify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"time"

	"github.com/moby/sys/reexec"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/seccomp"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/internal/scmp"
)

const loadName = "seccompgen-load"

func init() { reexec.Register(loadName, loadInChild) }

// Enabled reports whether this binary was built with runc's seccomp support (-tags seccomp and cgo).
const Enabled = seccomp.Enabled

// Check puts a profile through libseccomp and runc's own code, up to loading the filter into a child process.
func Check(p *specs.LinuxSeccomp) error {
	if !Enabled {
		return errors.New("built without seccomp support: build with -tags seccomp and cgo, as make build does")
	}
	if err := scmp.CheckNames(p); err != nil {
		return err
	}
	if _, err := specconv.SetupSeccomp(p); err != nil {
		return fmt.Errorf("runc refuses the profile: %w", err)
	}
	data, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("encode the profile: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, reexec.Self())
	cmd.Args = []string{loadName}
	cmd.Stdin = bytes.NewReader(data)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("load the profile's filter: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// loadInChild installs the filter for good. Denials are only logged, and entries that deny allow, so that this process can
// say how it went.
func loadInChild() {
	var p specs.LinuxSeccomp
	err := json.NewDecoder(os.Stdin).Decode(&p)
	var c *configs.Seccomp
	if err == nil {
		c, err = specconv.SetupSeccomp(&p)
	}
	if err == nil {
		runtime.LockOSThread()
		err = unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) // so that root is not needed
	}
	if err == nil {
		c.DefaultAction = configs.Log
		for _, call := range c.Syscalls {
			call.Action = configs.Allow
		}
		_, err = seccomp.InitSeccomp(c)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
