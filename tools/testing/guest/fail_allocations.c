// SPDX-License-Identifier: GPL-2.0
/*
 * Makes one kernel call repeatedly, and has each of its memory allocations fail in turn.
 * After each failure, the call has to succeed. The program writes each error to the
 * kernel's log, below the kernel's own reason.
 *
 * usage: fail_allocations CALL [ARGUMENT], with a CALL of the table below
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/sysgenid.h>

#define DEVICE "/dev/sysgenid"

static int device;	/* an open descriptor of DEVICE */
static int nth;		/* this task's fail-nth */
static int armed;	/* the number last written to fail-nth */
static bool has_failed;
static const char *argument;

/* Makes one of the next allocations fail; 0: none. */
static void fail_nth(int which)
{
	char text[16];
	int length = snprintf(text, sizeof(text), "%d", which);

	if (pwrite(nth, text, length, 0) != length)
		err(1, "fail-nth");
	armed = which;
}

/* Disarms fail-nth, and records in has_failed whether the allocation was reached. */
static void stop_failing(void)
{
	char text[16] = "";

	if (!armed)
		return;
	if (pread(nth, text, sizeof(text) - 1, 0) < 0)
		err(1, "fail-nth");
	has_failed = atoi(text) == 0;
	fail_nth(0);
}

static int do_open(void)
{
	int fd = open(DEVICE, O_RDWR);

	return fd < 0 ? -1 : close(fd);
}

/* The address is far from all other mappings, so that the fault allocates page tables. */
static int do_map(void)
{
	volatile uint32_t *page = mmap((void *)(1UL << 44), getpagesize(), PROT_READ,
				       MAP_SHARED | MAP_FIXED_NOREPLACE, device, 0);

	if (page == MAP_FAILED)
		return -1;
	(void)*page;
	return munmap((void *)page, getpagesize());
}

static int do_read(void)
{
	uint32_t generation;

	if (ioctl(device, SYSGENID_TRIGGER_GEN_UPDATE, 0))
		return -1;
	if (read(device, &generation, sizeof(generation)) != sizeof(generation))
		return -1;
	return write(device, &generation, sizeof(generation)) == sizeof(generation) ? 0 : -1;
}

static int do_poll(void)
{
	struct pollfd entry = { .fd = device, .events = POLLIN };

	return poll(&entry, 1, 1) < 0 ? -1 : 0;
}

static int do_epoll(void)
{
	struct epoll_event event = { .events = EPOLLIN };
	int epoll = epoll_create1(0), ret, error;

	if (epoll < 0)
		return -1;
	ret = epoll_ctl(epoll, EPOLL_CTL_ADD, device, &event);
	error = errno;
	close(epoll);
	errno = error;
	return ret;
}

static int do_ioctl(void)
{
	uint32_t generation;

	if (ioctl(device, SYSGENID_GET_GENERATION, &generation) ||
	    ioctl(device, SYSGENID_SET_WATCHER_TRACKING, 1) ||
	    ioctl(device, SYSGENID_SET_WATCHER_TRACKING, 0))
		return -1;
	return ioctl(device, SYSGENID_WAIT_WATCHERS, 1);
}

static int do_show(void)
{
	char text[4096];
	int fd = open(argument, O_RDONLY), error, ret;

	if (fd < 0)
		return -1;
	ret = read(fd, text, sizeof(text)) > 0 ? 0 : -1;
	error = errno;
	close(fd);
	errno = error;
	return ret;
}

/* Binds the driver to the device named by argument, and unbinds it. */
static int do_bind(void)
{
	static const char driver[] = "/sys/bus/platform/drivers/vm_generation_id";
	static int bind = -1, unbind = -1;
	ssize_t length = strlen(argument);
	char path[80];

	if (bind < 0) {
		snprintf(path, sizeof(path), "%s/bind", driver);
		bind = open(path, O_WRONLY);
		snprintf(path, sizeof(path), "%s/unbind", driver);
		unbind = open(path, O_WRONLY);
	}
	if (write(bind, argument, length) != length)
		return -1;
	stop_failing();
	if (write(unbind, argument, length) != length)
		err(1, "unbind");
	return 0;
}

/* Loads the module in the file named by argument, and unloads it. */
static int do_load(void)
{
	int fd = open(argument, O_RDONLY | O_CLOEXEC), ret, error;
	char *name = strdup(basename(argument));

	if (fd < 0)
		err(1, "%s", argument);
	ret = syscall(SYS_finit_module, fd, "", 0);
	error = errno;
	stop_failing();
	close(fd);
	*strchrnul(name, '.') = '\0';
	if (!ret && syscall(SYS_delete_module, name, 0))
		err(1, "unloading %s", name);
	free(name);
	errno = error;
	return ret;
}

static const struct {
	const char *name;
	int (*call)(void);
	bool opens;	/* needs a descriptor */
} calls[] = {
	{ "open", do_open, true },
	{ "map", do_map, true },
	{ "read", do_read, true },
	{ "poll", do_poll, true },
	{ "epoll", do_epoll, true },
	{ "ioctl", do_ioctl, true },
	{ "show", do_show, true },
	{ "bind", do_bind, false },
	{ "load", do_load, false },
};

/* Writes the error to the kernel's log, below the kernel's own messages. */
static void write_log(int error)
{
	static int log = -1;
	char line[64];
	int length = snprintf(line, sizeof(line), "fail_allocations: %s\n",
			      strerrorname_np(error));

	if (log < 0)
		log = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
	if (write(log, line, length) != length)
		err(1, "/dev/kmsg");
}

static void fail_each(const char *name, int (*call)(void))
{
	int which, refused = 0;

	if (call())
		err(1, "%s without a failure", name);
	for (which = 1;; which++) {
		int ret, error;

		fail_nth(which);
		ret = call();
		error = errno;
		stop_failing();
		if (ret) {
			write_log(error);
			refused++;
			if (call())
				err(1, "%s: after allocation %d had failed", name, which);
		}
		if (!has_failed)
			break;
	}
	printf("%d allocations, %d refusals\n", which - 1, refused);
}

int main(int argc, char **argv)
{
	if (argc < 2 || argc > 3)
		errx(2, "usage: fail_allocations CALL [ARGUMENT]");
	argument = argv[2];
	nth = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	if (nth < 0)
		err(1, "this kernel has no fault injection: /proc/thread-self/fail-nth");
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		if (strcmp(calls[i].name, argv[1]))
			continue;
		if (calls[i].opens)
			device = open(DEVICE, O_RDWR | O_NONBLOCK | O_CLOEXEC);
		if (device < 0)
			err(1, DEVICE);
		fail_each(argv[1], calls[i].call);
		return 0;
	}
	errx(2, "there is no call %s", argv[1]);
}
