package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// boot runs a command in a guest with the image, copies what it prints, and returns its exit status. The console is one for both
// of its streams, and for what the kernel has to say.
func (k kernel) boot(ctx context.Context, im image, command []string, out io.Writer, log io.Writer) (int, error) {
	dir, err := os.MkdirTemp("", "seccompgen-kernels-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	initrd := filepath.Join(dir, "initrd")
	if err := im.write(initrd, []byte("#!/bin/sh\nexec"+quote(command)+"\n")); err != nil {
		return 0, fmt.Errorf("write the guest's image: %w", err)
	}
	m := machines[k.arch]
	// One thread for both processors: with one each QEMU runs code that the other has just patched as it was before, which
	// crashes x86 kernels and hides calls from programs on arm64.
	args := append(m.qemu[1:], "-accel", "tcg,thread=single", "-smp", "2", "-m", "1536", "-nodefaults", "-nographic", "-nic", "none", "-no-reboot",
		"-serial", "stdio", "-kernel", filepath.Join(k.dir(), "vmlinuz"), "-initrd", initrd,
		"-append", strings.TrimSpace("console="+m.console+" quiet loglevel=4 panic=-1 "+k.cmdline))
	cmd := exec.CommandContext(ctx, m.qemu[0], args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second
	cmd.Stderr = log
	console, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("%w: scripts/setup kernels installs it", err)
	}
	status, up := -1, false
	lines := bufio.NewReader(console)
	for {
		line, err := lines.ReadString('\n')
		text := strings.TrimRight(line, "\r\n")
		exit, ended := strings.CutPrefix(text, "kernels: exit ")
		switch {
		case ended:
			status, _ = strconv.Atoi(exit)
		case strings.HasSuffix(text, "kernels: up"): // what the firmware prints stands before it
			up = true
		case up && status < 0:
			fmt.Fprint(out, line)
		default:
			fmt.Fprint(log, line)
		}
		if err != nil {
			break
		}
	}
	err = cmd.Wait()
	switch {
	case ctx.Err() != nil:
		return 0, fmt.Errorf("%s: the guest was stopped: %w", k.name, context.Cause(ctx))
	case err != nil:
		return 0, fmt.Errorf("%s: %w", k.name, err)
	case status < 0:
		return 0, errors.New(k.name + ": the guest ended before its command: --debug shows what its kernel said")
	}
	return status, nil
}

func quote(command []string) string {
	var b strings.Builder
	for _, arg := range command {
		b.WriteString(" '" + strings.ReplaceAll(arg, "'", `'\''`) + "'")
	}
	return b.String()
}
