// Package profile turns recordings of system calls into seccomp profiles. It is pure: no kernel, no cgo, no clock, the
// same input gives the same bytes on any host. It owns the types that the other packages exchange.
//
// What surprises: runtime-spec lists names for all architectures of a profile together, so that a call seen on one ABI
// is allowed on the profile's other ABIs too; why.json says on which one it was seen. Numbers, not names, are
// evidence: a recording's names are for its readers.
package profile
