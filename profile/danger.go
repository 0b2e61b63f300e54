package profile

// This file is data: calls that a reviewer asks about first, with what they give to an attacker inside a container.

type danger struct {
	names []string
	why   string
}

var dangers = []danger{
	{[]string{"mount", "umount", "umount2", "pivot_root", "move_mount", "open_tree", "open_tree_attr", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr"}, "changes the file system tree; fsconfig gave root through a heap overflow (CVE-2022-0185)"},
	{[]string{"chroot"}, "with its capability, the classic way out of a chroot jail"},
	{[]string{"unshare", "setns", "clone3"}, "makes or enters namespaces; a user namespace opens the kernel's privileged code to everyone. clone3's flags lie in memory, where no filter sees them"},
	{[]string{"ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "pidfd_getfd", "kcmp"}, "reaches into other processes (ptrace: CVE-2019-13272)"},
	{[]string{"bpf"}, "loads programs into the kernel; its verifier was wrong more than once (CVE-2017-16995, CVE-2021-3490)"},
	{[]string{"perf_event_open"}, "watches other processes and the kernel (CVE-2013-2094)"},
	{[]string{"userfaultfd"}, "stops the kernel in the middle of a copy, which makes races winnable"},
	{[]string{"io_uring_setup", "io_uring_enter", "io_uring_register"}, "its operations pass every seccomp filter unseen; 60 % of the entries to Google's kernel bug bounty in 2022 used it"},
	{[]string{"keyctl", "add_key", "request_key"}, "the kernel's keyrings are not namespaced (CVE-2016-0728)"},
	{[]string{"open_by_handle_at", "name_to_handle_at"}, "opens files of the host by their inode (the shocker exploit)"},
	{[]string{"init_module", "finit_module", "delete_module", "create_module"}, "loads code into the kernel"},
	{[]string{"kexec_load", "kexec_file_load", "reboot"}, "replaces or stops the host's kernel"},
	{[]string{"iopl", "ioperm", "modify_ldt", "vm86", "vm86old"}, "gives ports or segments of the processor, in code that few have read since"},
	{[]string{"splice", "vmsplice", "tee"}, "moves pages without copying (vmsplice: CVE-2008-0600; splice: CVE-2022-0847, Dirty Pipe)"},
	{[]string{"memfd_create", "memfd_secret"}, "executes programs that are in no file system"},
	{[]string{"mknod", "mknodat"}, "makes device files"},
	{[]string{"personality"}, "turns address randomization off"},
	{[]string{"acct", "swapon", "swapoff", "quotactl", "quotactl_fd", "syslog", "lookup_dcookie", "sethostname", "setdomainname", "vhangup"}, "administers the host"},
	{[]string{"settimeofday", "clock_settime", "clock_settime64", "clock_adjtime", "clock_adjtime64", "adjtimex", "stime"}, "sets the host's clock"},
	{[]string{"mbind", "migrate_pages", "move_pages", "set_mempolicy", "set_mempolicy_home_node"}, "moves memory between the host's nodes"},
	{[]string{"capset", "setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setgroups", "setfsuid", "setfsgid"}, "changes credentials"},
	{[]string{"seccomp"}, "installs filters, and makes listeners that answer calls for others"},
	{[]string{"fanotify_init", "nfsservctl", "uselib", "_sysctl", "sysfs", "remap_file_pages"}, "old or privileged code that nearly no program needs"},
	{[]string{"msgsnd", "msgrcv", "semop", "semtimedop", "shmat"}, "System V IPC: favoured for shaping the kernel's heap (CVE-2021-22555 used msgsnd)"},
}
