// Package wrapper is the OCI runtime seccompgen-RUNTIME, for engines that know no hooks: it checks whether a container
// being created asks for a recording. If so oci-hook adds the hook to its configuration; all else is handed to RUNTIME as it is.
//
// Engines call a runtime five times and more for a container, and most containers ask for nothing: this imports
// little, so that it starts fast.
package wrapper

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/seccompgen/seccompgen/internal/annotation"
)

// prefix begins the names under which programs are runtimes: seccompgen-runc is runc with the hook.
const prefix = "seccompgen-"

// RuntimeOf returns the runtime that a program's name stands for.
func RuntimeOf(argv0 string) (string, bool) {
	return strings.CutPrefix(filepath.Base(argv0), prefix)
}

// MaxConfig bounds a configuration.
const MaxConfig = 64 << 20

// ReadConfig reads the configuration of a bundle.
func ReadConfig(bundle string) ([]byte, error) {
	path := filepath.Join(bundle, "config.json")
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxConfig+1))
	if err == nil && len(data) > MaxConfig {
		err = fmt.Errorf("%s is larger than %d bytes", path, MaxConfig)
	}
	return data, err
}

// Created returns the bundle of a runtime's command line that creates a container.
func Created(args []string) (bundle string, ok bool) {
	for i, arg := range args {
		if arg != "create" && arg != "run" {
			continue
		}
		bundle = "."
		for rest := args[i+1:]; len(rest) > 0; rest = rest[1:] {
			name, value, has := strings.Cut(rest[0], "=")
			if name != "--bundle" && name != "-bundle" && name != "-b" {
				continue
			}
			if !has && len(rest) > 1 {
				value = rest[1]
			}
			bundle = value
		}
		return bundle, true
	}
	return "", false
}

// Run becomes oci-hook for a container that is created and asks, and the runtime for all else.
func Run(argv []string) error {
	name, ok := RuntimeOf(argv[0])
	if !ok || name == "" {
		return fmt.Errorf("%s is not the name of a runtime: it is called as seccompgen-runc, which is runc with the hook", argv[0])
	}
	if bundle, ok := Created(argv[1:]); ok {
		// What cannot be read is the runtime's to complain about.
		if config, err := ReadConfig(bundle); err == nil && annotation.Asks(config) {
			self, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find this program: %w", err)
			}
			hook := filepath.Join(filepath.Dir(self), "oci-hook")
			return fmt.Errorf("execute %s: %w", hook, syscall.Exec(hook, argv, os.Environ()))
		}
	}
	return Become(name, argv[1:])
}

// Become executes a runtime. It returns only with an error.
func Become(runtime string, args []string) error {
	path, err := exec.LookPath(runtime)
	if err != nil {
		return fmt.Errorf("find the runtime: %w", errors.Unwrap(err))
	}
	return fmt.Errorf("execute %s: %w", path, syscall.Exec(path, append([]string{path}, args...), os.Environ()))
}
