package lab

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
)

// NoCompat is why a test is skipped on a host that runs no 32-bit programs. It is the one reason for which CI lets a test
// be skipped, and says so: make kernel runs them in a guest.
const NoCompat = "SKIPPED: this host runs no 32-bit programs"

// Compat reports whether the kernel runs i386 programs. Some are built without, or booted so; some virtual machines cannot.
var Compat = sync.OnceValue(func() bool {
	if runtime.GOARCH != "amd64" {
		return false
	}
	const base, size = 0x08048000, 52 + 32
	code := []byte{0xb8, 1, 0, 0, 0, 0x31, 0xdb, 0xcd, 0x80} // exit(0): mov $1, %eax; xor %ebx, %ebx; int $0x80
	var b bytes.Buffer
	header := elf.Header32{
		Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS32), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_EXEC), Machine: uint16(elf.EM_386), Version: uint32(elf.EV_CURRENT), Entry: base + size,
		Phoff: 52, Ehsize: 52, Phentsize: 32, Phnum: 1,
	}
	segment := elf.Prog32{
		Type: uint32(elf.PT_LOAD), Vaddr: base, Paddr: base, Filesz: uint32(size + len(code)), Memsz: uint32(size + len(code)),
		Flags: uint32(elf.PF_R | elf.PF_X), Align: 0x1000,
	}
	for _, part := range []any{header, segment, code} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			panic(err) // a buffer and fixed sizes: cannot happen
		}
	}
	dir, err := os.MkdirTemp("", "compat")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "exit")
	if err := os.WriteFile(path, b.Bytes(), 0o755); err != nil {
		panic(err)
	}
	return exec.Command(path).Run() == nil
})

// NeedCompat skips a test that runs an i386 program where the kernel runs none.
func NeedCompat(t testing.TB) {
	t.Helper()
	if !Compat() {
		t.Skip(NoCompat)
	}
}
