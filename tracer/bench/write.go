//go:build linux && (amd64 || arm64)

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func median(all []float64) float64 {
	all = slices.Sorted(slices.Values(all))
	return all[len(all)/2]
}

// spread returns the median of what a has more than b in the same round, and its quartiles.
func spread(a, b []float64) (low, mid, high float64) {
	var more []float64
	for i := range a {
		more = append(more, a[i]-b[i])
	}
	slices.Sort(more)
	return more[len(more)/4], median(more), more[len(more)*3/4]
}

func write(b *bytes.Buffer, commit string, variants []variant, ns [][]float64, straced []float64, cpu, wall map[string][]float64, rounds, calls int) {
	say := func(format string, args ...any) { fmt.Fprintf(b, format+"\n", args...) }
	say("# What recording costs")
	say("")
	say("Written by `make bench` (root) on %s, commit %s, Linux %s, %s, %d cores, %s.",
		time.Now().UTC().Format("2006-01-02"), commit, release(), cpuModel(), runtime.NumCPU(), runtime.Version())
	say("The load average at the end was %s: the absolute numbers hold for a machine as busy as that, the ratios less so.", load())
	say("")
	say("## A system call")
	say("")
	say("`getppid` in a loop: CPU time of the thread, %d calls in each of %d rounds; in every round all variants are measured in", calls, rounds)
	say("turn, each in a new process. A measurement during which another tracer was attached to the host is thrown away. The added")
	say("cost is the median of the differences from `nothing` in the same round, with the quartiles. The last column divides it by")
	say("what an empty raw_tp adds, on sys_enter and with denials on both: as soon as anything is attached the kernel takes its slow")
	say("path for every call of every task, and nobody can be cheaper than a program that does nothing.")
	say("")
	say("| attached | the loop is | ns a call | added (quartiles) | times the empty program's |")
	say("|---|---|---:|---:|---:|")
	baseline := func(i int) float64 {
		_, f, _ := spread(ns[i], ns[0])
		return f
	}
	for i, v := range variants {
		low, mid, high := spread(ns[i], ns[v.base])
		switch i {
		case 0, v.base:
			say("| %s | %s | %.0f | | |", v.name, v.task, median(ns[i]))
		default:
			say("| %s | %s | %.0f | +%.0f (%.0f to %.0f) | %.2f |", v.name, v.task, median(ns[i]), mid, low, high, mid/baseline(v.baseline))
		}
	}
	if straced != nil {
		n := median(straced)
		say("| `strace -f -c` (CPU time of both processes, 5000 calls) | recorded | %.0f | +%.0f | %.0f |", n, n-median(ns[0]), (n-median(ns[0]))/baseline(1))
	} else {
		say("| `strace -f -c` | | not installed here | | |")
	}
	if _, err := exec.LookPath("bpftrace"); err != nil {
		say("| bpftrace | | not installed here | | |")
	}
	say("")
	say("Targets: a recorded call adds at most 1.3 times what the empty program adds, a call of any other task 1.2 times.")
	say("")
	say("## A hook")
	say("")
	say("CPU time (user and system) of a process that calls `tracer.Start` or `tracer.Collect` and ends, medians of %d runs.", len(cpu[hooks[0]]))
	say("")
	say("| the process | CPU, ms | wall, ms |")
	say("|---|---:|---:|")
	for _, name := range hooks {
		say("| %s | %.1f | %.1f |", name, median(cpu[name]), median(wall[name]))
	}
	say("")
	say("Targets: 10 ms of CPU time warm, 60 ms cold.")
}

func release() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	one, _, _ := strings.Cut(string(text), " ")
	return one
}

var modelName = regexp.MustCompile(`(?m)^model name\s*: (.*)$`)

func cpuModel() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if m := modelName.FindSubmatch(text); err == nil && m != nil {
		return string(m[1])
	}
	return runtime.GOARCH
}
