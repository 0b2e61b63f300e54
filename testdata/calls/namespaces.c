// namespaces starts a thread, as any C program does. With an argument it tries that way to a new user namespace, and says
// what it got: what a profile made of the thread alone must not let it do.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int ends[2];

// The thread lives on: whether one that ends is waited for with futex is up to chance.
static void *say(void *word)
{
	for (write(ends[1], word, strlen(word));;)
		pause();
}

int main(int argc, char **argv)
{
	pthread_t thread;
	char word[16] = "";
	struct clone_args args = {.flags = CLONE_NEWUSER, .exit_signal = SIGCHLD};
	const char *way = argc > 1 ? argv[1] : "none";
	long made = -1;
	int err;

	errno = 0;
	if (!strcmp(way, "unshare")) // refused to a process with threads
		made = syscall(SYS_unshare, CLONE_NEWUSER);
	else if (!strcmp(way, "clone"))
		made = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, 0);
	else if (!strcmp(way, "clone3"))
		made = syscall(SYS_clone3, &args, sizeof(args));
	err = errno;
	if (made == 0 && strcmp(way, "unshare"))
		_exit(0); // the child
	if (pipe(ends) || pthread_create(&thread, NULL, say, "a thread") || read(ends[0], word, sizeof(word) - 1) < 1)
		return 3;
	printf("%s, %s: %s\n", word, way, made < 0 ? strerror(err) : "made");
	fflush(stdout);
	_exit(0);
}
