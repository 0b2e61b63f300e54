// Package hooksd holds the hook files for engines that read a hooks.d, so that seccompgen can install them.
package hooksd

import "embed"

// Files are podman/*.json and crio/*.json. They call the hook at Hook.
//
//go:embed podman/*.json crio/*.json
var Files embed.FS

// Hook is where make install puts the hook.
const Hook = "/usr/local/libexec/seccompgen/oci-hook"
