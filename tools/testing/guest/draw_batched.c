// SPDX-License-Identifier: GPL-2.0
/*
 * Measures in how many timer ticks state follows a new GUID if no look precedes its use.
 * That is the mapped counter, and batched numbers: those of the kernel's get_random_u32(),
 * or of the vDSO's getrandom(). Every CPU is measured.
 *
 * Prints "watching", or "none" if the kernel has no such numbers. After the restore,
 * prints for each CPU:
 *   cpu NUMBER stale TICKS MICROSECONDS   ticks before the last stale look at the mapped
 *                                         counter; -1: no look was stale
 *   cpu NUMBER stale forever              the counter did not change in GIVE_UP ticks
 *   early NUMBER HEX                      a draw made at once
 *   late NUMBER HEX                       a draw made after NOTICED ticks
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <time.h>

#include "crng.h"
#include "guid.h"
#include "vdso.h"
#include "ways.h"

#define EARLY		4
#define LATE		16
#define MOST_CPUS	64
/* The first tick detects a new GUID; or else the driver's timer, 20 µs later. */
#define NOTICED		2
#define GIVE_UP		20
#define KERNEL		"/sys/kernel/debug/draw_kernel/"

struct cpu {
	uint64_t draws[EARLY + LATE];
	long long stale_ticks;
	double stale_us;
	bool fresh;
	void *state;		/* of this thread's vDSO generator */
};

static struct cpu cpus[MOST_CPUS];
static pthread_barrier_t start;
static int ticks_fd, u32_fd;

static uint64_t ticks(void)
{
	uint64_t now;

	if (pread(ticks_fd, &now, sizeof(now), 0) != sizeof(now))
		err(1, KERNEL "ticks");
	return now;
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e6 + time.tv_nsec / 1e3;
}

static uint64_t draw_u32(struct cpu *cpu)
{
	uint32_t number;

	(void)cpu;
	if (pread(u32_fd, &number, sizeof(number), 0) != sizeof(number))
		err(1, KERNEL "u32");
	return number;
}

static uint64_t draw_vdso(struct cpu *cpu)
{
	uint64_t number;

	vdso_draw(&number, sizeof(number), cpu->state);
	return number;
}

static uint64_t (*draw)(struct cpu *cpu);

static bool find_numbers(const char *name)
{
	if (!strcmp(name, "u32")) {
		draw = draw_u32;
		u32_fd = open(KERNEL "u32", O_RDONLY);
		return true;
	}
	draw = draw_vdso;
	if (!vdso_has_getrandom())
		return false;
	for (int i = 0; i < MOST_CPUS; i++)
		cpus[i].state = vdso_new_state();
	return true;
}

/* Watches the counter from the first look at a new GUID until the counter changes. */
static void watch_counter(struct cpu *cpu, uint64_t first)
{
	double since = now();
	long long since_first;

	cpu->stale_ticks = -1;
	do {
		since_first = ticks() - first;
		cpu->fresh = by_map();
		if (cpu->fresh)
			break;
		cpu->stale_ticks = since_first;
		cpu->stale_us = now() - since;
	} while (since_first < GIVE_UP);
}

static void *watch_on(void *data)
{
	int number = (intptr_t)data;
	struct cpu *cpu = &cpus[number];
	cpu_set_t set;
	uint64_t first;
	int i = 0;

	CPU_ZERO(&set);
	CPU_SET(number, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		err(1, "CPU %d", number);
	/* The first draw fills the batch. */
	draw(cpu);
	pthread_barrier_wait(&start);
	do
		first = ticks();
	while (!guid_is_new());

	while (i < EARLY)
		cpu->draws[i++] = draw(cpu);
	watch_counter(cpu, first);
	while (ticks() - first < NOTICED)
		;
	while (i < EARLY + LATE)
		cpu->draws[i++] = draw(cpu);
	return NULL;
}

static void show(int number)
{
	const struct cpu *cpu = &cpus[number];

	if (cpu->fresh)
		printf("cpu %d stale %lld %.0f\n", number, cpu->stale_ticks, cpu->stale_us);
	else
		printf("cpu %d stale forever\n", number);
	for (int i = 0; i < EARLY + LATE; i++)
		printf("%s %d %016llx\n", i < EARLY ? "early" : "late", number,
		       (unsigned long long)cpu->draws[i]);
}

int main(int argc, char **argv)
{
	int count = sysconf(_SC_NPROCESSORS_ONLN);
	pthread_t threads[MOST_CPUS];

	if (argc != 2 || (strcmp(argv[1], "u32") && strcmp(argv[1], "vdso")))
		errx(2, "usage: draw_batched u32|vdso");
	if (count > MOST_CPUS)
		errx(1, "%d CPUs are more than %d", count, MOST_CPUS);
	ways_start("map");
	guid_start();
	crng_make_ready();
	ticks_fd = open(KERNEL "ticks", O_RDONLY);
	if (ticks_fd < 0)
		err(1, KERNEL "ticks");
	if (!find_numbers(argv[1])) {
		printf("none\n");
		return 0;
	}
	pthread_barrier_init(&start, NULL, count + 1);
	for (intptr_t cpu = 0; cpu < count; cpu++)
		if (pthread_create(&threads[cpu], NULL, watch_on, (void *)cpu))
			errx(1, "can't start a thread");
	pthread_barrier_wait(&start);
	printf("watching\n");
	fflush(stdout);

	for (int cpu = 0; cpu < count; cpu++)
		pthread_join(threads[cpu], NULL);
	for (int cpu = 0; cpu < count; cpu++)
		show(cpu);
	return 0;
}
