// Package scmp asks this host's libseccomp. OCI runtimes resolve a profile's names with it, and silently leave out
// those that it does not know: for an allowlist that means that they are denied.
package scmp

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	libseccomp "github.com/seccomp/libseccomp-golang"
)

// ErrUnknownName says that a profile allows a call that this host's libseccomp has no name for.
var ErrUnknownName = errors.New("libseccomp does not know the name")

// Version is the version of the libseccomp that this process is linked with.
func Version() string {
	major, minor, micro := libseccomp.GetLibraryVersion()
	return fmt.Sprintf("%d.%d.%d", major, minor, micro)
}

// UnknownNames returns the names in a profile that this host's libseccomp does not know: those that the profile
// allows, which would be denied, and those of its other entries, which would get the default action.
func UnknownNames(p *specs.LinuxSeccomp) (allowed, others []string) {
	for _, s := range p.Syscalls {
		for _, name := range s.Names {
			if _, err := libseccomp.GetSyscallFromName(name); err == nil {
				continue
			}
			if s.Action == specs.ActAllow || s.Action == specs.ActLog {
				allowed = append(allowed, name)
			} else {
				others = append(others, name)
			}
		}
	}
	slices.Sort(allowed)
	slices.Sort(others)
	return slices.Compact(allowed), slices.Compact(others)
}

// CheckNames returns an error that wraps [ErrUnknownName] if a call that the profile allows would be denied here.
func CheckNames(p *specs.LinuxSeccomp) error {
	if allowed, _ := UnknownNames(p); len(allowed) > 0 {
		return fmt.Errorf("%w %s: this host has libseccomp %s, and runtimes that use it deny a call that it does not know: "+
			"use a newer libseccomp, or take the call out of the profile", ErrUnknownName, strings.Join(allowed, ", "), Version())
	}
	return nil
}
