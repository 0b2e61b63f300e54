// Command skips reads what go test -json said, names the tests that were skipped, and fails if one was for another reason
// than that the host runs no 32-bit programs.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/seccompgen/seccompgen/test/lab"
)

func main() {
	status, err := run(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "skips:", err)
		status = 1
	}
	os.Exit(status)
}

func run(path string) (status int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 1, err
	}
	defer f.Close()
	said := map[string]string{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e struct{ Action, Package, Test, Output string }
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return 1, fmt.Errorf("%s: %w", path, err)
		}
		test := e.Package + " " + e.Test
		said[test] += e.Output
		if e.Action != "skip" || e.Test == "" {
			continue
		}
		if strings.Contains(said[test], lab.NoCompat) {
			fmt.Printf("NOT TESTED on this host: %s: it runs no 32-bit programs\n", test)
			continue
		}
		fmt.Printf("skipped: %s\n%s", test, said[test])
		status = 1
	}
	return status, lines.Err()
}
