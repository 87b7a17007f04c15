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
	EXIT_TIMEOUT = 5,
	EXIT_SETTLED_FAILED = 6
};

struct json_object;

/* Where the overseer publishes its work; OUTPUT_PATH is for root. */
#define RUN_DIRECTORY	"/run/sysgenid"
#define STATUS_PATH	RUN_DIRECTORY "/status.json"
#define OUTPUT_PATH	RUN_DIRECTORY "/output.json"

/* The hardware that the last generation settled with; for root. */
#define IDENTITY_PATH	RUN_DIRECTORY "/identity.json"

/* The hooks that `sysgenid prepare` has begun, and nobody has undone. */
#define PREPARED_PATH	RUN_DIRECTORY "/prepared.json"

#define COUNTER_KEY_SIZE	96

/*
 * Tells counters apart that start at 0: by this boot, and by this loading of
 * the module, whose directory in sysfs is a new one each time.
 */
void counter_key(char *key);

/* The overseer's record for this counter, for json-c; or NULL. */
struct json_object *read_record(void);

/*
 * Writes it beside, then moves it: a reader never sees half of it. Returns false
 * with errno set if that failed; what was there before stays.
 */
bool publish_json(const char *path, mode_t mode, struct json_object *object);

/* A tracked descriptor that has not acknowledged the generation. */
struct laggard {
	pid_t pid;
	int fd;
	uint32_t acknowledged;
	char name[64];	/* of the process; UTF-8 without control characters */
};

/*
 * Finds as many as the caller may see, at most @size; returns how many. Copies
 * that systemd keeps for services are left out.
 */
size_t find_laggards(uint32_t generation, struct laggard *found, size_t size);

/* An attribute in /sys/class/misc/sysgenid/, without its newline. */
bool read_attribute(const char *name, char *value, size_t size);

/* An attribute that is a number; 0 where there is none. */
unsigned long number_attribute(const char *name);

/* Why there is no generation, and what to do, in one sentence. */
const char *explain_no_device(int error);

#endif /* SYSTEM_H */
