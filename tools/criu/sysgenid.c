// SPDX-License-Identifier: GPL-2.0
/*
 * A CRIU plugin that checkpoints and restores processes that use /dev/sysgenid.
 *
 * It opens descriptors again with the same flags, tracks those that were tracked,
 * and restores mappings. Before any restored process runs, it triggers a new
 * generation: other processes may have been restored from the same checkpoint.
 */
#include <criu/criu-plugin.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <linux/sysgenid.h>

#define DEVICE	"/dev/sysgenid"
/* Files among the images: one says that the device is used, others are one a descriptor. */
#define USED	"sysgenid.img"
#define IMAGE	"sysgenid-%x.img"

/* CRIU exports this log function without a header. Level 1 is for errors. */
extern void print_on_level(unsigned int level, const char *format, ...)
	__attribute__((__format__(__printf__, 2, 3)));

#define error(format, ...)	print_on_level(1, "sysgenid: " format "\n", ##__VA_ARGS__)

/* Whether a restored process uses the device and a new generation is still due. */
static bool owes_generation;

static FILE *open_image(const char *name, const char *mode)
{
	int flags = *mode == 'w' ? O_WRONLY | O_CREAT | O_TRUNC : O_RDONLY;
	int fd = openat(criu_get_image_dir(), name, flags | O_CLOEXEC, 0600);
	FILE *file = fd < 0 ? NULL : fdopen(fd, mode);

	if (!file && fd >= 0)
		close(fd);
	return file;
}

/* Checks the name in sysfs, because the device's number is dynamic. */
static bool is_sysgenid(const struct stat *stat)
{
	char path[64], line[64];
	bool found = false;
	FILE *file;

	if (!S_ISCHR(stat->st_mode))
		return false;
	snprintf(path, sizeof(path), "/sys/dev/char/%u:%u/uevent",
		 major(stat->st_rdev), minor(stat->st_rdev));
	file = fopen(path, "re");
	while (file && !found && fgets(line, sizeof(line), file))
		found = !strcmp(line, "DEVNAME=sysgenid\n");
	if (file)
		fclose(file);
	return found;
}

/* Returns: 1 if the descriptor is tracked, 0 if it is not, or -1. */
static int is_tracked(int fd)
{
	int tracked = -1;
	char path[64], line[128];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	file = fopen(path, "re");
	while (file && tracked < 0 && fgets(line, sizeof(line), file))
		sscanf(line, "sysgenid-tracked: %d", &tracked);
	if (file)
		fclose(file);
	return tracked;
}

static int note_use(void)
{
	FILE *file = open_image(USED, "w");

	if (!file || fclose(file)) {
		error("cannot write %s: %s", USED, strerror(errno));
		return -1;
	}
	return 0;
}

/* Returns: 0 if the descriptor is saved, -ENOTSUP if it is of another file. */
static int save_descriptor(int fd, int id)
{
	int flags = fcntl(fd, F_GETFL), tracked;
	struct stat stat;
	char name[32];
	FILE *file;

	if (fstat(fd, &stat) || !is_sysgenid(&stat))
		return -ENOTSUP;
	tracked = is_tracked(fd);
	if (flags < 0 || tracked < 0) {
		error("/proc does not show how the descriptor is used");
		return -1;
	}
	snprintf(name, sizeof(name), IMAGE, id);
	file = open_image(name, "w");
	if (!file || fprintf(file, "%o %d\n", flags, tracked) < 0 || fclose(file)) {
		error("cannot write %s: %s", name, strerror(errno));
		return -1;
	}
	return note_use();
}

/* Returns: the descriptor, -ENOTSUP if another plugin saved it, or -1. */
static int restore_descriptor(int id)
{
	unsigned int flags;
	int fd, tracked;
	char name[32];
	FILE *file;

	snprintf(name, sizeof(name), IMAGE, id);
	file = open_image(name, "r");
	if (!file)
		return -ENOTSUP;
	if (fscanf(file, "%o %d", &flags, &tracked) != 2) {
		error("%s is damaged", name);
		fclose(file);
		return -1;
	}
	fclose(file);
	fd = open(DEVICE, flags);
	if (fd < 0) {
		error("cannot open %s: %s", DEVICE, strerror(errno));
		return -1;
	}
	if (tracked && ioctl(fd, SYSGENID_SET_WATCHER_TRACKING, 1)) {
		error("cannot track the descriptor: %s", strerror(errno));
		close(fd);
		return -1;
	}
	return fd;
}

/* Returns: 0 if CRIU may save this mapping by its path, -ENOTSUP if it is another's. */
static int claim_mapping(int fd, const struct stat *stat)
{
	(void)fd;
	return is_sysgenid(stat) ? note_use() : -ENOTSUP;
}

/*
 * CRIU opens the device read-only, because the mapping is. Mapping the hardware's page,
 * which is not at offset 0, needs a descriptor that is open for writing.
 */
static int open_for_mapping(const char *path, const uint64_t address, const uint64_t old_offset,
			    uint64_t *offset, int *fd)
{
	const char *name = strrchr(path, '/');

	(void)address;
	if (!name || strcmp(name, strrchr(DEVICE, '/')) || !old_offset)
		return -ENOTSUP;
	*fd = open(DEVICE, O_RDWR | O_CLOEXEC);
	if (*fd < 0) {
		error("cannot open %s for writing: %s", DEVICE, strerror(errno));
		return -1;
	}
	*offset = old_offset;
	return 1;
}

/* CRIU calls this for each restored process, before any of them runs. */
static int trigger_generation(int pid)
{
	int fd;

	(void)pid;
	if (!owes_generation)
		return -ENOTSUP;
	fd = open(DEVICE, O_RDWR | O_CLOEXEC);
	if (fd < 0 || ioctl(fd, SYSGENID_TRIGGER_GEN_UPDATE, 0)) {
		error("starting a new generation failed: %s", strerror(errno));
		return -1;
	}
	close(fd);
	owes_generation = false;
	return 0;
}

static int start(int stage)
{
	if (stage == CR_PLUGIN_STAGE__RESTORE)
		owes_generation = !faccessat(criu_get_image_dir(), USED, F_OK, 0);
	return 0;
}

static void end(int stage, int status)
{
	(void)stage;
	(void)status;
}

/* CRIU looks for this name. */
cr_plugin_desc_t CR_PLUGIN_DESC = {
	.name = "sysgenid",
	.init = start,
	.exit = end,
	.version = CRIU_PLUGIN_VERSION,
	.max_hooks = CR_PLUGIN_HOOK__MAX,
	.hooks = {
		[CR_PLUGIN_HOOK__DUMP_EXT_FILE] = save_descriptor,
		[CR_PLUGIN_HOOK__RESTORE_EXT_FILE] = restore_descriptor,
		[CR_PLUGIN_HOOK__HANDLE_DEVICE_VMA] = claim_mapping,
		[CR_PLUGIN_HOOK__UPDATE_VMA_MAP] = open_for_mapping,
		[CR_PLUGIN_HOOK__RESUME_DEVICES_LATE] = trigger_generation,
	},
};
