// SPDX-License-Identifier: GPL-2.0
/*
 * Keeps /dev/sysgenid in use until it is killed: by a descriptor, or by a mapping whose
 * descriptor is closed. Prints "holding GENERATION".
 */
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int fd = open("/dev/sysgenid", O_RDWR);
	volatile uint32_t *page;

	if (argc != 2 || (strcmp(argv[1], "descriptor") && strcmp(argv[1], "mapping")))
		errx(2, "usage: hold_device descriptor|mapping");
	page = mmap(NULL, sysconf(_SC_PAGESIZE), PROT_READ, MAP_SHARED, fd, 0);
	if (fd < 0 || page == MAP_FAILED)
		err(1, "/dev/sysgenid");
	printf("holding %u\n", *page);
	fflush(stdout);
	if (!strcmp(argv[1], "mapping"))
		close(fd);
	else
		munmap((void *)page, sysconf(_SC_PAGESIZE));
	pause();
	return 0;
}
