/* SPDX-License-Identifier: GPL-2.0 */
/* compat/module.c registers the driver: it also binds beside the kernel's own. */
#ifndef _COMPAT_LINUX_PLATFORM_DEVICE_H
#define _COMPAT_LINUX_PLATFORM_DEVICE_H

#include_next <linux/platform_device.h>

extern struct platform_driver * const compat_driver;

#undef module_platform_driver
#define module_platform_driver(driver) \
	struct platform_driver * const compat_driver = &(driver)

#endif /* _COMPAT_LINUX_PLATFORM_DEVICE_H */
