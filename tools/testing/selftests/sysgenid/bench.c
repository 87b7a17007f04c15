// SPDX-License-Identifier: GPL-2.0
/*
 * Measures the device's costs: its calls, the look before a draw, a bump with up to 100,000
 * watchers, their wake-ups, and a descriptor's memory. Measures the same of an eventfd, for
 * comparison, and the longest time with interrupts or preemption off, also while a new GUID
 * is handled.
 *
 * Prints "# NAME VALUE UNIT" for each figure. Time is checked only if a nanosecond is an
 * instruction: qemu -icount shift=0,sleep=off -rtc base=2026-01-01,clock=vm.
 */
#include "memory.h"
#include "modules.h"
#include "uevent.h"

#include <limits.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/param.h>
#include <sys/random.h>
#include <time.h>

#include <sysgenid.h>

#define GUID_ADDRESS "0x6000000"	/* of the tests' own generation ID, see bench.py */
#define WATCHERS 100000
#define BATCHES 25
#define CALLS 200		/* in a batch, which is shorter than a tick */
#define MOST_OFF 5000		/* instructions */
#define MOST_VISIBLE 2600	/* instructions, for a bump */
#define MOST_WAKE_UP 230	/* instructions, for a watcher; 211 on 6.1, 223 on 6.12 */
#define SOME_WATCHERS 10000	/* number of woken watchers for that figure */
#define MOST_HANDLING 30000	/* instructions with interrupts off, for an event */
#define MOST_MEMORY 64		/* bytes for a descriptor, beyond those of struct file */

static long long now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void two_hundred_thousand_instructions(void)
{
	unsigned long left = 100000;

	asm volatile("1: dec %0; jnz 1b" : "+r" (left) : : "cc");
}

/* Returns the cost of one call in ns: the best of many batches, as other tasks interfere. */
static long long cost(void (*call)(void), int calls)
{
	long long best = -1;

	for (int batch = 0; batch < BATCHES; batch++) {
		long long start = now(), took;

		for (int i = 0; i < calls; i++)
			call();
		took = (now() - start) / calls;
		if (best < 0 || took < best)
			best = took;
	}
	return best;
}

static bool nanosecond_is_instruction(void)
{
	long long took = cost(two_hundred_thousand_instructions, 1);

	return took > 199000 && took < 201000;
}

#define SKIP_WITHOUT_INSTRUCTIONS() do { \
	if (!nanosecond_is_instruction()) \
		SKIP(return, "a nanosecond is not an instruction here"); \
} while (0)

static void figure(const char *name, long long value, const char *unit)
{
	printf("# %s %lld %s\n", name, value, unit);
	fflush(stdout);
}

/* Calls */

#define GENERATION "/sys/class/misc/sysgenid/generation"

static int device;		/* or an eventfd */
static int attribute;
static const volatile uint32_t *counter;

static void call_nothing(void)
{
	syscall(SYS_getppid);
}

static void read_call(void)
{
	uint64_t value;

	syscall(SYS_read, device, &value, sizeof(value));
}

static void poll_call(void)
{
	struct pollfd pollfd = { .fd = device, .events = POLLIN };

	syscall(SYS_poll, &pollfd, 1, 0);
}

static void call_write(void)
{
	uint32_t generation = *counter;

	syscall(SYS_write, device, &generation, 4);
}

static void call_get_generation(void)
{
	uint32_t generation;

	syscall(SYS_ioctl, device, SYSGENID_GET_GENERATION, &generation);
}

static void call_open_and_close(void)
{
	syscall(SYS_close, syscall(SYS_open, DEVICE, O_RDWR));
}

static void read_attribute(void)
{
	char text[16];

	syscall(SYS_pread64, attribute, text, sizeof(text), 0);
}

static void open_and_read_attribute(void)
{
	attribute = syscall(SYS_open, GENERATION, O_RDONLY);
	read_attribute();
	syscall(SYS_close, attribute);
}

static void load(void)
{
	(void)*counter;
}

TEST(calls_stay_within_110_percent_of_simple_driver)
{
	/* simple: the instructions that a simple driver takes; 0: no such call. */
	static const struct {
		const char *name;
		void (*call)(void);
		long long simple;
	} calls[] = {
		{ "bare_system_call", call_nothing, 0 },
		{ "read_without_news", read_call, 626 },
		{ "poll", poll_call, 800 },
		{ "write", call_write, 727 },
		{ "get_generation", call_get_generation, 0 },
		{ "open_and_close", call_open_and_close, 10630 },
	};

	device = open_device(O_RDWR | O_NONBLOCK);
	counter = map_counter(device);
	SKIP_WITHOUT_INSTRUCTIONS();
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
		long long took = cost(calls[i].call, CALLS);

		figure(calls[i].name, took, "instructions");
		if (calls[i].simple)
			EXPECT_LE(took * 10, calls[i].simple * 11);
	}
}

#define LOOKS "/sys/module/vm_generation_id/parameters/looks"

static void draw_16_bytes(void)
{
	char bytes[16];

	syscall(SYS_getrandom, bytes, sizeof(bytes), 0);
}

TEST(look_costs_at_most_3_percent_of_draw)
{
	long long with, without;

	SKIP_WITHOUT_INSTRUCTIONS();
	if (!put_word(LOOKS, "on"))
		SKIP(return, "this kernel has no looks");
	with = cost(draw_16_bytes, CALLS);
	ASSERT_TRUE(put_word(LOOKS, "off"));
	without = cost(draw_16_bytes, CALLS);
	ASSERT_TRUE(put_word(LOOKS, "on"));
	figure("draw_of_16_bytes_without_look", without, "instructions");
	figure("draw_of_16_bytes_with_look", with, "instructions");
	EXPECT_LT(without, with);
	EXPECT_LE(with * 100, without * 103);
}

TEST(other_interfaces_are_measured_for_comparison)
{
	device = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	attribute = open(GENERATION, O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, device);
	ASSERT_LE(0, attribute);
	SKIP_WITHOUT_INSTRUCTIONS();
	figure("eventfd_read_without_news", cost(read_call, CALLS), "instructions");
	figure("eventfd_poll", cost(poll_call, CALLS), "instructions");
	figure("sysfs_read", cost(read_attribute, CALLS), "instructions");
	close(attribute);
	figure("sysfs_open_read_close", cost(open_and_read_attribute, CALLS), "instructions");
}

TEST(mapped_load_costs_as_much_as_memory)
{
	static const uint32_t memory = 1;
	long long mapped, ordinary;

	counter = map_counter(open_device(O_RDONLY));
	SKIP_WITHOUT_INSTRUCTIONS();
	mapped = cost(load, CALLS);
	counter = &memory;
	ordinary = cost(load, CALLS);
	figure("load_of_mapped_counter", mapped, "instructions");
	figure("load_of_ordinary_memory", ordinary, "instructions");
	EXPECT_EQ(ordinary, mapped);
}

/*
 * The library's check, compared with a check of one word through a pointer that a shared
 * library exports. The latter loads the pointer's address, the pointer, the word, and the
 * word seen before.
 */
#define MOST_MORE 12		/* instructions */
#define CHECKS 20000		/* in a batch */

static const volatile void *one_word;
static const volatile void **volatile exported = &one_word;
static uint64_t one_seen;
static struct sysgenid_seen seen;

static __attribute__((noipa)) int one_word_changed(uint64_t *before)
{
	uint64_t now = *(const volatile uint64_t *)*exported;

	if (__builtin_expect(now == *before, 1))
		return 0;
	*before = now;
	return 1;
}

static __attribute__((noipa)) int library_changed(const struct sysgenid_seen *before)
{
	return sysgenid_changed(before, NULL);
}

static void check_one_word(void)
{
	one_word_changed(&one_seen);
}

static void check_by_library(void)
{
	library_changed(&seen);
}

TEST(inline_check_costs_at_most_12_more_instructions)
{
	long long one, library;

	one_word = map_counter(open_device(O_RDONLY));
	one_word_changed(&one_seen);
	ASSERT_EQ(1, sysgenid_changed(&seen, &seen));
	ASSERT_EQ(0, library_changed(&seen));
	SKIP_WITHOUT_INSTRUCTIONS();
	one = cost(check_one_word, CHECKS);
	library = cost(check_by_library, CHECKS);
	figure("check_of_one_word", one, "instructions");
	figure("check_by_libsysgenid", library, "instructions");
	EXPECT_GE(MOST_MORE, library - one);
}

TEST(descriptor_takes_at_most_64_extra_bytes)
{
	long long bytes;

	if (!have_memory_groups())
		SKIP(return, "this kernel has no memory control groups: %s", strerror(errno));
	bytes = slab_of_descriptors("full", DEVICE) - slab_of_descriptors("empty", "/dev/null");
	bytes = (bytes + DESCRIPTORS - 1) / DESCRIPTORS;
	figure("memory_of_a_descriptor", bytes, "bytes");
	EXPECT_LE(bytes, MOST_MEMORY);
}

/* A bump without watchers, and with very many */

FIXTURE(crowd) {
	int fd;			/* triggers the generations */
	int epoll;
	int watchers;		/* number of descriptors in the epoll set */
};

FIXTURE_SETUP(crowd)
{
	struct rlimit limit = { WATCHERS + 64, WATCHERS + 64 };

	ASSERT_TRUE(put_word("/proc/sys/fs/epoll/max_user_watches", "1000000"));
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &limit));
	self->fd = open_device(O_RDONLY);
	self->epoll = epoll_create1(EPOLL_CLOEXEC);
	self->watchers = 0;
}

FIXTURE_TEARDOWN(crowd)
{
}

static void add_to_epoll(FIXTURE_DATA(crowd) *self, int fd)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLET };

	if (epoll_ctl(self->epoll, EPOLL_CTL_ADD, fd, &event))
		err(1, "epoll_ctl");
	self->watchers++;
}

static void add_watchers(FIXTURE_DATA(crowd) *self, int number)
{
	while (self->watchers < number)
		add_to_epoll(self, open_device(O_RDONLY));
}

static void await_wake_ups(FIXTURE_DATA(crowd) *self)
{
	struct epoll_event events[256];
	int left = self->watchers;

	while (left) {
		int woken = epoll_wait(self->epoll, events, ARRAY_SIZE(events), -1);

		if (woken < 0)
			err(1, "epoll_wait");
		left -= woken;
	}
	/* The kernel's worker sends the uevent after the wake-ups. */
	usleep(10000);
}

static void be_real_time(bool on)
{
	struct sched_param priority = { .sched_priority = on };

	if (sched_setscheduler(0, on ? SCHED_FIFO : SCHED_OTHER, &priority))
		err(1, "sched_setscheduler");
}

static int compare_times(const void *left, const void *right)
{
	const long long *a = left, *b = right;

	return *a < *b ? -1 : *a > *b;
}

/*
 * Returns the time from the trigger until its caller sees the new generation: the median,
 * as other tasks interfere now and then. A real-time caller sees it before the wake-ups.
 */
static long long time_to_visible(FIXTURE_DATA(crowd) *self)
{
	const volatile uint32_t *page = map_counter(self->fd);
	long long took[9];

	for (size_t i = 0; i < ARRAY_SIZE(took); i++) {
		uint32_t before = *page;
		long long start;

		be_real_time(true);
		start = now();
		if (trigger(self->fd, 0) || *page == before)
			err(1, "SYSGENID_TRIGGER_GEN_UPDATE");
		took[i] = now() - start;
		be_real_time(false);
		await_wake_ups(self);
	}
	munmap((void *)page, page_size());
	qsort(took, ARRAY_SIZE(took), sizeof(*took), compare_times);
	return took[ARRAY_SIZE(took) / 2];
}

/* Returns the best time from the trigger to its uevent, which follows all wake-ups. */
static long long time_to_uevent(FIXTURE_DATA(crowd) *self, int netlink)
{
	long long best = LLONG_MAX;

	for (int i = 0; i < 5; i++) {
		long long start = now();

		next_event(netlink, bump(self->fd));
		best = MIN(best, now() - start);
		await_wake_ups(self);
	}
	return best;
}

/* The numbers of watchers to measure with. */
static const int crowds[] = { 0, 10, 100, 1000, SOME_WATCHERS, WATCHERS };

static void figure_of_crowd(const char *format, int watchers, long long value)
{
	char name[64];

	snprintf(name, sizeof(name), format, watchers);
	figure(name, value, "instructions");
}

TEST_F_TIMEOUT(crowd, watchers_do_not_delay_visible_bump, 300)
{
	long long without = 0;

	SKIP_WITHOUT_INSTRUCTIONS();
	for (size_t i = 0; i < ARRAY_SIZE(crowds); i++) {
		long long with;

		add_watchers(self, crowds[i]);
		with = time_to_visible(self);
		figure_of_crowd("bump_visible_with_%d_watchers", crowds[i], with);
		without = without ?: with;
		EXPECT_GE(MOST_VISIBLE, with);
		EXPECT_LE(with * 10, without * 11);
		EXPECT_LE(without * 10, with * 11);
	}
}

TEST_F_TIMEOUT(crowd, waking_watcher_costs_little_more_than_callback, 300)
{
	int netlink = open_uevents();
	long long without = 0;

	SKIP_WITHOUT_INSTRUCTIONS();
	for (size_t i = 0; i < ARRAY_SIZE(crowds); i++) {
		long long with;

		add_watchers(self, crowds[i]);
		with = time_to_uevent(self, netlink);
		figure_of_crowd("all_of_%d_watchers_woken", crowds[i], with);
		without = without ?: with;
		if (crowds[i] != SOME_WATCHERS)
			continue;
		figure("wake_up_of_a_watcher", (with - without) / SOME_WATCHERS, "instructions");
		EXPECT_LE((with - without) / SOME_WATCHERS, MOST_WAKE_UP);
	}
}

/* A single wait queue, which an eventfd wakes as a whole, with interrupts off. */
TEST_F_TIMEOUT(crowd, wake_ups_by_eventfd_are_measured_for_comparison, 300)
{
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	uint64_t value = 1;

	ASSERT_LE(0, fd);
	SKIP_WITHOUT_INSTRUCTIONS();
	for (size_t i = 0; i < ARRAY_SIZE(crowds); i++) {
		long long best = LLONG_MAX;

		while (self->watchers < crowds[i])
			add_to_epoll(self, dup(fd));
		for (int j = 0; j < 5; j++) {
			long long start = now();

			ASSERT_EQ(sizeof(value), write(fd, &value, sizeof(value)));
			best = MIN(best, now() - start);
			await_wake_ups(self);
			ASSERT_EQ(sizeof(value), read(fd, &value, sizeof(value)));
		}
		figure_of_crowd("all_of_%d_eventfd_watchers_woken", crowds[i], best);
	}
}

static long long latency_get(const char *name)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/kernel/debug/measure_latency/%s", name);
	return number_in(path, "");
}

static void latency_period(const char *period)
{
	if (!put_word("/sys/kernel/debug/measure_latency/period", period))
		err(1, "measure_latency/period");
}

/*
 * Busy-waits, so that other tasks can preempt it. Sleeping or epoll_wait() would add their
 * own time with preemption off to the measurement.
 */
static void stay_awake(long long ns)
{
	long long start = now();

	while (now() - start < ns)
		;
}

/* Returns whether all watchers are woken. */
static bool all_are_woken(FIXTURE_DATA(crowd) *self)
{
	struct epoll_event *events = calloc(self->watchers, sizeof(*events));
	int woken = epoll_wait(self->epoll, events, self->watchers, 0);

	free(events);
	return woken == self->watchers;
}

TEST_F_TIMEOUT(crowd, interrupts_and_preemption_are_never_off_for_long, 300)
{
	long long interrupt = LLONG_MAX, thread = LLONG_MAX;

	SKIP_WITHOUT_INSTRUCTIONS();
	if (!load_module("measure_latency", ""))
		SKIP(return, "measure_latency can't be loaded");
	/* Voluntary preemption would add the time up to the next preemption point. */
	if (!put_word("/sys/kernel/debug/sched/preempt", "full"))
		SKIP(return, "this kernel can't be made fully preemptible");

	add_watchers(self, WATCHERS);
	/* Take the best of three bumps, as paging and the like interfere. */
	for (int i = 0; i < 3; i++) {
		latency_period("9973");
		trigger(self->fd, 0);
		stay_awake(250000000);
		latency_period("0");
		ASSERT_TRUE(all_are_woken(self));
		ASSERT_LT(1000, latency_get("samples"));
		interrupt = MIN(interrupt, latency_get("interrupt"));
		thread = MIN(thread, latency_get("thread"));
	}
	figure("longest_interrupts_off", interrupt, "instructions");
	figure("longest_preemption_off", thread, "instructions");
	EXPECT_GT(MOST_OFF, interrupt);
	EXPECT_GT(MOST_OFF, thread);
	unload_module("measure_latency");
}

/* Has write_guid.ko write a GUID: order is the pieces' size and their interval in ns. */
static void write_guid(const char *order)
{
	static const char path[] = "/sys/module/write_guid/parameters/write";

	if (!put_word(path, order))
		err(1, "%s", path);
	do
		draw_16_bytes();
	while (number_in(path, ""));
}

/* A draw, a tick, a timer or a system call detects the GUID; one function handles it. */
TEST_F_TIMEOUT(crowd, interrupts_are_off_for_bounded_time_while_guid_is_handled, 300)
{
	static const char * const orders[] = { "16 0", "8 10000", "8 900000", "1 5000" };
	uint32_t before = get_generation(self->fd);
	long long interrupt = LLONG_MAX;

	SKIP_WITHOUT_INSTRUCTIONS();
	if (!load_module("measure_latency", ""))
		SKIP(return, "measure_latency can't be loaded");
	if (!load_module("write_guid", "address=" GUID_ADDRESS))
		SKIP(return, "this guest has no writable GUID");

	for (int i = 0; i < 3; i++) {
		latency_period("9973");
		for (size_t j = 0; j < 200; j++)
			write_guid(orders[j % ARRAY_SIZE(orders)]);
		latency_period("0");
		ASSERT_LT(1000, latency_get("samples"));
		interrupt = MIN(interrupt, latency_get("interrupt"));
	}
	ASSERT_LT(before, get_generation(self->fd));
	figure("longest_interrupts_off_for_a_new_guid", interrupt, "instructions");
	EXPECT_GT(MOST_HANDLING, interrupt);
	unload_module("write_guid");
	unload_module("measure_latency");
}

TEST_HARNESS_MAIN
