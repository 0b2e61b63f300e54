//go:build amd64 || arm64

package tracer

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/profile"
)

// programs turns the noted executables into programs that nobody has looked at.
func programs(executables map[recorderExecutableKey]recorderExecutable, unnoted uint64) []profile.Program {
	all := []profile.Program{}
	for key, e := range executables {
		p := profile.Program{Path: pathOf(e), Size: int64(key.Size)}
		switch whole := e.Flags&uint32(recorderExecutableFlagEXECUTABLE_WHOLE) != 0; {
		case e.Flags&uint32(recorderExecutableFlagEXECUTABLE_DELETED) != 0:
			p.Unread = "it had no name any more when it was executed"
		case !whole:
			p.Path, p.Unread = path.Base(p.Path), "its place in the container is not known"
		default:
			p.Unread = "nobody has looked at it"
			p.File = &profile.File{Device: unix.Mkdev(uint32(key.Dev>>20), uint32(key.Dev&(1<<20-1))), Inode: key.Ino, Began: wallClock(e.Time)}
		}
		all = append(all, p)
	}
	if unnoted > 0 {
		all = append(all, profile.Program{Unread: fmt.Sprintf("the recorder had no room for more, and %d were executed", unnoted)})
	}
	return all
}

// pathOf puts the names of a path into their order.
func pathOf(e recorderExecutable) string {
	names := bytes.Split(e.Path[:min(int(e.Length), len(e.Path))], []byte{0})
	slices.Reverse(names)
	return "/" + string(bytes.TrimPrefix(bytes.Join(names, []byte{'/'}), []byte{'/'}))
}

// wallClock turns a time of the kernel's monotonic clock into Unix time, both in nanoseconds.
func wallClock(monotonic uint64) int64 {
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) != nil {
		return 0
	}
	return time.Now().UnixNano() - now.Nano() + int64(monotonic)
}
