// SPDX-License-Identifier: GPL-2.0
/*
 * Changes the FADT for drivers while it is loaded. The kernel's own SCI handler keeps
 * working; it runs in a thread, like that of a Generic Event Device.
 *
 * Parameters: reduced   declares hardware-reduced ACPI, which has no SCI
 *             sci       the global system interrupt of the SCI
 */

#include <linux/acpi.h>
#include <linux/module.h>

static bool reduced;
module_param(reduced, bool, 0);
static ushort sci;
module_param(sci, ushort, 0);

static struct acpi_table_fadt before;

static int __init change_fadt_init(void)
{
	before = acpi_gbl_FADT;
	if (reduced)
		acpi_gbl_FADT.flags |= ACPI_FADT_HW_REDUCED;
	if (sci)
		acpi_gbl_FADT.sci_interrupt = sci;
	return 0;
}
module_init(change_fadt_init);

static void __exit change_fadt_exit(void)
{
	acpi_gbl_FADT = before;
}
module_exit(change_fadt_exit);

MODULE_DESCRIPTION("VM generation ID: another FADT");
MODULE_LICENSE("GPL");
