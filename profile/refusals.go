package profile

import (
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Refusal is one way in which a filter refuses calls.
type Refusal struct {
	Action Outcome `json:"action"`
	Errno  uint32  `json:"errno,omitempty"` // of action errno
}

// Refusals returns all the ways in which a profile's filter can refuse a call, as runc and crun install it. What a call
// that was refused otherwise tells is not about this filter. It returns nil for a profile whose agent or tracer may give
// any answer.
func Refusals(p *specs.LinuxSeccomp) []Refusal {
	// Calls of architectures that are not listed kill, and runc answers ENOSYS to calls that are newer than all it lists.
	all := []Refusal{{Action: OutcomeKill}, {Action: OutcomeErrno, Errno: enosysErrno}}
	rules := []Verdict{verdict(p.DefaultAction, p.DefaultErrnoRet)}
	for _, s := range p.Syscalls {
		rules = append(rules, verdict(s.Action, s.ErrnoRet))
	}
	for _, v := range rules {
		var a Refusal
		switch v.Action {
		case specs.ActErrno:
			a = Refusal{OutcomeErrno, min(uint32(v.Errno), maxErrno)}
		case specs.ActTrap:
			a = Refusal{Action: OutcomeTrap}
		case specs.ActNotify, specs.ActTrace:
			return nil
		default:
			continue
		}
		if !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	return all
}

// maxErrno is what the kernel cuts errnos of filters down to (MAX_ERRNO, kernel/seccomp.c).
const maxErrno = 4095
