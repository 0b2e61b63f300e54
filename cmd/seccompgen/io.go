package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seccompgen/seccompgen/internal/docker"
	"github.com/seccompgen/seccompgen/internal/scmp"
	"github.com/seccompgen/seccompgen/profile"
)

// This file reads what commands are given, and writes what they make.

// checkOutput says now what would fail after a long run.
func checkOutput(path string) error {
	if path == "-" || path == "" {
		return nil
	}
	if st, err := os.Stat(path); err == nil && !st.Mode().IsRegular() {
		return fmt.Errorf("output %s is not a regular file", path)
	}
	if _, err := os.Stat(filepath.Dir(path)); err != nil {
		return fmt.Errorf("output %s: %w", path, err)
	}
	return nil
}

// writeOutput writes a product to a file, whole or not at all, or to standard output.
func writeOutput(stdout io.Writer, path string, encode func(io.Writer) error) error {
	var b bytes.Buffer
	if err := encode(&b); err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	if path == "-" {
		_, err := stdout.Write(b.Bytes())
		return err
	}
	return writeBytes(path, b.Bytes())
}

func writeBytes(path string, data []byte) error {
	if err := renameio.WriteFile(path, data, 0o644); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// openInput opens a file or, for "-", standard input.
func openInput(path string) (io.ReadCloser, error) {
	if path == "-" {
		return io.NopCloser(os.Stdin), nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// readFile reads a file with one of profile's readers, and names it in the error.
func readFile[T any](path string, read func(io.Reader) (*T, error)) (*T, error) {
	f, err := openInput(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	v, err := read(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return v, nil
}

// readProfile reads a profile in runtime-spec's format or in Docker's, which it resolves for this host and for Docker's
// default capabilities. It returns the bytes too.
func readProfile(path string) (*specs.LinuxSeccomp, []byte, error) {
	f, err := openInput(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", path, err)
	}
	p, err := profile.ReadProfile(bytes.NewReader(data))
	if err != nil && isDockers(data) {
		p, err = seccomp.LoadProfile(string(data), docker.Spec())
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(p.Architectures) == 0 { // runtimes take this host's
		native, err := scmp.Native()
		if err != nil {
			return nil, nil, err
		}
		p.Architectures = []specs.Arch{native}
	}
	return p, data, nil
}

// isDockers reports whether a profile has keys of Docker's format.
func isDockers(data []byte) bool {
	var keys struct {
		DefaultAction specs.LinuxSeccompAction `json:"defaultAction"`
		ArchMap       json.RawMessage          `json:"archMap"`
		Syscalls      []map[string]json.RawMessage
	}
	if json.Unmarshal(data, &keys) != nil || keys.DefaultAction == "" {
		return false
	}
	for _, s := range keys.Syscalls {
		for _, key := range []string{"comment", "includes", "excludes", "name"} {
			if _, has := s[key]; has {
				return true
			}
		}
	}
	return keys.ArchMap != nil
}

// whyBeside returns where the reasons of a profile are looked for first.
func whyBeside(path string) string { return strings.TrimSuffix(path, ".json") + ".why.json" }
