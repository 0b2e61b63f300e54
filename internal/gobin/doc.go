// Package gobin reads from a Go ELF binary which system calls it can make.
//
// [ReadInfo] gives what the binary says of itself. [Analyze] gives its static reach: it finds every instruction in
// the machine code that enters the kernel and follows the flow of data back, over registers, stack slots and
// function calls, to the constants that become the system call's number. [GoRuntime] picks from that what the Go
// runtime does on its own, at any moment, so that a recording may lack it by chance.
//
// The linker has already removed what the program cannot reach, so that the reach is small: about a hundred calls for
// a large program. It is a superset of what the binary's own code can do as long as [Reach].Unresolved is empty:
// where a number is computed, read through a pointer, or passed by callers that are not known (a function value, a
// method of an interface), the place is reported there and never guessed.
//
// Stripped binaries and position-independent executables are as good as others: bounds and names of functions
// come from the table that the runtime needs for its own stack traces. amd64, 386 and arm64 are understood, 386 only
// at a fixed address. Binaries older than Go 1.18 are not.
//
// What it cannot see:
//
//   - Child processes. That the binary can fork and execute is all there is to know.
//   - C libraries. In a cgo program that is dynamically linked most of the calls are made by libc and are not
//     in the file. C code within the file is followed as well as Go code, as far as the symbol table names it, but C
//     compilers do things that Go's does not; expect unresolved places in statically linked libraries.
//   - The vDSO and restart_syscall, which are the kernel's code and run in the name of the process. [GoRuntime] adds them.
//   - Code made at run time, plugins, and system calls made by another instruction than the machine's usual ones.
//
// A number in a package variable is its initial value or anything that is stored to it directly. A variable of which
// any part has its address taken is reported, and one whose bounds no symbol tells is reported always, but for those that
// the standard library and golang.org/x/sys/unix keep the number of fcntl in.
//
// Names are those of the functions in the machine code: a function that was inlined appears under the name of the
// one it was inlined into. The order of everything is fixed: the same binary always gives the same result.
package gobin
