// Package dropin writes profiles as oci-seccomp-bpf-hook does, in whose place the hook can stand: what was built is added to a
// profile in any of the formats that Podman reads, of which what is not known here is kept.
package dropin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seccompgen/seccompgen/profile"
)

// entry is a rule as oci-seccomp-bpf-hook writes it: its readers find args there.
type entry struct {
	Names    []string                 `json:"names"`
	Action   specs.LinuxSeccompAction `json:"action"`
	ErrnoRet *uint                    `json:"errnoRet,omitempty"`
	Args     []specs.LinuxSeccompArg  `json:"args"`
}

// archMapping is what the format of containers/common has in place of a list of architectures: one row a host.
type archMapping struct {
	Architecture     specs.Arch   `json:"architecture"`
	SubArchitectures []specs.Arch `json:"subArchitectures"`
}

// The keys that Extend touches. Engines read them whatever their case, so that Extend has to.
var seccompKeys = []string{"defaultAction", "architectures", "archMap", "syscalls"}

// read decodes a profile in any of the formats that Podman reads, and keeps what this package does not know.
func read(data []byte) (map[string]json.RawMessage, error) {
	raw := map[string]json.RawMessage{}
	if err := json.Unmarshal(data, &raw); err != nil {
		return nil, err
	}
	p := map[string]json.RawMessage{}
	for key, value := range raw {
		if i := slices.IndexFunc(seccompKeys, func(k string) bool { return strings.EqualFold(k, key) }); i >= 0 {
			key = seccompKeys[i]
		}
		if _, twice := p[key]; twice {
			return nil, fmt.Errorf("key %q stands twice", key)
		}
		p[key] = value
	}
	if raw == nil { // null
		return nil, errors.New("not an object")
	}
	_, err := mentioned(p)
	if err == nil {
		_, _, err = architectures(p)
	}
	return p, err
}

func get[T any](p map[string]json.RawMessage, key string) (v T, err error) {
	if raw, ok := p[key]; ok {
		if err := json.Unmarshal(raw, &v); err != nil {
			return v, fmt.Errorf("%s: %w", key, err)
		}
	}
	return v, nil
}

func put(p map[string]json.RawMessage, key string, v any) error {
	raw, err := json.Marshal(v)
	p[key] = raw
	return err
}

// mentioned returns the names that a profile has a rule for, whatever the rule says.
func mentioned(p map[string]json.RawMessage) (map[string]bool, error) {
	rules, err := get[[]struct {
		Name  string   `json:"name"` // Docker's format of old
		Names []string `json:"names"`
	}](p, "syscalls")
	names := map[string]bool{}
	for _, r := range rules {
		for _, name := range append(r.Names, r.Name) {
			names[name] = true
		}
	}
	return names, err
}

func architectures(p map[string]json.RawMessage) ([]specs.Arch, []archMapping, error) {
	list, err := get[[]specs.Arch](p, "architectures")
	rows, err2 := get[[]archMapping](p, "archMap")
	return list, rows, errors.Join(err, err2)
}

// Extend returns the profile in the input, or an empty one, with what was built added to it, as oci-seccomp-bpf-hook
// does: the default is ERRNO, the native architecture is listed, and names that the input mentions are not added, so
// that what it blocks stays blocked. Unlike there, architectures that were seen are listed too.
func Extend(input []byte, built *specs.LinuxSeccomp) ([]byte, error) {
	p := map[string]json.RawMessage{}
	if input != nil {
		var err error
		if p, err = read(input); err != nil {
			return nil, err
		}
	}
	old, err := mentioned(p)
	if err != nil {
		return nil, err
	}
	rules, err := get[[]json.RawMessage](p, "syscalls")
	if err != nil {
		return nil, err
	}
	for _, s := range built.Syscalls {
		e := entry{Names: []string{}, Action: s.Action, ErrnoRet: s.ErrnoRet, Args: []specs.LinuxSeccompArg{}}
		for _, name := range s.Names {
			if !old[name] {
				e.Names = append(e.Names, name)
			}
		}
		if len(e.Names) == 0 {
			continue
		}
		slices.Sort(e.Names)
		raw, err := json.Marshal(e)
		if err != nil {
			return nil, err
		}
		rules = append(rules, raw)
	}
	if rules == nil {
		rules = []json.RawMessage{}
	}
	if err := errors.Join(addArchitectures(p, built.Architectures), put(p, "syscalls", rules), put(p, "defaultAction", specs.ActErrno)); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(p); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// addArchitectures lists the native architecture and those seen, where the input lists its own. An input with an
// archMap gets no list beside it: containers/common refuses the two together.
func addArchitectures(p map[string]json.RawMessage, seen []specs.Arch) error {
	list, rows, err := architectures(p)
	if err != nil {
		return err
	}
	native := profile.NativeABIs()[0]
	want := append([]specs.Arch{native}, seen...)
	if len(rows) == 0 || len(list) > 0 {
		for _, arch := range want {
			if !slices.Contains(list, arch) {
				list = append(list, arch)
			}
		}
		return put(p, "architectures", list)
	}
	i := slices.IndexFunc(rows, func(r archMapping) bool { return r.Architecture == native })
	if i < 0 {
		i = len(rows)
		rows = append(rows, archMapping{native, []specs.Arch{}})
	}
	for _, arch := range want {
		if arch != native && !slices.Contains(rows[i].SubArchitectures, arch) {
			rows[i].SubArchitectures = append(rows[i].SubArchitectures, arch)
		}
	}
	delete(p, "architectures")
	return put(p, "archMap", rows)
}

// Check refuses what Extend cannot extend.
func Check(input []byte) error {
	_, err := read(input)
	return err
}

// IsProfile reports by an error whether a file's content is a profile, so that it may be replaced by one.
func IsProfile(data []byte) error {
	p, err := read(data)
	if err != nil {
		return err
	}
	if action, err := get[string](p, "defaultAction"); err != nil || !strings.HasPrefix(action, "SCMP_ACT_") {
		return errors.New("no defaultAction")
	}
	return nil
}
