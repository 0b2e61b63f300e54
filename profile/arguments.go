package profile

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// maxRules is how many rules a call may get. One that was seen with more different arguments is allowed with any.
const maxRules = 16

const (
	whole  = 1<<32 - 1        // an int, or a long of which the kernel ignores or refuses what is above
	noSock = whole &^ 0x80800 // without SOCK_CLOEXEC and SOCK_NONBLOCK, without which callers try again
	newNS  = 0x7e020000       // CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET (include/uapi/linux/sched.h)
	exec   = 4                // PROT_EXEC (include/uapi/asm-generic/mman-common.h)

	requestType  = 0xff00   // whose an ioctl request is (include/uapi/asm-generic/ioctl.h, _IOC_TYPE)
	terminalType = 'T' << 8 // include/uapi/asm-generic/ioctls.h
)

type argumentRow struct {
	names     []string
	masks     []uint32
	labels    []string
	goRuntime []uint32 // the Go runtime's own, of the only argument
	source    string
}

// argumentRows lists the calls whose scalar arguments decide what they open: which of their bits count, how they are called, and with
// which values the Go runtime makes the call without the program asking (Go 1.26, package runtime, in the files named).
// What a pointer leads to (clone3, i386's mmap and socketcall, io_uring's operations) no filter can see. The flags of accept4
// and memfd_create open nothing, and are free. Signals are not listed: a Go program
// raises whichever one it dies of (runtime.dieFromSignal), and passes on those that others choose.
var argumentRows = []argumentRow{
	{[]string{"socket", "socketpair"}, []uint32{whole, noSock, whole}, []string{"domain", "type", "protocol"}, nil, ""},
	{[]string{"setsockopt"}, []uint32{0, whole, whole}, []string{"", "level", "name"}, nil, ""},
	{[]string{"clone"}, []uint32{newNS}, []string{"new namespaces"}, []uint32{0}, "os_linux.go, cloneFlags"},
	{[]string{"unshare"}, []uint32{whole}, []string{"flags"}, nil, ""},
	{[]string{"setns"}, []uint32{0, whole}, []string{"", "type"}, nil, ""},
	{[]string{"prctl"}, []uint32{whole}, []string{"option"}, []uint32{0x53564d41}, "set_vma_name_linux.go, PR_SET_VMA"},
	{[]string{"personality"}, []uint32{whole}, []string{"persona"}, nil, ""},
	{[]string{"ioctl"}, []uint32{0, whole}, []string{"", "request"}, nil, ""},
	{[]string{"fcntl", "fcntl64"}, []uint32{0, whole}, []string{"", "command"}, []uint32{1}, "fds_unix.go, F_GETFD"},
	{[]string{"seccomp"}, []uint32{whole}, []string{"operation"}, nil, ""},
	{[]string{"bpf"}, []uint32{whole}, []string{"operation"}, nil, ""},
	{[]string{"keyctl"}, []uint32{whole}, []string{"operation"}, nil, ""},
	{[]string{"madvise"}, []uint32{0, 0, whole}, []string{"", "", "advice"}, []uint32{4, 8, 14, 15, 25}, "mem_linux.go, MADV_DONTNEED, FREE, HUGEPAGE, NOHUGEPAGE, COLLAPSE"},
	{[]string{"mmap", "mmap2", "mprotect", "pkey_mprotect"}, []uint32{0, 0, exec}, []string{"", "", "PROT_EXEC"}, []uint32{0}, "mem_linux.go, PROT_NONE and PROT_READ|PROT_WRITE"},
}

// argumentNames are the kernel's names for values (include/uapi/linux), by the label of the argument.
var argumentNames = map[string]map[uint32]string{
	"domain":   {1: "AF_UNIX", 2: "AF_INET", 10: "AF_INET6", 16: "AF_NETLINK", 17: "AF_PACKET", 38: "AF_ALG", 40: "AF_VSOCK"},
	"type":     {1: "SOCK_STREAM", 2: "SOCK_DGRAM", 3: "SOCK_RAW", 5: "SOCK_SEQPACKET"},
	"protocol": {6: "IPPROTO_TCP", 17: "IPPROTO_UDP", 262: "IPPROTO_MPTCP"},
	"level":    {0: "IPPROTO_IP", 1: "SOL_SOCKET", 6: "IPPROTO_TCP", 17: "IPPROTO_UDP", 41: "IPPROTO_IPV6"},
	"command": {
		0: "F_DUPFD", 1: "F_GETFD", 2: "F_SETFD", 3: "F_GETFL", 4: "F_SETFL", 5: "F_GETLK", 6: "F_SETLK", 7: "F_SETLKW", 36: "F_OFD_GETLK",
		37: "F_OFD_SETLK", 38: "F_OFD_SETLKW", 1030: "F_DUPFD_CLOEXEC", 1031: "F_SETPIPE_SZ", 1032: "F_GETPIPE_SZ", 1033: "F_ADD_SEALS", 1034: "F_GET_SEALS",
	},
	"advice": {4: "MADV_DONTNEED", 8: "MADV_FREE", 14: "MADV_HUGEPAGE", 15: "MADV_NOHUGEPAGE", 25: "MADV_COLLAPSE"},
	"option": {
		1: "PR_SET_PDEATHSIG", 3: "PR_GET_DUMPABLE", 4: "PR_SET_DUMPABLE", 8: "PR_SET_KEEPCAPS", 15: "PR_SET_NAME", 16: "PR_GET_NAME", 22: "PR_SET_SECCOMP",
		23: "PR_CAPBSET_READ", 24: "PR_CAPBSET_DROP", 36: "PR_SET_CHILD_SUBREAPER", 38: "PR_SET_NO_NEW_PRIVS", 39: "PR_GET_NO_NEW_PRIVS",
		47: "PR_CAP_AMBIENT", 0x53564d41: "PR_SET_VMA",
	},
	"request": {
		0x5401: "TCGETS", 0x5402: "TCSETS", 0x540f: "TIOCGPGRP", 0x5410: "TIOCSPGRP", 0x5413: "TIOCGWINSZ", 0x5414: "TIOCSWINSZ", 0x541b: "FIONREAD",
		0x540e: "TIOCSCTTY", 0x80045430: "TIOCGPTN", 0x40045431: "TIOCSPTLCK", 0x40049409: "FICLONE",
	},
}

// ArgumentMasks returns which bits of which arguments of a call are recorded and make conditions; nil if none do.
func ArgumentMasks(abi specs.Arch, nr uint32) []uint32 {
	name := Name(abi, nr)
	if name == "mmap" && (abi == specs.ArchX86 || abi == specs.ArchARM) {
		return nil // all arguments are behind a pointer
	}
	for _, row := range argumentRows {
		if slices.Contains(row.names, name) {
			return row.masks
		}
	}
	return nil
}

// Arguments are those that a call was seen with.
type Arguments struct {
	Masks  []uint32   `json:"masks"`          // the bits that were kept, from argument 0 on
	Values [][]uint32 `json:"values"`         // sorted, each once
	Full   bool       `json:"full,omitempty"` // there were more than could be kept: Values is empty
}

// NewArguments returns what was kept of a call under its masks.
func NewArguments(masks []uint32, seen [][]uint32, full bool) *Arguments {
	a := &Arguments{Masks: masks, Values: [][]uint32{}, Full: full}
	if full {
		return a
	}
	for _, v := range seen {
		a.Values = append(a.Values, v[:len(masks)])
	}
	slices.SortFunc(a.Values, slices.Compare)
	return a
}

func (a *Arguments) check() error {
	if len(a.Masks) == 0 || len(a.Masks) > 6 || a.Full && len(a.Values) > 0 || !a.Full && len(a.Values) == 0 {
		return fmt.Errorf("%d masks and %d values of arguments do not fit", len(a.Masks), len(a.Values))
	}
	for _, v := range a.Values {
		if len(v) != len(a.Masks) {
			return fmt.Errorf("%d masks for %d arguments", len(a.Masks), len(v))
		}
		for i := range v {
			if v[i]&^a.Masks[i] != 0 {
				return fmt.Errorf("argument %d is %#x, beyond its mask %#x", i, v[i], a.Masks[i])
			}
		}
	}
	return nil
}

// mergeArguments unites what two recordings saw. Where one did not keep the arguments, nothing is known.
func mergeArguments(a, b *Arguments) *Arguments {
	if a == nil || b == nil || !slices.Equal(a.Masks, b.Masks) {
		return nil
	}
	if a.Full || b.Full {
		return &Arguments{Masks: a.Masks, Values: [][]uint32{}, Full: true}
	}
	all := slices.Concat(a.Values, b.Values)
	slices.SortFunc(all, slices.Compare)
	return &Arguments{Masks: a.Masks, Values: slices.CompactFunc(all, slices.Equal)}
}

// condition is what is known of the arguments of a call, by its name: a rule is for all ABIs of a profile at once.
type condition struct {
	name   string
	masks  []uint32
	values map[[6]uint32]string // why they are allowed
	open   string               // why any are

	drivers bool // all requests of ioctl that are not a terminal's are allowed
}

// conditions returns what decides on the arguments of the allowed calls. For what was not observed only the Go runtime's
// own values are known.
func (e *evidence) conditions() map[string]*condition {
	all := map[string]*condition{}
	for t := range e.allowed {
		nr, _ := Number(t.abi, t.name)
		if masks := ArgumentMasks(t.abi, nr); masks != nil && all[t.name] == nil {
			all[t.name] = &condition{name: t.name, masks: masks, values: map[[6]uint32]string{}}
		}
	}
	for _, r := range e.recordings {
		for _, s := range r.Syscalls {
			if c := all[Name(s.ABI, s.Nr)]; c != nil && s.Denied == nil && slices.Contains(e.o.Phases, s.Phase) {
				c.observe(s.Args)
			}
		}
	}
	for t, reasons := range e.allowed {
		c := all[t.name]
		if c == nil {
			continue
		}
		if nr, _ := Number(t.abi, t.name); ArgumentMasks(t.abi, nr) == nil {
			c.widen("they are behind a pointer on " + string(t.abi))
		}
		if slices.Contains(e.abis, specs.ArchX86) && muxed(t.name) != (mux{}) {
			c.widen("i386 makes this call through " + muxed(t.name).by + " too, which hides them")
		}
		if _, ok := e.baselines[t]; ok {
			c.unknown("those of the runtime's own call are not known")
		}
		for _, r := range reasons {
			switch {
			case r.args == recorded:
			case r.args == cloneThread:
				c.add([6]uint32{}, r.Text)
			case r.args == sameCalls && (e.same[t] || t.name != "ioctl"): // whose requests hold the size of what is passed
			case r.args == goRuntimes:
				c.addGoRuntime(t.name)
			case !e.same[t]:
				c.unknown("those of the call that was not recorded are not known")
			}
		}
	}
	codes := map[string]code{}
	for t, by := range e.codes {
		codes[t.name] |= by
	}
	for name, c := range all {
		c.limit()
		if e.o.Policy != PolicyExact {
			c.addFallbacks(name, codes[name], func(call string) bool { return allowedAnywhere(e.allowed, call) })
		}
		c.settle()
	}
	return all
}

// seen is why a value is allowed that a recording holds.
const seen = "seen"

func (c *condition) observe(args *Arguments) {
	switch {
	case args == nil || !slices.Equal(args.Masks, c.masks):
		c.widen("the recording does not hold them")
	case args.Full:
		c.widen("more different ones were seen than the recorder keeps")
	default:
		for _, v := range args.Values {
			c.values[wide(v)] = seen
		}
	}
}

func wide(value []uint32) (all [6]uint32) {
	copy(all[:], value)
	return all
}

// add allows a value that was not seen.
func (c *condition) add(value [6]uint32, why string) {
	if c.values[value] == "" {
		c.values[value] = why
	}
}

// widen allows any arguments. Of several reasons the first by name is told, whatever the order in which they come.
func (c *condition) widen(why string) {
	if c.open == "" || why < c.open {
		c.open = why
	}
}

// unknown allows any arguments of a call that was not seen, but no namespaces: neither runtimes nor C libraries make any
// without having been told to, and Docker's default profile allows none.
func (c *condition) unknown(why string) {
	if c.name == "clone" {
		c.add([6]uint32{}, "no new ones, since "+why)
		return
	}
	c.widen(why)
}

// addGoRuntime adds the values with which the Go runtime makes a call.
func (c *condition) addGoRuntime(name string) {
	row := rowOf(name)
	if row.goRuntime == nil {
		c.widen("those of the Go runtime's own call are not known")
	}
	at := slices.IndexFunc(row.masks, func(m uint32) bool { return m != 0 })
	for _, v := range row.goRuntime {
		var value [6]uint32
		value[at] = v
		c.add(value, "the Go runtime's own (runtime, "+row.source+")")
	}
}

// limit gives up conditions that would be too many. What is added for other hosts does not count: it is a short list.
func (c *condition) limit() {
	if len(c.values) > maxRules {
		c.widen(fmt.Sprintf("there are %d different ones", len(c.values)))
	}
}

// settle gives up conditions that are not known or leave nothing out.
func (c *condition) settle() {
	free := 0
	for _, m := range c.masks {
		free += bits.OnesCount32(m)
	}
	switch {
	case c.open != "":
	case len(c.values) == 0:
		c.open = "none are known"
	case len(c.values) == 1<<free:
		c.open = "all there are were seen"
	}
}

// rules returns the conditions of a call, a rule each; one without conditions where any arguments are allowed.
func (c *condition) rules() [][]specs.LinuxSeccompArg {
	if c == nil || c.open != "" {
		return [][]specs.LinuxSeccompArg{nil}
	}
	var all [][]specs.LinuxSeccompArg
	if c.drivers {
		for bit := uint64(1 << 8); bit < 1<<16; bit <<= 1 { // their type differs in one bit at least
			all = append(all, []specs.LinuxSeccompArg{{Index: 1, Value: bit, ValueTwo: bit &^ terminalType, Op: specs.OpMaskedEqual}})
		}
	}
	for value := range c.values {
		if c.drivers && value[1]&requestType != terminalType {
			continue
		}
		var args []specs.LinuxSeccompArg
		for i, mask := range c.masks {
			if mask != 0 {
				args = append(args, specs.LinuxSeccompArg{Index: uint(i), Value: uint64(mask), ValueTwo: uint64(value[i]), Op: specs.OpMaskedEqual})
			}
		}
		all = append(all, args)
	}
	slices.SortFunc(all, compareConditions)
	return all
}

func compareConditions(a, b []specs.LinuxSeccompArg) int {
	return slices.CompareFunc(a, b, compareArgs)
}

// reason explains one rule of a call; args is nil for one without conditions.
func (c *condition) reason(name string, args []specs.LinuxSeccompArg) Reason {
	if args == nil {
		return Reason{Kind: KindArgument, Text: "any arguments: " + c.open}
	}
	if c.drivers && args[0].Value != whole {
		return Reason{Kind: KindArgument, Text: fmt.Sprintf("request & %#x is %#x, as no terminal's is: what a driver is asked on other hosts is not known", args[0].Value, args[0].ValueTwo)}
	}
	var parts []string
	var value [6]uint32
	for _, a := range args {
		value[a.Index] = uint32(a.ValueTwo)
		label := rowOf(name).labels[a.Index]
		word := argumentNames[label][uint32(a.ValueTwo)]
		if word == "" {
			word = fmt.Sprintf("%#x", a.ValueTwo)
		}
		parts = append(parts, label+" "+word)
	}
	return Reason{Kind: KindArgument, Text: strings.Join(parts, ", ") + ": " + c.values[value]}
}

func rowOf(name string) argumentRow {
	return argumentRows[slices.IndexFunc(argumentRows, func(r argumentRow) bool { return slices.Contains(r.names, name) })]
}
