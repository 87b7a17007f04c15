/* SPDX-License-Identifier: MIT */
/*
 * The clock for timeouts, for the library and the programs around it.
 */
#ifndef CLOCK_H
#define CLOCK_H

#include <stdint.h>
#include <time.h>

/* Returns the milliseconds since an arbitrary fixed time. */
static inline int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

#endif /* CLOCK_H */
