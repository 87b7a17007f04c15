// SPDX-License-Identifier: GPL-2.0
/*
 * What the overseer remembers across restarts: one line in a file in /run,
 * always of the same size and written in place, so that a disk that has filled
 * up meanwhile is no obstacle.
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

#define STATE_SIZE	512
#define KEY_SIZE	96
#define STATE_FORMAT	"%" SCNu64 " %d %255s"

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

void load_state(const char *path, const struct state *fresh,
		struct state *state)
{
	char key[KEY_SIZE], text[STATE_SIZE + 1] = "";
	int phase, fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? 0 : read(fd, text, STATE_SIZE);

	if (fd >= 0)
		close(fd);
	make_key(key);
	if (length == STATE_SIZE && !strncmp(text, key, strlen(key)) &&
	    sscanf(text + strlen(key), STATE_FORMAT, &state->generation,
		   &phase, state->hook) == 3 &&
	    phase >= PHASE_HOOKS && phase <= PHASE_SETTLED) {
		state->phase = phase;
		if (!strcmp(state->hook, NO_HOOK))
			state->hook[0] = '\0';
		return;
	}
	*state = *fresh;
}

void save_state(const char *path, const struct state *state)
{
	char key[KEY_SIZE], text[STATE_SIZE + 1];
	ssize_t written = -1;
	int fd;

	make_key(key);
	snprintf(text, sizeof(text), "%s%" PRIu64 " %d %s", key,
		 state->generation, state->phase,
		 state->hook[0] ? state->hook : NO_HOOK);
	memset(text + strlen(text), '\n', STATE_SIZE - strlen(text));

	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	if (fd >= 0) {
		written = pwrite(fd, text, STATE_SIZE, 0);
		close(fd);
	}
	if (written != STATE_SIZE)
		report(LOG_ERR, "state-lost", state->generation, NULL,
		       "%s can't be written (%s): a restart would run the hooks of "
		       "generation %" PRIu64 " again", path, strerror(errno),
		       state->generation);
}
