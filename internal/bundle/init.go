//go:build linux && (amd64 || arm64)

package bundle

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"runtime"
	"unsafe"

	"github.com/google/renameio/v2"
)

// Tests run as a child of a tiny init, as go test runs them as its child. As the container's first process they would
// be its session's leader, whom the terminal that a test opens and closes kills with SIGHUP; their own signals would
// not kill them; and nobody would wait for orphans.
//
// Under the filter that init may need nothing that a Go program does not need anyway, or it would widen the profile: it
// makes rt_sigaction, clone, execve, futex, exit_group and rt_sigreturn, and learns its child's status from the signal, not from a
// wait. That signal is SIGCHLD, of which one at a time can be pending: where an orphan ends as the child does, theirs are one.
// So the tests' parent is a process of its own, which shares the init's memory and tells it there; orphans come to the init, and
// the parent has no other child. The code is in init_*.s; writeInit makes an ELF file of it, so that neither a C compiler
// nor a binary in the repository is needed.

// Where the code of init_*.s is, and where the file is loaded. The assembler knows initBase too.
var initEntry, initHandler, initRestorer uintptr

const (
	initBase   = 0x400000
	initAction = initBase + 0x100 // struct kernel_sigaction
	initWord   = initBase + 0x180 // a word that is 0, to sleep on
	initCode   = initBase + 0x200
	codeSize   = 0x200 // more than each of the three takes: what is copied after them is never executed
)

// writeInit writes the init program into a directory and returns its path.
func writeInit(dir string) (string, error) {
	const (
		saNoCldStop = 0x1
		saNoCldWait = 0x2
		saSigInfo   = 0x4
		saRestorer  = 0x04000000 // arm64 has no restorer, and ignores it
	)
	machine := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[runtime.GOARCH]
	image := make([]byte, initCode-initBase+3*codeSize)
	var head bytes.Buffer
	for _, part := range []any{
		elf.Header64{
			Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
			Type:  uint16(elf.ET_EXEC), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT),
			Entry: initCode, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
		},
		elf.Prog64{
			Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Vaddr: initBase, Paddr: initBase,
			Filesz: uint64(len(image)), Memsz: uint64(len(image)), Align: 0x1000,
		},
	} {
		if err := binary.Write(&head, binary.LittleEndian, part); err != nil {
			return "", fmt.Errorf("encode the init program: %w", err)
		}
	}
	copy(image, head.Bytes())
	action := image[initAction-initBase:]
	binary.LittleEndian.PutUint64(action, initCode+codeSize)
	binary.LittleEndian.PutUint64(action[8:], saNoCldStop|saNoCldWait|saSigInfo|saRestorer)
	binary.LittleEndian.PutUint64(action[16:], initCode+2*codeSize)
	for i, pc := range []*uintptr{&initEntry, &initHandler, &initRestorer} {
		code := unsafe.Slice(*(**byte)(unsafe.Pointer(pc)), codeSize)
		copy(image[initCode-initBase+i*codeSize:], code)
	}
	path := filepath.Join(dir, "init")
	if err := renameio.WriteFile(path, image, 0o755); err != nil {
		return "", fmt.Errorf("write the init program: %w", err)
	}
	return path, nil
}
