// SPDX-License-Identifier: GPL-2.0
/*
 * Has all devices suspended and resumed as Xen has them for a guest that it saves and
 * restores, by the same calls in the same order as drivers/xen/manage.c: the callbacks
 * are those of hibernation, and there is no hibernation.
 *
 * Writing 1 to the parameter "resume" does so.
 */

#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/pm.h>

static int resume_set(const char *value, const struct kernel_param *param)
{
	int ret = dpm_suspend_start(PMSG_FREEZE);

	if (!ret) {
		ret = dpm_suspend_end(PMSG_FREEZE);
		if (!ret)
			dpm_resume_start(PMSG_RESTORE);
	}
	dpm_resume_end(PMSG_RESTORE);
	return ret;
}

static const struct kernel_param_ops resume_ops = {
	.set = resume_set,
};
module_param_cb(resume, &resume_ops, NULL, 0200);

MODULE_DESCRIPTION("VM generation ID: a resume as on Xen, for tests");
MODULE_LICENSE("GPL");
