package gobin

import (
	"debug/elf"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// assemble makes a program of functions given as machine code in hexadecimal; each begins at a multiple of 64. Its only
// variable, v, is at 0x1100000 and holds 7.
func assemble(t *testing.T, m isa, ptr int64, fns map[string]string) *program {
	t.Helper()
	const base = 0x1000000
	p := &program{isa: m, ptr: ptr, text: base}
	text := &section{name: ".text", addr: base, exec: true}
	names := make([]string, 0, len(fns))
	for name := range fns {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		code, err := hex.DecodeString(strings.ReplaceAll(fns[name], " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		at := base + uint64(len(text.data))
		p.fns = append(p.fns, &fn{name: name, addr: at, end: at + uint64(len(code)), args: 64})
		text.data = append(text.data, append(code, make([]byte, 64-len(code))...)...)
	}
	text.size = uint64(len(text.data))
	const v = base + 0x100000
	p.sections = []*section{text, {name: ".data", addr: v, data: append([]byte{7}, make([]byte, 15)...), size: 16, write: true}}
	p.syms = []elf.Symbol{{Name: "v", Info: elf.ST_INFO(elf.STB_GLOBAL, elf.STT_OBJECT), Value: v, Size: 8}}
	return p
}

// summary gives calls as "abi number" and unresolved functions as "? name".
func summary(r *Reach) string {
	var s []string
	for _, c := range r.Calls {
		s = append(s, fmt.Sprintf("%s %d", strings.TrimPrefix(c.ABI, "SCMP_ARCH_"), c.Number))
	}
	for _, u := range r.Unresolved {
		s = append(s, "? "+u.Func)
	}
	return strings.Join(slices.Compact(s), ", ")
}

func TestFlowAMD64(t *testing.T) {
	tests := []struct {
		name string
		fns  map[string]string
		want string
	}{
		{"constant", map[string]string{"f": "b827000000 0f05 c3"}, "X86_64 39"},
		{"parameter without callers", map[string]string{"f": "0f05 c3"}, ""},
		{"zero", map[string]string{"f": "31c0 0f05 c3"}, "X86_64 0"},
		{"the result of a call", map[string]string{"f": "b827000000 0f05 0f05 c3"}, "X86_64 39, ? f"},
		{"i386 call", map[string]string{"f": "b814000000 cd80 c3"}, "X86 20"},
		{"x32 call", map[string]string{"f": "b801000040 0f05 c3"}, "X32 1073741825"},
		{"sysenter", map[string]string{"f": "b814000000 0f34 c3"}, "X86 20"},
		{"by the stack", map[string]string{"f": "6a05 58 0f05 c3"}, "X86_64 5"},
		{"by a register", map[string]string{"f": "bb07000000 4889d8 0f05 c3"}, "X86_64 7"},
		{"sum", map[string]string{"f": "b807000000 4883c002 0f05 c3"}, "X86_64 9"},
		{"low byte changed", map[string]string{"f": "b807000000 b001 0f05 c3"}, "? f"},
		{"one of two", map[string]string{"f": "b807000000 b908000000 480f44c1 0f05 c3"}, "X86_64 7, X86_64 8"},
		// mov $7,%eax; je +5; mov $8,%eax; syscall
		{"branch", map[string]string{"f": "b807000000 7405 b808000000 0f05 c3"}, "X86_64 7, X86_64 8"},
		// mov $7,%eax; loop: add $1,%eax; jne loop; syscall
		{"loop", map[string]string{"f": "b807000000 83c001 75fb 0f05 c3"}, "X86_64 8, ? f"},
		// xor %eax,%eax; f: syscall; jmp f
		{"loop to the start", map[string]string{"f": "0f05 b809000000 ebf7"}, "X86_64 9"},
		{"behind the end", map[string]string{"f": "0f0b b807000000 0f05 c3"}, "? f"},
		{"jump that is not followed", map[string]string{"f": "7402 ffe3 b807000000 0f05 c3"}, "X86_64 7, ? f"},
		{"unknown instruction", map[string]string{"f": "7401 06 b807000000 0f05 c3"}, "X86_64 7, ? f"},
		// g at 0x40: syscall. f: mov $7,%eax; call g
		{"caller", map[string]string{"f": "b807000000 e836000000 c3", "g": "0f05 c3"}, "X86_64 7"},
		{"caller that jumps", map[string]string{"f": "b807000000 e936000000", "g": "0f05 c3"}, "X86_64 7"},
		{"caller that computes", map[string]string{"f": "0fb603 e838000000 c3", "g": "0f05 c3"}, "? f"},
		// g: mov 8(%rsp),%rax; syscall. f: sub $16,%rsp; movq $7,(%rsp); call g; add $16,%rsp
		{"argument on the stack", map[string]string{"f": "4883ec10 48c7042407000000 e82f000000 4883c410 c3", "g": "488b442408 0f05 c3"}, "X86_64 7"},
		// the same with lea (%rsp),%rdi; call *%rcx before the call of g
		{"argument that others may change", map[string]string{"f": "4883ec10 48c7042407000000 488d3c24 ffd1 e829000000 4883c410 c3", "g": "488b442408 0f05 c3"}, "? f"},
		// mov %gs:0,%rax and a VEX instruction leave nothing known
		{"thread-local", map[string]string{"f": "65488b042500000000 0f05 c3"}, "? f"},
		{"vector instruction", map[string]string{"f": "b807000000 c5f877 0f05 c3"}, "? f"},
		{"vzeroupper has three bytes", map[string]string{"f": "c5f877 b80f050000 0f05 c3"}, "X86_64 1295"},
		{"endbr64, adcx, adox", map[string]string{"f": "f30f1efa 664c0f38f6c3 f34c0f38f64304 b807000000 0f05 c3"}, "X86_64 7"},
		// vperm2f128, vpshufd, valignd with an immediate byte that looks like mov, and vaddps without one
		{"immediate of VEX map 3", map[string]string{"f": "c4e37d06c0b8 b807000000 0f05 c3"}, "X86_64 7"},
		{"immediate of VEX map 1", map[string]string{"f": "c5f970c0b8 b807000000 0f05 c3"}, "X86_64 7"},
		{"immediate of EVEX map 3", map[string]string{"f": "62f37d4803c0b8 b807000000 0f05 c3"}, "X86_64 7"},
		{"VEX without an immediate", map[string]string{"f": "c5f8580408 b807000000 0f05 c3"}, "X86_64 7"},
		// v is read; h sets it to 9, its upper half to 9, its lowest byte or 16 bits to 9
		{"variable", map[string]string{"f": "488b042500001001 0f05 c3"}, "X86_64 7"},
		{"variable stored to", map[string]string{"f": "488b042500001001 0f05 c3", "h": "48c704250000100109000000 c3"}, "X86_64 7, X86_64 9"},
		{"half of a variable stored to", map[string]string{"f": "488b042500001001 0f05 c3", "h": "c704250400100109000000 c3"}, "X86_64 7, ? f"},
		{"byte of a variable stored to", map[string]string{"f": "488b042500001001 0f05 c3", "h": "c604250000100109 c3"}, "X86_64 7, ? f"},
		{"16 bits of a variable stored to", map[string]string{"f": "488b042500001001 0f05 c3", "h": "66c70425000010010900 c3"}, "X86_64 7, ? f"},
		// sub $16,%rsp; movq $7,(%rsp); call h; call g; add $16,%rsp: h may use the space of its arguments
		{"argument that a callee may change", map[string]string{"f": "4883ec10 48c7042407000000 e86f000000 e82a000000 4883c410 c3", "g": "488b442408 0f05 c3", "h": "c3"}, "? f"},
		// movq $7,(%rsp); then movl $9,4(%rsp), movb $9,(%rsp), movq $9,(%rsp,%rcx,8), or rep movsb to %rsp; mov (%rsp),%rax
		{"half of a slot stored to", map[string]string{"f": "4883ec10 48c7042407000000 c744240409000000 488b0424 0f05 4883c410 c3"}, "? f"},
		{"byte of a slot stored to", map[string]string{"f": "4883ec10 48c7042407000000 c6042409 488b0424 0f05 4883c410 c3"}, "? f"},
		{"some slot stored to", map[string]string{"f": "4883ec40 48c7042407000000 48c704cc09000000 488b0424 0f05 c3"}, "? f"},
		{"slot stored to by a string", map[string]string{"f": "4883ec10 48c7042407000000 4889e7 f3a4 488b0424 0f05 c3"}, "? f"},
		{"the second of two pushed", map[string]string{"f": "b907000000 51 6a09 5a 58 0f05 c3"}, "X86_64 7"},
		{"slot by the frame pointer", map[string]string{"f": "55 4889e5 6a07 b808000000 488b45f8 c9 0f05 c3"}, "X86_64 7"},
		{"behind push and ret", map[string]string{"f": "b807000000 51 c3 0f05 c3"}, "? f"},
		{"xchg", map[string]string{"f": "b807000000 b908000000 4891 0f05 c3"}, "? f"},
		{"xchg with memory", map[string]string{"f": "6a07 b808000000 48870424 0f05 c3"}, "? f"},
		{"cmpxchg", map[string]string{"f": "b807000000 f0480fb10f 0f05 c3"}, "? f"},
		{"xadd", map[string]string{"f": "b807000000 f0480fc107 0f05 c3"}, "? f"},
		{"mul", map[string]string{"f": "b807000000 48f7e1 0f05 c3"}, "? f"},
		{"cpuid", map[string]string{"f": "b807000000 0fa2 0f05 c3"}, "? f"},
		{"shl", map[string]string{"f": "b807000000 d1e0 0f05 c3"}, "? f"},
		{"bts", map[string]string{"f": "b807000000 0fbae804 0f05 c3"}, "? f"},
		{"sete", map[string]string{"f": "b807000000 0f94c0 0f05 c3"}, "? f"},
		{"sbb", map[string]string{"f": "b807000000 19c0 0f05 c3"}, "? f"},
		{"16 bits changed", map[string]string{"f": "b807000000 66b80900 0f05 c3"}, "? f"},
		{"second byte changed", map[string]string{"f": "b807000000 b409 0f05 c3"}, "? f"},
		// mov $7,%eax; je 1f; mov $8,%eax; call runtime.throw; 1: syscall
		{"nothing goes on after throw", map[string]string{"f": "b807000000 740a b808000000 e82f000000 0f05 c3", "runtime.throw": "c3"}, "X86_64 7"},
		// f: lea g(%rip),%rcx; call *%rcx
		{"address taken", map[string]string{"f": "488d0d39000000 ffd1 c3", "g": "0f05 c3"}, "? g"},
	}
	for _, tt := range tests {
		if got := summary(assemble(t, x86{mode: 64}, 8, tt.fns).reach()); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

// The lengths are those that GNU as gives.
func TestVectorLen(t *testing.T) {
	tests := map[string]string{
		"vzeroupper":                           "c5f877",
		"vperm2f128 $1,%ymm1,%ymm2,%ymm3":      "c4e36d06d901",
		"vpshufd $1,(%rax),%xmm0":              "c5f9700001",
		"vaddps 8(%rax,%rcx),%xmm0,%xmm1":      "c5f8584c0808",
		"vaddps 0x10(,%rcx,4),%xmm0,%xmm1":     "c5f8580c8d10000000",
		"vaddps 0x1000(%rip),%ymm0,%ymm1":      "c5fc580d00100000",
		"vaddps 0x1000(%r11),%ymm0,%ymm1":      "c4c17c588b00100000",
		"vcmpps $1,%xmm1,%xmm2,%xmm3":          "c5e8c2d901",
		"vshufps $1,%xmm1,%xmm2,%xmm3":         "c5e8c6d901",
		"vpinsrw $1,%eax,%xmm1,%xmm2":          "c5f1c4d001",
		"vpextrw $1,%xmm1,%eax":                "c5f9c5c101",
		"vpsrlq $4,%ymm1,%ymm2":                "c5ed73d104",
		"vmovdqu %ymm0,%fs:(%rax)":             "64c5fe7f00",
		"andn %eax,%ecx,%edx":                  "c4e270f2d0",
		"rorx $3,%eax,%ecx":                    "c4e37bf0c803",
		"valignd $1,%zmm0,%zmm1,%zmm2":         "62f3754803d001",
		"vpternlogd $1,0x40(%rax),%zmm1,%zmm2": "62f3754825500101",
		"vpaddd (%rax,%rcx,2),%zmm1,%zmm2":     "62f17548fe1448",
		"vpsllw $1,%zmm1,%zmm2":                "62f16d4871f101",
		"adcx %rbx,%rcx":                       "66480f38f6cb",
		"adox 8(%rsi),%rax":                    "f3480f38f64608",
	}
	for name, text := range tests {
		code, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := (x86{mode: 64}).vectorLen(append(code, 0xb8, 1, 2, 3, 4, 0xc3, 0x90, 0x90)); got != len(code) {
			t.Errorf("%s: %d bytes, want %d", name, got, len(code))
		}
	}
	for _, other := range []string{"89c1b801020304c39090", "660f38f0c8b801020304c3", "f30f6fc0b801020304c3"} {
		code, err := hex.DecodeString(other)
		if err != nil {
			t.Fatal(err)
		}
		if got := (x86{mode: 64}).vectorLen(code); got != 0 {
			t.Errorf("%s: %d bytes, want 0", other, got)
		}
	}
}

func TestFlow386(t *testing.T) {
	tests := []struct {
		name string
		fns  map[string]string
		want string
	}{
		{"constant", map[string]string{"f": "b814000000 cd80 c3"}, "X86 20"},
		{"through the vDSO", map[string]string{"f": "b814000000 65ff1510000000 c3"}, "X86 20"},
		{"not through the vDSO", map[string]string{"f": "b814000000 65ff1514000000 c3"}, ""},
		{"breakpoint", map[string]string{"f": "b814000000 cc cd80 c3"}, "? f"},
		// g: mov 4(%esp),%eax; int $0x80. f: sub $8,%esp; movl $7,(%esp); call g; add $8,%esp
		{"argument", map[string]string{"f": "83ec08 c7042407000000 e831000000 83c408 c3", "g": "8b442404 cd80 c3"}, "X86 7"},
		// g: pop %esi; int $0x80; push %esi, as syscall.rawVforkSyscall does
		{"return address kept in a register", map[string]string{"f": "83ec08 c7042407000000 e831000000 83c408 c3", "g": "8b442404 5e cd80 56 c3"}, "X86 7"},
		// f: mov $g,%ecx; call *%ecx
		{"address taken", map[string]string{"f": "b940000001 ffd1 c3", "g": "cd80 c3"}, "? g"},
	}
	for _, tt := range tests {
		if got := summary(assemble(t, x86{mode: 32}, 4, tt.fns).reach()); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestFlowARM64(t *testing.T) {
	const svc, ret = "010000d4", "c0035fd6"
	tests := []struct {
		name string
		fns  map[string]string
		want string
	}{
		{"mov", map[string]string{"f": "080580d2" + svc + ret}, "AARCH64 40"},
		{"mov by orr", map[string]string{"f": "e80b40b2" + svc + ret}, "AARCH64 7"},
		{"svc with another operand", map[string]string{"f": "080580d2" + "e10f00d4" + ret}, "AARCH64 40"},
		{"movk", map[string]string{"f": "080580d2" + "2800a0f2" + svc + ret}, "? f"},
		{"by a register", map[string]string{"f": "000580d2" + "e80300aa" + svc + ret}, "AARCH64 40"},
		{"zero register", map[string]string{"f": "e8031faa" + svc + ret}, "AARCH64 0"},
		// mov x0,#40; mov x1,#41; csel x8,x0,x1,eq
		{"csel", map[string]string{"f": "000580d2" + "210580d2" + "0800819a" + svc + ret}, "AARCH64 40, AARCH64 41"},
		// mov x0,#40; str x0,[sp,#-16]!; ldr x8,[sp],#16
		{"by the stack", map[string]string{"f": "000580d2" + "e00f1ff8" + "e80741f8" + svc + ret}, "AARCH64 40"},
		{"kept over a call into the kernel", map[string]string{"f": "080580d2" + svc + svc + ret}, "AARCH64 40"},
		{"the result of a call", map[string]string{"f": "080580d2" + svc + "e80300aa" + svc + ret}, "AARCH64 40, ? f"},
		// g: ldr x8,[sp,#8]; svc. f: sub sp,sp,#32; mov x0,#40; str x0,[sp,#8]; bl g (+0x34); add sp,sp,#32
		{"argument on the stack", map[string]string{
			"f": "ff8300d1" + "000580d2" + "e00700f9" + "0d000094" + "ff830091" + ret,
			"g": "e80740f9" + svc + ret,
		}, "AARCH64 40"},
		{"caller that jumps", map[string]string{"f": "080580d2" + "0f000014", "g": svc + ret}, "AARCH64 40"},
		{"jump that is not followed", map[string]string{"f": "40000054" + "20001fd6" + "080580d2" + svc + ret}, "AARCH64 40, ? f"},
	}
	for _, tt := range tests {
		if got := summary(assemble(t, arm64{}, 8, tt.fns).reach()); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}
