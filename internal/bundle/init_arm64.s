#include "textflag.h"

// The container's init, see init.go. It is copied out of this program: no symbol but its own constants may be used.

// initEntry starts the child, and sleeps: argc, argv and the environment are on the stack.
TEXT ·entry(SB), NOSPLIT|NOFRAME, $0
	MOVD	RSP, R19
	MOVD	$134, R8		// rt_sigaction(SIGCHLD, initAction, 0, 8)
	MOVD	$17, R0
	MOVD	$0x400100, R1
	MOVD	$0, R2
	MOVD	$8, R3
	SVC
	MOVD	$0, R20			// the child's pid, which the handler finds in the saved registers
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
	MOVD	R0, R20
sleep:
	MOVD	$98, R8			// futex(initWord, FUTEX_WAIT_PRIVATE, 0, 0)
	MOVD	$0x400180, R0
	MOVD	$128, R1
	MOVD	$0, R2
	MOVD	$0, R3
	SVC
	B	sleep
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
failed:
	MOVD	$126, R0
exit:
	MOVD	$94, R8			// exit_group
	SVC
	B	exit

// initHandler gets (signal, siginfo, context): the child's end is ours. A pid of 0 says that it ended at once.
TEXT ·handler(SB), NOSPLIT|NOFRAME, $0
	MOVW	344(R2), R3		// R20 in the context
	CBZ	R3, ours
	MOVW	16(R1), R4		// si_pid
	CMPW	R3, R4
	BNE	orphan
ours:
	MOVW	24(R1), R0		// si_status
	MOVW	8(R1), R2		// si_code
	CMPW	$1, R2			// CLD_EXITED
	BEQ	exit
	ADD	$128, R0, R0
exit:
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
