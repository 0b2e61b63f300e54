/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The few kernel types that recorder.bpf.c reads. Field offsets are not taken from here: every access is a
 * CO-RE relocation, resolved against the running kernel's BTF at load. Only names and types must be right.
 */
#ifndef SECCOMPGEN_VMLINUX_H
#define SECCOMPGEN_VMLINUX_H

typedef unsigned char __u8;
typedef short __s16;
typedef unsigned short __u16;
typedef int __s32;
typedef unsigned int __u32;
typedef long long __s64;
typedef unsigned long long __u64;
typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s64 s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;
typedef _Bool bool;

enum { false = 0, true = 1 };

/* include/uapi/linux/bpf.h: constants of the BPF interface, which never change. */
enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PROG_ARRAY = 3,
	BPF_MAP_TYPE_TASK_STORAGE = 29,
};
enum {
	BPF_NOEXIST = 1,
	BPF_F_NO_PREALLOC = 1,
	BPF_F_USER_STACK = 256,
	BPF_F_MMAPABLE = 1024,
	BPF_LOCAL_STORAGE_GET_F_CREATE = 1,
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	int counter;
} atomic_t;

struct thread_info {
	unsigned long flags;
	u32 status; /* x86 only */
};

struct seccomp_filter;
struct seccomp {
	int mode;
	atomic_t filter_count;
	struct seccomp_filter *filter;
};

struct ns_common {
	unsigned int inum;
};
struct mnt_namespace {
	struct ns_common ns;
};
struct nsproxy {
	struct mnt_namespace *mnt_ns;
};

struct signal_struct {
	atomic_t live;
};

typedef struct {
	unsigned long sig[1];
} sigset_t;
struct sigpending {
	sigset_t signal;
};

struct qstr {
	const unsigned char *name;
};
struct hlist_bl_node {
	struct hlist_bl_node **pprev;
};
struct dentry {
	struct hlist_bl_node d_hash;
	struct dentry *d_parent;
	struct qstr d_name;
};
struct vfsmount {
	struct dentry *mnt_root;
};
struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
	struct mnt_namespace *mnt_ns;
};
struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};
struct super_block {
	u32 s_dev;
};
struct inode {
	struct super_block *i_sb;
	unsigned long i_ino;
	s64 i_size;
};
struct file {
	struct path f_path;
	struct inode *f_inode;
};
struct mm_struct {
	struct file *exe_file;
};

/* What programs on raw_syscalls' perf events are given. */
struct trace_event_raw_sys_enter {
	long id;
};
struct trace_event_raw_sys_exit {
	long ret;
};

struct task_struct {
	struct thread_info thread_info;
	unsigned int ptrace;
	int exit_code;
	int pid;
	int tgid;
	char comm[16];
	struct mm_struct *mm;
	struct nsproxy *nsproxy;
	struct signal_struct *signal;
	struct sigpending pending;
	struct seccomp seccomp;
};

#if defined(__TARGET_ARCH_x86)
struct pt_regs {
	unsigned long r10, r9, r8;
	unsigned long bp, bx, cx, dx, si, di;
	unsigned long orig_ax;
};
#elif defined(__TARGET_ARCH_arm64)
struct pt_regs {
	u64 regs[31];
	u64 orig_x0;
	int syscallno;
};
#else
#error "seccompgen records on x86 and arm64"
#endif

#pragma clang attribute pop

#endif
