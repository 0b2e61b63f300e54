package profile

import (
	"maps"
	"slices"
)

// This file is data: with which other arguments the same code makes a call on another host, where a kernel, a setting, the
// network or the terminal is not as it was where it was seen. The robust policy adds them, each with its source. For
// calls whose other arguments are not known at all, argumentKnowledge says what becomes of the condition.

// value is what stays of the arguments of a call under its masks.
type value = [6]uint32

// Values of include/uapi/linux that stand in the table more than once.
const (
	inet, inet6, netlink     = 2, 10, 16
	stream, dgram, raw       = 1, 2, 3
	mptcp                    = 262
	solIP, solSocket, solTCP = 0, 1, 6
	solIPv6                  = 41
)

// fallback is one row: the calls, made with any of some values, are made with others elsewhere.
type fallback struct {
	calls  []string
	code   code    // whose code does so
	seen   []value // any of these; nil: whatever was seen
	with   string  // another call that must be allowed for it to make sense; empty: none
	add    []value
	text   string
	source string
}

var (
	tcp      = []value{{inet, stream, 0}, {inet6, stream, 0}}
	tcpMulti = []value{{inet, stream, mptcp}, {inet6, stream, mptcp}}
	anyTCP   = []value{{inet, stream, 0}, {inet6, stream, 0}, {inet, stream, 6}, {inet6, stream, 6}, {inet, stream, mptcp}, {inet6, stream, mptcp}}
	udp      = []value{{inet, dgram, 0}, {inet6, dgram, 0}}
	reuse    = []value{{0, solSocket, 2}}
	v6only   = []value{{0, solIPv6, 26}}
	goNet    = []value{{0, solSocket, 2}, {0, solSocket, 6}, {0, solSocket, 9}, {0, solTCP, 1}, {0, solTCP, 4}, {0, solTCP, 5}, {0, solTCP, 6}, {0, solIPv6, 26}}
	terminal = seconds(0x5401, 0x5402, 0x5403, 0x5404, 0x802c542a, 0x402c542b, 0x402c542c, 0x402c542d, 0x5413) // TCGETS, TCSETS*, TCGETS2, TCSETS*2, TIOCGWINSZ
	fcntls   = []string{"fcntl", "fcntl64"}
)

// seconds makes values of a call of which only the second argument counts.
func seconds(all ...uint32) []value {
	var values []value
	for _, v := range all {
		values = append(values, value{0, v})
	}
	return values
}

var fallbacks = []fallback{
	{
		[]string{"socket"},
		anyCode, tcpMulti, "", tcp, "TCP, where Multipath TCP is off or the kernel older than 5.6",
		"Go 1.26 net/mptcpsock_linux.go (dialMPTCP, listenMPTCP)",
	},
	{
		[]string{"socket"},
		goCode, tcp, "", tcpMulti, "Multipath TCP, with which Go 1.24 and later listen where it is on",
		"Go 1.26 net/dial.go (multipathtcp), mptcpsock_linux.go (initMPTCPavailable, listenMPTCP)",
	},
	{
		[]string{"socket"},
		anyCode, udp, "connect", tcp, "a name server is asked by TCP after an answer that UDP cut short",
		"Go 1.26 net/dnsclient_unix.go (exchange); glibc resolv/res_send.c (__libc_res_nsend, send_vc)",
	},
	{
		[]string{"socket"},
		anyCode, anyTCP, "connect", udp, "a name server is asked, and a name's several addresses are sorted, by UDP",
		"Go 1.26 net/addrselect.go (srcAddrs), dnsclient_unix.go (exchange); glibc nss/getaddrinfo.c (getaddrinfo), resolv/res_send.c (reopen)",
	},
	{
		[]string{"socket"},
		cCode, udp, "connect",
		[]value{{netlink, raw, 0}},
		"getaddrinfo asks for the host's addresses once a name has several",
		"glibc nss/getaddrinfo.c (getaddrinfo), sysdeps/unix/sysv/linux/check_pf.c (__check_pf)",
	},
	{
		[]string{"setsockopt"},
		goCode, goNet, "", goNet, "what package net sets on its sockets by default, by kind and version of IP",
		"Go 1.26 net/sockopt_linux.go (setDefaultSockopts), ipsock_posix.go (probe), tcpsock.go (newTCPConn), tcpsockopt_unix.go, tcpsockopt_posix.go, sockopt_posix.go (setKeepAlive)",
	},
	{
		[]string{"setsockopt"},
		anyCode, reuse, "bind", v6only, "servers keep IPv4 off their IPv6 sockets, where there is IPv6",
		"libuv src/unix/tcp.c (uv__tcp_bind); Go 1.26 net/sockopt_linux.go (setDefaultSockopts)",
	},
	{
		[]string{"setsockopt"},
		anyCode,
		[]value{{0, solSocket, 8}},
		"",
		[]value{{0, solSocket, 33}},
		"the larger buffer, where net.core.rmem_max is too small",
		"quic-go sys_conn_buffers.go (setReceiveBuffer)",
	},
	{
		[]string{"setsockopt"},
		anyCode,
		[]value{{0, solSocket, 7}},
		"",
		[]value{{0, solSocket, 32}},
		"the larger buffer, where net.core.wmem_max is too small",
		"quic-go sys_conn_buffers_write.go (setSendBuffer)",
	},
	{
		[]string{"setsockopt"},
		anyCode,
		[]value{{0, solSocket, 33}},
		"",
		[]value{{0, solSocket, 8}},
		"the plain option, without CAP_NET_ADMIN",
		"mdlayher/socket 0.5.1 setbuffer_linux.go (setReadBuffer)",
	},
	{
		[]string{"setsockopt"},
		anyCode,
		[]value{{0, solSocket, 32}},
		"",
		[]value{{0, solSocket, 7}},
		"the plain option, without CAP_NET_ADMIN",
		"mdlayher/socket 0.5.1 setbuffer_linux.go (setWriteBuffer)",
	},

	{
		fcntls, anyCode, seconds(1030), "", seconds(0, 2), "duplicates first and sets the flag after, where the kernel refuses both at once",
		"musl src/fcntl/fcntl.c (fcntl); Go 1.26 internal/poll/fd_unixjs.go (dupCloseOnExecOld)",
	},
	{
		fcntls, anyCode, seconds(1), "", seconds(2), "a file's flag is read, and set only if it is not as wanted; whoever started the program made it so",
		"systemd src/basic/fd-util.c (fd_cloexec)",
	},
	{
		fcntls, anyCode, seconds(3), "", seconds(4), "a file is made non-blocking, or blocking, only if it is not so already",
		"Go 1.26 syscall/exec_unix.go (SetNonblock); systemd src/basic/fd-util.c (fd_nonblock)",
	},
	{
		fcntls, anyCode, seconds(36, 37, 38), "", seconds(5, 6, 37), "locks of processes, where there are none of open files",
		"QEMU util/osdep.c (qemu_probe_lock_ops)",
	},
	{
		fcntls, anyCode, seconds(6), "", seconds(5), "whether another process holds a lock is asked, where one left its work half done",
		"SQLite src/os_unix.c (unixCheckReservedLock)",
	},
	{
		fcntls, anyCode, seconds(1034), "", seconds(1033), "a program that is not sealed runs a copy of itself that is",
		"runc 1.5.2 libcontainer/exeseal/cloned_binary_linux.go (IsCloned)",
	},

	{
		[]string{"ioctl"},
		anyCode, terminal, "", terminal, "a terminal was asked for, and more of it where there is one; not TIOCSTI, which types into it",
		"glibc sysdeps/unix/sysv/linux/isatty.c, tcgetattr.c, tcsetattr.c; musl src/unistd/isatty.c; golang.org/x/term 0.47.0 term_unix.go",
	},

	{
		[]string{"prctl"},
		cCode,
		[]value{{24}},
		"",
		[]value{{23}},
		"which capabilities a process may get is asked so, where there is no /proc",
		"libcap-ng src/cap-ng.c (get_bounding_set)",
	},
	{
		[]string{"seccomp"},
		anyCode,
		[]value{{0}, {1}, {2}, {3}},
		"",
		[]value{{0}, {1}, {2}, {3}},
		"what the kernel can do is found out by trying",
		"libseccomp src/system.c (sys_chk_seccomp_syscall, sys_chk_seccomp_flag, sys_chk_seccomp_action, sys_notify_alloc)",
	},
	{
		[]string{"personality"},
		anyCode, nil, "",
		[]value{{0}, {8}, {0x20000}, {0x20008}, {0xffffffff}},
		"what else it sets is not known: no more than these are open in Docker's default",
		"github.com/moby/profiles/seccomp default_linux.go",
	},

	{
		[]string{"madvise"},
		anyCode,
		[]value{{0, 0, 4}, {0, 0, 8}, {0, 0, 14}, {0, 0, 15}, {0, 0, 25}},
		"",
		[]value{{0, 0, 4}, {0, 0, 8}, {0, 0, 14}, {0, 0, 15}},
		"memory is given back and huge pages are asked for by what the kernel has and the host sets",
		"Go 1.26 runtime/mem_linux.go (sysUnusedOS, sysHugePageOS, sysNoHugePageOS); jemalloc src/pages.c (pages_boot, pages_set_thp_state)",
	},
	{
		[]string{"madvise"},
		cCode,
		[]value{{0, 0, 102}},
		"",
		[]value{{0, 0, 103}},
		"a stack that is used again gets a smaller guard, and which one that is, is up to the order of threads",
		"glibc nptl/allocatestack.c (adjust_stack_prot)",
	},
}

// otherIP are the options of IPv4 and those of IPv6 that do the same: which version of IP a program uses is up to the
// host's network and to the answers of name servers. Source: include/uapi/linux/in.h and in6.h; golang.org/x/net 0.62.0
// ipv4/sys_linux.go and ipv6/sys_linux.go.
var otherIP = [][2]uint32{
	{1, 67},  // IP_TOS, IPV6_TCLASS
	{2, 16},  // IP_TTL, IPV6_UNICAST_HOPS
	{8, 49},  // IP_PKTINFO, IPV6_RECVPKTINFO
	{10, 23}, // MTU_DISCOVER
	{11, 25}, // RECVERR
	{12, 51}, // IP_RECVTTL, IPV6_RECVHOPLIMIT
	{13, 66}, // IP_RECVTOS, IPV6_RECVTCLASS
	{15, 78}, // FREEBIND
	{19, 75}, // TRANSPARENT
	{20, 74}, // RECVORIGDSTADDR
	{32, 17}, // MULTICAST_IF
	{33, 18}, // IP_MULTICAST_TTL, IPV6_MULTICAST_HOPS
	{34, 19}, // MULTICAST_LOOP
	{35, 20}, // IP_ADD_MEMBERSHIP, IPV6_JOIN_GROUP
	{36, 21}, // IP_DROP_MEMBERSHIP, IPV6_LEAVE_GROUP
	{42, 42}, // MCAST_JOIN_GROUP
	{45, 45}, // MCAST_LEAVE_GROUP
	{46, 46}, // MCAST_JOIN_SOURCE_GROUP
	{47, 47}, // MCAST_LEAVE_SOURCE_GROUP
	{50, 76}, // UNICAST_IF
}

// flipIP returns the value that does the same for the other version of IP.
func flipIP(call string, v value) (value, bool) {
	switch {
	case call == "socket" && (v[0] == inet || v[0] == inet6):
		v[0] = inet + inet6 - v[0]
		switch { // ICMP has a number for each
		case v[0] == inet6 && v[2] == 1:
			v[2] = 58
		case v[0] == inet && v[2] == 58:
			v[2] = 1
		}
		return v, true
	case call == "setsockopt" && (v[1] == solIP || v[1] == solIPv6):
		from := v[1]
		for _, pair := range otherIP {
			if from == solIP && pair[0] == v[2] {
				return value{0, solIPv6, pair[1]}, true
			}
			if from == solIPv6 && pair[1] == v[2] {
				return value{0, solIP, pair[0]}, true
			}
		}
	}
	return v, false
}

// argumentKnowledge says of every call with conditions why these hold elsewhere too. Where a value is seen of which known
// says no, nobody has looked at what its code does elsewhere, and the call is allowed with any arguments, as Docker's
// default allows it; ioctl with all requests but terminals'. Calls that Docker's default does not allow so are never opened.
var argumentKnowledge = []struct {
	calls []string
	known func(value) bool // nil: all values
	why   string
}{
	{[]string{"socket", "socketpair"}, nil, "who calls names the family; only versions of IP stand in for each other, and what resolvers open is listed"},
	{[]string{"setsockopt"}, func(v value) bool {
		return slices.Contains([]uint32{solIP, solSocket, solTCP, 17, solIPv6, 270}, v[1]) // and IPPROTO_UDP, SOL_NETLINK
	}, "options of sockets, IP, TCP, UDP and netlink are asked for one by one, and refused ones are done without"},
	{[]string{"clone"}, nil, "nothing falls back on another namespace; flags outside the mask are free, CLONE_PIDFD too; CLONE_NEWTIME no clone can take (include/uapi/linux/sched.h)"},
	{[]string{"unshare", "setns", "bpf", "keyctl"}, nil, "not known, and Docker's default allows none of them without a capability: those seen, and no more"},
	{[]string{"personality"}, nil, "not known: Docker's default has five, and these are added"},
	{[]string{"prctl"}, func(v value) bool { return argumentNames["option"][v[0]] != "" || v[0] == 0x59616d61 }, "the options that have a name here stand for themselves (and PR_SET_PTRACER, which Yama takes)"},
	{
		[]string{"ioctl"},
		func(v value) bool { return v[1]&requestType == terminalType || argumentNames["request"][v[1]] != "" },
		"a terminal's requests stand for themselves, so that TIOCSTI, which types, and TIOCLINUX, which pastes, stay closed; a driver's are up to the driver, and one opens all that are not a terminal's",
	},
	{fcntls, func(v value) bool { return argumentNames["command"][v[1]] != "" }, "the commands that have a name here"},
	{[]string{"seccomp"}, func(v value) bool { return v[0] <= 3 }, "the operations of include/uapi/linux/seccomp.h"},
	{[]string{"madvise"}, func(v value) bool {
		return argumentNames["advice"][v[2]] != "" || slices.Contains([]uint32{16, 17, 102, 103}, v[2]) // DONTDUMP, DODUMP, GUARD_INSTALL, GUARD_REMOVE
	}, "the advice of allocators and of threads' stacks"},
	{[]string{"mmap", "mmap2", "mprotect", "pkey_mprotect"}, nil, "whether memory is executable is up to the program's files and to its compiler, not to the host"},
}

// addFallbacks adds what the same code asks on other hosts. with reports whether another call is allowed.
func (c *condition) addFallbacks(call string, by code, with func(string) bool) {
	if by == 0 {
		by = anyCode
	}
	for _, k := range argumentKnowledge {
		if !slices.Contains(k.calls, call) || k.known == nil {
			continue
		}
		for v, why := range c.values {
			switch {
			case why != seen || k.known(v):
			case call == "ioctl":
				c.drivers = true
			default:
				c.widen("what its caller asks on other hosts is not known")
			}
		}
	}
	before := maps.Clone(c.values)
	for _, row := range fallbacks {
		if !slices.Contains(row.calls, call) || row.code&by == 0 || row.with != "" && !with(row.with) {
			continue
		}
		if row.seen == nil && len(before) > 0 || slices.ContainsFunc(row.seen, func(v value) bool { return before[v] != "" }) {
			for _, v := range row.add {
				c.add(v, row.text+": "+row.source)
			}
		}
	}
	for v := range maps.Clone(c.values) {
		if other, ok := flipIP(call, v); ok {
			c.add(other, "the other version of IP, which the network decides on (include/uapi/linux/in.h, in6.h)")
		}
	}
}
