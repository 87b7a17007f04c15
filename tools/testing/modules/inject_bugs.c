// SPDX-License-Identifier: GPL-2.0
/*
 * Injects a bug when it is loaded, of the kind that its parameter names.
 * test_inject_bugs.py verifies that the debug kernels find it, and that the test fails.
 */

#include <linux/delay.h>
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/timer.h>
#include <linux/workqueue.h>

static char *kind = "";
module_param(kind, charp, 0);
MODULE_PARM_DESC(kind, "the bug to inject");

static DEFINE_SPINLOCK(first_lock);
static DEFINE_SPINLOCK(second_lock);

static void leak(void)
{
	void *lost = kmalloc(100, GFP_KERNEL);

	OPTIMIZER_HIDE_VAR(lost);
}

static void use_after_free(void)
{
	int *freed = kmalloc(sizeof(*freed), GFP_KERNEL);

	kfree(freed);
	OPTIMIZER_HIDE_VAR(freed);
	READ_ONCE(*freed);
}

static void out_of_bounds(void)
{
	static int array[4];
	unsigned int index = ARRAY_SIZE(array) + 1;

	OPTIMIZER_HIDE_VAR(index);
	WRITE_ONCE(array[index], 1);
}

static void sleep_in_atomic(void)
{
	spin_lock(&first_lock);
	might_sleep();
	spin_unlock(&first_lock);
}

static void inversion(void)
{
	spin_lock(&first_lock);
	spin_lock(&second_lock);
	spin_unlock(&second_lock);
	spin_unlock(&first_lock);

	spin_lock(&second_lock);
	spin_lock(&first_lock);
	spin_unlock(&first_lock);
	spin_unlock(&second_lock);
}

static void no_rcu_lock(void)
{
	static int __rcu *pointer;

	rcu_dereference(pointer);
}

static void nothing(struct timer_list *timer)
{
}

static void free_active(void)
{
	struct timer_list *timer = kmalloc(sizeof(*timer), GFP_KERNEL);

	timer_setup(timer, nothing, 0);
	mod_timer(timer, jiffies + 1000 * HZ);
	kfree(timer);
}

/* Both CPUs count with the same variable. */
static void count(struct work_struct *work)
{
	static int counter;
	int i;

	for (i = 0; i < 200000; i++) {
		counter++;
		barrier();
	}
}

static void race(void)
{
	static DECLARE_WORK(work0, count);
	static DECLARE_WORK(work1, count);

	schedule_work_on(0, &work0);
	schedule_work_on(1, &work1);
	flush_work(&work0);
	flush_work(&work1);
}

static const struct {
	const char *kind;
	void (*make)(void);
} bugs[] = {
	{ "leak", leak },
	{ "use_after_free", use_after_free },
	{ "out_of_bounds", out_of_bounds },
	{ "sleep_in_atomic", sleep_in_atomic },
	{ "inversion", inversion },
	{ "no_rcu_lock", no_rcu_lock },
	{ "free_active", free_active },
	{ "race", race },
};

static int __init inject_bugs_init(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(bugs); i++) {
		if (strcmp(kind, bugs[i].kind))
			continue;
		bugs[i].make();
		return 0;
	}
	return -EINVAL;
}
module_init(inject_bugs_init);

MODULE_DESCRIPTION("Bugs that a debug kernel has to find");
MODULE_LICENSE("GPL");
