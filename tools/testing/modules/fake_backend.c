// SPDX-License-Identifier: GPL-2.0
/*
 * A backend whose hardware is a number, and a notifier, both driven by files in debugfs.
 *
 * Files in /sys/kernel/debug/fake_backend:
 *   hardware       the identifier of the hardware; writable
 *   looks          number of calls of check()
 *   checks         number of calls that found another identifier
 *   bump           a write calls sysgenid_bump_generation() in a hard interrupt, like
 *                  a backend with an interrupt
 *   counter        a write of the address at which the caller has mapped the counter sets
 *                  the counter to U32_MAX - 1
 *   second         a read returns the result of registering a second backend
 *   notified       number of calls of the notifier
 *   last_notified  the generation of the last call
 *   hold           while this is 1, the notifier does not return
 *   holding        1 while the notifier is held
 */

#include <linux/atomic.h>
#include <linux/debugfs.h>
#include <linux/irq_work.h>
#include <linux/limits.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/notifier.h>
#include <linux/spinlock.h>
#include <linux/sysgenid.h>
#include <linux/wait.h>

static unsigned long long hardware;
module_param(hardware, ullong, 0);
MODULE_PARM_DESC(hardware, "The hardware's first identifier");

static atomic_t looks, checks, notified;
static u32 last_notified;
static bool hold, holding;
static DECLARE_WAIT_QUEUE_HEAD(hold_wait);
static struct dentry *dir;

/* The backend */

static void test_check(struct sysgenid_backend *backend)
{
	static DEFINE_SPINLOCK(lock);
	u64 now;

	atomic_inc(&looks);
	/* Pairs with smp_store_release() below: a match implies that the generation is visible. */
	if (READ_ONCE(hardware) == smp_load_acquire(&backend->id[0]))
		return;
	atomic_inc(&checks);
	spin_lock(&lock);
	now = READ_ONCE(hardware);
	if (now != backend->id[0]) {
		sysgenid_bump_generation();
		smp_store_release(&backend->id[0], now);
	}
	spin_unlock(&lock);
}

static struct sysgenid_backend backend = {
	.name = "fake_backend",
	.check = test_check,
};

static struct sysgenid_backend second_backend = {
	.name = "second",
	.check = test_check,
};

/* The notifier */

static int test_notify(struct notifier_block *nb, unsigned long generation,
		       void *data)
{
	last_notified = generation;
	atomic_inc(&notified);
	WRITE_ONCE(holding, true);
	wait_event(hold_wait, !READ_ONCE(hold));
	WRITE_ONCE(holding, false);
	return NOTIFY_OK;
}

static struct notifier_block notifier = {
	.notifier_call = test_notify,
};

/* The files */

static int hardware_get(void *data, u64 *value)
{
	*value = READ_ONCE(hardware);
	return 0;
}

static int hardware_set(void *data, u64 value)
{
	WRITE_ONCE(hardware, value);
	return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(hardware_fops, hardware_get, hardware_set, "%llu\n");

static int hold_set(void *data, u64 value)
{
	WRITE_ONCE(hold, value);
	wake_up(&hold_wait);
	return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(hold_fops, NULL, hold_set, "%llu\n");

static void bump_in_interrupt(struct irq_work *work)
{
	sysgenid_bump_generation();
}

static int bump_set(void *data, u64 value)
{
	struct irq_work work = IRQ_WORK_INIT_HARD(bump_in_interrupt);

	irq_work_queue(&work);
	irq_work_sync(&work);
	return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(bump_fops, NULL, bump_set, "%llu\n");

static int counter_set(void *data, u64 address)
{
	struct page *page;

	if (get_user_pages_fast(address, 1, 0, &page) != 1)
		return -EFAULT;
	WRITE_ONCE(*(u32 *)page_address(page), U32_MAX - 1);
	put_page(page);
	return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(counter_fops, NULL, counter_set, "%llu\n");

static int second_get(void *data, u64 *value)
{
	*value = sysgenid_register_backend(&second_backend);
	return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE_SIGNED(second_fops, second_get, NULL, "%lld\n");

static void make_files(void)
{
	dir = debugfs_create_dir("fake_backend", NULL);
	debugfs_create_file("hardware", 0600, dir, NULL, &hardware_fops);
	debugfs_create_atomic_t("looks", 0400, dir, &looks);
	debugfs_create_atomic_t("checks", 0400, dir, &checks);
	debugfs_create_file("bump", 0200, dir, NULL, &bump_fops);
	debugfs_create_file("counter", 0200, dir, NULL, &counter_fops);
	debugfs_create_file("second", 0400, dir, NULL, &second_fops);
	debugfs_create_atomic_t("notified", 0400, dir, &notified);
	debugfs_create_u32("last_notified", 0400, dir, &last_notified);
	debugfs_create_file("hold", 0200, dir, NULL, &hold_fops);
	debugfs_create_bool("holding", 0400, dir, &holding);
}

static int __init test_init(void)
{
	int ret;

	backend.id[0] = hardware;
	ret = sysgenid_register_backend(&backend);
	if (ret)
		return ret;

	ret = sysgenid_register_notifier(&notifier);
	if (ret) {
		sysgenid_unregister_backend(&backend);
		return ret;
	}
	make_files();
	return 0;
}
module_init(test_init);

static void __exit test_exit(void)
{
	debugfs_remove_recursive(dir);
	hold_set(NULL, false);
	sysgenid_unregister_notifier(&notifier);
	sysgenid_unregister_backend(&backend);
}
module_exit(test_exit);

MODULE_DESCRIPTION("System generation ID: a backend and a notifier, for tests");
MODULE_LICENSE("GPL");
