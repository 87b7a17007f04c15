// SPDX-License-Identifier: MIT
/*
 * A random number generator that no clone shares: before it gives anything
 * away, it looks whether the system is still the one that seeded it, which
 * costs a load, and seeds itself anew if not. One for each thread, so no locks.
 */
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sysgenid.h>

static _Thread_local uint64_t state;
static _Thread_local uint64_t seen;
static _Thread_local bool seeded;

static uint64_t random_number(void)
{
	uint64_t z;

	if (sysgenid_changed(&seen) || !seeded) {
		if (getrandom(&state, sizeof(state), 0) != sizeof(state))
			err(1, "getrandom");
		seeded = true;
	}
	/* splitmix64: good for an example, not for secrets */
	state += 0x9e3779b97f4a7c15;
	z = (state ^ (state >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

/* One number for each line of the input. */
int main(void)
{
	if (sysgenid_get_source() == SYSGENID_SOURCE_NONE)
		warnx("nothing tells of clones here");

	while (getchar() != EOF) {
		printf("%016llx\n", (unsigned long long)random_number());
		fflush(stdout);
	}
	return 0;
}
