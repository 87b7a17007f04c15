// SPDX-License-Identifier: GPL-2.0
/*
 * Maps the page of the hardware's identifier, and prints "at OFFSET HEX", its offset and
 * its value, or the calls that failed with their errors. For each line on its standard
 * input it prints "now HEX".
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/sysgenid.h>

static void show(const volatile uint8_t *bytes, unsigned int size)
{
	while (size--)
		printf("%02x", *bytes++);
	printf("\n");
	fflush(stdout);
}

int main(void)
{
	const long page = sysconf(_SC_PAGESIZE);
	struct sysgenid_hardware hardware = { 0 };
	int fd = open("/dev/sysgenid", O_RDWR);
	bool refused = false;
	uint8_t *memory;
	char line[64];

	if (fd < 0)
		err(1, "/dev/sysgenid");
	memory = mmap(NULL, page, PROT_READ, MAP_SHARED, fd, page);
	if (memory == MAP_FAILED) {
		printf("mmap: %s\n", strerrorname_np(errno));
		refused = true;
	}
	if (ioctl(fd, SYSGENID_GET_HARDWARE, &hardware)) {
		printf("ioctl: %s\n", strerrorname_np(errno));
		refused = true;
	}
	if (refused)
		return 1;
	close(fd);
	printf("at %u ", hardware.offset);
	show(memory + hardware.offset, hardware.size);
	while (fgets(line, sizeof(line), stdin)) {
		printf("now ");
		show(memory + hardware.offset, hardware.size);
	}
	return 0;
}
