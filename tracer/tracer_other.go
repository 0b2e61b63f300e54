//go:build !linux || !(amd64 || arm64)

package tracer

import (
	"fmt"
	"io"
	"runtime"

	"github.com/seccompgen/seccompgen/profile"
)

var errOther = fmt.Errorf("%w: recording needs Linux on amd64 or arm64, this is %s on %s", ErrUnsupported, runtime.GOOS, runtime.GOARCH)

// Check returns [ErrUnsupported].
func Check() error { return errOther }

// Start returns [ErrUnsupported].
func Start(string, int, Options) error { return errOther }

// Collect returns [ErrUnsupported].
func Collect(string, func(*profile.Recording) error) error { return errOther }

// Watch returns [ErrUnsupported].
func Watch(string) (func() uint64, error) { return nil, errOther }

// Peek returns [ErrUnsupported].
func Peek(string) (*profile.Recording, error) { return nil, errOther }

// Abort returns [ErrUnsupported].
func Abort(string) error { return errOther }

// AbortAll returns [ErrUnsupported].
func AbortAll() error { return errOther }

// Try returns [ErrUnsupported].
func Try() error { return errOther }

// Hold returns [ErrUnsupported].
func Hold() (io.Closer, error) { return nil, errOther }

// List returns [ErrUnsupported].
func List() ([]Status, error) { return nil, errOther }

// Others returns [ErrUnsupported].
func Others() ([]string, error) { return nil, errOther }
