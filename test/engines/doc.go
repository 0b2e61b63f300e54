// Package engines holds the tests of the hook in real container engines, with the hook files of hooks.d.
//
// They run as root in a mount namespace of their own, with a bpffs and a /var/lib/seccompgen of their own, and the
// engines with directories of their own: neither the host's containers nor its recordings are touched. What needs root
// or an engine that is not there is skipped, and says so.
package engines
