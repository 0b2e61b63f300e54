// thread starts a thread, as any C program does. glibc since 2.34 makes clone3 for it, and clone after ENOSYS only.
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

static void *say(void *word) { return puts(word) < 0 ? word : NULL; }

int main(void) {
	pthread_t thread;
	void *failed;
	int err = pthread_create(&thread, NULL, say, "hello from a thread");
	if (err) {
		fprintf(stderr, "pthread_create: %s\n", strerror(err));
		return 3;
	}
	return pthread_join(thread, &failed) || failed;
}
