package scmp

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/seccompgen/seccompgen/test/golden"
)

func TestDisassembleGolden(t *testing.T) {
	p := parse(t, `{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_X32"],"syscalls":[
		{"names":["read","execve"],"action":"SCMP_ACT_ALLOW"},
		{"names":["clone"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":2114060288,"valueTwo":0,"op":"SCMP_CMP_MASKED_EQ"}]},
		{"names":["clone3"],"action":"SCMP_ACT_ERRNO","errnoRet":38}]}`)
	if native, err := Native(); err != nil || native != "SCMP_ARCH_X86_64" || Version() != "2.5.4" {
		t.Skip("the golden listing is of libseccomp 2.5.4 on x86-64")
	}
	program, err := Compile(p, true)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	for _, l := range Disassemble(program) {
		fmt.Fprintln(&b, strings.TrimRight(fmt.Sprintf("%4d  %-52s %s", l.Nr, l.Text, l.Note), " "))
	}
	golden.Check(t, "testdata/disasm.txt", b.Bytes())
}

// Whatever the kernel may hold is put into words without a panic.
func FuzzDisassemble(f *testing.F) {
	f.Add([]byte{0x06, 0, 0, 0, 0, 0, 0xff, 0x7f})
	f.Add([]byte{0x15, 0, 0xff, 0xff, 1, 0, 0, 0, 0x05, 0, 0, 0, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		program, err := Parse(data)
		if err != nil {
			return
		}
		if lines := Disassemble(program); len(lines) != len(program) {
			t.Fatalf("%d lines for %d instructions", len(lines), len(program))
		}
	})
}
