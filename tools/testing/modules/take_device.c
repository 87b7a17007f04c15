// SPDX-License-Identifier: GPL-2.0
/*
 * Takes QEMU's generation ID and does nothing with it: stands in for a driver
 * that is built into the kernel, where there is none.
 */

#include <linux/acpi.h>
#include <linux/module.h>
#include <linux/platform_device.h>

static const struct acpi_device_id take_device_ids[] = {
	{ "QEMUVGID" },
	{ }
};

static int take_device_probe(struct platform_device *pdev)
{
	return 0;
}

static struct platform_driver take_device_driver = {
	.probe		= take_device_probe,
	.driver		= {
		.name			= "take_device",
		.acpi_match_table	= take_device_ids,
	},
};
module_platform_driver(take_device_driver);

MODULE_DESCRIPTION("VM generation ID: another driver that has it");
MODULE_LICENSE("GPL");
