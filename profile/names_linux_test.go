package profile

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestNewerNamesAreTheKernels(t *testing.T) {
	for nr, name := range map[uint32]string{unix.SYS_FILE_GETATTR: "file_getattr", unix.SYS_FILE_SETATTR: "file_setattr", unix.SYS_LISTNS: "listns", unix.SYS_RSEQ_SLICE_YIELD: "rseq_slice_yield"} {
		for _, abi := range ABIs() {
			if got := Name(abi, nr); got != name {
				t.Errorf("%s %d is %q, want %q", abi, nr, got, name)
			}
			if got, ok := Number(abi, name); !ok || got != nr {
				t.Errorf("%s %s is %d, want %d", abi, name, got, nr)
			}
		}
	}
}

func TestArgumentNamesAreTheKernels(t *testing.T) {
	kernel := map[string]uint32{
		"AF_UNIX":                unix.AF_UNIX,
		"AF_INET":                unix.AF_INET,
		"AF_INET6":               unix.AF_INET6,
		"AF_NETLINK":             unix.AF_NETLINK,
		"AF_PACKET":              unix.AF_PACKET,
		"AF_ALG":                 unix.AF_ALG,
		"AF_VSOCK":               unix.AF_VSOCK,
		"SOCK_STREAM":            unix.SOCK_STREAM,
		"SOCK_DGRAM":             unix.SOCK_DGRAM,
		"SOCK_RAW":               unix.SOCK_RAW,
		"SOCK_SEQPACKET":         unix.SOCK_SEQPACKET,
		"IPPROTO_TCP":            unix.IPPROTO_TCP,
		"IPPROTO_UDP":            unix.IPPROTO_UDP,
		"IPPROTO_MPTCP":          unix.IPPROTO_MPTCP,
		"IPPROTO_IP":             unix.IPPROTO_IP,
		"SOL_SOCKET":             unix.SOL_SOCKET,
		"IPPROTO_IPV6":           unix.IPPROTO_IPV6,
		"F_DUPFD":                unix.F_DUPFD,
		"F_GETFD":                unix.F_GETFD,
		"F_SETFD":                unix.F_SETFD,
		"F_GETFL":                unix.F_GETFL,
		"F_SETFL":                unix.F_SETFL,
		"F_GETLK":                unix.F_GETLK,
		"F_SETLK":                unix.F_SETLK,
		"F_SETLKW":               unix.F_SETLKW,
		"F_OFD_GETLK":            unix.F_OFD_GETLK,
		"F_OFD_SETLK":            unix.F_OFD_SETLK,
		"F_OFD_SETLKW":           unix.F_OFD_SETLKW,
		"F_DUPFD_CLOEXEC":        unix.F_DUPFD_CLOEXEC,
		"F_SETPIPE_SZ":           unix.F_SETPIPE_SZ,
		"F_GETPIPE_SZ":           unix.F_GETPIPE_SZ,
		"F_ADD_SEALS":            unix.F_ADD_SEALS,
		"F_GET_SEALS":            unix.F_GET_SEALS,
		"MADV_DONTNEED":          unix.MADV_DONTNEED,
		"MADV_FREE":              unix.MADV_FREE,
		"MADV_HUGEPAGE":          unix.MADV_HUGEPAGE,
		"MADV_NOHUGEPAGE":        unix.MADV_NOHUGEPAGE,
		"MADV_COLLAPSE":          unix.MADV_COLLAPSE,
		"PR_SET_PDEATHSIG":       unix.PR_SET_PDEATHSIG,
		"PR_GET_DUMPABLE":        unix.PR_GET_DUMPABLE,
		"PR_SET_DUMPABLE":        unix.PR_SET_DUMPABLE,
		"PR_SET_KEEPCAPS":        unix.PR_SET_KEEPCAPS,
		"PR_SET_NAME":            unix.PR_SET_NAME,
		"PR_GET_NAME":            unix.PR_GET_NAME,
		"PR_SET_SECCOMP":         unix.PR_SET_SECCOMP,
		"PR_CAPBSET_READ":        unix.PR_CAPBSET_READ,
		"PR_CAPBSET_DROP":        unix.PR_CAPBSET_DROP,
		"PR_SET_CHILD_SUBREAPER": unix.PR_SET_CHILD_SUBREAPER,
		"PR_SET_NO_NEW_PRIVS":    unix.PR_SET_NO_NEW_PRIVS,
		"PR_GET_NO_NEW_PRIVS":    unix.PR_GET_NO_NEW_PRIVS,
		"PR_CAP_AMBIENT":         unix.PR_CAP_AMBIENT,
		"PR_SET_VMA":             unix.PR_SET_VMA,
		"TCGETS":                 unix.TCGETS,
		"TCSETS":                 unix.TCSETS,
		"TIOCGPGRP":              unix.TIOCGPGRP,
		"TIOCSPGRP":              unix.TIOCSPGRP,
		"TIOCGWINSZ":             unix.TIOCGWINSZ,
		"TIOCSWINSZ":             unix.TIOCSWINSZ,
		"FIONREAD":               unix.TIOCINQ,
		"TIOCSCTTY":              unix.TIOCSCTTY,
		"TIOCGPTN":               unix.TIOCGPTN,
		"TIOCSPTLCK":             unix.TIOCSPTLCK,
		"FICLONE":                unix.FICLONE,
	}
	for label, values := range argumentNames {
		for v, name := range values {
			if want, ok := kernel[name]; !ok || want != v {
				t.Errorf("%s %s is %#x, not %#x", label, name, want, v)
			}
		}
	}
	for _, row := range argumentRows {
		if len(row.labels) != len(row.masks) {
			t.Errorf("%v: %d masks and %d labels", row.names, len(row.masks), len(row.labels))
		}
		for _, name := range row.names {
			if !existsSomewhere(name) {
				t.Errorf("no ABI has a call %q", name)
			}
		}
	}
}
