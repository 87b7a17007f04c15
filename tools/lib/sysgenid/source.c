// SPDX-License-Identifier: MIT
/*
 * Finds the page with the generation and maps it, once for the whole process.
 * No lock is needed, so that it can be done at any time: before main(), in a
 * child of a fork, by several threads at once.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/ioctl.h>
#include <linux/types.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/sysgenid.h>

#include "source.h"
#include "vmclock.h"

/* What is read while there is no page. */
static const uint64_t no_generation;
const volatile void *sysgenid_word_ = &no_generation;

static struct source *found;

static const char *device_path(void)
{
	const char *path = secure_getenv("SYSGENID_DEVICE");

	return path ? path : "/dev/sysgenid";
}

static const char *vmclock_path(void)
{
	const char *path = secure_getenv("SYSGENID_VMCLOCK");

	return path ? path : "/dev/vmclock0";
}

const char *source_path(enum sysgenid_source kind)
{
	return kind == SYSGENID_SOURCE_DEVICE ? device_path() : vmclock_path();
}

int source_keep_off_streams(int fd)
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

/* Maps the page; what it maps stays, whatever becomes of the descriptor. */
static void *map_page(enum sysgenid_source kind, struct source *source)
{
	void *page;

	source->kind = kind;
	source->fd = source_keep_off_streams(open(source_path(kind),
					     O_RDONLY | O_CLOEXEC | O_NOCTTY));
	if (source->fd < 0)
		return NULL;
	if (fstat(source->fd, &source->node))
		page = MAP_FAILED;
	else
		page = mmap(NULL, sysconf(_SC_PAGESIZE), PROT_READ, MAP_SHARED,
			    source->fd, 0);
	if (page != MAP_FAILED)
		return page;
	close(source->fd);
	return NULL;
}

static bool map_device(struct source *source)
{
	source->word = map_page(SYSGENID_SOURCE_DEVICE, source);
	return source->word;
}

/* Is that a page of a hypervisor that counts generations? */
static bool has_generation(const struct vmclock_page *page)
{
	return le32toh(page->magic) == VMCLOCK_PAGE_MAGIC &&
	       le16toh(page->version) == VMCLOCK_PAGE_VERSION &&
	       le32toh(page->size) >= sizeof(*page) &&
	       le64toh(page->flags) & VMCLOCK_HAS_GENERATION;
}

static bool map_vmclock(struct source *source)
{
	struct vmclock_page *page = map_page(SYSGENID_SOURCE_VMCLOCK, source);

	if (!page)
		return false;
	if (has_generation(page)) {
		source->word = &page->generation;
		return true;
	}
	munmap(page, sysconf(_SC_PAGESIZE));
	close(source->fd);
	return false;
}

/* The first to find the source wins; the others' finds are dropped. */
static void publish(struct source *source)
{
	struct source *expected = NULL;
	unsigned long page = sysconf(_SC_PAGESIZE);

	if (__atomic_compare_exchange_n(&found, &expected, source, false,
					__ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
		return;
	munmap((void *)((unsigned long)source->word & -page), page);
	close(source->fd);
	free(source);
}

/*
 * Nobody is told of a source before its word is the one that is loaded. Whoever
 * comes between the winner's two steps takes the second: else that one would
 * still load 0, and see a change later where there was none.
 */
const struct source *source_get(void)
{
	const struct source *source = __atomic_load_n(&found, __ATOMIC_ACQUIRE);

	if (source && __atomic_load_n(&sysgenid_word_, __ATOMIC_RELAXED) !=
		      source->word)
		__atomic_store_n(&sysgenid_word_, source->word,
				 __ATOMIC_RELEASE);
	return source;
}

const struct source *source_find(void)
{
	struct source *source;
	int error;

	if (source_get())
		return source_get();

	source = calloc(1, sizeof(*source));
	if (!source)
		return NULL;
	if (!map_device(source)) {
		/* The error to tell is that of the device, not of the other. */
		error = errno;
		if (!map_vmclock(source)) {
			free(source);
			errno = error;
			return NULL;
		}
	}
	publish(source);
	return source_get();
}

bool source_is(const struct source *source, int fd)
{
	struct stat node;

	return fd >= 0 && !fstat(fd, &node) && S_ISCHR(node.st_mode) &&
	       node.st_dev == source->node.st_dev &&
	       node.st_ino == source->node.st_ino &&
	       node.st_rdev == source->node.st_rdev;
}

int source_open(const struct source *source, int flags)
{
	return source_keep_off_streams(open(source_path(source->kind),
			flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
}

int sysgenid_open(void)
{
	if (source_find())
		return 0;
	log_no_source(errno);
	return -1;
}

enum sysgenid_source sysgenid_get_source(void)
{
	const struct source *source = source_get();

	return source ? source->kind : SYSGENID_SOURCE_NONE;
}

/*
 * Before main(), and before the constructors of most others. Says nothing: most
 * programs that link with a library that links with this one never ask.
 */
static void __attribute__((constructor(101))) open_early(void)
{
	int error = errno;

	source_find();
	errno = error;
}

int sysgenid_barrier(uint64_t *generation)
{
	const struct source *source = source_get();
	__u32 now;
	int fd, ret;

	*generation = sysgenid_generation();
	if (!source || source->kind != SYSGENID_SOURCE_DEVICE ||
	    !S_ISCHR(source->node.st_mode))
		return 0;

	fd = source->fd;
	if (!source_is(source, fd))
		fd = source_open(source, O_RDONLY);
	if (fd < 0)
		return -1;
	ret = ioctl(fd, SYSGENID_GET_GENERATION, &now);
	if (!ret)
		*generation = now;
	if (fd != source->fd)
		close(fd);
	return ret;
}
