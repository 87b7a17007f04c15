/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Reads the GUID in memory, which shows a restore before the driver detects it. Maps
 * it through /dev/mem, or through the driver's device if its address is not known.
 */
#ifndef GUID_H
#define GUID_H

#include <endian.h>
#include <err.h>
#include <fcntl.h>
#include <glob.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/sysgenid.h>

#define TABLES		"/sys/firmware/acpi/tables/"
/* QEMU's table has Name (VGIA, …) with four bytes, to which ADDR adds 40. */
#define NAME		"\x08VGIA\x0c"
#define OFFSET		40

/* The GUID, which only the hypervisor writes, and its value at the start. */
static volatile const uint64_t *guid;
static uint64_t guid_first[2];

static uint32_t guid_find_address(const char *path)
{
	char table[65536];
	FILE *file = fopen(path, "r");
	uint32_t page;
	size_t length;
	char *name;

	if (!file)
		return 0;
	length = fread(table, 1, sizeof(table), file);
	fclose(file);
	name = memmem(table, length, NAME, strlen(NAME));
	if (!name)
		return 0;
	memcpy(&page, name + strlen(NAME), sizeof(page));
	return page + OFFSET;
}

/* In a devicetree, reg has two big-endian cells of address and two of size. */
static uint32_t guid_find_in_device_tree(void)
{
	uint32_t cells[4] = { 0 };
	glob_t found;
	int fd;

	if (glob("/proc/device-tree/vmgenid@*/reg", 0, NULL, &found))
		return 0;
	fd = open(found.gl_pathv[0], O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, cells, sizeof(cells)) != sizeof(cells))
		err(1, "%s", found.gl_pathv[0]);
	close(fd);
	globfree(&found);
	return be32toh(cells[1]);
}

/* Maps the page of a file that has this offset, and returns the address of the offset. */
static const void *guid_map(const char *path, int flags, off_t offset)
{
	const long page = sysconf(_SC_PAGESIZE);
	int fd = open(path, flags | O_CLOEXEC);
	char *memory = mmap(NULL, page, PROT_READ, MAP_SHARED, fd, offset & -page);

	if (fd < 0 || memory == MAP_FAILED)
		err(1, "%s at %#llx", path, (unsigned long long)offset);
	close(fd);
	return memory + (offset & (page - 1));
}

/* For firmware whose tables are not known here. */
static const void *guid_map_by_device(void)
{
	int fd = open("/dev/sysgenid", O_RDWR | O_CLOEXEC);
	struct sysgenid_hardware hardware;

	if (fd < 0 || ioctl(fd, SYSGENID_GET_HARDWARE, &hardware))
		err(1, "SYSGENID_GET_HARDWARE");
	close(fd);
	return guid_map("/dev/sysgenid", O_RDWR, sysconf(_SC_PAGESIZE) + hardware.offset);
}

/* Maps the GUID and saves its value. */
static void guid_start(void)
{
	uint32_t address = guid_find_in_device_tree();
	char path[64];

	for (int i = 0; !address && i < 10; i++) {
		snprintf(path, sizeof(path), i ? TABLES "SSDT%d" : TABLES "SSDT", i);
		address = guid_find_address(path);
	}
	guid = address ? guid_map("/dev/mem", O_RDONLY, address) : guid_map_by_device();
	guid_first[0] = guid[0];
	guid_first[1] = guid[1];
}

static inline bool guid_is_new(void)
{
	return guid[0] != guid_first[0] || guid[1] != guid_first[1];
}

#endif /* GUID_H */
