// oci-hook is the OCI hook of seccompgen: an OCI runtime runs it at createRuntime (or prestart) and at poststop. It is
// static, starts in milliseconds and is gone before the container runs.
//
// seccompgen-RUNTIME, see cmd/oci-runtime, executes it under its own name to add the hook to a container that asks for a
// recording: it becomes RUNTIME then.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/moby/sys/reexec"

	"github.com/seccompgen/seccompgen/internal/hook"
	"github.com/seccompgen/seccompgen/internal/wrapper"
)

func main() {
	if reexec.Init() { // it reads a program that ran in a container
		return
	}
	var err error
	if runtime, ok := wrapper.RuntimeOf(os.Args[0]); ok {
		err = hook.Runtime(runtime, os.Args[1:])
	} else {
		err = hook.Run(os.Args[1:], os.Stdin, os.Stderr)
	}
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "seccompgen:", err)
		os.Exit(1)
	}
}
