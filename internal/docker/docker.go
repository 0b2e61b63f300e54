// Package docker resolves Docker's default profile, whose rules depend on capabilities, architecture and kernel.
package docker

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seccompgen/seccompgen/profile"
)

// Capabilities are those that Docker, and Podman and containerd too, give to containers by default (moby,
// daemon/pkg/oci/caps/defaults.go).
var Capabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP",
	"CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

// Spec has these capabilities.
func Spec() *specs.Spec { return withCapabilities(Capabilities) }

func withCapabilities(bounding []string) *specs.Spec {
	return &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: bounding}}}
}

// Common returns the capabilities that the containers of all recordings had; one that does not know them is taken to have
// Docker's default ones, and so are those of no recording.
func Common(recordings []*profile.Recording) []string {
	if len(recordings) == 0 {
		return slices.Clone(Capabilities)
	}
	var common []string
	for i, r := range recordings {
		had := r.Capabilities
		if had == nil {
			had = Capabilities
		}
		if i == 0 {
			common = slices.Clone(had)
		}
		common = slices.DeleteFunc(common, func(c string) bool { return !slices.Contains(had, c) })
	}
	return common
}

// For returns Docker's default profile for a container on this host.
func For(spec *specs.Spec) (*specs.LinuxSeccomp, error) {
	process := *spec.Process
	if process.Capabilities == nil { // which GetDefaultProfile does not expect
		process.Capabilities = &specs.LinuxCapabilities{}
	}
	p, err := seccomp.GetDefaultProfile(&specs.Spec{Process: &process})
	if err != nil {
		return nil, fmt.Errorf("resolve Docker's default profile: %w", err)
	}
	return p, nil
}

// arches are Docker's names of the architectures to which its rules are limited.
var arches = map[specs.Arch]string{
	specs.ArchX86_64: "amd64", specs.ArchX86: "x86", specs.ArchX32: "x32", specs.ArchAARCH64: "arm64", specs.ArchARM: "arm",
}

// Default returns Docker's default profile for a bounding set of capabilities, the kernel of this host and the given ABIs, whichever
// host these are of.
func Default(abis []specs.Arch, capabilities []string) (*specs.LinuxSeccomp, error) {
	p := seccomp.DefaultProfile()
	names := func(limits []string) bool {
		return slices.ContainsFunc(abis, func(abi specs.Arch) bool { return slices.Contains(limits, arches[abi]) })
	}
	p.Syscalls = slices.DeleteFunc(p.Syscalls, func(s *seccomp.Syscall) bool {
		drop := s.Includes != nil && len(s.Includes.Arches) > 0 && !names(s.Includes.Arches) || s.Excludes != nil && names(s.Excludes.Arches)
		for _, f := range []*seccomp.Filter{s.Includes, s.Excludes} {
			if f != nil {
				f.Arches = nil
			}
		}
		return drop
	})
	p.ArchMap = nil
	data, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encode Docker's default profile: %w", err)
	}
	resolved, err := seccomp.LoadProfile(string(data), withCapabilities(capabilities))
	if err != nil {
		return nil, fmt.Errorf("resolve Docker's default profile: %w", err)
	}
	resolved.Architectures = abis
	return resolved, nil
}
