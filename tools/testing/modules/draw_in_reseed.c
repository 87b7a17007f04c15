// SPDX-License-Identifier: GPL-2.0
/*
 * Draws random numbers at each reseed of the CSPRNG while it is loaded. A security
 * module whose hook allocates memory may draw there, too.
 */

#include <linux/ftrace.h>
#include <linux/module.h>
#include <linux/random.h>
#include <linux/string.h>

static void notrace draw(unsigned long ip, unsigned long parent,
			 struct ftrace_ops *ops, struct ftrace_regs *regs)
{
	u8 drawn;

	get_random_bytes(&drawn, sizeof(drawn));
}

static struct ftrace_ops draw_ops = {
	.func = draw,
	.flags = FTRACE_OPS_FL_RECURSION,
};

static int __init draw_in_reseed_init(void)
{
	unsigned char name[] = "crng_reseed";
	int ret = ftrace_set_filter(&draw_ops, name, strlen(name), 1);

	return ret ?: register_ftrace_function(&draw_ops);
}
module_init(draw_in_reseed_init);

static void __exit draw_in_reseed_exit(void)
{
	unregister_ftrace_function(&draw_ops);
	ftrace_free_filter(&draw_ops);
}
module_exit(draw_in_reseed_exit);

MODULE_DESCRIPTION("VM generation ID: draws during a reseed, for tests");
MODULE_LICENSE("GPL");
