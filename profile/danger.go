package profile

import "slices"

// This file is data: calls that a reviewer asks about first, with what they give to an attacker inside a container.

type danger struct {
	names []string
	why   string
	// plain marks calls that ordinary programs and the runtimes themselves make under Docker's default profile: a
	// reviewer asks about them, verify --repair adds them unasked. All others it adds only if they are named.
	plain bool
}

// AskFirst returns why nobody should allow a call without having decided to, or "".
func AskFirst(name string) string {
	for _, d := range dangers {
		if !d.plain && slices.Contains(d.names, name) {
			return d.why
		}
	}
	return ""
}

// AskFirstCalls returns the names for which [AskFirst] has a reason, sorted.
func AskFirstCalls() []string {
	var all []string
	for _, d := range dangers {
		if !d.plain {
			all = append(all, d.names...)
		}
	}
	slices.Sort(all)
	return all
}

var dangers = []danger{
	{[]string{"mount", "umount", "umount2", "pivot_root", "move_mount", "open_tree", "open_tree_attr", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr"}, "changes the file system tree; fsconfig gave root through a heap overflow (CVE-2022-0185)", false},
	{[]string{"chroot"}, "with its capability, the classic way out of a chroot jail", false},
	{[]string{"unshare", "setns"}, "makes or enters namespaces; a user namespace opens the kernel's privileged code to everyone", false},
	{[]string{"clone3"}, "makes namespaces as clone does, which every Go program needs; its flags lie in memory, where no filter sees them", false},
	{[]string{"ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "pidfd_getfd", "kcmp"}, "reaches into other processes (ptrace: CVE-2019-13272)", false},
	{[]string{"bpf"}, "loads programs into the kernel; its verifier was wrong more than once (CVE-2017-16995, CVE-2021-3490)", false},
	{[]string{"perf_event_open"}, "watches other processes and the kernel (CVE-2013-2094)", false},
	{[]string{"userfaultfd"}, "stops the kernel in the middle of a copy, which makes races winnable", false},
	{[]string{"io_uring_setup", "io_uring_enter", "io_uring_register"}, "its operations pass every seccomp filter unseen; 60 % of the entries to Google's kernel bug bounty in 2022 used it", false},
	{[]string{"keyctl", "add_key", "request_key"}, "the kernel's keyrings are not namespaced (CVE-2016-0728)", false},
	{[]string{"open_by_handle_at", "name_to_handle_at"}, "opens files of the host by their inode (the shocker exploit)", false},
	{[]string{"init_module", "finit_module", "delete_module", "create_module", "query_module"}, "loads code into the kernel", false},
	{[]string{"kexec_load", "kexec_file_load", "reboot"}, "replaces or stops the host's kernel", false},
	{[]string{"iopl", "ioperm", "modify_ldt", "vm86", "vm86old"}, "gives ports or segments of the processor, in code that few have read since", false},
	{[]string{"splice", "tee"}, "moves pages without copying (splice: CVE-2022-0847, Dirty Pipe)", true},
	{[]string{"vmsplice"}, "gives a process's pages to a pipe (CVE-2008-0600)", false},
	{[]string{"memfd_create", "memfd_secret"}, "executes programs that are in no file system", true},
	{[]string{"mknod", "mknodat"}, "makes device files", false},
	{[]string{"personality"}, "turns address randomization off", false},
	{[]string{"acct", "swapon", "swapoff", "quotactl", "quotactl_fd", "syslog", "lookup_dcookie", "sethostname", "setdomainname", "vhangup"}, "administers the host", false},
	{[]string{"settimeofday", "clock_settime", "clock_settime64", "clock_adjtime", "clock_adjtime64", "adjtimex", "stime"}, "sets the host's clock", false},
	{[]string{"mbind", "migrate_pages", "move_pages", "set_mempolicy", "set_mempolicy_home_node"}, "moves memory between the host's nodes", false},
	{[]string{"capset", "setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setgroups", "setfsuid", "setfsgid"}, "changes credentials", true},
	{[]string{"seccomp"}, "installs filters, and makes listeners that answer calls for others", true},
	{[]string{"fanotify_init", "nfsservctl", "uselib", "_sysctl", "sysfs", "remap_file_pages"}, "old or privileged code that nearly no program needs", false},
	{[]string{"msgsnd", "msgrcv", "semop", "semtimedop", "shmat"}, "System V IPC: favoured for shaping the kernel's heap (CVE-2021-22555 used msgsnd)", true},
}
