// SPDX-License-Identifier: MIT
/*
 * Per-process state: file descriptors, and whether the process was forked.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "source.h"

int sysgenid_above_stdio_(int fd)
{
	int other, error;

	if (fd < 0 || fd > STDERR_FILENO)
		return fd;
	other = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	error = errno;
	close(fd);
	errno = error;
	return other;
}

/* The kernel fills this page with zeros in each child. A pid may repeat. */
static uint64_t *map_marker(void)
{
	static uint64_t *marker;
	uint64_t *found = __atomic_load_n(&marker, __ATOMIC_ACQUIRE), *page;
	size_t size = sysconf(_SC_PAGESIZE);

	if (found)
		return found;
	page = mmap(NULL, size, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED)
		return NULL;
	if (!madvise(page, size, MADV_WIPEONFORK) &&
	    __atomic_compare_exchange_n(&marker, &found, page, false,
					__ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
		return page;
	munmap(page, size);
	return found;
}

uint64_t sysgenid_process_(void)
{
	static uint64_t last;	/* inherited, so a child's numbers go on from it */
	uint64_t *marker = map_marker();
	uint64_t number = 0, next;

	if (!marker)
		return 0;
	number = __atomic_load_n(marker, __ATOMIC_RELAXED);
	if (number)
		return number;
	next = __atomic_add_fetch(&last, 1, __ATOMIC_RELAXED);
	if (__atomic_compare_exchange_n(marker, &number, next, false,
					__ATOMIC_RELAXED, __ATOMIC_RELAXED))
		return next;
	return number;
}
