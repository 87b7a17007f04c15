// SPDX-License-Identifier: GPL-2.0
/*
 * Watches the GUID in memory and the generation, in the way that is asked for:
 * how often was the GUID the new one, and the generation seen after that still
 * the old one? Says "watching GUID", and after the restore "stale TIMES
 * MICROSECONDS". With a priority it watches as a real-time program. Says "resumed"
 * when it runs after it could not for a while.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "ways.h"


#define TABLES		"/sys/firmware/acpi/tables/"
/* In QEMU's table: Name (VGIA, …) with four bytes, to which ADDR adds 40. */
#define NAME		"\x08VGIA\x0c"
#define OFFSET		40

#define PAUSE		1e5	/* µs that it did not run, to be told of */

static uint32_t find_address(const char *path)
{
	char table[65536];
	FILE *file = fopen(path, "r");
	uint32_t page;
	size_t length;
	char *name;

	if (!file)
		return 0;
	length = fread(table, 1, sizeof(table), file);
	fclose(file);
	name = memmem(table, length, NAME, strlen(NAME));
	if (!name)
		return 0;
	memcpy(&page, name + strlen(NAME), sizeof(page));
	return page + OFFSET;
}

static volatile const uint64_t *map_guid(void)
{
	const long page = sysconf(_SC_PAGESIZE);
	uint32_t address = 0;
	char path[64];
	char *memory;
	int fd;

	for (int i = 0; !address && i < 10; i++) {
		snprintf(path, sizeof(path), i ? TABLES "SSDT%d" : TABLES "SSDT", i);
		address = find_address(path);
	}
	if (!address)
		errx(1, "no table of QEMU's tells where the GUID is");
	fd = open("/dev/mem", O_RDONLY);
	memory = mmap(NULL, page, PROT_READ, MAP_SHARED, fd, address & -page);
	if (fd < 0 || memory == MAP_FAILED)
		err(1, "/dev/mem at %#x", address);
	return (const uint64_t *)(memory + (address & (page - 1)));
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e6 + time.tv_nsec / 1e3;
}

int main(int argc, char **argv)
{
	volatile const uint64_t *guid;
	unsigned long stale = 0;
	bool (*changed)(void);
	double since = 0, last, time;
	uint64_t old[2];
	bool is_new;

	if (argc < 2 || argc > 3)
		errx(2, "usage: stale_window map|read|poll|ioctl|write|wait [PRIORITY]");
	if (argc == 3) {
		struct sched_param param = { .sched_priority = atoi(argv[2]) };

		if (sched_setscheduler(0, SCHED_FIFO, &param))
			err(1, "priority %s", argv[2]);
	}
	changed = ways_start(argv[1]);
	guid = map_guid();
	old[0] = guid[0];
	old[1] = guid[1];
	printf("watching %016llx\n", (unsigned long long)old[0]);
	fflush(stdout);

	/* First the GUID, then the generation: which can only be as new. */
	for (last = now();; last = time) {
		time = now();
		if (time - last > PAUSE) {
			printf("resumed\n");
			fflush(stdout);
		}
		is_new = guid[0] != old[0] || guid[1] != old[1];
		if (changed())
			break;
		if (is_new && !stale++)
			since = now();
	}
	printf("stale %lu %.0f\n", stale, stale ? now() - since : 0);
	return 0;
}
