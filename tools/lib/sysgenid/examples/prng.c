// SPDX-License-Identifier: MIT
/*
 * A random number generator that never gives two clones the same number. Each
 * thread has its own state, so there are no locks.
 *
 * The generator computes a number, and compares the generation again before it
 * releases the number. After a snapshot in between, each clone computes another.
 */
#include <err.h>
#include <stdio.h>
#include <sys/random.h>
#include <sysgenid.h>

static _Thread_local uint64_t state;
static _Thread_local struct sysgenid_seen seen;

/* Compares, adjusts, then remembers: if seeding fails, the next call retries. */
static int seed_if_changed(void)
{
	struct sysgenid_seen now;

	if (!sysgenid_changed(&seen, &now))
		return 0;
	if (getrandom(&state, sizeof(state), 0) != sizeof(state))
		return -1;
	sysgenid_remember(&seen, &now);
	return 0;
}

/* splitmix64: fine for an example, unfit for secrets */
static uint64_t compute(void)
{
	uint64_t z;

	state += 0x9e3779b97f4a7c15;
	z = (state ^ (state >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

static int in_steps;	/* wait for a line of input before a number is released */

static uint64_t random_number(void)
{
	uint64_t number;

	do {
		if (seed_if_changed())
			err(1, "getrandom");
		number = compute();
		if (in_steps) {
			puts("computed");
			fflush(stdout);
			getchar();
		}
	} while (!sysgenid_is_current(&seen));
	return number;
}

/* Prints a number for each line of input; with an argument, in steps. */
int main(int argc, char **argv)
{
	(void)argv;
	in_steps = argc > 1;
	if (sysgenid_get_source() == SYSGENID_SOURCE_NONE)
		warnx("clone detection unavailable: see sysgenid_open(3)");

	while (getchar() != EOF) {
		printf("%016llx\n", (unsigned long long)random_number());
		fflush(stdout);
	}
	return 0;
}
