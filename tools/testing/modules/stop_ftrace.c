// SPDX-License-Identifier: GPL-2.0
/*
 * Shuts ftrace down forever, as ftrace itself does after an internal error.
 *
 * Parameter: ftrace_kill   the address of ftrace_kill(), which is not exported
 */

#include <linux/module.h>

static unsigned long ftrace_kill;
module_param(ftrace_kill, ulong, 0);

static int __init stop_ftrace_init(void)
{
	if (!ftrace_kill)
		return -EINVAL;
	((void (*)(void))ftrace_kill)();
	return 0;
}
module_init(stop_ftrace_init);

static void __exit stop_ftrace_exit(void)
{
}
module_exit(stop_ftrace_exit);

MODULE_DESCRIPTION("VM generation ID: shuts ftrace down, for tests");
MODULE_LICENSE("GPL");
