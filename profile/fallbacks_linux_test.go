package profile

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// withCalls is a recording of one call with these arguments, and of others.
func withCalls(t testing.TB, onlyGo bool, name string, values []value, others ...string) *Recording {
	t.Helper()
	r := goRecording(t, onlyGo, append([]string{name}, others...)...)
	masks := ArgumentMasks(x64, r.Syscalls[0].Nr)
	for i := range r.Syscalls {
		if r.Syscalls[i].Name == name {
			var seen [][]uint32
			for _, v := range values {
				seen = append(seen, slices.Clone(v[:len(masks)]))
			}
			r.Syscalls[i].Args = NewArguments(masks, seen, false)
		}
	}
	return r
}

func allows(p *specs.LinuxSeccomp, name string, v value) bool {
	nr, _ := Number(x64, name)
	var args [6]uint64
	for i := range v {
		args[i] = uint64(v[i])
	}
	return Resolve(p, x64).Decide(x64, nr, args).Action == specs.ActAllow
}

// What is allowed since something else was seen, for each row: a row that is changed or lost fails its case.
func TestFallbacks(t *testing.T) {
	second := func(v uint32) value { return value{0, v} }
	option := func(level, name uint32) value { return value{0, level, name} }
	advice := func(v uint32) value { return value{0, 0, v} }
	for _, c := range []struct {
		name, call string
		goCode     bool
		seen       value
		with       string
		allowed    []value
		denied     []value
	}{
		{"MPTCP is off", "socket", true, value{2, 1, 262}, "", []value{{2, 1, 0}, {10, 1, 0}, {10, 1, 262}}, []value{{2, 2, 0}, {2, 1, 6}, {1, 1, 0}}},
		{"MPTCP is on", "socket", true, value{10, 1, 0}, "", []value{{2, 1, 0}, {2, 1, 262}, {10, 1, 262}}, []value{{2, 2, 0}}},
		{"C knows no MPTCP", "socket", false, value{2, 1, 0}, "", []value{{10, 1, 0}}, nil},
		{"a cut answer", "socket", true, value{10, 2, 0}, "connect", []value{{2, 2, 0}, {2, 1, 0}, {10, 1, 0}}, []value{{2, 1, 262}, {16, 3, 0}}},
		{"who never connects asks nobody", "socket", true, value{2, 2, 0}, "", []value{{10, 2, 0}}, []value{{2, 1, 0}}},
		{"names have several addresses", "socket", true, value{2, 1, 6}, "connect", []value{{2, 2, 0}, {10, 2, 0}}, []value{{16, 3, 0}, {2, 3, 0}}},
		{"glibc asks for interfaces", "socket", false, value{2, 2, 0}, "connect", []value{{16, 3, 0}}, []value{{16, 3, 15}, {17, 3, 0}}},
		{"ping", "socket", true, value{2, 3, 1}, "", []value{{10, 3, 58}}, []value{{10, 3, 1}}},
		{"ping of the other", "socket", true, value{10, 2, 58}, "", []value{{2, 2, 1}}, []value{{2, 2, 58}}},
		{"a pair has none", "socketpair", true, value{1, 1, 0}, "", nil, []value{{1, 2, 0}, {2, 1, 0}}},
		{"package net's own", "setsockopt", true, option(1, 2), "", []value{option(1, 6), option(1, 9), option(6, 1), option(6, 4), option(6, 5), option(6, 6), option(41, 26)}, []value{option(1, 15), option(6, 31)}},
		{"package net, begun elsewhere", "setsockopt", true, option(41, 26), "", []value{option(1, 2)}, nil},
		{"a C server", "setsockopt", false, option(1, 2), "bind", []value{option(41, 26)}, nil},
		{"receive buffer", "setsockopt", true, option(1, 8), "", []value{option(1, 33)}, []value{option(1, 32)}},
		{"send buffer", "setsockopt", true, option(1, 7), "", []value{option(1, 32)}, []value{option(1, 33)}},
		{"receive buffer by force", "setsockopt", true, option(1, 33), "", []value{option(1, 8)}, []value{option(1, 7)}},
		{"send buffer by force", "setsockopt", true, option(1, 32), "", []value{option(1, 7)}, []value{option(1, 8)}},
		{"an unknown level", "setsockopt", true, option(263, 10), "", []value{option(263, 11)}, nil},
		{"no F_DUPFD_CLOEXEC", "fcntl", true, second(1030), "", []value{second(0), second(2)}, []value{second(1), second(4)}},
		{"a flag", "fcntl", true, second(1), "", []value{second(2)}, []value{second(4)}},
		{"a flag set", "fcntl", true, second(2), "", nil, []value{second(1), second(3)}},
		{"a pipe or not", "fcntl", true, second(3), "", []value{second(4)}, []value{second(2)}},
		{"a pipe or not, set", "fcntl", true, second(4), "", nil, []value{second(3)}},
		{"locks", "fcntl", true, second(36), "", []value{second(37), second(5), second(6)}, []value{second(38), second(7), second(1031)}},
		{"old locks", "fcntl", true, second(6), "", []value{second(5)}, []value{second(7), second(37)}},
		{"pipes", "fcntl", true, second(1031), "", nil, []value{second(1032)}},
		{"seals", "fcntl", true, second(1034), "", []value{second(1033)}, []value{second(1032)}},
		{"a command of its own", "fcntl", true, second(9999), "", []value{second(9998)}, nil},
		{"a terminal", "ioctl", true, second(0x5401), "", []value{second(0x5402), second(0x5403), second(0x5404), second(0x802c542a), second(0x402c542b), second(0x402c542c), second(0x402c542d), second(0x5413)}, []value{second(0x5412), second(0x540e), second(0x5410), second(0x541c)}},
		{"musl's terminal", "ioctl", false, second(0x5413), "", []value{second(0x5401)}, []value{second(0x5412)}},
		{"no terminal", "ioctl", true, second(0x541b), "", nil, []value{second(0x5401), second(0x5412)}},
		{"a driver", "ioctl", true, second(0xae00), "", []value{second(0xae01), second(0x5501), second(0xd401), second(0xc0186444)}, []value{second(0x5401), second(0x5412), second(0x541c), second(0x80045430)}},
		{"a terminal of its own", "ioctl", true, second(0x5415), "", nil, []value{second(0x5401), second(0x5412), second(0xae00)}},
		{"capabilities", "prctl", false, value{24}, "", []value{{23}}, []value{{47}, {4}}},
		{"ambient capabilities", "prctl", false, value{47}, "", nil, []value{{23}, {24}}},
		{"an option of its own", "prctl", true, value{999}, "", []value{{998}}, nil},
		{"seccomp", "seccomp", true, value{1}, "", []value{{0}, {2}, {3}}, []value{{4}}},
		{"seccomp's answer", "seccomp", true, value{2}, "", []value{{1}}, []value{{4}}},
		{"seccomp's sizes", "seccomp", true, value{3}, "", []value{{1}}, []value{{4}}},
		{"an operation of its own", "seccomp", true, value{9}, "", []value{{8}}, nil},
		{"personality", "personality", true, value{0x40000}, "", []value{{0}, {8}, {0x20000}, {0x20008}, {0xffffffff}}, []value{{0x400000}, {0x80000}}},
		{"C's memory", "madvise", false, advice(8), "", []value{advice(4), advice(14), advice(15)}, []value{advice(100)}},
		{"C's memory, no longer free", "madvise", false, advice(4), "", []value{advice(8)}, nil},
		{"guards", "madvise", false, advice(102), "", []value{advice(103)}, []value{advice(101)}},
		{"an advice of its own", "madvise", true, advice(12), "", []value{advice(13)}, nil},
		{"namespaces have none", "unshare", true, value{0x20000}, "", nil, []value{{0x10000000}, {0}}},
		{"nor have clone's", "clone", true, value{0x20000}, "", nil, []value{{0x10000000}}},
		{"programs of the kernel", "bpf", true, value{5}, "", nil, []value{{6}, {999}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			others := []string{"read"}
			if c.with != "" {
				others = append(others, c.with)
			}
			r := withCalls(t, c.goCode, c.call, []value{c.seen}, others...)
			for _, o := range []BuildOptions{{}, {Kernels: Kernels{Kernel{4, 19}, Kernel{6, 18}}}, {Arch: []specs.Arch{arm64}}} {
				p, w := build(t, o, r)
				for _, v := range append(c.allowed, c.seen) {
					if !allows(p, c.call, v) {
						t.Errorf("%+v: %s %#x is denied", o, c.call, v)
					}
				}
				for _, v := range c.denied {
					if allows(p, c.call, v) {
						t.Errorf("%+v: %s %#x is allowed", o, c.call, v)
					}
				}
				for _, e := range w.Entries {
					if e.Name == c.call && e.Action == specs.ActAllow && !slices.ContainsFunc(e.Reasons, func(r Reason) bool { return r.Kind == "argument" && r.Text != "" }) {
						t.Errorf("%s %v has no reason of kind argument: %v", e.Name, e.Args, e.Reasons)
					}
				}
			}
			p, _ := build(t, BuildOptions{Policy: PolicyExact}, r)
			for _, v := range slices.Concat(c.allowed, c.denied) {
				if v != c.seen && allows(p, c.call, v) {
					t.Errorf("exact adds %s %#x", c.call, v)
				}
			}
		})
	}
}

// Each pair of options goes both ways, and no option has two others.
func TestOtherIP(t *testing.T) {
	four, six := map[uint32]bool{}, map[uint32]bool{}
	for _, pair := range otherIP {
		if four[pair[0]] || six[pair[1]] {
			t.Errorf("%v stands twice", pair)
		}
		four[pair[0]], six[pair[1]] = true, true
		for _, v := range [][2]value{{{0, 0, pair[0]}, {0, 41, pair[1]}}, {{0, 41, pair[1]}, {0, 0, pair[0]}}} {
			p, _ := build(t, BuildOptions{}, withCalls(t, true, "setsockopt", v[:1]))
			if !allows(p, "setsockopt", v[1]) || allows(p, "setsockopt", value{0, 0, 64}) { // IPT_SO_SET_REPLACE
				t.Errorf("seen %v: %v is denied, or all is allowed", v[0], v[1])
			}
		}
	}
}

// Each row is needed: without it some value is added no more. And each says why and where that is written.
func TestFallbacksAreNeeded(t *testing.T) {
	for i, row := range fallbacks {
		if row.text == "" || row.source == "" || len(row.add) == 0 {
			t.Errorf("row %d says not why: %+v", i, row)
		}
		add := func() int {
			n := 0
			for _, v := range append(slices.Clone(row.seen), value{1 << 20}) {
				for _, by := range []code{goCode, cCode} {
					c := &condition{values: map[value]string{v: seen}}
					c.addFallbacks(row.calls[0], by, func(call string) bool { return call == row.with })
					n += len(c.values)
				}
			}
			return n
		}
		before := add()
		all := fallbacks
		fallbacks = slices.Delete(slices.Clone(all), i, i+1)
		if after := add(); after >= before {
			t.Errorf("row %d adds nothing that others do not: %s", i, row.text)
		}
		fallbacks = all
	}
}

// Every call with conditions says why these hold elsewhere.
func TestArgumentKnowledge(t *testing.T) {
	n := map[string]int{}
	for _, k := range argumentKnowledge {
		for _, call := range k.calls {
			n[call]++
		}
		if k.why == "" {
			t.Errorf("%v: no reason", k.calls)
		}
	}
	for _, row := range argumentRows {
		for _, call := range row.names {
			if n[call] != 1 {
				t.Errorf("%s has %d entries", call, n[call])
			}
			delete(n, call)
		}
	}
	if len(n) > 0 {
		t.Errorf("no calls with conditions: %v", n)
	}
}

// More evidence never takes a value away, and the robust policy allows all that the exact one does.
func TestConditionsGrow(t *testing.T) {
	rng := rand.New(rand.NewPCG(16, 2))
	pick := map[string][]value{}
	for _, row := range fallbacks {
		for _, call := range row.calls {
			pick[call] = append(pick[call], append(slices.Clone(row.seen), row.add...)...)
		}
	}
	pick["ioctl"] = append(pick["ioctl"], value{0, 0xae00})
	pick["prctl"] = append(pick["prctl"], value{999})
	for range 200 {
		for _, call := range []string{"socket", "setsockopt", "fcntl", "ioctl", "prctl", "seccomp", "personality", "madvise"} {
			values := func() (some []value) {
				for range 1 + rng.IntN(9) {
					some = append(some, pick[call][rng.IntN(len(pick[call]))])
				}
				return some
			}
			onlyGo := rng.IntN(2) == 0
			few := withCalls(t, onlyGo, call, values())
			more := withCalls(t, onlyGo, call, values(), "connect", "bind")
			one, _ := build(t, BuildOptions{}, few)
			both, _ := build(t, BuildOptions{}, few, more)
			exact, _ := build(t, BuildOptions{Policy: PolicyExact}, few)
			for _, v := range append(pick[call], value{7, 7, 7}) {
				if allows(one, call, v) && !allows(both, call, v) {
					t.Fatalf("%s %#x is allowed by less evidence only", call, v)
				}
				if allows(exact, call, v) && !allows(one, call, v) {
					t.Fatalf("%s %#x is allowed by the exact policy only", call, v)
				}
			}
		}
	}
}

// Nothing that is added opens what Docker's default keeps closed.
func TestFallbacksStayWithinDocker(t *testing.T) {
	docker, err := seccomp.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}})
	if err != nil {
		t.Fatal(err)
	}
	var opened []string
	for _, row := range fallbacks {
		for _, call := range row.calls {
			for _, v := range row.add {
				if !allows(docker, call, v) {
					opened = append(opened, fmt.Sprintf("%s %#x", call, v))
				}
			}
		}
	}
	for _, k := range argumentKnowledge {
		for _, call := range k.calls {
			if k.known != nil && !(allows(docker, call, value{0x7ff, 0x7ff, 0x7ff}) && allows(docker, call, value{})) {
				opened = append(opened, call+", any")
			}
		}
	}
	if len(opened) > 0 {
		t.Errorf("closed in Docker's default: %s", strings.Join(opened, "; "))
	}
}
