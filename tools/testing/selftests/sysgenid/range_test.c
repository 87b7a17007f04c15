// SPDX-License-Identifier: GPL-2.0
/*
 * The end of the counter's range: the counter never goes back, and software cannot use up
 * the generations reserved for hardware. Each test reloads the module, which resets the
 * counter to 0.
 */
#include "modules.h"

#include <limits.h>

FIXTURE(range) {
	int fd;
	const volatile uint32_t *counter;
};

FIXTURE_SETUP(range)
{
	if (module_users() < 0)
		SKIP(return, "sysgenid is built into this kernel");
	ASSERT_TRUE(reload_modules());
	self->fd = open_device(O_RDWR | O_NONBLOCK);
	self->counter = map_counter(self->fd);
}

FIXTURE_TEARDOWN(range)
{
	munmap((void *)self->counter, page_size());
	close(self->fd);
	EXPECT_TRUE(reload_modules());
}

TEST_F(range, counter_starts_at_0)
{
	EXPECT_EQ(0, *self->counter);
	EXPECT_EQ(0, get_generation(self->fd));
	EXPECT_FALSE(is_readable(self->fd));
}

#if ULONG_MAX > UINT_MAX
TEST_F(range, minimum_over_32_bits_is_EINVAL)
{
	static const unsigned long minima[] = {
		1UL << 32, (1UL << 32) + 1, 1UL << 40, LONG_MAX, LONG_MAX + 1UL, ULONG_MAX,
	};

	for (size_t i = 0; i < ARRAY_SIZE(minima); i++)
		EXPECT_FAILS(EINVAL, trigger(self->fd, minima[i]));
	EXPECT_EQ(0, *self->counter);
	EXPECT_FALSE(is_readable(self->fd));
}
#endif

TEST_F(range, minimum_in_hardware_range_is_EINVAL)
{
	EXPECT_FAILS(EINVAL, trigger(self->fd, SYSGENID_TRIGGER_MAX + 1UL));
	EXPECT_FAILS(EINVAL, trigger(self->fd, UINT_MAX));
	EXPECT_EQ(0, *self->counter);
}

TEST_F(range, generation_after_INT_MAX_is_greater)
{
	EXPECT_EQ(0, trigger(self->fd, INT_MAX));
	EXPECT_EQ(INT_MAX, *self->counter);
	EXPECT_EQ(0, trigger(self->fd, 0));
	EXPECT_EQ(2147483648U, *self->counter);
	EXPECT_EQ(2147483648LL, number_in(SYSFS "generation", ""));
	EXPECT_EQ(0, trigger(self->fd, 1));
	EXPECT_EQ(2147483649U, *self->counter);
}

TEST_F(range, generation_over_INT_MAX_can_be_read_and_acknowledged)
{
	uint32_t generation = 0;

	set_tracking(self->fd, 1);
	EXPECT_EQ(0, trigger(self->fd, 3000000000U));
	EXPECT_EQ(4, read(self->fd, &generation, 4));
	EXPECT_EQ(3000000000U, generation);
	EXPECT_EQ(1, outdated());
	EXPECT_EQ(4, acknowledge(self->fd, generation));
	EXPECT_EQ(0, outdated());
	EXPECT_EQ(3000000000LL, fdinfo(self->fd, "sysgenid-acknowledged:"));
}

TEST_F(range, trigger_stops_at_maximum)
{
	EXPECT_EQ(0, trigger(self->fd, SYSGENID_TRIGGER_MAX - 1));
	EXPECT_EQ(0, trigger(self->fd, 0));
	EXPECT_EQ(SYSGENID_TRIGGER_MAX, *self->counter);
	EXPECT_FAILS(EOVERFLOW, trigger(self->fd, 0));
	EXPECT_FAILS(EOVERFLOW, trigger(self->fd, SYSGENID_TRIGGER_MAX));
	EXPECT_FAILS(EINVAL, trigger(self->fd, SYSGENID_TRIGGER_MAX + 1UL));
	EXPECT_EQ(SYSGENID_TRIGGER_MAX, *self->counter);
}

TEST_F(range, hardware_counts_beyond_trigger_maximum)
{
	ASSERT_EQ(0, trigger(self->fd, SYSGENID_TRIGGER_MAX));
	for (uint32_t i = 1; i <= 3; i++) {
		test_set("hardware", i);
		EXPECT_EQ(SYSGENID_TRIGGER_MAX + i, get_generation(self->fd));
		EXPECT_FAILS(EOVERFLOW, trigger(self->fd, 0));
	}
	EXPECT_TRUE(is_readable(self->fd));
	EXPECT_EQ(4, acknowledge(self->fd, SYSGENID_TRIGGER_MAX + 3));
	EXPECT_FALSE(is_readable(self->fd));
}

/* The test writes the counter's page itself, as counting up would take hours. */
TEST_F(range, last_generation_stays)
{
	EXPECT_EQ(0, *self->counter);
	test_set("counter", (uintptr_t)self->counter);
	for (int i = 0; i < 3; i++) {
		test_set("bump", 1);
		EXPECT_EQ(UINT_MAX, *self->counter);
		EXPECT_EQ(UINT_MAX, get_generation(self->fd));
	}
	EXPECT_FAILS(EOVERFLOW, trigger(self->fd, 0));
	EXPECT_TRUE(is_readable(self->fd));
	EXPECT_EQ(4, acknowledge(self->fd, UINT_MAX));
	EXPECT_FALSE(is_readable(self->fd));
}

TEST_HARNESS_MAIN
