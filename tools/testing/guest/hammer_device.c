// SPDX-License-Identifier: GPL-2.0
/*
 * Makes every system call of /dev/sysgenid continuously, in two threads on each CPU.
 * Each thread checks that the generation never decreases, and never grows by more than
 * one. Prints "hammering"; SIGTERM ends it, and it prints "CALLS calls".
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/sysgenid.h>

#define THREADS		2	/* on each CPU */
#define MAX_THREADS	64

static atomic_bool done;
static atomic_ulong calls;
static volatile uint32_t *page;

static void check(uint32_t *last, uint32_t generation, const char *way)
{
	if (generation != *last && generation != *last + 1)
		errx(1, "%s: generation %u after %u", way, generation, *last);
	*last = generation;
}

static void by_sysfs(uint32_t *last)
{
	char text[16] = "";
	int fd = open("/sys/class/misc/sysgenid/generation", O_RDONLY);

	if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
		err(1, "sysfs");
	close(fd);
	check(last, strtoul(text, NULL, 10), "sysfs");
}

/* Makes every call once. Any of them may be the first to see a new generation. */
static void round_of_calls(int fd, uint32_t *last)
{
	struct pollfd device = { .fd = fd, .events = POLLIN };
	uint32_t generation;
	int other;

	check(last, *page, "mapping");
	poll(&device, 1, 0);
	if (read(fd, &generation, sizeof(generation)) == sizeof(generation))
		check(last, generation, "read");
	else if (errno != EAGAIN)
		err(1, "read");
	if (ioctl(fd, SYSGENID_GET_GENERATION, &generation))
		err(1, "SYSGENID_GET_GENERATION");
	check(last, generation, "ioctl");
	if (write(fd, &generation, sizeof(generation)) < 0 && errno != EINVAL)
		err(1, "write");
	ioctl(fd, SYSGENID_SET_WATCHER_TRACKING, 1);
	ioctl(fd, SYSGENID_WAIT_WATCHERS, 1);
	ioctl(fd, SYSGENID_SET_WATCHER_TRACKING, 0);
	other = open("/dev/sysgenid", O_RDONLY);
	if (other < 0)
		err(1, "open");
	close(other);
	by_sysfs(last);
}

static void *hammer(void *cpu)
{
	int fd = open("/dev/sysgenid", O_RDWR | O_NONBLOCK);
	cpu_set_t set;
	uint32_t last;

	CPU_ZERO(&set);
	CPU_SET((intptr_t)cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		err(1, "CPU %d", (int)(intptr_t)cpu);
	if (fd < 0 || ioctl(fd, SYSGENID_GET_GENERATION, &last))
		err(1, "/dev/sysgenid");
	while (!atomic_load(&done)) {
		round_of_calls(fd, &last);
		atomic_fetch_add(&calls, 10);
	}
	return NULL;
}

int main(void)
{
	int fd = open("/dev/sysgenid", O_RDONLY), count = 0, number;
	pthread_t threads[MAX_THREADS];
	sigset_t set;

	page = mmap(NULL, sysconf(_SC_PAGESIZE), PROT_READ, MAP_SHARED, fd, 0);
	if (fd < 0 || page == MAP_FAILED)
		err(1, "/dev/sysgenid");
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	for (intptr_t cpu = 0; cpu < sysconf(_SC_NPROCESSORS_ONLN); cpu++)
		for (int i = 0; i < THREADS && count < MAX_THREADS; i++)
			if (pthread_create(&threads[count++], NULL, hammer, (void *)cpu))
				errx(1, "can't start a thread");
	printf("hammering\n");
	fflush(stdout);

	sigwait(&set, &number);
	atomic_store(&done, true);
	while (count--)
		pthread_join(threads[count], NULL);
	printf("%lu calls\n", atomic_load(&calls));
	return 0;
}
