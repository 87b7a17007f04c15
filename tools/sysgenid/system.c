// SPDX-License-Identifier: GPL-2.0
/*
 * Reads /proc and /sys: late watchers, sysfs attributes, and the reason for a missing
 * device.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "system.h"
#include "text.h"

#define ATTRIBUTES	"/sys/class/misc/sysgenid"
#define ACPI_DEVICES	"/sys/bus/acpi/devices"

/* A path below /proc that names a process and a descriptor. */
#define PATH_SIZE	64

static bool read_line(const char *path, char *line, size_t size)
{
	FILE *file = fopen(path, "re");
	bool done;

	if (!file)
		return false;
	done = fgets(line, size, file);
	fclose(file);
	if (done)
		line[strcspn(line, "\n")] = '\0';
	return done;
}

bool read_attribute(const char *name, char *value, size_t size)
{
	char path[sizeof(ATTRIBUTES) + 32];

	snprintf(path, sizeof(path), ATTRIBUTES "/%s", name);
	return read_line(path, value, size);
}

unsigned long number_attribute(const char *name)
{
	char value[32];

	return read_attribute(name, value, sizeof(value)) ?
	       strtoul(value, NULL, 10) : 0;
}

void counter_key(char *key)
{
	struct stat module = {};
	char boot[64];

	if (!read_line("/proc/sys/kernel/random/boot_id", boot, sizeof(boot)))
		boot[0] = '\0';
	stat(ATTRIBUTES, &module);
	snprintf(key, COUNTER_KEY_SIZE, "%s/%ju", boot, (uintmax_t)module.st_ino);
}

struct json_object *read_record(void)
{
	json_object *record = json_object_from_file(STATUS_PATH);
	const char *counter;
	char key[COUNTER_KEY_SIZE];

	counter_key(key);
	counter = json_object_get_string(json_object_object_get(record, "counter"));
	if (counter && !strcmp(counter, key))
		return record;
	json_object_put(record);
	return NULL;
}

bool publish_json(const char *path, mode_t mode, struct json_object *object)
{
	char new[128];
	bool done;
	int error;
	FILE *file;

	snprintf(new, sizeof(new), "%s.new", path);
	unlink(new);
	file = fopen(new, "wxe");
	if (!file)
		return false;
	fchmod(fileno(file), mode);
	fprintf(file, "%s\n", json_line(object));
	done = !fflush(file) && !ferror(file) && !rename(new, path);
	error = errno;
	fclose(file);
	if (!done)
		unlink(new);
	errno = error;
	return done;
}

/* A process chooses its name freely: it may contain newlines. */
static void read_name(pid_t pid, char *name, size_t size)
{
	char path[PATH_SIZE];
	ssize_t length = -1;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		length = read(fd, name, size - 1);
		close(fd);
	}
	if (length > 0 && name[length - 1] == '\n')
		length--;
	if (length <= 0)
		length = stpcpy(name, "?") - name;
	name[length] = '\0';
	clean_text(name, length);
}

/* Reads the two lines in fdinfo that only the driver's descriptors have. */
static bool read_fdinfo(struct laggard *watcher, int *tracked)
{
	char path[PATH_SIZE], line[128];
	int found = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", watcher->pid,
		 watcher->fd);
	file = fopen(path, "re");
	if (!file)
		return false;
	while (fgets(line, sizeof(line), file)) {
		found += sscanf(line, "sysgenid-acknowledged: %u",
				&watcher->acknowledged) == 1;
		found += sscanf(line, "sysgenid-tracked: %d", tracked) == 1;
	}
	fclose(file);
	return found == 2;
}

/* Avoids reading fdinfo of all other descriptors. */
static bool may_be_device(pid_t pid, int fd)
{
	static const char name[] = "/sysgenid";
	char path[PATH_SIZE], target[256];
	ssize_t length;

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, fd);
	length = readlink(path, target, sizeof(target) - 1);
	if (length < (ssize_t)sizeof(name) - 1)
		return false;
	target[length] = '\0';
	return !strcmp(target + length - (sizeof(name) - 1), name);
}

static size_t find_in_process(pid_t pid, uint32_t generation,
			      struct laggard *found, size_t size)
{
	struct laggard watcher = { .pid = pid };
	char path[PATH_SIZE];
	struct dirent *entry;
	size_t count = 0;
	int tracked = 0;
	DIR *fds;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	fds = opendir(path);
	if (!fds)
		return 0;
	read_name(pid, watcher.name, sizeof(watcher.name));
	while (count < size && (entry = readdir(fds))) {
		if (!isdigit((unsigned char)entry->d_name[0]))
			continue;
		watcher.fd = atoi(entry->d_name);
		if (may_be_device(pid, watcher.fd) &&
		    read_fdinfo(&watcher, &tracked) && tracked &&
		    watcher.acknowledged != generation)
			found[count++] = watcher;
	}
	closedir(fds);
	return count;
}

size_t find_laggards(uint32_t generation, struct laggard *found, size_t size)
{
	DIR *processes = opendir("/proc");
	struct dirent *entry;
	size_t count = 0;

	if (!processes)
		return 0;
	while (count < size && (entry = readdir(processes)))
		if (isdigit((unsigned char)entry->d_name[0]) &&
		    strcmp(entry->d_name, "1"))
			count += find_in_process(atoi(entry->d_name),
						 generation, found + count,
						 size - count);
	closedir(processes);
	return count;
}

/* Returns whether ACPI has a generation ID device, with or without a driver. */
static bool has_acpi_device(void)
{
	static const char * const ids[] = {
		":VM_GEN_COUNTER:", ":VMGENID:", ":QEMUVGID:", ":VMGENCTR:"
	};
	DIR *devices = opendir(ACPI_DEVICES);
	char path[sizeof(ACPI_DEVICES) + 300], modalias[512];
	struct dirent *entry;
	bool found = false;

	if (!devices)
		return false;
	while (!found && (entry = readdir(devices))) {
		snprintf(path, sizeof(path), ACPI_DEVICES "/%s/modalias",
			 entry->d_name);
		if (!read_line(path, modalias, sizeof(modalias)))
			continue;
		for (size_t i = 0; i < sizeof(ids) / sizeof(*ids); i++)
			found |= strstr(modalias, ids[i]) != NULL;
	}
	closedir(devices);
	return found;
}

const char *explain_no_device(int error)
{
	if (error == EACCES || error == EPERM)
		return "no permission: this user may not open /dev/sysgenid";
	if (!access(ATTRIBUTES, F_OK))
		return "no /dev/sysgenid here, though the module is loaded: "
		       "add the device to this container or chroot";
	if (has_acpi_device())
		return "module not loaded: modprobe vmgenid "
		       "(from the package sysgenid-dkms)";
	return "not a guest with a generation ID device: add one "
	       "(QEMU: -device vmgenid,guid=auto; libvirt: <genid/>), "
	       "or, for sysgenid trigger only: modprobe sysgenid";
}
