package record

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"

	"github.com/seccompgen/seccompgen/internal/gobin"
	"github.com/seccompgen/seccompgen/profile"
)

// testFunction matches a test on a stack: the function itself or one within it.
var testFunction = regexp.MustCompile(`\.((?:Test|Benchmark|Fuzz|Example)[^a-z.(][^.(]*)(?:\.|$)`)

// Resolve names the functions on the stacks of the recording's callers, as far as they were in the given Go binary.
func Resolve(r *profile.Recording, binary string) error {
	symbols, err := gobin.ReadSymbols(binary)
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, gobin.ErrNotGo) || err == nil && !symbols.Fixed() {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the functions of %s: %w", binary, err)
	}
	exe := filepath.Base(binary)
	for i := range r.Syscalls {
		for j := range r.Syscalls[i].Callers {
			c := &r.Syscalls[i].Callers[j]
			if c.Exe == "" || c.Exe != exe[:min(len(exe), len(c.Exe))] || len(c.Exe) != min(len(exe), maxExe) {
				continue
			}
			for n, pc := range c.PCs {
				if n > 0 {
					pc-- // all but the first are where a call returns to
				}
				name := symbols.Func(pc)
				if name == "" {
					break // what follows is no frame of this program
				}
				c.Stack = append(c.Stack, name)
				if m := testFunction.FindStringSubmatch(name); m != nil {
					c.Test = m[1]
				}
			}
			c.PCs = nil
		}
	}
	return nil
}

// maxExe is how much of an executable's name the recorder keeps.
const maxExe = 31
