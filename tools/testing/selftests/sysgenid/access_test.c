// SPDX-License-Identifier: GPL-2.0
/*
 * Permissions: everybody may read, only writers may be tracked, and triggering takes a
 * capability in the initial user namespace. Memory is charged to the opener.
 */
#include "memory.h"

#include <linux/capability.h>
#include <sys/prctl.h>

#ifndef CAP_CHECKPOINT_RESTORE
#define CAP_CHECKPOINT_RESTORE 40
#endif

#define NOBODY 65534

/* Drops all but these capabilities. */
static void keep_capabilities(uint64_t set)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = {
		{ .effective = set, .permitted = set },
		{ .effective = set >> 32, .permitted = set >> 32 },
	};

	if (syscall(SYS_capset, &header, data))
		err(1, "capset");
}

static void become_nobody(void)
{
	if (setresgid(NOBODY, NOBODY, NOBODY) || setresuid(NOBODY, NOBODY, NOBODY))
		err(1, "setresuid");
}

static uint64_t all_capabilities(void)
{
	uint64_t set = 0;

	for (int capability = 0; prctl(PR_CAPBSET_READ, capability) >= 0; capability++)
		set |= 1ULL << capability;
	return set;
}

FIXTURE(access) {
	int fd;			/* opened as root */
	uint32_t first;
};

FIXTURE_SETUP(access)
{
	self->fd = open_device(O_RDWR | O_NONBLOCK);
	self->first = get_generation(self->fd);
}

FIXTURE_TEARDOWN(access)
{
	close(self->fd);
}

TEST_F(access, trigger_without_capability_is_EACCES)
{
	become_nobody();
	EXPECT_FAILS(EACCES, trigger(self->fd, 0));
	EXPECT_EQ(self->first, get_generation(self->fd));
}

TEST_F(access, capability_is_checked_before_minimum)
{
	become_nobody();
	EXPECT_FAILS(EACCES, trigger(self->fd, -1UL));
}

TEST_F(access, trigger_accepts_CAP_CHECKPOINT_RESTORE)
{
	keep_capabilities(1ULL << CAP_CHECKPOINT_RESTORE);
	EXPECT_EQ(0, trigger(self->fd, 0));
}

TEST_F(access, trigger_accepts_CAP_SYS_ADMIN)
{
	keep_capabilities(1ULL << CAP_SYS_ADMIN);
	EXPECT_EQ(0, trigger(self->fd, 0));
}

TEST_F(access, other_capabilities_may_not_trigger)
{
	keep_capabilities(all_capabilities() & ~(1ULL << CAP_CHECKPOINT_RESTORE) &
			  ~(1ULL << CAP_SYS_ADMIN));
	EXPECT_FAILS(EACCES, trigger(self->fd, 0));
}

TEST_F(access, capabilities_in_user_namespace_may_not_trigger)
{
	become_nobody();
	if (unshare(CLONE_NEWUSER))
		SKIP(return, "users may not create user namespaces: %s", strerror(errno));
	EXPECT_FAILS(EACCES, trigger(self->fd, 0));
	EXPECT_FAILS(EACCES, trigger(open_device(O_RDONLY), 0));
	EXPECT_EQ(self->first, get_generation(self->fd));
}

TEST_F(access, root_in_own_namespace_may_not_trigger)
{
	if (unshare(CLONE_NEWUSER))
		SKIP(return, "this kernel has no user namespaces: %s", strerror(errno));
	EXPECT_FAILS(EACCES, trigger(self->fd, 0));
}

TEST_F(access, nobody_may_map_poll_wait_and_get)
{
	int fd;

	become_nobody();
	fd = open_device(O_RDONLY);
	EXPECT_EQ(self->first, *map_counter(fd));
	EXPECT_EQ(self->first, get_generation(fd));
	EXPECT_FALSE(is_readable(fd));
	EXPECT_EQ(0, wait_watchers(fd, 0));
}

TEST_F(access, nobody_may_read_and_is_woken)
{
	pid_t child = fork();

	if (!child) {
		become_nobody();
		_exit(call_read(open_device(O_RDONLY), 4) != (int)self->first + 1);
	}
	wait_asleep(child, SYS_read);
	bump(self->fd);
	EXPECT_TRUE(succeeds(child));
}

TEST_F(access, nobody_may_not_acknowledge_or_be_tracked)
{
	int fd;

	become_nobody();
	EXPECT_FAILS(EACCES, open(DEVICE, O_RDWR));
	EXPECT_FAILS(EACCES, open(DEVICE, O_WRONLY));
	fd = open_device(O_RDONLY);
	EXPECT_FAILS(EBADF, acknowledge(fd, self->first));
	EXPECT_FAILS(EBADF, set_tracking(fd, 1));
}

TEST_F(access, descriptor_from_root_can_acknowledge_and_be_tracked)
{
	uint32_t generation = bump(self->fd);

	become_nobody();
	EXPECT_EQ(0, set_tracking(self->fd, 1));
	EXPECT_EQ(1, outdated());
	EXPECT_EQ(4, acknowledge(self->fd, generation));
	EXPECT_EQ(0, outdated());
}

TEST_F(access, descriptor_memory_is_charged_to_opener)
{
	long long empty, full;

	if (!have_memory_groups())
		SKIP(return, "this kernel has no memory control groups: %s", strerror(errno));
	empty = slab_of_descriptors("empty", "/dev/null");
	full = slab_of_descriptors("full", DEVICE);
	/* A descriptor's state takes at least a few words. */
	EXPECT_LE(empty + DESCRIPTORS * 32, full);
}

TEST_HARNESS_MAIN
