//go:build linux

package main

//go:generate go tool bpf2go -target amd64,arm64 -output-dir . -go-package main -tags linux -cflags "-O2 -g -Wall -Werror -mcpu=v3 -fdebug-prefix-map=..=." bench bpf/bench.bpf.c
