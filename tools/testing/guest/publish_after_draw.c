// SPDX-License-Identifier: GPL-2.0
/*
 * Has write_guid.ko write new GUIDs, draws a random number, and waits until the mapped
 * counter changes. Prints the microseconds of each wait, in which it makes no system call.
 *
 * usage: publish_after_draw TIMES
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

#include "ways.h"

#define NEW_GUID "16 0"

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e6 + time.tv_nsec / 1e3;
}

int main(int argc, char **argv)
{
	int writer = open("/sys/module/write_guid/parameters/write", O_WRONLY);

	if (argc != 2)
		errx(2, "usage: publish_after_draw TIMES");
	if (writer < 0)
		err(1, "load write_guid.ko");
	ways_start("map");
	for (int times = atoi(argv[1]); times; times--) {
		double drawn;
		char byte;

		ways_first = *ways_page;
		if (pwrite(writer, NEW_GUID, strlen(NEW_GUID), 0) < 0)
			err(1, "write_guid");
		if (getrandom(&byte, sizeof(byte), GRND_INSECURE) != sizeof(byte))
			err(1, "getrandom");
		drawn = now();
		while (!by_map())
			;
		printf("%.0f ", now() - drawn);
	}
	printf("\n");
	return 0;
}
