//go:build !linux

package engine

import (
	"errors"
	"os"
)

func watch(string) (*os.File, error) { return nil, errors.New("containers are recorded on Linux") }
