// SPDX-License-Identifier: GPL-2.0
/*
 * The generation as people, scripts and udev see it: uevents, of which a burst loses none
 * silently, attributes in sysfs, and fdinfo.
 */
#include "uevent.h"

#define BURST 2000

FIXTURE(event) {
	int fd;
	int netlink;
};

FIXTURE_SETUP(event)
{
	self->fd = open_device(O_RDWR | O_NONBLOCK);
	self->netlink = open_uevents();
}

FIXTURE_TEARDOWN(event)
{
	close(self->netlink);
	close(self->fd);
}

TEST_F(event, each_generation_sends_uevent)
{
	for (int i = 0; i < 10; i++) {
		uint32_t generation = bump(self->fd);
		struct event event = next_event(self->netlink, generation - i);

		EXPECT_EQ(generation, event.generation);
		EXPECT_EQ(0, event.merged);
	}
}

TEST_F(event, burst_loses_no_generation_silently)
{
	uint32_t first = get_generation(self->fd), last = first;
	struct event event;

	for (int i = 0; i < BURST; i++)
		ASSERT_EQ(0, trigger(self->fd, 0));
	while (last != first + BURST) {
		event = next_event(self->netlink, first + 1);
		/* Events come in order, and count those merged into them. */
		ASSERT_LT(last, event.generation);
		ASSERT_EQ(event.generation - last - 1, event.merged);
		last = event.generation;
	}
	EXPECT_EQ(first + BURST, get_generation(self->fd));
}

static int call_burst(int fd, unsigned long count)
{
	while (count--)
		trigger(fd, 0);
	return 0;
}

TEST_F(event, concurrent_bursts_are_all_counted)
{
	uint32_t first = get_generation(self->fd), seen = 0;
	struct caller callers[2];
	struct event event;

	for (int i = 0; i < 2; i++)
		start_call(&callers[i], call_burst, self->fd, BURST);
	do {
		event = next_event(self->netlink, first + 1);
		seen += 1 + event.merged;
	} while (event.generation != first + 2 * BURST);
	for (int i = 0; i < 2; i++)
		finish_call(&callers[i]);
	EXPECT_EQ(2 * BURST, seen);
}

TEST_F(event, jump_to_minimum_sends_uevent)
{
	uint32_t first = get_generation(self->fd);

	ASSERT_EQ(0, trigger(self->fd, first + 100));
	EXPECT_EQ(first + 100, next_event(self->netlink, first + 1).generation);
}

/* sysfs */

TEST_F(event, everybody_may_read_attributes)
{
	static const char *const paths[] = {
		SYSFS "generation", SYSFS "watchers", SYSFS "outdated", SYSFS "source",
	};
	struct stat status;

	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		ASSERT_EQ(0, stat(paths[i], &status));
		EXPECT_EQ(S_IFREG | 0444, status.st_mode);
	}
}

/* Returns whether a file's whole text is this. */
static bool file_says(const char *path, const char *text)
{
	char buffer[256];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t size = read(fd, buffer, sizeof(buffer) - 1);

	close(fd);
	if (size < 0)
		return false;
	buffer[size] = '\0';
	return !strcmp(buffer, text);
}

TEST_F(event, attributes_are_number_and_newline)
{
	char generation[16];

	snprintf(generation, sizeof(generation), "%u\n", bump(self->fd));
	EXPECT_TRUE(file_says(SYSFS "generation", generation));
	EXPECT_TRUE(file_says(SYSFS "watchers", "0\n"));
	EXPECT_TRUE(file_says(SYSFS "outdated", "0\n"));
	set_tracking(self->fd, 1);
	EXPECT_TRUE(file_says(SYSFS "watchers", "1\n"));
	EXPECT_TRUE(file_says(SYSFS "outdated", "1\n"));
}

TEST_F(event, fdinfo_shows_acknowledged_and_tracked)
{
	uint32_t before = get_generation(self->fd);

	bump(self->fd);
	set_tracking(self->fd, 1);
	EXPECT_EQ(before, fdinfo(self->fd, "sysgenid-acknowledged:\t"));
	EXPECT_EQ(1, fdinfo(self->fd, "sysgenid-tracked:\t"));
	acknowledge(self->fd, before + 1);
	set_tracking(self->fd, 0);
	EXPECT_EQ(before + 1, fdinfo(self->fd, "sysgenid-acknowledged:\t"));
	EXPECT_EQ(0, fdinfo(self->fd, "sysgenid-tracked:\t"));
}

TEST_HARNESS_MAIN
