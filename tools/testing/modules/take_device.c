// SPDX-License-Identifier: GPL-2.0
/*
 * Binds to QEMU's generation ID and does nothing with it, like a driver that is built
 * into the kernel.
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

MODULE_DESCRIPTION("VM generation ID: another driver, for tests");
MODULE_LICENSE("GPL");
