package profile

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Kernel is a version of Linux.
type Kernel struct{ Major, Minor int }

func (k Kernel) String() string { return fmt.Sprintf("%d.%d", k.Major, k.Minor) }

func (k Kernel) before(o Kernel) bool {
	return cmp.Or(cmp.Compare(k.Major, o.Major), cmp.Compare(k.Minor, o.Minor)) < 0
}

// Kernels is a range of kernels, both ends included. The zero value stands for those that were recorded.
type Kernels struct{ Oldest, Newest Kernel }

// ParseKernels reads a range such as 4.19..6.18, or one version.
func ParseKernels(text string) (Kernels, error) {
	from, to, ranged := strings.Cut(text, "..")
	if !ranged {
		to = from
	}
	var ks Kernels
	var ok1, ok2 bool
	ks.Oldest, ok1 = parseKernel(from)
	ks.Newest, ok2 = parseKernel(to)
	switch {
	case !ok1 || !ok2 || strings.Count(from, ".") != 1 || strings.Count(to, ".") != 1:
		return Kernels{}, fmt.Errorf("kernels %q are not a range such as 4.19..6.18", text)
	case ks.Newest.before(ks.Oldest):
		return Kernels{}, fmt.Errorf("kernels %q end before they begin", text)
	case ks.Oldest.before(oldestKernel) || newestKernel.before(ks.Newest):
		return Kernels{}, fmt.Errorf("kernels %q are not within %v..%v, whose calls are known here", text, oldestKernel, newestKernel)
	}
	return ks, nil
}

// parseKernel reads the version at the head of a release such as 6.18.44-amd64.
func parseKernel(release string) (Kernel, bool) {
	major, rest, _ := strings.Cut(release, ".")
	minor := rest
	if i := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
		minor = rest[:i]
	}
	a, err1 := strconv.ParseUint(major, 10, 16)
	b, err2 := strconv.ParseUint(minor, 10, 16)
	if err1 != nil || err2 != nil || strings.HasPrefix(rest, "+") {
		return Kernel{}, false
	}
	return Kernel{int(a), int(b)}, true
}

// ParseArch reads an architecture by the name that Go has for it, or seccomp.
func ParseArch(name string) (specs.Arch, error) {
	goarch := map[string]specs.Arch{"amd64": specs.ArchX86_64, "386": specs.ArchX86, "arm64": specs.ArchAARCH64, "arm": specs.ArchARM}
	if arch, ok := goarch[name]; ok {
		return arch, nil
	}
	if arch := specs.Arch(name); table(arch) != nil {
		return arch, nil
	}
	return "", fmt.Errorf("architecture %q is not one of amd64, 386, arm64, arm or %v", name, ABIs())
}

// portable returns what the same program calls on the ABIs and kernels that were asked for, in place of the calls that are
// allowed since they were seen or since its runtime makes them. Those in same have the same arguments there in every bit:
// what they point to is as large on all 64-bit ABIs.
func (e *evidence) portable() (add map[target][]Reason, same map[target]bool, err error) {
	add, same = map[target][]Reason{}, map[target]bool{}
	if len(e.o.Arch) == 0 && e.o.Kernels == (Kernels{}) {
		return add, same, nil
	}
	kernels := e.o.Kernels
	if kernels == (Kernels{}) {
		if kernels, err = recordedKernels(e.recordings); err != nil {
			return nil, nil, err
		}
	}
	for from, reasons := range e.allowed {
		abis := []specs.Arch{from.abi}
		if slices.ContainsFunc(reasons, func(r Reason) bool { return r.Kind != KindOCIRuntime }) {
			abis = append(abis, e.o.Arch...)
		} else {
			// A 32-bit x86 program is started by a 64-bit runtime.
			abis = append(abis, slices.DeleteFunc(slices.Clone(e.o.Arch), func(a specs.Arch) bool { return a == specs.ArchX86 || a == specs.ArchX32 })...)
		}
		for _, abi := range sortABIs(abis) {
			if (from.name == "socketcall" || from.name == "ipc") && !Has(abi, from.name) {
				return nil, nil, fmt.Errorf("a program was recorded making %s of %s, which hides the calls that it would make on %s: record it there", from.name, from.abi, abi)
			}
			w := walk{from: from, abi: abi, code: e.codes[from], kernels: kernels, found: map[string]Reason{}}
			if w.code == 0 {
				w.code = anyCode
			}
			w.follow(from.name)
			for name, reason := range w.found {
				t := target{abi, name}
				if _, have := e.allowed[t]; !have {
					add[t] = append(add[t], reason)
					alike := name == from.name && widthOf(abi)&widthOf(from.abi) == 1<<64-1
					if other, again := same[t]; !again || other {
						same[t] = alike
					}
				}
			}
		}
	}
	for t, reasons := range add {
		slices.SortFunc(reasons, func(a, b Reason) int { return cmp.Compare(a.Text, b.Text) })
		add[t] = slices.Compact(reasons)
	}
	return add, same, nil
}

// walk follows the table from one call to all that is made in place of it on one ABI.
type walk struct {
	from    target
	abi     specs.Arch
	code    code
	kernels Kernels
	found   map[string]Reason // by call
	seen    []string
}

func (w *walk) follow(call string) {
	if slices.Contains(w.seen, call) {
		return
	}
	w.seen = append(w.seen, call)
	if w.abi != w.from.abi && call == w.from.name && !w.replaced(call) {
		w.put(call, Reason{Text: "the same call as on " + string(w.from.abi), args: sameCalls})
	}
	for _, group := range allAlternates {
		if group.code&w.code == 0 || group.abis != nil && !slices.Contains(group.abis, w.abi) {
			continue
		}
		for _, row := range group.rows {
			if row[0] != call {
				continue
			}
			for _, to := range row[1:] {
				if !w.applies(group, call, to) {
					continue
				}
				if !w.replaced(to) {
					w.put(to, Reason{Text: fmt.Sprintf("made on %s in place of %s of %s: %s", w.abi, w.from.name, w.from.abi, group.text)})
				}
				w.follow(to)
			}
		}
	}
}

// replaced reports that a call, though the ABI has it, is not made there.
func (w *walk) replaced(call string) bool {
	if w.code != goCode || call == "execve" {
		return false
	}
	return slices.ContainsFunc(allAlternates, func(group alternates) bool {
		return group.only && (group.abis == nil || slices.Contains(group.abis, w.abi)) && slices.ContainsFunc(group.rows, func(row []string) bool {
			return row[0] == call && w.applies(group, call, row[1])
		})
	})
}

func (w *walk) applies(group alternates, call, to string) bool {
	switch group.when {
	case onlyThere:
		return Has(w.abi, to) && (!Has(w.from.abi, to) || group.only && call != w.from.name)
	case notThere:
		return !Has(w.abi, call)
	case olderKern:
		return w.kernels.Oldest.before(since()[call]) && Has(w.abi, to)
	case anywhere:
		return Has(w.abi, to)
	}
	return w.abi != w.from.abi
}

// put notes a call that the ABI and one of the kernels have.
func (w *walk) put(call string, r Reason) {
	if _, again := w.found[call]; !again && Has(w.abi, call) && !w.kernels.Newest.before(since()[call]) {
		r.Kind = KindPortability
		w.found[call] = r
	}
}

func recordedKernels(recordings []*Recording) (Kernels, error) {
	var ks Kernels
	for i, r := range recordings {
		k, ok := parseKernel(r.Kernel)
		if !ok {
			return ks, fmt.Errorf("recording %q names kernel %q, which has no version: give --kernel", r.ID, r.Kernel)
		}
		if i == 0 || k.before(ks.Oldest) {
			ks.Oldest = k
		}
		if ks.Newest.before(k) {
			ks.Newest = k
		}
	}
	return ks, nil
}

// whoseCode returns whose code made the calls that were seen. A workload is nothing but Go if each of its calls is one that
// the machine code of its programs can make, all of which are Go's: a C library's start is never among these.
func whoseCode(recordings []*Recording, phases []Phase) map[target]code {
	codes := map[target]code{}
	for _, r := range recordings {
		workload := anyCode
		if onlyGo(r) {
			workload = goCode
		}
		for _, s := range r.Syscalls {
			if s.Denied != nil || !slices.Contains(phases, s.Phase) {
				continue
			}
			by := workload
			if s.Phase == PhaseRuntime {
				if by = cCode; isGoRuntime(r.Runtime) {
					by = goCode
				}
			}
			codes[target{s.ABI, Name(s.ABI, s.Nr)}] |= by
		}
		for _, static := range r.statics() {
			for _, c := range static.GoRuntime {
				codes[target{c.ABI, Name(c.ABI, c.Nr)}] |= goCode
			}
		}
		mayBeGo := len(r.Unanalyzed()) > 0 || len(r.statics()) > 0 || isGoRuntime(r.Runtime)
		for _, row := range implicit {
			by := workload
			if row.who != anyProgram {
				by = 0
				if row.who == goProgram && mayBeGo || len(r.Unanalyzed()) > 0 {
					by = goCode
				}
			}
			for _, abi := range ABIs() {
				codes[target{abi, row.name}] |= by
			}
		}
	}
	return codes
}

func onlyGo(r *Recording) bool {
	if len(r.Programs) == 0 {
		return false
	}
	var can []StaticCall
	for _, p := range r.Programs {
		if p.Static == nil || len(p.Static.Reachable) == 0 || len(p.Static.Unresolved) > 0 {
			return false
		}
		can = slices.Concat(can, p.Static.Reachable, p.Static.GoRuntime)
	}
	return !slices.ContainsFunc(r.Syscalls, func(call Syscall) bool {
		return call.Phase != PhaseRuntime && !slices.ContainsFunc(can, func(c StaticCall) bool { return c.ABI == call.ABI && c.Nr == call.Nr })
	})
}
