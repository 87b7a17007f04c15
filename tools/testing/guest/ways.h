/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The ways in which a program can detect a new generation, for tests of all of them.
 */
#ifndef WAYS_H
#define WAYS_H

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/sysgenid.h>

/* The device, non-blocking; its mapped page; the generation at the start. */
static int ways_fd;
static volatile uint32_t *ways_page;
static uint32_t ways_first;
/* The hardware's identifier, for by_hardware(), and its value at the start. */
static const uint8_t *ways_identifier;
static uint8_t ways_identifier_first[16];

static bool by_map(void)
{
	return *ways_page != ways_first;
}

static bool by_ioctl(void)
{
	uint32_t generation;

	if (ioctl(ways_fd, SYSGENID_GET_GENERATION, &generation))
		err(1, "SYSGENID_GET_GENERATION");
	return generation != ways_first;
}

/*
 * Compares the hardware's identifier in line. If it has changed, the system call must
 * return a new generation.
 */
static bool by_hardware(void)
{
	/* The compiler does not know that the hypervisor writes there. */
	__asm__ __volatile__("" ::: "memory");
	return memcmp(ways_identifier, ways_identifier_first, sizeof(ways_identifier_first)) &&
	       by_ioctl();
}

static bool by_read(void)
{
	uint32_t generation;

	if (read(ways_fd, &generation, sizeof(generation)) == sizeof(generation))
		return true;
	if (errno != EAGAIN)
		err(1, "read");
	return false;
}

static bool by_poll(void)
{
	struct pollfd device = { .fd = ways_fd, .events = POLLIN };

	if (poll(&device, 1, 0) < 0)
		err(1, "poll");
	return device.revents & POLLIN;
}

/* An old generation cannot be acknowledged. */
static bool by_write(void)
{
	if (write(ways_fd, &ways_first, sizeof(ways_first)) == sizeof(ways_first))
		return false;
	if (errno != EINVAL)
		err(1, "write");
	return true;
}

/* Without a tracked watcher, the call fails only if the caller is outdated. */
static bool by_wait(void)
{
	if (!ioctl(ways_fd, SYSGENID_WAIT_WATCHERS, 1))
		return false;
	if (errno != EINTR)
		err(1, "SYSGENID_WAIT_WATCHERS");
	return true;
}

static void map_identifier(void)
{
	const long page = sysconf(_SC_PAGESIZE);
	struct sysgenid_hardware hardware;
	int fd = open("/dev/sysgenid", O_RDWR);
	uint8_t *memory;

	if (fd < 0 || ioctl(fd, SYSGENID_GET_HARDWARE, &hardware))
		err(1, "SYSGENID_GET_HARDWARE");
	memory = mmap(NULL, page, PROT_READ, MAP_SHARED, fd, page);
	if (memory == MAP_FAILED)
		err(1, "mmap of the hardware's page");
	if (hardware.size != sizeof(ways_identifier_first))
		errx(1, "an identifier of %u bytes", hardware.size);
	ways_identifier = memory + hardware.offset;
	memcpy(ways_identifier_first, ways_identifier, hardware.size);
	close(fd);
}

#ifdef WAYS_LIBRARY
#include <sysgenid.h>

/* The in-line check has the kernel act before it reports a change. */
static bool by_library(void)
{
	static struct sysgenid_seen seen;
	static bool started;

	if (!started) {
		started = sysgenid_changed(&seen, &seen);
		if (!(sysgenid_get_properties() & SYSGENID_NEVER_STALE))
			errx(1, "libsysgenid: the hardware's page is not mapped");
	}
	if (!sysgenid_changed(&seen, NULL))
		return false;
	if (*ways_page == ways_first)
		errx(1, "libsysgenid reports a change, but the generation is the old one");
	return true;
}
#endif

/* Opens the device, and returns the function that detects a new generation. */
static bool (*ways_start(const char *name))(void)
{
	static const struct {
		const char *name;
		bool (*changed)(void);
	} ways[] = {
		{ "map", by_map }, { "hardware", by_hardware }, { "read", by_read },
		{ "poll", by_poll }, { "ioctl", by_ioctl }, { "write", by_write },
		{ "wait", by_wait },
#ifdef WAYS_LIBRARY
		{ "library", by_library },
#endif
	};

	ways_fd = open("/dev/sysgenid", (strcmp(name, "write") ? O_RDONLY : O_RDWR) | O_NONBLOCK);
	if (ways_fd < 0 || ioctl(ways_fd, SYSGENID_GET_GENERATION, &ways_first))
		err(1, "/dev/sysgenid");
	ways_page = mmap(NULL, sysconf(_SC_PAGESIZE), PROT_READ, MAP_SHARED, ways_fd, 0);
	if (ways_page == MAP_FAILED)
		err(1, "mmap");
	if (!strcmp(name, "hardware"))
		map_identifier();
#ifdef WAYS_LIBRARY
	/* The first call starts the check, so that later changes count. */
	by_library();
#endif
	for (size_t i = 0; i < sizeof(ways) / sizeof(*ways); i++)
		if (!strcmp(name, ways[i].name))
			return ways[i].changed;
	errx(2, "no way %s: choose map, hardware, read, poll, ioctl, write or wait", name);
}

#endif /* WAYS_H */
