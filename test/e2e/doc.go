// Package e2e holds the end-to-end tests: the built programs, real OCI runtimes and real containers.
//
// As root all of it runs in a mount namespace of its own, with an empty /sys/fs/bpf and an empty /var/lib/seccompgen, so
// that recordings of the same host which are none of ours neither disturb nor are disturbed, and so that "nothing stays
// behind" can be asked. What needs root, a runtime or a compiler that is not there is skipped, and says so.
package e2e
