// SPDX-License-Identifier: GPL-2.0
/*
 * Writes a new GUID, like a hypervisor that restores a guest suspended to RAM. The kernel
 * has saved NVS memory before, and restores it afterwards.
 *
 * Parameter: address   the physical address, in reserved memory
 */

#include <linux/io.h>
#include <linux/kprobes.h>
#include <linux/module.h>

#define GUID_BYTES	16

static unsigned long long address;
module_param(address, ullong, 0);
MODULE_PARM_DESC(address, "The physical address of the GUID");

static u8 *guid;

static int write_guid(struct kprobe *probe, struct pt_regs *regs)
{
	int i;

	for (i = 0; i < GUID_BYTES; i++)
		guid[i]++;
	return 0;
}

static struct kprobe suspend = {
	.symbol_name = "acpi_suspend_enter",
	.pre_handler = write_guid,
};

static int __init write_while_suspended_init(void)
{
	int ret;

	guid = memremap(address, GUID_BYTES, MEMREMAP_WB);
	if (!guid)
		return -ENXIO;
	ret = register_kprobe(&suspend);
	if (ret)
		memunmap(guid);
	return ret;
}
module_init(write_while_suspended_init);

static void __exit write_while_suspended_exit(void)
{
	unregister_kprobe(&suspend);
	memunmap(guid);
}
module_exit(write_while_suspended_exit);

MODULE_DESCRIPTION("VM generation ID: a restore of a suspended guest, for tests");
MODULE_LICENSE("GPL");
