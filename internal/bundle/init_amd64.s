#include "textflag.h"

// The container's init, see init.go. It is copied out of this program: no symbol but its own constants may be used.

// initEntry: argc, argv and the environment are on the stack. R13 is where the two processes share a word: 0, or one more
// than the exit status.
TEXT ·entry(SB), NOSPLIT|NOFRAME, $0
	MOVQ	SP, BX
	LEAQ	-64(BX), R13
	MOVQ	R13, SP
	MOVQ	$0, (R13)
	MOVL	$13, AX			// rt_sigaction(SIGCHLD, initAction, 0, 8)
	MOVL	$17, DI
	MOVL	$0x400100, SI
	XORL	DX, DX
	MOVL	$8, R10
	SYSCALL
	XORL	R12, R12		// this is the init, the handler finds in the saved registers
	MOVL	$56, AX			// clone(CLONE_VM|SIGCHLD, a stack below ours, 0, 0, 0)
	MOVL	$0x111, DI
	LEAQ	-0x8000(R13), SI
	XORL	DX, DX
	XORL	R10, R10
	XORL	R8, R8
	SYSCALL
	TESTQ	AX, AX
	JEQ	parent
	JGT	wait
	MOVL	$127, (R13)
wait:
	MOVL	(R13), DI
	TESTL	DI, DI
	JNE	end
	MOVL	$202, AX		// futex(the word, FUTEX_WAIT_PRIVATE, 0, 0)
	MOVQ	R13, DI
	MOVL	$128, SI
	XORL	DX, DX
	XORL	R10, R10
	SYSCALL
	JMP	wait
end:
	DECL	DI
exit:
	MOVL	$231, AX		// exit_group
	SYSCALL
	JMP	exit
parent:
	MOVL	$1, R12			// this is the program's parent
	MOVL	$56, AX			// clone(SIGCHLD, 0, 0, 0, 0)
	MOVL	$17, DI
	XORL	SI, SI
	SYSCALL
	TESTQ	AX, AX
	JEQ	child
	JLT	failed
sleep:
	MOVL	$202, AX		// futex(initWord, FUTEX_WAIT_PRIVATE, 0, 0)
	MOVL	$0x400180, DI
	MOVL	$128, SI
	XORL	DX, DX
	XORL	R10, R10
	SYSCALL
	JMP	sleep
failed:
	MOVL	$127, (R13)
	MOVL	$202, AX		// futex(the word, FUTEX_WAKE_PRIVATE, 1)
	MOVQ	R13, DI
	MOVL	$129, SI
	MOVL	$1, DX
	SYSCALL
	JMP	exit
child:
	MOVL	$59, AX			// execve(argv[1], &argv[1], envp)
	MOVQ	16(BX), DI
	LEAQ	16(BX), SI
	MOVQ	0(BX), CX
	LEAQ	16(BX)(CX*8), DX
	SYSCALL
	MOVL	$127, DI
	JMP	exit

// initHandler gets (signal, siginfo, context). The parent has one child, whose end it tells the init.
TEXT ·handler(SB), NOSPLIT|NOFRAME, $0
	MOVL	72(DX), AX		// R12 in the context
	TESTL	AX, AX
	JEQ	orphan
	MOVQ	80(DX), R13		// R13
	MOVL	24(SI), AX		// si_status
	CMPL	8(SI), $1		// si_code: CLD_EXITED
	JEQ	exited
	ADDL	$128, AX
exited:
	INCL	AX
	MOVL	AX, (R13)
	MOVL	$202, AX		// futex(the word, FUTEX_WAKE_PRIVATE, 1)
	MOVQ	R13, DI
	MOVL	$129, SI
	MOVL	$1, DX
	SYSCALL
exit:
	XORL	DI, DI
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
