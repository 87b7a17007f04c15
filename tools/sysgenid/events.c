// SPDX-License-Identifier: GPL-2.0
/*
 * The event loop of the overseer. It waits for systemd, for signals to end, for new
 * generations, and for a descriptor of the caller.
 */
#define _GNU_SOURCE
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <sysgenid.h>

#include "overseer.h"

static struct sysgenid_watcher *watcher;
static int signal_fd = -1;

int events_open(void)
{
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	watcher = sysgenid_watcher_new(0);
	return signal_fd < 0 || !watcher ? -1 : 0;
}

void events_close(void)
{
	sysgenid_watcher_free(watcher);
}

static bool is_readable(int fd)
{
	struct pollfd pollfd = { .fd = fd, .events = POLLIN };

	return fd >= 0 && poll(&pollfd, 1, 0) == 1;
}

bool has_to_end(void)
{
	return is_readable(signal_fd);
}

void forget_signals(void)
{
	struct signalfd_siginfo info;

	while (read(signal_fd, &info, sizeof(info)) > 0)
		;
}

uint64_t current_generation(void)
{
	uint64_t generation;

	sysgenid_barrier(&generation);
	return generation;
}

bool is_interrupted(uint64_t generation)
{
	return has_to_end() || current_generation() != generation;
}

/* This watcher only wakes the overseer; tracked.c acknowledges. */
static void take_generation(void)
{
	uint64_t generation;

	while (sysgenid_watcher_wait(watcher, 0, &generation) == 1)
		if (!sysgenid_watcher_ack(watcher, generation))
			break;
}

bool wait_event(int64_t end, int fd)
{
	struct pollfd polled[4];
	int64_t left;

	systemd_process();
	polled[0] = (struct pollfd){ .fd = fd, .events = POLLIN };
	polled[1] = (struct pollfd){ .fd = signal_fd, .events = POLLIN };
	polled[2] = (struct pollfd){ .fd = systemd_fd(), .events = POLLIN };
	polled[3] = (struct pollfd){
		.fd = watcher ? sysgenid_watcher_fd(watcher) : -1,
		.events = POLLIN,
	};
	left = end == INT64_MAX ? -1 : end - now_ms();
	if (end != INT64_MAX && left < 0)
		left = 0;
	poll(polled, 4, left > INT_MAX ? INT_MAX : (int)left);
	if (polled[3].revents)
		take_generation();
	systemd_process();
	return polled[0].revents;
}
