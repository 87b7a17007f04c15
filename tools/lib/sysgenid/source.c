// SPDX-License-Identifier: MIT
/*
 * Finds and maps the sources, and has the slow path of the in-line check.
 *
 * This code takes no lock. It works before main(), in a forked child, and in
 * several threads at once. One compare-and-swap publishes each source.
 */
#define _GNU_SOURCE
#include <endian.h>
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

#define DEVICE_VARIABLE		"SYSGENID_DEVICE"
#define VMCLOCK_VARIABLE	"SYSGENID_VMCLOCK"

static const struct source *device, *vmclock;
static const volatile struct sysgenid_word_ *hardware;

/*
 * struct sysgenid_seen points to these words in the place of sources not found. A
 * source that is found later changes its word, and so the in-line check notices at
 * no cost. The words: counter, the hardware's two halves, vmclock.
 */
static uint64_t missing[4];

const struct source *sysgenid_device_(void)
{
	return __atomic_load_n(&device, __ATOMIC_ACQUIRE);
}

const struct source *sysgenid_vmclock_(void)
{
	return __atomic_load_n(&vmclock, __ATOMIC_ACQUIRE);
}

static const char *device_path(void)
{
	const char *path = secure_getenv(DEVICE_VARIABLE);

	return path ? path : "/dev/sysgenid";
}

static const char *vmclock_path(void)
{
	const char *path = secure_getenv(VMCLOCK_VARIABLE);

	return path ? path : "/dev/vmclock0";
}

static int open_path(const char *path, int flags)
{
	return sysgenid_above_stdio_(open(path, flags | O_CLOEXEC | O_NONBLOCK |
					  O_NOCTTY));
}

int sysgenid_reopen_(const struct source *source, int flags)
{
	return open_path(source->path, flags);
}

bool sysgenid_is_source_(const struct source *source, int fd)
{
	struct stat node;

	/* The device number stays the module's while the page is mapped. */
	return fd >= 0 && !fstat(fd, &node) && S_ISCHR(node.st_mode) &&
	       S_ISCHR(source->node.st_mode) &&
	       node.st_rdev == source->node.st_rdev;
}

int sysgenid_dup_source_(const struct source *source)
{
	if (sysgenid_is_source_(source, source->fd))
		return fcntl(source->fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	return sysgenid_reopen_(source, O_RDONLY);
}

/*
 * Finding
 */

static void unmap(struct source *source)
{
	int error = errno;

	munmap((void *)source->page, sysconf(_SC_PAGESIZE));
	close(source->fd);
	free(source);
	errno = error;
}

/*
 * A file that is not a device is accepted only if the environment names it. A
 * chroot may have an empty /dev/sysgenid as the target of a missing bind mount.
 */
static bool can_map(const struct source *source, const char *variable, size_t size)
{
	if (S_ISCHR(source->node.st_mode))
		return true;
	errno = ENODEV;
	return secure_getenv(variable) && source->node.st_size >= (off_t)size;
}

static struct source *map(const char *path, const char *variable, size_t size)
{
	struct source *source = calloc(1, sizeof(*source));
	int error;

	if (!source)
		return NULL;
	source->path = path;
	source->fd = open_path(path, O_RDONLY);
	if (source->fd >= 0) {
		source->page = fstat(source->fd, &source->node) ||
			       !can_map(source, variable, size) ? MAP_FAILED :
			mmap(NULL, sysconf(_SC_PAGESIZE), PROT_READ, MAP_SHARED,
			     source->fd, 0);
		if (source->page != MAP_FAILED)
			return source;
		error = errno;
		close(source->fd);
		errno = error;
	}
	error = errno;
	free(source);
	errno = error;
	return NULL;
}

/* The first thread to find a source publishes it; other threads drop theirs. */
static void publish(const struct source **slot, struct source *source,
		    uint64_t *instead)
{
	const struct source *expected = NULL;

	if (!__atomic_compare_exchange_n(slot, &expected, source, false,
					 __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
		unmap(source);
	else
		__atomic_add_fetch(instead, 1, __ATOMIC_RELEASE);
}

static bool find_device(void)
{
	struct source *source;

	if (sysgenid_device_())
		return true;
	source = map(device_path(), DEVICE_VARIABLE, sizeof(uint64_t));
	if (source)
		publish(&device, source, &missing[0]);
	return source;
}

/* Returns whether the hypervisor behind that page counts generations. */
static bool has_generation(const struct source *source)
{
	const volatile struct vmclock_page *page = source->page;

	return le32toh(page->magic) == VMCLOCK_PAGE_MAGIC &&
	       le16toh(page->version) == VMCLOCK_PAGE_VERSION &&
	       le32toh(page->size) >= sizeof(*page) &&
	       le64toh(page->flags) & VMCLOCK_HAS_GENERATION;
}

static bool find_vmclock(void)
{
	struct source *source;

	if (sysgenid_vmclock_())
		return true;
	source = map(vmclock_path(), VMCLOCK_VARIABLE, sizeof(struct vmclock_page));
	if (!source)
		return false;
	if (!has_generation(source)) {
		unmap(source);
		return false;
	}
	publish(&vmclock, source, &missing[3]);
	return true;
}

/* Maps the page of the hardware's identifier; NULL: not for this process. */
static const volatile void *map_hardware(int fd)
{
	size_t size = sysconf(_SC_PAGESIZE);
	struct sysgenid_hardware where;
	const volatile char *page;

	if (ioctl(fd, SYSGENID_GET_HARDWARE, &where) ||
	    where.size != 2 * sizeof(uint64_t) || where.offset > size - where.size)
		return NULL;
	page = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, size);
	return page == MAP_FAILED ? NULL : page + where.offset;
}

/*
 * Maps the hardware's identifier, if the program may write to the device. The
 * descriptor for writing is closed again: children may inherit what stays open.
 */
static void find_hardware(void)
{
	const volatile struct sysgenid_word_ *expected = NULL, *found;
	size_t size = sysconf(_SC_PAGESIZE);
	int fd;

	if (!device || __atomic_load_n(&hardware, __ATOMIC_ACQUIRE) ||
	    !S_ISCHR(device->node.st_mode))
		return;
	fd = sysgenid_reopen_(device, O_RDWR);
	if (fd < 0)
		return;
	found = sysgenid_is_source_(device, fd) ? map_hardware(fd) : NULL;
	close(fd);
	if (!found)
		return;
	if (!__atomic_compare_exchange_n(&hardware, &expected, found, false,
					 __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
		munmap((void *)((uintptr_t)found & -size), size);
	else
		__atomic_add_fetch(&missing[1], 1, __ATOMIC_RELEASE);
}

static bool looked;

bool sysgenid_find_(void)
{
	bool has_device = find_device();
	int error = errno;
	bool has_vmclock = find_vmclock();

	find_hardware();
	__atomic_store_n(&looked, true, __ATOMIC_RELEASE);
	errno = error;
	return has_device || has_vmclock;
}

int sysgenid_open(void)
{
	if (sysgenid_find_())
		return 0;
	sysgenid_log_no_source_(device_path(), errno);
	return -1;
}

/*
 * Runs before main(), and before most other constructors. It logs nothing: many
 * programs have this library only because another library needs it.
 */
static void __attribute__((constructor(101))) open_early(void)
{
	int error = errno;

	sysgenid_find_();
	errno = error;
}

enum sysgenid_source sysgenid_get_source(void)
{
	if (sysgenid_device_())
		return SYSGENID_SOURCE_DEVICE;
	return sysgenid_vmclock_() ? SYSGENID_SOURCE_VMCLOCK : SYSGENID_SOURCE_NONE;
}

/*
 * After vmclock's word changes, the kernel reseeds at a moment that no interface
 * shows, unless vmgenid drives the device as well. Only the hardware's page proves
 * that it does.
 */
unsigned int sysgenid_get_properties(void)
{
	bool has_hardware = __atomic_load_n(&hardware, __ATOMIC_ACQUIRE);
	bool has_vmclock = sysgenid_vmclock_();
	unsigned int properties = 0;

	if (has_hardware || has_vmclock)
		properties |= SYSGENID_NEVER_STALE;
	if (has_hardware || (sysgenid_device_() && !has_vmclock))
		properties |= SYSGENID_KERNEL_RESEEDED;
	return properties;
}

/*
 * Loading
 */

/* Loads a whole word, also on 32-bit CPUs. */
static uint64_t load(const volatile void *word)
{
	uint64_t value = *(const volatile uint64_t *)word, again;

	while ((again = *(const volatile uint64_t *)word) != value)
		value = again;
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	return value;
}

uint64_t sysgenid_load_counter_(void)
{
	const struct source *source = sysgenid_device_();

	return source ? __atomic_load_n((const volatile __u32 *)source->page,
					__ATOMIC_ACQUIRE) : 0;
}

static const volatile uint64_t *vmclock_word(const struct source *source)
{
	return &((const volatile struct vmclock_page *)source->page)->generation;
}

uint64_t sysgenid_load_vmclock_(void)
{
	const struct source *source = sysgenid_vmclock_();

	return source ? le64toh(load(vmclock_word(source))) : 0;
}

uint64_t sysgenid_generation(void)
{
	return sysgenid_device_() ? sysgenid_load_counter_() :
				    sysgenid_load_vmclock_();
}

int sysgenid_barrier(uint64_t *generation)
{
	const struct source *source = sysgenid_device_();
	__u32 now;
	int fd, ret;

	*generation = sysgenid_generation();
	if (!source || !S_ISCHR(source->node.st_mode))
		return 0;

	fd = source->fd;
	if (!sysgenid_is_source_(source, fd))
		fd = sysgenid_reopen_(source, O_RDONLY);
	if (fd < 0)
		return -1;
	ret = ioctl(fd, SYSGENID_GET_GENERATION, &now);
	if (!ret)
		*generation = now;
	if (fd != source->fd)
		close(fd);
	return ret;
}

/* Call it before the pointers are loaded: a source found later changes its word. */
static void load_missing(uint64_t values[4])
{
	for (int i = 0; i < 4; i++)
		values[i] = __atomic_load_n(&missing[i], __ATOMIC_ACQUIRE);
}

/*
 * The slow path loads the identifiers before it queries the kernel, and the counter
 * after. So the kernel has handled everything that @now stores. The next check
 * finds changes in between.
 */
int sysgenid_look_(const struct sysgenid_seen *seen, struct sysgenid_seen *now)
{
	struct sysgenid_seen found = { .counter_ = NULL };
	const volatile struct sysgenid_word_ *id;
	const struct source *source;
	uint64_t generation;
	int error = errno;

	/* Any difference is a change; a later version may use @seen. */
	(void)seen;
	if (!__atomic_load_n(&looked, __ATOMIC_ACQUIRE))
		sysgenid_find_();
	load_missing(found.values_);

	id = __atomic_load_n(&hardware, __ATOMIC_ACQUIRE);
	found.hardware_ = id ? (const volatile void *)id : &missing[1];
	if (id) {
		found.values_[1] = id[0].value;
		found.values_[2] = id[1].value;
	}
	source = sysgenid_vmclock_();
	found.vmclock_ = source ? vmclock_word(source) : &missing[3];
	if (source)
		found.values_[3] = load(found.vmclock_);

	sysgenid_barrier(&generation);
	source = sysgenid_device_();
	found.counter_ = source ? source->page : &missing[0];
	if (source)
		found.values_[0] = load(found.counter_);
	if (now)
		*now = found;
	errno = error;
	return 1;
}
