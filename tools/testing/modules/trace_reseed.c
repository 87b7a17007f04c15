// SPDX-License-Identifier: GPL-2.0
/*
 * Records each reseed of the kernel's CSPRNG, each call of the kernel's vmfork notifiers,
 * and what the mapped page of /dev/sysgenid shows at that moment.
 *
 * Parameter: seen   a read returns a line "WHAT GENERATION" for each of them. WHAT is
 *                   "ours" for a reseed by vm_generation_id, "other" for another reseed,
 *                   or "notifier".
 */

#include <linux/atomic.h>
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/ftrace.h>
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/module.h>
#include <linux/notifier.h>
#include <linux/random.h>
#include <linux/stacktrace.h>
#include <linux/string.h>
#include <linux/sysfs.h>

#define KEPT		64
#define MAX_CALLERS	48
#define MAX_SYMBOL	128

static struct page *page;
static struct {
	const char *what;
	u32 generation;
} seen[KEPT];
static atomic_t count;

static bool notrace called_by_driver(void)
{
	unsigned long callers[MAX_CALLERS];
	char symbol[MAX_SYMBOL];
	unsigned int i, n;

	n = stack_trace_save(callers, MAX_CALLERS, 0);
	for (i = 0; i < n; i++) {
		snprintf(symbol, sizeof(symbol), "%ps", (void *)callers[i]);
		if (strstr(symbol, "[vm_generation_id"))
			return true;
	}
	return false;
}

static void notrace record(const char *what)
{
	int i = atomic_inc_return(&count) - 1;

	if (i >= KEPT)
		return;
	seen[i].generation = READ_ONCE(*(u32 *)page_address(page));
	WRITE_ONCE(seen[i].what, what);
}

/* Called at the beginning of crng_reseed(), in any context. */
static void notrace trace_reseed(unsigned long ip, unsigned long parent,
				 struct ftrace_ops *ops,
				 struct ftrace_regs *regs)
{
	record(called_by_driver() ? "ours" : "other");
}

static struct ftrace_ops trace_ops = {
	.func = trace_reseed,
};

static int trace_notify(struct notifier_block *nb, unsigned long event,
			void *data)
{
	record("notifier");
	return NOTIFY_OK;
}

/* Never called by a kernel that is configured without a driver of its own. */
static struct notifier_block trace_notifier = {
	.notifier_call = trace_notify,
};

static int seen_get(char *buffer, const struct kernel_param *param)
{
	int i, at = 0;

	for (i = 0; i < KEPT && READ_ONCE(seen[i].what); i++)
		at += sysfs_emit_at(buffer, at, "%s %u\n", seen[i].what,
				    seen[i].generation);
	return at;
}

static const struct kernel_param_ops seen_ops = {
	.get = seen_get,
};
module_param_cb(seen, &seen_ops, NULL, 0400);

/* Takes a reference to the counter's page, through a mapping in the caller. */
static int get_page_of_generation(void)
{
	struct file *file = filp_open("/dev/sysgenid", O_RDONLY, 0);
	unsigned long start;
	int ret;

	if (IS_ERR(file))
		return PTR_ERR(file);
	start = vm_mmap(file, 0, PAGE_SIZE, PROT_READ, MAP_SHARED, 0);
	filp_close(file, NULL);
	if (IS_ERR_VALUE(start))
		return start;
	ret = get_user_pages_fast(start, 1, 0, &page);
	vm_munmap(start, PAGE_SIZE);
	return ret == 1 ? 0 : -EFAULT;
}

static int __init trace_reseed_init(void)
{
	unsigned char name[] = "crng_reseed";
	int ret;

	ret = get_page_of_generation();
	if (ret)
		return ret;
	ret = register_random_vmfork_notifier(&trace_notifier);
	if (ret)
		goto put;
	ret = ftrace_set_filter(&trace_ops, name, strlen(name), 1);
	if (!ret)
		ret = register_ftrace_function(&trace_ops);
	if (!ret)
		return 0;

	unregister_random_vmfork_notifier(&trace_notifier);
put:
	put_page(page);
	return ret;
}
module_init(trace_reseed_init);

static void __exit trace_reseed_exit(void)
{
	unregister_ftrace_function(&trace_ops);
	ftrace_free_filter(&trace_ops);
	unregister_random_vmfork_notifier(&trace_notifier);
	put_page(page);
}
module_exit(trace_reseed_exit);

MODULE_DESCRIPTION("VM generation ID: traces reseeds, for tests");
MODULE_LICENSE("GPL");
