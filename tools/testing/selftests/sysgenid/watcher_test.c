// SPDX-License-Identifier: GPL-2.0
/*
 * Tracked watchers and overseers: the counts are right whatever happens to descriptors, and
 * no wait ends late or early.
 */
#include "device.h"

#include <limits.h>
#include <sys/epoll.h>
#include <time.h>

FIXTURE(watcher) {
	int fd;			/* tracked, and up to date at first */
	int bumper;
};

FIXTURE_SETUP(watcher)
{
	self->fd = open_device(O_RDWR | O_NONBLOCK);
	self->bumper = open_device(O_RDONLY);
	ASSERT_EQ(0, watchers());
	ASSERT_EQ(0, set_tracking(self->fd, 1));
}

FIXTURE_TEARDOWN(watcher)
{
	close(self->fd);
	close(self->bumper);
	EXPECT_EQ(0, watchers());
	EXPECT_EQ(0, outdated());
}

static int new_watcher(void)
{
	int fd = open_device(O_RDWR | O_NONBLOCK);

	if (set_tracking(fd, 1))
		err(1, "SYSGENID_SET_WATCHER_TRACKING");
	return fd;
}

/* Counts */

TEST_F(watcher, tracked_descriptors_are_counted_until_closed)
{
	int other = new_watcher();

	EXPECT_EQ(2, watchers());
	close(other);
	EXPECT_EQ(1, watchers());
}

TEST_F(watcher, each_way_to_catch_up_is_counted)
{
	int fds[4] = { self->fd, new_watcher(), new_watcher(), new_watcher() };
	uint32_t generation;

	bump(self->bumper);
	EXPECT_EQ(4, outdated());
	generation = bump(self->bumper);
	EXPECT_EQ(4, outdated());
	acknowledge(fds[0], generation);
	acknowledge(fds[0], generation);
	EXPECT_EQ(3, outdated());
	set_tracking(fds[1], 0);
	EXPECT_EQ(2, outdated());
	close(fds[2]);
	EXPECT_EQ(1, outdated());
	acknowledge(fds[3], generation);
	EXPECT_EQ(0, outdated());
	EXPECT_EQ(2, watchers());
	close(fds[1]);
	close(fds[3]);
}

TEST_F(watcher, newly_tracked_descriptor_can_be_outdated)
{
	int late = open_device(O_RDWR);

	acknowledge(self->fd, bump(self->bumper));
	EXPECT_EQ(0, outdated());
	set_tracking(late, 1);
	EXPECT_EQ(1, outdated());
	close(late);
	EXPECT_EQ(0, outdated());
}

static int call_switch_tracking(int fd, unsigned long rounds)
{
	while (rounds--)
		set_tracking(fd, rounds & 1);
	return 0;
}

TEST_F(watcher, switching_tracking_in_threads_leaks_nothing)
{
	struct caller callers[4];

	bump(self->bumper);
	for (int i = 0; i < 4; i++)
		start_call(&callers[i], call_switch_tracking, self->fd, 20000);
	for (int i = 0; i < 4; i++)
		finish_call(&callers[i]);
	EXPECT_EQ(fdinfo(self->fd, "sysgenid-tracked:"), watchers());
	EXPECT_EQ(watchers(), outdated());
}

TEST_F(watcher, refused_acknowledgement_changes_no_count)
{
	uint32_t generation = bump(self->bumper);

	EXPECT_FAILS(EINVAL, acknowledge(self->fd, generation - 1));
	EXPECT_EQ(1, outdated());
}

TEST_F(watcher, duplicate_is_same_watcher)
{
	int duplicate = dup(self->fd);

	set_tracking(duplicate, 1);
	EXPECT_EQ(1, watchers());
	bump(self->bumper);
	EXPECT_EQ(1, outdated());
	close(duplicate);
	EXPECT_EQ(1, watchers());
	EXPECT_EQ(1, outdated());
}

TEST_F(watcher, child_holds_watcher_of_parent)
{
	pid_t child = fork();

	if (!child) {
		pause();
		_exit(0);
	}
	bump(self->bumper);
	close(self->fd);
	EXPECT_EQ(1, watchers());
	EXPECT_EQ(1, outdated());
	kill(child, SIGKILL);
	EXPECT_FALSE(succeeds(child));
	EXPECT_EQ(0, watchers());
	EXPECT_EQ(0, outdated());
}

static void send_descriptor(int socket, int fd)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { .header = {
		.cmsg_len = CMSG_LEN(sizeof(int)),
		.cmsg_level = SOL_SOCKET,
		.cmsg_type = SCM_RIGHTS,
	} };
	struct iovec byte = { .iov_base = "", .iov_len = 1 };
	struct msghdr message = {
		.msg_iov = &byte, .msg_iovlen = 1,
		.msg_control = &control, .msg_controllen = sizeof(control),
	};

	memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
	sendmsg(socket, &message, MSG_DONTWAIT);
}

static int receive_descriptor(int socket)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	char byte;
	struct iovec buffer = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr message = {
		.msg_iov = &buffer, .msg_iovlen = 1,
		.msg_control = &control, .msg_controllen = sizeof(control),
	};
	int fd;

	if (recvmsg(socket, &message, MSG_DONTWAIT) < 0 ||
	    message.msg_controllen < CMSG_LEN(sizeof(int)))
		return -1;
	memcpy(&fd, CMSG_DATA(&control.header), sizeof(fd));
	return fd;
}

TEST_F(watcher, descriptor_in_socket_is_waited_for)
{
	int sockets[2], received;

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, sockets));
	send_descriptor(sockets[0], self->fd);
	close(self->fd);
	bump(self->bumper);
	EXPECT_EQ(1, outdated());
	received = receive_descriptor(sockets[1]);
	ASSERT_LE(0, received);
	EXPECT_EQ(4, acknowledge(received, get_generation(self->bumper)));
	EXPECT_EQ(0, outdated());
	close(received);
	EXPECT_EQ(0, watchers());
}

TEST_F(watcher, descriptor_lost_in_socket_is_not_waited_for)
{
	int sockets[2];

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, sockets));
	send_descriptor(sockets[0], self->fd);
	close(self->fd);
	bump(self->bumper);
	close(sockets[0]);
	close(sockets[1]);
	EXPECT_EQ(0, watchers());
	EXPECT_EQ(0, outdated());
}

/* Waits */

TEST_F(watcher, close_ends_wait)
{
	struct caller overseer;

	bump(self->bumper);
	start_overseer(&overseer, open_device(O_RDONLY), 0);
	close(self->fd);
	finish_call(&overseer);
	EXPECT_EQ(0, overseer.result);
}

TEST_F(watcher, untracking_ends_wait)
{
	struct caller overseer;

	bump(self->bumper);
	start_overseer(&overseer, open_device(O_RDONLY), 0);
	set_tracking(self->fd, 0);
	finish_call(&overseer);
	EXPECT_EQ(0, overseer.result);
}

TEST_F(watcher, killing_last_holder_ends_wait)
{
	struct caller overseer;
	pid_t child = fork();

	if (!child) {
		pause();
		_exit(0);
	}
	close(self->fd);
	bump(self->bumper);
	start_overseer(&overseer, open_device(O_RDONLY), 0);
	kill(child, SIGKILL);
	finish_call(&overseer);
	EXPECT_EQ(0, overseer.result);
	EXPECT_FALSE(succeeds(child));
}

/* Waits 40 ms for the outdated watcher, which ends in ETIME. */
static bool time_passes(void)
{
	return wait_watchers(open_device(O_RDONLY), 40) == -1 && errno == ETIME;
}

TEST_F(watcher, wait_lasts_until_last_watcher_acknowledges)
{
	int other = new_watcher();
	uint32_t generation = bump(self->bumper);
	struct caller overseer;

	start_overseer(&overseer, open_device(O_RDONLY), 0);
	acknowledge(self->fd, generation);
	EXPECT_TRUE(time_passes());
	EXPECT_TRUE(is_asleep(overseer.task, SYS_ioctl));
	acknowledge(other, generation);
	finish_call(&overseer);
	EXPECT_EQ(0, overseer.result);
	close(other);
}

TEST_F(watcher, wait_includes_later_watchers)
{
	int late = open_device(O_RDWR);
	uint32_t generation = bump(self->bumper);
	struct caller overseer;

	start_overseer(&overseer, open_device(O_RDONLY), 0);
	set_tracking(late, 1);
	acknowledge(self->fd, generation);
	EXPECT_TRUE(time_passes());
	EXPECT_TRUE(is_asleep(overseer.task, SYS_ioctl));
	close(late);
	finish_call(&overseer);
	EXPECT_EQ(0, overseer.result);
}

#define OVERSEERS 8

TEST_F(watcher, all_overseers_return)
{
	struct caller overseers[OVERSEERS];
	uint32_t generation = bump(self->bumper);

	for (int i = 0; i < OVERSEERS; i++)
		start_overseer(&overseers[i], open_device(O_RDONLY), i % 2 ? 0 : 20000);
	acknowledge(self->fd, generation);
	for (int i = 0; i < OVERSEERS; i++) {
		finish_call(&overseers[i]);
		EXPECT_EQ(0, overseers[i].result);
	}
}

TEST_F(watcher, new_generation_ends_wait_with_EINTR)
{
	struct caller overseers[2];

	bump(self->bumper);
	start_overseer(&overseers[0], open_device(O_RDONLY), 0);
	start_overseer(&overseers[1], open_device(O_RDONLY), 20000);
	bump(self->bumper);
	for (int i = 0; i < 2; i++) {
		finish_call(&overseers[i]);
		EXPECT_EQ(-1, overseers[i].result);
		EXPECT_EQ(EINTR, overseers[i].error);
	}
}

TEST_F(watcher, wait_by_outdated_watcher_is_EINTR)
{
	bump(self->bumper);
	EXPECT_FAILS(EINTR, wait_watchers(self->fd, 0));
}

static long long now_in_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

TEST_F(watcher, short_timeout_is_ETIME_and_not_early)
{
	static const unsigned long timeouts[] = { 1, 2, 3, 4, 5, 9, 10, 33, 100 };
	int overseer;

	bump(self->bumper);
	overseer = open_device(O_RDONLY);
	for (size_t i = 0; i < ARRAY_SIZE(timeouts); i++) {
		long long start = now_in_ms();

		EXPECT_FAILS(ETIME, wait_watchers(overseer, timeouts[i]));
		/* Both times are rounded down to ms. */
		EXPECT_LE((long long)timeouts[i], now_in_ms() - start + 1);
	}
}

TEST_F(watcher, long_timeouts_do_not_end_early)
{
	static const unsigned long timeouts[] = {
		0, 3600000, INT_MAX, INT_MAX + 1UL, UINT_MAX,
#if LONG_MAX > INT_MAX
		UINT_MAX + 1UL, UINT_MAX + 2UL, LONG_MAX / 1000, LONG_MAX / 250,
		LONG_MAX / 4, LONG_MAX / 4 + 1,
#endif
		LONG_MAX - 1, LONG_MAX, LONG_MAX + 1UL, ULONG_MAX - 1, ULONG_MAX,
	};
	struct caller overseers[ARRAY_SIZE(timeouts)];
	uint32_t generation = bump(self->bumper);

	for (size_t i = 0; i < ARRAY_SIZE(timeouts); i++)
		start_overseer(&overseers[i], open_device(O_RDONLY), timeouts[i]);
	EXPECT_TRUE(time_passes());
	for (size_t i = 0; i < ARRAY_SIZE(timeouts); i++) {
		EXPECT_TRUE(is_asleep(overseers[i].task, SYS_ioctl))
			TH_LOG("%lu ms", timeouts[i]);
	}
	acknowledge(self->fd, generation);
	for (size_t i = 0; i < ARRAY_SIZE(timeouts); i++) {
		finish_call(&overseers[i]);
		EXPECT_EQ(0, overseers[i].result)
			TH_LOG("%lu ms", timeouts[i]);
	}
}

static atomic_int signals;

static void count_signal(int signal)
{
	(void)signal;
	signals++;
}

TEST_F(watcher, signal_ends_wait_with_EINTR)
{
	struct sigaction action = { .sa_handler = count_signal };
	struct caller overseers[2];

	sigaction(SIGUSR1, &action, NULL);
	bump(self->bumper);
	for (int i = 0; i < 2; i++) {
		start_overseer(&overseers[i], open_device(O_RDONLY), i ? 20000 : 0);
		pthread_kill(overseers[i].thread, SIGUSR1);
		finish_call(&overseers[i]);
		EXPECT_EQ(-1, overseers[i].result);
		EXPECT_EQ(EINTR, overseers[i].error);
	}
}

TEST_F(watcher, endless_wait_restarts_after_signal_with_SA_RESTART)
{
	struct sigaction action = { .sa_handler = count_signal, .sa_flags = SA_RESTART };
	uint32_t generation = bump(self->bumper);
	struct caller overseer;

	sigaction(SIGUSR1, &action, NULL);
	start_overseer(&overseer, open_device(O_RDONLY), 0);
	pthread_kill(overseer.thread, SIGUSR1);
	while (!signals)
		sched_yield();
	wait_asleep(overseer.task, SYS_ioctl);
	acknowledge(self->fd, generation);
	finish_call(&overseer);
	EXPECT_EQ(0, overseer.result);
}

/* SIGKILL in every call that can block */

static int call_select(int fd, unsigned long unused)
{
	fd_set set;

	(void)unused;
	FD_ZERO(&set);
	FD_SET(fd, &set);
	return syscall(SYS_pselect6, fd + 1, &set, NULL, NULL, NULL, NULL);
}

static int call_epoll(int fd, unsigned long unused)
{
	struct epoll_event event = { .events = EPOLLIN };
	int epoll = epoll_create1(0);

	(void)unused;
	epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
	return syscall(SYS_epoll_pwait, epoll, &event, 1, -1, NULL, 0);
}

FIXTURE(killed) {
	int straggler;		/* never acknowledges */
};

FIXTURE_VARIANT(killed) {
	int (*call)(int fd, unsigned long argument);
	unsigned long argument;
	long number;		/* the system call's */
};

FIXTURE_VARIANT_ADD(killed, in_read) { call_read, 4, SYS_read };
FIXTURE_VARIANT_ADD(killed, in_poll) { call_poll, -1, SYS_OF_POLL };
FIXTURE_VARIANT_ADD(killed, in_select) { call_select, 0, SYS_pselect6 };
FIXTURE_VARIANT_ADD(killed, in_epoll_wait) { call_epoll, 0, SYS_epoll_pwait };
FIXTURE_VARIANT_ADD(killed, in_endless_wait) { wait_watchers, 0, SYS_ioctl };
FIXTURE_VARIANT_ADD(killed, in_wait_with_timeout) { wait_watchers, 100000, SYS_ioctl };

FIXTURE_SETUP(killed)
{
	self->straggler = new_watcher();
	bump(self->straggler);
}

FIXTURE_TEARDOWN(killed)
{
	close(self->straggler);
	EXPECT_EQ(0, watchers());
	EXPECT_EQ(0, outdated());
}

TEST_F(killed, process_ends_and_is_not_waited_for)
{
	pid_t child = fork();
	int status;

	if (!child) {
		int fd = open_device(O_RDWR);

		set_tracking(fd, 1);
		variant->call(fd, variant->argument);
		_exit(0);
	}
	wait_asleep(child, variant->number);
	EXPECT_EQ(2, watchers());
	kill(child, SIGKILL);
	ASSERT_EQ(child, waitpid(child, &status, 0));
	EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	EXPECT_EQ(1, watchers());
	EXPECT_EQ(1, outdated());
}

/*
 * Threads do every operation on a few shared descriptors at once. A call may fail, as
 * another thread may close its descriptor. The counts must always be within bounds, and
 * exact at the end.
 */
#define THREADS 6
#define ROUNDS 2500
#define SLOTS 8
/* Slots, copies in the socket, and descriptors open within the threads' steps. */
#define MOST_WATCHERS (SLOTS + 4 * THREADS)

struct crowd {
	atomic_int slots[SLOTS];
	int sockets[2];
	atomic_bool over;
};

static void replace_slot(struct crowd *crowd, int slot)
{
	int old = atomic_exchange(&crowd->slots[slot], -1);

	if (old < 0)
		return;
	close(old);
	crowd->slots[slot] = open_device(O_RDWR | O_NONBLOCK);
}

static void fork_and_end(int fd)
{
	pid_t child = fork();

	if (!child) {
		set_tracking(fd, 1);
		_exit(0);
	}
	if (child > 0)
		waitpid(child, NULL, 0);
}

static void do_something(struct crowd *crowd, unsigned int random)
{
	int slot = random % SLOTS;
	int fd = crowd->slots[slot];
	int copy;

	switch (random / SLOTS % 64) {
	case 0 ... 15:
		set_tracking(fd, 1);
		break;
	case 16 ... 28:
		set_tracking(fd, 0);
		break;
	case 29 ... 42:
		acknowledge(fd, number_in(SYSFS "generation", ""));
		break;
	case 43 ... 48:
		trigger(fd, 0);
		break;
	case 49 ... 53:
		replace_slot(crowd, slot);
		break;
	case 54 ... 56:
		close(dup(fd));
		break;
	case 57 ... 59:
		send_descriptor(crowd->sockets[0], fd);
		break;
	case 60 ... 61:
		copy = receive_descriptor(crowd->sockets[1]);
		set_tracking(copy, random >> 31);
		close(copy);
		break;
	case 62:
		wait_watchers(fd, 1);
		break;
	case 63:
		if (random >> 29 == 0)
			fork_and_end(fd);
	}
}

struct member {
	struct crowd *crowd;
	unsigned int seed;
	pthread_t thread;
};

static void *member_main(void *data)
{
	struct member *member = data;

	for (int i = 0; i < ROUNDS; i++) {
		unsigned int high = rand_r(&member->seed);

		do_something(member->crowd, high << 16 ^ rand_r(&member->seed));
	}
	return NULL;
}

static void *watch_counts(void *data)
{
	struct crowd *crowd = data;

	while (!crowd->over)
		if (watchers() > MOST_WATCHERS || outdated() > MOST_WATCHERS)
			return "a count was out of bounds";
	return NULL;
}

static void run_crowd(struct crowd *crowd)
{
	struct member members[THREADS];

	for (int i = 0; i < THREADS; i++) {
		members[i] = (struct member){ .crowd = crowd, .seed = i + 1 };
		pthread_create(&members[i].thread, NULL, member_main, &members[i]);
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(members[i].thread, NULL);
	crowd->over = true;
}

FIXTURE(accounting) {
	struct crowd crowd;
	long long users;
};

FIXTURE_SETUP(accounting)
{
	/* The least buffer limits the number of descriptors in the socket. */
	int room = 1;

	self->users = module_users();
	for (int i = 0; i < SLOTS; i++)
		self->crowd.slots[i] = open_device(O_RDWR | O_NONBLOCK);
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, self->crowd.sockets));
	ASSERT_EQ(0, setsockopt(self->crowd.sockets[0], SOL_SOCKET, SO_SNDBUF,
				&room, sizeof(room)));
}

FIXTURE_TEARDOWN(accounting)
{
}

TEST_F(accounting, counts_survive_concurrent_operations)
{
	struct crowd *crowd = &self->crowd;
	int tracked = 0, behind = 0;
	pthread_t counter;
	void *complaint;

	pthread_create(&counter, NULL, watch_counts, crowd);
	run_crowd(crowd);
	pthread_join(counter, &complaint);
	EXPECT_EQ(NULL, complaint);

	close(crowd->sockets[0]);
	close(crowd->sockets[1]);
	for (int i = 0; i < SLOTS; i++) {
		int fd = crowd->slots[i];
		bool counted = fdinfo(fd, "sysgenid-tracked:");

		tracked += counted;
		behind += counted && is_readable(fd);
	}
	EXPECT_EQ(tracked, watchers());
	EXPECT_EQ(behind, outdated());

	for (int i = 0; i < SLOTS; i++)
		close(crowd->slots[i]);
	EXPECT_EQ(0, watchers());
	EXPECT_EQ(0, outdated());
	EXPECT_EQ(self->users, module_users());
	EXPECT_EQ(0, wait_watchers(open_device(O_RDONLY), 0));
}

TEST_HARNESS_MAIN
