// SPDX-License-Identifier: MIT
/*
 * A watcher has an epoll instance, whose descriptor stays the same. The instance
 * holds one descriptor for each source, and an eventfd.
 *
 * The sources are edge-triggered and never read. So a watcher needs no write
 * permission, and opens nothing after it was created. The eventfd keeps the
 * instance readable until the generation is acknowledged.
 */
#define _GNU_SOURCE
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/ioctl.h>
#include <linux/types.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <linux/sysgenid.h>

#include "clock.h"
#include "source.h"
#include "vmclock.h"

/* Interval at which a source without notifications is checked, in seconds. */
#define LOOK_EVERY	1

/* The data of the events that epoll_wait() reports */
enum { PENDING, DEVICE, VMCLOCK };

/**
 * struct moment - the generation of all sources at one moment
 * @counter: number of the device
 * @vmclock: number of vmclock
 */
struct moment {
	uint64_t counter;
	uint64_t vmclock;
};

/**
 * struct sysgenid_watcher - a watcher
 * @loop: the epoll instance
 * @pending: an eventfd that is always readable; in @loop with EPOLLIN or 0
 * @device: descriptor of the device, or of a timer; -1: none
 * @vmclock: descriptor of vmclock, or of a timer; -1: none
 * @flags: as given to sysgenid_watcher_new()
 * @process: sysgenid_process_() of the process that this watcher belongs to
 * @acked: the generation last acknowledged
 * @reported: the generation that sysgenid_watcher_wait() last reported
 */
struct sysgenid_watcher {
	int loop;
	int pending;
	int device;
	int vmclock;
	unsigned int flags;
	uint64_t process;
	struct moment acked;
	struct moment reported;
};

static int new_loop(void)
{
	return sysgenid_above_stdio_(epoll_create1(EPOLL_CLOEXEC));
}

static int new_timer(void)
{
	struct itimerspec every = {
		.it_interval.tv_sec = LOOK_EVERY,
		.it_value.tv_sec = LOOK_EVERY,
	};
	int fd = sysgenid_above_stdio_(timerfd_create(CLOCK_MONOTONIC,
						TFD_CLOEXEC | TFD_NONBLOCK));

	if (fd >= 0 && timerfd_settime(fd, 0, &every, NULL)) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static int add(int loop, int fd, uint32_t events, int kind)
{
	struct epoll_event event = { .events = events, .data.u32 = kind };

	return epoll_ctl(loop, EPOLL_CTL_ADD, fd, &event);
}

static int new_device(const struct source *source, unsigned int flags)
{
	int fd;

	if (!S_ISCHR(source->node.st_mode))
		return new_timer();
	if (!(flags & SYSGENID_TRACKED))
		return sysgenid_dup_source_(source);
	fd = sysgenid_reopen_(source, O_RDWR);
	if (fd < 0)
		return -1;
	if (!sysgenid_is_source_(source, fd)) {
		close(fd);
		errno = ENODEV;
		return -1;
	}
	if (ioctl(fd, SYSGENID_SET_WATCHER_TRACKING, 1)) {
		close(fd);
		return -1;
	}
	return fd;
}

/*
 * epoll refuses /dev/vmclock0 before Linux 7.0. Later kernels hang up if the
 * hypervisor sends no notifications. In both cases a timer takes its place.
 */
static int new_vmclock(const struct source *source)
{
	const volatile struct vmclock_page *page = source->page;
	struct pollfd pollfd = { .events = POLLIN };

	if (!S_ISCHR(source->node.st_mode) ||
	    !(le64toh(page->flags) & VMCLOCK_HAS_NOTIFY))
		return new_timer();
	pollfd.fd = sysgenid_dup_source_(source);
	if (pollfd.fd < 0 || (poll(&pollfd, 1, 0) == 1 && pollfd.revents & POLLHUP)) {
		close(pollfd.fd);
		return new_timer();
	}
	return pollfd.fd;
}

/* Returns whether the kernel counts this watcher as tracked. */
static bool is_tracked(const struct sysgenid_watcher *watcher)
{
	const struct source *source = sysgenid_device_();

	return watcher->device >= 0 && watcher->flags & SYSGENID_TRACKED &&
	       S_ISCHR(source->node.st_mode);
}

/* The machine was migrated to a hypervisor that sends no notifications. */
static void replace_vmclock(struct sysgenid_watcher *watcher, int loop)
{
	int fd = new_timer();

	if (fd < 0)
		return;
	epoll_ctl(loop, EPOLL_CTL_DEL, watcher->vmclock, NULL);
	close(watcher->vmclock);
	watcher->vmclock = fd;
	add(loop, fd, EPOLLIN | EPOLLET, VMCLOCK);
}

/*
 * An expired periodic timer restarts when it is read, or asked for the time left.
 * A read would take the event from a parent that shares the timer. For any other
 * descriptor this fails, harmlessly.
 */
static void restart_timer(int fd)
{
	struct itimerspec left;
	int error = errno;

	timerfd_gettime(fd, &left);
	errno = error;
}

/* Consumes the pending events. */
static void drain(struct sysgenid_watcher *watcher, int loop)
{
	struct epoll_event events[3];
	int count = epoll_wait(loop, events, 3, 0);

	for (int i = 0; i < count; i++) {
		if (events[i].data.u32 == VMCLOCK && events[i].events & EPOLLHUP)
			replace_vmclock(watcher, loop);
		else if (events[i].data.u32 == VMCLOCK)
			restart_timer(watcher->vmclock);
		else if (events[i].data.u32 == DEVICE &&
			 !S_ISCHR(sysgenid_device_()->node.st_mode))
			restart_timer(watcher->device);
	}
}

/* Adds all descriptors to an epoll instance, and consumes the first events. */
static int fill(struct sysgenid_watcher *watcher, int loop, bool pending)
{
	if (add(loop, watcher->pending, pending ? EPOLLIN : 0, PENDING) ||
	    (watcher->device >= 0 &&
	     add(loop, watcher->device, EPOLLIN | EPOLLET, DEVICE)))
		return -1;
	if (watcher->vmclock >= 0 &&
	    add(loop, watcher->vmclock, EPOLLIN | EPOLLET, VMCLOCK)) {
		if (errno != EPERM)
			return -1;
		close(watcher->vmclock);
		watcher->vmclock = new_timer();
		if (watcher->vmclock < 0 ||
		    add(loop, watcher->vmclock, EPOLLIN | EPOLLET, VMCLOCK))
			return -1;
	}
	if (!pending)
		drain(watcher, loop);
	return 0;
}

static bool is_same(struct moment one, struct moment other)
{
	return one.counter == other.counter && one.vmclock == other.vmclock;
}

static struct moment current(const struct sysgenid_watcher *watcher)
{
	struct moment moment = { .vmclock = sysgenid_load_vmclock_() };
	__u32 now;

	if (watcher->device >= 0 &&
	    !ioctl(watcher->device, SYSGENID_GET_GENERATION, &now))
		moment.counter = now;
	else
		moment.counter = sysgenid_load_counter_();
	return moment;
}

/* Returns the number that the program knows this moment by. */
static uint64_t number(struct moment moment)
{
	return sysgenid_device_() ? moment.counter : moment.vmclock;
}

static bool is_pending(const struct sysgenid_watcher *watcher)
{
	return !is_same(watcher->reported, watcher->acked);
}

/* Makes the epoll instance readable, or ends that. */
static void set_pending(const struct sysgenid_watcher *watcher, bool pending)
{
	struct epoll_event event = {
		.events = pending ? EPOLLIN : 0, .data.u32 = PENDING
	};

	epoll_ctl(watcher->loop, EPOLL_CTL_MOD, watcher->pending, &event);
}

/*
 * A child shares the open files that it inherited. Two of these need replacing:
 * the epoll instance, or the parent misses events, and a tracked descriptor, or
 * the child acknowledges for the parent.
 */
static int reopen_after_fork(struct sysgenid_watcher *watcher)
{
	uint64_t process = sysgenid_process_();
	int loop, device = watcher->device;

	if (!process)
		return -1;
	if (watcher->process == process)
		return 0;
	if (is_tracked(watcher)) {
		watcher->device = new_device(sysgenid_device_(), watcher->flags);
		if (watcher->device < 0)
			goto fail;
	}
	loop = new_loop();
	if (loop < 0)
		goto fail;
	if (fill(watcher, loop, is_pending(watcher)) ||
	    dup3(loop, watcher->loop, O_CLOEXEC) < 0) {
		close(loop);
		goto fail;
	}
	close(loop);
	if (device != watcher->device)
		close(device);
	watcher->process = process;
	return 0;

fail:
	if (watcher->device >= 0 && device != watcher->device)
		close(watcher->device);
	watcher->device = device;
	return -1;
}

struct sysgenid_watcher *sysgenid_watcher_new(unsigned int flags)
{
	struct sysgenid_watcher *watcher;
	const struct source *device, *vmclock;

	if (flags & ~SYSGENID_TRACKED) {
		errno = EINVAL;
		return NULL;
	}
	watcher = calloc(1, sizeof(*watcher));
	if (!watcher)
		return NULL;
	watcher->device = watcher->vmclock = watcher->pending = -1;
	watcher->flags = flags;
	watcher->process = sysgenid_process_();
	watcher->loop = new_loop();
	if (!watcher->process || watcher->loop < 0)
		goto fail;
	watcher->pending = sysgenid_above_stdio_(eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK));
	if (watcher->pending < 0)
		goto fail;

	sysgenid_open();
	device = sysgenid_device_();
	vmclock = sysgenid_vmclock_();

	/* Load before the first event: an extra change is better than a missed one. */
	watcher->acked.vmclock = sysgenid_load_vmclock_();
	sysgenid_barrier(&watcher->acked.counter);
	watcher->acked.counter = device ? watcher->acked.counter : 0;
	watcher->reported = watcher->acked;
	if (device) {
		watcher->device = new_device(device, flags);
		if (watcher->device < 0)
			goto fail;
	}
	if (vmclock) {
		watcher->vmclock = new_vmclock(vmclock);
		if (watcher->vmclock < 0)
			goto fail;
	}
	if (!fill(watcher, watcher->loop, false))
		return watcher;

fail:
	sysgenid_watcher_free(watcher);
	return NULL;
}

static void close_if_open(int fd)
{
	if (fd >= 0)
		close(fd);
}

void sysgenid_watcher_free(struct sysgenid_watcher *watcher)
{
	int error = errno;

	if (!watcher)
		return;
	/* A forked child may keep the descriptor open for longer. */
	if (is_tracked(watcher) && watcher->process == sysgenid_process_())
		ioctl(watcher->device, SYSGENID_SET_WATCHER_TRACKING, 0);
	close_if_open(watcher->device);
	close_if_open(watcher->vmclock);
	close_if_open(watcher->pending);
	close_if_open(watcher->loop);
	free(watcher);
	errno = error;
}

int sysgenid_watcher_fd(const struct sysgenid_watcher *watcher)
{
	return watcher->loop;
}

int sysgenid_watcher_wait(struct sysgenid_watcher *watcher, int timeout,
			  uint64_t *generation)
{
	struct pollfd pollfd = { .fd = watcher->loop, .events = POLLIN };
	int64_t end = now_ms() + timeout, left = timeout;
	bool over = false;
	int ready;

	if (reopen_after_fork(watcher))
		return -1;
	for (;;) {
		bool was_pending = is_pending(watcher);

		drain(watcher, watcher->loop);
		watcher->reported = current(watcher);
		*generation = number(watcher->reported);
		if (is_pending(watcher) != was_pending)
			set_pending(watcher, !was_pending);
		if (is_pending(watcher))
			return 1;
		/* Wake-ups without a change must not extend the timeout. */
		if (over)
			return 0;
		ready = poll(&pollfd, 1, timeout < 0 ? -1 : (int)left);
		if (ready <= 0)
			return ready;
		left = end - now_ms();
		over = timeout >= 0 && left <= 0;
	}
}

int sysgenid_watcher_ack(struct sysgenid_watcher *watcher, uint64_t generation)
{
	struct moment now;
	__u32 counter = generation;

	if (reopen_after_fork(watcher))
		return -1;
	now = current(watcher);
	if (generation != number(now) || now.vmclock != watcher->reported.vmclock)
		goto stale;
	if (is_tracked(watcher) &&
	    write(watcher->device, &counter, sizeof(counter)) != sizeof(counter)) {
		if (errno == EINVAL)
			goto stale;
		return -1;
	}
	if (is_pending(watcher))
		set_pending(watcher, false);
	watcher->acked = watcher->reported = now;
	return 0;

stale:
	errno = ESTALE;
	return -1;
}

/*
 * Overseers
 */

static int open_command(void)
{
	const struct source *source;

	sysgenid_find_();
	source = sysgenid_device_();
	if (source)
		return sysgenid_reopen_(source, O_RDONLY);
	errno = ENODEV;
	return -1;
}

int sysgenid_trigger(uint32_t minimum)
{
	int fd = open_command();
	int ret, error;

	if (fd < 0)
		return -1;
	ret = ioctl(fd, SYSGENID_TRIGGER_GEN_UPDATE, (unsigned long)minimum);
	error = errno;
	close(fd);
	errno = error;
	return ret;
}

int sysgenid_wait_watchers(int timeout)
{
	struct pollfd pollfd = { .events = POLLIN };
	unsigned long limit = timeout < 0 ? 0 : timeout ? timeout : 1;
	int ret, error;

	pollfd.fd = open_command();
	if (pollfd.fd < 0)
		return -1;
	ret = ioctl(pollfd.fd, SYSGENID_WAIT_WATCHERS, limit);
	error = errno;
	/* EINTR means a signal or a new generation: distinguish them. */
	if (ret && error == EINTR && poll(&pollfd, 1, 0) == 1)
		error = ESTALE;
	close(pollfd.fd);
	errno = error;
	return ret;
}
