/*
 * calls makes system calls that are known one by one: no libc, no start-up code. The tests of package tracer build it
 *
 *     gcc -static -nostdlib -ffreestanding -fno-stack-protector -fno-builtin -O1 -o calls calls.c
 *
 * and run it as a container's init, which becomes its own workload:
 *
 *     calls init INSTALL SHAPE MODE LIST [N]   see init(); fd 0 gives the filter, fd 1 takes an r for "ready"
 *     calls run MODE LIST [N]                  see modes[]
 *
 * LIST holds the numbers to call, as in 39,i20,-1: those with an i go through int $0x80. Arguments follow an @ each: 41@2@1.
 */
#include <asm/unistd.h>
#include <linux/filter.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <linux/signal.h>
#include <linux/poll.h>
#include <linux/fcntl.h>

static long call(long nr, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
	long ret;

	__asm__ volatile("syscall" : "=a"(ret) : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
	return ret;
}
#define CALL3(nr, a, b, c) call(nr, (long)(a), (long)(b), (long)(c), 0, 0, 0)

/* call32(nr, a, b, c, d, e, f) is the same of the i386 table. */
long call32(long nr, long a, long b, long c, long d, long e, long f);
__asm__("call32: push %rbx; push %rbp; mov %rdi,%rax; mov %rsi,%rbx; mov %rcx,%r10; mov %rdx,%rcx; mov %r10,%rdx;"
	"mov %r8,%rsi; mov %r9,%rdi; mov 24(%rsp),%rbp; int $0x80; pop %rbp; pop %rbx; ret");

/* spawn runs f on a stack of its own: a thread, or a child that shares the memory. f does not return. */
long spawn(long flags, void *stack, int *tid, void (*f)(void));
__asm__("spawn: sub $8,%rsi; mov %rcx,(%rsi); mov %rdx,%r10; xor %r8,%r8; mov $56,%eax; syscall;"
	"test %rax,%rax; jnz 1f; pop %rax; call *%rax; hlt; 1: ret");

static char **args; /* those of the workload: MODE LIST [N] */
static char stacks[64][16384] __attribute__((aligned(16)));
static struct sock_filter filter[256] = {{BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW}};
static struct sock_fprog prog = {1, filter};

static long number(const char **s)
{
	long n = 0, sign = **s == '-' ? -1 : 1;

	for (*s += **s == '-'; **s >= '0' && **s <= '9'; ++*s)
		n = n * 10 + **s - '0';
	return n * sign;
}

static int equal(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

/* next makes the call that LIST begins with, and returns the rest of LIST. No fd is -1, no pointer is 0x101. */
static const char *next(const char *list)
{
	int compat = *list == 'i';
	long nr, a[] = {-1, 0x101, 0x102, 0x103, 0x104, 0x105};

	list += compat;
	nr = number(&list);
	for (int i = 0; *list == '@' && i < 6; i++) {
		list++;
		a[i] = number(&list);
	}
	(compat ? call32 : call)(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
	return list + (*list == ',');
}

static void calls(void)
{
	for (const char *list = args[1]; *list;)
		list = next(list);
}

static long count(void)
{
	const char *n = args[2] ? args[2] : "1";

	return number(&n);
}

static void exit_group(void) { CALL3(__NR_exit_group, 0, 0, 0); }
static void wait_child(void) { CALL3(__NR_wait4, -1, 0, 0); }
static long fork(void) { return CALL3(__NR_fork, 0, 0, 0); }
static void calls_exit_group(void) { calls(); exit_group(); }
static void calls_exit(void) { calls(); CALL3(__NR_exit, 0, 0, 0); }

/* thread starts one and waits for its end without a call. */
static void thread(void (*f)(void))
{
	static volatile int tid;

	tid = 1;
	spawn(CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_CHILD_CLEARTID,
	      stacks[1], (int *)&tid, f);
	while (tid)
		__asm__ volatile("pause");
}

static void threads(void) { for (long n = count(); n; n--) thread(calls_exit); }
static void forked(void) { if (!fork()) calls_exit_group(); wait_child(); }
static void vforked(void) { spawn(CLONE_VM | CLONE_VFORK | SIGCHLD, stacks[1], 0, calls_exit_group); wait_child(); }

static void clone3(void)
{
	struct clone_args a = {.exit_signal = SIGCHLD};

	if (!CALL3(__NR_clone3, &a, sizeof(a), 0))
		calls_exit_group();
	wait_child();
}

/* forks starts N children; the first makes the first call of LIST, the second the second and so on, round and round. */
static void forks(void)
{
	const char *list = args[1];

	for (long i = 0, n = count(); i < n; i++) {
		if (!fork()) {
			next(list);
			exit_group();
		}
		while (*list && *list++ != ',')
			;
		if (!*list)
			list = args[1];
		if (i >= 32)
			wait_child();
	}
	while (CALL3(__NR_wait4, -1, 0, 0) > 0)
		;
}

static void deep(void)
{
	for (long n = count(); n; n--)
		if (fork()) {
			wait_child();
			exit_group();
		}
	calls();
}

static void unshared(void)
{
	if (!fork()) {
		CALL3(__NR_unshare, CLONE_NEWNS, 0, 0);
		calls_exit_group();
	}
	wait_child();
}

/* daemon leaves a grandchild that works when the test has closed fd 0, which it does after the main process's end. */
static void daemon(void)
{
	if (!fork()) {
		CALL3(__NR_setsid, 0, 0, 0);
		if (!fork()) {
			CALL3(__NR_read, 0, filter, 1);
			calls();
		}
		exit_group();
	}
	wait_child();
}

static void renamed(void) { CALL3(__NR_prctl, PR_SET_NAME, "runc:[2:INIT]", 0); calls(); }
static void again(void) { CALL3(__NR_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog); calls(); }

/* own has a filter of the workload's own, which answers getuid with errno 99, on all ABIs alike. */
static void own(void)
{
	static struct sock_filter refuse[] = {
		{BPF_LD | BPF_W | BPF_ABS, 0, 0, 0},
		{BPF_JMP | BPF_JEQ | BPF_K, 0, 1, __NR_getuid},
		{BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | 99},
		{BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW},
	};
	static struct sock_fprog p = {4, refuse};

	CALL3(__NR_seccomp, SECCOMP_SET_MODE_FILTER, 0, &p);
	calls();
}

static void await(void) { CALL3(__NR_read, 0, filter, 1); calls(); }

/* restart is stopped and continued by the test in its poll. */
static void restart(void)
{
	struct pollfd p = {0, POLLIN, 0};

	CALL3(__NR_poll, &p, 1, 600000);
	calls();
}

/* exec executes another program: LIST is its path, and what follows its arguments. */
static void exec(void) { CALL3(__NR_execve, args[1], args + 1, 0); }

/* spawn_init is an init: its child executes what exec would. */
static void spawn_init(void) { if (!fork()) exec(); wait_child(); }

/* deep_init is one whose child makes the child. */
static void deep_init(void) { if (!fork()) { spawn_init(); exit_group(); } wait_child(); }

static void on_signal(int signal) {}
void restorer(void);
__asm__("restorer: mov $15,%eax; syscall");

static void handled(void)
{
	struct { void *handler; long flags; void *restorer; long mask; } sa = {on_signal, 0x04000000 /* SA_RESTORER */, restorer, 0};

	call(__NR_rt_sigaction, SIGSYS, (long)&sa, 0, 8, 0, 0);
	calls();
}

static const struct { const char *name; void (*run)(void); } modes[] = {
	{"calls", calls},     {"thread-exit", calls_exit}, {"threads", threads}, {"fork", forked},       {"vfork", vforked},
	{"clone3", clone3},   {"forks", forks},            {"deep", deep},       {"unshare", unshared},  {"daemon", daemon},
	{"renamed", renamed}, {"again", again},            {"own", own},            {"await", await},     {"restart", restart},   {"exec", exec},       {"spawn", spawn_init},
	{"spawn-deep", deep_init},
	{"handled", handled},
};

static void run(void)
{
	for (int i = 0; i < sizeof(modes) / sizeof(*modes); i++)
		if (equal(modes[i].name, args[0]))
			modes[i].run();
	exit_group();
}

/* The init. */
static char **init_args;
static volatile int phase;
static int blocked[2];

static void await_start(void)
{
	long n;

	CALL3(__NR_write, 1, "r", 1);
	n = CALL3(__NR_read, 0, filter, sizeof(filter));
	if (n >= (long)sizeof(*filter))
		prog.len = n / sizeof(*filter);
}

static void install(void)
{
	const char *how = init_args[2];

	if (equal(how, "seccomp"))
		CALL3(__NR_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog);
	if (equal(how, "tsync"))
		CALL3(__NR_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &prog);
	if (equal(how, "prctl"))
		CALL3(__NR_prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog);
}

static void exec_workload(void)
{
	char *argv[16] = {init_args[0], "run"};

	for (int i = 0; args[i] && i < 13; i++)
		argv[2 + i] = args[i];
	CALL3(__NR_execve, argv[0], argv, 0);
	exit_group();
}

static void start_workload(void) { await_start(); install(); exec_workload(); }

/* sibling makes one call between the filter's installation and the execve. */
static void sibling(void)
{
	while (phase != 1)
		__asm__ volatile("pause");
	CALL3(__NR_getpgrp, 0, 0, 0);
	phase = 2;
	for (;;)
		__asm__ volatile("pause");
}

/* sleeper is in a call from before Start until the filter is there, then makes one. */
static void sleeper(void)
{
	CALL3(__NR_read, blocked[0], filter + 255, 1);
	CALL3(__NR_getpgrp, 0, 0, 0);
	phase = 2;
	for (;;)
		__asm__ volatile("pause");
}

static void init_thread(void (*f)(void))
{
	spawn(CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM, stacks[2], 0, f);
}

static void await_sibling(void)
{
	while (phase != 2)
		__asm__ volatile("pause");
}

static void init(void)
{
	const char *shape = init_args[3];

	if (equal(shape, "thread")) { /* another thread than the first installs and executes */
		init_thread(start_workload);
		for (;;)
			__asm__ volatile("pause");
	}
	if (equal(shape, "sibling"))
		init_thread(sibling);
	if (equal(shape, "sleeper")) {
		CALL3(__NR_pipe, blocked, 0, 0);
		init_thread(sleeper);
	}
	if (equal(shape, "visitor")) { /* has joined another namespace before it becomes a container */
		CALL3(__NR_setns, 3, CLONE_NEWNS, 0);
		CALL3(__NR_unshare, CLONE_NEWNS, 0, 0);
	}
	if (equal(shape, "guest")) /* lives in another container's namespace */
		CALL3(__NR_setns, 3, CLONE_NEWNS, 0);
	if (equal(shape, "twice")) /* is started twice */
		await_start();
	await_start();
	if (equal(shape, "join") || equal(shape, "join-fork"))
		CALL3(__NR_setns, 3, CLONE_NEWNS, 0);
	if (equal(shape, "join-fork") && fork()) {
		wait_child();
		exit_group();
	}
	if (equal(shape, "fork") && !fork()) { /* a child of the init, as a hook is, before the filter */
		args[0] = "calls";
		exec_workload();
	} else if (equal(shape, "fork"))
		wait_child();
	install();
	if (equal(shape, "hook") && !fork()) /* a child of the init under the filter */
		exec_workload();
	else if (equal(shape, "hook"))
		wait_child();
	if (equal(shape, "sibling")) {
		phase = 1;
		await_sibling();
	}
	if (equal(shape, "sleeper")) {
		CALL3(__NR_write, blocked[1], "w", 1);
		await_sibling();
	}
	exec_workload();
}

__attribute__((used)) static void start(long *stack)
{
	init_args = (char **)(stack + 1);
	if (stack[0] >= 6 && equal(init_args[1], "init")) {
		args = init_args + 4;
		init();
	}
	if (stack[0] >= 4 && equal(init_args[1], "run")) {
		args = init_args + 2;
		run();
	}
	CALL3(__NR_exit_group, 2, 0, 0);
}

__asm__(".globl _start; _start: mov %rsp,%rdi; and $-16,%rsp; call start; hlt");
