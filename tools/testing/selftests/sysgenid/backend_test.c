// SPDX-License-Identifier: GPL-2.0
/*
 * sysgenid's backend and notifiers, with fake_backend.ko: every system call looks at the
 * hardware, one event is one generation, and notifiers run before userspace is woken.
 */
#include "modules.h"

FIXTURE(backend) {
	int fd;			/* up to date at first */
	uint32_t first;
	const volatile uint32_t *counter;
};

FIXTURE_SETUP(backend)
{
	if (!load_test_module(""))
		SKIP(return, "fake_backend can't be loaded");
	self->fd = open_device(O_RDWR | O_NONBLOCK);
	self->counter = map_counter(self->fd);
	/* Wait for the notification of a generation that loading the module may have started. */
	self->first = bump(self->fd);
	acknowledge(self->fd, self->first);
	while (test_get("last_notified") != self->first)
		sched_yield();
}

FIXTURE_TEARDOWN(backend)
{
	munmap((void *)self->counter, page_size());
	close(self->fd);
	EXPECT_TRUE(unload_module("fake_backend"));
}

/* Changes the hardware's identifier, without a notification. */
static void change_hardware(void)
{
	test_set("hardware", test_get("hardware") + 1);
}

/* Looks at the hardware */

TEST_F(backend, open_looks_at_hardware)
{
	int fd;

	change_hardware();
	EXPECT_EQ(self->first, *self->counter);
	fd = open_device(O_RDONLY);
	EXPECT_EQ(self->first + 1, *self->counter);
	EXPECT_FALSE(is_readable(fd));
}

TEST_F(backend, read_looks_at_hardware)
{
	EXPECT_FAILS(EAGAIN, call_read(self->fd, 4));
	change_hardware();
	EXPECT_EQ((int)self->first + 1, call_read(self->fd, 4));
}

TEST_F(backend, woken_read_looks_again)
{
	struct caller reader;

	start_reader(&reader, open_device(O_RDONLY));
	change_hardware();
	test_set("bump", 1);
	finish_call(&reader);
	EXPECT_EQ((int)self->first + 2, reader.result);
}

TEST_F(backend, write_looks_at_hardware)
{
	EXPECT_EQ(4, acknowledge(self->fd, self->first));
	change_hardware();
	EXPECT_FAILS(EINVAL, acknowledge(self->fd, self->first));
	EXPECT_EQ(4, acknowledge(self->fd, self->first + 1));
}

TEST_F(backend, poll_looks_at_hardware)
{
	EXPECT_FALSE(is_readable(self->fd));
	change_hardware();
	EXPECT_TRUE(is_readable(self->fd));
}

TEST_F(backend, tracking_looks_at_hardware)
{
	change_hardware();
	EXPECT_EQ(0, set_tracking(self->fd, 1));
	EXPECT_EQ(self->first + 1, *self->counter);
	EXPECT_EQ(1, outdated());
}

TEST_F(backend, wait_looks_at_hardware)
{
	EXPECT_EQ(0, wait_watchers(self->fd, 0));
	change_hardware();
	EXPECT_FAILS(EINTR, wait_watchers(self->fd, 0));
}

TEST_F(backend, woken_wait_looks_again)
{
	int straggler = open_device(O_RDWR), fd;
	struct caller overseer;

	set_tracking(straggler, 1);
	bump(self->fd);
	fd = open_device(O_RDONLY);
	start_overseer(&overseer, fd, 0);
	change_hardware();
	close(straggler);
	finish_call(&overseer);
	EXPECT_EQ(-1, overseer.result);
	EXPECT_EQ(EINTR, overseer.error);
}

TEST_F(backend, trigger_looks_at_hardware)
{
	change_hardware();
	EXPECT_EQ(0, trigger(self->fd, 0));
	EXPECT_EQ(self->first + 2, *self->counter);
}

TEST_F(backend, get_generation_looks_at_hardware)
{
	change_hardware();
	EXPECT_EQ(self->first + 1, get_generation(self->fd));
}

TEST_F(backend, sysfs_looks_at_hardware)
{
	change_hardware();
	EXPECT_EQ(self->first + 1, number_in(SYSFS "generation", ""));
	set_tracking(self->fd, 1);
	acknowledge(self->fd, self->first + 1);
	change_hardware();
	EXPECT_EQ(1, outdated());
}

/* Events */

TEST_F(backend, same_identifier_is_no_event)
{
	long long looks = test_get("looks"), checks = test_get("checks");

	test_set("hardware", test_get("hardware"));
	EXPECT_EQ(self->first, get_generation(self->fd));
	EXPECT_FALSE(is_readable(self->fd));
	EXPECT_LE(looks + 2, test_get("looks"));
	EXPECT_EQ(checks, test_get("checks"));
}

TEST_F(backend, change_and_change_back_are_two_events)
{
	long long before = test_get("hardware");

	change_hardware();
	EXPECT_EQ(self->first + 1, get_generation(self->fd));
	test_set("hardware", before);
	EXPECT_EQ(self->first + 2, get_generation(self->fd));
}

#define THREADS 4

static int call_get(int fd, unsigned long rounds)
{
	while (rounds--)
		get_generation(fd);
	return 0;
}

TEST_F(backend, event_seen_by_concurrent_calls_counts_once)
{
	struct caller callers[THREADS];

	for (int i = 0; i < THREADS; i++)
		start_call(&callers[i], call_get, self->fd, 3000);
	for (int i = 1; i <= 100; i++) {
		change_hardware();
		EXPECT_EQ(self->first + i, get_generation(self->fd));
	}
	for (int i = 0; i < THREADS; i++)
		finish_call(&callers[i]);
	EXPECT_EQ(self->first + 100, get_generation(self->fd));
}

TEST_F(backend, bump_in_interrupt_wakes_reader)
{
	struct caller reader;

	start_reader(&reader, open_device(O_RDONLY));
	test_set("bump", 1);
	EXPECT_EQ(self->first + 1, *self->counter);
	finish_call(&reader);
	EXPECT_EQ((int)self->first + 1, reader.result);
}

/* Registration */

static bool source_is(const char *name)
{
	return number_in(SYSFS "source", name) != -1;
}

TEST_F(backend, source_shows_backend_name)
{
	EXPECT_TRUE(source_is("fake_backend\n"));
	EXPECT_TRUE(unload_module("fake_backend"));
	EXPECT_TRUE(source_is("none\n"));
}

TEST_F(backend, second_backend_is_refused)
{
	EXPECT_EQ(-EBUSY, test_get("second"));
	EXPECT_TRUE(source_is("fake_backend\n"));
}

TEST_F(backend, event_during_absence_counts_once)
{
	ASSERT_TRUE(load_test_module("hardware=7"));
	EXPECT_EQ(self->first + 1, get_generation(self->fd));
	EXPECT_EQ(self->first + 1, get_generation(self->fd));
	ASSERT_TRUE(load_test_module("hardware=7"));
	EXPECT_EQ(self->first + 1, get_generation(self->fd));
}

TEST_F(backend, backend_can_reload_under_calls)
{
	struct caller callers[THREADS];

	for (int i = 0; i < THREADS; i++)
		start_call(&callers[i], call_get, self->fd, 3000);
	for (int i = 0; i < 10; i++) {
		change_hardware();
		ASSERT_TRUE(load_test_module(""));
	}
	for (int i = 0; i < THREADS; i++)
		finish_call(&callers[i]);
	EXPECT_EQ(0, callers[0].result);
}

/* Notifiers */

TEST_F(backend, notifier_gets_generation)
{
	long long notified = test_get("notified");
	struct caller poller;

	start_poller(&poller, self->fd);
	bump(self->fd);
	/* The poller is woken after the notifiers. */
	finish_call(&poller);
	EXPECT_EQ(notified + 1, test_get("notified"));
	EXPECT_EQ(self->first + 1, test_get("last_notified"));
}

TEST_F(backend, notifier_runs_after_publishing_and_before_wake_up)
{
	struct caller poller;

	start_poller(&poller, self->fd);
	test_set("hold", 1);
	ASSERT_EQ(0, trigger(self->fd, 0));
	while (test_get("last_notified") != self->first + 1)
		sched_yield();
	EXPECT_EQ(self->first + 1, *self->counter);
	EXPECT_TRUE(is_asleep(poller.task, SYS_OF_POLL));
	test_set("hold", 0);
	finish_call(&poller);
	EXPECT_EQ(POLLIN, poller.result);
}

TEST_F(backend, slow_notifier_delays_no_call)
{
	struct caller overseer;

	test_set("hold", 1);
	for (int i = 1; i <= 10; i++) {
		ASSERT_EQ(0, trigger(self->fd, 0));
		EXPECT_EQ((int)self->first + i, call_read(self->fd, 4));
		EXPECT_EQ(4, acknowledge(self->fd, self->first + i));
	}
	start_call(&overseer, wait_watchers, self->fd, 0);
	finish_call(&overseer);
	EXPECT_EQ(0, overseer.result);
	test_set("hold", 0);
}

TEST_F(backend, last_generation_of_burst_reaches_notifier)
{
	struct caller poller;

	test_set("hold", 1);
	for (int i = 0; i < 1000; i++)
		trigger(self->fd, 0);
	acknowledge(self->fd, self->first + 1000);
	test_set("hold", 0);
	while (test_get("last_notified") != self->first + 1000)
		sched_yield();
	/* A late wake-up of that generation must not end the poll. */
	start_poller(&poller, self->fd);
	bump(self->fd);
	finish_call(&poller);
	EXPECT_EQ(POLLIN, poller.result);
	EXPECT_EQ(self->first + 1001, test_get("last_notified"));
}

TEST_HARNESS_MAIN
