// oci-runtime, installed as seccompgen-runc, is an OCI runtime for engines that know no hooks: runc with the hook added to
// containers that ask for a recording.
package main

import (
	"fmt"
	"os"

	"github.com/seccompgen/seccompgen/internal/wrapper"
)

func main() {
	if err := wrapper.Run(os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "seccompgen:", err)
		os.Exit(1)
	}
}
