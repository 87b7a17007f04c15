// SPDX-License-Identifier: GPL-2.0
/*
 * Suspends and resumes all devices, with the calls and the order of drivers/xen/manage.c
 * in a guest that Xen saves and restores. The callbacks are those of hibernation, without
 * a hibernation.
 *
 * Parameter: resume   a write suspends and resumes
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
