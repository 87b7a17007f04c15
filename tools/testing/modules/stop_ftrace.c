// SPDX-License-Identifier: GPL-2.0
/*
 * Has ftrace shut itself down, as it does after a bug of its own: for good.
 *
 * Parameter: ftrace_kill   the address of that function, which no module may call
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

MODULE_DESCRIPTION("VM generation ID: an end of ftrace");
MODULE_LICENSE("GPL");
