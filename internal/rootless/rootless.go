// Package rootless lets users record their own containers. The kernel refuses bpf() in a user namespace, where a rootless
// engine's hooks run; so a service of root's, [Serve], records for them, and the hook is its [Client].
//
// What surprises: whom it records is not a matter of trust. A request comes with a pidfd; the service looks at that
// process's user namespace, and records it only if the topmost one below its own belongs to the user at the other end of the
// socket. Such a user may ptrace the process, and whatever it forks: a recording tells them nothing that they could not
// have. The service opens no file and executes no program that a request names; what a user gets to read is written by
// their own hook.
package rootless

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/profile"
	"github.com/seccompgen/seccompgen/tracer"
)

// Socket is where the service listens unless it is told otherwise.
const Socket = "/run/seccompgen/rootless.sock"

// ErrNoService says that nobody listens.
var ErrNoService = errors.New("no service for rootless containers runs here")

const (
	version    = 1
	maxRequest = 64 << 10
	maxReply   = 64 << 20
)

// request is what a hook asks for, one to a connection. With "start" comes the pidfd of the container's init; after the
// recording that answers "collect" the hook says "kept".
type request struct {
	Version int    `json:"version"`
	Do      string `json:"do"` // start, collect or kept
	ID      string `json:"id,omitempty"`

	Denials         bool             `json:"denials,omitempty"`
	Filter          bool             `json:"filter,omitempty"`
	Runtime         profile.Runtime  `json:"runtime,omitzero"`
	NoNewPrivileges bool             `json:"noNewPrivileges,omitempty"`
	Capabilities    []string         `json:"capabilities,omitzero"`
	Workload        profile.Workload `json:"workload,omitzero"`
}

type reply struct {
	Error        string             `json:"error,omitempty"`
	NotRecording bool               `json:"notRecording,omitempty"` // the error is tracer.ErrNotRecording
	Full         bool               `json:"full,omitempty"`         // tracer.ErrFull
	Recording    *profile.Recording `json:"recording,omitempty"`
}

// Client speaks with the service.
type Client struct{ Socket string }

// Start is [tracer.Start] of a process of the caller's own. Of the options it passes on what the kernel and a reader need;
// the runtime must be a name, not a path.
func (c *Client) Start(id string, pid int, o tracer.Options) error {
	conn, err := c.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("open process %d of the container: %w", pid, err)
	}
	defer func() { _ = unix.Close(fd) }()
	_, err = call(conn, request{
		Do: "start", ID: id, Denials: o.Denials, Filter: o.Filter, Runtime: o.Header.Runtime, NoNewPrivileges: o.Header.NoNewPrivileges, Capabilities: o.Header.Capabilities, Workload: o.Header.Workload,
	}, unix.UnixRights(fd))
	return err
}

// Collect is [tracer.Collect] of a recording of the caller's own.
func (c *Client) Collect(id string, keep func(*profile.Recording) error) error {
	conn, err := c.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	r, err := call(conn, request{Do: "collect", ID: id}, nil)
	if err != nil {
		return err
	}
	if r == nil {
		return errors.New("service for rootless containers: it sent no recording")
	}
	if err := keep(r); err != nil {
		return err
	}
	_, err = call(conn, request{Do: "kept"}, nil)
	return err
}

func (c *Client) dial() (*net.UnixConn, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: c.Socket, Net: "unix"})
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ECONNREFUSED):
		return nil, fmt.Errorf("%w (%s)", ErrNoService, c.Socket)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("service for rootless containers: this user may not use it: %w: its group may", err)
	case err != nil:
		return nil, fmt.Errorf("service for rootless containers: %w", err)
	}
	return conn, conn.SetDeadline(time.Now().Add(40 * time.Second))
}

// call sends a request and reads its answer.
func call(conn *net.UnixConn, r request, rights []byte) (*profile.Recording, error) {
	r.Version = version
	data, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode the request: %w", err)
	}
	if len(data) >= maxRequest {
		return nil, fmt.Errorf("service for rootless containers: what the container says of itself takes %d bytes, %d are possible", len(data), maxRequest-1)
	}
	_, _, writeErr := conn.WriteMsgUnix(append(data, '\n'), rights, nil) // who is refused before hears why below
	var answer reply
	if err := json.NewDecoder(io.LimitReader(conn, maxReply)).Decode(&answer); err != nil {
		return nil, fmt.Errorf("service for rootless containers: %w", errors.Join(writeErr, err))
	}
	switch {
	case answer.NotRecording:
		return nil, fmt.Errorf("%w (service for rootless containers)", tracer.ErrNotRecording)
	case answer.Full:
		return nil, fmt.Errorf("%w: %s", tracer.ErrFull, answer.Error)
	case answer.Error != "":
		return nil, fmt.Errorf("service for rootless containers: %s", answer.Error)
	}
	return answer.Recording, nil
}

// Home returns the home directory of the user whose user namespace this process is in.
func Home() (string, error) {
	uid, err := outerUID("/proc/self/uid_map")
	if err != nil {
		return "", err
	}
	return homeOf(uid, "/etc/passwd")
}

// outerUID returns what the root of this user namespace is outside.
func outerUID(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read the user namespace: %w", err)
	}
	var inner, outer string
	if _, err := fmt.Sscan(string(data), &inner, &outer); err != nil || inner != "0" {
		return "", fmt.Errorf("user namespace maps no root: %q", data)
	}
	return outer, nil
}
