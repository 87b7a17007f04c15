// SPDX-License-Identifier: GPL-2.0
/*
 * The page of the hardware's identifier: permissions to map it, its protection against
 * writes and dumps, and its lifetime beyond the hardware's driver. Needs a generation ID
 * whose driver is loaded. Also built as a 32-bit program.
 */
#include "modules.h"

#include <sys/resource.h>

#define BACKEND		"vm_generation_id"
#define SIZE		16	/* of a GUID */
#define CORE_PATTERN	"/proc/sys/kernel/core_pattern"
#define SMAPS		"/proc/self/smaps"

/* volatile: the compiler would warn of a known bad pointer. */
static void *volatile bad_pointer = (void *)1;

static void *map_at(int fd, off_t page, size_t pages, int protection, int flags)
{
	return mmap(NULL, pages * page_size(), protection, flags, fd, page * page_size());
}

static void *map_hardware(int fd)
{
	return map_at(fd, 1, 1, PROT_READ, MAP_SHARED);
}

static int get_hardware(int fd, struct sysgenid_hardware *hardware)
{
	return ioctl(fd, SYSGENID_GET_HARDWARE, hardware);
}

FIXTURE(hardware) {
	int fd;
	uint8_t *page;
	struct sysgenid_hardware where;
	uint8_t identifier[SIZE];
};

FIXTURE_SETUP(hardware)
{
	self->fd = open_device(O_RDWR);
	ASSERT_EQ(0, get_hardware(self->fd, &self->where));
	ASSERT_EQ(SIZE, self->where.size);
	ASSERT_LE(self->where.offset + SIZE, page_size());
	self->page = map_hardware(self->fd);
	ASSERT_NE(MAP_FAILED, (void *)self->page);
	memcpy(self->identifier, self->page + self->where.offset, SIZE);
}

FIXTURE_TEARDOWN(hardware)
{
	close(self->fd);
}

static bool shows(const uint8_t *page, const struct sysgenid_hardware *where,
		  const uint8_t *identifier)
{
	return !memcmp(page + where->offset, identifier, SIZE);
}

#define EXPECT_SHOWN(page) EXPECT_TRUE(shows(page, &self->where, self->identifier))

/* Permissions and flags of the mapping */

TEST_F(hardware, page_shows_identifier)
{
	static const uint8_t none[SIZE];

	EXPECT_NE(0, memcmp(none, self->identifier, SIZE));
	EXPECT_SHOWN(map_hardware(self->fd));
}

TEST_F(hardware, read_only_descriptor_is_EPERM)
{
	EXPECT_FAILS(EPERM, map_hardware(open_device(O_RDONLY)));
}

TEST_F(hardware, write_only_descriptor_is_EACCES)
{
	EXPECT_FAILS(EACCES, map_hardware(open_device(O_WRONLY)));
}

TEST_F(hardware, writable_mapping_is_EPERM)
{
	EXPECT_FAILS(EPERM, map_at(self->fd, 1, 1, PROT_READ | PROT_WRITE, MAP_SHARED));
	EXPECT_FAILS(EPERM, map_at(self->fd, 1, 1, PROT_WRITE, MAP_SHARED));
	EXPECT_FAILS(EPERM, map_at(self->fd, 1, 1, PROT_READ | PROT_WRITE, MAP_PRIVATE));
}

TEST_F(hardware, private_mapping_is_EINVAL)
{
	EXPECT_FAILS(EINVAL, map_at(self->fd, 1, 1, PROT_READ, MAP_PRIVATE));
}

TEST_F(hardware, neighbour_pages_cannot_be_mapped)
{
	EXPECT_FAILS(EINVAL, map_at(self->fd, 0, 2, PROT_READ, MAP_SHARED));
	EXPECT_FAILS(EINVAL, map_at(self->fd, 1, 2, PROT_READ, MAP_SHARED));
	EXPECT_FAILS(EINVAL, map_at(self->fd, 2, 1, PROT_READ, MAP_SHARED));
}

TEST_F(hardware, ioctl_into_bad_pointer_is_EFAULT)
{
	EXPECT_FAILS(EFAULT, get_hardware(self->fd, bad_pointer));
}

/* Operations on the mapping */

TEST_F(hardware, mapping_cannot_become_writable)
{
	EXPECT_FAILS(EACCES, mprotect(self->page, page_size(), PROT_READ | PROT_WRITE));
	EXPECT_SHOWN(self->page);
}

TEST_F(hardware, proc_mem_cannot_write_mapping)
{
	int mem = open("/proc/self/mem", O_RDWR | O_CLOEXEC);

	ASSERT_LE(0, mem);
	EXPECT_EQ(-1, pwrite(mem, "", 1, (uintptr_t)self->page + self->where.offset));
	EXPECT_SHOWN(self->page);
	close(mem);
}

TEST_F(hardware, mapping_outlives_descriptor)
{
	close(self->fd);
	EXPECT_SHOWN(self->page);
}

TEST_F(hardware, mapping_survives_fork)
{
	pid_t child = fork();

	if (!child)
		_exit(!shows(self->page, &self->where, self->identifier));
	EXPECT_TRUE(succeeds(child));
	EXPECT_SHOWN(self->page);
}

TEST_F(hardware, mapping_can_be_moved_but_not_grown)
{
	size_t size = page_size();
	void *place = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	EXPECT_FAILS(EFAULT, mremap(self->page, size, 2 * size, MREMAP_MAYMOVE));
	ASSERT_EQ(place, mremap(self->page, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, place));
	EXPECT_SHOWN((uint8_t *)place);
}

TEST_F(hardware, mapping_survives_MADV_DONTNEED)
{
	madvise(self->page, page_size(), MADV_DONTNEED);
	EXPECT_SHOWN(self->page);
}

TEST_F(hardware, mapping_keeps_sysgenid_loaded)
{
	long long users = module_users();

	if (users < 0)
		SKIP(return, "sysgenid is built into this kernel");
	close(self->fd);
	EXPECT_EQ(users, module_users());
	ASSERT_EQ(0, munmap(self->page, page_size()));
	EXPECT_EQ(users - 1, module_users());
}

/* Core dumps */

/* Returns whether the mapping has a VmFlag of Documentation/filesystems/proc.rst. */
static bool has_flag(const void *page, const char *flag)
{
	FILE *file = fopen(SMAPS, "re");
	bool ours = false, found = false;
	unsigned long start, end;
	char line[512];

	if (!file)
		err(1, SMAPS);
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			ours = start == (unsigned long)page;
		if (ours && !strncmp(line, "VmFlags:", 8))
			found = strstr(line, flag);
	}
	fclose(file);
	return found;
}

TEST_F(hardware, mapping_is_excluded_from_dumps)
{
	EXPECT_FAILS(EINVAL, madvise(self->page, page_size(), MADV_DODUMP));
	if (access(SMAPS, R_OK))
		SKIP(return, "this kernel has no " SMAPS);
	EXPECT_TRUE(has_flag(self->page, " sh"));
	EXPECT_TRUE(has_flag(self->page, " pf"));
	EXPECT_TRUE(has_flag(self->page, " dd"));
	EXPECT_FALSE(has_flag(self->page, " mw"));
}

/* Returns whether the file contains these bytes. */
static bool file_contains(const char *path, const void *bytes, size_t size)
{
	struct stat status;
	void *file;
	bool found;
	int fd;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &status))
		err(1, "%s", path);
	file = mmap(NULL, status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (file == MAP_FAILED)
		err(1, "%s", path);
	found = memmem(file, status.st_size, bytes, size);
	munmap(file, status.st_size);
	close(fd);
	return found;
}

static void set_core_pattern(const char *pattern)
{
	FILE *file = fopen(CORE_PATTERN, "we");

	if (!file || fputs(pattern, file) < 0 || fclose(file))
		err(1, CORE_PATTERN);
}

/* The test has no fixture, as its memory must not hold a copy of the identifier. */
TEST(core_does_not_contain_identifier)
{
	const struct rlimit limit = { RLIM_INFINITY, RLIM_INFINITY };
	struct sysgenid_hardware where;
	int fd = open_device(O_RDWR), status;
	uint8_t marker[SIZE];
	uint8_t *page;
	pid_t child;

	if (access(CORE_PATTERN, W_OK))
		SKIP(return, "this kernel dumps no core");
	page = map_hardware(fd);
	ASSERT_NE(MAP_FAILED, (void *)page);
	ASSERT_EQ(0, get_hardware(fd, &where));
	ASSERT_EQ(SIZE, syscall(SYS_getrandom, marker, SIZE, 0));
	set_core_pattern("/tmp/core");
	child = fork();
	if (!child) {
		setrlimit(RLIMIT_CORE, &limit);
		abort();
	}
	ASSERT_EQ(child, waitpid(child, &status, 0));
	EXPECT_TRUE(WIFSIGNALED(status) && WCOREDUMP(status));
	EXPECT_TRUE(file_contains("/tmp/core", marker, SIZE));
	EXPECT_FALSE(file_contains("/tmp/core", page + where.offset, SIZE));
	unlink("/tmp/core");
}

/* Without the hardware's driver */

TEST_F(hardware, page_outlives_driver)
{
	ASSERT_TRUE(unload_module(BACKEND));
	EXPECT_SHOWN(self->page);
	ASSERT_TRUE(load_module(BACKEND, ""));
	EXPECT_SHOWN(self->page);
	EXPECT_SHOWN(map_hardware(self->fd));
}

static void expect_no_hardware(struct __test_metadata *_metadata, int fd)
{
	struct sysgenid_hardware where;

	EXPECT_FAILS(ENODEV, map_hardware(fd));
	EXPECT_FAILS(ENODEV, get_hardware(fd, &where));
	/* A caller without permission does not learn whether there is hardware. */
	EXPECT_FAILS(EPERM, map_hardware(open_device(O_RDONLY)));
}

TEST_F(hardware, missing_driver_is_ENODEV)
{
	ASSERT_TRUE(unload_module(BACKEND));
	expect_no_hardware(_metadata, self->fd);
	EXPECT_TRUE(load_module(BACKEND, ""));
}

TEST_F(hardware, other_backend_is_ENODEV)
{
	ASSERT_TRUE(load_test_module(""));
	expect_no_hardware(_metadata, self->fd);
	EXPECT_TRUE(unload_module("fake_backend") && load_module(BACKEND, ""));
}

TEST_HARNESS_MAIN
