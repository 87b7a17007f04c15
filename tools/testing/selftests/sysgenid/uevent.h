/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Receives the kernel's uevents of /dev/sysgenid.
 */
#ifndef UEVENT_H
#define UEVENT_H

#include "device.h"

#include <linux/netlink.h>

struct event {
	uint32_t generation;
	uint32_t merged;	/* number of earlier generations without a uevent */
};

static inline int open_uevents(void)
{
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK, .nl_groups = 1 };
	int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);
	int room = 16 << 20;

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)) ||
	    bind(fd, (struct sockaddr *)&kernel, sizeof(kernel)))
		err(1, "NETLINK_KOBJECT_UEVENT");
	return fd;
}

/* Returns the value of NAME=value among an event's strings, or "". */
static inline const char *property(const char *strings, const char *end, const char *name)
{
	size_t length = strlen(name);

	for (; strings < end; strings += strlen(strings) + 1)
		if (!strncmp(strings, name, length) && strings[length] == '=')
			return strings + length + 1;
	return "";
}

/* Waits for the device's next event of generation oldest or later. */
static inline struct event next_event(int netlink, uint32_t oldest)
{
	char strings[4096];
	struct event event;
	const char *end;
	ssize_t size;

	do {
		size = recv(netlink, strings, sizeof(strings) - 1, 0);
		if (size < 0)
			err(1, "recv");
		strings[size] = '\0';
		end = strings + size;
		event.generation = strtoul(property(strings, end, "SYSGENID_GENERATION"), NULL, 10);
		event.merged = strtoul(property(strings, end, "SYSGENID_MERGED"), NULL, 10);
	} while (strcmp(property(strings, end, "DEVNAME"), "sysgenid") ||
		 strcmp(property(strings, end, "SUBSYSTEM"), "misc") ||
		 strcmp(property(strings, end, "ACTION"), "change") ||
		 event.generation < oldest);
	return event;
}

#endif /* UEVENT_H */
