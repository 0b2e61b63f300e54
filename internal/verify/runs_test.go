package verify

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/profile"
)

// What is taken does not depend on how many things are done at a time, nor on which ends first.
func TestInOrder(t *testing.T) {
	for _, width := range []int{0, 1, 3, 50} {
		last := make(chan struct{})
		var taken []int
		var stopped atomic.Int32
		err := inOrder(t.Context(), 20, width, func(ctx context.Context, i int) (int, error) {
			switch {
			case i == 0 && width > 1:
				<-last // ends after the next one
			case i == 1 && width > 1:
				close(last)
			case i > 7: // under way when enough was taken
				<-ctx.Done()
				stopped.Add(1)
				return 0, ctx.Err()
			}
			return i * i, nil
		}, func(i, v int) bool {
			if v != i*i {
				t.Errorf("%d jobs: result %d is %d", width, i, v)
			}
			taken = append(taken, i)
			return i < 7
		})
		if err != nil || !slices.Equal(taken, []int{0, 1, 2, 3, 4, 5, 6, 7}) {
			t.Errorf("%d jobs: took %v, %v", width, taken, err)
		}
	}
	broken := errors.New("broken")
	err := inOrder(t.Context(), 5, 2, func(_ context.Context, i int) (int, error) {
		if i == 1 {
			return 0, broken
		}
		return i, nil
	}, func(int, int) bool { return true })
	if !errors.Is(err, broken) {
		t.Errorf("got %v, want the error of a run", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	err = inOrder(ctx, 5, 2, func(ctx context.Context, _ int) (int, error) {
		cancel(broken)
		<-ctx.Done()
		return 0, ctx.Err()
	}, func(int, int) bool { return true })
	if !errors.Is(err, broken) && !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the cause of the end", err)
	}
}

func TestWithout(t *testing.T) {
	errno := uint(unix.ENOSYS)
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86_64}, Syscalls: []specs.LinuxSyscall{
		{Names: []string{"openat", "read", "statx"}, Action: specs.ActAllow},
		{Names: []string{"socket"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 0, Value: 1, Op: specs.OpEqualTo}}},
		{Names: []string{"clone3"}, Action: specs.ActErrno, ErrnoRet: &errno},
	}}
	small := without(p, answers{"read": uint(unix.EPERM), "statx": uint(unix.ENOSYS), "socket": uint(unix.EPERM)})
	if got := profile.Allowed(small); !slices.Equal(got, []string{"openat"}) {
		t.Errorf("allowed: %v", got)
	}
	r := profile.Resolve(small)
	for name, want := range map[string]string{"read": "EPERM", "statx": "ENOSYS", "socket": "EPERM", "clone3": "ENOSYS", "openat": "allowed"} {
		nr, _ := profile.Number(specs.ArchX86_64, name)
		if got := r.Decide(specs.ArchX86_64, nr, [6]uint64{1}).String(); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if !slices.Equal(profile.Allowed(p), []string{"openat", "read", "socket", "statx"}) {
		t.Error("the profile itself was changed")
	}
	p.DefaultAction = specs.ActKillProcess
	nr, _ := profile.Number(specs.ArchX86_64, "read")
	if got := profile.Resolve(without(p, answers{"read": uint(unix.EPERM)})).Decide(specs.ArchX86_64, nr, [6]uint64{}).String(); got != "EPERM" {
		t.Errorf("under a profile that kills a call that was removed gets %s", got)
	}
}

// A probe softens the default action and nothing else, and lets nothing dangerous through.
func TestProbing(t *testing.T) {
	errno := uint(unix.ENOSYS)
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActKillProcess, Architectures: []specs.Arch{specs.ArchX86_64}, Syscalls: []specs.LinuxSyscall{
		{Names: []string{"openat", "unshare"}, Action: specs.ActAllow},
		{Names: []string{"clone3"}, Action: specs.ActErrno, ErrnoRet: &errno},
	}}
	r := profile.Resolve(probing(p))
	for name, want := range map[string]string{"read": "allowed and logged", "openat": "allowed", "clone3": "ENOSYS", "mount": "EPERM", "bpf": "EPERM", "unshare": "allowed"} {
		nr, _ := profile.Number(specs.ArchX86_64, name)
		if got := r.Decide(specs.ArchX86_64, nr, [6]uint64{}).String(); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	rec := run(0, nil, "", denial("mount", 165, 1))
	rec.Syscalls = append(rec.Syscalls, profile.Syscall{Phase: profile.PhaseRuntime, ABI: specs.ArchX86_64, Nr: 257, Name: "openat"},
		profile.Syscall{Phase: profile.PhaseWorkload, ABI: specs.ArchX86, Nr: 5, Name: "open"})
	var got []string
	for _, m := range refused(p, rec, 1) {
		got = append(got, m.Name)
	}
	if !slices.Equal(got, []string{"mount", "read", "open"}) {
		t.Errorf("the probe was refused %v", got)
	}
}
