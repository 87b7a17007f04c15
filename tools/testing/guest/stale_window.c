// SPDX-License-Identifier: GPL-2.0
/*
 * Watches the GUID in memory, and the generation in the given way. Counts how often the
 * generation was still the old one after the GUID was the new one.
 *
 * Prints "watching GUID", and after the restore "stale TIMES MICROSECONDS". With a
 * priority, it is a real-time program. Prints "resumed" when it runs again after PAUSE.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "guid.h"
#include "ways.h"

#define PAUSE	1e5	/* µs */

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e6 + time.tv_nsec / 1e3;
}

int main(int argc, char **argv)
{
	unsigned long stale = 0;
	bool (*changed)(void);
	double since = 0, last, time;
	bool is_new;

	if (argc < 2 || argc > 3)
		errx(2, "usage: stale_window map|hardware|read|poll|ioctl|write|wait [PRIORITY]");
	if (argc == 3) {
		struct sched_param param = { .sched_priority = atoi(argv[2]) };

		if (sched_setscheduler(0, SCHED_FIFO, &param))
			err(1, "priority %s", argv[2]);
	}
	changed = ways_start(argv[1]);
	guid_start();
	printf("watching %016llx\n", (unsigned long long)guid_first[0]);
	fflush(stdout);

	/* Read the GUID before the generation, which then has to be as new. */
	for (last = now();; last = time) {
		time = now();
		if (time - last > PAUSE) {
			printf("resumed\n");
			fflush(stdout);
		}
		is_new = guid_is_new();
		if (changed())
			break;
		if (is_new && !stale++)
			since = now();
	}
	printf("stale %lu %.0f\n", stale, stale ? now() - since : 0);
	return 0;
}
