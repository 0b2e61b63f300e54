package gobin

import (
	"debug/buildinfo"
	"debug/elf"
	"errors"
	"fmt"
	"os"
)

// ErrNotGo is what errors wrap when a file is no ELF binary made by Go.
var ErrNotGo = errors.New("not a Go ELF binary")

// Info is what a Go binary says of itself. What it does not say stays empty.
// The go line of its go.mod is not among it: the build information does not hold that.
type Info struct {
	GoVersion     string // the toolchain, such as "go1.26.8"
	Path          string // of the main package; that of a test binary ends in ".test"
	Module        string // the main module; empty for the standard library
	ModuleVersion string // "(devel)" if built from a working copy
	GODEBUG       string // the DefaultGODEBUG build setting: what go.mod and //go:debug lines ask for, "k=v,k=v"
	GOOS, GOARCH  string
	CGOEnabled    bool // whether the build could use cgo, not whether it did
	Dynamic       bool // linked against shared libraries, so that calls are made by code outside of the file
}

// ReadInfo reads the build information of the Go binary at path.
func ReadInfo(path string) (Info, error) {
	f, err := os.Open(path)
	if err == nil {
		defer f.Close()
		return ReadFileInfo(f)
	}
	return Info{}, fmt.Errorf("read build information of %q: %w", path, err)
}

// ReadFileInfo is ReadInfo of an open file.
func ReadFileInfo(f *os.File) (Info, error) {
	info, err := readInfo(f)
	if err != nil {
		return Info{}, fmt.Errorf("read build information of %q: %w", f.Name(), err)
	}
	return info, nil
}

func readInfo(f *os.File) (Info, error) {
	ef, err := elf.NewFile(f)
	if err != nil {
		return Info{}, fmt.Errorf("%w: %w", ErrNotGo, err)
	}
	defer ef.Close()
	bi, err := buildinfo.Read(f)
	if err != nil {
		return Info{}, fmt.Errorf("%w: %w", ErrNotGo, err)
	}
	info := Info{GoVersion: bi.GoVersion, Path: bi.Path, Module: bi.Main.Path, ModuleVersion: bi.Main.Version}
	for _, s := range bi.Settings {
		switch s.Key {
		case "DefaultGODEBUG":
			info.GODEBUG = s.Value
		case "GOOS":
			info.GOOS = s.Value
		case "GOARCH":
			info.GOARCH = s.Value
		case "CGO_ENABLED":
			info.CGOEnabled = s.Value == "1"
		}
	}
	for _, p := range ef.Progs {
		if p.Type == elf.PT_INTERP {
			info.Dynamic = true
		}
	}
	if libs, err := ef.ImportedLibraries(); err == nil && len(libs) > 0 {
		info.Dynamic = true
	}
	return info, nil
}
