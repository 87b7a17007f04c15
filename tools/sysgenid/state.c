// SPDX-License-Identifier: GPL-2.0
/*
 * The state that the overseer keeps across restarts of its own and of the system. It
 * is one line in a file, of constant size and written in place, so that it can be
 * saved on a full disk.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "overseer.h"
#include "system.h"

#define STATE_SIZE	1024
/* The format after the key */
#define STATE_FORMAT	"%*s %" SCNu64 " %" SCNu64 " %d %u %u %u %u %96s %255s %255s"

/* Stands for an empty field: scanf() cannot read an empty word. */
#define NOTHING		"-"

/* Timeout for the disk, in milliseconds: its file system may be frozen. */
#define DISK_TIMEOUT	10000
/* Flag in the saver's exit status: the state is written, but may not be on disk. */
#define NOT_SYNCED	0x80

const char *state_path = "/var/lib/sysgenid/state";

static void read_word(char *word)
{
	if (!strcmp(word, NOTHING))
		word[0] = '\0';
}

static const char *write_word(const char *word)
{
	return word[0] ? word : NOTHING;
}

static bool read_state(char *text, struct state *state)
{
	int phase, fd = open(state_path, O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? 0 : read(fd, text, STATE_SIZE);

	if (fd >= 0)
		close(fd);
	if (length != STATE_SIZE ||
	    sscanf(text, STATE_FORMAT, &state->generation, &state->previous,
		   &phase, &state->attempts, &state->done, &state->failed,
		   &state->faults, state->identity, state->hook,
		   state->tried) != 10 ||
	    phase < PHASE_HOOKS || phase > PHASE_SETTLED)
		return false;
	state->phase = phase;
	read_word(state->identity);
	read_word(state->hook);
	read_word(state->tried);
	return true;
}

void load_state(const struct state *fresh, struct state *state)
{
	char key[COUNTER_KEY_SIZE], text[STATE_SIZE + 1] = "";
	bool known = read_state(text, state);
	char identity[IDENTITY_SIZE];
	size_t length;

	counter_key(key);
	length = strlen(key);
	if (known && !strncmp(text, key, length) && text[length] == ' ')
		return;
	if (!known || state->phase == PHASE_SETTLED) {
		memcpy(identity, state->identity, sizeof(identity));
		*state = *fresh;
		if (known)
			memcpy(state->identity, identity, sizeof(identity));
		return;
	}
	report(LOG_WARNING, "unfinished", fresh->generation, NULL,
	       "generation %" PRIu64 " did not settle before the restart of the system "
	       "or its modules: going on with it now", state->generation);
	state->generation = fresh->generation;
	state->phase = PHASE_HOOKS;
}

static int write_and_sync(const char *text, enum sync sync)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s", state_path);
	if (mkdir(dirname(path), 0700) && errno != EEXIST)
		return errno;
	fd = open(state_path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return errno;
	/* Earlier versions let all users read it. */
	fchmod(fd, 0600);
	errno = ENOSPC;
	if (pwrite(fd, text, STATE_SIZE, 0) != STATE_SIZE)
		return errno;
	if (sync == SYNC_FILESYSTEM ? syncfs(fd) : fdatasync(fd))
		return errno | NOT_SYNCED;
	return 0;
}

/*
 * Writes in a separate process: a frozen file system, or a broken disk, may block a
 * writer forever. Returns its exit status, or -1 on a timeout.
 */
static int write_in_time(const char *text, enum sync sync)
{
	static pid_t saver;
	struct pollfd ended = { .events = POLLIN };
	int status;

	/* An earlier saver that still hangs would later overwrite this with old data. */
	if (saver && !waitpid(saver, NULL, WNOHANG))
		return -1;
	saver = fork();
	if (saver < 0) {
		saver = 0;
		return errno;
	}
	if (!saver)
		_exit(write_and_sync(text, sync));
	ended.fd = pidfd_open(saver, 0);
	if (ended.fd >= 0) {
		poll(&ended, 1, DISK_TIMEOUT);
		close(ended.fd);
	}
	if (!waitpid(saver, &status, WNOHANG))
		return -1;
	saver = 0;
	return WIFEXITED(status) ? WEXITSTATUS(status) : EIO;
}

bool save_state(const struct state *state, enum sync sync)
{
	char key[COUNTER_KEY_SIZE], text[STATE_SIZE + 1];
	int status;

	counter_key(key);
	snprintf(text, sizeof(text), "%s %" PRIu64 " %" PRIu64 " %d %u %u %u %u %s %s %s",
		 key, state->generation, state->previous, state->phase,
		 state->attempts, state->done, state->failed, state->faults,
		 write_word(state->identity), write_word(state->hook),
		 write_word(state->tried));
	memset(text + strlen(text), '\n', STATE_SIZE - strlen(text));
	status = write_in_time(text, sync);
	if (!status)
		return true;
	if (status > 0 && status & NOT_SYNCED)
		report(LOG_ERR, "state-lost", state->generation, NULL,
		       "%s is written, but may not be on the disk (%s): a crash of the "
		       "system may lose what was done for generation %" PRIu64,
		       state_path, strerror(status & ~NOT_SYNCED),
		       state->generation);
	else
		report(LOG_ERR, "state-lost", state->generation, NULL,
		       "cannot write %s (%s): a restart would run the hooks of "
		       "generation %" PRIu64 " again", state_path,
		       status < 0 ? "the file system does not answer" :
		       strerror(status), state->generation);
	return false;
}
