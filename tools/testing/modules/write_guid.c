// SPDX-License-Identifier: GPL-2.0
/*
 * Writes new GUIDs into memory piece by piece, in a timer's interrupt. A reader
 * meanwhile sees a half-written GUID.
 *
 * Parameters: address   the physical address, in reserved memory
 *             write     a write of "SIZE NANOSECONDS" writes a new GUID in pieces of that
 *                       size, at that interval; a read returns the number of bytes left
 */

#include <linux/hrtimer.h>
#include <linux/io.h>
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/string.h>
#include <linux/sysfs.h>

#define GUID_BYTES	16

static unsigned long long address;
module_param(address, ullong, 0);
MODULE_PARM_DESC(address, "The physical address to write to");

static u8 new_guid[GUID_BYTES];
static unsigned int written = GUID_BYTES;
static unsigned int piece, gap;
static struct hrtimer timer;
static u8 *guid;

static enum hrtimer_restart write_piece(struct hrtimer *timer)
{
	unsigned int size = min(piece, GUID_BYTES - written);

	memcpy(guid + written, new_guid + written, size);
	WRITE_ONCE(written, written + size);
	if (written == GUID_BYTES)
		return HRTIMER_NORESTART;
	hrtimer_forward_now(timer, ns_to_ktime(gap));
	return HRTIMER_RESTART;
}

static int write_set(const char *value, const struct kernel_param *param)
{
	int i;

	if (!guid || READ_ONCE(written) != GUID_BYTES)
		return -EBUSY;
	if (sscanf(value, "%u %u", &piece, &gap) != 2 || !piece)
		return -EINVAL;
	/* Change every byte: an equal one would count as written already. */
	for (i = 0; i < GUID_BYTES; i++)
		new_guid[i] = guid[i] + 1;
	written = 0;
	if (write_piece(&timer) == HRTIMER_RESTART)
		hrtimer_start(&timer, ns_to_ktime(gap), HRTIMER_MODE_REL_HARD);
	return 0;
}

static int left_get(char *buffer, const struct kernel_param *param)
{
	return sysfs_emit(buffer, "%u\n", GUID_BYTES - READ_ONCE(written));
}

static const struct kernel_param_ops write_ops = {
	.set = write_set,
	.get = left_get,
};
module_param_cb(write, &write_ops, NULL, 0600);

static int __init write_guid_init(void)
{
	hrtimer_setup(&timer, write_piece, CLOCK_MONOTONIC,
		      HRTIMER_MODE_REL_HARD);
	guid = memremap(address, GUID_BYTES, MEMREMAP_WB);
	return guid ? 0 : -ENXIO;
}
module_init(write_guid_init);

static void __exit write_guid_exit(void)
{
	hrtimer_cancel(&timer);
	memunmap(guid);
}
module_exit(write_guid_exit);

MODULE_DESCRIPTION("VM generation ID: writes a GUID slowly, for tests");
MODULE_LICENSE("GPL");
