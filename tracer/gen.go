package tracer

//go:generate go tool bpf2go -target amd64,arm64 -output-dir . -go-package tracer -tags linux -cflags "-O2 -g -Wall -Werror -mcpu=v3 -fdebug-prefix-map=..=." -type slot -type member -type arm -type join -type call -type first -type denial -type meta -type limits -type phase -type abi -type boundary -type drop -type slot_flag -type outcome -type executable_key -type executable -type executable_flag recorder bpf/recorder.bpf.c
