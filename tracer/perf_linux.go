//go:build amd64 || arm64

package tracer

import (
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// attachPerf attaches a program to a tracepoint by way of a perf event. The link keeps the event open.
func attachPerf(group, event string, p *ebpf.Program) (link.Link, error) {
	id, err := eventID(group, event)
	if err != nil {
		return nil, err
	}
	attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_TRACEPOINT, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{})), Config: id}
	// The program runs on all CPUs, whichever one the event is for.
	fd, err := unix.PerfEventOpen(&attr, -1, 0, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open the perf event %s:%s: %w", group, event, err)
	}
	f := os.NewFile(uintptr(fd), "perf event")
	defer f.Close()
	return link.AttachRawLink(link.RawLinkOptions{Target: fd, Program: p, Attach: ebpf.AttachPerfEvent})
}

// eventID returns the number of a trace event. It reads a tracefs that is mounted nowhere, so that it does not matter
// whether the host has mounted one.
func eventID(group, event string) (uint64, error) {
	id, err := readTracefs(path.Join("events", group, event, "id"))
	if err != nil {
		return 0, fmt.Errorf("read the id of %s:%s in tracefs: %w", group, event, err)
	}
	return strconv.ParseUint(strings.TrimSpace(id), 10, 64)
}

func readTracefs(name string) (content string, err error) {
	fd, err := unix.Fsopen("tracefs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return "", err
	}
	context := os.NewFile(uintptr(fd), "tracefs")
	defer context.Close()
	if err := unix.FsconfigCreate(fd); err != nil {
		return "", err
	}
	mount, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return "", err
	}
	root := os.NewFile(uintptr(mount), "tracefs")
	defer root.Close()
	if fd, err = unix.Openat(mount, name, unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return "", err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	data, err := io.ReadAll(f)
	return string(data), err
}
