// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The recorder: one shared set of programs that serves every container under recording on this host.
 *
 * A task is *armed* when it belongs to the init process that a hook named, or joined a recorded container with
 * setns(2). It is *recorded* from the system call entry at which its seccomp filter is no longer the one it was armed
 * with. Both facts live in task-local storage, which fork copies, as the kernel copies the filter itself. No
 * process is ever told by its name.
 *
 * Most calls must not even cost a helper's call: struct mark finds, by an address that names the task, what is known of
 * it, or that nothing is.
 *
 * What is seen goes into a bit per (phase, ABI, number) of the container's slot, and for some calls into a small set of
 * their arguments. There is no event stream, so nothing can overflow while it is drained; what could not be kept is
 * counted in slot->dropped.
 */
#include "vmlinux.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

enum limits {
	MAX_SLOTS = 512,     /* containers recorded at once */
	NR_LIMIT = 1024,     /* numbers kept as bits; the rest, and those without a name, are counted in unknown */
	NR_WORDS = NR_LIMIT / 64,
	MAX_FIRSTS = 65536,  /* first sightings, all containers together */
	MAX_UNKNOWN = 4096,
	MAX_DENIALS = 16384,
	MAX_TUPLES = 65536,  /* of arguments, all containers together */
	TUPLES = 32,         /* of the calls of one (phase, ABI, rule); a call that comes with more is kept without */
	RULES = 32,          /* which arguments are kept */
	ARGS = 6,
	MAX_PROCESSES = 4096, /* armed inits, joinable mount namespaces */
	MARK_BITS = 13,
	META_SIZE = 16384,
	FRAMES = 24,         /* of the user stack, kept at a first sighting */
	MAX_EXECUTABLES = 4096,
	EXECUTABLES = 256,   /* of one container */
	PATH_DEPTH = 48,     /* of an executable's path: names and mounts */
	PATH_ROOM = 1024,    /* and its bytes */
	NAME_ROOM = 256,
};

enum phase { PHASE_RUNTIME, PHASE_WORKLOAD, PHASE_EXEC, PHASES };

/* The calling conventions of one kernel. On x86: x86-64, i386, x32. On arm64: aarch64, arm. */
enum abi { ABI_NATIVE, ABI_COMPAT, ABI_X32, ABIS };

enum boundary { BOUNDARY_NONE, BOUNDARY_FILTER, BOUNDARY_EXECVE };

enum drop {
	DROP_FORK,     /* a child could not be given its storage: its calls are missing */
	DROP_ADOPT,    /* the same for a thread of the container's init */
	DROP_FIRST,    /* no room to keep who called first; the call itself is kept */
	DROP_UNKNOWN,  /* no room to keep an unknown number */
	DROP_DENIAL,   /* no room to keep a denial */
	DROP_UNFILTERED, /* a filter was announced, but the workload was executed without one */
	DROPS,
};

enum slot_flag {
	SLOT_DENIALS = 1, /* watch sys_exit */
	SLOT_FILTER = 2,  /* the container's configuration has a filter: never start at an execve */
	SLOT_INIT = 4,    /* the container's first program is an init: the workload is what a child of it executes, or that one's child */
};

/* What the next execve of a process means. */
enum init {
	INIT_NOTHING,
	INIT_RUNTIME, /* the runtime's init: it executes the container's first program */
	INIT_PROGRAM, /* that program, where SLOT_INIT says that it is an init */
	INIT_CHILD,   /* a process that comes from that init: it executes the workload */
};

enum member_state { STATE_JOINER = 1, STATE_ARMED, STATE_RECORDED };

#define SIGKILL 9
#define SIGSYS 31
#define ENOSYS 38
#define NR_CLONE3 435 /* of every ABI */

enum outcome { OUTCOME_ERRNO, OUTCOME_TRAP, OUTCOME_KILL };

struct slot {
	u32 gen;   /* grows with every use of the slot and is never 0: a member of an earlier one is ignored */
	u32 flags; /* enum slot_flag */
	u32 boundary;
	u32 execs; /* armed or joined processes that executed the workload or their program */
	u64 alive; /* recorded tasks that have not exited */
	u64 id; /* user space's, to find the slot by */
	u64 denied; /* calls that look denied and harm, see denied: so that user space need not look at those that do not */
	u64 dropped[DROPS];
	u64 seen[PHASES * ABIS * NR_WORDS];
	u64 done[PHASES * ABIS * NR_WORDS]; /* seen, and nothing more to learn: its arguments are not kept, or not any more */
	u32 tuples[PHASES * ABIS * RULES];
	u32 executables; /* executables that are noted */
	u32 unnoted;     /* execve calls whose executable found no room */
};

/* Task-local. base and mnt are kernel addresses, compared and never followed. */
struct member {
	u64 base; /* the filter at arming; a joiner's, before it joined */
	u64 mnt;  /* joiner only: the mount namespace it came from */
	u32 slot;
	u32 gen;
	u8 state;
	u8 phase;
	u8 init;    /* enum init */
	u8 in_call; /* sys_enter was seen and its sys_exit was not */
	u32 filters; /* how many the task had when it was recorded first; more are the workload's own */
};

/*
 * What the tasks whose tokens have the same hash are. While members is 0 none of them is one. The others find
 * their storage, but for one recorded task of them that owns the mark: only the owner reads and writes what follows
 * token, except that a parent makes its child the owner before the child runs. in_call replaces the member's.
 */
struct mark {
	u64 token; /* the owner's, see token_of; or 0 */
	u32 members;
	u32 slot;
	u32 gen;
	u8 phase;
	u8 in_call;
	u8 pad[10]; /* to 32 bytes, for cheap indexing and whole cache lines */
};

struct arm {
	u64 base; /* with bit 0 set; 0 until the first thread is seen, which is before any could install a filter */
	u32 slot;
	u32 gen;
};

struct join {
	u32 slot;
	u32 gen;
	u32 shared; /* other recorded containers have this mount namespace too */
	u32 lost;   /* joins that could not be told apart for that */
};

struct call {
	u32 slot;
	u32 gen;
	u32 nr;
	u8 phase;
	u8 abi;
	u8 outcome; /* denials only */
	u8 own;     /* denials only: the task had filters of its own beside the container's */
	u32 err;    /* denials only: the errno */
};

/* The arguments of a call, as far as its rule keeps them. */
struct tuple {
	struct call call;
	u32 args[ARGS];
};

/* Who made a call, or was denied it, first. */
struct first {
	u64 time; /* CLOCK_MONOTONIC, ns */
	u32 pid;
	u32 frames;
	u8 comm[16];
	u8 exe[32]; /* the last part of the executable's path, cut */
	u64 stack[FRAMES];
};

/* The file that a recorded task executed. Its size tells it from what the same inode held before. */
struct executable_key {
	u32 slot;
	u32 gen;
	u64 dev; /* as the kernel writes it: 12 bits, 20 bits */
	u64 ino;
	u64 size;
};

enum executable_flag {
	EXECUTABLE_WHOLE = 1, /* the path is whole, and leads from the root of the task's mount namespace */
	EXECUTABLE_DELETED = 2, /* the file had no name any more */
};

struct executable {
	u64 time; /* of the first execve; CLOCK_MONOTONIC, ns */
	u32 flags;
	u32 length;
	u8 path[PATH_ROOM + NAME_ROOM]; /* the names from the file upwards, each ended by a NUL */
};

struct denial {
	struct first first;
	u64 count;
	u64 args[ARGS]; /* of the first one */
};

/* Mapped by who waits for denials: each call of bpf(2) is a moment in which the kernel may skip programs of perf events. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_SLOTS);
	__type(key, u32);
	__type(value, struct slot);
} slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct member);
} members SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << MARK_BITS);
	__type(key, u32);
	__type(value, struct mark);
} marks SEC(".maps");

#define HASH(name, k, v, max)                       \
	struct {                                    \
		__uint(type, BPF_MAP_TYPE_HASH);    \
		__uint(map_flags, BPF_F_NO_PREALLOC); \
		__uint(max_entries, max);           \
		__type(key, k);                     \
		__type(value, v);                   \
	} name SEC(".maps")

/* What user space keeps of a slot in use: JSON, ended by a NUL. It lives and dies with the evidence. */
struct meta {
	u8 json[META_SIZE];
};

HASH(metas, u32, struct meta, MAX_SLOTS);
HASH(arms, u32, struct arm, MAX_PROCESSES);   /* tgid of a container's init, until its execve */
HASH(joins, u32, struct join, MAX_PROCESSES); /* inode number of a container's mount namespace */
HASH(firsts, struct call, struct first, MAX_FIRSTS);
HASH(unknown, struct call, u64, MAX_UNKNOWN);
HASH(denials, struct call, struct denial, MAX_DENIALS);
HASH(tuples, struct tuple, u8, MAX_TUPLES);
HASH(executables, struct executable_key, struct executable, MAX_EXECUTABLES);

/* What a new entry of executables begins with: it is too large for the stack. */
const struct executable no_executable;

/* Inits put into arms and taken out again. Each has one writer: user space under its lock, and these programs. */
volatile u64 armed SEC(".data.user");
volatile u64 disarmed SEC(".data.kernel");

static __always_inline bool any_armed(void)
{
	return armed != disarmed;
}

/*
 * From Linux 6.19 on programs on raw tracepoints can be preempted, and the kernel then skips the same program for every
 * other task on that CPU. Programs on the same tracepoints by way of perf events still run with preemption off, and cost a
 * little more. This says which of the two are loaded.
 */
const volatile bool by_perf;

/* Numbers that have a name, per ABI; the others are counted at every call, not only seen. */
const volatile u64 named[ABIS * NR_WORDS];

/*
 * Which bits of which arguments are kept, for the calls whose rule is not 0. The lower half of a register is enough: the
 * kernel takes these arguments as int, or ignores what is above.
 */
struct rule {
	u32 masks[ARGS];
};
const volatile u8 rule_of[ABIS * NR_LIMIT];
const volatile struct rule rules[RULES];

/* Exported for bpf2go, so that Go never types a constant or a layout again. */
const enum limits *unused_limits __attribute__((unused));
const enum phase *unused_phase __attribute__((unused));
const enum abi *unused_abi __attribute__((unused));
const enum boundary *unused_boundary __attribute__((unused));
const enum drop *unused_drop __attribute__((unused));
const enum slot_flag *unused_slot_flag __attribute__((unused));
const enum outcome *unused_outcome __attribute__((unused));
const enum executable_flag *unused_executable_flag __attribute__((unused));

#if defined(__TARGET_ARCH_x86)
#define TS_COMPAT 0x0002 /* arch/x86/include/asm/thread_info.h */
#define X32_BIT 0x40000000
#define is_setns(nr) ((nr) == 308 || (nr) == 346 || (nr) == (308 | X32_BIT))
static __always_inline u32 abi_of(struct task_struct *t, u64 nr)
{
	if (t->thread_info.status & TS_COMPAT)
		return ABI_COMPAT;
	/* Not for -1 and its like: an x32 number is positive. */
	return (nr >> 30) == 1 ? ABI_X32 : ABI_NATIVE;
}
static __always_inline u64 denied_nr(struct pt_regs *regs)
{
	return (int)regs->orig_ax; /* as the kernel reads it: programs may leave anything in the upper half */
}
static __always_inline void arguments(struct pt_regs *regs, u32 abi, u64 *a)
{
	if (abi == ABI_COMPAT) {
		a[0] = (u32)regs->bx;
		a[1] = (u32)regs->cx;
		a[2] = (u32)regs->dx;
		a[3] = (u32)regs->si;
		a[4] = (u32)regs->di;
		a[5] = (u32)regs->bp;
		return;
	}
	a[0] = regs->di;
	a[1] = regs->si;
	a[2] = regs->dx;
	a[3] = regs->r10;
	a[4] = regs->r8;
	a[5] = regs->r9;
}
#else
#define TIF_32BIT 22 /* arch/arm64/include/asm/thread_info.h */
#define X32_BIT 0
#define is_setns(nr) ((nr) == 268 || (nr) == 375)
static __always_inline u32 abi_of(struct task_struct *t, u64 nr)
{
	return t->thread_info.flags >> TIF_32BIT & 1 ? ABI_COMPAT : ABI_NATIVE;
}
static __always_inline u64 denied_nr(struct pt_regs *regs)
{
	return (s64)regs->syscallno;
}
static __always_inline void arguments(struct pt_regs *regs, u32 abi, u64 *a)
{
	a[0] = regs->orig_x0;
	a[1] = regs->regs[1];
	a[2] = regs->regs[2];
	a[3] = regs->regs[3];
	a[4] = regs->regs[4];
	a[5] = regs->regs[5];
}
#endif

static __always_inline struct slot *slot_of(u32 slot, u32 gen)
{
	struct slot *s = bpf_map_lookup_elem(&slots, &slot);

	return s && s->gen == gen ? s : 0;
}

static __always_inline void drop(struct slot *s, enum drop why)
{
	if (s)
		__sync_fetch_and_add(&s->dropped[why], 1);
}

/*
 * Pointers are copied, not loaded: for each load of one the verifier of newer kernels searches all of the kernel's
 * types, which would make the first Start twice as dear. All of this is off the hot path.
 */
static __always_inline u64 filter_of(struct task_struct *t)
{
	return (u64)BPF_CORE_READ(t, seccomp.filter);
}

static __always_inline bool pending(struct task_struct *t, u32 signal)
{
	return t->pending.signal.sig[0] >> (signal - 1) & 1;
}

static __always_inline u64 mnt_of(struct task_struct *t)
{
	return (u64)BPF_CORE_READ(t, nsproxy, mnt_ns);
}

/*
 * token_of names a task. On raw tracepoints that is where its kernel stack keeps the registers of user space: what
 * bpf_task_pt_regs finds is what sys_enter is given, as ptrace and /proc/PID/syscall have it too. Perf events are not given
 * it, and the task's own address does. Copied, the pointer is a number to the verifier.
 */
static __always_inline u64 token_of(struct task_struct *t)
{
	u64 token = 0;

	if (by_perf) {
		bpf_probe_read_kernel(&token, sizeof(token), &t);
	} else {
		long regs = bpf_task_pt_regs(t);

		bpf_probe_read_kernel(&token, sizeof(token), &regs);
	}
	return token;
}

static __always_inline struct mark *mark_of(u64 token)
{
	u32 at = token * 0x9e3779b97f4a7c15ULL >> (64 - MARK_BITS);

	return bpf_map_lookup_elem(&marks, &at);
}

/* own makes a recorded task the owner of its mark, if that has none. */
static __always_inline void own(struct mark *k, u64 token, struct member *m, u8 in_call)
{
	if (k->token || __sync_val_compare_and_swap(&k->token, 0, token))
		return;
	k->slot = m->slot;
	k->gen = m->gen;
	k->phase = m->phase;
	k->in_call = in_call;
}

static __always_inline struct member *member_of(struct task_struct *t, struct mark *k)
{
	return k->members ? bpf_task_storage_get(&members, t, 0, 0) : 0;
}

/* member_made returns the new storage of a task that has none. */
static __always_inline struct member *member_made(struct task_struct *t, struct mark *k)
{
	struct member *m = bpf_task_storage_get(&members, t, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (m)
		__sync_fetch_and_add(&k->members, 1);
	return m;
}

/* adopt makes the current task a member if a hook armed its process; m is what it was before, and may be 0. */
static __noinline struct member *adopt(struct task_struct *t, struct mark *k, struct member *m, u8 in_call)
{
	u32 tgid = t->tgid;
	struct arm *a = bpf_map_lookup_elem(&arms, &tgid);
	u64 base, first;

	if (!a || (m && m->slot == a->slot && m->gen == a->gen))
		return 0;
	base = filter_of(t) | 1;
	first = __sync_val_compare_and_swap(&a->base, 0, base);
	if (!m)
		m = member_made(t, k);
	if (!m) {
		drop(slot_of(a->slot, a->gen), DROP_ADOPT);
		return 0;
	}
	m->base = (first ? first : base) & ~1ULL;
	m->slot = a->slot;
	m->gen = a->gen;
	m->state = STATE_ARMED;
	m->phase = PHASE_RUNTIME;
	m->init = INIT_RUNTIME;
	m->in_call = in_call;
	return m;
}

static __always_inline void disarm(u32 tgid)
{
	if (any_armed() && bpf_map_delete_elem(&arms, &tgid) == 0)
		__sync_fetch_and_add(&disarmed, 1);
}

static __always_inline u32 filters_of(struct task_struct *t)
{
	return t->seccomp.filter_count.counter;
}

static __always_inline void record_from_here(struct task_struct *t, struct member *m, struct slot *s, u32 boundary)
{
	m->state = STATE_RECORDED;
	m->filters = filters_of(t);
	__sync_fetch_and_add(&s->alive, 1);
	if (m->phase == PHASE_RUNTIME && !s->boundary) /* a joiner's is its own */
		s->boundary = boundary;
}

/*
 * joined turns a joiner that has come into a recorded container's mount namespace into an armed member. Runtimes join
 * with setns(2) before they install the filter and execute the program.
 */
static __noinline bool joined(struct task_struct *t, struct member *m)
{
	u64 mnt = mnt_of(t);
	struct slot *s;
	struct join *j;
	u32 inum;

	if (mnt == m->mnt)
		return false;
	m->mnt = mnt;
	inum = BPF_CORE_READ(t, nsproxy, mnt_ns, ns.inum);
	j = bpf_map_lookup_elem(&joins, &inum);
	if (!j)
		return false;
	if (j->shared) {
		__sync_fetch_and_add(&j->lost, 1);
		return false;
	}
	/* The number may be another namespace's by now, if the container has ended and nobody has collected it. */
	s = slot_of(j->slot, j->gen);
	if (!s || (s->boundary && !s->alive))
		return false;
	m->slot = j->slot;
	m->gen = j->gen;
	m->phase = PHASE_EXEC;
	m->init = INIT_RUNTIME;
	m->state = STATE_ARMED;
	return true;
}

/* recorded reports whether this call counts, and moves the task to recorded when its filter has appeared. */
static __always_inline struct slot *recorded(struct task_struct *t, struct member *m)
{
	struct slot *s;

	if (m->state == STATE_JOINER && !joined(t, m))
		return 0;
	s = slot_of(m->slot, m->gen);
	if (!s)
		return 0;
	if (m->state == STATE_ARMED) {
		if (filter_of(t) == m->base)
			return 0;
		record_from_here(t, m, s, BOUNDARY_FILTER);
	}
	return s;
}

/* note keeps who is calling. The frames are found by frame pointers, which Go programs have. */
static __always_inline void note(void *ctx, struct task_struct *t, struct first *f)
{
	long size;

	f->time = bpf_ktime_get_ns();
	f->pid = t->tgid;
	bpf_get_current_comm(f->comm, sizeof(f->comm));
	bpf_probe_read_kernel_str(f->exe, sizeof(f->exe), BPF_CORE_READ(t, mm, exe_file, f_path.dentry, d_name.name));
	size = bpf_get_stack(ctx, f->stack, sizeof(f->stack), BPF_F_USER_STACK);
	f->frames = size > 0 ? size / sizeof(f->stack[0]) : 0;
}

/* keep_arguments returns whether there is nothing more to learn of a call. */
static __noinline bool keep_arguments(struct task_struct *t, struct slot *s, struct call *key, u32 rule)
{
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(t);
	u32 at = (key->phase * ABIS + key->abi) * RULES + rule;
	struct tuple tuple = {.call = *key};
	u64 args[ARGS];
	u8 yes = 1;

	if (!s || rule >= RULES || at >= PHASES * ABIS * RULES)
		return true;
	arguments(regs, key->abi, args);
	for (int i = 0; i < ARGS; i++)
		tuple.args[i] = args[i] & rules[rule].masks[i];
	if (bpf_map_lookup_elem(&tuples, &tuple))
		return false;
	if (bpf_map_update_elem(&tuples, &tuple, &yes, BPF_NOEXIST)) /* another CPU was first, or there is no room */
		return !bpf_map_lookup_elem(&tuples, &tuple);
	return __sync_fetch_and_add(&s->tuples[at], 1) >= TUPLES;
}

/* Everything dear happens here, once per (phase, ABI, number) of a container, or per call where its arguments count. */
static __noinline int sighting(void *ctx, struct task_struct *t, struct call *key)
{
	u32 nr = key->nr, word = key->abi * NR_WORDS + (nr >> 6), at = key->phase * (ABIS * NR_WORDS) + word;
	u32 of = key->abi * NR_LIMIT + nr, rule;
	struct slot *s = slot_of(key->slot, key->gen);
	struct first f = {};
	u64 one = 1, *n, bit = 1ULL << (nr & 63);

	if (!s)
		return 0;
	if (nr >= NR_LIMIT || word >= ABIS * NR_WORDS || !(named[word] & bit)) {
		n = bpf_map_lookup_elem(&unknown, key);
		if (!n && bpf_map_update_elem(&unknown, key, &one, BPF_NOEXIST) == 0)
			return 0;
		if (!n) /* another CPU was first, or there is no room */
			n = bpf_map_lookup_elem(&unknown, key);
		if (n)
			__sync_fetch_and_add(n, 1);
		else
			drop(s, DROP_UNKNOWN);
		return 0;
	}
	if (at >= PHASES * ABIS * NR_WORDS || of >= ABIS * NR_LIMIT)
		return 0;
	rule = rule_of[of];
	if (!rule || keep_arguments(t, s, key, rule))
		__sync_fetch_and_or(&s->done[at], bit);
	if (s->seen[at] & bit || __sync_fetch_and_or(&s->seen[at], bit) & bit)
		return 0;
	note(ctx, t, &f);
	if (bpf_map_update_elem(&firsts, key, &f, BPF_NOEXIST))
		drop(s, DROP_FIRST);
	return 0;
}

/* record keeps a call of a recorded task. */
static __always_inline int record(void *ctx, struct task_struct *t, struct slot *s, u32 slot, u32 gen, u32 phase, u64 nr)
{
	u32 abi = abi_of(t, nr), number = nr;
	u32 at;

	if (abi == ABI_X32)
		number &= ~X32_BIT;
	at = (phase * ABIS + abi) * NR_WORDS + (number >> 6);
	if (number < NR_LIMIT && at < PHASES * ABIS * NR_WORDS && s->done[at] >> (number & 63) & 1)
		return 0;
	struct call key = {.slot = slot, .gen = gen, .nr = number, .phase = phase, .abi = abi};
	return sighting(ctx, t, &key);
}

/*
 * take_up makes a task that is not recorded a member: of the container whose init it is, or for the time being one that
 * may be about to join a container. What it was before does not count: it may be left over from a recording that has
 * ended, and a container's init may have joined other namespaces before it was armed.
 */
static __noinline struct member *take_up(struct task_struct *t, struct mark *k, struct member *m, u64 nr)
{
	struct member *armed_now = any_armed() ? adopt(t, k, m, 1) : 0;

	if (armed_now || !is_setns(nr) || (m && (m->state == STATE_JOINER || slot_of(m->slot, m->gen))))
		return armed_now;
	if (!m)
		m = member_made(t, k);
	if (!m)
		return 0;
	m->base = filter_of(t);
	m->mnt = mnt_of(t);
	m->gen = 0;
	m->state = STATE_JOINER;
	m->in_call = 1;
	return 0;
}

/* enter handles the calls of tasks that own no mark. */
static __noinline int enter(void *ctx, struct task_struct *t, struct mark *k, u64 token, u64 nr)
{
	struct member *m = member_of(t, k);
	struct slot *s = 0;

	if (k->token == token) /* of a recording that has ended */
		k->token = 0;
	if (m) {
		m->in_call = 1;
		s = recorded(t, m);
	}
	if (!s) {
		m = take_up(t, k, m, nr);
		s = m ? recorded(t, m) : 0;
		if (!s)
			return 0;
	}
	own(k, token, m, 1);
	return record(ctx, t, s, m->slot, m->gen, m->phase, nr);
}

static __always_inline int entered(void *ctx, u64 token, u64 nr)
{
	struct mark *k = mark_of(token);
	struct slot *s;

	if (!k)
		return 0;
	if (k->token == token) {
		s = slot_of(k->slot, k->gen);
		if (s) {
			k->in_call = 1;
			return record(ctx, bpf_get_current_task_btf(), s, k->slot, k->gen, k->phase, nr);
		}
	} else if (!k->members && !any_armed() && !is_setns(nr)) {
		return 0;
	}
	return enter(ctx, bpf_get_current_task_btf(), k, token, nr);
}

SEC("raw_tp/sys_enter")
int sys_enter(u64 *ctx)
{
	return entered(ctx, ctx[0], ctx[1]);
}

SEC("tracepoint/raw_syscalls/sys_enter")
int perf_sys_enter(struct trace_event_raw_sys_enter *ctx)
{
	return entered(ctx, bpf_get_current_task(), ctx->id);
}

static __noinline int denied(void *ctx, struct member *m, struct pt_regs *regs, u32 outcome, u32 err)
{
	struct task_struct *t = bpf_get_current_task_btf();
	u64 nr = denied_nr(regs);
	u32 abi = abi_of(t, nr);
	struct call key = {.slot = m->slot, .gen = m->gen, .phase = m->phase, .abi = abi, .outcome = outcome, .err = err};
	struct denial d = {.count = 1}, *seen;
	struct slot *s = slot_of(m->slot, m->gen);

	key.own = filters_of(t) > m->filters;
	key.nr = abi == ABI_X32 ? nr & ~(u64)X32_BIT : nr;
	/* Not of filters of its own; nor clone3 with ENOSYS, which is the answer that lets its callers fall back on clone. */
	if (s && !key.own && !(key.nr == NR_CLONE3 && outcome == OUTCOME_ERRNO && err == ENOSYS))
		__sync_fetch_and_add(&s->denied, 1);
	seen = bpf_map_lookup_elem(&denials, &key);
	if (!seen) {
		note(ctx, t, &d.first);
		arguments(regs, abi, d.args);
		if (bpf_map_update_elem(&denials, &key, &d, BPF_NOEXIST) == 0)
			return 0;
		seen = bpf_map_lookup_elem(&denials, &key);
	}
	if (seen)
		__sync_fetch_and_add(&seen->count, 1);
	else
		drop(s, DROP_DENIAL);
	return 0;
}

/* leave handles the exits that are not known to belong to an entry. */
static __noinline int leave(void *ctx, struct mark *k, u64 token, int ret)
{
	struct task_struct *t = bpf_get_current_task_btf();
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(t);
	struct member *m = member_of(t, k);
	bool owner = k->token == token;
	struct slot *s;

	if (!m) {
		/*
		 * A thread of the init that slept in this call since before Start, while another one installed the
		 * filter for all: its next call may be denied, and so show nowhere but here.
		 */
		if (any_armed())
			adopt(t, k, 0, 0);
		return 0;
	}
	if (!owner && m->in_call) {
		m->in_call = 0;
		return 0;
	}
	s = recorded(t, m);
	if (!s || !(s->flags & SLOT_DENIALS))
		return 0;
	if (t->seccomp.mode > 2) { /* SECCOMP_MODE_DEAD: a KILL action is on its way */
		if (owner) /* for sched_process_exit: it is counted */
			k->in_call = 1;
		m->in_call = 1;
		return denied(ctx, m, regs, OUTCOME_KILL, 0);
	}
	/* Rolled back for SIGSYS: the return register holds the number again. So it may for number 0, -1, ... by errno. */
	if ((u32)ret == (u32)denied_nr(regs) && pending(t, SIGSYS))
		return denied(ctx, m, regs, OUTCOME_TRAP, 0);
	/* Killed while a tracer held it at its entry: the kernel leaves the call out, with the result it began with. */
	if (ret == -ENOSYS && t->ptrace && pending(t, SIGKILL))
		return 0;
	/* A positive result was made up by a seccomp notifier, which is an answer and not a denial. */
	return ret <= 0 ? denied(ctx, m, regs, OUTCOME_ERRNO, -ret) : 0;
}

/* seccomp refuses a call before sys_enter fires: an exit without an entry is a denial. */
static __always_inline int left(void *ctx, u64 token, int ret)
{
	struct mark *k = mark_of(token);

	if (!k)
		return 0;
	if (k->token == token) {
		if (k->in_call) {
			k->in_call = 0;
			return 0;
		}
	} else if (!k->members && !any_armed()) {
		return 0;
	}
	return leave(ctx, k, token, ret);
}

SEC("raw_tp/sys_exit")
int sys_exit(u64 *ctx)
{
	return left(ctx, ctx[0], ctx[1]);
}

SEC("tracepoint/raw_syscalls/sys_exit")
int perf_sys_exit(struct trace_event_raw_sys_exit *ctx)
{
	return left(ctx, bpf_get_current_task(), ctx->ret);
}

/* The child has not run yet: it is a member before its first call. */
static __always_inline int forked(struct task_struct *parent, struct task_struct *child)
{
	struct mark *pk = mark_of(token_of(parent)), *k;
	struct member *m = pk ? member_of(parent, pk) : 0, *c;
	struct slot *s;
	u64 token;

	if (!m)
		return 0;
	token = token_of(child);
	k = mark_of(token);
	/* Perf events do not say which task the child is, so that two raw tracepoints have to make up for each other. */
	if (!k || (by_perf && member_of(child, k)))
		return 0;
	s = slot_of(m->slot, m->gen);
	c = member_made(child, k);
	if (!c) {
		if (m->state != STATE_JOINER)
			drop(s, DROP_FORK);
		return 0;
	}
	*c = *m;
	c->in_call = 1; /* a new task leaves the kernel through sys_exit once without having entered */
	if (m->phase == PHASE_RUNTIME && child->tgid != parent->tgid)
		c->init = m->init >= INIT_PROGRAM ? INIT_CHILD : INIT_NOTHING;
	if (m->state == STATE_RECORDED && s) {
		__sync_fetch_and_add(&s->alive, 1);
		own(k, token, c, 1);
	}
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(sched_process_fork, struct task_struct *parent, struct task_struct *child)
{
	return forked(parent, child);
}

SEC("tp_btf/task_newtask")
int BPF_PROG(task_newtask, struct task_struct *child)
{
	return forked(bpf_get_current_task_btf(), child);
}

/* keep_path walks from a file to the root of its task's mount namespace. A rename meanwhile makes it a wrong path. */
static __always_inline void keep_path(struct task_struct *t, struct file *exe, struct executable *e)
{
	struct dentry *d = BPF_CORE_READ(exe, f_path.dentry), *parent;
	struct vfsmount *mnt = BPF_CORE_READ(exe, f_path.mnt);
	struct mount *m, *up;
	u32 at;
	long n;

	if (!BPF_CORE_READ(d, d_hash.pprev))
		e->flags |= EXECUTABLE_DELETED;
	for (int i = 0; i < PATH_DEPTH; i++) {
		parent = BPF_CORE_READ(d, d_parent);
		if (d == BPF_CORE_READ(mnt, mnt_root)) {
			m = (void *)mnt - bpf_core_field_offset(struct mount, mnt);
			up = BPF_CORE_READ(m, mnt_parent);
			if (up == m) {
				if ((u64)BPF_CORE_READ(m, mnt_ns) == mnt_of(t))
					e->flags |= EXECUTABLE_WHOLE;
				return;
			}
			d = BPF_CORE_READ(m, mnt_mountpoint);
			mnt = (void *)up + bpf_core_field_offset(struct mount, mnt);
			continue;
		}
		at = e->length;
		if (at >= PATH_ROOM)
			return;
		n = bpf_probe_read_kernel_str(e->path + at, NAME_ROOM, BPF_CORE_READ(d, d_name.name));
		if (n <= 1)
			return;
		e->length = at + n;
		if (d == parent) /* a file of no directory, such as a memfd */
			return;
		d = parent;
	}
}

/* note_executable keeps which executable a recorded task has become. It is no evidence of calls: what finds no room is counted. */
static __noinline int note_executable(struct task_struct *t, struct member *m)
{
	struct file *exe = BPF_CORE_READ(t, mm, exe_file);
	struct inode *inode = BPF_CORE_READ(exe, f_inode);
	struct executable_key key = {
		.slot = m->slot, .gen = m->gen, .dev = BPF_CORE_READ(inode, i_sb, s_dev), .ino = BPF_CORE_READ(inode, i_ino), .size = BPF_CORE_READ(inode, i_size),
	};
	struct slot *s = slot_of(m->slot, m->gen);
	struct executable *e;

	if (!s || m->state != STATE_RECORDED || m->phase == PHASE_RUNTIME || bpf_map_lookup_elem(&executables, &key))
		return 0;
	if (s->executables >= EXECUTABLES || bpf_map_update_elem(&executables, &key, &no_executable, BPF_NOEXIST)) {
		if (!bpf_map_lookup_elem(&executables, &key)) /* or another CPU was first */
			__sync_fetch_and_add(&s->unnoted, 1);
		return 0;
	}
	__sync_fetch_and_add(&s->executables, 1);
	e = bpf_map_lookup_elem(&executables, &key);
	if (!e)
		return 0;
	e->time = bpf_ktime_get_ns();
	keep_path(t, exe, e);
	return 0;
}

static __always_inline int executed(struct task_struct *t)
{
	u64 token = token_of(t);
	struct mark *k = mark_of(token);
	struct member *m = k ? member_of(t, k) : 0;
	struct slot *s;
	bool first;

	if (!m || m->state == STATE_JOINER)
		return 0;
	if (m->init != INIT_RUNTIME && m->init != INIT_CHILD)
		return note_executable(t, m);
	first = m->init == INIT_RUNTIME;
	m->init = INIT_NOTHING;
	disarm(t->tgid);
	s = slot_of(m->slot, m->gen);
	if (!s)
		return 0;
	if (m->state == STATE_ARMED) {
		if (s->flags & SLOT_FILTER) {
			/* nsenter(1) and its like run beside the container's filter, not under it. */
			m->gen = 0;
			if (m->phase == PHASE_RUNTIME)
				drop(s, DROP_UNFILTERED);
			return 0;
		}
		record_from_here(t, m, s, BOUNDARY_EXECVE);
	}
	if (m->phase == PHASE_RUNTIME) {
		if (first && s->flags & SLOT_INIT) {
			m->init = INIT_PROGRAM;
			return 0;
		}
		m->phase = PHASE_WORKLOAD;
		if (k->token == token)
			k->phase = PHASE_WORKLOAD;
	}
	__sync_fetch_and_add(&s->execs, 1);
	return note_executable(t, m);
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(sched_process_exec, struct task_struct *t)
{
	return executed(t);
}

SEC("tracepoint/sched/sched_process_exec")
int perf_sched_process_exec(void *ctx)
{
	return executed(bpf_get_current_task_btf());
}

static __always_inline int exited(void *ctx, struct task_struct *t)
{
	u64 token = token_of(t);
	struct mark *k = mark_of(token);
	struct member *m = k ? member_of(t, k) : 0;
	struct slot *s;
	bool in_call;

	if (any_armed() && BPF_CORE_READ(t, signal, live.counter) == 0)
		disarm(t->tgid);
	if (!m)
		return 0;
	in_call = m->in_call;
	if (k->token == token) {
		in_call = k->in_call;
		k->token = 0; /* what it names will be another task's */
	}
	__sync_fetch_and_add(&k->members, -1);
	s = slot_of(m->slot, m->gen);
	if (!s || m->state != STATE_RECORDED)
		return 0;
	/* KILL_THREAD beside living threads ends the task at once: there is no sys_exit to see. */
	if (!in_call && t->seccomp.mode > 2 && (t->exit_code & 0x7f) == SIGSYS && s->flags & SLOT_DENIALS)
		denied(ctx, m, (struct pt_regs *)bpf_task_pt_regs(t), OUTCOME_KILL, 0);
	__sync_fetch_and_add(&s->alive, -1);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(sched_process_exit, struct task_struct *t)
{
	return exited(ctx, t);
}

SEC("tracepoint/sched/sched_process_exit")
int perf_sched_process_exit(void *ctx)
{
	return exited(ctx, bpf_get_current_task_btf());
}
