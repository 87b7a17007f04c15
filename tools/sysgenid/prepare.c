// SPDX-License-Identifier: GPL-2.0
/*
 * Runs hooks that prepare for a snapshot, and has them undo that. A record in /run,
 * and so in the snapshot, lists the hooks that were begun. In a clone, the overseer
 * undoes what they did; in the original system, sysgenid(8) does.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "overseer.h"
#include "system.h"

#define LOCK_PATH	RUN_DIRECTORY "/prepare.lock"
/* Delays before undoing, or taking the lock, is tried again, in milliseconds */
#define PAUSE		1000
#define LOOK_EVERY	100

static int lock_fd = -1;

bool prepare_try_lock(void)
{
	mkdir(RUN_DIRECTORY, 0755);
	if (lock_fd < 0)
		lock_fd = open(LOCK_PATH, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	return lock_fd >= 0 && !flock(lock_fd, LOCK_EX | LOCK_NB);
}

bool prepare_lock(uint64_t generation)
{
	while (!prepare_try_lock()) {
		if (is_interrupted(generation) || lock_fd < 0)
			return false;
		wait_event(now_ms() + LOOK_EVERY, -1);
	}
	return true;
}

void prepare_unlock(void)
{
	flock(lock_fd, LOCK_UN);
}

bool is_prepared(void)
{
	return !access(PREPARED_PATH, F_OK);
}

bool prepare_run(struct hook_run *run, json_object *begun)
{
	json_object_array_add(begun, json_object_new_string(run->name));
	if (!publish_json(PREPARED_PATH, 0644, begun)) {
		snprintf(run->why, sizeof(run->why), "cannot write %s: %s",
			 PREPARED_PATH, strerror(errno));
		return false;
	}
	run->directory = PREPARE_DIRECTORY;
	run->family = PREPARE_FAMILY;
	run->argument = "freeze";
	return run_hook(run) == HOOK_DONE;
}

/* Returns the result of the last attempt. */
static enum hook_result thaw(struct hook_run *run, int attempts)
{
	enum hook_result result = HOOK_FAILED;

	for (int i = 0; i < attempts && result == HOOK_FAILED; i++) {
		int64_t end = now_ms() + PAUSE;

		while (i && now_ms() < end && !has_to_end())
			wait_event(end, -1);
		if (has_to_end())
			return HOOK_INTERRUPTED;
		result = run_hook(run);
	}
	return result;
}

bool prepare_undo(const struct hook_run *like, int attempts, thawed_fn thawed,
		  void *data)
{
	json_object *begun = json_object_from_file(PREPARED_PATH);
	size_t left = json_object_is_type(begun, json_type_array) ?
		      json_object_array_length(begun) : 0;
	enum hook_result result = HOOK_DONE;

	while (left && result != HOOK_INTERRUPTED) {
		struct hook_run run = *like;

		run.directory = PREPARE_DIRECTORY;
		run.family = PREPARE_FAMILY;
		run.argument = "thaw";
		run.name = json_object_get_string(
			json_object_array_get_idx(begun, --left));
		/* It may still run if the process that began it was killed. */
		stop_hook(run.family, run.name);
		result = thaw(&run, attempts);
		if (result != HOOK_INTERRUPTED)
			thawed(&run, result, data);
	}
	json_object_put(begun);
	if (result == HOOK_INTERRUPTED)
		return false;
	unlink(PREPARED_PATH);
	return true;
}
