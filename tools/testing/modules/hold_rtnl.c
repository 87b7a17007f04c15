// SPDX-License-Identifier: GPL-2.0
/*
 * Holds rtnl_lock, which WireGuard's vmfork notifier takes.
 *
 * Files in /sys/kernel/debug/hold_rtnl:
 *   hold      a write of 1 takes the lock, and returns after a write of 0
 *   holding   1 while the lock is held
 */

#include <linux/debugfs.h>
#include <linux/module.h>
#include <linux/rtnetlink.h>
#include <linux/wait.h>

static bool holding;
static DECLARE_WAIT_QUEUE_HEAD(hold_wait);
static struct dentry *dir;

static int hold_set(void *data, u64 value)
{
	if (value) {
		rtnl_lock();
		WRITE_ONCE(holding, true);
		wait_event(hold_wait, !READ_ONCE(holding));
		rtnl_unlock();
	} else {
		WRITE_ONCE(holding, false);
		wake_up(&hold_wait);
	}
	return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(hold_fops, NULL, hold_set, "%llu\n");

static int __init hold_rtnl_init(void)
{
	dir = debugfs_create_dir("hold_rtnl", NULL);
	debugfs_create_file("hold", 0200, dir, NULL, &hold_fops);
	debugfs_create_bool("holding", 0400, dir, &holding);
	return 0;
}
module_init(hold_rtnl_init);

static void __exit hold_rtnl_exit(void)
{
	debugfs_remove_recursive(dir);
}
module_exit(hold_rtnl_exit);

MODULE_DESCRIPTION("VM generation ID: holds rtnl_lock, for tests");
MODULE_LICENSE("GPL");
