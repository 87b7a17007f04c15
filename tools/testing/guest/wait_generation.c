// SPDX-License-Identifier: GPL-2.0
/*
 * Waits for one new generation in the given way. Prints "watching GENERATION", and then
 * "woken GENERATION", as read in that way.
 */
#include <err.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/sysgenid.h>

static int open_device(int flags)
{
	int fd = open("/dev/sysgenid", O_RDONLY | flags);

	if (fd < 0)
		err(1, "/dev/sysgenid");
	return fd;
}

/* The host may take a snapshot at any instruction after this. */
static void say_watching(uint32_t generation)
{
	printf("watching %u\n", generation);
	fflush(stdout);
}

static uint32_t get_generation(int fd)
{
	uint32_t generation;

	if (ioctl(fd, SYSGENID_GET_GENERATION, &generation))
		err(1, "SYSGENID_GET_GENERATION");
	return generation;
}

static uint32_t read_generation(int fd)
{
	uint32_t generation;

	if (read(fd, &generation, sizeof(generation)) != sizeof(generation))
		err(1, "read");
	return generation;
}

static uint32_t by_read(void)
{
	int fd = open_device(0);

	say_watching(get_generation(fd));
	return read_generation(fd);
}

static uint32_t by_poll(void)
{
	struct pollfd fd = { .fd = open_device(O_NONBLOCK), .events = POLLIN };

	say_watching(get_generation(fd.fd));
	if (poll(&fd, 1, -1) != 1 || !(fd.revents & POLLIN))
		err(1, "poll");
	return read_generation(fd.fd);
}

static uint32_t by_map(void)
{
	volatile uint32_t *page = mmap(NULL, sysconf(_SC_PAGESIZE), PROT_READ, MAP_SHARED,
				       open_device(0), 0);
	uint32_t first;

	if (page == MAP_FAILED)
		err(1, "mmap");
	first = *page;
	say_watching(first);
	while (*page == first)
		;
	return *page;
}

/* Returns the value of "NAME=value" among a uevent's strings, or NULL. */
static const char *property(const char *event, size_t length, const char *name)
{
	const char *end = event + length;

	for (; event < end; event += strlen(event) + 1)
		if (!strncmp(event, name, strlen(name)) && event[strlen(name)] == '=')
			return event + strlen(name) + 1;
	return NULL;
}

static uint32_t by_uevent(void)
{
	struct sockaddr_nl all = { .nl_family = AF_NETLINK, .nl_groups = 1 };
	int netlink = socket(AF_NETLINK, SOCK_DGRAM, NETLINK_KOBJECT_UEVENT);
	const char *device, *action, *generation;
	char event[4096];

	if (netlink < 0 || bind(netlink, (struct sockaddr *)&all, sizeof(all)))
		err(1, "netlink");
	say_watching(get_generation(open_device(0)));
	for (;;) {
		ssize_t length = recv(netlink, event, sizeof(event) - 1, 0);

		if (length < 0)
			err(1, "recv");
		event[length] = '\0';
		device = property(event, length, "DEVNAME");
		action = property(event, length, "ACTION");
		generation = property(event, length, "SYSGENID_GENERATION");
		if (device && action && generation && !strcmp(device, "sysgenid") &&
		    !strcmp(action, "change"))
			return strtoul(generation, NULL, 10);
	}
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		uint32_t (*wait)(void);
	} ways[] = {
		{ "read", by_read }, { "poll", by_poll },
		{ "map", by_map }, { "uevent", by_uevent },
	};

	for (size_t i = 0; argc == 2 && i < sizeof(ways) / sizeof(*ways); i++)
		if (!strcmp(argv[1], ways[i].name)) {
			printf("woken %u\n", ways[i].wait());
			return 0;
		}
	errx(2, "usage: wait_generation read|poll|map|uevent");
}
