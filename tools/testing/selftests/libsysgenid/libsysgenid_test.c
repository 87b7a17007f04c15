// SPDX-License-Identifier: GPL-2.0
/*
 * Tests the promises of libsysgenid(3) on the real device. For a test that needs another
 * environment, the program runs itself again, and plays a role before main().
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <linux/sysgenid.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <kselftest_harness.h>
#include <sysgenid.h>

#include "../../../lib/sysgenid/vmclock.h"
#include "../sysgenid/modules.h"

/* In seconds; the default of 30 is too short for a debug kernel. */
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT	120

#define NOBODY		65534
#define FAKE		"/tmp/libsysgenid-test-page"
#define VMCLOCK		"/dev/vmclock0"
#define SETUID_SELF	"/tmp/libsysgenid-test-setuid"
#define CHECK(condition)	do { if (!(condition)) _exit(__LINE__ & 127 ?: 1); } while (0)

static int opened_before_main = -2;
static enum sysgenid_source source_before_main;

/* Returns a state that is current now. */
static struct sysgenid_seen seen_now(void)
{
	struct sysgenid_seen seen = { .counter_ = NULL };

	CHECK(sysgenid_changed(&seen, &seen) == 1);
	return seen;
}

/* Reports a change once, like a program whose adjustment succeeds. */
static bool changed(struct sysgenid_seen *seen)
{
	struct sysgenid_seen now;

	if (!sysgenid_changed(seen, &now))
		return false;
	sysgenid_remember(seen, &now);
	return true;
}

/* Returns whether the watcher stops waking, without reporting another change. */
static bool comes_to_rest(struct sysgenid_watcher *watcher)
{
	struct pollfd pollfd = { .fd = sysgenid_watcher_fd(watcher), .events = POLLIN };
	uint64_t generation;

	while (poll(&pollfd, 1, 20) == 1)
		if (sysgenid_watcher_wait(watcher, 0, &generation))
			return false;
	return true;
}

/* Returns whether the device's backend has a page with an identifier. */
static bool has_hardware(void)
{
	struct sysgenid_hardware where;
	int fd = open("/dev/sysgenid", O_RDONLY | O_CLOEXEC);
	bool has = !ioctl(fd, SYSGENID_GET_HARDWARE, &where);

	close(fd);
	return has;
}

/* Roles of a process with another environment */

static void play_no_device(void)
{
	struct sysgenid_watcher *watcher = sysgenid_watcher_new(SYSGENID_TRACKED);
	struct sysgenid_seen seen = seen_now();
	uint64_t generation = 1;
	struct pollfd pollfd = { .events = POLLIN };

	CHECK(sysgenid_open() == -1 && errno == ENOENT);
	CHECK(sysgenid_get_source() == SYSGENID_SOURCE_NONE);
	CHECK(sysgenid_get_properties() == 0);
	CHECK(sysgenid_generation() == 0 && !sysgenid_changed(&seen, NULL));
	CHECK(sysgenid_barrier(&generation) == 0 && generation == 0);
	CHECK(watcher);
	pollfd.fd = sysgenid_watcher_fd(watcher);
	CHECK(poll(&pollfd, 1, 20) == 0);
	CHECK(sysgenid_watcher_wait(watcher, 20, &generation) == 0);
	CHECK(sysgenid_watcher_ack(watcher, 0) == 0);
	CHECK(sysgenid_trigger(0) == -1 && errno == ENODEV);
	CHECK(sysgenid_wait_watchers(10) == -1 && errno == ENODEV);
	sysgenid_watcher_free(watcher);
}

static struct vmclock_page *map_fake(void)
{
	int fd = open(FAKE, O_RDWR);
	void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	CHECK(page != MAP_FAILED);
	return page;
}

static void play_vmclock(void)
{
	struct sysgenid_watcher *watcher = sysgenid_watcher_new(SYSGENID_TRACKED);
	struct vmclock_page *page = map_fake();
	struct sysgenid_seen seen = seen_now();
	uint64_t generation;

	CHECK(sysgenid_get_source() == SYSGENID_SOURCE_VMCLOCK && watcher);
	CHECK(sysgenid_get_properties() == SYSGENID_NEVER_STALE);
	CHECK(sysgenid_generation() == UINT64_C(0x700000001) && !changed(&seen));
	CHECK(sysgenid_watcher_wait(watcher, 10, &generation) == 0);

	/* Only the upper half differs, and the odd sequence means an update in progress. */
	page->sequence = htole32(1);
	page->generation = htole64(UINT64_C(0x900000001));
	CHECK(changed(&seen) && !changed(&seen));
	CHECK(sysgenid_watcher_wait(watcher, -1, &generation) == 1);
	CHECK(generation == UINT64_C(0x900000001));
	CHECK(sysgenid_watcher_ack(watcher, generation - 1) && errno == ESTALE);
	CHECK(sysgenid_watcher_ack(watcher, generation) == 0);
	CHECK(sysgenid_watcher_wait(watcher, 10, &generation) == 0);

	/* A descriptor in an event loop detects the change, too. */
	struct pollfd pollfd = {
		.fd = sysgenid_watcher_fd(watcher), .events = POLLIN
	};

	page->generation = htole64(5);
	do
		CHECK(poll(&pollfd, 1, -1) == 1);
	while (sysgenid_watcher_wait(watcher, 0, &generation) != 1);
	CHECK(generation == 5);
}

/* Writes a generation, and sends its event, in the hypervisor's place. */
static void write_vmclock(uint64_t flags, uint64_t generation)
{
	struct vmclock_page page;
	int fd = open(VMCLOCK, O_RDWR | O_CLOEXEC);

	CHECK(pread(fd, &page, sizeof(page), 0) == sizeof(page));
	page.magic = htole32(VMCLOCK_PAGE_MAGIC);
	page.size = htole32(4096);
	page.version = htole16(VMCLOCK_PAGE_VERSION);
	page.sequence = htole32(le32toh(page.sequence) + 2);
	page.flags = htole64(flags);
	page.generation = htole64(generation);
	CHECK(write(fd, &page, sizeof(page)) == sizeof(page));
	close(fd);
}

static void *write_later(void *generation)
{
	usleep(10000);
	write_vmclock(VMCLOCK_HAS_GENERATION | VMCLOCK_HAS_NOTIFY,
		      *(uint64_t *)generation);
	return NULL;
}

static void play_notified(void)
{
	struct sysgenid_watcher *watcher = sysgenid_watcher_new(0);
	uint64_t next = 9, generation;
	struct pollfd pollfd = { .events = POLLIN };
	pthread_t thread;

	CHECK(sysgenid_get_source() == SYSGENID_SOURCE_VMCLOCK && watcher);
	pollfd.fd = sysgenid_watcher_fd(watcher);
	CHECK(sysgenid_watcher_wait(watcher, 0, &generation) == 0);
	CHECK(poll(&pollfd, 1, 0) == 0);
	CHECK(!pthread_create(&thread, NULL, write_later, &next));
	CHECK(poll(&pollfd, 1, -1) == 1);
	CHECK(sysgenid_watcher_wait(watcher, -1, &generation) == 1);
	CHECK(generation == 9 && sysgenid_watcher_ack(watcher, 9) == 0);
	CHECK(!pthread_join(thread, NULL));

	/* After an event without a new generation, the watcher sleeps again. */
	write_vmclock(VMCLOCK_HAS_GENERATION | VMCLOCK_HAS_NOTIFY, 9);
	CHECK(poll(&pollfd, 1, -1) == 1);
	CHECK(sysgenid_watcher_wait(watcher, 0, &generation) == 0);
	CHECK(poll(&pollfd, 1, 0) == 0);

	/* After a migration to a host without notifications, the watcher polls. */
	write_vmclock(VMCLOCK_HAS_GENERATION, 9);
	CHECK(sysgenid_watcher_wait(watcher, 0, &generation) == 0);
	CHECK(poll(&pollfd, 1, 0) == 0);
	write_vmclock(VMCLOCK_HAS_GENERATION, 10);
	CHECK(sysgenid_watcher_wait(watcher, -1, &generation) == 1);
	CHECK(generation == 10 && sysgenid_watcher_ack(watcher, 10) == 0);

	/* It polls repeatedly. */
	for (int looks = 0; looks < 2; looks++) {
		CHECK(poll(&pollfd, 1, 10 * 1000) == 1);
		CHECK(sysgenid_watcher_wait(watcher, 0, &generation) == 0);
	}
	sysgenid_watcher_free(watcher);
}

/* The device and a vmclock are both sources. */
static void play_both(void)
{
	struct sysgenid_watcher *watcher = sysgenid_watcher_new(0);
	struct vmclock_page *page = map_fake();
	struct sysgenid_seen seen = seen_now();
	uint64_t before = sysgenid_generation(), generation;
	struct pollfd pollfd = { .events = POLLIN };

	CHECK(sysgenid_get_source() == SYSGENID_SOURCE_DEVICE && watcher);
	/* The hardware's page proves that vmgenid drives the device as well. */
	CHECK(sysgenid_get_properties() ==
	      (SYSGENID_NEVER_STALE | (has_hardware() ? SYSGENID_KERNEL_RESEEDED : 0)));
	pollfd.fd = sysgenid_watcher_fd(watcher);

	CHECK(!sysgenid_trigger(0));
	CHECK(changed(&seen) && !changed(&seen));
	CHECK(sysgenid_watcher_wait(watcher, 0, &generation) == 1);
	CHECK(generation == before + 1 && !sysgenid_watcher_ack(watcher, generation));

	page->generation = htole64(8);
	CHECK(changed(&seen) && !changed(&seen));
	do
		CHECK(poll(&pollfd, 1, -1) == 1);
	while (sysgenid_watcher_wait(watcher, 0, &generation) != 1);
	/* The generation is the device's, which does not know of the vmclock. */
	CHECK(generation == before + 1);
	page->generation = htole64(9);
	CHECK(sysgenid_watcher_ack(watcher, generation) == -1 && errno == ESTALE);
	CHECK(sysgenid_watcher_wait(watcher, 0, &generation) == 1);
	CHECK(!sysgenid_watcher_ack(watcher, generation));
	CHECK(comes_to_rest(watcher));
}

static void play_file(void)
{
	uint64_t *page = (void *)map_fake();
	uint64_t generation;

	CHECK(sysgenid_get_source() == SYSGENID_SOURCE_DEVICE);
	*page = htole64(77);
	CHECK(sysgenid_generation() == 77);
	CHECK(sysgenid_barrier(&generation) == 0 && generation == 77);
}

static void play_secure(void)
{
	CHECK(getauxval(AT_SECURE));
	CHECK(sysgenid_get_source() == SYSGENID_SOURCE_DEVICE);
}

static void play_unprivileged(void)
{
	CHECK(sysgenid_get_source() == SYSGENID_SOURCE_DEVICE);
	CHECK(sysgenid_get_properties() == SYSGENID_KERNEL_RESEEDED);
}

static void play_unprivileged_both(void)
{
	CHECK(sysgenid_get_source() == SYSGENID_SOURCE_DEVICE);
	CHECK(sysgenid_get_properties() == SYSGENID_NEVER_STALE);
}

static void play_no_generation(void)
{
	CHECK(sysgenid_get_source() == SYSGENID_SOURCE_NONE);
}

static void play_other_file(void)
{
	struct sysgenid_seen seen = seen_now();

	CHECK(sysgenid_open() == -1 && errno == ENODEV);
	CHECK(sysgenid_get_source() == SYSGENID_SOURCE_NONE);
	CHECK(sysgenid_generation() == 0 && !changed(&seen));
}

/* The rows of the table in libsysgenid(3). */
enum {
	IN_LINE = 1, AFTER_CLOSING = 2, WATCHING = 4, TRACKED = 8, WITH_VMCLOCK = 16,
	IN_CHILD = 32, TRACKED_IN_CHILD = 64, CREATING = 128, ALWAYS = 256,
};

/* The system calls in each row; no architecture has all of the alternatives. */
static const struct {
	int call;
	unsigned int rows;
} listed[] = {
	{ __NR_newfstatat, IN_LINE | TRACKED_IN_CHILD },
	{ __NR_fstat, IN_LINE | TRACKED_IN_CHILD },
	{ __NR_ioctl, IN_LINE | WATCHING },
	{ __NR_openat, AFTER_CLOSING | TRACKED_IN_CHILD },
	{ __NR_close, AFTER_CLOSING | IN_CHILD },
#ifdef __NR_epoll_wait
	{ __NR_epoll_wait, WATCHING },
	{ __NR_poll, WATCHING },
#endif
	{ __NR_epoll_pwait, WATCHING },
	{ __NR_ppoll, WATCHING },
	{ __NR_epoll_ctl, WATCHING },
	{ __NR_clock_gettime, WATCHING },
	{ __NR_write, TRACKED },
	{ __NR_timerfd_gettime, WITH_VMCLOCK },
	{ __NR_epoll_create1, IN_CHILD },
	{ __NR_dup3, IN_CHILD },
	{ __NR_mmap, IN_CHILD },
	{ __NR_madvise, IN_CHILD },
	{ __NR_fcntl, CREATING },
	{ __NR_eventfd2, CREATING },
	{ __NR_exit_group, ALWAYS },
};

/* Kills the process at every system call but those in the rows. */
static void allow_only(unsigned int rows)
{
	struct sock_filter rules[64] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
	};
	struct sock_fprog program = { .len = 1, .filter = rules };

	for (size_t i = 0; i < sizeof(listed) / sizeof(*listed); i++) {
		if (!(listed[i].rows & (rows | ALWAYS)))
			continue;
		rules[program.len++] = (struct sock_filter)
			BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, listed[i].call, 0, 1);
		rules[program.len++] = (struct sock_filter)
			BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	}
	rules[program.len++] = (struct sock_filter)
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	CHECK(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	CHECK(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
}

static void adjust_and_sleep(struct sysgenid_watcher *watcher)
{
	uint64_t generation;

	CHECK(sysgenid_watcher_wait(watcher, -1, &generation) == 1);
	CHECK(sysgenid_watcher_ack(watcher, generation) == 0);
	CHECK(sysgenid_watcher_wait(watcher, 1, &generation) == 0);
}

static void play_filtered(void)
{
	struct vmclock_page *page = map_fake();
	struct sysgenid_watcher *watcher = sysgenid_watcher_new(0);

	CHECK(sysgenid_get_source() == SYSGENID_SOURCE_VMCLOCK && watcher);
	page->generation = htole64(9);
	allow_only(WATCHING | WITH_VMCLOCK);
	adjust_and_sleep(watcher);
}

static int count_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int count = 0;

	CHECK(dir);
	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

#define N_THREADS	8

/* Runs a function in concurrent threads, and in children of this process. */
static void run_many(void *(*function)(void *))
{
	pthread_t threads[N_THREADS];
	pthread_barrier_t start;
	int i, status;

	CHECK(!pthread_barrier_init(&start, NULL, N_THREADS));
	for (i = 0; i < N_THREADS; i++)
		CHECK(!pthread_create(&threads[i], NULL, function, &start));
	for (i = 0; i < N_THREADS; i++)
		CHECK(!pthread_join(threads[i], NULL));
	CHECK(!pthread_barrier_init(&start, NULL, 1));
	for (i = 0; i < N_THREADS; i++) {
		if (!fork()) {
			function(&start);
			_exit(0);
		}
		CHECK(wait(&status) > 0 && status == 0);
	}
}

static void *ask_for_all(void *start)
{
	struct sysgenid_watcher *watcher;

	pthread_barrier_wait(start);
	CHECK(sysgenid_open() == -1 && errno == ENOENT);
	watcher = sysgenid_watcher_new(0);
	CHECK(watcher);
	sysgenid_watcher_free(watcher);
	return NULL;
}

static void play_logs_to_system(void)
{
	int descriptors = count_descriptors();

	run_many(ask_for_all);
	CHECK(count_descriptors() == descriptors);
}

static _Atomic int sentences;

static void count_sentence(const char *text)
{
	CHECK(strstr(text, "/nowhere: No such file or directory"));
	sentences++;
}

static void play_logs_to_program(void)
{
	sysgenid_set_log(NULL);
	run_many(ask_for_all);
	sysgenid_set_log(count_sentence);
	run_many(ask_for_all);
	CHECK(sentences == 1);
}

static void *find_file(void *start)
{
	pthread_barrier_wait(start);
	CHECK(sysgenid_open() == 0 && sysgenid_generation() == 77);
	return NULL;
}

/* The device appears after the process has started, and many threads open it at once. */
static void play_late(void)
{
	int descriptors = count_descriptors();
	uint64_t *page = (void *)map_fake();
	struct sysgenid_seen seen = seen_now();

	*page = htole64(77);
	CHECK(sysgenid_get_source() == SYSGENID_SOURCE_NONE && !changed(&seen));
	CHECK(!setenv("SYSGENID_DEVICE", FAKE, 1));
	run_many(find_file);
	/* A change before the device appeared cannot be ruled out, and is reported. */
	CHECK(changed(&seen) && !changed(&seen));
	*page = htole64(78);
	CHECK(changed(&seen) && !changed(&seen));
	/* The two new descriptors are the page's here, and the library's. */
	CHECK(count_descriptors() == descriptors + 2);
}

#ifdef __x86_64__
static int steps, early;

/* Checks what another thread would see between two instructions. */
static void look(int signal)
{
	(void)signal;
	steps++;
	if (sysgenid_get_source() != SYSGENID_SOURCE_NONE)
		early += sysgenid_generation() != 77;
}

/* The CPU's trap flag raises SIGTRAP after each instruction. */
static void set_stepping(bool on)
{
	unsigned long flags = __builtin_ia32_readeflags_u64();

	__builtin_ia32_writeeflags_u64(on ? flags | 0x100 : flags & ~0x100ul);
}

static void play_stepped(void)
{
	struct sigaction action = { .sa_handler = look };
	uint64_t *page = (void *)map_fake();

	*page = htole64(77);
	CHECK(!setenv("SYSGENID_DEVICE", FAKE, 1));
	CHECK(!sigaction(SIGTRAP, &action, NULL));
	set_stepping(true);
	sysgenid_open();
	set_stepping(false);
	CHECK(sysgenid_get_source() == SYSGENID_SOURCE_DEVICE);
	CHECK(steps > 100 && !early);
}
#else
static void play_stepped(void)
{
}
#endif

static const struct {
	const char *name;
	void (*play)(void);
} roles[] = {
	{ "no_device", play_no_device },
	{ "vmclock", play_vmclock },
	{ "notified", play_notified },
	{ "both", play_both },
	{ "file", play_file },
	{ "secure", play_secure },
	{ "unprivileged", play_unprivileged },
	{ "unprivileged_both", play_unprivileged_both },
	{ "no_generation", play_no_generation },
	{ "other_file", play_other_file },
	{ "filtered", play_filtered },
	{ "logs_to_system", play_logs_to_system },
	{ "logs_to_program", play_logs_to_program },
	{ "late", play_late },
	{ "stepped", play_stepped },
};

static void __attribute__((constructor(102))) before_main(void)
{
	const char *role = getenv("ROLE");

	source_before_main = sysgenid_get_source();
	for (size_t i = 0; role && i < sizeof(roles) / sizeof(*roles); i++) {
		if (!strcmp(role, roles[i].name)) {
			roles[i].play();
			_exit(0);
		}
	}
	opened_before_main = sysgenid_open();
}

/* Returns 0, or the line of the failed CHECK(), modulo 128. */
static int run_role(const char *role, const char *device, const char *vmclock,
		    const char *program, uid_t uid)
{
	pid_t child = fork();
	int status;

	if (!child) {
		setenv("ROLE", role, 1);
		CHECK(!device || !setenv("SYSGENID_DEVICE", device, 1));
		setenv("SYSGENID_VMCLOCK", vmclock, 1);
		CHECK(!uid || !setuid(uid));
		execl(program, program, NULL);
		_exit(126);
	}
	waitpid(child, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 127;
}

static void make_fake(uint64_t flags, uint64_t generation)
{
	struct vmclock_page page = {
		.magic = htole32(VMCLOCK_PAGE_MAGIC),
		.size = htole32(4096),
		.version = htole16(VMCLOCK_PAGE_VERSION),
		.flags = htole64(flags),
		.generation = htole64(generation),
	};
	int fd = open(FAKE, O_RDWR | O_CREAT | O_TRUNC, 0666);

	if (fd < 0 || ftruncate(fd, 4096) ||
	    write(fd, &page, sizeof(page)) != sizeof(page))
		_exit(125);
	close(fd);
}

TEST(library_opens_device_before_main)
{
	EXPECT_EQ(0, opened_before_main);
	EXPECT_EQ(SYSGENID_SOURCE_DEVICE, source_before_main);
}

TEST(loaded_generation_follows_device)
{
	uint64_t before = sysgenid_generation(), barrier;

	ASSERT_EQ(0, sysgenid_trigger(0));
	EXPECT_EQ(before + 1, sysgenid_generation());
	ASSERT_EQ(0, sysgenid_barrier(&barrier));
	EXPECT_EQ(before + 1, barrier);
	ASSERT_EQ(0, sysgenid_trigger(before + 10));
	EXPECT_EQ(before + 10, sysgenid_generation());
}

TEST(change_is_reported_until_remembered)
{
	struct sysgenid_seen seen = { .counter_ = NULL }, now;

	EXPECT_EQ(0, sysgenid_is_current(&seen));
	ASSERT_EQ(1, sysgenid_changed(&seen, &now));
	sysgenid_remember(&seen, &now);
	EXPECT_EQ(1, sysgenid_is_current(&seen));
	EXPECT_EQ(0, sysgenid_changed(&seen, &now));

	ASSERT_EQ(0, sysgenid_trigger(0));
	EXPECT_EQ(0, sysgenid_is_current(&seen));
	/* Without sysgenid_remember(), the adjustment has failed. */
	EXPECT_EQ(1, sysgenid_changed(&seen, &now));
	EXPECT_EQ(1, sysgenid_changed(&seen, &now));
	EXPECT_EQ(1, sysgenid_changed(&seen, NULL));
	/* Another generation comes before the adjustment succeeds. */
	ASSERT_EQ(0, sysgenid_trigger(0));
	sysgenid_remember(&seen, &now);
	EXPECT_EQ(1, sysgenid_changed(&seen, &now));
	sysgenid_remember(&seen, &now);
	EXPECT_EQ(0, sysgenid_changed(&seen, &now));
}

TEST(properties_depend_on_access_to_hardware)
{
	EXPECT_EQ(SYSGENID_KERNEL_RESEEDED | (has_hardware() ? SYSGENID_NEVER_STALE : 0),
		  sysgenid_get_properties());
	EXPECT_EQ(0, run_role("unprivileged", "/dev/sysgenid", "/nowhere", "/proc/self/exe",
			      NOBODY));
	make_fake(VMCLOCK_HAS_GENERATION, 7);
	EXPECT_EQ(0, run_role("unprivileged_both", "/dev/sysgenid", FAKE, "/proc/self/exe",
			      NOBODY));
}

TEST(seen_can_be_copied)
{
	struct sysgenid_seen seen = seen_now(), copy = seen;

	memset(&seen, 0, sizeof(seen));
	EXPECT_EQ(1, sysgenid_is_current(&copy));
	EXPECT_EQ(0, sysgenid_is_current(&seen));
}

TEST(library_matches_header)
{
	int (*is_current)(const struct sysgenid_seen *) = sysgenid_is_current;
	struct sysgenid_seen seen = seen_now();

	EXPECT_EQ(SYSGENID_VERSION, sysgenid_version());
	EXPECT_EQ(1, is_current(&seen));
}

TEST(change_is_found_after_closing_all_descriptors)
{
	struct sysgenid_seen seen = seen_now();
	int status;
	pid_t child;

	ASSERT_EQ(0, sysgenid_trigger(0));
	child = fork();
	if (!child) {
		CHECK(!close_range(3, ~0u, 0) && !chroot("/proc/self/fd"));
		errno = EXDEV;
		CHECK(changed(&seen) && !changed(&seen) && errno == EXDEV);
		_exit(0);
	}
	waitpid(child, &status, 0);
	EXPECT_EQ(0, status);
}

TEST(barrier_survives_closing_all_descriptors)
{
	uint64_t generation;
	int fd;

	/* The number of the library's descriptor is then another file's. */
	close_range(3, 20, 0);
	for (fd = 3; fd < 20; fd++)
		dup2(STDERR_FILENO, fd);
	ASSERT_EQ(0, sysgenid_trigger(0));
	EXPECT_EQ(0, sysgenid_barrier(&generation));
	EXPECT_EQ(sysgenid_generation(), generation);
}

TEST(sandbox_without_dev_sees_new_generation)
{
	struct sysgenid_watcher *watcher = sysgenid_watcher_new(0);
	uint64_t before = sysgenid_generation(), generation;
	int ready[2], status;
	pid_t child;

	ASSERT_EQ(0, pipe(ready));
	child = fork();
	if (!child) {
		CHECK(!unshare(CLONE_NEWNS));
		CHECK(!mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
		CHECK(!mount("none", "/dev", "tmpfs", 0, NULL));
		CHECK(access("/dev/sysgenid", F_OK));
		CHECK(!setgroups(0, NULL) && !setuid(NOBODY));
		CHECK(write(ready[1], "", 1) == 1);
		while (sysgenid_generation() == before)
			sched_yield();
		CHECK(sysgenid_barrier(&generation) == 0);
		CHECK(generation == before + 1);
		_exit(0);
	}
	ASSERT_EQ(1, read(ready[0], &status, 1));
	ASSERT_EQ(0, sysgenid_trigger(0));
	waitpid(child, &status, 0);
	EXPECT_EQ(0, status);
	sysgenid_watcher_free(watcher);
}

TEST(watcher_wakes_and_sleeps_after_acknowledging)
{
	struct sysgenid_watcher *watcher = sysgenid_watcher_new(0);
	struct pollfd pollfd = { .events = POLLIN };
	uint64_t generation;

	ASSERT_NE(NULL, watcher);
	pollfd.fd = sysgenid_watcher_fd(watcher);
	EXPECT_EQ(0, poll(&pollfd, 1, 0));
	EXPECT_EQ(0, sysgenid_watcher_wait(watcher, 0, &generation));
	ASSERT_EQ(0, sysgenid_trigger(0));
	EXPECT_EQ(1, poll(&pollfd, 1, -1));
	EXPECT_EQ(1, sysgenid_watcher_wait(watcher, -1, &generation));
	EXPECT_EQ(sysgenid_generation(), generation);
	EXPECT_EQ(-1, sysgenid_watcher_ack(watcher, generation - 1));
	EXPECT_EQ(ESTALE, errno);
	EXPECT_EQ(0, sysgenid_watcher_ack(watcher, generation));
	EXPECT_EQ(0, poll(&pollfd, 1, 0));
	EXPECT_EQ(0, sysgenid_watcher_wait(watcher, 1, &generation));
	sysgenid_watcher_free(watcher);
}

TEST(new_generation_ends_wait_without_timeout)
{
	struct sysgenid_watcher *watcher = sysgenid_watcher_new(0);
	uint64_t generation;
	pid_t child = fork();

	if (!child) {
		usleep(10000);
		CHECK(sysgenid_trigger(0) == 0);
		_exit(0);
	}
	EXPECT_EQ(1, sysgenid_watcher_wait(watcher, -1, &generation));
	EXPECT_EQ(child, waitpid(child, NULL, 0));
	sysgenid_watcher_free(watcher);
}

TEST(tracked_watcher_is_waited_for)
{
	struct sysgenid_watcher *watcher = sysgenid_watcher_new(SYSGENID_TRACKED);
	uint64_t generation;

	ASSERT_NE(NULL, watcher);
	EXPECT_EQ(0, sysgenid_wait_watchers(1000));
	ASSERT_EQ(0, sysgenid_trigger(0));
	EXPECT_EQ(-1, sysgenid_wait_watchers(20));
	EXPECT_EQ(ETIME, errno);
	ASSERT_EQ(1, sysgenid_watcher_wait(watcher, 0, &generation));
	ASSERT_EQ(0, sysgenid_watcher_ack(watcher, generation));
	EXPECT_EQ(0, sysgenid_wait_watchers(1000));

	/* A freed watcher is not waited for. */
	ASSERT_EQ(0, sysgenid_trigger(0));
	sysgenid_watcher_free(watcher);
	EXPECT_EQ(0, sysgenid_wait_watchers(-1));
}

TEST(freed_watcher_is_not_waited_for_despite_child)
{
	struct sysgenid_watcher *watcher = sysgenid_watcher_new(SYSGENID_TRACKED);
	pid_t child = fork();

	if (!child) {
		pause();
		_exit(0);
	}
	ASSERT_EQ(0, sysgenid_trigger(0));
	sysgenid_watcher_free(watcher);
	EXPECT_EQ(0, sysgenid_wait_watchers(1000));
	kill(child, SIGKILL);
	EXPECT_EQ(child, waitpid(child, NULL, 0));
}

TEST(child_freeing_watcher_leaves_it_to_parent)
{
	struct sysgenid_watcher *watcher = sysgenid_watcher_new(SYSGENID_TRACKED);
	uint64_t generation;
	int status;
	pid_t child = fork();

	if (!child) {
		sysgenid_watcher_free(watcher);
		_exit(0);
	}
	EXPECT_EQ(child, waitpid(child, &status, 0));
	ASSERT_EQ(0, sysgenid_trigger(0));
	EXPECT_EQ(-1, sysgenid_wait_watchers(20));
	EXPECT_EQ(1, sysgenid_watcher_wait(watcher, -1, &generation));
	EXPECT_EQ(0, sysgenid_watcher_ack(watcher, generation));
	EXPECT_EQ(0, sysgenid_wait_watchers(-1));
	sysgenid_watcher_free(watcher);
}

static void *wait_without_timeout(void *watcher)
{
	uint64_t generation;

	sysgenid_watcher_wait(watcher, -1, &generation);
	return NULL;
}

TEST(waiting_thread_can_be_cancelled)
{
	struct sysgenid_watcher *watcher = sysgenid_watcher_new(0);
	uint64_t generation;
	pthread_t thread;
	void *result;

	ASSERT_EQ(0, pthread_create(&thread, NULL, wait_without_timeout, watcher));
	ASSERT_EQ(0, pthread_cancel(thread));
	ASSERT_EQ(0, pthread_join(thread, &result));
	EXPECT_EQ(PTHREAD_CANCELED, result);
	ASSERT_EQ(0, sysgenid_trigger(0));
	EXPECT_EQ(1, sysgenid_watcher_wait(watcher, 0, &generation));
	sysgenid_watcher_free(watcher);
}

TEST(failed_call_leaks_no_descriptor)
{
	int status;
	pid_t child = fork();

	if (!child) {
		int descriptors = count_descriptors();

		CHECK(!setgroups(0, NULL) && !setgid(NOBODY) && !setuid(NOBODY));
		for (int i = 0; i < 3; i++) {
			CHECK(!sysgenid_watcher_new(SYSGENID_TRACKED));
			CHECK(sysgenid_trigger(0) == -1);
		}
		CHECK(count_descriptors() == descriptors);
		_exit(0);
	}
	waitpid(child, &status, 0);
	EXPECT_EQ(0, status);
}

TEST(unknown_flags_are_refused)
{
	EXPECT_EQ(NULL, sysgenid_watcher_new(2));
	EXPECT_EQ(EINVAL, errno);
}

TEST(unprivileged_user_may_only_watch)
{
	struct sysgenid_watcher *watcher;
	uint64_t generation;
	int status;
	pid_t child = fork();

	if (!child) {
		int go[2];

		CHECK(!pipe(go));
		if (!fork()) {
			CHECK(read(go[0], &status, 1) == 1);
			_exit(sysgenid_trigger(0) ? 1 : 0);
		}
		CHECK(!setgroups(0, NULL) && !setgid(NOBODY) && !setuid(NOBODY));
		CHECK(!sysgenid_watcher_new(SYSGENID_TRACKED) && errno == EACCES);
		CHECK(sysgenid_trigger(0) == -1 && errno == EACCES);
		watcher = sysgenid_watcher_new(0);
		CHECK(watcher);
		CHECK(write(go[1], "", 1) == 1);
		CHECK(sysgenid_watcher_wait(watcher, -1, &generation) == 1);
		CHECK(sysgenid_watcher_ack(watcher, generation - 1) && errno == ESTALE);
		CHECK(sysgenid_watcher_ack(watcher, generation) == 0);
		CHECK(comes_to_rest(watcher));
		_exit(0);
	}
	waitpid(child, &status, 0);
	EXPECT_EQ(0, status);
}

/* Enters a sandbox that cannot open any file. */
static void enter_sandbox(bool filter)
{
	struct sock_filter rules[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
#ifdef __NR_open
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_open, 1, 0),
#endif
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_openat, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { .len = sizeof(rules) / sizeof(*rules), .filter = rules };
	struct rlimit none = { 1, 1 };	/* 1: poll() takes one descriptor */

	CHECK(!chroot("/proc/self/fdinfo") && !chdir("/"));
	CHECK(!setrlimit(RLIMIT_NOFILE, &none));
	CHECK(!setgroups(0, NULL) && !setgid(NOBODY) && !setuid(NOBODY));
	CHECK(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	CHECK(!filter || !prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
}

/* Runs the loop of sysgenid_watcher_new(3) for one generation. */
static void adjust_once(struct sysgenid_watcher *watcher)
{
	struct pollfd pollfd = { .fd = sysgenid_watcher_fd(watcher), .events = POLLIN };
	uint64_t generation;
	int adjusted = 0;

	CHECK(poll(&pollfd, 1, -1) == 1);
	while (sysgenid_watcher_wait(watcher, 0, &generation) == 1) {
		CHECK(++adjusted == 1);
		CHECK(sysgenid_watcher_ack(watcher, generation - 1) == -1 && errno == ESTALE);
		/* The descriptor stays readable until the acknowledgement. */
		CHECK(poll(&pollfd, 1, 0) == 1);
		CHECK(sysgenid_watcher_ack(watcher, generation) == 0);
	}
	CHECK(adjusted == 1 && comes_to_rest(watcher));
}

TEST(watcher_works_in_sandbox)
{
	/* The kernels that the tests build have no seccomp. */
	bool has_seccomp = prctl(PR_GET_SECCOMP, 0, 0, 0, 0) == 0;

	for (int filter = 0; filter < (has_seccomp ? 2 : 1); filter++) {
		int ready[2], status;
		pid_t child;

		ASSERT_EQ(0, pipe(ready));
		child = fork();
		if (!child) {
			struct sysgenid_watcher *watcher;

			CHECK(!seteuid(NOBODY));
			watcher = sysgenid_watcher_new(0);
			CHECK(watcher && !seteuid(0));
			enter_sandbox(filter);
			for (int i = 0; i < 3; i++) {
				CHECK(write(ready[1], "", 1) == 1);
				adjust_once(watcher);
			}
			_exit(0);
		}
		close(ready[1]);
		while (read(ready[0], &status, 1) == 1)
			EXPECT_EQ(0, sysgenid_trigger(0));
		close(ready[0]);
		waitpid(child, &status, 0);
		EXPECT_EQ(0, status);
	}
}

TEST(sandbox_can_inherit_watcher)
{
	struct sysgenid_watcher *watcher = sysgenid_watcher_new(0);
	uint64_t generation;
	int status;
	pid_t child;

	ASSERT_EQ(0, sysgenid_trigger(0));
	child = fork();
	if (!child) {
		CHECK(!chroot("/proc/self/fdinfo") && !chdir("/"));
		adjust_once(watcher);
		_exit(0);
	}
	waitpid(child, &status, 0);
	EXPECT_EQ(0, status);
	EXPECT_EQ(1, sysgenid_watcher_wait(watcher, 0, &generation));
	sysgenid_watcher_free(watcher);
}

/* Returns the exit status of a child, or 128 and more if a signal killed it. */
static int status_of(pid_t child)
{
	int status;

	CHECK(waitpid(child, &status, 0) == child);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

TEST(listed_system_calls_suffice)
{
	struct sysgenid_watcher *watcher, *tracked;
	struct sysgenid_seen seen = seen_now();
	uint64_t generation;
	pid_t child;

	if (prctl(PR_GET_SECCOMP, 0, 0, 0, 0))
		SKIP(return, "this kernel has no seccomp");
	watcher = sysgenid_watcher_new(0);
	tracked = sysgenid_watcher_new(SYSGENID_TRACKED);
	ASSERT_NE(NULL, watcher);
	ASSERT_NE(NULL, tracked);

	child = fork();
	if (!child) {
		CHECK(!sysgenid_trigger(0));
		allow_only(IN_LINE);
		CHECK(changed(&seen) && !changed(&seen));
		CHECK(sysgenid_barrier(&generation) == 0);
		_exit(0);
	}
	EXPECT_EQ(0, status_of(child));

	child = fork();
	if (!child) {
		CHECK(!close_range(3, ~0u, 0));
		allow_only(IN_LINE | AFTER_CLOSING);
		CHECK(changed(&seen) && sysgenid_barrier(&generation) == 0);
		_exit(0);
	}
	EXPECT_EQ(0, status_of(child));

	/* The watchers' generation is pending, so an inherited watcher reports it. */
	child = fork();
	if (!child) {
		allow_only(WATCHING | IN_CHILD);
		adjust_and_sleep(watcher);
		_exit(0);
	}
	EXPECT_EQ(0, status_of(child));

	child = fork();
	if (!child) {
		allow_only(WATCHING | TRACKED | IN_CHILD | TRACKED_IN_CHILD);
		adjust_and_sleep(tracked);
		_exit(0);
	}
	EXPECT_EQ(0, status_of(child));

	child = fork();
	if (!child) {
		watcher = sysgenid_watcher_new(0);
		CHECK(watcher && !sysgenid_trigger(0));
		allow_only(WATCHING);
		adjust_and_sleep(watcher);
		_exit(0);
	}
	EXPECT_EQ(0, status_of(child));

	child = fork();
	if (!child) {
		tracked = sysgenid_watcher_new(SYSGENID_TRACKED);
		CHECK(tracked && !sysgenid_trigger(0));
		allow_only(WATCHING | TRACKED);
		adjust_and_sleep(tracked);
		_exit(0);
	}
	EXPECT_EQ(0, status_of(child));

	child = fork();
	if (!child) {
		free(malloc(4096));	/* The allocator has memory before the filter. */
		allow_only(~0u);
		CHECK(sysgenid_watcher_new(0));
		CHECK(sysgenid_watcher_new(SYSGENID_TRACKED));
		_exit(0);
	}
	EXPECT_EQ(0, status_of(child));

	make_fake(VMCLOCK_HAS_GENERATION, 8);
	EXPECT_EQ(0, run_role("filtered", "/nowhere", FAKE, "/proc/self/exe", 0));
	sysgenid_watcher_free(tracked);
	sysgenid_watcher_free(watcher);
}

TEST(other_file_in_place_of_device_is_not_mapped)
{
	static const size_t sizes[] = { 0, 4096 };

	for (int i = 0; i < 2; i++) {
		pid_t child = fork();

		if (!child) {
			make_fake(0, 1);
			CHECK(!truncate(FAKE, sizes[i]));
			CHECK(!unshare(CLONE_NEWNS));
			CHECK(!mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
			CHECK(!mount(FAKE, "/dev/sysgenid", NULL, MS_BIND, NULL));
			_exit(run_role("other_file", NULL, "/nowhere", "/proc/self/exe", 0));
		}
		EXPECT_EQ(0, status_of(child));
	}
}

#define ROOT	"/tmp/libsysgenid-test-root"

TEST(chroot_can_have_its_own_node)
{
	pid_t child = fork();

	if (!child) {
		struct sysgenid_watcher *watcher;
		uint64_t generation;
		struct stat node;

		CHECK(!stat("/dev/sysgenid", &node));
		CHECK(!mkdir(ROOT, 0755) && !mkdir(ROOT "/dev", 0755));
		CHECK(!mknod(ROOT "/dev/sysgenid", S_IFCHR | 0600, node.st_rdev));
		CHECK(!chroot(ROOT) && !chdir("/"));
		watcher = sysgenid_watcher_new(SYSGENID_TRACKED);
		CHECK(watcher && !sysgenid_trigger(0));
		CHECK(sysgenid_wait_watchers(20) == -1 && errno == ETIME);
		CHECK(sysgenid_watcher_wait(watcher, 0, &generation) == 1);
		CHECK(sysgenid_watcher_ack(watcher, generation) == 0);
		CHECK(sysgenid_wait_watchers(-1) == 0);
		CHECK(!close_range(3, ~0u, 0) && sysgenid_barrier(&generation) == 0);
		_exit(0);
	}
	EXPECT_EQ(0, status_of(child));
	EXPECT_EQ(0, system("rm -r " ROOT));
}

/* Forks a child with PID 1 in a new namespace; its parent may have PID 1, too. */
static pid_t fork_first_process(void)
{
	struct clone_args args = { .flags = CLONE_NEWPID, .exit_signal = SIGCHLD };

	return syscall(SYS_clone3, &args, sizeof(args));
}

TEST(pid_1_of_pid_1_is_a_child)
{
	int status;
	pid_t child = fork_first_process();

	ASSERT_LE(0, child);
	if (!child) {
		struct sysgenid_watcher *tracked = sysgenid_watcher_new(SYSGENID_TRACKED);
		struct sysgenid_watcher *other = sysgenid_watcher_new(0);
		uint64_t generation;

		CHECK(getpid() == 1 && tracked && other && !sysgenid_trigger(0));
		child = fork_first_process();
		if (!child) {
			CHECK(getpid() == 1);
			CHECK(sysgenid_watcher_wait(tracked, 0, &generation) == 1);
			CHECK(sysgenid_watcher_ack(tracked, generation) == 0);
			CHECK(sysgenid_watcher_wait(other, 0, &generation) == 1);
			CHECK(sysgenid_watcher_ack(other, generation) == 0);
			_exit(0);
		}
		CHECK(waitpid(child, &status, 0) == child && status == 0);
		CHECK(sysgenid_wait_watchers(20) == -1 && errno == ETIME);
		CHECK(sysgenid_watcher_wait(tracked, 0, &generation) == 1);
		CHECK(sysgenid_watcher_wait(other, 0, &generation) == 1);
		_exit(0);
	}
	waitpid(child, &status, 0);
	EXPECT_EQ(0, status);
}

TEST(child_acknowledges_for_itself)
{
	struct sysgenid_watcher *watcher = sysgenid_watcher_new(0);
	uint64_t generation;
	int status;
	pid_t child;

	ASSERT_EQ(0, sysgenid_trigger(0));
	child = fork();
	if (!child) {
		int fd = sysgenid_watcher_fd(watcher);

		CHECK(sysgenid_watcher_wait(watcher, 0, &generation) == 1);
		CHECK(sysgenid_watcher_fd(watcher) == fd);
		CHECK(sysgenid_watcher_ack(watcher, generation) == 0);
		CHECK(sysgenid_watcher_wait(watcher, 0, &generation) == 0);
		CHECK(sysgenid_trigger(0) == 0);
		CHECK(sysgenid_watcher_wait(watcher, -1, &generation) == 1);
		_exit(0);
	}
	waitpid(child, &status, 0);
	EXPECT_EQ(0, status);
	EXPECT_EQ(1, sysgenid_watcher_wait(watcher, 0, &generation));
	EXPECT_EQ(0, sysgenid_watcher_ack(watcher, generation));
	EXPECT_EQ(0, sysgenid_watcher_wait(watcher, 0, &generation));
	sysgenid_watcher_free(watcher);
}

TEST(unprivileged_watcher_sleeps_despite_child)
{
	struct sysgenid_watcher *watcher;
	uint64_t generation;
	pid_t child;

	ASSERT_EQ(0, seteuid(NOBODY));
	watcher = sysgenid_watcher_new(0);
	ASSERT_EQ(0, seteuid(0));
	ASSERT_NE(NULL, watcher);
	ASSERT_EQ(0, sysgenid_trigger(0));
	ASSERT_EQ(1, sysgenid_watcher_wait(watcher, 0, &generation));
	child = fork();
	if (!child) {
		pause();
		_exit(0);
	}
	EXPECT_EQ(0, sysgenid_watcher_ack(watcher, generation));
	EXPECT_TRUE(comes_to_rest(watcher));
	kill(child, SIGKILL);
	EXPECT_EQ(child, waitpid(child, NULL, 0));
	sysgenid_watcher_free(watcher);
}

TEST(repeated_wake_ups_do_not_extend_timeout)
{
	struct sysgenid_watcher *watcher = sysgenid_watcher_new(0);
	struct epoll_event event = { .events = EPOLLOUT };
	uint64_t generation;
	int waker[2];

	ASSERT_EQ(0, pipe(waker));
	ASSERT_EQ(0, epoll_ctl(sysgenid_watcher_fd(watcher), EPOLL_CTL_ADD,
			       waker[1], &event));
	EXPECT_EQ(0, sysgenid_watcher_wait(watcher, 0, &generation));
	EXPECT_EQ(0, sysgenid_watcher_wait(watcher, 20, &generation));
	ASSERT_EQ(0, sysgenid_trigger(0));
	EXPECT_EQ(1, sysgenid_watcher_wait(watcher, 20, &generation));
	sysgenid_watcher_free(watcher);
}

#define CHANGES	200

/* Counts the changes to a lower generation, up to the last generation. */
static void *count_changes(void *last)
{
	struct sysgenid_seen seen = { .counter_ = NULL };
	uint64_t previous = 0, now = 0;
	long wrong = 0;

	while (now != *(uint64_t *)last) {
		if (!changed(&seen))
			continue;
		now = sysgenid_generation();
		wrong += now < previous;
		previous = now;
	}
	return (void *)wrong;
}

TEST(threads_see_generations_in_order)
{
	uint64_t last = sysgenid_generation() + CHANGES;
	pthread_t threads[4];
	void *wrong;
	int i;

	for (i = 0; i < 4; i++)
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, count_changes, &last));
	for (i = 0; i < CHANGES; i++)
		ASSERT_EQ(0, sysgenid_trigger(0));
	for (i = 0; i < 4; i++) {
		ASSERT_EQ(0, pthread_join(threads[i], &wrong));
		EXPECT_EQ(NULL, wrong);
	}
}

TEST(nothing_changes_without_device)
{
	EXPECT_EQ(0, run_role("no_device", "/nowhere", "/nowhere", "/proc/self/exe", 0));
}

/* Counts the lines in the system's log while the role is played. */
static int count_logged(const char *role, char *line, size_t size)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = "/dev/log" };
	int log = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int count = 0;
	ssize_t length;

	if (bind(log, (struct sockaddr *)&address, sizeof(address)) ||
	    run_role(role, "/nowhere", "/nowhere", "/proc/self/exe", 0))
		count = -1;
	while ((length = recv(log, line, size - 1, 0)) > 0) {
		line[length] = '\0';
		count += count >= 0;
	}
	close(log);
	unlink(address.sun_path);
	return count;
}

TEST(missing_device_is_logged_once)
{
	char line[512] = "";

	EXPECT_EQ(1, count_logged("logs_to_system", line, sizeof(line)));
	EXPECT_EQ(0, strncmp(line, "<13>", 4));
	EXPECT_NE(NULL, strstr(line, "unavailable: /nowhere: No such file or directory"));
}

TEST(linking_alone_logs_nothing)
{
	char line[512];

	EXPECT_EQ(0, count_logged("no_generation", line, sizeof(line)));
}

TEST(program_can_take_over_or_silence_log)
{
	char line[512];

	EXPECT_EQ(0, count_logged("logs_to_program", line, sizeof(line)));
}

TEST(concurrent_openers_share_descriptor)
{
	make_fake(0, 1);
	EXPECT_EQ(0, run_role("late", "/nowhere", "/nowhere", "/proc/self/exe", 0));
}

TEST(device_appears_with_its_generation)
{
	make_fake(0, 1);
	EXPECT_EQ(0, run_role("stepped", "/nowhere", "/nowhere", "/proc/self/exe", 0));
}

TEST(vmclock_is_used_without_device)
{
	make_fake(VMCLOCK_HAS_GENERATION, UINT64_C(0x700000001));
	EXPECT_EQ(0, run_role("vmclock", "/nowhere", FAKE, "/proc/self/exe", 0));
	/* The flags promise notifications, but a file cannot be polled. */
	make_fake(VMCLOCK_HAS_GENERATION | VMCLOCK_HAS_NOTIFY, UINT64_C(0x700000001));
	EXPECT_EQ(0, run_role("vmclock", "/nowhere", FAKE, "/proc/self/exe", 0));
}

TEST(neither_source_hides_the_other)
{
	make_fake(VMCLOCK_HAS_GENERATION, 7);
	EXPECT_EQ(0, run_role("both", "/dev/sysgenid", FAKE, "/proc/self/exe", 0));
}

TEST(notifying_vmclock_wakes_watcher)
{
	ASSERT_TRUE(load_module("fake_vmclock", ""));
	write_vmclock(VMCLOCK_HAS_GENERATION | VMCLOCK_HAS_NOTIFY, 8);
	EXPECT_EQ(0, run_role("notified", "/nowhere", VMCLOCK, "/proc/self/exe", 0));
	EXPECT_TRUE(unload_module("fake_vmclock"));
}

TEST(vmclock_without_generation_is_ignored)
{
	make_fake(0, 1);
	EXPECT_EQ(0, run_role("no_generation", "/nowhere", FAKE, "/proc/self/exe", 0));
}

TEST(file_can_stand_in_for_device)
{
	make_fake(0, 1);
	EXPECT_EQ(0, run_role("file", FAKE, "/nowhere", "/proc/self/exe", 0));
}

TEST(setuid_program_ignores_environment)
{
	char command[128];

	snprintf(command, sizeof(command), "cp /proc/%d/exe %s", getpid(), SETUID_SELF);
	ASSERT_EQ(0, system(command));
	ASSERT_EQ(0, chmod(SETUID_SELF, 04755));
	EXPECT_EQ(0, run_role("secure", "/nowhere", "/nowhere", SETUID_SELF, NOBODY));
	unlink(SETUID_SELF);
}

TEST_HARNESS_MAIN
