// Program cases makes system calls in ways that are easy, hard and impossible to see in machine code.
// Each function has numbers of its own, which no kernel knows. The tests only read the binary.
package main

import (
	"os"
	"reflect"
	"sync/atomic"
	"syscall"
)

//go:noinline
func direct() { syscall.Syscall(1001, 0, 0, 0) }

//go:noinline
func wrap2(nr uintptr) { syscall.RawSyscall(nr, 0, 0, 0) }

//go:noinline
func wrap1(pad int, nr uintptr) { wrap2(nr); use(pad) }

//go:noinline
func wrapped() { wrap1(1, 1002) }

//go:noinline
func branches() {
	nr := uintptr(1003)
	if len(os.Args) > 1 {
		nr = 1004
	}
	syscall.Syscall6(nr, 0, 0, 0, 0, 0, 0)
}

//go:noinline
func cases() {
	var nr uintptr
	switch len(os.Args) {
	case 0:
		nr = 1010
		use(1)
	case 1:
		nr = 1011
		use(2)
	case 2:
		nr = 1012
		use(3)
	case 3:
		nr = 1013
		use(4)
	case 4:
		nr = 1014
		use(5)
	case 5:
		nr = 1015
		use(6)
	case 6:
		nr = 1016
		use(7)
	case 7:
		nr = 1017
		use(8)
	default:
		return
	}
	syscall.Syscall(nr, 0, 0, 0)
}

//go:noinline
func jumpTable() {
	switch len(os.Args) {
	case 0:
		syscall.Syscall(1020, 0, 0, 0)
	case 1:
		syscall.Syscall(1021, 0, 0, 0)
	case 2:
		syscall.Syscall(1022, 0, 0, 0)
	case 3:
		syscall.Syscall(1023, 0, 0, 0)
	case 4:
		syscall.Syscall(1024, 0, 0, 0)
	case 5:
		syscall.Syscall(1025, 0, 0, 0)
	case 6:
		syscall.Syscall(1026, 0, 0, 0)
	case 7:
		syscall.Syscall(1027, 0, 0, 0)
	case 8:
		syscall.Syscall(1028, 0, 0, 0)
	}
}

var fixed uintptr = 1030

//go:noinline
func variable() { syscall.Syscall(fixed, 0, 0, 0) }

var stored uintptr = 1031

//go:noinline
func store() { stored = 1032 }

//go:noinline
func variableStored() { syscall.Syscall(stored, 0, 0, 0) }

type pair struct{ a, nr uintptr }

//go:noinline
func takesStruct(p pair) { syscall.Syscall(p.nr, p.a, 0, 0) }

//go:noinline
func structArg() { takesStruct(pair{1, 1033}) }

//go:noinline
func deferred() {
	defer syscall.Syscall(1034, 0, 0, 0)
	use(1)
}

//go:noinline
func started() { go wrap2(1035) }

//go:noinline
func bigFrame() {
	var buf [100000]byte
	fill(buf[:])
	wrap1(int(buf[5]), 1036)
}

//go:noinline
func recursive(n int, nr uintptr) {
	if n > 0 {
		recursive(n-1, nr)
		recursive(n-2, 1038)
	}
	syscall.Syscall(nr, 0, 0, 0)
}

func generic[T any](v T, nr uintptr) T {
	syscall.Syscall(nr, 0, 0, 0)
	return v
}

//go:noinline
func callsGeneric() { use(generic(1, 1039)) }

// What follows cannot be resolved, and must be reported.

//go:noinline
func computed() { syscall.Syscall(uintptr(len(os.Args)), 0, 0, 0) }

//go:noinline
func change(p *uintptr) { *p = uintptr(len(os.Args)) }

//go:noinline
func throughPointer() {
	nr := uintptr(1040)
	change(&nr)
	syscall.Syscall(nr, 0, 0, 0)
}

//go:noinline
func viaResult() { syscall.Syscall(result(), 0, 0, 0) }

//go:noinline
func result() uintptr { return 1041 }

//go:noinline
func element() { syscall.Syscall([]uintptr{1042, 1043, 1044}[len(os.Args)], 0, 0, 0) }

//go:noinline
func local() {
	var a [8]uintptr
	for i := range a {
		a[(i+len(os.Args))%8] = uintptr(1045 + i)
	}
	syscall.Syscall(a[3], 0, 0, 0)
}

//go:noinline
func closure(nr uintptr) func() {
	return func() { syscall.Syscall(nr, 0, 0, 0) }
}

var function = asValue

//go:noinline
func asValue(nr uintptr) { syscall.Syscall(nr, 0, 0, 0) }

type caller interface{ call(nr uintptr) }

type impl struct{ n int }

//go:noinline
func (i *impl) call(nr uintptr) { syscall.Syscall(nr, 0, 0, 0); use(i.n) }

type other struct{}

func (other) call(uintptr) {}

var assigned uintptr = 1050

//go:noinline
func assign() { assigned = uintptr(len(os.Args)) }

//go:noinline
func variableAssigned() { syscall.Syscall(assigned, 0, 0, 0) }

var pointed uintptr = 1051

//go:noinline
func variablePointed() { change(&pointed); syscall.Syscall(pointed, 0, 0, 0) }

var inStruct = pair{1, 1054}

//go:noinline
func changePair(p *pair) { p.nr = uintptr(len(os.Args)) }

//go:noinline
func variableInStruct() { changePair(&inStruct); syscall.Syscall(inStruct.nr, 0, 0, 0) }

var array [4]uintptr

//go:noinline
func setElement() { array[len(os.Args)&3] = 1055 }

//go:noinline
func variableInArray() { setElement(); syscall.Syscall(array[1], 0, 0, 0) }

//go:noinline
func viaChannel() {
	c := make(chan uintptr, 1)
	c <- 1056
	syscall.Syscall(<-c, 0, 0, 0)
}

//go:noinline
func viaMap() {
	syscall.Syscall(map[int]uintptr{1: 1057, 2: 1058}[len(os.Args)], 0, 0, 0)
}

var anything any = uintptr(1059)

//go:noinline
func viaInterface() {
	if nr, ok := anything.(uintptr); ok {
		syscall.Syscall(nr, 0, 0, 0)
	}
}

var counter atomic.Uintptr

//go:noinline
func viaAtomic() {
	counter.Store(1060)
	syscall.Syscall(counter.Add(1), 0, 0, 0)
}

//go:noinline
func viaReflection() {
	syscall.Syscall(uintptr(reflect.ValueOf(anything).Uint()), 0, 0, 0)
}

//go:noinline
func viaString() { syscall.Syscall(1000+uintptr(os.Args[0][0]), 0, 0, 0) }

//go:noinline
func use(int) {}

//go:noinline
func fill(b []byte) {
	for i := range b {
		b[i] = byte(len(os.Args))
	}
}

func main() {
	direct()
	wrapped()
	branches()
	cases()
	jumpTable()
	variable()
	store()
	variableStored()
	structArg()
	deferred()
	started()
	bigFrame()
	recursive(len(os.Args), 1037)
	callsGeneric()
	computed()
	throughPointer()
	viaResult()
	element()
	local()
	closure(1049)()
	function = map[bool]func(uintptr){true: asValue, false: wrap2}[len(os.Args) > 2]
	function(1052)
	var c caller = other{}
	if len(os.Args) > 3 {
		c = &impl{3}
	}
	c.call(1053)
	assign()
	variableAssigned()
	variablePointed()
	variableInStruct()
	variableInArray()
	viaChannel()
	viaMap()
	viaInterface()
	viaAtomic()
	viaReflection()
	viaString()
}
