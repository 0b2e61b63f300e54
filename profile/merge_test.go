package profile

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// tryWith returns the arguments that recordings hold of a call, and some that they do not.
func tryWith(rng *rand.Rand, name string, recordings ...*Recording) [][6]uint64 {
	all := [][6]uint64{{}, {1, 1, 1, 1, 1, 1}, {1 << 32, 1 << 32, 1 << 32}, {rng.Uint64(), rng.Uint64(), rng.Uint64()}}
	for _, r := range recordings {
		for _, s := range r.Syscalls {
			if s.Args == nil || Name(s.ABI, s.Nr) != name {
				continue
			}
			for _, value := range s.Args.Values {
				var args [6]uint64
				for i, v := range value {
					args[i] = uint64(v)
				}
				all = append(all, args)
			}
		}
	}
	return all
}

// What a part of the evidence allows, all of it allows, call by call, with all arguments. (Except what the robust policy adds for a
// program of which nothing is known, where a merge shows that an earlier run knew it.) And all allow what was seen, with the
// arguments that it was seen with: any, where these are not known.
func TestMoreEvidenceAllowsMore(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	for range 100 {
		a, b := random(t, rng, "a"), random(t, rng, "b")
		both, err := Merge(a, b)
		if err != nil {
			t.Fatal(err)
		}
		for _, policy := range []Policy{PolicyExact, PolicyRobust} {
			o := BuildOptions{Policy: policy, AllowIncomplete: true}
			profileOf := func(rs ...*Recording) *Resolved {
				p, _, err := Build(rs, o)
				if err != nil && strings.Contains(err.Error(), "hold no calls") {
					return nil
				}
				if err != nil {
					t.Fatal(err)
				}
				return Resolve(p)
			}
			whole := map[string]*Resolved{"merged": profileOf(both), "together": profileOf(a, b)}
			for _, part := range []*Recording{a, b} {
				less := profileOf(part)
				if less == nil {
					continue
				}
				for how, more := range whole {
					for _, name := range less.Names() {
						if policy == PolicyRobust && how == "merged" {
							break
						}
						for _, args := range tryWith(rng, name, a, b) {
							for _, abi := range less.ABIs {
								nr, has := Number(abi, name)
								if !has || less.Decide(abi, nr, args).Action != specs.ActAllow {
									continue
								}
								if got := more.Decide(abi, nr, args); got.Action != specs.ActAllow {
									t.Fatalf("%s: %s %#x of %s: allowed by the evidence of %s, %s by that of both, %s", policy, name, args, abi, part.ID, got, how)
								}
							}
						}
					}
					for _, s := range part.Syscalls {
						name := Name(s.ABI, s.Nr)
						if s.Denied != nil || name == clone3 { // which is answered with ENOSYS
							continue
						}
						args := tryWith(rng, name, part)
						if s.Args != nil && !s.Args.Full {
							args = tryWith(rng, name, &Recording{Syscalls: []Syscall{s}})[4:]
						}
						for _, args := range args {
							if got := more.Decide(s.ABI, s.Nr, args); got.Action != specs.ActAllow {
								t.Fatalf("%s: %s %#x of %s was seen by %s, and gets %s under the profile of both, %s: %+v", policy, name, args, s.ABI, part.ID, got, how, s.Args)
							}
						}
					}
				}
			}
		}
	}
}

// What is known of a call's arguments when two recordings know different things.
func TestMergeOfArguments(t *testing.T) {
	value := func(v uint32) []uint32 { return []uint32{v, 1, 0} }
	socket := func(id string, seen ...[]uint32) Syscall {
		return with(call(t, PhaseWorkload, x64, "socket", id), seen...)
	}
	full := socket("b")
	full.Args = NewArguments(ArgumentMasks(x64, full.Nr), nil, true)
	unknown := call(t, PhaseWorkload, x64, "socket", "b")
	other := socket("b", value(2))
	other.Args.Masks = slices.Clone(other.Args.Masks)
	other.Args.Masks[0] &= 0xffff
	for name, c := range map[string]struct {
		second Syscall
		any    bool // whether all arguments are allowed then
	}{
		"two values":            {socket("b", value(2)), false},
		"more than can be kept": {full, true},
		"not kept":              {unknown, true},
		"kept under other bits": {other, true},
	} {
		a, b := recording(t, "a", socket("a", value(1))), recording(t, "b", c.second)
		for _, order := range [][]*Recording{{a, b}, {b, a}} {
			m, err := Merge(order...)
			if err != nil {
				t.Fatal(err)
			}
			for how, rs := range map[string][]*Recording{"merged": {m}, "together": order} {
				p, _ := build(t, BuildOptions{Policy: PolicyExact}, rs...)
				r := Resolve(p)
				nr, _ := Number(x64, "socket")
				if got := r.Decide(x64, nr, [6]uint64{1, 1}); got.Action != specs.ActAllow {
					t.Errorf("%s, %s: what was seen gets %s", name, how, got)
				}
				if got := r.Decide(x64, nr, [6]uint64{9, 1}); (got.Action == specs.ActAllow) != c.any {
					t.Errorf("%s, %s: what was not seen gets %s", name, how, got)
				}
			}
		}
	}
}

// A runtime that was recorded without a filter once with no_new_privs and once without needs the calls of both, whichever
// recording comes first.
func TestMixedNoNewPrivileges(t *testing.T) {
	made := func(id string, nnp bool) *Recording {
		r := recording(t, id, call(t, PhaseWorkload, x64, "read", id))
		r.Boundary, r.Runtime, r.NoNewPrivileges = BoundaryExecve, Runtime{Name: "runc", Version: "1.1.5+ds1"}, nnp
		return r
	}
	allowed := func(rs ...*Recording) []string {
		p, _ := build(t, BuildOptions{Policy: PolicyExact}, rs...)
		return Allowed(p)
	}
	with, without := made("a", true), made("b", false)
	large, small := allowed(without), allowed(with)
	if len(large) <= len(small) || !slices.Contains(large, "setuid") || slices.Contains(small, "setuid") {
		t.Fatalf("with no_new_privs %v, without %v", small, large)
	}
	for name, rs := range map[string][]*Recording{
		"with first": {with, without}, "without first": {without, with},
		"more with": {with, without, made("c", true)}, "with last": {without, made("c", true), with},
	} {
		if diff := cmp.Diff(large, allowed(rs...)); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
	if diff := cmp.Diff(small, allowed(with, made("c", true))); diff != "" {
		t.Errorf("both with:\n%s", diff)
	}
}

// Of two results of a test in two runs the one is kept that a later run is to be compared with: a failure, or else a pass.
func TestMergeOfResults(t *testing.T) {
	for _, c := range []struct{ a, b, want string }{
		{"pass", "fail", "fail"}, {"skip", "fail", "fail"}, {"pass", "skip", "pass"}, {"skip", "skip", "skip"}, {"", "pass", "pass"}, {"", "skip", "skip"},
	} {
		a, b := recording(t, "a"), recording(t, "b")
		a.Tests, b.Tests = map[string]string{"TestA": c.a}, map[string]string{"TestA": c.b}
		for _, order := range [][]*Recording{{a, b}, {b, a}} {
			m, err := Merge(order...)
			if err != nil || m.Tests["TestA"] != c.want {
				t.Errorf("%q and %q: %v, %v", c.a, c.b, m.Tests, err)
			}
		}
	}
}

// A recording that no recorder writes is refused, not merely built from.
func TestReadRefusesEmptyEvidence(t *testing.T) {
	for want, change := range map[string]func(*Recording){
		"no id or no runs":  func(r *Recording) { r.Runs, r.Syscalls = nil, nil },
		"belongs to no run": func(r *Recording) { r.Syscalls[0].Runs = nil },
		"which is not one of errno, trap, kill": func(r *Recording) {
			r.Syscalls[0].Denied = &Denied{Action: "shrug", Count: 1, Order: 1}
		},
		"which is not listed": func(r *Recording) { r.Syscalls[0].Runs = []string{"z"} },
	} {
		r := recording(t, "a", call(t, PhaseWorkload, x64, "read"))
		change(r)
		if _, err := ReadRecording(strings.NewReader(encode(t, r))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	r := recording(t, "a", call(t, PhaseWorkload, x64, "read"))
	r.Syscalls[0].Denied = &Denied{Action: "kill", Count: 1, Order: 1}
	if _, err := ReadRecording(strings.NewReader(encode(t, r))); err != nil {
		t.Error(err)
	}
	if _, err := Merge(); err == nil || errors.Is(err, ErrIncomplete) {
		t.Errorf("nothing was merged: %v", err)
	}
}
