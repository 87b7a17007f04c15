// SPDX-License-Identifier: GPL-2.0
/*
 * Has write_guid.ko write new GUIDs in pieces, and reads the generation meanwhile, each
 * time from another piece on. Prints the increment of the generation for each GUID.
 *
 * usage: torn_guid TIMES SIZE NANOSECONDS: the pieces' size and interval
 */
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <linux/sysgenid.h>

#define GUID_BYTES 16

static int device, writer;

static uint32_t get_generation(void)
{
	uint32_t generation;

	if (ioctl(device, SYSGENID_GET_GENERATION, &generation))
		err(1, "SYSGENID_GET_GENERATION");
	return generation;
}

static int bytes_left(void)
{
	char text[16] = "";

	if (pread(writer, text, sizeof(text) - 1, 0) < 0)
		err(1, "write_guid");
	return atoi(text);
}

int main(int argc, char **argv)
{
	char order[32];
	int length;

	if (argc != 4)
		errx(2, "usage: torn_guid TIMES SIZE NANOSECONDS");
	device = open("/dev/sysgenid", O_RDONLY);
	writer = open("/sys/module/write_guid/parameters/write", O_RDWR);
	if (device < 0 || writer < 0)
		err(1, "load sysgenid.ko and write_guid.ko");
	length = snprintf(order, sizeof(order), "%s %s", argv[2], argv[3]);
	for (int times = atoi(argv[1]); times; times--) {
		uint32_t before = get_generation();

		if (pwrite(writer, order, length, 0) != length)
			err(1, "write_guid");
		while (bytes_left() > times % GUID_BYTES)
			;
		do
			get_generation();
		while (bytes_left());
		printf("%u ", get_generation() - before);
	}
	printf("\n");
	return 0;
}
