// SPDX-License-Identifier: GPL-2.0
/*
 * Waiting with a limit: for something to be read, and for processes to end
 * that hooks have left behind.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "overseer.h"

bool wait_readable(int fd, int timeout)
{
	struct pollfd pollfd = { .fd = fd, .events = POLLIN };

	return poll(&pollfd, 1, timeout) == 1;
}

bool wait_child(pid_t pid, int64_t end)
{
	int64_t left = end - now_ms();
	int fd = pidfd_open(pid, 0);

	if (fd >= 0) {
		wait_readable(fd, left > 0 ? left : 0);
		close(fd);
	}
	return waitpid(pid, NULL, WNOHANG);
}

struct leftovers end_children(int grace, int patience)
{
	int64_t end_of_grace = now_ms() + grace, end = end_of_grace + patience;
	struct leftovers left = {};
	bool some_ended;
	FILE *children;
	pid_t pid;

	/* Each that ends may leave children of its own to us. */
	do {
		some_ended = false;
		children = fopen(CHILDREN, "re");
		if (!children) {
			left.error = errno;
			break;
		}
		while (fscanf(children, "%d", &pid) == 1) {
			if (wait_child(pid, end_of_grace)) {
				some_ended = true;
				continue;
			}
			kill(pid, SIGKILL);
			if (wait_child(pid, end)) {
				some_ended = true;
				left.killed++;
			} else if (!left.stuck) {
				left.stuck = pid;
			}
		}
		fclose(children);
	} while (some_ended);
	return left;
}
