// SPDX-License-Identifier: GPL-2.0
/*
 * Uses /dev/sysgenid in the way that is asked for, while CRIU checkpoints and restores
 * this process. Says "ready GENERATION", and when it sees a new one:
 *
 *   mapped         looks at the mapped page all the time: "new GENERATION stale LOOKS", the
 *                  looks that gave the old generation and were made after the restore
 *   read, poll, epoll, tracked
 *                  sleeps in read(), poll() or epoll_wait(): "new GENERATION"; if that fails
 *                  by EINTR, "interrupted", and sleeps again. If tracked, it sleeps in
 *                  poll(), acknowledges once it gets SIGUSR1, and says "acknowledged
 *                  GENERATION"
 */
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>

#include "ways.h"

static uint32_t get_generation(void)
{
	uint32_t generation;

	if (ioctl(ways_fd, SYSGENID_GET_GENERATION, &generation))
		err(1, "SYSGENID_GET_GENERATION");
	return generation;
}

static void say(const char *what, uint32_t generation)
{
	printf("%s %u", what, generation);
}

static void end_line(void)
{
	printf("\n");
	fflush(stdout);
}

/* A restored process has another parent: CRIU, and then the first process. */
static void watch(void)
{
	const pid_t parent = getppid();
	unsigned long stale = 0;
	pid_t now;

	say("ready", ways_first);
	end_line();
	close(ways_fd);
	for (;;) {
		now = getppid();
		if (by_map())
			break;
		stale += now != parent;
	}
	say("new", *ways_page);
	printf(" stale %lu", stale);
	end_line();
}

/* Returns 1, or -1 with errno, like poll(). */
static int sleep_in_read(void)
{
	uint32_t generation;

	return read(ways_fd, &generation, sizeof(generation)) == sizeof(generation) ? 1 : -1;
}

static int sleep_in_poll(void)
{
	struct pollfd device = { .fd = ways_fd, .events = POLLIN };

	return poll(&device, 1, -1);
}

static int epoll_fd;

static int sleep_in_epoll(void)
{
	struct epoll_event event;

	return epoll_wait(epoll_fd, &event, 1, -1);
}

static void acknowledge(const sigset_t *signals)
{
	uint32_t generation;
	int signal;

	if (sigwait(signals, &signal))
		errx(1, "sigwait");
	if (read(ways_fd, &generation, sizeof(generation)) != sizeof(generation) ||
	    write(ways_fd, &generation, sizeof(generation)) != sizeof(generation))
		err(1, "acknowledging");
	say("acknowledged", generation);
	end_line();
}

static void wait_for_one(int (*sleep_for_one)(void), bool tracked)
{
	sigset_t signals;

	munmap((void *)ways_page, sysconf(_SC_PAGESIZE));
	sigemptyset(&signals);
	sigaddset(&signals, SIGUSR1);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	if (tracked && ioctl(ways_fd, SYSGENID_SET_WATCHER_TRACKING, 1))
		err(1, "SYSGENID_SET_WATCHER_TRACKING");
	say("ready", ways_first);
	end_line();
	while (sleep_for_one() != 1) {
		if (errno != EINTR)
			err(1, "sleeping");
		printf("interrupted");
		end_line();
	}
	say("new", get_generation());
	end_line();
	if (tracked)
		acknowledge(&signals);
	/* The test inspects this descriptor later. */
	pause();
}

static void add_to_epoll(void)
{
	struct epoll_event event = { .events = EPOLLIN };

	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (epoll_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, ways_fd, &event))
		err(1, "epoll");
}

int main(int argc, char **argv)
{
	const char *way = argc == 2 ? argv[1] : "";

	if (!strcmp(way, "mapped")) {
		ways_start("map");
		watch();
		return 0;
	}
	/* For writing, as a tracked watcher has to be able to acknowledge. */
	ways_start("write");
	if (!strcmp(way, "read")) {
		fcntl(ways_fd, F_SETFL, O_RDWR);
		wait_for_one(sleep_in_read, false);
	} else if (!strcmp(way, "poll") || !strcmp(way, "tracked")) {
		wait_for_one(sleep_in_poll, !strcmp(way, "tracked"));
	} else if (!strcmp(way, "epoll")) {
		add_to_epoll();
		wait_for_one(sleep_in_epoll, false);
	}
	errx(2, "usage: use_until_restored mapped|read|poll|epoll|tracked");
}
