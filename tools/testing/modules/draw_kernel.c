// SPDX-License-Identifier: GPL-2.0
/*
 * Exports the kernel's own random numbers, and its timer ticks, to programs that test
 * how fast both follow a new GUID.
 *
 * Files in /sys/kernel/debug/draw_kernel, and what a read returns:
 *   bytes       get_random_bytes()
 *   interrupt   get_random_bytes(), called in a hard interrupt
 *   u32         get_random_u32(), which has a batch of numbers on each CPU
 *   ticks       the number of timer ticks that this CPU has handled, a u64. A late tick,
 *               less than half a period before the next, counts together with it. The
 *               file exists only if the kernel has kprobes.
 */

#include <linux/debugfs.h>
#include <linux/fs.h>
#include <linux/irq_work.h>
#include <linux/jiffies.h>
#include <linux/kprobes.h>
#include <linux/minmax.h>
#include <linux/module.h>
#include <linux/percpu.h>
#include <linux/random.h>
#include <linux/timekeeping.h>
#include <linux/uaccess.h>

#define MOST_BYTES	64

static ssize_t give(char __user *to, const void *from, size_t size)
{
	return copy_to_user(to, from, size) ? -EFAULT : size;
}

/* Ticks */

static DEFINE_PER_CPU(u64, ticks);
static DEFINE_PER_CPU(u64, last_tick);		/* in ns */

static int count_tick(struct kprobe *probe, struct pt_regs *regs)
{
	u64 now = ktime_get_mono_fast_ns();

	if (now - __this_cpu_read(last_tick) > TICK_NSEC / 2) {
		__this_cpu_inc(ticks);
		__this_cpu_write(last_tick, now);
	}
	return 0;
}

static struct kprobe tick = {
	.symbol_name = "update_process_times",
	.pre_handler = count_tick,
};

static ssize_t ticks_read(struct file *file, char __user *to, size_t size, loff_t *pos)
{
	u64 now = raw_cpu_read(ticks);

	if (size != sizeof(now))
		return -EINVAL;
	return give(to, &now, sizeof(now));
}

static const struct file_operations ticks_fops = {
	.owner = THIS_MODULE,
	.read = ticks_read,
};

/* Draws */

static ssize_t bytes_read(struct file *file, char __user *to, size_t size, loff_t *pos)
{
	u8 bytes[MOST_BYTES];

	size = min(size, sizeof(bytes));
	get_random_bytes(bytes, size);
	return give(to, bytes, size);
}

static const struct file_operations bytes_fops = {
	.owner = THIS_MODULE,
	.read = bytes_read,
};

struct draw {
	struct irq_work work;
	size_t size;
	u8 bytes[MOST_BYTES];
};

static void draw_in_interrupt(struct irq_work *work)
{
	struct draw *draw = container_of(work, struct draw, work);

	get_random_bytes(draw->bytes, draw->size);
}

static ssize_t interrupt_read(struct file *file, char __user *to, size_t size, loff_t *pos)
{
	struct draw draw = {
		.work = IRQ_WORK_INIT_HARD(draw_in_interrupt),
		.size = min_t(size_t, size, MOST_BYTES),
	};

	irq_work_queue(&draw.work);
	irq_work_sync(&draw.work);
	return give(to, draw.bytes, draw.size);
}

static const struct file_operations interrupt_fops = {
	.owner = THIS_MODULE,
	.read = interrupt_read,
};

static ssize_t u32_read(struct file *file, char __user *to, size_t size, loff_t *pos)
{
	u32 number = get_random_u32();

	if (size != sizeof(number))
		return -EINVAL;
	return give(to, &number, sizeof(number));
}

static const struct file_operations u32_fops = {
	.owner = THIS_MODULE,
	.read = u32_read,
};

static struct dentry *dir;
static bool counts_ticks;

static int __init draw_kernel_init(void)
{
	counts_ticks = !register_kprobe(&tick);
	dir = debugfs_create_dir("draw_kernel", NULL);
	debugfs_create_file("bytes", 0400, dir, NULL, &bytes_fops);
	debugfs_create_file("interrupt", 0400, dir, NULL, &interrupt_fops);
	debugfs_create_file("u32", 0400, dir, NULL, &u32_fops);
	if (counts_ticks)
		debugfs_create_file("ticks", 0400, dir, NULL, &ticks_fops);
	return 0;
}
module_init(draw_kernel_init);

static void __exit draw_kernel_exit(void)
{
	debugfs_remove_recursive(dir);
	if (counts_ticks)
		unregister_kprobe(&tick);
}
module_exit(draw_kernel_exit);

MODULE_DESCRIPTION("VM generation ID: the kernel's own draws and its ticks, for tests");
MODULE_LICENSE("GPL");
