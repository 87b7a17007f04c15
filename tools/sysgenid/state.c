// SPDX-License-Identifier: GPL-2.0
/*
 * What the overseer remembers across restarts, its own and the system's: one
 * line in a file, always of the same size and written in place, so that a disk
 * that has filled up meanwhile is no obstacle.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "overseer.h"

#define STATE_SIZE	1024
#define KEY_SIZE	96
/* After the key. */
#define STATE_FORMAT	"%*s %" SCNu64 " %d %u %255s %255s"

/* Stands for no hook, as an empty word can't be read back. */
#define NO_HOOK		"-"

/* This boot, and this loading of the module, whose folder is a new one each. */
static void make_key(char *key)
{
	char boot[64] = "";
	struct stat module = {};
	FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");

	if (file) {
		if (!fgets(boot, sizeof(boot), file))
			boot[0] = '\0';
		fclose(file);
	}
	boot[strcspn(boot, "\n")] = '\0';
	stat("/sys/class/misc/sysgenid", &module);
	snprintf(key, KEY_SIZE, "%s/%ju ", boot, (uintmax_t)module.st_ino);
}

static bool read_state(const char *path, char *text, struct state *state)
{
	int phase, fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? 0 : read(fd, text, STATE_SIZE);

	if (fd >= 0)
		close(fd);
	if (length != STATE_SIZE ||
	    sscanf(text, STATE_FORMAT, &state->generation, &phase,
		   &state->attempts, state->hook, state->tried) != 5 ||
	    phase < PHASE_HOOKS || phase > PHASE_SETTLED)
		return false;
	state->phase = phase;
	if (!strcmp(state->hook, NO_HOOK))
		state->hook[0] = '\0';
	if (!strcmp(state->tried, NO_HOOK))
		state->tried[0] = '\0';
	return true;
}

void load_state(const char *path, const struct state *fresh,
		struct state *state)
{
	char key[KEY_SIZE], text[STATE_SIZE + 1] = "";
	bool known = read_state(path, text, state);

	make_key(key);
	if (known && !strncmp(text, key, strlen(key)))
		return;
	if (!known || state->phase == PHASE_SETTLED) {
		*state = *fresh;
		return;
	}
	report(LOG_WARNING, "unfinished", fresh->generation, NULL,
	       "generation %" PRIu64 " did not settle before the restart of the system "
	       "or its modules: going on with it now", state->generation);
	state->generation = fresh->generation;
	state->phase = PHASE_HOOKS;
}

/* Returns a descriptor of the file, or -1. */
static int write_state(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	ssize_t length;
	int error;

	if (fd < 0)
		return -1;
	length = pwrite(fd, text, STATE_SIZE, 0);
	if (length == STATE_SIZE)
		return fd;
	error = length < 0 ? errno : ENOSPC;
	close(fd);
	errno = error;
	return -1;
}

void save_state(const char *path, const struct state *state, int (*sync)(int))
{
	char key[KEY_SIZE], text[STATE_SIZE + 1];
	int fd;

	make_key(key);
	snprintf(text, sizeof(text), "%s%" PRIu64 " %d %u %s %s", key,
		 state->generation, state->phase, state->attempts,
		 state->hook[0] ? state->hook : NO_HOOK,
		 state->tried[0] ? state->tried : NO_HOOK);
	memset(text + strlen(text), '\n', STATE_SIZE - strlen(text));
	fd = write_state(path, text);
	if (fd < 0)
		report(LOG_ERR, "state-lost", state->generation, NULL,
		       "%s can't be written (%s): a restart would run the hooks of "
		       "generation %" PRIu64 " again", path, strerror(errno),
		       state->generation);
	else if (sync(fd))
		report(LOG_ERR, "state-lost", state->generation, NULL,
		       "%s is written, but perhaps not to the disk (%s): a crash of the "
		       "system may lose what was done for generation %" PRIu64, path,
		       strerror(errno), state->generation);
	if (fd >= 0)
		close(fd);
}
