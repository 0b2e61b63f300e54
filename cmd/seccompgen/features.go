package main

import (
	"os"
	"os/exec"
	"runtime"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/internal/ociruntime"
	"github.com/seccompgen/seccompgen/internal/scmp"
	"github.com/seccompgen/seccompgen/internal/verify"
	"github.com/seccompgen/seccompgen/internal/version"
	"github.com/seccompgen/seccompgen/profile"
	"github.com/seccompgen/seccompgen/tracer"
)

func featuresCommand() *cli.Command {
	return &cli.Command{
		Name:  "features",
		Usage: "print as JSON what this build and this host can do",
		Action: func(c *cli.Context) error {
			if err := noMoreThan(c, 0); err != nil {
				return err
			}
			var u unix.Utsname
			_ = unix.Uname(&u) // fails only for a bad pointer
			_, btf := os.Stat("/sys/kernel/btf/vmlinux")
			runtimes := []profile.Runtime{}
			for _, name := range []string{"runc", "crun"} {
				if _, err := exec.LookPath(name); err != nil {
					continue
				}
				if r, err := ociruntime.Find(name); err == nil {
					runtimes = append(runtimes, r.Runtime)
				}
			}
			recorder := "can record"
			if err := tracer.Check(); err != nil {
				recorder = err.Error()
			}
			return profile.WriteJSON(c.App.Writer, map[string]any{
				"version": version.String(), "go": runtime.Version(), "arch": runtime.GOARCH, "kernel": unix.ByteSliceToString(u.Release[:]),
				"libseccomp": scmp.Version(), "seccomp": verify.Enabled, "btf": btf == nil, "root": os.Geteuid() == 0, "recorder": recorder,
				"abis": profile.ABIs(), "runtimes": runtimes, "recordingVersion": profile.RecordingVersion,
			})
		},
	}
}
