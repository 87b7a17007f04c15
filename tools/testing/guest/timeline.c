// SPDX-License-Identifier: GPL-2.0
/*
 * Prints the time of an event after a restore. Its argument selects the event:
 *
 *   look	loops on the mapped counter: prints "restored NS", the last time when the
 *		GUID in memory was the old one, and "counter NS"
 *   spin	loops: prints "restored NS"
 *   poll	sleeps in poll() of /dev/sysgenid: prints "poll NS"
 *   uevent	waits for the device's uevent: prints "uevent NS"
 *
 * A second argument "idle" lets the program run only while its CPU has nothing else to do.
 *
 * Prints "watching" first, and the times 100 ms after the event, so that no output delays
 * another program. NS is CLOCK_MONOTONIC in nanoseconds, which a clone continues from its
 * snapshot.
 */
#define _GNU_SOURCE
#include <linux/netlink.h>
#include <sched.h>
#include <sys/socket.h>
#include <time.h>

#include "guid.h"
#include "ways.h"

#define PAUSE	100000000	/* ns */

static long long now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void say(const char *text)
{
	puts(text);
	fflush(stdout);
}

static void say_time(const char *what, long long time)
{
	printf("%s %lld\n", what, time);
	fflush(stdout);
}

/* Returns the last time when the GUID in memory was the old one. */
static long long wait_for_restore(void)
{
	long long last = 0, time;

	guid_start();
	say("watching");
	for (time = now(); !guid_is_new(); time = now())
		last = time;
	return last;
}

static void look(void)
{
	bool (*changed)(void) = ways_start("map");
	long long restored = wait_for_restore(), time;

	while (!changed())
		;
	time = now();
	while (now() - time < PAUSE)
		;
	say_time("restored", restored);
	say_time("counter", time);
}

static void spin(void)
{
	long long restored = wait_for_restore();

	while (now() - restored < PAUSE)
		;
	say_time("restored", restored);
}

static void say_later(const char *what)
{
	const struct timespec pause = { .tv_nsec = PAUSE };
	long long time = now();

	nanosleep(&pause, NULL);
	say_time(what, time);
}

static void wait_in_poll(void)
{
	struct pollfd device = { .events = POLLIN };

	ways_start("read");
	device.fd = ways_fd;
	say("watching");
	if (poll(&device, 1, -1) != 1)
		err(1, "poll");
	say_later("poll");
}

static void wait_for_uevent(void)
{
	struct sockaddr_nl all = { .nl_family = AF_NETLINK, .nl_groups = 1 };
	int netlink = socket(AF_NETLINK, SOCK_DGRAM, NETLINK_KOBJECT_UEVENT);
	const char ours[] = "SYSGENID_GENERATION=";
	char event[4096];
	ssize_t length;

	if (netlink < 0 || bind(netlink, (struct sockaddr *)&all, sizeof(all)))
		err(1, "netlink");
	say("watching");
	do {
		length = recv(netlink, event, sizeof(event), 0);
		if (length < 0)
			err(1, "recv");
	} while (!memmem(event, length, ours, strlen(ours)));
	say_later("uevent");
}

static void be_idle(void)
{
	const struct sched_param priority = { 0 };

	if (sched_setscheduler(0, SCHED_IDLE, &priority))
		err(1, "SCHED_IDLE");
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} events[] = {
		{ "look", look }, { "spin", spin }, { "poll", wait_in_poll },
		{ "uevent", wait_for_uevent },
	};

	if (argc == 3 && !strcmp(argv[2], "idle"))
		be_idle();
	for (size_t i = 0; argc > 1 && i < sizeof(events) / sizeof(*events); i++)
		if (!strcmp(argv[1], events[i].name)) {
			events[i].run();
			return 0;
		}
	errx(2, "usage: timeline look|spin|poll|uevent [idle]");
}
