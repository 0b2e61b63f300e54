package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// host runs this program again as on a host of these traits: no-inet6 (sockets of IPv6 are refused as by a kernel without),
// one-cpu, no-vdso (times are asked of the kernel). It makes the same calls on every host, so that none is told by them.
func host(traits, args []string) error {
	runtime.LockOSThread() // a filter, processors and a tracee are a thread's
	var cpus unix.CPUSet
	if err := unix.SchedGetaffinity(0, &cpus); err != nil {
		return fmt.Errorf("ask for processors: %w", err)
	}
	if slices.Contains(traits, "one-cpu") {
		for cpu := len(cpus) * 64; cpus.Count() > 1; cpu-- {
			cpus.Clear(cpu)
		}
	}
	if err := unix.SchedSetaffinity(0, &cpus); err != nil {
		return fmt.Errorf("set processors: %w", err)
	}
	family := uint32(0xffff)
	if slices.Contains(traits, "no-inet6") {
		family = unix.AF_INET6
	}
	if err := refuse(family); err != nil {
		return fmt.Errorf("install a filter: %w", err)
	}
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(cmd.Process.Pid, &status, 0, nil); err != nil || !status.Stopped() {
		return fmt.Errorf("wait for the program to stop at its start: %v, %w", status, err)
	}
	err := hideVDSO(cmd.Process.Pid, slices.Contains(traits, "no-vdso"))
	return errors.Join(err, syscall.PtraceDetach(cmd.Process.Pid), cmd.Wait())
}

// refuse answers socket with EAFNOSUPPORT for a family.
func refuse(family uint32) error {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 3, K: unix.SYS_SOCKET},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 16},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: family},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EAFNOSUPPORT)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
}

// hideVDSO takes the vDSO out of the auxiliary vector of a program that has not begun yet.
func hideVDSO(pid int, hide bool) error {
	const ignore, vdso = 1, 33 // AT_IGNORE, AT_SYSINFO_EHDR
	vector, err := os.ReadFile(fmt.Sprintf("/proc/%d/auxv", pid))
	if err != nil {
		return err
	}
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return err
	}
	memory, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer memory.Close()
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		if _, err := fmt.Sscanf(line, "%x-%x", &from, &to); err != nil || !strings.Contains(line, "[stack]") {
			continue
		}
		stack := make([]byte, to-from)
		if _, err := memory.ReadAt(stack, from); err != nil {
			return fmt.Errorf("read the stack: %w", err)
		}
		at := bytes.Index(stack, vector)
		if at < 0 {
			return errors.New("the stack holds no auxiliary vector")
		}
		for i := 0; hide && i < len(vector); i += 16 {
			if binary.NativeEndian.Uint64(vector[i:]) == vdso {
				binary.NativeEndian.PutUint64(vector[i:], ignore)
			}
		}
		_, err = memory.WriteAt(vector, from+int64(at))
		return err
	}
	return errors.New("the program has no stack")
}
