package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// An auditor hears the kernel's audit records without an audit daemon: a second witness of what a container under
// SCMP_ACT_LOG calls, which shares nothing with the recorder.
type auditor struct{ fd int }

// auditRecord is one record of type AUDIT_SECCOMP.
type auditRecord struct {
	pid  int // the process's, in the host's pid namespace
	exe  string
	arch string
	nr   uint32
}

const (
	auditSeccomp = 1326
	auditUserAVC = 1107 // of the records that user space may send, the one that the kernel passes on with auditing off
	auditGet     = 1000
)

func newAuditor(t testing.TB) *auditor {
	t.Helper()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_AUDIT)
	if err != nil {
		t.Skipf("SKIPPED: no audit socket: %v", err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	const readLog = 1 // AUDIT_NLGRP_READLOG
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: readLog}); err != nil {
		t.Skipf("SKIPPED: the audit records cannot be heard: %v", err)
	}
	timeout := unix.Timeval{Sec: 20}
	err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20), unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout))
	if err != nil {
		t.Fatal(err)
	}
	return &auditor{fd}
}

// drain returns the records that came so far. A record of our own, which queues behind them, marks the end.
func (a *auditor) drain(t testing.TB) []auditRecord {
	t.Helper()
	mark := fmt.Sprintf("seccompgen-e2e-%d-%d", os.Getpid(), time.Now().UnixNano())
	request(t, auditUserAVC, mark, false)
	var records []auditRecord
	buf := make([]byte, 1<<16)
	for {
		n, _, err := unix.Recvfrom(a.fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil { // ENOBUFS: records were lost; EAGAIN: the mark never came
			t.Fatalf("read the audit records: %v", err)
		}
		if n < unix.NLMSG_HDRLEN {
			continue
		}
		// The length in the header is not aligned as netlink demands: each datagram is one record.
		typ, text := binary.NativeEndian.Uint16(buf[4:]), string(buf[unix.NLMSG_HDRLEN:n])
		switch {
		case typ == auditUserAVC && regexp.MustCompile(mark).MatchString(text):
			return records
		case typ == auditSeccomp:
			records = append(records, parseAudit(t, text))
		}
	}
}

var auditField = regexp.MustCompile(`\b(pid|exe|arch|syscall)=("[^"]*"|\S+)`)

func parseAudit(t testing.TB, text string) auditRecord {
	t.Helper()
	r := auditRecord{}
	var errs [2]error
	for _, m := range auditField.FindAllStringSubmatch(text, -1) {
		switch m[1] {
		case "pid":
			r.pid, errs[0] = strconv.Atoi(m[2])
		case "exe":
			if exe, err := strconv.Unquote(m[2]); err == nil { // else it is in hexadecimal: none of ours
				r.exe = exe
			}
		case "arch":
			r.arch = m[2]
		case "syscall":
			var nr uint64
			nr, errs[1] = strconv.ParseUint(m[2], 10, 32)
			r.nr = uint32(nr)
		}
	}
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatalf("audit record %q: %v", text, err)
	}
	return r
}

// request sends a request to the kernel's audit system, and returns the answer if there is one.
func request(t testing.TB, typ uint16, payload string, answered bool) []byte {
	t.Helper()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_AUDIT)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	m := make([]byte, unix.NLMSG_HDRLEN, unix.NLMSG_HDRLEN+len(payload)+1)
	m = append(append(m, payload...), 0)
	binary.NativeEndian.PutUint32(m, uint32(len(m)))
	binary.NativeEndian.PutUint16(m[4:], typ)
	binary.NativeEndian.PutUint16(m[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	if err := unix.Sendto(fd, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		t.Fatalf("send audit request %d: %v", typ, err)
	}
	buf := make([]byte, 1<<13)
	for { // the acknowledgement comes before an answer
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			t.Fatalf("answer to audit request %d: %v", typ, err)
		}
		if binary.NativeEndian.Uint16(buf[4:]) != unix.NLMSG_ERROR {
			return buf[:n]
		}
		if errno := -int32(binary.NativeEndian.Uint32(buf[unix.NLMSG_HDRLEN:])); errno != 0 {
			t.Fatalf("audit request %d: %v", typ, unix.Errno(errno))
		}
		if !answered {
			return nil
		}
	}
}

// lost is how many records the kernel has thrown away since it started.
func lost(t testing.TB) uint32 {
	t.Helper()
	answer := request(t, auditGet, "", true)
	const at = unix.NLMSG_HDRLEN + 6*4 // struct audit_status: mask enabled failure pid rate_limit backlog_limit lost
	return binary.NativeEndian.Uint32(answer[at:])
}
