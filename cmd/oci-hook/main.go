// oci-hook is the OCI hook of seccompgen: an OCI runtime runs it at createRuntime (or prestart) and at poststop. It is
// static, starts in milliseconds and is gone before the container runs.
//
// Under the name seccompgen-RUNTIME it is an OCI runtime, for engines that know no hooks: RUNTIME with the hook added to
// containers that ask for a recording.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/seccompgen/seccompgen/internal/hook"
)

func main() {
	var err error
	if runtime, ok := hook.RuntimeOf(os.Args[0]); ok {
		err = hook.Runtime(runtime, os.Args[1:])
	} else {
		err = hook.Run(os.Args[1:], os.Stdin, os.Stderr)
	}
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "seccompgen:", err)
		os.Exit(1)
	}
}
