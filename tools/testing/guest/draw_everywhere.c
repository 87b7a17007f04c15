// SPDX-License-Identifier: GPL-2.0
/*
 * Draws random numbers on every CPU, in a tight loop of all interfaces in turn. Once the
 * GUID in memory has changed, each CPU makes and keeps 64 draws. The last byte of the new
 * GUID selects their interface, so that each interface draws first in some clone. With
 * the argument "all", the other interfaces follow in turn.
 *
 * Prints "drawing", and after the restore "cpu NUMBER HEX" for each draw. All draws have
 * the fixed bits of a UUID, so that those of any two interfaces can be compared.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/random.h>

#include "crng.h"
#include "guid.h"

#define KEPT		64
#define BYTES		16
#define MOST_CPUS	64
#define KERNEL		"/sys/kernel/debug/draw_kernel/"

static unsigned char draws[MOST_CPUS][KEPT][BYTES];
/* How far the interface moves on after each kept draw: 0 or 1. */
static unsigned int step;

static void by_getrandom(int fd, unsigned char *bytes)
{
	(void)fd;
	if (getrandom(bytes, BYTES, 0) != BYTES)
		err(1, "getrandom");
}

static void by_file(int fd, unsigned char *bytes)
{
	if (pread(fd, bytes, BYTES, 0) != BYTES)
		err(1, "read");
}

static void by_uuid(int fd, unsigned char *bytes)
{
	char text[64] = "";
	const char *digits = text;

	if (pread(fd, text, sizeof(text) - 1, 0) < 0)
		err(1, "uuid");
	for (int i = 0; i < BYTES; i++, digits += 2) {
		if (*digits == '-')
			digits++;
		if (sscanf(digits, "%2hhx", &bytes[i]) != 1)
			errx(1, "uuid: %s", text);
	}
}

static struct {
	const char *file;
	void (*draw)(int fd, unsigned char *bytes);
	int fd;
} interfaces[] = {
	{ NULL, by_getrandom, -1 },
	{ "/dev/urandom", by_file, -1 },
	{ "/proc/sys/kernel/random/uuid", by_uuid, -1 },
	{ KERNEL "bytes", by_file, -1 },
	{ KERNEL "interrupt", by_file, -1 },
};

#define INTERFACES (sizeof(interfaces) / sizeof(*interfaces))

static void draw(unsigned int number, unsigned char *bytes)
{
	interfaces[number].draw(interfaces[number].fd, bytes);
	bytes[6] = (bytes[6] & 0x0f) | 0x40;
	bytes[8] = (bytes[8] & 0x3f) | 0x80;
}

static void run_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		err(1, "CPU %d", cpu);
}

static pthread_barrier_t start;

static void *draw_on(void *data)
{
	unsigned char bytes[BYTES];
	int cpu = (intptr_t)data;
	unsigned int number = 0;

	run_on(cpu);
	pthread_barrier_wait(&start);
	while (!guid_is_new())
		draw(number++ % INTERFACES, bytes);
	number = ((volatile const unsigned char *)guid)[15];
	for (int i = 0; i < KEPT; i++, number += step)
		draw(number % INTERFACES, draws[cpu][i]);
	return NULL;
}

static void show(int cpu)
{
	for (int i = 0; i < KEPT; i++) {
		printf("cpu %d ", cpu);
		for (int j = 0; j < BYTES; j++)
			printf("%02x", draws[cpu][i][j]);
		printf("\n");
	}
}

int main(int argc, char **argv)
{
	int cpus = sysconf(_SC_NPROCESSORS_ONLN);
	pthread_t threads[MOST_CPUS];

	if (argc > 2 || (argc == 2 && strcmp(argv[1], "all")))
		errx(2, "usage: draw_everywhere [all]");
	step = argc - 1;
	if (cpus > MOST_CPUS)
		errx(1, "%d CPUs are more than %d", cpus, MOST_CPUS);
	guid_start();
	crng_make_ready();
	for (size_t i = 1; i < INTERFACES; i++) {
		interfaces[i].fd = open(interfaces[i].file, O_RDONLY);
		if (interfaces[i].fd < 0)
			err(1, "%s", interfaces[i].file);
	}
	pthread_barrier_init(&start, NULL, cpus + 1);
	for (intptr_t cpu = 0; cpu < cpus; cpu++)
		if (pthread_create(&threads[cpu], NULL, draw_on, (void *)cpu))
			errx(1, "can't start a thread");
	pthread_barrier_wait(&start);
	printf("drawing\n");
	fflush(stdout);

	for (int cpu = 0; cpu < cpus; cpu++)
		pthread_join(threads[cpu], NULL);
	for (int cpu = 0; cpu < cpus; cpu++)
		show(cpu);
	return 0;
}
