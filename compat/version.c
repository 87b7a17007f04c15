// SPDX-License-Identifier: GPL-2.0
/* The version of a release; in a kernel tree, the kernel's version says it. */

#include <linux/module.h>

MODULE_VERSION(SYSGENID_VERSION);
