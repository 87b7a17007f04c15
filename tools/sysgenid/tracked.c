// SPDX-License-Identifier: GPL-2.0
/*
 * The overseer's own tracked descriptor, so that SYSGENID_WAIT_WATCHERS waits for the
 * overseer, too. systemd keeps a copy. If the overseer is killed, the system waits
 * until its successor has acknowledged.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/sysgenid.h>
#include <sysgenid.h>
#include <systemd/sd-daemon.h>

#include "overseer.h"
#include "system.h"

#define DEVICE	"/dev/sysgenid"
#define NAME	"tracked"

/* -1: there is no such device, and VMClock is the source. */
static int tracked = -1;

static bool is_device(int fd)
{
	struct stat ours, device;

	return !fstat(fd, &ours) && !stat(DEVICE, &device) &&
	       S_ISCHR(ours.st_mode) && ours.st_rdev == device.st_rdev;
}

/* Returns the descriptor that systemd has kept, or -1. */
static int take_back(void)
{
	char **names = NULL;
	int count = sd_listen_fds_with_names(true, &names), found = -1;

	for (int i = 0; i < count; i++) {
		int fd = SD_LISTEN_FDS_START + i;

		if (found < 0 && !strcmp(names[i], NAME) && is_device(fd))
			found = fd;
		else
			close(fd);
		free(names[i]);
	}
	free(names);
	return found;
}

int tracked_open(void)
{
	tracked = take_back();
	if (sysgenid_get_source() != SYSGENID_SOURCE_DEVICE || tracked >= 0)
		return 0;
	tracked = open(DEVICE, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (tracked < 0 || ioctl(tracked, SYSGENID_SET_WATCHER_TRACKING, 1))
		return -1;
	/* FDPOLL=0: systemd need not watch the descriptor for errors. */
	sd_pid_notify_with_fds(0, 0, "FDSTORE=1\nFDPOLL=0\nFDNAME=" NAME,
			       &tracked, 1);
	return 0;
}

int tracked_fd(void)
{
	return tracked;
}

unsigned long tracked_others(void)
{
	struct pollfd own = { .fd = tracked, .events = POLLIN };
	unsigned long outdated = number_attribute("outdated");

	if (tracked < 0)
		return 0;
	return outdated - (outdated && poll(&own, 1, 0) == 1);
}

bool tracked_acknowledge(uint64_t generation)
{
	uint32_t number = generation;

	if (tracked < 0)
		return current_generation() == generation;
	return write(tracked, &number, sizeof(number)) == sizeof(number);
}
