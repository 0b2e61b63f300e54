//go:build amd64 || arm64

package tracer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// bpffs is where the pins live. Systemd mounts it; where nobody has, Start does, and the last one out unmounts it.
const (
	bpffs     = "/sys/fs/bpf"
	pinRoot   = bpffs + "/seccompgen"
	mountedBy = "seccompgen"
)

// pinDir is of this layout only: another build's recordings are not ours to read.
var pinDir = sync.OnceValue(func() string { return filepath.Join(pinRoot, layout()) })

// hostProcess is in the mount namespace from which the hooks of this host look for pins.
var hostProcess = 1

// requireShared refuses to record where bpffs would have to be mounted, and would be in this process's own mount namespace
// only, as in a wrapper's around a runtime: the start would succeed, and the hook that collects would find nothing.
func requireShared() error {
	mounted, err := isBPFFS()
	if err != nil || mounted {
		return err
	}
	own, err := mountNS(os.Getpid())
	if err != nil {
		return err
	}
	if host, err := mountNS(hostProcess); err != nil || own != host {
		return fmt.Errorf("%w: bpffs is not mounted at %s, and this process is in a mount namespace of its own, where other hooks would not see it: mount it on the host (mount -t bpf bpf %[2]s)", ErrUnsupported, bpffs)
	}
	return nil
}

// mountBPFFS makes sure that bpffs is mounted.
func mountBPFFS() error {
	mounted, err := isBPFFS()
	if err != nil || mounted {
		return err
	}
	if err := unix.Mount(mountedBy, bpffs, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return fmt.Errorf("mount bpffs at %s: %w", bpffs, err)
	}
	return nil
}

func isBPFFS() (bool, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(bpffs, &fs); err != nil {
		return false, fmt.Errorf("%w: %s: %w (is /sys mounted?)", ErrUnsupported, bpffs, err)
	}
	return fs.Type == unix.BPF_FS_MAGIC, nil
}

// lockFile is root's alone: what others can open they can lock, and hooks would wait for them.
const lockFile = "/run/seccompgen.lock"

var errNotRoot = fmt.Errorf("%w: eBPF needs root, run this as root", ErrUnsupported)

// lock serialises all processes that mount bpffs or change the pins, and makes sure that it is mounted. The kernel lets
// go of it when its holder dies.
func lock() (*os.File, error) {
	if os.Geteuid() != 0 {
		return nil, errNotRoot
	}
	f, err := os.OpenFile(lockFile, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock of the recorder: %w", err)
	}
	for err = unix.EINTR; errors.Is(err, unix.EINTR); {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	if err := mountBPFFS(); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// unlock unmounts bpffs if that was our mount and nobody uses it, and lets go of the lock.
func unlock(f *os.File) error {
	defer f.Close()
	return unmountBPFFS()
}

// hold mounts bpffs if nobody has, and keeps it mounted while the file is open: that makes it busy.
func hold() (*os.File, error) {
	l, err := lock()
	if err != nil {
		return nil, err
	}
	if err := requireAll(); err != nil { // now, and not in a hook, from where only the runtime can tell it
		return nil, errors.Join(err, unlock(l))
	}
	defer l.Close()
	f, err := os.Open(bpffs)
	if err != nil {
		return nil, fmt.Errorf("open bpffs: %w", err)
	}
	return f, nil
}

// letGo undoes hold.
func letGo(f *os.File) error {
	f.Close()
	l, err := lock()
	if err != nil {
		return err
	}
	return unlock(l)
}

// requireHost refuses hosts on which recording cannot work, in words that help. That they are root lock has seen.
func requireHost() error {
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		return fmt.Errorf("%w: the kernel gives no BTF (%w): use one built with CONFIG_DEBUG_INFO_BTF=y", ErrUnsupported, err)
	}
	// Pids must mean here what they mean to the kernel. PROC_PID_INIT_INO of include/linux/proc_ns.h.
	const initial = "pid:[4026531836]"
	if ns, err := os.Readlink("/proc/self/ns/pid"); err != nil {
		return fmt.Errorf("%w: read the pid namespace: %w", ErrUnsupported, err)
	} else if ns != initial {
		return fmt.Errorf("%w: this process is in a pid namespace of its own (%s): run it on the host or with --pid=host", ErrUnsupported, ns)
	}
	return nil
}

// preemptible reports whether this kernel may preempt programs on raw tracepoints. From Linux 6.19 on tracepoints are
// guarded by SRCU, without preemption being disabled (include/linux/tracepoint.h); perf events still disable it
// (include/trace/perf.h). Where a kernel is otherwise than its version says, the misses tell.
var preemptible = sync.OnceValue(func() bool {
	major, minor := kernelVersion(kernel())
	return major > 6 || major == 6 && minor >= 19
})

func kernelVersion(release string) (major, minor int) {
	// What does not begin with a version counts as 0.0, an old one.
	_, _ = fmt.Sscanf(release, "%d.%d", &major, &minor)
	return major, minor
}

// needs are what the programs use that kernels before the minimum lack.
var needs = []struct {
	what string
	have func() error
}{
	{"task storage in tracing programs (Linux 5.11)", func() error { return features.HaveProgramHelper(ebpf.Tracing, asm.FnTaskStorageGet) }},
	{"bpf_task_pt_regs (Linux 5.15)", func() error { return features.HaveProgramHelper(ebpf.RawTracepoint, asm.FnTaskPtRegs) }},
}

// requireKernel refuses kernels that lack what the programs use.
func requireKernel() error {
	for _, n := range needs {
		if errors.Is(n.have(), ebpf.ErrNotSupported) {
			return fmt.Errorf("%w: kernel %s has no %s: use Linux 5.15 or newer", ErrUnsupported, kernel(), n.what)
		}
	}
	return nil
}

// unsupported explains why the kernel did not take the programs.
func unsupported(err error) error {
	if kernel := requireKernel(); kernel != nil {
		return kernel
	}
	return fmt.Errorf("%w: load the BPF programs: %w", ErrUnsupported, err)
}

// Check reports as an error what keeps this host from recording, if anything does.
func Check() error {
	if os.Geteuid() != 0 {
		return errNotRoot
	}
	return requireAll()
}

func requireAll() error {
	if err := requireHost(); err != nil {
		return err
	}
	return requireKernel()
}

// mountNS returns the inode number of a process's mount namespace.
func mountNS(pid int) (uint32, error) {
	var st unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/mnt", pid), &st); err != nil {
		return 0, fmt.Errorf("process %d of the container: %w", pid, err)
	}
	return uint32(st.Ino), nil
}

// unmountBPFFS removes the mount that mountBPFFS made, if nobody uses it. The caller has the lock.
func unmountBPFFS() error {
	// All of them: a mount namespace may have one of its own over ours.
	mounts, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) { return m.Mountpoint != bpffs, false })
	if err != nil || len(mounts) == 0 || mounts[len(mounts)-1].Source != mountedBy {
		return err
	}
	pins, err := os.ReadDir(bpffs)
	if err != nil {
		return fmt.Errorf("read bpffs: %w", err)
	}
	for _, p := range pins {
		if filepath.Ext(p.Name()) != ".debug" { // the kernel's own; pins cannot have a dot
			return nil
		}
	}
	if err := unix.Unmount(bpffs, 0); err != nil && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("unmount bpffs: %w", err)
	}
	return nil
}
