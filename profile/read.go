package profile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// This file reads and writes profiles, runtime-spec linux.seccomp.

// Encode writes a profile as runtime-spec linux.seccomp.
func Encode(p *specs.LinuxSeccomp) ([]byte, error) {
	var b bytes.Buffer
	if err := WriteJSON(&b, p); err != nil {
		return nil, fmt.Errorf("encode the profile: %w", err)
	}
	return b.Bytes(), nil
}

// ReadProfile decodes a profile, runtime-spec linux.seccomp.
func ReadProfile(from io.Reader) (*specs.LinuxSeccomp, error) {
	data, err := io.ReadAll(from)
	if err != nil {
		return nil, fmt.Errorf("read profile: %w", err)
	}
	if err := checkJSON(data); err != nil {
		return nil, err
	}
	var p specs.LinuxSeccomp
	if err := strictJSON(data, &p); err != nil {
		return nil, fmt.Errorf("profile is not runtime-spec linux.seccomp (Docker's format has more keys): %w", err)
	}
	if p.DefaultAction == "" {
		return nil, errors.New("profile has no defaultAction")
	}
	for _, s := range p.Syscalls {
		if len(s.Names) == 0 || s.Action == "" {
			return nil, errors.New("profile has an entry without names or action")
		}
	}
	return &p, nil
}

// checkJSON refuses what runtimes cannot read, and says where it is. They take neither a byte order mark nor comments.
func checkJSON(data []byte) error {
	if bytes.HasPrefix(data, []byte("\xef\xbb\xbf")) {
		return errors.New("profile is not whole JSON: line 1, column 1: a byte order mark, which runtimes refuse: write the file without")
	}
	var whole json.RawMessage
	var syntax *json.SyntaxError
	if err := json.Unmarshal(data, &whole); errors.As(err, &syntax) {
		before := data[:max(min(int(syntax.Offset), len(data))-1, 0)]
		column := len(before) - bytes.LastIndexByte(before, '\n')
		return fmt.Errorf("profile is not whole JSON: line %d, column %d: %w (runtimes take no comments)", bytes.Count(before, []byte("\n"))+1, column, err)
	}
	return nil
}

// Allowed returns the names of the calls that get through a profile, with any or with some arguments, sorted. Where the default
// lets through these are all names that a listed ABI has.
func Allowed(p *specs.LinuxSeccomp) []string {
	r := Resolve(p)
	all := r.Names()
	abis := r.ABIs
	if len(abis) == 0 { // the native one
		abis = ABIs()
	}
	if r.Default.reach() == 2 {
		for _, abi := range abis {
			all = append(all, r.callsOf(abi)...)
		}
	}
	slices.Sort(all)
	return slices.DeleteFunc(slices.Compact(all), func(name string) bool {
		return !slices.ContainsFunc(abis, func(abi specs.Arch) bool { return r.lets(abi, name) })
	})
}
