// SPDX-License-Identifier: MIT
/*
 * A service with the generation in its event loop. For each line of input it prints
 * an identifier that starts with a random prefix. When its system was cloned, it
 * makes a new prefix. An overseer can wait for that.
 */
#include <err.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sysgenid.h>
#include <unistd.h>

static uint64_t prefix;
static unsigned long number;

static void make_prefix(void)
{
	if (getrandom(&prefix, sizeof(prefix), 0) != sizeof(prefix))
		err(1, "getrandom");
	number = 0;
}

/* Adjusts and acknowledges, again if there was another clone meanwhile. */
static void adjust(struct sysgenid_watcher *watcher)
{
	uint64_t generation;

	while (sysgenid_watcher_wait(watcher, 0, &generation) == 1) {
		make_prefix();
		printf("generation %llu: new prefix\n",
		       (unsigned long long)generation);
		if (sysgenid_watcher_ack(watcher, generation) &&
		    errno != ESTALE)
			err(1, "acknowledging generation %llu",
			    (unsigned long long)generation);
	}
}

static int serve(void)
{
	char line[256];

	if (read(STDIN_FILENO, line, sizeof(line)) <= 0)
		return 0;
	printf("%016llx-%lu\n", (unsigned long long)prefix, ++number);
	return 1;
}

int main(void)
{
	struct sysgenid_watcher *watcher = sysgenid_watcher_new(SYSGENID_TRACKED);
	struct pollfd polled[2] = { { .fd = STDIN_FILENO, .events = POLLIN } };

	if (!watcher)
		err(1, "watching the generation");
	polled[1].fd = sysgenid_watcher_fd(watcher);
	polled[1].events = POLLIN;
	setvbuf(stdout, NULL, _IOLBF, 0);
	make_prefix();

	/* Handle the generation first: no result may come from the old one. */
	while (poll(polled, 2, -1) > 0) {
		if (polled[1].revents)
			adjust(watcher);
		if (polled[0].revents && !serve())
			break;
	}
	sysgenid_watcher_free(watcher);
	return 0;
}
