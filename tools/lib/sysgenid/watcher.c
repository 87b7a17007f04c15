// SPDX-License-Identifier: MIT
/*
 * Watchers: an epoll instance each, which stays for as long as the watcher, and
 * in it whatever wakes it, which may have to be replaced: after a fork, and to
 * acknowledge by somebody who may not write.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/ioctl.h>
#include <linux/types.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <linux/sysgenid.h>

#include "source.h"
#include "vmclock.h"

/* How often to look where nothing tells of a change, in seconds. */
#define LOOK_EVERY	1

/*
 * @loop: the epoll instance
 * @fd: what wakes: the device, or a timer where it tells of no change
 * @is_timer: @fd is a timer
 * @acked: the generation last acknowledged
 * @flags: what the watcher was made with
 * @owner: the process whose watcher this is
 */
struct sysgenid_watcher {
	int loop;
	int fd;
	bool is_timer;
	uint64_t acked;
	unsigned int flags;
	pid_t owner;
};

static int open_loop(void)
{
	return source_keep_off_streams(epoll_create1(EPOLL_CLOEXEC));
}

static int open_timer(void)
{
	struct itimerspec every = {
		.it_interval.tv_sec = LOOK_EVERY,
		.it_value.tv_sec = LOOK_EVERY,
	};
	int fd = source_keep_off_streams(timerfd_create(CLOCK_MONOTONIC,
						TFD_CLOEXEC | TFD_NONBLOCK));

	if (fd >= 0 && timerfd_settime(fd, 0, &every, NULL)) {
		close(fd);
		fd = -1;
	}
	return fd;
}

/*
 * Before Linux 7.0 /dev/vmclock0 can't be polled, which looks as if it was
 * always readable; and with a hypervisor that does not notify, it hangs up.
 */
static bool vmclock_notifies(int fd)
{
	struct pollfd pollfd = { .fd = fd, .events = POLLIN };
	struct vmclock_page page;

	return pread(fd, &page, sizeof(page), 0) == sizeof(page) &&
	       le64toh(page.flags) & VMCLOCK_HAS_NOTIFY &&
	       poll(&pollfd, 1, 0) == 0;
}

/* Opens the device so that it can acknowledge, if that is allowed or needed. */
static int open_device(const struct source *source, unsigned int flags)
{
	int fd = source_open(source, O_RDWR);

	if (fd < 0 && !(flags & SYSGENID_TRACKED))
		return source_open(source, O_RDONLY);
	if (fd >= 0 && flags & SYSGENID_TRACKED && source_is(source, fd) &&
	    ioctl(fd, SYSGENID_SET_WATCHER_TRACKING, 1)) {
		close(fd);
		return -1;
	}
	return fd;
}

static int open_source(const struct source *source, unsigned int flags,
		       bool *is_timer)
{
	int fd;

	*is_timer = false;
	if (source->kind == SYSGENID_SOURCE_DEVICE) {
		fd = open_device(source, flags);
		if (fd < 0 || source_is(source, fd))
			return fd;
	} else {
		fd = source_open(source, O_RDONLY);
		if (fd < 0 || vmclock_notifies(fd))
			return fd;
	}
	close(fd);
	*is_timer = true;
	return open_timer();
}

/* Puts what wakes into the loop, in the place of what was there. */
static int replace(struct sysgenid_watcher *watcher, int loop, int fd,
		   bool is_timer)
{
	struct epoll_event event = { .events = EPOLLIN };

	if (epoll_ctl(loop, EPOLL_CTL_ADD, fd, &event)) {
		close(fd);
		return -1;
	}
	if (watcher->fd >= 0) {
		/* Closing it is not enough if a forked child has it, too. */
		epoll_ctl(loop, EPOLL_CTL_DEL, watcher->fd, NULL);
		close(watcher->fd);
	}
	watcher->fd = fd;
	watcher->is_timer = is_timer;
	return 0;
}

static uint64_t current(struct sysgenid_watcher *watcher)
{
	const struct source *source = source_get();
	__u32 now;

	if (watcher->fd >= 0 && source->kind == SYSGENID_SOURCE_DEVICE &&
	    !watcher->is_timer &&
	    !ioctl(watcher->fd, SYSGENID_GET_GENERATION, &now))
		return now;
	return sysgenid_generation();
}

/*
 * The parent goes on with the descriptors that the child has inherited; what
 * one of them acknowledged there would be so for the other.
 */
static int leave_parent(struct sysgenid_watcher *watcher)
{
	int loop, fd;
	bool is_timer;

	if (watcher->owner == getpid())
		return 0;
	if (watcher->fd < 0) {
		watcher->owner = getpid();
		return 0;
	}

	fd = open_source(source_get(), watcher->flags, &is_timer);
	if (fd < 0)
		return -1;
	loop = open_loop();
	if (loop < 0) {
		close(fd);
		return -1;
	}
	if (replace(watcher, loop, fd, is_timer) ||
	    dup3(loop, watcher->loop, O_CLOEXEC) < 0) {
		close(loop);
		return -1;
	}
	close(loop);
	watcher->owner = getpid();
	return 0;
}

struct sysgenid_watcher *sysgenid_watcher_new(unsigned int flags)
{
	struct sysgenid_watcher *watcher;
	const struct source *source;
	bool is_timer;
	int fd;

	if (flags & ~SYSGENID_TRACKED) {
		errno = EINVAL;
		return NULL;
	}
	watcher = calloc(1, sizeof(*watcher));
	if (!watcher)
		return NULL;
	watcher->fd = -1;
	watcher->flags = flags;
	watcher->owner = getpid();
	watcher->loop = open_loop();
	if (watcher->loop < 0)
		goto fail;

	source = source_find();
	if (!source) {
		log_no_source(errno);
		return watcher;
	}
	/* From before the device is opened: better one change too many. */
	sysgenid_barrier(&watcher->acked);
	fd = open_source(source, flags, &is_timer);
	if (fd < 0 || replace(watcher, watcher->loop, fd, is_timer))
		goto fail;
	return watcher;

fail:
	sysgenid_watcher_free(watcher);
	return NULL;
}

void sysgenid_watcher_free(struct sysgenid_watcher *watcher)
{
	int error = errno;

	if (!watcher)
		return;
	/* Children that have inherited it may have it open for longer. */
	if (watcher->flags & SYSGENID_TRACKED && watcher->owner == getpid())
		ioctl(watcher->fd, SYSGENID_SET_WATCHER_TRACKING, 0);
	if (watcher->fd >= 0)
		close(watcher->fd);
	if (watcher->loop >= 0)
		close(watcher->loop);
	free(watcher);
	errno = error;
}

int sysgenid_watcher_fd(const struct sysgenid_watcher *watcher)
{
	return watcher->loop;
}

static void drain_vmclock(struct sysgenid_watcher *watcher)
{
	struct pollfd pollfd = { .fd = watcher->fd, .events = POLLIN };
	struct vmclock_page page;
	int fd;

	/* If it fails, as the page is being changed, we are woken once more. */
	(void)!pread(watcher->fd, &page, sizeof(page), 0);
	if (poll(&pollfd, 1, 0) == 1 && pollfd.revents & (POLLHUP | POLLERR)) {
		/* Migrated to a hypervisor that does not notify. */
		fd = open_timer();
		if (fd >= 0)
			replace(watcher, watcher->loop, fd, true);
	}
}

/* What has told that it is time to look has to be told that we did. */
static void drain(struct sysgenid_watcher *watcher)
{
	uint64_t ticks;

	/* Somebody else's having read it is as good. */
	if (watcher->is_timer)
		(void)!read(watcher->fd, &ticks, sizeof(ticks));
	else if (sysgenid_get_source() == SYSGENID_SOURCE_VMCLOCK)
		drain_vmclock(watcher);
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

int sysgenid_watcher_wait(struct sysgenid_watcher *watcher, int timeout,
			  uint64_t *generation)
{
	struct pollfd pollfd = { .fd = watcher->loop, .events = POLLIN };
	int64_t end = now_ms() + timeout, left = timeout;
	bool over = false;
	int ready;

	if (leave_parent(watcher))
		return -1;
	for (;;) {
		drain(watcher);
		*generation = current(watcher);
		if (*generation != watcher->acked)
			return 1;
		/* Woken in vain, and perhaps for ever. */
		if (over)
			return 0;
		ready = poll(&pollfd, 1, timeout < 0 ? -1 : (int)left);
		if (ready <= 0)
			return ready;
		left = end - now_ms();
		over = timeout >= 0 && left <= 0;
	}
}

/* A descriptor just opened has acknowledged the generation it was opened in. */
static int ack_by_reopening(struct sysgenid_watcher *watcher,
			    uint64_t generation)
{
	int fd = source_open(source_get(), O_RDONLY);
	__u32 now;

	if (fd < 0)
		return -1;
	if (!ioctl(fd, SYSGENID_GET_GENERATION, &now) && now == generation)
		return replace(watcher, watcher->loop, fd, false);
	close(fd);
	errno = ESTALE;
	return -1;
}

static int ack_device(struct sysgenid_watcher *watcher, uint64_t generation)
{
	__u32 number = generation;

	if (write(watcher->fd, &number, sizeof(number)) == sizeof(number))
		return 0;
	if (errno == EBADF)
		return ack_by_reopening(watcher, generation);
	if (errno == EINVAL)
		errno = ESTALE;
	return -1;
}

int sysgenid_watcher_ack(struct sysgenid_watcher *watcher, uint64_t generation)
{
	if (leave_parent(watcher))
		return -1;
	if (watcher->fd >= 0 && !watcher->is_timer &&
	    sysgenid_get_source() == SYSGENID_SOURCE_DEVICE) {
		if (ack_device(watcher, generation))
			return -1;
	} else if (generation != current(watcher)) {
		errno = ESTALE;
		return -1;
	}
	watcher->acked = generation;
	return 0;
}

/* For one command of an overseer. */
static int open_command(void)
{
	const struct source *source = source_find();

	if (source && source->kind == SYSGENID_SOURCE_DEVICE)
		return source_open(source, O_RDONLY);
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
	/* The same error for a signal, and for a generation of now. */
	if (ret && error == EINTR && poll(&pollfd, 1, 0) == 1)
		error = ESTALE;
	close(pollfd.fd);
	errno = error;
	return ret;
}
