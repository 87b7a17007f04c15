/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Initializes the kernel's CSPRNG in a guest without any source of random numbers. The
 * state is the same in every run.
 */
#ifndef CRNG_H
#define CRNG_H

#include <err.h>
#include <fcntl.h>
#include <linux/random.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* Initializes the CSPRNG with constant bytes. */
static void crng_make_ready(void)
{
	struct {
		struct rand_pool_info info;
		char bytes[64];
	} pool = { .info = { .entropy_count = 512, .buf_size = 64 } };
	int fd = open("/dev/urandom", O_RDONLY);

	memset(pool.bytes, 'x', sizeof(pool.bytes));
	if (fd < 0 || ioctl(fd, RNDADDENTROPY, &pool))
		err(1, "RNDADDENTROPY");
	close(fd);
}

#endif /* CRNG_H */
