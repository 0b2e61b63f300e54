package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seccompgen/seccompgen/internal/gobin"
	"github.com/seccompgen/seccompgen/profile"
)

// analyze returns what the machine code of a Go binary can call; nil for a binary that cannot be analyzed.
func analyze(path string) (*profile.Static, error) {
	reach, err := gobin.Analyze(path)
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, gobin.ErrNotGo) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("analyze %s: %w", path, err)
	}
	s := &profile.Static{Closure: []profile.StaticCall{}, Reachable: []profile.StaticCall{}, Unresolved: []string{}}
	for _, c := range gobin.Closure(reach) {
		if c.Default {
			s.Closure = append(s.Closure, staticCall(c.ABI, c.Number, c.Reason+" ("+string(c.Category)+")", c.Funcs))
		}
	}
	for _, c := range reach.Calls {
		s.Reachable = append(s.Reachable, staticCall(c.ABI, c.Number, "", c.Funcs))
	}
	for _, u := range reach.Unresolved {
		s.Unresolved = append(s.Unresolved, u.Func)
	}
	return s, nil
}

// testFunction matches a test on a stack: the function itself or one within it.
var testFunction = regexp.MustCompile(`\.((?:Test|Benchmark|Fuzz|Example)[^a-z.(][^.(]*)(?:\.|$)`)

// resolve names the functions on the stacks of the recording's callers, as far as they were in the given Go binary.
func resolve(r *profile.Recording, binary string) error {
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

func staticCall(abi string, nr int, text string, functions []string) profile.StaticCall {
	if functions == nil {
		functions = []string{}
	}
	a := specs.Arch(abi)
	return profile.StaticCall{ABI: a, Nr: uint32(nr), Name: profile.Name(a, uint32(nr)), Text: text, Functions: functions}
}
