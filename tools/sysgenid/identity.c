// SPDX-License-Identifier: GPL-2.0
/*
 * The overseer remembers the hardware's generation ID as a keyed digest, which serves
 * only for comparison. The process that needs the digest computes it, from the page
 * that the driver lets root map.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <gcrypt.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include <linux/sysgenid.h>

#include "overseer.h"
#include "system.h"

#define KEY_SIZE	16
#define DIGEST_SIZE	32

/* Computes HMAC-SHA256 of the identifier; false: there is no identifier. */
static bool digest_hardware(int fd, const unsigned char *key,
			    unsigned char *digest)
{
	struct sysgenid_hardware where;
	size_t size = DIGEST_SIZE;
	unsigned char *page;
	gcry_mac_hd_t mac;
	bool good;

	if (fd < 0 || ioctl(fd, SYSGENID_GET_HARDWARE, &where))
		return false;
	page = mmap(NULL, getpagesize(), PROT_READ, MAP_SHARED, fd, getpagesize());
	if (page == MAP_FAILED)
		return false;
	gcry_check_version(NULL);
	good = !gcry_mac_open(&mac, GCRY_MAC_HMAC_SHA256, 0, NULL);
	if (good) {
		good = !gcry_mac_setkey(mac, key, KEY_SIZE) &&
		       !gcry_mac_write(mac, page + where.offset, where.size) &&
		       !gcry_mac_read(mac, digest, &size);
		gcry_mac_close(mac);
	}
	munmap(page, getpagesize());
	return good;
}

static void to_hex(char *text, const unsigned char *bytes, size_t size)
{
	for (size_t i = 0; i < size; i++)
		sprintf(text + 2 * i, "%02x", bytes[i]);
}

bool identity_make(int fd, char *identity)
{
	unsigned char key[KEY_SIZE], digest[DIGEST_SIZE];

	if (getrandom(key, sizeof(key), 0) != sizeof(key) ||
	    !digest_hardware(fd, key, digest))
		return false;
	to_hex(identity, key, KEY_SIZE);
	to_hex(identity + 2 * KEY_SIZE, digest, DIGEST_SIZE);
	return true;
}

enum identity identity_compare(int fd, const char *identity)
{
	unsigned char key[KEY_SIZE], digest[DIGEST_SIZE];
	char now[2 * DIGEST_SIZE + 1];

	if (strlen(identity) != IDENTITY_SIZE - 1)
		return IDENTITY_UNKNOWN;
	for (size_t i = 0; i < KEY_SIZE; i++)
		if (sscanf(identity + 2 * i, "%2hhx", &key[i]) != 1)
			return IDENTITY_UNKNOWN;
	if (!digest_hardware(fd, key, digest))
		return IDENTITY_UNKNOWN;
	to_hex(now, digest, DIGEST_SIZE);
	return strcmp(now, identity + 2 * KEY_SIZE) ? IDENTITY_OTHER : IDENTITY_SAME;
}

bool identity_has_changed(void)
{
	json_object *known = json_object_from_file(IDENTITY_PATH);
	int fd = open("/dev/sysgenid", O_RDWR | O_CLOEXEC);
	/* Without the file, the overseer failed to publish the identity. */
	bool changed = access(IDENTITY_PATH, F_OK) ||
		       (known && fd >= 0 &&
			identity_compare(fd, json_object_get_string(known)) ==
			IDENTITY_OTHER);

	json_object_put(known);
	if (fd >= 0)
		close(fd);
	return changed;
}
