// Kernels boots Debian's kernels under emulation, and runs commands or the acceptance of package accept in them:
//
//	go run ./test/kernels list
//	go run ./test/kernels [flags] run KERNEL COMMAND [ARGUMENT ...]
//	go run ./test/kernels [flags] accept [KERNEL ...]
//
// The guest's root is a tmpfs of busybox, runc with its libraries, and the programs under test. Kernels and userland come from
// the mirror that this machine's apt uses, by a configuration of their own, and are kept in bin/kernels. The userland is of this
// machine's own release, for which the programs were linked.
package main
