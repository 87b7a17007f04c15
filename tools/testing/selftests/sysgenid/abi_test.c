// SPDX-License-Identifier: GPL-2.0
/*
 * The system calls of /dev/sysgenid, one promise per test. Also built as a 32-bit program.
 */
#include "device.h"

#include <sys/epoll.h>
#include <sys/select.h>
#include <termios.h>

/* volatile: the compiler would warn of a known bad pointer. */
static void *volatile bad_pointer = (void *)1;

FIXTURE(device) {
	int fd;
	uint32_t first;		/* the generation at the test's start */
};

FIXTURE_SETUP(device)
{
	self->fd = open_device(O_RDWR | O_NONBLOCK);
	self->first = get_generation(self->fd);
}

FIXTURE_TEARDOWN(device)
{
	close(self->fd);
}

/* open() */

TEST_F(device, open_acknowledges_current_generation)
{
	int late;

	bump(self->fd);
	late = open_device(O_RDONLY);
	EXPECT_TRUE(is_readable(self->fd));
	EXPECT_FALSE(is_readable(late));
}

TEST_F(device, everybody_may_read_and_root_may_write)
{
	struct stat status;

	ASSERT_EQ(0, stat(DEVICE, &status));
	EXPECT_EQ(S_IFCHR | 0644, status.st_mode);
	EXPECT_EQ(0, status.st_uid);
}

TEST_F(device, each_descriptor_acknowledges_for_itself)
{
	int other = open_device(O_RDWR);
	uint32_t generation = bump(self->fd);

	EXPECT_EQ(4, acknowledge(other, generation));
	EXPECT_FALSE(is_readable(other));
	EXPECT_TRUE(is_readable(self->fd));
}

TEST_F(device, duplicate_shares_acknowledgement)
{
	int duplicate = dup(self->fd);
	uint32_t generation = bump(self->fd);

	EXPECT_TRUE(is_readable(duplicate));
	EXPECT_EQ(4, acknowledge(duplicate, generation));
	EXPECT_FALSE(is_readable(self->fd));
}

TEST_F(device, child_shares_acknowledgement)
{
	uint32_t generation = bump(self->fd);
	pid_t child = fork();

	if (!child)
		_exit(acknowledge(self->fd, generation) != 4);
	EXPECT_TRUE(succeeds(child));
	EXPECT_FALSE(is_readable(self->fd));
}

/* read() */

TEST_F(device, read_of_0_bytes_returns_0)
{
	EXPECT_EQ(0, read(self->fd, bad_pointer, 0));
	bump(self->fd);
	EXPECT_EQ(0, read(self->fd, bad_pointer, 0));
}

TEST_F(device, short_read_is_EINVAL)
{
	char buffer[4];

	for (int news = 0; news < 2; news++) {
		for (size_t size = 1; size < 4; size++)
			EXPECT_FAILS(EINVAL, read(self->fd, buffer, size));
		bump(self->fd);
	}
}

TEST_F(device, nonblocking_read_is_EAGAIN_when_up_to_date)
{
	uint32_t buffer = 0x5a5a5a5a;

	EXPECT_FAILS(EAGAIN, read(self->fd, &buffer, sizeof(buffer)));
	EXPECT_EQ(0x5a5a5a5a, buffer);
}

TEST_F(device, read_returns_4_bytes_into_any_buffer)
{
	uint32_t generation = bump(self->fd);
	uint32_t buffer[1024];

	for (size_t size = 4; size <= sizeof(buffer); size *= 2) {
		memset(buffer, 0xff, sizeof(buffer));
		EXPECT_EQ(4, read(self->fd, buffer, size));
		EXPECT_EQ(generation, buffer[0]);
		EXPECT_EQ(UINT32_MAX, buffer[1]);
	}
}

TEST_F(device, read_repeats_until_acknowledged)
{
	uint32_t generation = bump(self->fd);

	for (int i = 0; i < 3; i++) {
		EXPECT_EQ((int)generation, call_read(self->fd, 4));
	}
	EXPECT_EQ(4, acknowledge(self->fd, generation));
	EXPECT_FAILS(EAGAIN, call_read(self->fd, 4));
}

TEST_F(device, read_returns_latest_generation)
{
	bump(self->fd);
	bump(self->fd);
	EXPECT_EQ((int)self->first + 2, call_read(self->fd, 4));
}

TEST_F(device, read_into_bad_buffer_is_EFAULT)
{
	bump(self->fd);
	EXPECT_FAILS(EFAULT, read(self->fd, bad_pointer, 4));
	EXPECT_TRUE(is_readable(self->fd));
}

TEST_F(device, bump_wakes_blocked_reader)
{
	struct caller reader;

	start_reader(&reader, open_device(O_RDONLY));
	bump(self->fd);
	finish_call(&reader);
	EXPECT_EQ((int)self->first + 1, reader.result);
}

TEST_F(device, bump_wakes_all_readers_of_descriptor)
{
	struct caller readers[3];
	int fd = open_device(O_RDONLY);

	for (int i = 0; i < 3; i++)
		start_reader(&readers[i], fd);
	bump(self->fd);
	for (int i = 0; i < 3; i++) {
		finish_call(&readers[i]);
		EXPECT_EQ((int)self->first + 1, readers[i].result);
	}
}

static void ignore_signal(int signal)
{
	(void)signal;
}

TEST_F(device, signal_ends_blocked_read_with_EINTR)
{
	struct caller reader;
	struct sigaction action = { .sa_handler = ignore_signal };

	sigaction(SIGUSR1, &action, NULL);
	start_reader(&reader, open_device(O_RDONLY));
	pthread_kill(reader.thread, SIGUSR1);
	finish_call(&reader);
	EXPECT_EQ(-1, reader.result);
	EXPECT_EQ(EINTR, reader.error);
}

static atomic_int signals;

static void count_signal(int signal)
{
	(void)signal;
	signals++;
}

TEST_F(device, blocked_read_restarts_after_signal_with_SA_RESTART)
{
	struct caller reader;
	struct sigaction action = { .sa_handler = count_signal, .sa_flags = SA_RESTART };

	sigaction(SIGUSR1, &action, NULL);
	start_reader(&reader, open_device(O_RDONLY));
	pthread_kill(reader.thread, SIGUSR1);
	while (!signals)
		sched_yield();
	wait_asleep(reader.task, SYS_read);
	bump(self->fd);
	finish_call(&reader);
	EXPECT_EQ((int)self->first + 1, reader.result);
}

TEST_F(device, nonblocking_mode_can_be_switched)
{
	int fd = open_device(O_RDONLY);
	struct caller reader;

	ASSERT_EQ(0, fcntl(fd, F_SETFL, O_NONBLOCK));
	EXPECT_FAILS(EAGAIN, call_read(fd, 4));
	ASSERT_EQ(0, fcntl(fd, F_SETFL, 0));
	start_reader(&reader, fd);
	bump(self->fd);
	finish_call(&reader);
	EXPECT_EQ((int)self->first + 1, reader.result);
}

TEST_F(device, write_only_descriptor_cannot_be_read)
{
	EXPECT_FAILS(EBADF, call_read(open_device(O_WRONLY), 4));
}

/* write() */

TEST_F(device, write_acknowledges_generation)
{
	uint32_t generation = bump(self->fd);

	EXPECT_EQ(4, acknowledge(self->fd, generation));
	EXPECT_FALSE(is_readable(self->fd));
	EXPECT_EQ(generation, fdinfo(self->fd, "sysgenid-acknowledged:"));
	EXPECT_EQ(4, acknowledge(self->fd, generation));
}

TEST_F(device, write_of_another_size_is_ENOBUFS)
{
	uint32_t generation[2] = { bump(self->fd) };

	for (size_t size = 0; size <= 8; size++)
		if (size != 4)
			EXPECT_FAILS(ENOBUFS, write(self->fd, generation, size));
	EXPECT_TRUE(is_readable(self->fd));
}

TEST_F(device, write_of_another_generation_is_EINVAL)
{
	uint32_t generation = bump(self->fd);

	EXPECT_FAILS(EINVAL, acknowledge(self->fd, self->first));
	EXPECT_FAILS(EINVAL, acknowledge(self->fd, generation + 1));
	EXPECT_FAILS(EINVAL, acknowledge(self->fd, ~generation));
	EXPECT_TRUE(is_readable(self->fd));
	EXPECT_EQ(self->first, fdinfo(self->fd, "sysgenid-acknowledged:"));
}

TEST_F(device, write_from_bad_buffer_is_EFAULT)
{
	bump(self->fd);
	EXPECT_FAILS(EFAULT, write(self->fd, bad_pointer, 4));
	EXPECT_TRUE(is_readable(self->fd));
}

TEST_F(device, write_accepts_mapped_counter_as_buffer)
{
	const volatile uint32_t *counter = map_counter(self->fd);

	bump(self->fd);
	EXPECT_EQ(4, write(self->fd, (const void *)counter, 4));
	EXPECT_FALSE(is_readable(self->fd));
}

TEST_F(device, read_only_descriptor_cannot_acknowledge)
{
	EXPECT_FAILS(EBADF, acknowledge(open_device(O_RDONLY), self->first));
}

/* poll(), select(), epoll */

TEST_F(device, poll_reports_input_until_acknowledged)
{
	struct pollfd pollfd = { .fd = self->fd, .events = ~0 };
	uint32_t generation;

	EXPECT_EQ(0, poll(&pollfd, 1, 0));
	generation = bump(self->fd);
	for (int i = 0; i < 2; i++) {
		EXPECT_EQ(1, poll(&pollfd, 1, 0));
		EXPECT_EQ(POLLIN | POLLRDNORM, pollfd.revents);
	}
	acknowledge(self->fd, generation);
	EXPECT_EQ(0, poll(&pollfd, 1, 0));
}

TEST_F(device, bump_wakes_poll)
{
	struct caller poller;

	start_poller(&poller, self->fd);
	bump(self->fd);
	finish_call(&poller);
	EXPECT_EQ(POLLIN, poller.result);
}

TEST_F(device, select_reports_new_generation)
{
	struct timeval now = { 0 };
	fd_set set;

	FD_ZERO(&set);
	FD_SET(self->fd, &set);
	EXPECT_EQ(0, select(self->fd + 1, &set, NULL, NULL, &now));
	bump(self->fd);
	FD_SET(self->fd, &set);
	EXPECT_EQ(1, select(self->fd + 1, &set, NULL, NULL, NULL));
}

static int new_epoll(int fd, uint32_t events)
{
	struct epoll_event event = { .events = events };
	int epoll = epoll_create1(EPOLL_CLOEXEC);

	if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event))
		err(1, "epoll");
	return epoll;
}

static int epoll_events(int epoll, int timeout)
{
	struct epoll_event event = { 0 };

	if (epoll_wait(epoll, &event, 1, timeout) < 0)
		err(1, "epoll_wait");
	return event.events;
}

TEST_F(device, level_triggered_epoll_reports_until_acknowledged)
{
	int epoll = new_epoll(self->fd, EPOLLIN);
	uint32_t generation;

	EXPECT_EQ(0, epoll_events(epoll, 0));
	generation = bump(self->fd);
	for (int i = 0; i < 3; i++) {
		EXPECT_EQ(EPOLLIN, epoll_events(epoll, -1));
	}
	acknowledge(self->fd, generation);
	EXPECT_EQ(0, epoll_events(epoll, 0));
}

TEST_F(device, edge_triggered_epoll_reports_each_generation)
{
	int epoll = new_epoll(self->fd, EPOLLIN | EPOLLET);

	for (int i = 0; i < 3; i++) {
		bump(self->fd);
		EXPECT_EQ(EPOLLIN, epoll_events(epoll, -1));
	}
}

TEST_F(device, epoll_reports_earlier_generation)
{
	bump(self->fd);
	EXPECT_EQ(EPOLLIN, epoll_events(new_epoll(self->fd, EPOLLIN | EPOLLET), 0));
}

TEST_F(device, bump_wakes_nested_epoll)
{
	int outer = new_epoll(new_epoll(self->fd, EPOLLIN), EPOLLIN);

	EXPECT_EQ(0, epoll_events(outer, 0));
	bump(self->fd);
	EXPECT_EQ(EPOLLIN, epoll_events(outer, -1));
}

/* mmap() */

TEST_F(device, mapping_shows_counter_and_zeros)
{
	const volatile uint32_t *page = map_counter(open_device(O_RDONLY));

	EXPECT_EQ(self->first, page[0]);
	for (size_t i = 1; i < page_size() / sizeof(*page); i++) {
		ASSERT_EQ(0, page[i]);
	}
}

TEST_F(device, mapping_changes_before_trigger_returns)
{
	const volatile uint32_t *page = map_counter(self->fd);

	ASSERT_EQ(self->first, *page);
	ASSERT_EQ(0, trigger(self->fd, 0));
	EXPECT_EQ(self->first + 1, *page);
}

TEST_F(device, private_mapping_changes_too)
{
	volatile uint32_t *page = mmap(NULL, page_size(), PROT_READ, MAP_PRIVATE, self->fd, 0);

	ASSERT_NE(MAP_FAILED, (void *)page);
	ASSERT_EQ(self->first, *page);
	ASSERT_EQ(0, trigger(self->fd, 0));
	EXPECT_EQ(self->first + 1, *page);
}

static void *map(int fd, size_t pages, int protection, int flags, size_t first_page)
{
	return mmap(NULL, pages * page_size(), protection, flags, fd, first_page * page_size());
}

TEST_F(device, writable_mapping_is_refused)
{
	EXPECT_FAILS(EPERM, map(self->fd, 1, PROT_READ | PROT_WRITE, MAP_SHARED, 0));
	EXPECT_FAILS(EPERM, map(self->fd, 1, PROT_WRITE, MAP_SHARED, 0));
	EXPECT_FAILS(EPERM, map(self->fd, 1, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0));
}

TEST_F(device, longer_mapping_is_EINVAL)
{
	EXPECT_FAILS(EINVAL, map(self->fd, 2, PROT_READ, MAP_SHARED, 0));
	EXPECT_FAILS(EINVAL, map(self->fd, 1000, PROT_READ, MAP_PRIVATE, 0));
}

TEST_F(device, mapping_past_second_page_is_EINVAL)
{
	EXPECT_FAILS(EINVAL, map(self->fd, 1, PROT_READ, MAP_SHARED, 2));
	EXPECT_FAILS(EINVAL, map(self->fd, 1, PROT_READ, MAP_SHARED, 1 << 16));
}

TEST_F(device, mapping_cannot_become_writable)
{
	void *shared = map(self->fd, 1, PROT_READ, MAP_SHARED, 0);
	void *private = map(self->fd, 1, PROT_READ, MAP_PRIVATE, 0);

	EXPECT_FAILS(EACCES, mprotect(shared, page_size(), PROT_READ | PROT_WRITE));
	EXPECT_FAILS(EACCES, mprotect(private, page_size(), PROT_READ | PROT_WRITE));
}

TEST_F(device, proc_mem_cannot_write_mapping)
{
	const volatile uint32_t *page = map_counter(self->fd);
	int memory = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	uint32_t other = ~self->first;

	ASSERT_LE(0, memory);
	EXPECT_EQ(-1, pwrite(memory, &other, sizeof(other), (off_t)(uintptr_t)page));
	EXPECT_EQ(self->first, *page);
}

TEST_F(device, mapping_outlives_descriptor)
{
	int fd = open_device(O_RDONLY);
	const volatile uint32_t *page = map_counter(fd);

	close(fd);
	EXPECT_EQ(self->first, *page);
	bump(self->fd);
	EXPECT_EQ(self->first + 1, *page);
}

TEST_F(device, mapping_keeps_module_loaded)
{
	long long before = module_users();
	int fd = open_device(O_RDONLY);
	const volatile uint32_t *page = map_counter(fd);

	if (before < 0)
		SKIP(return, "sysgenid is built into this kernel");
	close(fd);
	EXPECT_EQ(before + 1, module_users());
	munmap((void *)page, page_size());
	EXPECT_EQ(before, module_users());
}

TEST_F(device, child_inherits_mapping)
{
	const volatile uint32_t *page = map_counter(self->fd);
	pid_t child = fork();

	if (!child) {
		bump(self->fd);
		_exit(*page != self->first + 1);
	}
	EXPECT_TRUE(succeeds(child));
	EXPECT_EQ(self->first + 1, *page);
}

TEST_F(device, mapping_can_be_moved_but_not_grown)
{
	size_t size = page_size();
	void *place = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	void *page = (void *)map_counter(self->fd);

	EXPECT_FAILS(EFAULT, mremap(page, size, 2 * size, MREMAP_MAYMOVE));
	page = mremap(page, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, place);
	ASSERT_EQ(place, page);
	bump(self->fd);
	EXPECT_EQ(self->first + 1, *(volatile uint32_t *)page);
}

TEST_F(device, mapping_survives_MADV_DONTNEED)
{
	const volatile uint32_t *page = map_counter(self->fd);

	ASSERT_EQ(self->first, *page);
	ASSERT_EQ(0, madvise((void *)page, page_size(), MADV_DONTNEED));
	EXPECT_EQ(self->first, *page);
	bump(self->fd);
	EXPECT_EQ(self->first + 1, *page);
}

/* ioctl() */

TEST_F(device, unknown_ioctl_is_ENOTTY)
{
	EXPECT_FAILS(ENOTTY, ioctl(self->fd, _IO(SYSGENID_IOCTL, 0), 0));
	EXPECT_FAILS(ENOTTY, ioctl(self->fd, _IO(SYSGENID_IOCTL, 5), 0));
	EXPECT_FAILS(ENOTTY, ioctl(self->fd, _IO(SYSGENID_IOCTL + 1, 3), 0));
	EXPECT_FAILS(ENOTTY, ioctl(self->fd, _IOW(SYSGENID_IOCTL, 3, __u32), 0));
	EXPECT_FAILS(ENOTTY, ioctl(self->fd, _IOR(SYSGENID_IOCTL, 4, __u64), 0));
	EXPECT_FAILS(ENOTTY, ioctl(self->fd, TCGETS, 0));
	EXPECT_EQ(self->first, get_generation(self->fd));
}

TEST_F(device, get_generation_returns_counter)
{
	int fd = open_device(O_RDONLY);

	bump(self->fd);
	EXPECT_EQ(self->first + 1, get_generation(fd));
	EXPECT_EQ(self->first + 1, number_in(SYSFS "generation", ""));
	EXPECT_FAILS(EFAULT, ioctl(fd, SYSGENID_GET_GENERATION, bad_pointer));
}

TEST_F(device, get_generation_does_not_acknowledge)
{
	bump(self->fd);
	get_generation(self->fd);
	EXPECT_TRUE(is_readable(self->fd));
}

TEST_F(device, trigger_increments_generation)
{
	EXPECT_EQ(0, trigger(self->fd, 0));
	EXPECT_EQ(self->first + 1, get_generation(self->fd));
}

TEST_F(device, trigger_works_on_read_only_descriptor)
{
	EXPECT_EQ(0, trigger(open_device(O_RDONLY), 0));
	EXPECT_EQ(self->first + 1, get_generation(self->fd));
}

TEST_F(device, trigger_reaches_minimum_and_never_goes_back)
{
	EXPECT_EQ(0, trigger(self->fd, self->first + 10));
	EXPECT_EQ(self->first + 10, get_generation(self->fd));
	EXPECT_EQ(0, trigger(self->fd, self->first + 10));
	EXPECT_EQ(self->first + 11, get_generation(self->fd));
	EXPECT_EQ(0, trigger(self->fd, self->first));
	EXPECT_EQ(self->first + 12, get_generation(self->fd));
	EXPECT_EQ(0, trigger(self->fd, self->first + 13));
	EXPECT_EQ(self->first + 13, get_generation(self->fd));
}

TEST_F(device, any_true_value_tracks_once)
{
	EXPECT_EQ(0, watchers());
	for (unsigned long on = 1; on; on <<= 1) {
		EXPECT_EQ(0, set_tracking(self->fd, on));
		EXPECT_EQ(1, watchers());
	}
	EXPECT_EQ(1, fdinfo(self->fd, "sysgenid-tracked:"));
	EXPECT_EQ(0, set_tracking(self->fd, 0));
	EXPECT_EQ(0, set_tracking(self->fd, 0));
	EXPECT_EQ(0, watchers());
	EXPECT_EQ(0, fdinfo(self->fd, "sysgenid-tracked:"));
}

TEST_F(device, tracking_is_off_by_default)
{
	EXPECT_EQ(0, fdinfo(self->fd, "sysgenid-tracked:"));
	bump(self->fd);
	EXPECT_EQ(0, outdated());
}

TEST_F(device, read_only_descriptor_cannot_be_tracked)
{
	int fd = open_device(O_RDONLY);

	EXPECT_FAILS(EBADF, set_tracking(fd, 1));
	EXPECT_FAILS(EBADF, set_tracking(fd, 0));
	EXPECT_EQ(0, watchers());
}

TEST_F(device, write_only_descriptor_can_be_tracked)
{
	int fd = open_device(O_WRONLY);

	EXPECT_EQ(0, set_tracking(fd, 1));
	EXPECT_EQ(1, watchers());
}

TEST_F(device, wait_returns_at_once_without_outdated_watcher)
{
	EXPECT_EQ(0, wait_watchers(self->fd, 0));
	set_tracking(self->fd, 1);
	EXPECT_EQ(0, wait_watchers(self->fd, 0));
}

TEST_F(device, wait_by_outdated_descriptor_is_EINTR)
{
	bump(self->fd);
	EXPECT_FAILS(EINTR, wait_watchers(self->fd, 0));
	EXPECT_FAILS(EINTR, wait_watchers(self->fd, 1));
}

TEST_F(device, last_acknowledgement_ends_wait)
{
	struct caller overseer;
	uint32_t generation;

	set_tracking(self->fd, 1);
	generation = bump(self->fd);
	start_overseer(&overseer, open_device(O_RDONLY), 0);
	EXPECT_EQ(4, acknowledge(self->fd, generation));
	finish_call(&overseer);
	EXPECT_EQ(0, overseer.result);
}

TEST_F(device, wait_times_out_with_ETIME)
{
	int overseer;

	set_tracking(self->fd, 1);
	bump(self->fd);
	overseer = open_device(O_RDONLY);
	EXPECT_FAILS(ETIME, wait_watchers(overseer, 20));
}

/* lseek() */

TEST_F(device, device_is_not_seekable)
{
	uint32_t generation = bump(self->fd);

	EXPECT_FAILS(ESPIPE, lseek(self->fd, 0, SEEK_SET));
	EXPECT_FAILS(ESPIPE, lseek(self->fd, 0, SEEK_CUR));
	EXPECT_FAILS(ESPIPE, pread(self->fd, &generation, 4, 0));
	EXPECT_FAILS(ESPIPE, pwrite(self->fd, &generation, 4, 0));
}

/*
 * Clients of the deployed ABI, which know only its numbers: one process for each of four
 * ways to wait, and an overseer.
 */
#define CLIENTS 4

static int client_that_reads(void)
{
	int fd = open(DEVICE, O_RDWR);
	unsigned int generation;

	if (ioctl(fd, 0xe401, 1) || read(fd, &generation, 4) != 4)
		return 1;
	return write(fd, &generation, 4) != 4;
}

static int client_that_polls(void)
{
	struct pollfd pollfd = { .fd = open(DEVICE, O_RDWR | O_NONBLOCK), .events = POLLIN };
	unsigned int generation;

	if (ioctl(pollfd.fd, 0xe401, 1) || read(pollfd.fd, &generation, 4) != -1 ||
	    errno != EAGAIN || poll(&pollfd, 1, -1) != 1 ||
	    read(pollfd.fd, &generation, 4) != 4 || write(pollfd.fd, &generation, 4) != 4)
		return 1;
	return poll(&pollfd, 1, 0);
}

static int client_that_maps(void)
{
	int fd = open(DEVICE, O_RDWR);
	volatile unsigned int *page = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	unsigned int generation = *page;

	if (ioctl(fd, 0xe401, 1))
		return 1;
	while (*page == generation)
		sched_yield();
	generation = *page;
	return write(fd, &generation, 4) != 4;
}

static int client_in_a_library(void)
{
	int fd = open(DEVICE, O_RDONLY);
	volatile unsigned int *page = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	unsigned int generation = *page;

	close(fd);
	/* The test waits for this tracked descriptor, as the mapping is not tracked. */
	fd = open(DEVICE, O_RDWR);
	if (ioctl(fd, 0xe401, 1))
		return 1;
	while (*page == generation)
		sched_yield();
	return ioctl(fd, 0xe401, 0) != 0;
}

TEST(clients_of_deployed_abi_work)
{
	static int (*const clients[CLIENTS])(void) = {
		client_that_reads, client_that_polls, client_that_maps, client_in_a_library,
	};
	pid_t children[CLIENTS];
	int overseer;

	for (int i = 0; i < CLIENTS; i++) {
		children[i] = fork();
		if (!children[i])
			_exit(clients[i]());
	}
	while (watchers() < CLIENTS)
		sched_yield();
	overseer = open(DEVICE, O_RDWR);
	ASSERT_EQ(0, ioctl(overseer, 0xe403, 0));
	close(overseer);
	overseer = open(DEVICE, O_RDWR);
	EXPECT_EQ(0, ioctl(overseer, 0xe402, 20000));
	for (int i = 0; i < CLIENTS; i++) {
		EXPECT_TRUE(succeeds(children[i]));
	}
	EXPECT_EQ(0, outdated());
}

TEST_HARNESS_MAIN
