// SPDX-License-Identifier: GPL-2.0
/*
 * Draws random numbers all the time, and looks for a new generation after each,
 * in the way that is asked for. Says "drawing", and once it has seen one "seen
 * N", the number of draws before, and the draws after that: "drew HEX". To
 * "N COUNT" on its standard input it answers with the draws from number N on.
 *
 * The kernel's random number generator is made ready with bytes that are always
 * the same, before ("early"), once the generation is seen ("late"), or not here
 * ("never"). In a clone that was told of no new generation, the draws go on.
 *
 * With "vdso", draws by the vDSO's getrandom(), or says "none" where there is none.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#include "crng.h"
#include "vdso.h"
#include "ways.h"

#define KEPT	(1 << 19)	/* how many of the last draws are kept */
#define AFTER	64		/* how many to show of a new generation */
#define BYTES	16

static unsigned char draws[KEPT][BYTES];
static unsigned long drawn;
static void *vdso_state;	/* NULL: draws by the system call */

static void draw(void)
{
	if (vdso_state)
		vdso_draw(draws[drawn++ % KEPT], BYTES, vdso_state);
	else if (getrandom(draws[drawn++ % KEPT], BYTES, GRND_NONBLOCK) != BYTES)
		err(1, "getrandom");
}

static void show(unsigned long from, unsigned long count)
{
	if (from + KEPT <= drawn)
		errx(1, "draw %lu is no longer known, %lu were made", from, drawn);
	while (drawn < from + count)
		draw();
	for (; count--; from++) {
		printf("drew ");
		for (int i = 0; i < BYTES; i++)
			printf("%02x", draws[from % KEPT][i]);
		printf("\n");
	}
	fflush(stdout);
}

/* Is there a question on the standard input? Then answers it. */
static void answer(void)
{
	unsigned long from, count;
	char line[64];
	ssize_t length = read(0, line, sizeof(line) - 1);

	if (length <= 0)
		return;
	line[length] = '\0';
	if (sscanf(line, "%lu %lu", &from, &count) != 2)
		errx(1, "asked for: %s", line);
	show(from, count);
	printf("shown\n");
	fflush(stdout);
}

int main(int argc, char **argv)
{
	bool (*changed)(void);
	const char *when;

	if (argc != 3 && (argc != 4 || strcmp(argv[3], "vdso")))
		errx(2, "usage: draw_random map|hardware|read|poll|ioctl|write|wait "
		     "early|late|never [vdso]");
	if (argc == 4) {
		if (!vdso_has_getrandom()) {
			printf("none\n");
			return 0;
		}
		vdso_state = vdso_new_state();
	}
	changed = ways_start(argv[1]);
	when = argv[2];
	if (!strcmp(when, "early"))
		crng_make_ready();
	if (strcmp(when, "late"))
		draw();
	else if (getrandom(draws[0], 1, GRND_NONBLOCK) != -1)
		errx(1, "the random number generator is ready already");
	fcntl(0, F_SETFL, O_NONBLOCK);
	printf("drawing\n");
	fflush(stdout);

	for (unsigned long looks = 0; !changed(); looks++) {
		/* The vDSO is so fast that too many draws would have to be kept. */
		if (strcmp(when, "late") && !(vdso_state && looks % 16))
			draw();
		answer();
	}
	if (!strcmp(when, "late"))
		crng_make_ready();
	printf("seen %lu\n", drawn);
	show(drawn, AFTER);
	return 0;
}
