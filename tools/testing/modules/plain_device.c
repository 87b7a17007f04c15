// SPDX-License-Identifier: GPL-2.0
/*
 * A generation ID like one from a devicetree, for kernels without a devicetree: a
 * platform device with the GUID's memory, and with an interrupt.
 *
 * Parameters: address, size   the memory; none by default
 *             irq             the interrupt; none by default
 */

#include <linux/err.h>
#include <linux/ioport.h>
#include <linux/module.h>
#include <linux/platform_device.h>

static unsigned long address, size;
module_param(address, ulong, 0);
module_param(size, ulong, 0);
static unsigned int irq;
module_param(irq, uint, 0);

static struct platform_device *pdev;

static int __init plain_device_init(void)
{
	const struct resource res[] = {
		DEFINE_RES_MEM(address, size),
		DEFINE_RES_IRQ(irq),
	};

	pdev = platform_device_register_simple("vm_generation_id",
					       PLATFORM_DEVID_NONE, res,
					       !!size + !!irq);
	return PTR_ERR_OR_ZERO(pdev);
}
module_init(plain_device_init);

static void __exit plain_device_exit(void)
{
	platform_device_unregister(pdev);
}
module_exit(plain_device_exit);

MODULE_DESCRIPTION("VM generation ID: a device without ACPI, for tests");
MODULE_LICENSE("GPL");
