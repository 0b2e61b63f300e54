//go:build linux

package tracer

import "github.com/opencontainers/runtime-spec/specs-go"

// abis are the names of enum abi on this kernel; it has no third one.
var abis = [recorderAbiABIS]specs.Arch{specs.ArchAARCH64, specs.ArchARM, ""}
