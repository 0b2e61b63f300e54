package gobin

import "testing"

func TestJoin(t *testing.T) {
	c1, c2, arg := one(konst, 1), one(konst, 2), one(regArg, 1)
	var many value
	for i := range int64(maxSet + 1) {
		many = join(many, one(konst, i))
	}
	tests := []struct {
		name    string
		a, b, w value
	}{
		{"nothing and constant", value{}, c1, c1},
		{"constant and nothing", c1, value{}, c1},
		{"same", c1, c1, c1},
		{"two constants", c2, c1, value{set: []atom{{konst, 1}, {konst, 2}}}},
		{"constant and argument", arg, c1, value{set: []atom{{konst, 1}, {regArg, 1}}}},
		{"anything", top, c1, top},
		{"anything second", c1, top, top},
		{"nothing and anything", value{}, top, top},
		{"too many", many, c1, top},
	}
	for _, tt := range tests {
		if got := join(tt.a, tt.b); !got.equal(tt.w) {
			t.Errorf("%s: join(%v, %v) = %v, want %v", tt.name, tt.a, tt.b, got, tt.w)
		}
	}
}

func TestAdd(t *testing.T) {
	two := join(one(konst, 1), one(konst, 2))
	tests := []struct{ a, b, w value }{
		{one(konst, 1), one(konst, 2), one(konst, 3)},
		{one(frame, -8), one(konst, 4), one(frame, -4)},
		{one(konst, 4), one(frame, -8), one(frame, -4)},
		{one(regArg, 0), one(konst, 0), one(regArg, 0)},
		{one(regArg, 0), one(konst, 1), top},
		{two, one(konst, 1), top},
		{top, one(konst, 1), top},
		{value{}, one(konst, 1), top},
		{one(frame, 1), one(frame, 1), top},
	}
	for _, tt := range tests {
		if got := add(tt.a, tt.b); !got.equal(tt.w) {
			t.Errorf("add(%v, %v) = %v, want %v", tt.a, tt.b, got, tt.w)
		}
	}
}

func TestStack(t *testing.T) {
	c := func(n int64) value { return one(konst, n) }
	arg := func(n int64) value { return one(stkArg, n) }
	fresh := func() *state { return &state{leakArgs: never, argsEnd: 32} }
	tests := []struct {
		name      string
		do        func(s *state)
		off, size int64
		want      value
	}{
		{"argument", func(*state) {}, 8, 8, arg(8)},
		{"return address", func(*state) {}, 0, 8, top},
		{"beyond the arguments", func(*state) {}, 32, 8, top},
		{"local not written", func(*state) {}, -8, 8, top},
		{"local", func(s *state) { s.store(-8, 8, c(1)) }, -8, 8, c(1)},
		{"lower half", func(s *state) { s.store(-8, 8, c(1)) }, -8, 4, c(1)},
		{"upper half", func(s *state) { s.store(-8, 8, c(1)) }, -4, 4, top},
		{"wider than written", func(s *state) { s.store(-8, 4, c(1)) }, -8, 8, top},
		{"written over in part", func(s *state) { s.store(-8, 8, c(1)); s.store(-4, 4, c(2)) }, -8, 8, top},
		{"zeroed sixteen bytes", func(s *state) { s.store(-16, 8, c(1)); s.store(-24, 16, top) }, -16, 8, top},
		{"argument written over", func(s *state) { s.store(8, 8, top) }, 8, 8, top},
		{"argument written over in part", func(s *state) { s.store(8, 4, c(1)) }, 8, 8, top},
		{"half of an argument stays unknown", func(s *state) { s.store(8, 16, top); s.store(8, 8, c(1)) }, 16, 8, top},
		{"forgotten", func(s *state) { s.store(-8, 8, c(1)); s.forget(-16, -7) }, -8, 8, top},
		{"forgotten below", func(s *state) { s.store(-8, 8, c(1)); s.forget(-16, -8) }, -8, 8, c(1)},
		{"forgotten arguments", func(s *state) { s.forget(-never, never) }, 8, 8, top},
		{"leaked local", func(s *state) { s.store(-8, 8, c(1)); s.leak(-16); s.forgetLeaked() }, -8, 8, top},
		{"above a leaked local, an argument", func(s *state) { s.leak(-16); s.forgetLeaked() }, 8, 8, arg(8)},
		{"below a leaked local", func(s *state) { s.store(-24, 8, c(1)); s.leak(-16); s.forgetLeaked() }, -24, 8, c(1)},
		{"leaked argument", func(s *state) { s.leak(16); s.forgetLeaked() }, 24, 8, top},
		{"argument below a leaked one", func(s *state) { s.leak(16); s.forgetLeaked() }, 8, 8, arg(8)},
		{"nothing leaked", func(s *state) { s.store(-8, 8, c(1)); s.forgetLeaked() }, -8, 8, c(1)},
		{"merged with the same", func(s *state) {
			o := fresh()
			o.store(-8, 8, c(1))
			s.store(-8, 8, c(1))
			s.merge(o)
		}, -8, 8, c(1)},
		{"merged with another", func(s *state) {
			o := fresh()
			o.store(-8, 8, c(2))
			s.store(-8, 8, c(1))
			s.merge(o)
		}, -8, 8, join(c(1), c(2))},
		{"merged with nothing known", func(s *state) { s.store(-8, 8, c(1)); s.merge(fresh()) }, -8, 8, top},
		{"argument merged with a written one", func(s *state) {
			o := fresh()
			o.store(8, 8, c(2))
			s.merge(o)
		}, 8, 8, join(arg(8), c(2))},
		{"merged with forgotten arguments", func(s *state) {
			o := fresh()
			o.forget(0, never)
			s.merge(o)
		}, 8, 8, top},
	}
	for _, tt := range tests {
		s := fresh()
		tt.do(s)
		if got := s.load(tt.off, tt.size); !got.equal(tt.want) {
			t.Errorf("%s: load(%d, %d) = %v, want %v", tt.name, tt.off, tt.size, got, tt.want)
		}
	}
}

func TestMergeComesToRest(t *testing.T) {
	a, b := &state{leakArgs: never, argsEnd: 32}, &state{leakArgs: never, argsEnd: 16}
	for off := int64(-24); off <= 24; off += 4 {
		a.store(off, 8, one(konst, off))
		b.store(off, 4, one(konst, off+1))
	}
	b.regs[3] = one(regArg, 3)
	if !a.merge(b) {
		t.Error("first merge changes nothing")
	}
	if a.merge(b) {
		t.Error("second merge of the same state changes something")
	}
}

func TestBitmask(t *testing.T) {
	tests := []struct { // encodings as the GNU assembler makes them
		w    uint32
		want int64
	}{
		{0xb2400be8, 7},                  // mov x8, #7
		{0xb24003e8, 1},                  // mov x8, #1
		{0x320003e8, 1},                  // orr w8, wzr, #1
		{0xb27f03e0, 2},                  // mov x0, #2
		{0xb200f3e0, 0x5555555555555555}, // mov x0, #0x5555555555555555
		{0xb2407fe0, 0xffffffff},         // mov x0, #0xffffffff
		{0xb27c1fe0, 0xff0},              // mov x0, #0xff0
	}
	for _, tt := range tests {
		if got := bitmask(tt.w); got != immOp(tt.want) {
			t.Errorf("bitmask(%#x) = %#x, want %#x", tt.w, got.disp, tt.want)
		}
	}
}
