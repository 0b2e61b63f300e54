package gotest

import (
	"fmt"
	"slices"
	"strings"
)

// Several reports whether the words of a command line are patterns that may name more than one package.
func Several(words []string) bool {
	return len(words) > 1 || slices.ContainsFunc(words, func(w string) bool {
		return strings.Contains(w, "...") || slices.Contains([]string{"all", "std", "cmd", "work", "tool"}, w)
	})
}

// taken are go test's flags with which it would not run all tests, or not let them be run here, or not print what is read here.
var taken = []string{"c", "exec", "failfast", "json", "n", "o", "p"}

// CheckFlags refuses the flags of go test that are taken here.
func CheckFlags(flags []string) error {
	for _, f := range flags {
		if f == "-args" || f == "--args" {
			return nil
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(f, "-"), "-"), "=")
		if strings.HasPrefix(f, "-") && slices.Contains(taken, name) {
			return fmt.Errorf("%s cannot follow -- with several packages", f)
		}
	}
	return nil
}

// binaryFlags takes out of a test binary's arguments what go test adds for itself, and what those add who run the binary.
func binaryFlags(args []string) []string {
	var flags []string
	for i, a := range args {
		if a == "-test.paniconexit0" || a == "-test.timeout=0s" || a == "-test.count=1" {
			continue
		}
		name, _, _ := strings.Cut(a, "=")
		if name == "-test.testlogfile" || name == "-test.v" {
			continue
		}
		if !strings.HasPrefix(a, "-test.") { // the rest are the tests' own
			return append(flags, args[i:]...)
		}
		flags = append(flags, a)
	}
	return flags
}

// packageLine reads go test's line about a package's tests. pkg is "" for another line. built is false where the tests did not
// come to run.
func packageLine(line string) (pkg string, built bool) {
	line = strings.TrimSuffix(line, "\n")
	status, rest, ok := strings.Cut(line, "\t")
	if !ok || status != "ok  " && status != "FAIL" {
		return "", true
	}
	pkg, _, _ = strings.Cut(rest, "\t")
	for _, why := range []string{" [build failed]", " [setup failed]"} {
		if name, ok := strings.CutSuffix(rest, why); ok && status == "FAIL" {
			return name, false
		}
	}
	return pkg, true
}
