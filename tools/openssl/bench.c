// SPDX-License-Identifier: GPL-2.0
/*
 * Measures RAND_bytes() for a second, and prints the time of a draw in nanoseconds of
 * one thread. Usage: bench BYTES THREADS.
 */
#include <err.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <openssl/rand.h>

static atomic_bool over;
static atomic_llong draws, spent;
static int size;

/* Returns the thread's own CPU time, which excludes other programs. */
static long long now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void *draw(void *unused)
{
	unsigned char *drawn = malloc(size);
	long long before, count = 0;

	(void)unused;
	if (!drawn || RAND_bytes(drawn, size) != 1)
		errx(1, "no random numbers");
	for (before = now(); !atomic_load_explicit(&over, memory_order_relaxed); count++)
		if (RAND_bytes(drawn, size) != 1)
			errx(1, "no random numbers");
	atomic_fetch_add(&spent, now() - before);
	atomic_fetch_add(&draws, count);
	free(drawn);
	return NULL;
}

int main(int argc, char **argv)
{
	int count = argc == 3 ? atoi(argv[2]) : 0;
	pthread_t *threads = calloc(count, sizeof(*threads));

	size = argc == 3 ? atoi(argv[1]) : 0;
	if (size < 1 || count < 1 || !threads)
		errx(1, "usage: %s BYTES THREADS", argv[0]);
	for (int i = 0; i < count; i++)
		if (pthread_create(&threads[i], NULL, draw, NULL))
			errx(1, "no thread");
	sleep(1);
	over = 1;
	for (int i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
	printf("%s %lld\n",
	       EVP_RAND_get0_name(EVP_RAND_CTX_get0_rand(RAND_get0_public(NULL))), spent / draws);
	return 0;
}
