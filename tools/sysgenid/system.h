/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Queries that the command and the overseer share: late watchers, sysfs attributes,
 * and the reason for a missing device.
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
	EXIT_TIMEOUT = 5,
	EXIT_SETTLED_FAILED = 6
};

struct json_object;

/* The overseer publishes its work here; only root may read OUTPUT_PATH. */
#define RUN_DIRECTORY	"/run/sysgenid"
#define STATUS_PATH	RUN_DIRECTORY "/status.json"
#define OUTPUT_PATH	RUN_DIRECTORY "/output.json"

/* Identity of the hardware when the generation began; only root may read it. */
#define IDENTITY_PATH	RUN_DIRECTORY "/identity.json"

/* The hooks that `sysgenid prepare` has begun and that are not undone. */
#define PREPARED_PATH	RUN_DIRECTORY "/prepared.json"

#define COUNTER_KEY_SIZE	96

/*
 * Stores a key that differs between counters that start at 0. It identifies the boot
 * and the loading of the module, which creates a new directory in sysfs.
 */
void counter_key(char *key);

/* Returns the overseer's record for this counter, for json_object_put(); or NULL. */
struct json_object *read_record(void);

/*
 * Writes a temporary file, and renames it: readers see the old or the new contents.
 * On failure, returns false with errno set, and keeps the old file.
 */
bool publish_json(const char *path, mode_t mode, struct json_object *object);

/* A tracked descriptor that has not acknowledged the generation. */
struct laggard {
	pid_t pid;
	int fd;
	uint32_t acknowledged;
	char name[64];	/* name of the process: UTF-8 without control characters */
};

/*
 * Stores up to @size laggards that the caller may see; returns their number. Skips
 * the copies of descriptors that systemd keeps for services.
 */
size_t find_laggards(uint32_t generation, struct laggard *found, size_t size);

/* Reads an attribute in /sys/class/misc/sysgenid/, without its newline. */
bool read_attribute(const char *name, char *value, size_t size);

/* Returns a numeric attribute, or 0 if there is none. */
unsigned long number_attribute(const char *name);

/* Returns why there is no generation, and the remedy, in one sentence. */
const char *explain_no_device(int error);

#endif /* SYSTEM_H */
