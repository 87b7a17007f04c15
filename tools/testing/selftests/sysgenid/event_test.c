// SPDX-License-Identifier: GPL-2.0
/*
 * What tells people, scripts and udev of the generation: uevents, of which a
 * burst loses none silently, the attributes in sysfs, and fdinfo.
 */
#include "device.h"

#include <linux/netlink.h>

#define BURST 2000

struct event {
	uint32_t generation;
	uint32_t merged;	/* earlier ones that it stands for */
};

FIXTURE(event) {
	int fd;
	int netlink;
};

FIXTURE_SETUP(event)
{
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK, .nl_groups = 1 };
	int room = 16 << 20;

	self->fd = open_device(O_RDWR | O_NONBLOCK);
	self->netlink = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);
	ASSERT_LE(0, self->netlink);
	ASSERT_EQ(0, setsockopt(self->netlink, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)));
	ASSERT_EQ(0, bind(self->netlink, (struct sockaddr *)&kernel, sizeof(kernel)));
}

FIXTURE_TEARDOWN(event)
{
	close(self->netlink);
	close(self->fd);
}

/* The value of NAME=value among an event's strings; "": it has none. */
static const char *property(const char *strings, const char *end, const char *name)
{
	size_t length = strlen(name);

	for (; strings < end; strings += strlen(strings) + 1)
		if (!strncmp(strings, name, length) && strings[length] == '=')
			return strings + length + 1;
	return "";
}

/* Waits for the next event of the device that is not older than this. */
static struct event next_event(int netlink, uint32_t oldest)
{
	char strings[4096];
	struct event event;
	const char *end;
	ssize_t size;

	do {
		size = recv(netlink, strings, sizeof(strings) - 1, 0);
		if (size < 0)
			err(1, "recv");
		strings[size] = '\0';
		end = strings + size;
		event.generation = strtoul(property(strings, end, "SYSGENID_GENERATION"), NULL, 10);
		event.merged = strtoul(property(strings, end, "SYSGENID_MERGED"), NULL, 10);
	} while (strcmp(property(strings, end, "DEVNAME"), "sysgenid") ||
		 strcmp(property(strings, end, "SUBSYSTEM"), "misc") ||
		 strcmp(property(strings, end, "ACTION"), "change") ||
		 event.generation < oldest);
	return event;
}

TEST_F(event, each_generation_is_announced)
{
	for (int i = 0; i < 10; i++) {
		uint32_t generation = bump(self->fd);
		struct event event = next_event(self->netlink, generation - i);

		EXPECT_EQ(generation, event.generation);
		EXPECT_EQ(0, event.merged);
	}
}

TEST_F(event, burst_ends_with_the_last_and_none_is_lost_silently)
{
	uint32_t first = get_generation(self->fd), last = first;
	struct event event;

	for (int i = 0; i < BURST; i++)
		ASSERT_EQ(0, trigger(self->fd, 0));
	while (last != first + BURST) {
		event = next_event(self->netlink, first + 1);
		/* In order, and those left out are counted. */
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

TEST_F(event, bursts_from_two_sides_are_all_accounted_for)
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

TEST_F(event, generation_that_is_skipped_to_is_announced)
{
	uint32_t first = get_generation(self->fd);

	ASSERT_EQ(0, trigger(self->fd, first + 100));
	EXPECT_EQ(first + 100, next_event(self->netlink, first + 1).generation);
}

/* sysfs */

TEST_F(event, attributes_are_for_everybody_to_read)
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

/* Checks a file's whole text. */
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

TEST_F(event, attributes_are_numbers_and_a_newline)
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

TEST_F(event, fdinfo_shows_who_is_outdated)
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
