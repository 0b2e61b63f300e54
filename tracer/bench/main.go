//go:build linux && (amd64 || arm64)

// Command bench measures what recording costs: a system call of a recorded task, of all the others, and a hook's start.
//
// All variants are measured in turn, round after round, so that what else the machine does hits them alike. It needs
// root, and works in a mount namespace of its own. While another tracer is attached it waits.
package main

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/profile"
	"github.com/seccompgen/seccompgen/test/lab"
	"github.com/seccompgen/seccompgen/tracer"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	output := flag.String("o", "-", "`file` to write the tables to")
	rounds := flag.Int("rounds", 60, "how often each variant is measured")
	calls := flag.Int("calls", 200_000, "calls in one measurement")
	flag.Parse()
	switch flag.Arg(0) {
	case "":
	case "inside":
		commit, err := lab.Commit()
		if err != nil {
			return err
		}
		return bench(commit, *output, *rounds, *calls)
	default:
		return child(flag.Args())
	}
	// A mount namespace with a bpffs of our own: nobody else's recordings keep the programs loaded.
	cmd := exec.Command("/proc/self/exe", append(os.Args[1:], "inside")...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	return cmd.Run()
}

// child is what the processes that are measured do.
func child(args []string) error {
	switch args[0] {
	case "init": // a container's init, that becomes the rest of its arguments
		if _, err := os.Stdout.WriteString("ready\n"); err != nil {
			return err
		}
		if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
			return err
		}
		return unix.Exec("/proc/self/exe", append([]string{"bench"}, args[1:]...), os.Environ())
	case "loop":
		n, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		nr, err := strconv.Atoi(args[2])
		if err != nil {
			return err
		}
		fmt.Println(loop(n, uintptr(nr)))
		return nil
	case "hold":
		fmt.Println("holding")
		_, err := io.Copy(io.Discard, os.Stdin)
		return err
	case "start":
		pid, err := strconv.Atoi(args[2])
		if err != nil {
			return err
		}
		return tracer.Start(args[1], pid, tracer.Options{})
	case "collect":
		return tracer.Collect(args[1], func(*profile.Recording) error { return nil })
	case "nothing":
		return nil
	}
	return fmt.Errorf("%q is not known", args[0])
}

// loop returns the CPU time of n calls number nr, whose first argument is no descriptor.
func loop(n int, nr uintptr) time.Duration {
	runtime.LockOSThread()
	var before, after unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &before); err != nil {
		panic(err) // every kernel has this clock
	}
	for range n {
		syscall.RawSyscall(nr, ^uintptr(0), unix.F_GETFD, 0)
	}
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &after); err != nil {
		panic(err)
	}
	return time.Duration(after.Nano() - before.Nano())
}

// process is an init under way.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func newProcess(args ...string) (*process, error) {
	cmd := exec.Command("/proc/self/exe", append([]string{"init"}, args...)...)
	cmd.Env = append(os.Environ(), "GODEBUG=asyncpreemptoff=1")
	if args[0] == "loop" {
		cmd.Stderr = os.Stderr
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL, Unshareflags: unix.CLONE_NEWNS}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p := &process{cmd, in, bufio.NewReader(out)}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	_, err = p.line()
	return p, err
}

func (p *process) line() (string, error) {
	s, err := p.out.ReadString('\n')
	return strings.TrimSpace(s), err
}

// goOn lets the init execute its workload, and returns what that says.
func (p *process) goOn() (string, error) {
	if _, err := p.in.Write([]byte{1}); err != nil {
		return "", err
	}
	return p.line()
}

func (p *process) end() error {
	p.in.Close()
	return p.cmd.Wait()
}

// id tells a process's recording from all others of the host.
func (p *process) id() string { return fmt.Sprintf("bench-%d", p.cmd.Process.Pid) }

// variant is something that can be attached while the loop runs.
type variant struct {
	name, task string
	baseline   int // the empty programs that it is compared with
	links      int // tracing links that it makes
	attach     func(loop *process) (detach func() error, err error)
	base       int  // what the added cost is added to
	fcntl      bool // the loop's call is one whose arguments are kept
	rounds     int  // only so many; 0 is all
}

// recording attaches the recorder: to the loop, or to another process.
func recording(o tracer.Options, loopToo, executed bool) func(*process) (func() error, error) {
	return func(loop *process) (func() error, error) {
		if loopToo {
			stop := func() error {
				return tracer.Collect(loop.id(), func(r *profile.Recording) error {
					has := slices.ContainsFunc(r.Syscalls, func(s profile.Syscall) bool { return s.Name == "getppid" || s.Name == "fcntl" })
					if !has {
						return errors.New("the loop was not recorded")
					}
					return r.Incomplete()
				})
			}
			return stop, tracer.Start(loop.id(), loop.cmd.Process.Pid, o)
		}
		other, err := newProcess("hold")
		if err != nil {
			return nil, err
		}
		if err := tracer.Start(other.id(), other.cmd.Process.Pid, o); err != nil {
			return nil, err
		}
		if executed {
			if _, err := other.goOn(); err != nil {
				return nil, err
			}
		}
		return func() error {
			// An init that was never told to go on fails, as it should.
			if err := other.end(); err != nil && executed {
				return err
			}
			return tracer.Abort(other.id())
		}, nil
	}
}

func attached(o *benchObjects) []variant {
	programs := func(attach ...func() (link.Link, error)) func(*process) (func() error, error) {
		return func(*process) (func() error, error) {
			var links []link.Link
			for _, f := range attach {
				l, err := f()
				if err != nil {
					return nil, err
				}
				links = append(links, l)
			}
			return func() (err error) {
				for _, l := range links {
					err = errors.Join(err, l.Close())
				}
				return err
			}, nil
		}
	}
	raw := func(name string, p *ebpf.Program) func() (link.Link, error) {
		return func() (link.Link, error) {
			return link.AttachRawTracepoint(link.RawTracepointOptions{Name: name, Program: p})
		}
	}
	btf := func(p *ebpf.Program) func() (link.Link, error) {
		return func() (link.Link, error) {
			return link.AttachTracing(link.TracingOptions{Program: p, AttachType: ebpf.AttachTraceRawTp})
		}
	}
	mounts := func(loop *process) (func() error, error) {
		var st unix.Stat_t
		if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/mnt", loop.cmd.Process.Pid), &st); err != nil {
			return nil, err
		}
		if err := o.Mounts.Put(st.Ino, &benchSeen{}); err != nil {
			return nil, err
		}
		return programs(raw("sys_enter", o.MountHash))(loop)
	}
	denials := tracer.Options{Denials: true}
	all := []variant{
		{name: "nothing", task: "any", attach: programs()},
		{name: "empty raw_tp on sys_enter", task: "any", baseline: 1, links: 1, attach: programs(raw("sys_enter", o.EmptyRaw))},
		{name: "empty tp_btf on sys_enter", task: "any", baseline: 1, links: 1, attach: programs(btf(o.EmptyBtf))},
		{name: "empty raw_tp on sys_enter and sys_exit", task: "any", baseline: 3, links: 2, attach: programs(raw("sys_enter", o.EmptyRaw), raw("sys_exit", o.EmptyRaw))},
		{name: "mount namespace read step by step, looked up in a hash", task: "recorded", baseline: 1, links: 1, attach: mounts},
		{name: recorder, task: "recorded", baseline: 1, links: 4, attach: recording(tracer.Options{}, true, true)},
		{name: recorder, task: "others", baseline: 1, links: 4, attach: recording(tracer.Options{}, false, true)},
		{name: recorder + ", while a container is being made", task: "others", baseline: 1, links: 4, attach: recording(tracer.Options{}, false, false)},
		{name: recorder + " with denials", task: "recorded", baseline: 3, links: 5, attach: recording(denials, true, true)},
		{name: recorder + " with denials", task: "others", baseline: 3, links: 5, attach: recording(denials, false, true)},
		{name: "nothing; the call is `fcntl`", task: "any", attach: programs(), base: 10, fcntl: true},
		{name: recorder + "; the call is `fcntl`, whose arguments are kept", task: "recorded", baseline: 1, links: 4, attach: recording(tracer.Options{}, true, true), base: 10, fcntl: true},
	}
	if _, err := exec.LookPath("bpftrace"); err == nil {
		all = append(all, variant{name: "bpftrace, `tracepoint:raw_syscalls:sys_enter /pid == N/ { @[args->id] = count(); }`", task: "recorded", baseline: 1, attach: bpftrace, rounds: 9})
	}
	return all
}

// bpftrace counts the loop's calls, as its users would.
func bpftrace(loop *process) (func() error, error) {
	script := fmt.Sprintf(`tracepoint:raw_syscalls:sys_enter /pid == %d/ { @[args->id] = count(); } interval:ms:20 { printf("attached\n"); }`, loop.cmd.Process.Pid)
	cmd := exec.Command("bpftrace", "-e", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	r := bufio.NewReader(out)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return nil, fmt.Errorf("bpftrace did not attach: %w", err)
		}
		if line == "attached\n" { // by the probe that is attached last
			break
		}
	}
	return func() error {
		if err := cmd.Process.Signal(unix.SIGINT); err != nil {
			return err
		}
		text, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if want := fmt.Sprintf("@[%d]: ", unix.SYS_GETPPID); !strings.Contains(string(text), want) {
			return errors.New("bpftrace did not count the loop's calls")
		}
		return cmd.Wait()
	}, nil
}

const recorder = "**seccompgen**"

// patience is how long one measurement waits for a moment in which nobody else traces.
const patience = 30 * time.Minute

// measure returns the CPU time of one call while a variant is attached.
func measure(v variant, calls int) (ns float64, err error) {
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if n, err := tracers(); err != nil {
			return 0, err
		} else if n > 0 {
			time.Sleep(20 * time.Millisecond) // somebody else traces; try again
			continue
		}
		nr := unix.SYS_GETPPID
		if v.fcntl {
			nr = unix.SYS_FCNTL
		}
		loop, err := newProcess("loop", strconv.Itoa(calls), strconv.Itoa(nr))
		if err != nil {
			return 0, err
		}
		detach, err := v.attach(loop)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", v.name, err)
		}
		before, err1 := tracers()
		took, err2 := loop.goOn()
		after, err3 := tracers()
		if err := errors.Join(err1, err2, err3, loop.end(), detach()); err != nil {
			return 0, fmt.Errorf("%s: %w", v.name, err)
		}
		d, err := time.ParseDuration(took)
		if err != nil {
			return 0, err
		}
		if before == v.links && after == v.links {
			return float64(d) / float64(calls), nil
		}
	}
	return 0, errors.New("others trace on this host all the time")
}

// tracers counts the tracing links of the host, ours included.
func tracers() (int, error) {
	for {
		n := 0
		it := new(link.Iterator)
		for it.Next() {
			info, err := it.Link.Info()
			if err == nil && (info.Type == link.TracingType || info.Type == link.RawTracepointType) {
				n++
			}
		}
		err := it.Err()
		it.Close()
		if !errors.Is(err, unix.EAGAIN) { // one that is about to go
			return n, err
		}
	}
}

// strace measures the same loop under strace: the CPU time of both.
func strace(calls int) (float64, error) {
	used := func(n int) (time.Duration, error) {
		cmd := exec.Command("strace", "-f", "-c", "-o", "/dev/null", "/proc/self/exe", "loop", strconv.Itoa(n), strconv.Itoa(unix.SYS_GETPPID))
		cmd.Args[5], _ = os.Executable()
		if err := cmd.Run(); err != nil {
			return 0, fmt.Errorf("strace: %w", err)
		}
		return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), nil
	}
	all, err := used(calls)
	if err != nil {
		return 0, err
	}
	start, err := used(0)
	return float64(all-start) / float64(calls), err
}

// hook measures a process that does one thing, as a hook does.
func hook(args ...string) (cpu, wall float64, err error) {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Stderr = os.Stderr
	began := time.Now()
	err = cmd.Run()
	wall = time.Since(began).Seconds() * 1e3
	if err != nil {
		return 0, 0, fmt.Errorf("hook %q: %w", args, err)
	}
	return (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds() * 1e3, wall, nil
}

// hookRounds is in which rounds hooks are measured too: every so many.
const hookRounds = 4

var hooks = []string{"a process that does nothing", "Start, cold: nothing is loaded", "Start, warm: another recording goes on", "Collect, not the last", "Collect, the last: takes all away"}

// life measures the hooks of two containers, the second within the first.
func life(note func(name string, cpu, wall float64)) error {
	one, err := newProcess("hold")
	if err != nil {
		return err
	}
	two, err := newProcess("hold")
	if err != nil {
		return err
	}
	pid := func(p *process) string { return strconv.Itoa(p.cmd.Process.Pid) }
	for i, args := range [][]string{{"nothing"}, {"start", one.id(), pid(one)}, {"start", two.id(), pid(two)}, {"collect", two.id()}, {"collect", one.id()}} {
		for _, p := range []*process{two, one} {
			if args[0] == "collect" && args[1] == p.id() {
				if _, err := p.goOn(); err != nil {
					return err
				}
				if err := p.end(); err != nil {
					return err
				}
			}
		}
		cpu, wall, err := hook(args...)
		if err != nil {
			return err
		}
		note(hooks[i], cpu, wall)
	}
	return nil
}

func bench(commit, output string, rounds, calls int) error {
	for unix.Unmount("/sys/fs/bpf", unix.MNT_DETACH) == nil {
	}
	var o benchObjects
	if err := loadBenchObjects(&o, nil); err != nil {
		return fmt.Errorf("load the programs to compare with: %w", err)
	}
	defer o.Close()
	for fs, dir := range map[string]string{"debugfs": "/sys/kernel/debug", "tracefs": "/sys/kernel/tracing"} {
		_ = unix.Mount(fs, dir, fs, 0, "") // bpftrace wants them; this mount namespace is our own
	}
	variants := attached(&o)
	ns := make([][]float64, len(variants))
	cpu, wall := map[string][]float64{}, map[string][]float64{}
	var straced []float64
	_, noStrace := exec.LookPath("strace")
	for round := range rounds {
		fmt.Fprintf(os.Stderr, "round %d of %d\n", round+1, rounds)
		for i, v := range variants {
			if v.rounds > 0 && round >= v.rounds {
				continue
			}
			n, err := measure(v, calls)
			if err != nil {
				return err
			}
			ns[i] = append(ns[i], n)
		}
		if noStrace == nil && round < 5 {
			n, err := strace(5000)
			if err != nil {
				return err
			}
			straced = append(straced, n)
		}
		if round%hookRounds != 0 {
			continue
		}
		err := life(func(name string, c, w float64) {
			cpu[name], wall[name] = append(cpu[name], c), append(wall[name], w)
		})
		if err != nil {
			return err
		}
	}
	var b bytes.Buffer
	write(&b, commit, variants, ns, straced, cpu, wall, rounds, calls)
	if output == "-" {
		_, err := b.WriteTo(os.Stdout)
		return err
	}
	return os.WriteFile(filepath.Clean(output), b.Bytes(), 0o644)
}
