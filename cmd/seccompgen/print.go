package main

import (
	"fmt"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// This file holds the ways in which all commands print the same things.

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	if strings.HasSuffix(word, "s") {
		return fmt.Sprintf("%d %ses", n, word)
	}
	return fmt.Sprintf("%d %ss", n, word)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func abiList(abis []specs.Arch) string {
	var all []string
	for _, abi := range abis {
		all = append(all, strings.TrimPrefix(string(abi), "SCMP_ARCH_"))
	}
	return strings.Join(all, " ")
}
