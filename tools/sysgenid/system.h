/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the command and the overseer both ask of the system: who is waited for,
 * what sysfs says, and why there is no device.
 */
#ifndef SYSTEM_H
#define SYSTEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Exit statuses of both programs; 0 is success. */
enum {
	EXIT_ERROR = 1,
	EXIT_USAGE = 2,
	EXIT_NO_DEVICE = 3,
	EXIT_PERMISSION = 4,
	EXIT_TIMEOUT = 5
};

/* A tracked descriptor that has yet to acknowledge the generation. */
struct laggard {
	pid_t pid;
	int fd;
	uint32_t acknowledged;
	char name[64];
};

/* Finds as many as the caller may see, at most @size; returns how many. */
size_t find_laggards(uint32_t generation, struct laggard *found, size_t size);

/* An attribute in /sys/class/misc/sysgenid/, without its newline. */
bool read_attribute(const char *name, char *value, size_t size);

/* Why there is no generation, and what to do, in one sentence. */
const char *explain_no_device(int error);

#endif /* SYSTEM_H */
