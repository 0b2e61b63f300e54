#include "textflag.h"

// The container's init, see init.go. It is copied out of this program: no symbol but its own constants may be used.

// initEntry starts the child, and sleeps: argc, argv and the environment are on the stack.
TEXT ·entry(SB), NOSPLIT|NOFRAME, $0
	MOVQ	SP, BX
	MOVL	$13, AX			// rt_sigaction(SIGCHLD, initAction, 0, 8)
	MOVL	$17, DI
	MOVL	$0x400100, SI
	XORL	DX, DX
	MOVL	$8, R10
	SYSCALL
	XORL	R12, R12		// the child's pid, which the handler finds in the saved registers
	MOVL	$56, AX			// clone(SIGCHLD, 0, 0, 0, 0)
	MOVL	$17, DI
	XORL	SI, SI
	XORL	DX, DX
	XORL	R10, R10
	XORL	R8, R8
	SYSCALL
	MOVL	$126, DI
	TESTQ	AX, AX
	JLT	exit
	JEQ	child
	MOVQ	AX, R12
sleep:
	MOVL	$202, AX		// futex(initWord, FUTEX_WAIT_PRIVATE, 0, 0)
	MOVL	$0x400180, DI
	MOVL	$128, SI
	XORL	DX, DX
	XORL	R10, R10
	SYSCALL
	JMP	sleep
child:
	MOVL	$59, AX			// execve(argv[1], &argv[1], envp)
	MOVQ	16(BX), DI
	LEAQ	16(BX), SI
	MOVQ	0(BX), CX
	LEAQ	16(BX)(CX*8), DX
	SYSCALL
	MOVL	$127, DI
exit:
	MOVL	$231, AX		// exit_group
	SYSCALL
	JMP	exit

// initHandler gets (signal, siginfo, context): the child's end is ours. A pid of 0 says that it ended at once.
TEXT ·handler(SB), NOSPLIT|NOFRAME, $0
	MOVL	72(DX), AX		// R12 in the context
	TESTL	AX, AX
	JEQ	ours
	CMPL	16(SI), AX		// si_pid
	JNE	orphan
ours:
	MOVL	24(SI), DI		// si_status
	CMPL	8(SI), $1		// si_code: CLD_EXITED
	JEQ	exit
	ADDL	$128, DI
exit:
	MOVL	$231, AX		// exit_group
	SYSCALL
	JMP	exit
orphan:
	RET

TEXT ·restorer(SB), NOSPLIT|NOFRAME, $0
	MOVL	$15, AX			// rt_sigreturn
	SYSCALL
	RET

DATA ·initEntry(SB)/8, $·entry(SB)
GLOBL ·initEntry(SB), NOPTR, $8
DATA ·initHandler(SB)/8, $·handler(SB)
GLOBL ·initHandler(SB), NOPTR, $8
DATA ·initRestorer(SB)/8, $·restorer(SB)
GLOBL ·initRestorer(SB), NOPTR, $8
