#include "textflag.h"

// The container's init, see init.go. It is copied out of this program: no symbol but its own constants may be used.

// initEntry: argc, argv and the environment are on the stack. R21 is where the two processes share a word: 0, or one more
// than the exit status.
TEXT ·entry(SB), NOSPLIT|NOFRAME, $0
	MOVD	RSP, R19
	SUB	$64, R19, R21
	MOVD	R21, RSP
	MOVD	ZR, (R21)
	MOVD	$134, R8		// rt_sigaction(SIGCHLD, initAction, 0, 8)
	MOVD	$17, R0
	MOVD	$0x400100, R1
	MOVD	$0, R2
	MOVD	$8, R3
	SVC
	MOVD	$0, R20			// this is the init, the handler finds in the saved registers
	MOVD	$220, R8		// clone(CLONE_VM|SIGCHLD, a stack below ours, 0, 0, 0)
	MOVD	$0x111, R0
	SUB	$0x8000, R21, R1
	MOVD	$0, R2
	MOVD	$0, R3
	MOVD	$0, R4
	SVC
	MOVD	$127, R5
	CMP	$0, R0
	BEQ	parent
	BGT	wait
	MOVW	R5, (R21)
wait:
	MOVW	(R21), R0
	CBNZ	R0, end
	MOVD	$98, R8			// futex(the word, FUTEX_WAIT_PRIVATE, 0, 0)
	MOVD	R21, R0
	MOVD	$128, R1
	MOVD	$0, R2
	MOVD	$0, R3
	SVC
	B	wait
end:
	SUB	$1, R0, R0
exit:
	MOVD	$94, R8			// exit_group
	SVC
	B	exit
parent:
	MOVD	$1, R20			// this is the program's parent
	MOVD	$220, R8		// clone(SIGCHLD, 0, 0, 0, 0)
	MOVD	$17, R0
	MOVD	$0, R1
	MOVD	$0, R2
	MOVD	$0, R3
	MOVD	$0, R4
	SVC
	CMP	$0, R0
	BEQ	child
	BLT	failed
sleep:
	MOVD	$98, R8			// futex(initWord, FUTEX_WAIT_PRIVATE, 0, 0)
	MOVD	$0x400180, R0
	MOVD	$128, R1
	MOVD	$0, R2
	MOVD	$0, R3
	SVC
	B	sleep
failed:
	MOVD	$127, R5
	MOVW	R5, (R21)
	MOVD	$98, R8			// futex(the word, FUTEX_WAKE_PRIVATE, 1)
	MOVD	R21, R0
	MOVD	$129, R1
	MOVD	$1, R2
	SVC
	B	exit
child:
	MOVD	$221, R8		// execve(argv[1], &argv[1], envp)
	MOVD	16(R19), R0
	ADD	$16, R19, R1
	MOVD	0(R19), R2
	LSL	$3, R2, R2
	ADD	R1, R2, R2
	SVC
	MOVD	$127, R0
	B	exit

// initHandler gets (signal, siginfo, context). The parent has one child, whose end it tells the init.
TEXT ·handler(SB), NOSPLIT|NOFRAME, $0
	MOVW	344(R2), R3		// R20 in the context
	CBZ	R3, orphan
	MOVD	352(R2), R21		// R21
	MOVW	24(R1), R0		// si_status
	MOVW	8(R1), R2		// si_code
	CMPW	$1, R2			// CLD_EXITED
	BEQ	exited
	ADD	$128, R0, R0
exited:
	ADD	$1, R0, R0
	MOVW	R0, (R21)
	MOVD	$98, R8			// futex(the word, FUTEX_WAKE_PRIVATE, 1)
	MOVD	R21, R0
	MOVD	$129, R1
	MOVD	$1, R2
	SVC
exit:
	MOVD	$0, R0
	MOVD	$94, R8			// exit_group
	SVC
	B	exit
orphan:
	RET

// restorer is for x86: on arm64 the kernel's own one in the vDSO is used.
TEXT ·restorer(SB), NOSPLIT|NOFRAME, $0
	MOVD	$139, R8		// rt_sigreturn
	SVC
	RET

DATA ·initEntry(SB)/8, $·entry(SB)
GLOBL ·initEntry(SB), NOPTR, $8
DATA ·initHandler(SB)/8, $·handler(SB)
GLOBL ·initHandler(SB), NOPTR, $8
DATA ·initRestorer(SB)/8, $·restorer(SB)
GLOBL ·initRestorer(SB), NOPTR, $8
