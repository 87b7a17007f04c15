// SPDX-License-Identifier: GPL-2.0
/*
 * Measures the longest time with interrupts, and with preemption, off on CPU 0, for
 * kernels without the irqsoff and preemptoff tracers.
 *
 * A timer fires every few microseconds, and wakes a real-time thread. The longest time is
 * the greatest lateness less the least, which is the cost of measuring.
 *
 * Files in /sys/kernel/debug/measure_latency, in ns:
 *   period      the least time between two samples; a write of 0 stops measuring,
 *               another number resets the results and starts it
 *   interrupt   the longest time with interrupts off
 *   thread      the longest time with preemption or interrupts off
 *   samples     the number of samples (not ns)
 */

#include <linux/debugfs.h>
#include <linux/hrtimer.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/ktime.h>
#include <linux/module.h>
#include <linux/sched.h>

/* The least lateness, which is the cost of measuring, and the greatest; in ns. */
struct lateness {
	s64 best, worst;
};

/* A timer tick delays the samples, too, but for less than this, in ns. */
#define TICK_TAKES	50000

/* The time when a sample is due, and the jiffy in which it was set up. */
struct appointment {
	ktime_t time;		/* 0: no sample is due */
	unsigned long jiffy;
};

static struct hrtimer timer;
static struct task_struct *thread;
static struct dentry *dir;
static u64 period;
static bool start;
static struct appointment of_timer, of_thread;
static struct lateness in_interrupt, in_thread;
static u32 samples;

static void forget(struct lateness *lateness)
{
	lateness->best = S64_MAX;
	lateness->worst = 0;
}

static void measure(struct lateness *lateness, struct appointment *appointment)
{
	s64 late = ktime_to_ns(ktime_sub(ktime_get(), appointment->time));

	if (appointment->jiffy != jiffies && late < TICK_TAKES)
		return;
	lateness->best = min(lateness->best, late);
	lateness->worst = max(lateness->worst, late);
}

/* The period varies, or each sample would hit the same place of a loop. */
static ktime_t arrange_timer(void)
{
	of_timer.jiffy = jiffies;
	of_timer.time = ktime_add_ns(ktime_get(), period + samples * 131 % 2048);
	return of_timer.time;
}

static enum hrtimer_restart timer_fired(struct hrtimer *unused)
{
	measure(&in_interrupt, &of_timer);
	samples++;
	if (!READ_ONCE(of_thread.time)) {
		of_thread.jiffy = of_timer.jiffy;
		WRITE_ONCE(of_thread.time, of_timer.time);
		wake_up_process(thread);
	}
	if (!READ_ONCE(period))
		return HRTIMER_NORESTART;
	hrtimer_set_expires(&timer, arrange_timer());
	return HRTIMER_RESTART;
}

static int thread_main(void *data)
{
	sched_set_fifo(current);
	while (!kthread_should_stop()) {
		set_current_state(TASK_INTERRUPTIBLE);
		if (!kthread_should_stop() && !READ_ONCE(start) &&
		    !READ_ONCE(of_thread.time))
			schedule();
		__set_current_state(TASK_RUNNING);
		if (READ_ONCE(of_thread.time)) {
			measure(&in_thread, &of_thread);
			WRITE_ONCE(of_thread.time, 0);
		}
		if (READ_ONCE(start)) {
			WRITE_ONCE(start, false);
			hrtimer_start(&timer, arrange_timer(),
				      HRTIMER_MODE_ABS_PINNED_HARD);
		}
	}
	WRITE_ONCE(period, 0);
	hrtimer_cancel(&timer);
	return 0;
}

static int period_set(void *data, u64 value)
{
	WRITE_ONCE(period, 0);
	hrtimer_cancel(&timer);
	if (!value)
		return 0;
	forget(&in_interrupt);
	forget(&in_thread);
	samples = 0;
	WRITE_ONCE(period, value);
	WRITE_ONCE(start, true);
	wake_up_process(thread);
	return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(period_fops, NULL, period_set, "%llu\n");

static int stretch_get(void *data, u64 *value)
{
	struct lateness *lateness = data;

	*value = lateness->worst ? lateness->worst - lateness->best : 0;
	return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(stretch_fops, stretch_get, NULL, "%llu\n");

static int __init latency_init(void)
{
	hrtimer_setup(&timer, timer_fired, CLOCK_MONOTONIC,
		      HRTIMER_MODE_ABS_PINNED_HARD);
	thread = kthread_create(thread_main, NULL, "measure_latency");
	if (IS_ERR(thread))
		return PTR_ERR(thread);
	kthread_bind(thread, 0);
	wake_up_process(thread);

	dir = debugfs_create_dir("measure_latency", NULL);
	debugfs_create_file("period", 0200, dir, NULL, &period_fops);
	debugfs_create_file("interrupt", 0400, dir, &in_interrupt,
			    &stretch_fops);
	debugfs_create_file("thread", 0400, dir, &in_thread, &stretch_fops);
	debugfs_create_u32("samples", 0400, dir, &samples);
	return 0;
}
module_init(latency_init);

static void __exit latency_exit(void)
{
	debugfs_remove_recursive(dir);
	kthread_stop(thread);
}
module_exit(latency_exit);

MODULE_DESCRIPTION("Measures the longest time with interrupts or preemption off");
MODULE_LICENSE("GPL");
