// oci-hook is the OCI hook of seccompgen: an OCI runtime runs it at createRuntime (or prestart) and at poststop. It is
// static, starts in milliseconds and is gone before the container runs.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/seccompgen/seccompgen/internal/hook"
)

func main() {
	err := hook.Run(os.Args[1:], os.Stdin, os.Stderr)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "seccompgen:", err)
		os.Exit(1)
	}
}
