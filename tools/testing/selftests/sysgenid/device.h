/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Helpers for tests of /dev/sysgenid: its calls by name, its state in /proc and /sys, and
 * a thread that sleeps in one of the calls.
 */
#ifndef DEVICE_H
#define DEVICE_H

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
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/sysgenid.h>

#include "kselftest_harness.h"

/* In seconds; the default of 30 is too short for a debug kernel. */
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT	120

#define DEVICE "/dev/sysgenid"
#define SYSFS "/sys/class/misc/sysgenid/"

/* Checks that the call fails with this error. */
#define EXPECT_FAILS(error, call) do { \
	errno = 0; \
	EXPECT_EQ(-1, (long)(call)); \
	EXPECT_EQ(error, errno); \
} while (0)

static inline int open_device(int flags)
{
	int fd = open(DEVICE, flags | O_CLOEXEC);

	if (fd < 0)
		err(1, DEVICE);
	return fd;
}

static inline size_t page_size(void)
{
	return sysconf(_SC_PAGESIZE);
}

static inline const volatile uint32_t *map_counter(int fd)
{
	void *page = mmap(NULL, page_size(), PROT_READ, MAP_SHARED, fd, 0);

	if (page == MAP_FAILED)
		err(1, "mmap");
	return page;
}

static inline int trigger(int fd, unsigned long min)
{
	return ioctl(fd, SYSGENID_TRIGGER_GEN_UPDATE, min);
}

static inline int set_tracking(int fd, unsigned long on)
{
	return ioctl(fd, SYSGENID_SET_WATCHER_TRACKING, on);
}

static inline int wait_watchers(int fd, unsigned long ms)
{
	return ioctl(fd, SYSGENID_WAIT_WATCHERS, ms);
}

static inline uint32_t get_generation(int fd)
{
	uint32_t generation;

	if (ioctl(fd, SYSGENID_GET_GENERATION, &generation))
		err(1, "SYSGENID_GET_GENERATION");
	return generation;
}

/* Triggers a new generation and returns it. */
static inline uint32_t bump(int fd)
{
	if (trigger(fd, 0))
		err(1, "SYSGENID_TRIGGER_GEN_UPDATE");
	return get_generation(fd);
}

static inline ssize_t acknowledge(int fd, uint32_t generation)
{
	return write(fd, &generation, sizeof(generation));
}

static inline bool is_readable(int fd)
{
	struct pollfd pollfd = { .fd = fd, .events = POLLIN };

	if (poll(&pollfd, 1, 0) < 0)
		err(1, "poll");
	return pollfd.revents & POLLIN;
}

/* Returns the number after a word in a file, or -1 without such a file or word. */
static inline long long number_in(const char *path, const char *word)
{
	FILE *file = fopen(path, "re");
	long long number = -1;
	char line[256];

	while (file && fgets(line, sizeof(line), file))
		if (!strncmp(line, word, strlen(word)))
			number = strtoll(line + strlen(word), NULL, 10);
	if (file)
		fclose(file);
	return number;
}

static inline long long watchers(void)
{
	return number_in(SYSFS "watchers", "");
}

static inline long long outdated(void)
{
	return number_in(SYSFS "outdated", "");
}

static inline long long fdinfo(int fd, const char *word)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	return number_in(path, word);
}

/* Returns the module's reference count, or -1 if it is built in. */
static inline long long module_users(void)
{
	return number_in("/sys/module/sysgenid/refcnt", "");
}

/* Returns whether a task sleeps in this system call. */
static inline bool is_asleep(pid_t task, long call)
{
	char path[64];
	FILE *file;
	long now;
	bool asleep;

	snprintf(path, sizeof(path), "/proc/%d/syscall", task);
	file = fopen(path, "re");
	if (!file)
		err(1, "%s", path);
	asleep = fscanf(file, "%ld", &now) == 1 && now == call;
	fclose(file);
	return asleep;
}

static inline void wait_asleep(pid_t task, long call)
{
	while (!is_asleep(task, call))
		sched_yield();
}

/* A thread that makes one call, which may sleep. */
struct caller {
	int (*call)(int fd, unsigned long argument);
	int fd;
	unsigned long argument;
	int result;		/* the call's return value */
	int error;		/* the call's errno */
	_Atomic pid_t task;
	pthread_t thread;
};

static inline void *caller_main(void *data)
{
	struct caller *caller = data;

	caller->task = gettid();
	errno = 0;
	caller->result = caller->call(caller->fd, caller->argument);
	caller->error = errno;
	return NULL;
}

static inline void start_call(struct caller *caller, int (*call)(int, unsigned long), int fd,
			      unsigned long argument)
{
	*caller = (struct caller){ .call = call, .fd = fd, .argument = argument };
	if (pthread_create(&caller->thread, NULL, caller_main, caller))
		errx(1, "pthread_create");
	while (!caller->task)
		sched_yield();
}

/* Blocking calls, which return the generation or the events, or -1. */
static inline int call_read(int fd, unsigned long size)
{
	uint32_t generation;

	return read(fd, &generation, size) < 0 ? -1 : (int)generation;
}

/* The system call behind poll(): newer architectures have no SYS_poll. */
#ifdef SYS_poll
#define SYS_OF_POLL SYS_poll
#else
#define SYS_OF_POLL SYS_ppoll
#endif

static inline int call_poll(int fd, unsigned long timeout)
{
	struct pollfd pollfd = { .fd = fd, .events = POLLIN };

	return poll(&pollfd, 1, timeout) < 0 ? -1 : pollfd.revents;
}

/* Start one of these calls, and wait until it sleeps. */
static inline void start_reader(struct caller *caller, int fd)
{
	start_call(caller, call_read, fd, 4);
	wait_asleep(caller->task, SYS_read);
}

static inline void start_poller(struct caller *caller, int fd)
{
	start_call(caller, call_poll, fd, -1);
	wait_asleep(caller->task, SYS_OF_POLL);
}

static inline void start_overseer(struct caller *caller, int fd, unsigned long ms)
{
	start_call(caller, wait_watchers, fd, ms);
	wait_asleep(caller->task, SYS_ioctl);
}

static inline void finish_call(struct caller *caller)
{
	pthread_join(caller->thread, NULL);
}

/* Waits for a child's end, and returns whether it exited with 0. */
static inline bool succeeds(pid_t child)
{
	int status;

	if (child < 0 || waitpid(child, &status, 0) != child)
		err(1, "child");
	return WIFEXITED(status) && !WEXITSTATUS(status);
}

#endif /* DEVICE_H */
