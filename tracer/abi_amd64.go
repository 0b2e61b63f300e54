//go:build linux

package tracer

import "github.com/opencontainers/runtime-spec/specs-go"

// abis are the names of enum abi on this kernel.
var abis = [recorderAbiABIS]specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}
