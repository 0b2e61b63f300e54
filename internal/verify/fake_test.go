package verify

import (
	"context"
	"errors"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seccompgen/seccompgen/internal/bundle"
	"github.com/seccompgen/seccompgen/internal/container"
	"github.com/seccompgen/seccompgen/profile"
)

// script is a [Runner] that runs nothing: a function says what a run recorded, 1 being the first run of its kind.
type script struct {
	control func(n int) *profile.Recording                      // without the profile
	under   func(n int, o container.Options) *profile.Recording // under it
	fails   int                                                 // the run, of either kind, that cannot be made; 0 for none

	mu       sync.Mutex
	controls int
	unders   int
	options  []container.Options
	bundles  []*bundle.Bundle
}

var errBroken = errors.New("the runtime is broken")

func (s *script) Run(_ context.Context, b *bundle.Bundle, o container.Options) (*profile.Recording, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.options, s.bundles = append(s.options, o), append(s.bundles, b)
	if s.controls+s.unders+1 == s.fails {
		return nil, errBroken
	}
	if o.Seccomp.DefaultAction == specs.ActAllow {
		s.controls++
		if s.control == nil {
			return made(o.Seccomp), nil
		}
		return s.control(s.controls), nil
	}
	s.unders++
	return s.under(s.unders, o), nil
}

func testBundle() *bundle.Bundle {
	return &bundle.Bundle{Spec: &specs.Spec{Process: &specs.Process{}}}
}

func allowing(names ...string) *specs.LinuxSeccomp {
	return &specs.LinuxSeccomp{
		DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86_64},
		Syscalls: []specs.LinuxSyscall{{Names: names, Action: specs.ActAllow}},
	}
}

// made is the recording of a run under a profile whose workload makes some calls.
func made(p *specs.LinuxSeccomp, names ...string) *profile.Recording {
	rec := run(0, map[string]string{"TestA": "pass"}, "")
	r := profile.Resolve(p)
	order := 0
	for _, name := range names {
		nr, _ := profile.Number(specs.ArchX86_64, name)
		c := profile.Syscall{Phase: profile.PhaseWorkload, ABI: specs.ArchX86_64, Nr: nr, Name: name}
		if v := r.Decide(specs.ArchX86_64, nr, [6]uint64{}); v.Action == specs.ActErrno {
			order++
			c.Denied = &profile.Denied{Action: "errno", Errno: uint32(v.Errno), Count: 1, Order: order}
		}
		rec.Syscalls = append(rec.Syscalls, c)
	}
	return rec
}

// with returns the recording with other results of tests.
func with(rec *profile.Recording, tests map[string]string) *profile.Recording {
	rec.Tests = tests
	return rec
}

// dropped returns the recording as one that lost something.
func dropped(rec *profile.Recording, reason string) *profile.Recording {
	rec.Drop(reason, 1)
	return rec
}

// own returns the recording with its denials made by filters that the workload installed for itself.
func own(rec *profile.Recording) *profile.Recording {
	for _, c := range rec.Syscalls {
		if c.Denied != nil {
			c.Denied.Own = true
		}
	}
	return rec
}
