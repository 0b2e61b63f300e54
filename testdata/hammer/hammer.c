// hammer makes system calls that are easily lost: six threads call getppid without a pause while the main thread makes 60
// other calls, each of them once. All of these exist on amd64 and on arm64, fail or do nothing with the arguments that they
// get, and are made by neither a C library's start nor by an OCI runtime.
//
//     hammer              does so
//     hammer list         prints the names of the 60
//     hammer call NR...   makes the calls with these numbers and no others
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CALL(name) {#name, SYS_##name}
static const struct { const char *name; long nr; } calls[] = {
	CALL(io_setup), CALL(io_destroy), CALL(io_cancel), CALL(io_getevents), CALL(setxattr), CALL(lsetxattr), CALL(fsetxattr),
	CALL(getxattr), CALL(lgetxattr), CALL(fgetxattr), CALL(listxattr), CALL(llistxattr), CALL(flistxattr), CALL(removexattr),
	CALL(lremovexattr), CALL(fremovexattr), CALL(inotify_add_watch), CALL(inotify_rm_watch), CALL(flock), CALL(fallocate),
	CALL(truncate), CALL(splice), CALL(tee), CALL(vmsplice), CALL(sync_file_range), CALL(timerfd_settime),
	CALL(timerfd_gettime), CALL(timer_gettime), CALL(timer_settime), CALL(timer_delete), CALL(timer_getoverrun),
	CALL(sched_setparam), CALL(sched_getscheduler), CALL(sched_getparam), CALL(sched_get_priority_max),
	CALL(sched_get_priority_min), CALL(sched_rr_get_interval), CALL(rt_sigpending), CALL(rt_sigqueueinfo), CALL(setpriority),
	CALL(getpriority), CALL(getpgid), CALL(getsid), CALL(mq_timedsend), CALL(mq_timedreceive), CALL(mq_notify),
	CALL(mq_getsetattr), CALL(msgctl), CALL(msgrcv), CALL(msgsnd), CALL(semctl), CALL(semop), CALL(shmctl), CALL(shmdt),
	CALL(getpeername), CALL(readahead), CALL(mlock), CALL(munlock), CALL(ioprio_get), CALL(sigaltstack),
};
enum { count = sizeof(calls) / sizeof(*calls), hammers = 6 };
_Static_assert(count == 60, "60 calls");

static atomic_int started, ended;

static void *hammer(void *unused)
{
	atomic_fetch_add(&started, 1);
	while (!atomic_load(&ended))
		syscall(SYS_getppid);
	return unused;
}

static void make(long nr)
{
	syscall(nr, -1L, 0x101L, -1L, -1L, 0L, 0L);
}

int main(int argc, char **argv)
{
	pthread_t threads[hammers];

	if (argc == 2 && !strcmp(argv[1], "list")) {
		for (int i = 0; i < count; i++)
			puts(calls[i].name);
		return 0;
	}
	if (argc > 2 && !strcmp(argv[1], "call")) {
		for (int i = 2; i < argc; i++)
			make(atol(argv[i]));
		return 0;
	}
	if (argc > 1)
		return 2;
	for (int i = 0; i < hammers; i++)
		if (pthread_create(&threads[i], NULL, hammer, NULL))
			return 3;
	while (atomic_load(&started) < hammers)
		syscall(SYS_getppid);
	for (int i = 0; i < count; i++)
		make(calls[i].nr);
	atomic_store(&ended, 1);
	for (int i = 0; i < hammers; i++)
		pthread_join(threads[i], NULL);
	return 0;
}
