// SPDX-License-Identifier: GPL-2.0
/*
 * Fuzzes /dev/sysgenid. Threads make short programs of its calls, with random and boundary
 * arguments. A program that reaches a new edge of the drivers, by KCOV, is kept for
 * mutation. Each result is checked, whatever the other threads and the host do meanwhile.
 *
 * usage: fuzz_device SEED CALLS EVERY
 * Prints "N calls, …" after each EVERY calls, and at the end "done", or the finding and
 * the program that caused it.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/capability.h>
#include <linux/kcov.h>
#include <linux/sysgenid.h>

#define DEVICE		"/dev/sysgenid"
#define SYSFS		"/sys/class/misc/sysgenid/"
#define THREADS		4
#define OWN		8	/* descriptors of each thread */
#define SHARED		2	/* descriptors that all threads share */
#define STEPS		12
#define CORPUS		4096
#define COVER		8192	/* code locations that KCOV records in one program */
#define EDGES		(1 << 16)
#define PAGE		4096
#define IDENTIFIER	16	/* size of the hardware's identifier, in bytes */
#define LONG_WAIT	600000	/* ms; a timer interrupts each call before */
#define INTERRUPT_NS	2000000
#define KERNEL_ADDRESS	((char *)0xffff888000000000)

/* One call; each call interprets its numbers. */
struct step {
	uint8_t call, slot;
	uint16_t choice;
	uint64_t argument;
};

struct program {
	int length;
	struct step steps[STEPS];
};

/*
 * A thread's model of an open file, which may have several descriptors. The
 * acknowledged generation is from @low to @high.
 */
struct file {
	int slots;
	int access;
	bool nonblock, tracked;
	uint32_t low, high;
};

enum { READ = 1, WRITE = 2 };

struct slot {
	int fd;
	struct file *file;	/* NULL: no model, as other threads use it too */
};

struct thread {
	pthread_t id;
	atomic_int tid;
	uint64_t random;
	struct slot slots[OWN];
	struct file files[OWN];
	char *map;		/* one mapped page of the device, or NULL */
	bool readable;		/* whether @map can be read */
	char *buffer;		/* below 4 GiB, followed by an inaccessible page */
	int pipe[2], epoll, shown[4];
	timer_t timer;
	uint32_t last;
	uint64_t *cover;
	struct program program;
};

static struct thread threads[THREADS];
static __thread struct thread *me;
static struct slot shared[SHARED];
static const struct slot none = { .fd = -1 };
static struct program corpus[CORPUS];
static atomic_int corpus_size;
static atomic_ulong edges[EDGES];
static atomic_ulong edges_seen, calls_done;
static unsigned long calls_wanted, report_every;
static const uint32_t *counter;

static const char *const attributes[] = { "generation", "watchers", "outdated", "source" };

static void print_program(void);

__attribute__((format(printf, 1, 2), noreturn))
static void broken(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	printf("found: ");
	vprintf(format, args);
	va_end(args);
	printf("\n");
	if (me)
		print_program();
	fflush(stdout);
	_exit(1);
}

static uint64_t any(uint64_t below)
{
	me->random ^= me->random << 13;
	me->random ^= me->random >> 7;
	me->random ^= me->random << 17;
	return me->random % below;
}

static uint64_t any_argument(void)
{
	static const uint64_t boundaries[] = {
		0, 1, 2, 3, 4, 5, 7, 8, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE,
		INT32_MAX, 1ULL << 31, SYSGENID_TRIGGER_MAX, SYSGENID_TRIGGER_MAX + 1ULL,
		UINT32_MAX, 1ULL << 32, (1ULL << 32) + 1, 1ULL << 40,
		INT64_MAX, 1ULL << 63, UINT64_MAX - 1, UINT64_MAX,
	};

	if (any(4))
		return boundaries[any(sizeof(boundaries) / sizeof(boundaries[0]))];
	return any(UINT64_MAX) >> any(64);
}

/* Returns the mapped generation, which must never decrease. */
static uint32_t now(void)
{
	uint32_t generation = __atomic_load_n(counter, __ATOMIC_ACQUIRE);

	if (generation < me->last)
		broken("the counter went from %u to %u", me->last, generation);
	me->last = generation;
	return generation;
}

static void check_between(const char *call, uint32_t before, uint32_t generation)
{
	if (generation < before || generation > now())
		broken("%s: generation %u, not %u to %u", call, generation, before, now());
}

/* Descriptors */

/* Checks that a call has succeeded, or failed with one of these errors. */
static void expect(const char *call, long ret, const int *errors)
{
	if (ret >= 0)
		return;
	for (; *errors; errors++)
		if (errno == *errors)
			return;
	broken("%s: %s", call, strerror(errno));
}

/* Checks this, and EBADF exactly if the descriptor is not open for that access. */
static void expect_access(const char *call, const struct slot *slot, int access, long ret,
			  const int *errors)
{
	bool refused = ret < 0 && errno == EBADF;

	if (slot->fd < 0 || (slot->file && (slot->file->access & access) != access)) {
		if (!refused)
			broken("%s: no EBADF, although the descriptor is not open for that", call);
	} else if (!refused) {
		expect(call, ret, errors);
	} else if (slot->file) {
		broken("%s: %s", call, strerror(errno));
	}
}

#define EXPECT(call, ret, ...) expect(call, ret, (const int[]){ __VA_ARGS__, 0 })
#define EXPECT_ACCESS(call, slot, access, ret, ...) \
	expect_access(call, slot, access, ret, (const int[]){ __VA_ARGS__, 0 })

/* Returns whether the file was outdated at that generation already. */
static bool was_outdated(const struct slot *slot, uint32_t before)
{
	return slot->file && slot->file->high < before;
}

static bool is_up_to_date(const struct slot *slot)
{
	return slot->file && slot->file->low == slot->file->high && slot->file->low == now();
}

static void set_acknowledged(struct slot *slot, uint32_t low, uint32_t high)
{
	if (slot->file) {
		slot->file->low = low;
		slot->file->high = high;
	}
}

static void close_slot(struct slot *slot)
{
	if (slot->fd < 0)
		return;
	close(slot->fd);
	slot->file->slots--;
	*slot = none;
}

static void open_slot(struct slot *slot, int flags)
{
	struct file *file = me->files;
	uint32_t before = now();

	slot->fd = open(DEVICE, flags | O_CLOEXEC);
	if (slot->fd < 0)
		broken("open: %s", strerror(errno));
	while (file->slots)
		file++;
	*file = (struct file){
		.slots = 1,
		.access = ((flags & O_ACCMODE) + 1) & (READ | WRITE),
		.nonblock = flags & O_NONBLOCK,
		.low = before,
		.high = now(),
	};
	slot->file = file;
}

/* Picks a descriptor, mostly one of the thread's own, and opens it if necessary. */
static struct slot *pick_slot(const struct step *step)
{
	static __thread struct slot closed = { .fd = -1 };
	struct slot *slot = &me->slots[step->slot % OWN];

	switch (step->slot / OWN % 8) {
	case 0:
		return step->slot % 4 ? slot : &closed;
	case 1:
	case 2:
		return &shared[step->slot % SHARED];
	}
	if (slot->fd < 0)
		open_slot(slot, O_RDWR | O_NONBLOCK);
	return slot;
}

/* Picks a buffer, mostly a writable one. */
static void *pick_buffer(const struct step *step)
{
	switch (step->choice % 16) {
	case 0:
		return NULL;
	case 1:
		return (void *)counter;
	case 2:
		return me->map;
	case 3:
		return KERNEL_ADDRESS;
	case 4:
		return me->buffer + PAGE - 2;
	case 5:
		return me->buffer + 1;
	}
	return me->buffer;
}

static bool is_good(const void *buffer)
{
	return buffer == me->buffer || buffer == me->buffer + 1;
}

/* Starts a timer that interrupts this thread's calls at that interval, in ns; 0: stops it. */
static void set_interrupts(long interval)
{
	struct itimerspec spec = {
		.it_value.tv_nsec = interval,
		.it_interval.tv_nsec = interval,
	};
	int error = errno;

	timer_settime(me->timer, 0, &spec, NULL);
	errno = error;
}

/* The calls */

static void do_open(const struct step *step)
{
	static const int flags[] = {
		O_RDONLY, O_RDWR, O_RDWR, O_RDWR, O_RDWR, O_WRONLY, O_RDWR | O_APPEND,
		O_RDWR | O_TRUNC | O_CREAT, O_ACCMODE,
	};
	struct slot *slot = &me->slots[step->slot % OWN];

	close_slot(slot);
	open_slot(slot, flags[step->choice % 9] | (step->choice >> 8 & 15 ? O_NONBLOCK : 0));
}

static void do_close(const struct step *step)
{
	struct slot *slot = &me->slots[step->slot % OWN];

	if (slot->fd < 0)
		return do_open(step);
	close_slot(slot);
}

static void do_dup(const struct step *step)
{
	struct slot *from = &me->slots[step->slot % OWN], *to = &me->slots[step->choice % OWN];

	if (from == to || from->fd < 0)
		return do_open(step);
	close_slot(to);
	to->fd = step->choice & 16 ? fcntl(from->fd, F_DUPFD_CLOEXEC, 0) : dup(from->fd);
	if (to->fd < 0)
		broken("dup: %s", strerror(errno));
	to->file = from->file;
	to->file->slots++;
}

/* Replaces the open file of a shared descriptor, which other threads may be using. */
static void do_replace(const struct step *step)
{
	static const int modes[] = { O_RDWR, O_RDWR, O_RDONLY, O_WRONLY };
	int fd = open(DEVICE, modes[step->choice % 4] | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		broken("open: %s", strerror(errno));
	EXPECT("dup3", dup3(fd, shared[step->slot % SHARED].fd, O_CLOEXEC), EBUSY);
	close(fd);
}

static void check_read(const struct slot *slot, const char *buffer, size_t size, long ret,
		       uint32_t before)
{
	uint32_t got;

	if (ret > 0 ? ret != sizeof(got) || size < sizeof(got) : !ret && size)
		broken("read of %zu bytes gave %ld", size, ret);
	if (ret == sizeof(got) && is_good(buffer)) {
		memcpy(&got, buffer, sizeof(got));
		check_between("read", before, got);
		if (is_up_to_date(slot))
			broken("read: %u without a new generation", got);
	}
	if (ret >= 0)
		return;
	if (errno == EINVAL && size >= sizeof(got) && size <= INT64_MAX)
		broken("read of %zu bytes: EINVAL", size);
	if (errno == EFAULT && is_good(buffer) && size <= PAGE)
		broken("read: EFAULT");
	if (errno == EAGAIN && was_outdated(slot, before))
		broken("read: EAGAIN, although there is a new generation");
	if (slot->file && errno == (slot->file->nonblock ? EINTR : EAGAIN))
		broken("read: %s", strerror(errno));
}

static void do_read(const struct step *step)
{
	struct slot *slot = pick_slot(step);
	bool sleeps = slot->file && !slot->file->nonblock;
	char *buffer = pick_buffer(step);
	uint32_t before = now();
	long ret;

	if (sleeps)
		set_interrupts(INTERRUPT_NS);
	ret = read(slot->fd, buffer, step->argument);
	if (sleeps)
		set_interrupts(0);
	EXPECT_ACCESS("read", slot, READ, ret, EAGAIN, EINVAL, EFAULT, EINTR);
	check_read(slot, buffer, step->argument, ret, before);
}

static void do_acknowledge(const struct step *step)
{
	struct slot *slot = pick_slot(step);
	uint32_t before = now(), generation = before;
	long ret;

	if (step->choice % 4 == 1)
		generation = step->argument;
	else if (step->choice % 4 == 2)
		generation += step->argument % 8 - 4;
	memcpy(me->buffer, &generation, sizeof(generation));
	ret = write(slot->fd, me->buffer, sizeof(generation));
	EXPECT_ACCESS("write", slot, WRITE, ret, EINVAL);
	if (ret > 0) {
		check_between("write", before, generation);
		set_acknowledged(slot, generation, generation);
	} else if (errno == EINVAL && generation == before && before == now()) {
		broken("write: EINVAL, although %u is the generation", generation);
	}
}

static void do_write(const struct step *step)
{
	struct slot *slot = pick_slot(step);
	uint32_t before = now();
	long ret = write(slot->fd, pick_buffer(step), step->argument);

	EXPECT_ACCESS("write", slot, WRITE, ret, ENOBUFS, EINVAL, EFAULT);
	if (ret >= 0) {
		if (ret != 4 || step->argument != 4)
			broken("write of %lu bytes took %ld", step->argument, ret);
		set_acknowledged(slot, before, now());
	}
}

static void check_poll(const char *call, const struct slot *slot, bool ready, uint32_t before)
{
	if (ready ? is_up_to_date(slot) : was_outdated(slot, before))
		broken("%s: %s", call, ready ? "ready" : "not ready");
}

static void do_poll(const struct step *step)
{
	struct slot *slot = pick_slot(step);
	struct pollfd entry = { .fd = slot->fd, .events = step->choice | POLLIN };
	uint32_t before = now();
	long ret = poll(&entry, 1, step->choice % 64 == 1);

	EXPECT("poll", ret, EINTR);
	if (ret < 0 || slot->fd < 0)
		return;
	if (entry.revents & ~(POLLIN | POLLRDNORM))
		broken("poll: events %#x", entry.revents);
	check_poll("poll", slot, entry.revents & POLLIN, before);
}

/* The device has no vectored calls, so each part is a call of its own. */
static void do_vector(const struct step *step)
{
	struct slot *slot = pick_slot(step);
	struct iovec parts[2] = {
		{ pick_buffer(step), step->argument % 9 },
		{ me->buffer + 16, step->choice >> 8 & 7 },
	};
	uint32_t before = now();
	long ret;

	if (slot->file && !slot->file->nonblock)
		return do_poll(step);
	if (step->choice & 64) {
		ret = readv(slot->fd, parts, 2);
		EXPECT_ACCESS("readv", slot, READ, ret, EAGAIN, EINVAL, EFAULT);
	} else {
		ret = writev(slot->fd, parts, 2);
		EXPECT_ACCESS("writev", slot, WRITE, ret, ENOBUFS, EINVAL, EFAULT);
		if (ret > 0)
			set_acknowledged(slot, before, now());
	}
	if (ret > 8 || (ret > 0 && ret % 4))
		broken("a vector of %ld bytes", ret);
}

static void do_select(const struct step *step)
{
	struct slot *slot = pick_slot(step);
	struct timeval none_at_all = { 0 };
	uint32_t before = now();
	fd_set in;
	long ret;

	if (slot->fd < 0)
		return do_poll(step);
	FD_ZERO(&in);
	FD_SET(slot->fd, &in);
	ret = select(slot->fd + 1, &in, step->choice & 1 ? &in : NULL, NULL, &none_at_all);
	EXPECT("select", ret, EINTR);
	if (ret >= 0 && !(step->choice & 1))
		check_poll("select", slot, FD_ISSET(slot->fd, &in), before);
}

static void do_epoll(const struct step *step)
{
	static const int actions[] = { EPOLL_CTL_ADD, EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL };
	static const unsigned int flags[] = {
		0, EPOLLIN, EPOLLIN | EPOLLET, EPOLLIN | EPOLLONESHOT, EPOLLIN | EPOLLEXCLUSIVE,
	};
	struct epoll_event event = { .events = flags[step->choice / 4 % 5] };
	struct slot *slot = pick_slot(step);

	EXPECT("epoll_ctl", epoll_ctl(me->epoll, actions[step->choice % 4], slot->fd, &event),
	       EEXIST, ENOENT, EINVAL, EBADF);
	EXPECT("epoll_wait", epoll_wait(me->epoll, &event, 1, step->choice % 64 == 1), EINTR);
}

static void do_track(const struct step *step)
{
	struct slot *slot = pick_slot(step);
	long ret = ioctl(slot->fd, SYSGENID_SET_WATCHER_TRACKING, step->argument);

	EXPECT_ACCESS("SET_WATCHER_TRACKING", slot, WRITE, ret, 0);
	if (!ret && slot->file)
		slot->file->tracked = step->argument;
}

static void do_wait(const struct step *step)
{
	struct slot *slot = pick_slot(step);
	uint64_t ms = step->choice % 8 ? 1 : step->argument;
	uint32_t before = now();
	long ret;

	if (ms != 1)
		set_interrupts(INTERRUPT_NS);
	ret = ioctl(slot->fd, SYSGENID_WAIT_WATCHERS, ms);
	if (ms != 1)
		set_interrupts(0);
	EXPECT_ACCESS("WAIT_WATCHERS", slot, 0, ret, ETIME, EINTR);
	if (was_outdated(slot, before) && (!ret || errno != EINTR))
		broken("WAIT_WATCHERS: no EINTR, although the caller is outdated");
	if (ret < 0 && errno == ETIME && (!ms || ms > LONG_WAIT))
		broken("WAIT_WATCHERS: ETIME after %lu ms", ms);
}

static void do_get(const struct step *step)
{
	struct slot *slot = pick_slot(step);
	void *buffer = pick_buffer(step);
	uint32_t before = now(), got;
	long ret = ioctl(slot->fd, SYSGENID_GET_GENERATION, buffer);

	EXPECT_ACCESS("GET_GENERATION", slot, 0, ret, EFAULT);
	if (!ret && !is_good(buffer))
		broken("GET_GENERATION: written to %p", buffer);
	if (ret < 0 && errno == EFAULT && is_good(buffer))
		broken("GET_GENERATION: EFAULT");
	if (!ret) {
		memcpy(&got, buffer, sizeof(got));
		check_between("GET_GENERATION", before, got);
	}
}

static void check_hardware(const char *call, const void *from)
{
	struct sysgenid_hardware where;

	memcpy(&where, from, sizeof(where));
	if (where.size != IDENTIFIER || where.offset > PAGE - IDENTIFIER)
		broken("%s: %u bytes at %u", call, where.size, where.offset);
}

static void do_hardware(const struct step *step)
{
	struct slot *slot = pick_slot(step);
	void *buffer = pick_buffer(step);
	long ret = ioctl(slot->fd, SYSGENID_GET_HARDWARE, buffer);

	EXPECT_ACCESS("GET_HARDWARE", slot, 0, ret, EFAULT);
	if (!ret && !is_good(buffer))
		broken("GET_HARDWARE: written to %p", buffer);
	if (ret < 0 && errno == EFAULT && is_good(buffer))
		broken("GET_HARDWARE: EFAULT");
	if (!ret)
		check_hardware("GET_HARDWARE", buffer);
}

/*
 * Triggers the next generation, or one soon after. Only the last fifth of the calls may use
 * up the range. Most calls trigger nothing, as each generation is a uevent to send.
 */
static void do_trigger(const struct step *step)
{
	struct slot *slot = pick_slot(step);
	uint64_t least = step->argument;
	uint32_t before = now();
	long ret;

	if (step->choice & 48)
		return do_get(step);
	if (least <= SYSGENID_TRIGGER_MAX && calls_done < calls_wanted / 5 * 4)
		least = step->choice % 2 ? before + step->choice % 8 : 0;
	ret = ioctl(slot->fd, SYSGENID_TRIGGER_GEN_UPDATE, least);
	EXPECT_ACCESS("TRIGGER_GEN_UPDATE", slot, 0, ret, EINVAL, EOVERFLOW);
	if (!ret && (least > SYSGENID_TRIGGER_MAX || now() <= before || now() < least))
		broken("TRIGGER_GEN_UPDATE to %lu: from %u to %u", least, before, now());
	if (ret < 0 && errno == EINVAL && least <= SYSGENID_TRIGGER_MAX)
		broken("TRIGGER_GEN_UPDATE to %lu: EINVAL", least);
	if (ret < 0 && errno == EOVERFLOW && now() < SYSGENID_TRIGGER_MAX)
		broken("TRIGGER_GEN_UPDATE: EOVERFLOW at %u", now());
}

static void set_capabilities(const struct __user_cap_data_struct *data)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };

	if (syscall(SYS_capset, &header, data))
		err(1, "capset");
}

static void do_unprivileged_trigger(const struct step *step)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct all[2], fewer[2] = { 0 };
	struct slot *slot = pick_slot(step);
	long ret;

	if (step->choice % 8)
		return do_get(step);
	if (syscall(SYS_capget, &header, all))
		err(1, "capget");
	for (int i = 0; i < 2; i++)
		fewer[i].permitted = all[i].permitted;
	set_capabilities(fewer);
	ret = ioctl(slot->fd, SYSGENID_TRIGGER_GEN_UPDATE, step->argument);
	if (!ret || (errno != EACCES && errno != EBADF))
		broken("TRIGGER_GEN_UPDATE without a capability: %s",
		       ret ? strerror(errno) : "done");
	set_capabilities(all);
}

/* Tries ioctl numbers near the valid ones. */
static void do_other_ioctl(const struct step *step)
{
	unsigned int command = _IOC(step->choice >> 8 & 3, SYSGENID_IOCTL, step->choice % 8,
				    step->choice & 128 ? 4 : step->argument & _IOC_SIZEMASK);

	switch (command) {
	case SYSGENID_SET_WATCHER_TRACKING:
	case SYSGENID_WAIT_WATCHERS:
	case SYSGENID_TRIGGER_GEN_UPDATE:
	case SYSGENID_GET_GENERATION:
	case SYSGENID_GET_HARDWARE:
		return do_get(step);
	}
	if (!ioctl(pick_slot(step)->fd, command, step->argument) ||
	    (errno != ENOTTY && errno != EBADF))
		broken("ioctl %#x: %s", command, strerror(errno));
}

/* Makes an ioctl by the kernel's entry for 32-bit programs. */
static long compat_ioctl(int fd, unsigned int command, uint32_t argument)
{
	long ret;

	asm volatile("int $0x80" : "=a"(ret)
		     : "a"(54), "b"((long)fd), "c"((long)command), "d"((long)argument)
		     : "memory", "r8", "r9", "r10", "r11");
	errno = (int)ret < 0 ? -(int)ret : 0;
	return errno ? -1 : 0;
}

static void do_compat_ioctl(const struct step *step)
{
	struct slot *slot = pick_slot(step);
	uint32_t before = now(), got, argument = step->argument;
	long ret;

	switch (step->choice % 16) {
	case 0:
	case 1:
		ret = compat_ioctl(slot->fd, SYSGENID_SET_WATCHER_TRACKING, argument);
		EXPECT_ACCESS("compat SET_WATCHER_TRACKING", slot, WRITE, ret, 0);
		if (!ret && slot->file)
			slot->file->tracked = argument;
		return;
	case 2:
		ret = compat_ioctl(slot->fd, SYSGENID_WAIT_WATCHERS, 1);
		EXPECT_ACCESS("compat WAIT_WATCHERS", slot, 0, ret, ETIME, EINTR);
		return;
	case 3:
	case 4:
		ret = compat_ioctl(slot->fd, SYSGENID_GET_GENERATION + 1, argument);
		EXPECT_ACCESS("compat ioctl", slot, 0, ret, ENOTTY);
		return;
	case 5:
		ret = compat_ioctl(slot->fd, SYSGENID_TRIGGER_GEN_UPDATE, 0);
		EXPECT_ACCESS("compat TRIGGER_GEN_UPDATE", slot, 0, ret, EOVERFLOW);
		return;
	case 6:
		ret = compat_ioctl(slot->fd, SYSGENID_GET_HARDWARE, (uintptr_t)me->buffer);
		EXPECT_ACCESS("compat GET_HARDWARE", slot, 0, ret, 0);
		if (!ret)
			check_hardware("compat GET_HARDWARE", me->buffer);
		return;
	}
	ret = compat_ioctl(slot->fd, SYSGENID_GET_GENERATION, (uintptr_t)me->buffer);
	EXPECT_ACCESS("compat GET_GENERATION", slot, 0, ret, 0);
	if (!ret) {
		memcpy(&got, me->buffer, sizeof(got));
		check_between("compat GET_GENERATION", before, got);
	}
}

static void unmap(void)
{
	if (me->map)
		munmap(me->map, PAGE);
	me->map = NULL;
}

static void do_map(const struct step *step)
{
	static const int protections[] = {
		PROT_READ, PROT_READ, PROT_NONE, PROT_READ | PROT_EXEC, PROT_READ | PROT_WRITE,
	};
	static const int flags[] = {
		MAP_SHARED, MAP_PRIVATE, MAP_SHARED | MAP_POPULATE, MAP_SHARED_VALIDATE,
	};
	static const size_t lengths[] = { PAGE, PAGE, PAGE, 1, 2 * PAGE, 0, 1UL << 40, SIZE_MAX };
	int protection = protections[step->choice % 5];
	size_t length = lengths[step->choice / 8 % 8];
	off_t offset = step->choice & 1024 ? (off_t)(step->argument & ~(PAGE - 1ULL)) : 0;
	int access = offset ? READ | WRITE : READ, flag = flags[step->choice / 64 % 4];
	struct slot *slot = pick_slot(step);
	char *map = mmap(NULL, length, protection, flag, slot->fd, offset);

	if (map == MAP_FAILED)
		return EXPECT("mmap", -1, EINVAL, EPERM, EACCES, EBADF, ENOMEM, EOVERFLOW);
	if ((offset && (offset != PAGE || flag == MAP_PRIVATE)) ||
	    (length != PAGE && length != 1) || protection & PROT_WRITE ||
	    (slot->file && (slot->file->access & access) != access))
		broken("mmap: %zu bytes from %ld on, protection %d", length, offset, protection);
	if (offset) {	/* the model does not cover the hardware's page */
		munmap(map, PAGE);
		return;
	}
	unmap();
	me->map = map;
	me->readable = protection & PROT_READ;
}

/* Moves the mapping, and checks that it cannot be grown or duplicated. */
static void move_map(void)
{
	char *to = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (mremap(me->map, PAGE, 2 * PAGE, MREMAP_MAYMOVE) != MAP_FAILED ||
	    mremap(me->map, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP) != MAP_FAILED)
		broken("mremap returned more than one page");
	if (to == MAP_FAILED)
		err(1, "mmap");
	me->map = mremap(me->map, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to);
	if (me->map != to)
		broken("mremap: %s", strerror(errno));
}

/* The kernel reads the mapping, so that an unreadable page is an error, not a signal. */
static bool load(const char *from, uint32_t *generation)
{
	if (write(me->pipe[1], from, sizeof(*generation)) != sizeof(*generation))
		return false;
	if (read(me->pipe[0], generation, sizeof(*generation)) != sizeof(*generation))
		broken("a pipe lost its data");
	return true;
}

static void do_load(const struct step *step)
{
	uint32_t before = now(), generation;

	if (!me->map)
		return do_map(step);
	if (load(me->map, &generation) != me->readable)
		broken("the mapping: %s", me->readable ? "can't be read" : "can be read");
	if (!me->readable)
		return;
	check_between("the mapping", before, generation);
	if (!load(me->map + 4 + step->argument % (PAGE - 8), &generation) || generation)
		broken("the mapping: not zero after the counter");
}

static void do_change_map(const struct step *step)
{
	if (!me->map)
		return do_map(step);
	switch (step->choice % 16) {
	case 0:
		if (!mprotect(me->map, PAGE, PROT_READ | PROT_WRITE) || errno != EACCES)
			broken("mprotect to write: %s", strerror(errno));
		break;
	case 1:
		me->readable = step->choice & 16;
		EXPECT("mprotect",
		       mprotect(me->map, PAGE, me->readable ? PROT_READ : PROT_NONE), 0);
		break;
	case 2:
		EXPECT("DONTNEED", madvise(me->map, PAGE, MADV_DONTNEED), 0);
		break;
	case 3:
		EXPECT("madvise", madvise(me->map, PAGE, step->choice >> 4 & 31),
		       EINVAL, EACCES, EPERM, EBADF, EIO, EFAULT, ENOMEM, EAGAIN, EBUSY, EINTR);
		break;
	case 4:
		EXPECT("msync", msync(me->map, PAGE, MS_SYNC), EINVAL);
		EXPECT("mlock", mlock(me->map, PAGE), ENOMEM);
		EXPECT("munlock", munlock(me->map, PAGE), 0);
		break;
	case 5:
		move_map();
		break;
	case 6:
		unmap();
		break;
	default:
		do_load(step);
	}
}

static void do_other(const struct step *step)
{
	struct slot *slot = pick_slot(step);
	int fd = slot->fd;

	switch (step->choice % 8) {
	case 0:
		EXPECT("lseek", lseek(fd, step->argument, step->choice >> 4 & 3),
		       ESPIPE, EBADF, EINVAL);
		break;
	case 1:
		EXPECT("pread", pread(fd, me->buffer, 4, step->argument), ESPIPE, EBADF, EINVAL);
		break;
	case 2:
		EXPECT("pwrite", pwrite(fd, me->buffer, 4, step->argument), ESPIPE, EBADF, EINVAL);
		break;
	case 3:
		EXPECT("splice", splice(fd, NULL, me->pipe[1], NULL, 4, SPLICE_F_NONBLOCK),
		       EINVAL, EBADF);
		break;
	case 4:
		EXPECT("sendfile", sendfile(me->pipe[1], fd, NULL, 4), EINVAL, EBADF, ESPIPE);
		break;
	case 5:
		EXPECT("ftruncate", ftruncate(fd, step->argument), EINVAL, EBADF);
		EXPECT("fsync", fsync(fd), EINVAL, EBADF);
		break;
	case 6:
		EXPECT("fallocate", fallocate(fd, 0, 0, step->argument),
		       ENODEV, EINVAL, EBADF, EFBIG, ESPIPE);
		break;
	default:
		if (!slot->file)
			return do_poll(step);
		slot->file->nonblock = step->choice & 0xf0;
		EXPECT("F_SETFL", fcntl(fd, F_SETFL, slot->file->nonblock ? O_NONBLOCK : 0), 0);
	}
}

static void do_show(const struct step *step)
{
	int which = step->choice % 4;
	uint32_t before = now();
	char text[64] = "";

	if (pread(me->shown[which], text, sizeof(text) - 1, 0) < 2)
		broken("%s: %s", attributes[which], strerror(errno));
	if (!which)
		check_between("sysfs", before, strtoul(text, NULL, 10));
}

static void do_fdinfo(const struct step *step)
{
	struct slot *slot = pick_slot(step);
	char path[64], text[512] = "";
	uint32_t acknowledged;
	const char *ours;
	int fd, tracked;

	if (!slot->file || step->choice % 16)
		return do_show(step);
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", slot->fd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
		broken("%s: %s", path, strerror(errno));
	close(fd);
	ours = strstr(text, "sysgenid-acknowledged:");
	if (!ours || sscanf(ours, "sysgenid-acknowledged: %u sysgenid-tracked: %d",
			    &acknowledged, &tracked) != 2)
		broken("%s: %s", path, text);
	if (acknowledged < slot->file->low || acknowledged > slot->file->high ||
	    tracked != slot->file->tracked)
		broken("%s: acknowledged %u, not %u to %u; tracked %d, not %d", path, acknowledged,
		       slot->file->low, slot->file->high, tracked, slot->file->tracked);
}

/* Uses the inherited descriptors and mapping, and dies with a tracked watcher. */
static void be_child(void)
{
	uint32_t generation, before = now();
	int fd = open(DEVICE, O_RDWR | O_NONBLOCK);

	if (fd < 0 || ioctl(fd, SYSGENID_SET_WATCHER_TRACKING, 1))
		broken("in a child: %s", strerror(errno));
	for (int i = 0; i < OWN; i++)
		if (me->slots[i].file && me->slots[i].file->nonblock)
			EXPECT("read in a child", read(me->slots[i].fd, me->buffer, 4),
			       EAGAIN, EBADF);
	if (me->map && me->readable && load(me->map, &generation))
		check_between("the mapping in a child", before, generation);
	kill(getpid(), SIGKILL);
}

static void do_fork(const struct step *step)
{
	int status;
	pid_t pid;

	if (step->choice % 64)
		return do_track(step);
	pid = fork();
	if (!pid)
		be_child();
	if (pid < 0)
		err(1, "fork");
	while (waitpid(pid, &status, 0) < 0)
		;
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		broken("a child ended with %#x", status);
}

/* SIGUSR1 interrupts a call; SIGUSR2 restarts it. */
static void do_signal(const struct step *step)
{
	pid_t tid = atomic_load(&threads[step->choice % THREADS].tid);

	if (tid)
		syscall(SYS_tgkill, getpid(), tid, step->choice & 64 ? SIGUSR1 : SIGUSR2);
}

static const struct {
	const char *name;
	void (*run)(const struct step *step);
	int weight;
} calls[] = {
	{ "open", do_open, 2 },
	{ "close", do_close, 2 },
	{ "dup", do_dup, 2 },
	{ "replace", do_replace, 1 },
	{ "read", do_read, 8 },
	{ "acknowledge", do_acknowledge, 12 },
	{ "write", do_write, 4 },
	{ "vector", do_vector, 4 },
	{ "poll", do_poll, 6 },
	{ "select", do_select, 3 },
	{ "epoll", do_epoll, 4 },
	{ "track", do_track, 8 },
	{ "wait", do_wait, 3 },
	{ "trigger", do_trigger, 2 },
	{ "unprivileged trigger", do_unprivileged_trigger, 1 },
	{ "get", do_get, 6 },
	{ "hardware", do_hardware, 2 },
	{ "other ioctl", do_other_ioctl, 3 },
	{ "compat ioctl", do_compat_ioctl, 4 },
	{ "map", do_map, 2 },
	{ "change map", do_change_map, 3 },
	{ "load", do_load, 4 },
	{ "other", do_other, 4 },
	{ "show", do_show, 4 },
	{ "fdinfo", do_fdinfo, 1 },
	{ "fork", do_fork, 1 },
	{ "signal", do_signal, 1 },
};

#define CALLS ((int)(sizeof(calls) / sizeof(calls[0])))

/* Programs */

static void print_program(void)
{
	for (int i = 0; i < me->program.length; i++) {
		const struct step *step = &me->program.steps[i];

		printf("  %s: slot %u, choice %#x, argument %#lx\n", calls[step->call].name,
		       step->slot, step->choice, step->argument);
	}
}

static int any_call(void)
{
	static int total;
	int i, weight;

	if (!total)
		for (i = 0; i < CALLS; i++)
			total += calls[i].weight;
	weight = any(total);
	for (i = 0; weight >= calls[i].weight; i++)
		weight -= calls[i].weight;
	return i;
}

static struct step any_step(void)
{
	return (struct step){ any_call(), any(256), any(65536), any_argument() };
}

/* Returns a mutated program of the corpus, or a new one. */
static struct program any_program(void)
{
	struct program program = { 0 };
	int size = atomic_load(&corpus_size);

	if (size && any(8))
		program = corpus[any(size)];
	while (!program.length || (program.length < STEPS && any(3)))
		program.steps[program.length++] = any_step();
	program.steps[any(program.length)] = any_step();
	if (any(2))
		program.steps[any(program.length)].argument = any_argument();
	if (any(2))
		program.steps[any(program.length)].slot = any(256);
	return program;
}

/* Records an edge; returns whether no thread has taken it before. */
static bool is_new_edge(uint64_t from, uint64_t to)
{
	uint64_t edge = (to ^ from << 21 ^ from >> 43) | 1;
	size_t slot = edge * 0x9E3779B97F4A7C15ULL >> 48;

	for (;; slot = (slot + 1) % EDGES) {
		unsigned long found = atomic_load_explicit(&edges[slot], memory_order_relaxed);

		if (found == edge)
			return false;
		if (!found && atomic_compare_exchange_strong(&edges[slot], &found, edge)) {
			if (atomic_fetch_add(&edges_seen, 1) > EDGES / 2)
				errx(1, "too many edges: raise EDGES");
			return true;
		}
		if (found == edge)
			return false;
	}
}

static bool found_new_edge(void)
{
	uint64_t count = __atomic_load_n(me->cover, __ATOMIC_RELAXED);
	bool found = false;

	for (uint64_t i = 2; i <= count; i++)
		found |= is_new_edge(me->cover[i - 1], me->cover[i]);
	return found;
}

static void keep_program(void)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	int size;

	pthread_mutex_lock(&lock);
	size = atomic_load(&corpus_size);
	if (size < CORPUS) {
		corpus[size] = me->program;
		atomic_store(&corpus_size, size + 1);
	}
	pthread_mutex_unlock(&lock);
}

static void run_program(void)
{
	__atomic_store_n(me->cover, 0, __ATOMIC_RELAXED);
	for (int i = 0; i < me->program.length; i++) {
		calls[me->program.steps[i].call].run(&me->program.steps[i]);
		now();
	}
	if (found_new_edge())
		keep_program();
}

/* Threads */

static void report(unsigned long done)
{
	printf("%lu calls, %lu edges, %d programs, generation %u\n", done,
	       atomic_load(&edges_seen), atomic_load(&corpus_size), *counter);
	fflush(stdout);
}

static void start_kcov(void)
{
	int kcov = open("/sys/kernel/debug/kcov", O_RDWR | O_CLOEXEC);

	if (kcov < 0 || ioctl(kcov, KCOV_INIT_TRACE, COVER))
		err(1, "this kernel has no KCOV: /sys/kernel/debug/kcov");
	me->cover = mmap(NULL, COVER * sizeof(*me->cover), PROT_READ | PROT_WRITE, MAP_SHARED,
			 kcov, 0);
	if (me->cover == MAP_FAILED || ioctl(kcov, KCOV_ENABLE, KCOV_TRACE_PC))
		err(1, "KCOV");
}

static void prepare_thread(void)
{
	struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1 };
	char path[64];

	event._sigev_un._tid = gettid();
	if (timer_create(CLOCK_MONOTONIC, &event, &me->timer))
		err(1, "timer_create");
	me->buffer = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	if (me->buffer == MAP_FAILED || mprotect(me->buffer + PAGE, PAGE, PROT_NONE))
		err(1, "mmap");
	me->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (me->epoll < 0 || pipe2(me->pipe, O_NONBLOCK | O_CLOEXEC))
		err(1, "epoll and pipe");
	for (int i = 0; i < 4; i++) {
		snprintf(path, sizeof(path), SYSFS "%s", attributes[i]);
		me->shown[i] = open(path, O_RDONLY | O_CLOEXEC);
		if (me->shown[i] < 0)
			err(1, "%s", path);
	}
	for (int i = 0; i < OWN; i++)
		me->slots[i] = none;
	start_kcov();
	atomic_store(&me->tid, gettid());
}

static void *fuzz(void *thread)
{
	me = thread;
	prepare_thread();
	while (atomic_load(&calls_done) < calls_wanted) {
		unsigned long before, after;

		me->program = any_program();
		run_program();
		before = atomic_fetch_add(&calls_done, me->program.length);
		after = before + me->program.length;
		if (before / report_every != after / report_every)
			report(after);
	}
	atomic_store(&me->tid, 0);
	for (int i = 0; i < OWN; i++)
		close_slot(&me->slots[i]);
	unmap();
	return NULL;
}

/* Checks that no watcher is left after all descriptors are closed. */
static void check_nothing_left(void)
{
	char text[16] = "";

	for (int i = 0; i < SHARED; i++)
		close(shared[i].fd);
	for (int i = 1; i < 3; i++)
		if (pread(threads[0].shown[i], text, sizeof(text) - 1, 0) < 2 ||
		    strcmp(text, "0\n"))
			broken("%s at the end: %s", attributes[i], text);
}

static void nothing(int number)
{
	(void)number;
}

int main(int argc, char **argv)
{
	struct sigaction interrupt = { .sa_handler = nothing };
	struct sigaction restart = { .sa_handler = nothing, .sa_flags = SA_RESTART };
	unsigned long long seed;
	int device;

	if (argc != 4)
		errx(2, "usage: fuzz_device SEED CALLS EVERY");
	calls_wanted = strtoul(argv[2], NULL, 0);
	report_every = strtoul(argv[3], NULL, 0);
	device = open(DEVICE, O_RDONLY | O_CLOEXEC);
	counter = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, device, 0);
	if (counter == MAP_FAILED)
		err(1, DEVICE);
	for (int i = 0; i < SHARED; i++)
		shared[i].fd = open(DEVICE, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	sigaction(SIGUSR1, &interrupt, NULL);
	sigaction(SIGUSR2, &restart, NULL);
	seed = strtoull(argv[1], NULL, 0);
	for (int i = 0; i < THREADS; i++) {
		threads[i].random = (seed * THREADS + i + 1) * 0x9E3779B97F4A7C15ULL;
		if (pthread_create(&threads[i].id, NULL, fuzz, &threads[i]))
			errx(1, "can't start a thread");
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i].id, NULL);
	report(atomic_load(&calls_done));
	check_nothing_left();
	printf("done\n");
	return 0;
}
