// SPDX-License-Identifier: GPL-2.0
/*
 * Makes RNDRESEEDCRNG fail while it is loaded, as a security module can.
 */

#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/random.h>

struct call {
	unsigned int command;
};

static int fail_reseed_entry(struct kretprobe_instance *instance,
			     struct pt_regs *regs)
{
	struct call *call = (struct call *)instance->data;

	call->command = regs_get_kernel_argument(regs, 1);
	return 0;
}

static int fail_reseed_return(struct kretprobe_instance *instance,
			      struct pt_regs *regs)
{
	const struct call *call = (struct call *)instance->data;

	if (call->command == RNDRESEEDCRNG)
		regs_set_return_value(regs, -EPERM);
	return 0;
}

static struct kretprobe fail_reseed_probe = {
	.kp.symbol_name	= "random_ioctl",
	.entry_handler	= fail_reseed_entry,
	.handler	= fail_reseed_return,
	.data_size	= sizeof(struct call),
};

static int __init fail_reseed_init(void)
{
	return register_kretprobe(&fail_reseed_probe);
}
module_init(fail_reseed_init);

static void __exit fail_reseed_exit(void)
{
	unregister_kretprobe(&fail_reseed_probe);
}
module_exit(fail_reseed_exit);

MODULE_DESCRIPTION("VM generation ID: a reseed that fails, for tests");
MODULE_LICENSE("GPL");
