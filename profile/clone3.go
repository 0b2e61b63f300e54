package profile

import (
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// clone3 is the call of which no filter can see whether it makes namespaces: its flags lie in memory. Docker's default
// profile answers it with ENOSYS, so that what runs in containers falls back on clone.
const clone3 = "clone3"

// answerClone3 removes clone3 from what is allowed, and puts clone in its place.
// Whose code made a call is known for Go code only, which makes clone3 where nothing else will do (a cgroup or a time
// namespace for a child: syscall.forkAndExecInChild1) and has no fallback: then clone3 stays, with a reason that says so.
func (e *evidence) answerClone3() error {
	by, needed := goCaller(e.recordings, e.o.Phases, clone3)
	for t, reasons := range e.allowed {
		switch {
		case t.name != clone3:
		case needed:
			e.allowed[t] = append(reasons, Reason{Kind: KindDangerous, Text: "Go code makes it itself and has nothing to fall back on; no filter sees which namespaces it makes", Caller: by.String()})
		default:
			delete(e.allowed, t)
			for _, r := range reasons {
				r.Kind, r.Text = KindErrno, r.Text+": its callers fall back on clone, of which a filter sees whether it makes namespaces"
				e.denied[t] = append(e.denied[t], r)
			}
			on := target{t.abi, "clone"}
			e.allowed[on] = append(e.allowed[on], Reason{Kind: KindPortability, Text: "made in place of clone3, which is answered with ENOSYS", args: cloneThread})
		}
	}
	return nil
}

// goCaller returns the first caller that made a call in Go code: the stack of any other code has no functions. In a workload
// that is nothing but Go every caller is such.
func goCaller(recordings []*Recording, phases []Phase, name string) (first Caller, found bool) {
	for _, r := range recordings {
		pure := onlyGo(r)
		for _, s := range r.Syscalls {
			if s.Denied != nil || !slices.Contains(phases, s.Phase) || Name(s.ABI, s.Nr) != name {
				continue
			}
			byGo := pure && s.Phase != PhaseRuntime
			callers := s.Callers
			if byGo && len(callers) == 0 {
				callers = []Caller{{}}
			}
			for _, c := range callers {
				if (len(c.Stack) > 0 || byGo) && (!found || compareCallers(c, first) < 0) {
					first, found = c, true
				}
			}
		}
	}
	return first, found
}

// Answers reports whether a refusal is no loss to the caller: clone3, which an entry of the profile answers with ENOSYS.
func Answers(p *specs.LinuxSeccomp, c Syscall) bool {
	return c.Denied != nil && c.Denied.Action == OutcomeErrno && c.Denied.Errno == enosysErrno && Name(c.ABI, c.Nr) == clone3 &&
		slices.ContainsFunc(p.Syscalls, func(s specs.LinuxSyscall) bool {
			return verdict(s.Action, s.ErrnoRet) == Verdict{specs.ActErrno, enosysErrno} && slices.Contains(s.Names, clone3)
		})
}
