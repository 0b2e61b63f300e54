package rootless

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/internal/annotation"
	"github.com/seccompgen/seccompgen/profile"
	"github.com/seccompgen/seccompgen/tracer"
)

// The limits of a user, and of all users together: half of what the recorder has room for stays root's.
const (
	userRecordings = 64
	allRecordings  = 256
	userCalls      = 16 // connections at a time
	allCalls       = 256
)

// staleAfter is when a container that was made and never started is given up.
const staleAfter = time.Minute

// patience is how long a hook may take for what it sends and keeps.
const patience = 30 * time.Second

// Service records for users.
type Service struct {
	log    *slog.Logger
	tracer tracer.Recorder

	starts sync.Mutex // the number of recordings does not change between a look and a start
	mu     sync.Mutex
	calls  map[uint32]int // under way, by user
}

// New makes a service that records on this host.
func New(log *slog.Logger) *Service {
	return &Service{log: log, tracer: tracer.Host{}, calls: map[uint32]int{}}
}

// Listen opens the socket for a group, or for all users where gid is -1. Nobody else's socket is removed.
func Listen(path string, gid int) (*net.UnixListener, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the socket's directory: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil || st.Uid != 0 || st.Mode&0o022 != 0 {
		return nil, fmt.Errorf("the socket's directory %s may be changed by others than root (%w)", dir, errors.Join(err, unix.EPERM))
	}
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return nil, fmt.Errorf("listen on %s: another service does", path)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == os.ModeSocket { // of one that died
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("listen on %s: %w", path, err)
		}
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	mode := os.FileMode(0o660)
	if gid < 0 {
		mode, gid = 0o666, 0
	}
	if err := errors.Join(os.Chown(path, 0, gid), os.Chmod(path, mode)); err != nil {
		l.Close()
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return l, nil
}

// Serve answers hooks until the context ends, and those that it has begun to answer.
func (s *Service) Serve(ctx context.Context, l *net.UnixListener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var group sync.WaitGroup
	defer group.Wait()
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept: %w", err)
		}
		_ = conn.SetDeadline(time.Now().Add(patience)) // fails on a closed one only
		uid, err := peer(conn)
		if err == nil {
			err = s.enter(uid)
		}
		if err != nil {
			_ = send(conn, nil, err) // into an empty buffer: it does not wait
			conn.Close()
			continue
		}
		group.Go(func() {
			defer s.leave(uid)
			defer conn.Close()
			s.answer(conn, uid)
		})
	}
}

func (s *Service) answer(conn *net.UnixConn, uid uint32) {
	r, fds, err := receive(conn)
	defer closeAll(fds)
	if err == nil {
		err = s.do(conn, uid, r, fds)
	}
	if err != nil {
		s.log.Warn("refused", "user", uid, "do", r.Do, "container", r.ID, "error", err)
		_ = send(conn, nil, err) // the hook may be gone
		return
	}
	s.log.Info("done", "user", uid, "do", r.Do, "container", r.ID)
}

func (s *Service) enter(uid uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := 0
	for _, n := range s.calls {
		all += n
	}
	if s.calls[uid] >= userCalls || all >= allCalls {
		return fmt.Errorf("%d requests of user %d and %d of all users are under way", s.calls[uid], uid, all)
	}
	s.calls[uid]++
	return nil
}

func (s *Service) leave(uid uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls[uid]--; s.calls[uid] == 0 {
		delete(s.calls, uid)
	}
}

func (s *Service) do(conn *net.UnixConn, uid uint32, r *request, fds []int) error {
	if !annotation.IsID(r.ID) {
		return fmt.Errorf("container id %.64q is not one", r.ID)
	}
	switch {
	case r.Do == "start" && len(fds) == 1:
		if err := s.start(uid, r, fds[0]); err != nil {
			return err
		}
		return send(conn, nil, nil)
	case r.Do == "collect" && len(fds) == 0:
		return s.collect(conn, uid, r.ID)
	}
	return fmt.Errorf("request %.20q with %d descriptors is not known", r.Do, len(fds))
}

// start arms the recorder for the process behind a pidfd.
func (s *Service) start(uid uint32, r *request, pidfd int) error {
	// The name goes into the recording, for people; a hook of root's would ask a path for its version.
	if !annotation.IsName(r.Runtime.Name, 64, "_.-") {
		return fmt.Errorf("runtime %.64q is not a name", r.Runtime.Name)
	}
	pid, err := pidOf(pidfd)
	if err != nil {
		return err
	}
	if err := ownedBy(pid, uid); err != nil {
		return fmt.Errorf("process %d: %w", pid, err)
	}
	s.starts.Lock()
	defer s.starts.Unlock()
	if err := s.room(uid); err != nil {
		return err
	}
	id := ours(uid, r.ID)
	err = s.tracer.Start(id, pid, tracer.Options{
		Denials: r.Denials,
		Filter:  r.Filter,
		Hook:    json.RawMessage(`{"annotations":{"dev.seccompgen.record":"true"}}`), // status --collect writes it for root
		Header: profile.Recording{
			Runtime: r.Runtime, NoNewPrivileges: r.NoNewPrivileges, Capabilities: r.Capabilities, Workload: r.Workload,
		},
	})
	if err != nil {
		return err
	}
	// As long as the pidfd's process lives its number is no other's: what was armed is what was looked at.
	if err := unix.PidfdSendSignal(pidfd, 0, nil, 0); err != nil {
		return errors.Join(fmt.Errorf("process %d of the container has ended: %w", pid, err), s.tracer.Abort(id))
	}
	return nil
}

// room refuses a recording more than the limits, and forgets containers that were never started.
func (s *Service) room(uid uint32) error {
	list, err := s.tracer.List()
	if err != nil {
		return err
	}
	mine, all := 0, 0
	for _, r := range list {
		owner, _, ok := strings.Cut(r.ID, separator)
		if !ok {
			continue
		}
		if r.Stale(staleAfter) {
			if err := s.tracer.Abort(r.ID); err != nil && !errors.Is(err, tracer.ErrNotRecording) {
				return err
			}
			s.log.Warn("never started", "container", r.ID)
			continue
		}
		all++
		if owner == strconv.FormatUint(uint64(uid), 10) {
			mine++
		}
	}
	if mine >= userRecordings || all >= allRecordings {
		return fmt.Errorf("%w for rootless containers: %d of user %d and %d of all users are under way", tracer.ErrFull, mine, uid, all)
	}
	return nil
}

// collect sends a recording, and forgets it once the hook has kept it. The lock of the recorder, which all hooks of the host
// share, is not held while a user takes time.
func (s *Service) collect(conn *net.UnixConn, uid uint32, id string) error {
	r, err := s.settled(ours(uid, id))
	if err != nil {
		return err
	}
	r.ID, r.Runs[0].ID = id, id
	for i := range r.Syscalls {
		c := &r.Syscalls[i]
		c.Runs = []string{id}
		if c.Phase == profile.PhaseExec { // whoever joined may be another user, root too: what they called is enough
			c.Callers = nil
		}
	}
	for i, p := range r.Programs {
		if !strings.HasPrefix(p.Path, "/") { // of no place in the container: a file of whoever joined
			r.Programs[i].Path = ""
		}
	}
	if err := send(conn, r, nil); err != nil {
		return err
	}
	kept, fds, err := receive(conn)
	closeAll(fds)
	if err != nil || kept.Do != "kept" {
		return fmt.Errorf("recording was not kept, and stays (%w)", err)
	}
	if err := s.tracer.Abort(ours(uid, id)); err != nil {
		return err
	}
	return send(conn, nil, nil)
}

// settled returns the recording of a container whose tasks have gone; one that stays shows in it.
func (s *Service) settled(id string) (*profile.Recording, error) {
	for end := time.Now().Add(time.Second); ; time.Sleep(time.Millisecond) {
		r, err := s.tracer.Peek(id)
		if err != nil || r.Dropped[profile.DropAlive] == 0 || time.Now().After(end) {
			return r, err
		}
	}
}

// separator stands in no container's id: a user's recordings are no others'.
const separator = "@"

func ours(uid uint32, id string) string { return fmt.Sprint(uid, separator, id) }

// peer returns the user at the other end, as this user namespace has it.
func peer(conn *net.UnixConn) (uid uint32, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var inner error
	err = raw.Control(func(fd uintptr) { cred, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(err, inner); err != nil {
		return 0, err
	}
	return cred.Uid, nil
}

// receive reads one request and the descriptors that come with it. The request is never nil.
func receive(conn *net.UnixConn) (*request, []int, error) {
	r := &request{}
	var line []byte
	var fds []int
	buf, oob := make([]byte, maxRequest), make([]byte, unix.CmsgSpace(4*4))
	for !bytes.HasSuffix(line, []byte{'\n'}) {
		n, oobn, flags, _, err := conn.ReadMsgUnix(buf, oob)
		more, parseErr := rights(oob[:oobn])
		fds = append(fds, more...)
		line = append(line, buf[:n]...)
		switch {
		case err != nil:
			return r, fds, fmt.Errorf("read the request: %w", err)
		case parseErr != nil || flags&unix.MSG_CTRUNC != 0 || len(fds) > 1:
			return r, fds, errors.New("read the request: too many descriptors")
		case n == 0:
			return r, fds, fmt.Errorf("read the request: %w", io.ErrUnexpectedEOF)
		case len(line) > maxRequest:
			return r, fds, fmt.Errorf("request is larger than %d bytes", maxRequest)
		}
	}
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(r); err != nil {
		return &request{}, fds, fmt.Errorf("decode the request: %w", err)
	}
	if r.Version != version {
		return r, fds, fmt.Errorf("request has version %d, this service speaks version %d: hook and service must be of one release", r.Version, version)
	}
	return r, fds, nil
}

// rights returns the descriptors in a control message.
func rights(oob []byte) (fds []int, err error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	for i := range messages {
		got, parseErr := unix.ParseUnixRights(&messages[i])
		fds, err = append(fds, got...), errors.Join(err, parseErr)
	}
	return fds, err
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

func send(conn *net.UnixConn, r *profile.Recording, err error) error {
	answer := reply{Recording: r, NotRecording: errors.Is(err, tracer.ErrNotRecording), Full: errors.Is(err, tracer.ErrFull)}
	if err != nil {
		answer.Error = err.Error()
	}
	data, err := json.Marshal(answer)
	if err == nil {
		_, err = conn.Write(append(data, '\n'))
	}
	if err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	return nil
}

// pidOf returns the pid of the process behind a descriptor that must be a pidfd.
func pidOf(fd int) (int, error) {
	f, err := os.Open(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	if err != nil {
		return 0, fmt.Errorf("look at the pidfd: %w", err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if text, ok := strings.CutPrefix(s.Text(), "Pid:"); ok {
			if pid, err := strconv.Atoi(strings.TrimSpace(text)); err == nil && pid > 1 {
				return pid, nil
			}
			return 0, errors.New("process of the container has ended, or is in another pid namespace")
		}
	}
	return 0, errors.New("descriptor is not a pidfd")
}

// ownedBy reports by an error whether a process is in a user namespace that belongs to a user: the topmost below ours, which is the one
// that decides what its user may do to all processes in it and below.
func ownedBy(pid int, uid uint32) error {
	var own unix.Stat_t
	if err := unix.Stat("/proc/self/ns/user", &own); err != nil {
		return fmt.Errorf("look at the own user namespace: %w", err)
	}
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/user", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("look at its user namespace: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	for owner := int64(-1); ; {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return fmt.Errorf("look at its user namespace: %w", err)
		}
		if st.Ino == own.Ino && st.Dev == own.Dev {
			switch {
			case owner < 0:
				return errors.New("it is in no user namespace of its own: only rootless containers are recorded here")
			case owner != int64(uid):
				return fmt.Errorf("its user namespace belongs to user %d, not to %d", owner, uid)
			}
			return nil
		}
		u, err := unix.IoctlGetUint32(fd, unix.NS_GET_OWNER_UID)
		if err != nil {
			return fmt.Errorf("look at the owner of its user namespace: %w", err)
		}
		owner = int64(u)
		parent, err := unix.IoctlRetInt(fd, unix.NS_GET_PARENT)
		if err != nil {
			return fmt.Errorf("look at the parent of its user namespace: %w", err)
		}
		_ = unix.Close(fd)
		fd = parent
	}
}

// homeOf looks a user's home up in a file like /etc/passwd.
func homeOf(uid, passwd string) (string, error) {
	data, err := os.ReadFile(passwd)
	if err != nil {
		return "", fmt.Errorf("find the home of user %s: %w", uid, err)
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Split(strings.TrimSpace(line), ":"); len(f) == 7 && f[2] == uid && filepath.IsAbs(f[5]) {
			return f[5], nil
		}
	}
	return "", fmt.Errorf("user %s has no home in %s: say with --dir where recordings go", uid, passwd)
}
