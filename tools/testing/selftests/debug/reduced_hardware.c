// SPDX-License-Identifier: GPL-2.0
/*
 * While it is loaded, drivers take this for hardware-reduced ACPI, which has no
 * SCI. Its handler, a thread like that of a Generic Event Device, goes on.
 */

#include <linux/acpi.h>
#include <linux/module.h>

static int __init reduced_hardware_init(void)
{
	acpi_gbl_FADT.flags |= ACPI_FADT_HW_REDUCED;
	return 0;
}
module_init(reduced_hardware_init);

static void __exit reduced_hardware_exit(void)
{
	acpi_gbl_FADT.flags &= ~ACPI_FADT_HW_REDUCED;
}
module_exit(reduced_hardware_exit);

MODULE_DESCRIPTION("VM generation ID: a machine without an SCI");
MODULE_LICENSE("GPL");
