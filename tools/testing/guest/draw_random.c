// SPDX-License-Identifier: GPL-2.0
/*
 * Draws random numbers continuously, and looks for a new generation after each draw, in
 * the given way. Prints "drawing". In a new generation it prints "seen N", the number of
 * earlier draws, and then later draws as "drew HEX". A line "N COUNT" on its standard
 * input prints the draws from number N on. Without a new generation it keeps drawing.
 *
 * The program initializes the kernel's CSPRNG with constant bytes: before it draws
 * ("early"), once it has seen the generation ("late"), or not at all ("never").
 *
 * With "vdso", it draws from the vDSO's getrandom(), or prints "none" without one.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#include "crng.h"
#include "vdso.h"
#include "ways.h"

#define KEPT	(1 << 19)	/* number of kept draws, the last ones */
#define AFTER	64		/* number of draws to print in a new generation */
#define BYTES	16

static unsigned char draws[KEPT][BYTES];
static unsigned long drawn;
static void *vdso_state;	/* NULL: draw by the system call */

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

/* Answers a request on the standard input, if there is one. */
static void answer(void)
{
	unsigned long from, count;
	char line[64];
	ssize_t length = read(0, line, sizeof(line) - 1);

	if (length <= 0)
		return;
	line[length] = '\0';
	if (sscanf(line, "%lu %lu", &from, &count) != 2)
		errx(1, "not a request: %s", line);
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
		/* The vDSO is so fast that KEPT draws would not suffice. */
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
