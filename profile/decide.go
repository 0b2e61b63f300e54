package profile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Verdict is what a filter answers to one call.
type Verdict struct {
	Action specs.LinuxSeccompAction `json:"action"`
	Errno  uint                     `json:"errno,omitempty"` // of SCMP_ACT_ERRNO and SCMP_ACT_TRACE
}

// badABI is the answer to calls of an ABI that the profile does not list: libseccomp's default, which no runtime changes.
var badABI = Verdict{Action: specs.ActKillThread}

// epermErrno is the errno of an action that names none (runtime-spec, config-linux.md, defaultErrnoRet).
const epermErrno = 1

func verdict(action specs.LinuxSeccompAction, errno *uint) Verdict {
	switch action {
	case specs.ActKill:
		return Verdict{Action: specs.ActKillThread}
	case specs.ActErrno, specs.ActTrace:
		v := Verdict{action, epermErrno}
		if errno != nil {
			v.Errno = *errno
		}
		return v
	}
	return Verdict{Action: action}
}

// reach orders verdicts by what the caller gets: nothing, somebody else's decision, the call.
func (v Verdict) reach() int {
	switch v.Action {
	case specs.ActAllow, specs.ActLog:
		return 2
	case specs.ActNotify, specs.ActTrace:
		return 1
	}
	return 0
}

func (v Verdict) String() string {
	switch v.Action {
	case specs.ActAllow:
		return "allowed"
	case specs.ActLog:
		return "allowed and logged"
	case specs.ActErrno:
		return ErrnoName(v.Errno)
	case specs.ActTrace:
		return fmt.Sprintf("decided by a tracer (%d)", v.Errno)
	case specs.ActNotify:
		return "decided by an agent"
	case specs.ActTrap:
		return "SIGSYS"
	case specs.ActKillThread:
		return "kills the thread"
	case specs.ActKillProcess:
		return "kills the process"
	}
	return string(v.Action)
}

// ErrnoName names the errnos that stand in profiles. They are the same on every ABI that has a table here.
func ErrnoName(errno uint) string {
	names := map[uint]string{
		0: "success without the call", 1: "EPERM", 2: "ENOENT", 3: "ESRCH", 5: "EIO", 9: "EBADF", 11: "EAGAIN", 12: "ENOMEM", 13: "EACCES", 14: "EFAULT",
		16: "EBUSY", 19: "ENODEV", 22: "EINVAL", 38: "ENOSYS", 95: "EOPNOTSUPP", 97: "EAFNOSUPPORT",
	}
	return cmp.Or(names[errno], fmt.Sprintf("errno %d", errno))
}

// Rule is one rule of a call: the verdict where all conditions hold.
type Rule struct {
	Verdict
	Args []specs.LinuxSeccompArg `json:"args,omitempty"`
}

// Resolved is a profile as a runtime gives it to libseccomp: order and grouping of entries do not matter any more.
type Resolved struct {
	Default Verdict
	ABIs    []specs.Arch // sorted; libseccomp adds the native one, which the caller of Resolve must name if it counts
	names   map[string][]Rule
	ints    bool // compare what the kernel takes as an int by its lower half only
}

// Resolve reads a profile as runc and crun do: entries that say the same as the default are left out, two conditions
// on one argument are alternatives, an entry without conditions takes the place of those with.
func Resolve(p *specs.LinuxSeccomp, more ...specs.Arch) *Resolved {
	r := &Resolved{Default: verdict(p.DefaultAction, p.DefaultErrnoRet), ABIs: sortABIs(slices.Concat(p.Architectures, more)), names: map[string][]Rule{}}
	for _, s := range p.Syscalls {
		for _, name := range s.Names {
			v := verdict(s.Action, s.ErrnoRet)
			if v == r.Default {
				continue
			}
			for _, args := range alternatives(s.Args) {
				r.names[name] = addRule(r.names[name], Rule{v, args})
			}
		}
	}
	return r
}

// alternatives splits conditions as runtimes do.
func alternatives(args []specs.LinuxSeccompArg) [][]specs.LinuxSeccompArg {
	seen, twice := map[uint]bool{}, false // also the same condition twice
	for _, a := range args {
		twice = twice || seen[a.Index]
		seen[a.Index] = true
	}
	args = slices.Clone(args)
	slices.SortFunc(args, compareArgs)
	if !twice {
		return [][]specs.LinuxSeccompArg{args}
	}
	var each [][]specs.LinuxSeccompArg
	for _, a := range slices.Compact(args) {
		each = append(each, []specs.LinuxSeccompArg{a})
	}
	return each
}

func compareArgs(a, b specs.LinuxSeccompArg) int {
	return cmp.Or(cmp.Compare(a.Index, b.Index), cmp.Compare(a.Op, b.Op), cmp.Compare(a.Value, b.Value), cmp.Compare(a.ValueTwo, b.ValueTwo))
}

func addRule(rules []Rule, r Rule) []Rule {
	switch {
	case len(rules) > 0 && len(rules[0].Args) == 0:
		return rules // unconditional already
	case len(r.Args) == 0:
		return []Rule{r}
	case slices.ContainsFunc(rules, func(o Rule) bool { return o.Verdict == r.Verdict && slices.Equal(o.Args, r.Args) }):
		return rules
	}
	return append(rules, r)
}

// Names returns the names that have rules, sorted.
func (r *Resolved) Names() []string {
	var all []string
	for name := range r.names {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// Rules returns the rules of a name.
func (r *Resolved) Rules(name string) []Rule { return r.names[name] }

// Has reports whether an ABI has a call of that name, by a number of its own or, on i386, through socketcall or ipc. An
// ABI without a table here is taken to have all.
func Has(abi specs.Arch, name string) bool {
	if table(abi) == nil {
		return true
	}
	if abi == specs.ArchX86 && muxed(name) != (mux{}) {
		return true
	}
	_, ok := Number(abi, name)
	return ok
}

// Decide returns the verdict on a call, which comes with its number as the kernel has it, bit 30 included for x32.
func (r *Resolved) Decide(abi specs.Arch, nr uint32, args [6]uint64) Verdict {
	if !slices.Contains(r.ABIs, abi) {
		return badABI
	}
	if abi == specs.ArchX32 {
		nr &^= x32Bit
	}
	return decide(r.effective(abi, Name(abi, nr)), args, abi, r.Default)
}

// Holding returns the answers of all rules whose conditions hold. Where they differ, which one a filter gives is libseccomp's
// choice.
func (r *Resolved) Holding(abi specs.Arch, nr uint32, args [6]uint64) []Verdict {
	if !slices.Contains(r.ABIs, abi) {
		return nil
	}
	if abi == specs.ArchX32 {
		nr &^= x32Bit
	}
	var all []Verdict
	for _, rule := range r.effective(abi, Name(abi, nr)) {
		if v := decide([]Rule{rule}, args, abi, badABI); v == rule.Verdict && !slices.Contains(all, v) {
			all = append(all, v)
		}
	}
	return all
}

// x32Bit marks the numbers of x32 calls (__X32_SYSCALL_BIT).
const x32Bit = 1 << 30

func decide(rules []Rule, args [6]uint64, abi specs.Arch, otherwise Verdict) Verdict {
	for _, rule := range rules {
		if !slices.ContainsFunc(rule.Args, func(a specs.LinuxSeccompArg) bool { return !holds(a, args, abi) }) {
			return rule.Verdict
		}
	}
	return otherwise
}

// effective returns the rules that libseccomp makes for a call. On i386 a rule for a call that socketcall or ipc can make
// is one for that call too: its first argument says which, so that a condition on the first argument is lost there.
func (r *Resolved) effective(abi specs.Arch, name string) []Rule {
	rules := r.names[name]
	if abi != specs.ArchX86 || name != "socketcall" && name != "ipc" || len(rules) > 0 && len(rules[0].Args) == 0 {
		return rules
	}
	rules = slices.Clone(rules)
	for _, n := range r.Names() {
		m := muxed(n)
		if m.by != name {
			continue
		}
		for _, rule := range r.names[n] {
			args := slices.DeleteFunc(slices.Clone(rule.Args), func(a specs.LinuxSeccompArg) bool { return a.Index == 0 })
			args = append(args, specs.LinuxSeccompArg{Index: 0, Value: m.call, Op: specs.OpEqualTo})
			rules = append(rules, Rule{rule.Verdict, args})
		}
	}
	return rules
}

// hides reports whether a call has an argument in memory that the other ABIs have in a register: i386's old mmap and select
// take all in a struct, socketcall all but the number of the call. A condition on it looks at a register that does not hold it.
func hides(abi specs.Arch, name string, index uint) bool {
	return abi == specs.ArchX86 && (name == "mmap" || name == "select" || name == "socketcall" && index > 0)
}

// meaning returns what the rules of a call come to for one who chooses its arguments as he likes: a condition on what is
// hidden is none where it lets through, and one that refuses nothing where it refuses. The widest rules come first.
func (r *Resolved) meaning(abi specs.Arch, name string) []Rule {
	rules := r.effective(abi, name)
	hidden := func(a specs.LinuxSeccompArg) bool { return hides(abi, name, a.Index) }
	if !slices.ContainsFunc(rules, func(rule Rule) bool { return slices.ContainsFunc(rule.Args, hidden) }) {
		return rules
	}
	var all []Rule
	for _, rule := range rules {
		args := slices.DeleteFunc(slices.Clone(rule.Args), hidden)
		if len(args) < len(rule.Args) && rule.reach() <= r.Default.reach() {
			continue
		}
		all = append(all, Rule{rule.Verdict, args})
	}
	slices.SortStableFunc(all, func(a, b Rule) int { return cmp.Compare(b.reach(), a.reach()) })
	if i := slices.IndexFunc(all, func(rule Rule) bool { return len(rule.Args) == 0 }); i >= 0 {
		return slices.Insert(all[:0], 0, all[i])
	}
	return all
}

// lets reports whether a call gets through, for some arguments at least.
func (r *Resolved) lets(abi specs.Arch, name string) bool {
	rules := r.meaning(abi, name)
	if len(rules) == 0 || len(rules[0].Args) > 0 && r.Default.reach() == 2 {
		return r.Default.reach() == 2
	}
	return slices.ContainsFunc(rules, func(rule Rule) bool { return rule.reach() == 2 })
}

type mux struct {
	by   string
	call uint64
}

// muxed tells through which call i386 makes another. Source: include/uapi/linux/net.h and ipc.h; libseccomp does the same
// (src/arch-x86.c).
func muxed(name string) mux {
	for i, n := range []string{
		"socket", "bind", "connect", "listen", "accept", "getsockname", "getpeername", "socketpair", "send", "recv", "sendto", "recvfrom",
		"shutdown", "setsockopt", "getsockopt", "sendmsg", "recvmsg", "accept4", "recvmmsg", "sendmmsg",
	} {
		if n == name {
			return mux{"socketcall", uint64(i + 1)}
		}
	}
	for n, call := range map[string]uint64{
		"semop": 1, "semget": 2, "semctl": 3, "semtimedop": 4, "msgsnd": 11, "msgrcv": 12, "msgget": 13, "msgctl": 14,
		"shmat": 21, "shmdt": 22, "shmget": 23, "shmctl": 24,
	} {
		if n == name {
			return mux{"ipc", call}
		}
	}
	return mux{}
}

// holds evaluates one condition. On 32-bit ABIs libseccomp compares the lower half only.
func holds(a specs.LinuxSeccompArg, args [6]uint64, abi specs.Arch) bool {
	if a.Index >= uint(len(args)) {
		return false
	}
	width := widthOf(abi)
	x, v, two := args[a.Index]&width, a.Value&width, a.ValueTwo&width
	switch a.Op {
	case specs.OpEqualTo:
		return x == v
	case specs.OpNotEqual:
		return x != v
	case specs.OpLessThan:
		return x < v
	case specs.OpLessEqual:
		return x <= v
	case specs.OpGreaterThan:
		return x > v
	case specs.OpGreaterEqual:
		return x >= v
	case specs.OpMaskedEqual:
		return x&v == two&v
	}
	return false
}

// widthOf returns the bits of an argument that count.
func widthOf(abi specs.Arch) uint64 {
	switch abi {
	case specs.ArchX86, specs.ArchX32, specs.ArchARM:
		return 1<<32 - 1
	}
	return 1<<64 - 1
}

var operators = map[specs.LinuxSeccompOperator]string{
	specs.OpEqualTo: "==", specs.OpNotEqual: "!=", specs.OpLessThan: "<", specs.OpLessEqual: "<=", specs.OpGreaterThan: ">", specs.OpGreaterEqual: ">=",
}

// Condition prints one condition; arguments count from 0.
func Condition(a specs.LinuxSeccompArg) string {
	switch {
	case a.Op == specs.OpMaskedEqual && a.Value == 1<<32-1:
		return fmt.Sprintf("(u32)arg%d == %#x", a.Index, a.ValueTwo)
	case a.Op == specs.OpMaskedEqual:
		return fmt.Sprintf("arg%d & %#x == %#x", a.Index, a.Value, a.ValueTwo)
	}
	return fmt.Sprintf("arg%d %s %#x", a.Index, cmp.Or(operators[a.Op], string(a.Op)), a.Value)
}

func (r Rule) String() string {
	if len(r.Args) == 0 {
		return r.Verdict.String()
	}
	var conditions []string
	for _, a := range r.Args {
		conditions = append(conditions, Condition(a))
	}
	return r.Verdict.String() + " if " + strings.Join(conditions, " and ")
}

// describe prints the rules of a name.
func (r *Resolved) describe(abi specs.Arch, name string) string {
	rules := r.meaning(abi, name)
	if len(rules) == 0 {
		return r.Default.String() + " (default)"
	}
	var parts []string
	for _, rule := range rules {
		parts = append(parts, rule.String())
	}
	if len(rules[0].Args) > 0 {
		slices.Sort(parts)
		parts = append(parts, "else "+r.Default.String())
	}
	return strings.Join(parts, "; ")
}

// AuditArch returns the kernel's number of an ABI (AUDIT_ARCH_*, include/uapi/linux/audit.h), as filters see it. x32 has
// that of x86-64.
func AuditArch(abi specs.Arch) (uint32, bool) {
	if t := table(abi); t != nil {
		return uint32(t.ID), true
	}
	return 0, false
}
