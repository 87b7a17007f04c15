// SPDX-License-Identifier: GPL-2.0
/*
 * Has cc_platform_has() answer vm_generation_id that this guest's memory is encrypted
 * against the host. Such guests take hardware that QEMU does not emulate.
 *
 * Since Linux 6.4, cc_platform_has() can't be probed, and the module does not load.
 */

#include <linux/cc_platform.h>
#include <linux/kernel.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/ptrace.h>
#include <linux/string.h>

#define MAX_SYMBOL	128

static notrace noinline void just_return(void)
{
}

/* Returns true to the driver, instead of running the function. */
static int claim(struct kprobe *probe, struct pt_regs *regs)
{
	unsigned long *stack = (unsigned long *)kernel_stack_pointer(regs);
	char symbol[MAX_SYMBOL];

	if (regs_get_kernel_argument(regs, 0) != CC_ATTR_GUEST_MEM_ENCRYPT)
		return 0;
	snprintf(symbol, sizeof(symbol), "%ps", (void *)*stack);
	if (!strstr(symbol, "[vm_generation_id"))
		return 0;
	regs_set_return_value(regs, true);
	instruction_pointer_set(regs, (unsigned long)just_return);
	return 1;
}

/* A kprobe with this handler is not optimized: its pre_handler may change the path. */
static void do_nothing(struct kprobe *probe, struct pt_regs *regs,
		       unsigned long flags)
{
}

static struct kprobe question = {
	.symbol_name = "cc_platform_has",
	.pre_handler = claim,
	.post_handler = do_nothing,
};

static int __init claim_encrypted_init(void)
{
	return register_kprobe(&question);
}
module_init(claim_encrypted_init);

static void __exit claim_encrypted_exit(void)
{
	unregister_kprobe(&question);
}
module_exit(claim_encrypted_exit);

MODULE_DESCRIPTION("VM generation ID: an encrypted guest, for tests");
MODULE_LICENSE("GPL");
