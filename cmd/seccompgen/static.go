package main

import (
	"errors"
	"fmt"

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

func staticCall(abi string, nr int, text string, functions []string) profile.StaticCall {
	if functions == nil {
		functions = []string{}
	}
	a := specs.Arch(abi)
	return profile.StaticCall{ABI: a, Nr: uint32(nr), Name: profile.Name(a, uint32(nr)), Text: text, Functions: functions}
}
