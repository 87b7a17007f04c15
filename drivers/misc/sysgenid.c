// SPDX-License-Identifier: GPL-2.0
/*
 * System generation ID: one counter for the whole system, /dev/sysgenid, that
 * changes when the system was cloned or restored from a snapshot. Backends
 * detect such an event and move the counter. For the calls and their errors,
 * see include/uapi/linux/sysgenid.h and
 * Documentation/misc-devices/sysgenid.rst.
 *
 * Locking:
 *
 *   sysgenid_lock protects writes to the counter, the watchers' @acked and
 *	@tracked, sysgenid_tracked, sysgenid_outdated, and the pending uevents.
 *	They change together: a bump makes every tracked watcher outdated at
 *	once. A bump can come from any context: the lock is held with interrupts
 *	off, for a few instructions. It nests inside every other lock.
 *
 *   sysgenid_counter is read without a lock in any context, with
 *	smp_load_acquire(), which pairs with smp_store_release() in
 *	sysgenid_start_generation(). @acked, @tracked, sysgenid_tracked and
 *	sysgenid_outdated are read without a lock by READ_ONCE().
 *
 *   sysgenid_waiters_lock protects the lists sysgenid_watchers and
 *	sysgenid_overseers. Process context only. Wait queue locks nest inside it.
 *	It is held for at most SYSGENID_WAKE_BATCH waiters at a time.
 *
 *   sysgenid_backend_mutex protects writes to sysgenid_backend, and
 *	last_backend. Process context only. Readers of sysgenid_backend, the
 *	calls of its check() included, use RCU.
 *
 * A bump only publishes the generation, and queues an irq_work. That queues
 * sysgenid_notify(), which calls notifiers and wakes waiters, and then
 * sysgenid_send_events(); both run in process context, never concurrently with
 * themselves.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/capability.h>
#include <linux/compat.h>
#include <linux/fs.h>
#include <linux/irq_work.h>
#include <linux/jiffies.h>
#include <linux/kfifo.h>
#include <linux/kobject.h>
#include <linux/list.h>
#include <linux/math.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/notifier.h>
#include <linux/pfn.h>
#include <linux/poll.h>
#include <linux/rcupdate.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/sysfs.h>
#include <linux/sysgenid.h>
#include <linux/uaccess.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include <uapi/linux/sysgenid.h>

/* Uevents that may be pending before the oldest are merged. */
#define SYSGENID_EVENTS		64

/* Waiters woken before sysgenid_waiters_lock is dropped and preemption allowed. */
#define SYSGENID_WAKE_BATCH	16

/* Delay before a uevent that failed for lack of memory is sent again, in jiffies. */
#define SYSGENID_UEVENT_RETRY	(HZ / 10)

/* A wait queue that a new generation may have to wake. */
struct sysgenid_waiter {
	struct list_head node;
	wait_queue_head_t wait;
};

/*
 * An open descriptor. Its memory is charged to the memory cgroup of its opener.
 *
 * @waiter:	read(), poll() and epoll callers that wait for this descriptor
 * @acked:	the generation last acknowledged
 * @tracked:	SYSGENID_WAIT_WATCHERS waits for this watcher
 */
struct sysgenid_watcher {
	struct sysgenid_waiter waiter;
	u32 acked;
	bool tracked;
};

static DEFINE_SPINLOCK(sysgenid_lock);
static u32 *sysgenid_counter;	/* the first word of the mapped page */
static u32 sysgenid_tracked;	/* number of tracked watchers */
static u32 sysgenid_outdated;	/* tracked watchers that have not acknowledged */
static DEFINE_KFIFO(sysgenid_events, u32, SYSGENID_EVENTS);
static u32 sysgenid_merged;	/* events dropped because the queue was full */

/* The open descriptors, and the callers of SYSGENID_WAIT_WATCHERS. */
static DEFINE_SPINLOCK(sysgenid_waiters_lock);
static LIST_HEAD(sysgenid_watchers);
static LIST_HEAD(sysgenid_overseers);

static DEFINE_MUTEX(sysgenid_backend_mutex);
static struct sysgenid_backend __rcu *sysgenid_backend;
static struct {
	char name[16];
	u64 id[2];
} last_backend;

static BLOCKING_NOTIFIER_HEAD(sysgenid_notifiers);
static struct kmem_cache *sysgenid_watcher_cache;
static struct workqueue_struct *sysgenid_wq;
static struct work_struct sysgenid_notify_work;
static struct irq_work sysgenid_irq_work;
static struct delayed_work sysgenid_uevent_work;
static struct miscdevice sysgenid_misc;

static u32 sysgenid_generation(void)
{
	/* Pairs with smp_store_release() in sysgenid_start_generation(). */
	return smp_load_acquire(sysgenid_counter);
}

static void sysgenid_start_generation(u32 generation)
{
	lockdep_assert_held(&sysgenid_lock);

	/* Pairs with smp_load_acquire() in sysgenid_generation() and in userspace. */
	smp_store_release(sysgenid_counter, generation);
	sysgenid_outdated = sysgenid_tracked;

	if (kfifo_is_full(&sysgenid_events)) {
		kfifo_skip(&sysgenid_events);
		sysgenid_merged++;
	}
	kfifo_put(&sysgenid_events, generation);
}

static void sysgenid_queue_notify(void)
{
	queue_work(sysgenid_wq, &sysgenid_notify_work);
}

static void sysgenid_irq_work_fn(struct irq_work *work)
{
	sysgenid_queue_notify();
}

/**
 * sysgenid_bump_generation() - start a new generation
 *
 * A backend calls this once for every clone or restore, after the kernel's
 * random number generator was reseeded. On return, every interface shows the
 * new generation. A workqueue wakes the waiters soon after. The cost does not
 * depend on the number of open descriptors.
 *
 * Context: Any in which a spinlock_t can be taken. This includes hard interrupts,
 * except with PREEMPT_RT. The caller may hold locks of other subsystems.
 */
void sysgenid_bump_generation(void)
{
	unsigned long flags;

	spin_lock_irqsave(&sysgenid_lock, flags);
	if (*sysgenid_counter == U32_MAX)
		pr_emerg_once("no generations are left, reboot this system\n");
	else
		sysgenid_start_generation(*sysgenid_counter + 1);
	spin_unlock_irqrestore(&sysgenid_lock, flags);

	/* Not queue_work(): the caller may hold a workqueue or scheduler lock. */
	irq_work_queue(&sysgenid_irq_work);
}
EXPORT_SYMBOL_GPL(sysgenid_bump_generation);

/*
 * Starts a generation for an overseer that restores without a hypervisor, as
 * with containers. Values above SYSGENID_TRIGGER_MAX are reserved for backends.
 */
static int sysgenid_trigger(unsigned long min)
{
	int ret = 0;

	if (!checkpoint_restore_ns_capable(&init_user_ns))
		return -EACCES;
	if (min > SYSGENID_TRIGGER_MAX)
		return -EINVAL;

	spin_lock_irq(&sysgenid_lock);
	if (*sysgenid_counter < SYSGENID_TRIGGER_MAX)
		sysgenid_start_generation(max_t(u32, min,
						*sysgenid_counter + 1));
	else
		ret = -EOVERFLOW;
	spin_unlock_irq(&sysgenid_lock);
	sysgenid_queue_notify();
	return ret;
}

/*
 * Backends
 */

/**
 * sysgenid_register_backend() - let a backend drive the generation counter
 * @backend: the backend, with @id set to the current identifier; must stay valid
 *	until sysgenid_unregister_backend()
 *
 * If a backend of the same name was registered before, its last @id replaces
 * @backend->id. If the two differ, an event was missed, and the next check()
 * finds it. check() may be called before this function returns.
 *
 * Context: Process context. May sleep.
 * Return: 0, -EBUSY if another backend is registered, or -ENODEV if sysgenid
 * failed to initialize.
 */
int sysgenid_register_backend(struct sysgenid_backend *backend)
{
	int ret = -EBUSY;

	/* sysgenid is built in, and its initialization failed. */
	if (!sysgenid_counter)
		return -ENODEV;

	mutex_lock(&sysgenid_backend_mutex);
	if (!rcu_access_pointer(sysgenid_backend)) {
		if (!strcmp(last_backend.name, backend->name))
			memcpy(backend->id, last_backend.id,
			       sizeof(backend->id));
		rcu_assign_pointer(sysgenid_backend, backend);
		ret = 0;
	}
	mutex_unlock(&sysgenid_backend_mutex);
	return ret;
}
EXPORT_SYMBOL_GPL(sysgenid_register_backend);

/**
 * sysgenid_unregister_backend() - stop a backend from driving the counter
 * @backend: the registered backend
 *
 * On return, none of @backend's functions is running or will be called. From
 * then on, only software moves the counter.
 *
 * Context: Process context. May sleep.
 */
void sysgenid_unregister_backend(struct sysgenid_backend *backend)
{
	mutex_lock(&sysgenid_backend_mutex);
	rcu_assign_pointer(sysgenid_backend, NULL);
	synchronize_rcu();
	strscpy(last_backend.name, backend->name, sizeof(last_backend.name));
	memcpy(last_backend.id, backend->id, sizeof(last_backend.id));
	mutex_unlock(&sysgenid_backend_mutex);
}
EXPORT_SYMBOL_GPL(sysgenid_unregister_backend);

static void sysgenid_check_backend(void)
{
	struct sysgenid_backend *backend;

	rcu_read_lock();
	backend = rcu_dereference(sysgenid_backend);
	if (backend)
		backend->check(backend);
	rcu_read_unlock();
}

/* Returns the physical address of the hardware's identifier, or 0. */
static phys_addr_t sysgenid_hardware(void)
{
	struct sysgenid_backend *backend;
	phys_addr_t hardware;

	rcu_read_lock();
	backend = rcu_dereference(sysgenid_backend);
	hardware = backend ? backend->hardware : 0;
	rcu_read_unlock();

	/* An identifier that crosses a page would need a second page mapped. */
	if (offset_in_page(hardware) + sizeof(backend->id) > PAGE_SIZE)
		return 0;
	return hardware;
}

/*
 * Notifying and waking
 */

/**
 * sysgenid_register_notifier() - register a callback for new generations
 * @nb: called with the generation as the action and NULL as the data
 *
 * The chain is called after the random number generator was reseeded and the
 * generation published, and before userspace is woken. If generations follow
 * each other quickly, the chain may be called for the last one only.
 *
 * Context: Process context. May sleep, and so may the notifier.
 * Return: 0, or -EEXIST if @nb is already registered.
 */
int sysgenid_register_notifier(struct notifier_block *nb)
{
	return blocking_notifier_chain_register(&sysgenid_notifiers, nb);
}
EXPORT_SYMBOL_GPL(sysgenid_register_notifier);

/**
 * sysgenid_unregister_notifier() - unregister a callback for new generations
 * @nb: the registered notifier, which is not running on return
 *
 * Context: Process context. May sleep; not from within a notifier.
 * Return: 0, or -ENOENT if @nb is not registered.
 */
int sysgenid_unregister_notifier(struct notifier_block *nb)
{
	return blocking_notifier_chain_unregister(&sysgenid_notifiers, nb);
}
EXPORT_SYMBOL_GPL(sysgenid_unregister_notifier);

static void sysgenid_add_waiter(struct sysgenid_waiter *waiter,
				struct list_head *list)
{
	init_waitqueue_head(&waiter->wait);
	spin_lock(&sysgenid_waiters_lock);
	list_add_tail(&waiter->node, list);
	spin_unlock(&sysgenid_waiters_lock);
}

static void sysgenid_del_waiter(struct sysgenid_waiter *waiter)
{
	spin_lock(&sysgenid_waiters_lock);
	list_del(&waiter->node);
	spin_unlock(&sysgenid_waiters_lock);
}

/*
 * Open-coded wake_up_poll(): with very many waiters, its intermediate calls cost
 * as much as the callbacks.
 */
static void sysgenid_wake_locked(struct sysgenid_waiter *waiter)
{
	struct wait_queue_entry *entry, *next;
	bool exclusive;

	lockdep_assert_held(&sysgenid_waiters_lock);

	spin_lock_irq(&waiter->wait.lock);
	list_for_each_entry_safe(entry, next, &waiter->wait.head, entry) {
		exclusive = entry->flags & WQ_FLAG_EXCLUSIVE;
		if (entry->func(entry, TASK_NORMAL, 0,
				poll_to_key(EPOLLIN | EPOLLRDNORM)) && exclusive)
			break;
	}
	spin_unlock_irq(&waiter->wait.lock);
}

/* Wakes the first SYSGENID_WAKE_BATCH of @asleep, and appends them to @awake. */
static void sysgenid_wake_some(struct list_head *asleep,
			       struct list_head *awake)
{
	struct list_head *last = asleep;
	LIST_HEAD(woken);
	int i;

	for (i = 0; i < SYSGENID_WAKE_BATCH && last->next != asleep; i++) {
		last = last->next;
		sysgenid_wake_locked(list_entry(last, struct sysgenid_waiter,
						node));
	}
	list_cut_position(&woken, asleep, last);
	list_splice_tail(&woken, awake);
}

/*
 * Wakes all waiters of a list, and lets other tasks run after each batch. During
 * the walk, waiters may leave either list. New waiters need no wake-up: they have
 * seen the new generation.
 */
static void sysgenid_wake_all(struct list_head *list)
{
	LIST_HEAD(asleep);

	spin_lock(&sysgenid_waiters_lock);
	list_splice_init(list, &asleep);
	while (!list_empty(&asleep)) {
		sysgenid_wake_some(&asleep, list);
		spin_unlock(&sysgenid_waiters_lock);
		cond_resched();
		spin_lock(&sysgenid_waiters_lock);
	}
	spin_unlock(&sysgenid_waiters_lock);
}

/*
 * Moves a tracked watcher to the front, ahead of the untracked ones.
 * sysgenid_wake_all() may have passed the list head; wake it here.
 */
static void sysgenid_wake_early(struct sysgenid_watcher *watcher)
{
	spin_lock(&sysgenid_waiters_lock);
	list_move(&watcher->waiter.node, &sysgenid_watchers);
	sysgenid_wake_locked(&watcher->waiter);
	spin_unlock(&sysgenid_waiters_lock);
}

/* Runs for a new generation, and when the last outdated watcher has gone. */
static void sysgenid_notify(struct work_struct *work)
{
	static u32 notified;
	u32 generation = sysgenid_generation();

	if (generation != notified) {
		notified = generation;
		blocking_notifier_call_chain(&sysgenid_notifiers, generation,
					     NULL);
		sysgenid_wake_all(&sysgenid_watchers);
		mod_delayed_work(sysgenid_wq, &sysgenid_uevent_work, 0);
	}
	sysgenid_wake_all(&sysgenid_overseers);
}

static bool sysgenid_next_event(u32 *generation, u32 *merged)
{
	bool pending;

	spin_lock_irq(&sysgenid_lock);
	pending = kfifo_peek(&sysgenid_events, generation);
	*merged = sysgenid_merged;
	spin_unlock_irq(&sysgenid_lock);
	return pending;
}

static void sysgenid_event_sent(u32 generation, u32 merged)
{
	u32 first;

	spin_lock_irq(&sysgenid_lock);
	/* sysgenid_start_generation() may have dropped the event meanwhile. */
	if (kfifo_peek(&sysgenid_events, &first) && first == generation)
		kfifo_skip(&sysgenid_events);
	else
		sysgenid_merged--;
	sysgenid_merged -= merged;
	spin_unlock_irq(&sysgenid_lock);
}

static int sysgenid_send_event(u32 generation, u32 merged)
{
	char number[sizeof("SYSGENID_GENERATION=4294967295")];
	char dropped[sizeof("SYSGENID_MERGED=4294967295")];
	char *env[3] = { number };

	snprintf(number, sizeof(number), "SYSGENID_GENERATION=%u", generation);
	if (merged) {
		snprintf(dropped, sizeof(dropped), "SYSGENID_MERGED=%u", merged);
		env[1] = dropped;
	}
	return kobject_uevent_env(&sysgenid_misc.this_device->kobj,
				  KOBJ_CHANGE, env);
}

/* kobject_uevent_env() returns -ENOENT if allocating the path failed. */
static bool sysgenid_is_no_memory(int error)
{
	return error == -ENOMEM || error == -ENOENT;
}

/* Dequeues an event after sending it, so the latest one is never lost. */
static void sysgenid_send_events(struct work_struct *work)
{
	u32 generation, merged;

	while (sysgenid_next_event(&generation, &merged)) {
		if (sysgenid_is_no_memory(sysgenid_send_event(generation,
							      merged))) {
			queue_delayed_work(sysgenid_wq, &sysgenid_uevent_work,
					   SYSGENID_UEVENT_RETRY);
			return;
		}
		sysgenid_event_sent(generation, merged);
	}
}

/*
 * Counting watchers
 */

static bool sysgenid_is_outdated(const struct sysgenid_watcher *watcher)
{
	return READ_ONCE(watcher->acked) != sysgenid_generation();
}

/* Overseers wait for the last outdated watcher. */
static void sysgenid_put_outdated_locked(void)
{
	lockdep_assert_held(&sysgenid_lock);

	/* Not queue_work(): a random draw under a workqueue lock can bump. */
	if (--sysgenid_outdated == 0)
		irq_work_queue(&sysgenid_irq_work);
}

static int sysgenid_acknowledge(struct sysgenid_watcher *watcher, u32 generation)
{
	int ret = -EINVAL;

	spin_lock_irq(&sysgenid_lock);
	if (generation == *sysgenid_counter) {
		if (watcher->tracked && watcher->acked != generation)
			sysgenid_put_outdated_locked();
		WRITE_ONCE(watcher->acked, generation);
		ret = 0;
	}
	spin_unlock_irq(&sysgenid_lock);
	return ret;
}

static void sysgenid_set_tracking(struct sysgenid_watcher *watcher, bool track)
{
	spin_lock_irq(&sysgenid_lock);
	if (track && !watcher->tracked) {
		sysgenid_tracked++;
		if (watcher->acked != *sysgenid_counter)
			sysgenid_outdated++;
	} else if (!track && watcher->tracked) {
		sysgenid_tracked--;
		if (watcher->acked != *sysgenid_counter)
			sysgenid_put_outdated_locked();
	}
	WRITE_ONCE(watcher->tracked, track);
	spin_unlock_irq(&sysgenid_lock);
}

/*
 * Returns 0 if every tracked watcher has acknowledged @generation, -EINTR if
 * @generation is over or @watcher is outdated, else -EAGAIN.
 */
static int sysgenid_check_settled(struct sysgenid_watcher *watcher,
				  u32 generation)
{
	int ret = 0;

	spin_lock_irq(&sysgenid_lock);
	if (generation != *sysgenid_counter || watcher->acked != generation)
		ret = -EINTR;
	else if (sysgenid_outdated)
		ret = -EAGAIN;
	spin_unlock_irq(&sysgenid_lock);
	return ret;
}

static bool sysgenid_wait_is_over(struct sysgenid_watcher *watcher, u32 generation)
{
	return sysgenid_check_settled(watcher, generation) != -EAGAIN;
}

/* Converts milliseconds (0: forever) to jiffies: rounds up, never overflows. */
static long sysgenid_timeout(unsigned long ms)
{
	unsigned long timeout;

	if (!ms)
		return MAX_SCHEDULE_TIMEOUT;
	timeout = mult_frac(min_t(unsigned long, ms, LONG_MAX), HZ,
			    MSEC_PER_SEC) + 1;
	return min_t(unsigned long, timeout, MAX_SCHEDULE_TIMEOUT - 1);
}

static int sysgenid_wait_watchers(struct sysgenid_watcher *watcher,
				  unsigned long ms)
{
	u32 generation = sysgenid_generation();
	long left = sysgenid_timeout(ms);
	struct sysgenid_waiter overseer;
	int ret;

	sysgenid_add_waiter(&overseer, &sysgenid_overseers);
	for (;;) {
		ret = sysgenid_check_settled(watcher, generation);
		if (ret != -EAGAIN)
			break;
		if (!left) {
			ret = -ETIME;
			break;
		}
		left = wait_event_interruptible_timeout(overseer.wait,
							sysgenid_wait_is_over(watcher,
									      generation),
							left);
		if (left < 0) {
			/*
			 * The remaining time is lost on a restart. After a stop
			 * or a freeze, wait for the whole time again; after a
			 * signal handler, return -EINTR.
			 */
			ret = ms ? -ERESTARTNOHAND : -ERESTARTSYS;
			break;
		}
		sysgenid_check_backend();
	}
	sysgenid_del_waiter(&overseer);
	return ret;
}

/*
 * The device
 */

static int sysgenid_open(struct inode *inode, struct file *file)
{
	struct sysgenid_watcher *watcher;

	watcher = kmem_cache_zalloc(sysgenid_watcher_cache, GFP_KERNEL);
	if (!watcher)
		return -ENOMEM;

	sysgenid_check_backend();
	watcher->acked = sysgenid_generation();
	file->private_data = watcher;
	sysgenid_add_waiter(&watcher->waiter, &sysgenid_watchers);
	return stream_open(inode, file);
}

static int sysgenid_release(struct inode *inode, struct file *file)
{
	struct sysgenid_watcher *watcher = file->private_data;

	sysgenid_set_tracking(watcher, false);
	sysgenid_del_waiter(&watcher->waiter);
	kmem_cache_free(sysgenid_watcher_cache, watcher);
	return 0;
}

static ssize_t sysgenid_read(struct file *file, char __user *buf, size_t count,
			     loff_t *ppos)
{
	struct sysgenid_watcher *watcher = file->private_data;
	u32 generation;
	int ret;

	if (!count)
		return 0;
	if (count < sizeof(generation))
		return -EINVAL;

	/* Check again after every sleep: it may have been a long one. */
	sysgenid_check_backend();
	while (!sysgenid_is_outdated(watcher)) {
		if (file->f_flags & O_NONBLOCK)
			return -EAGAIN;
		ret = wait_event_interruptible(watcher->waiter.wait,
					       sysgenid_is_outdated(watcher));
		if (ret)
			return ret;
		sysgenid_check_backend();
	}

	generation = sysgenid_generation();
	if (copy_to_user(buf, &generation, sizeof(generation)))
		return -EFAULT;
	return sizeof(generation);
}

static ssize_t sysgenid_write(struct file *file, const char __user *buf,
			      size_t count, loff_t *ppos)
{
	struct sysgenid_watcher *watcher = file->private_data;
	u32 generation;
	int ret;

	if (count != sizeof(generation))
		return -ENOBUFS;
	if (copy_from_user(&generation, buf, sizeof(generation)))
		return -EFAULT;

	sysgenid_check_backend();
	ret = sysgenid_acknowledge(watcher, generation);
	return ret ?: sizeof(generation);
}

static __poll_t sysgenid_poll(struct file *file, poll_table *wait)
{
	struct sysgenid_watcher *watcher = file->private_data;

	poll_wait(file, &watcher->waiter.wait, wait);
	sysgenid_check_backend();
	return sysgenid_is_outdated(watcher) ? EPOLLIN | EPOLLRDNORM : 0;
}

static vm_fault_t sysgenid_fault(struct vm_fault *vmf)
{
	if (vmf->pgoff)
		return VM_FAULT_SIGBUS;

	vmf->page = virt_to_page(sysgenid_counter);
	get_page(vmf->page);
	return 0;
}

static const struct vm_operations_struct sysgenid_vm_ops = {
	.fault = sysgenid_fault,
};

static int sysgenid_mmap_counter(struct vm_area_struct *vma)
{
	vm_flags_set(vma, VM_DONTEXPAND);
	vma->vm_ops = &sysgenid_vm_ops;
	return 0;
}

/*
 * Firmware reserved this memory, and it outlives the backend: the mapping needs
 * no reference. remap_pfn_range() keeps it out of core dumps.
 */
static int sysgenid_mmap_hardware(struct file *file, struct vm_area_struct *vma)
{
	phys_addr_t hardware;

	if (!(file->f_mode & FMODE_WRITE))
		return -EPERM;
	if (!(vma->vm_flags & VM_SHARED))
		return -EINVAL;
	hardware = sysgenid_hardware();
	if (!hardware)
		return -ENODEV;
	return remap_pfn_range(vma, vma->vm_start, PHYS_PFN(hardware),
			       PAGE_SIZE, vma->vm_page_prot);
}

/* Page 0 holds the counter, page 1 the hardware's identifier. */
static int sysgenid_mmap(struct file *file, struct vm_area_struct *vma)
{
	if (vma->vm_pgoff > 1 || vma_pages(vma) != 1)
		return -EINVAL;
	if (vma->vm_flags & VM_WRITE)
		return -EPERM;

	vm_flags_clear(vma, VM_MAYWRITE);
	return vma->vm_pgoff ? sysgenid_mmap_hardware(file, vma) :
			       sysgenid_mmap_counter(vma);
}

static long sysgenid_get_hardware(struct sysgenid_hardware __user *to)
{
	phys_addr_t phys = sysgenid_hardware();
	struct sysgenid_hardware hardware = {
		.offset = offset_in_page(phys),
		.size = sizeof_field(struct sysgenid_backend, id),
	};

	if (!phys)
		return -ENODEV;
	return copy_to_user(to, &hardware, sizeof(hardware)) ? -EFAULT : 0;
}

static long sysgenid_ioctl(struct file *file, unsigned int cmd,
			   unsigned long arg)
{
	struct sysgenid_watcher *watcher = file->private_data;

	sysgenid_check_backend();

	switch (cmd) {
	case SYSGENID_SET_WATCHER_TRACKING:
		if (!(file->f_mode & FMODE_WRITE))
			return -EBADF;
		sysgenid_set_tracking(watcher, arg);
		if (arg)
			sysgenid_wake_early(watcher);
		return 0;
	case SYSGENID_WAIT_WATCHERS:
		return sysgenid_wait_watchers(watcher, arg);
	case SYSGENID_TRIGGER_GEN_UPDATE:
		return sysgenid_trigger(arg);
	case SYSGENID_GET_GENERATION:
		return put_user(sysgenid_generation(), (u32 __user *)arg);
	case SYSGENID_GET_HARDWARE:
		return sysgenid_get_hardware((struct sysgenid_hardware __user *)arg);
	default:
		return -ENOTTY;
	}
}

/* compat_ptr_ioctl() would convert the arguments that are no pointers, too. */
static long sysgenid_compat_ioctl(struct file *file, unsigned int cmd,
				  unsigned long arg)
{
	if (cmd == SYSGENID_GET_GENERATION || cmd == SYSGENID_GET_HARDWARE)
		arg = (unsigned long)compat_ptr(arg);
	return sysgenid_ioctl(file, cmd, arg);
}

static void sysgenid_show_fdinfo(struct seq_file *m, struct file *file)
{
	struct sysgenid_watcher *watcher = file->private_data;

	seq_printf(m, "sysgenid-acknowledged:\t%u\n",
		   READ_ONCE(watcher->acked));
	seq_printf(m, "sysgenid-tracked:\t%d\n", READ_ONCE(watcher->tracked));
}

static const struct file_operations sysgenid_fops = {
	.owner		= THIS_MODULE,
	.open		= sysgenid_open,
	.release	= sysgenid_release,
	.read		= sysgenid_read,
	.write		= sysgenid_write,
	.poll		= sysgenid_poll,
	.mmap		= sysgenid_mmap,
	.unlocked_ioctl	= sysgenid_ioctl,
	.compat_ioctl	= sysgenid_compat_ioctl,
	.show_fdinfo	= sysgenid_show_fdinfo,
};

static ssize_t generation_show(struct device *dev,
			       struct device_attribute *attr, char *buf)
{
	sysgenid_check_backend();
	return sysfs_emit(buf, "%u\n", sysgenid_generation());
}
static DEVICE_ATTR_RO(generation);

static ssize_t watchers_show(struct device *dev, struct device_attribute *attr,
			     char *buf)
{
	return sysfs_emit(buf, "%u\n", READ_ONCE(sysgenid_tracked));
}
static DEVICE_ATTR_RO(watchers);

static ssize_t outdated_show(struct device *dev, struct device_attribute *attr,
			     char *buf)
{
	sysgenid_check_backend();
	return sysfs_emit(buf, "%u\n", READ_ONCE(sysgenid_outdated));
}
static DEVICE_ATTR_RO(outdated);

static ssize_t source_show(struct device *dev, struct device_attribute *attr,
			   char *buf)
{
	struct sysgenid_backend *backend;
	ssize_t size;

	rcu_read_lock();
	backend = rcu_dereference(sysgenid_backend);
	size = sysfs_emit(buf, "%s\n", backend ? backend->name : "none");
	rcu_read_unlock();
	return size;
}
static DEVICE_ATTR_RO(source);

static struct attribute *sysgenid_attrs[] = {
	&dev_attr_generation.attr,
	&dev_attr_watchers.attr,
	&dev_attr_outdated.attr,
	&dev_attr_source.attr,
	NULL
};
ATTRIBUTE_GROUPS(sysgenid);

/* Any user may read and map. Acknowledging and tracking need write permission. */
static struct miscdevice sysgenid_misc = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "sysgenid",
	.fops	= &sysgenid_fops,
	.groups	= sysgenid_groups,
	.mode	= 0644,
};

static int __init sysgenid_init(void)
{
	int ret = -ENOMEM;

	INIT_WORK(&sysgenid_notify_work, sysgenid_notify);
	INIT_DELAYED_WORK(&sysgenid_uevent_work, sysgenid_send_events);
	init_irq_work(&sysgenid_irq_work, sysgenid_irq_work_fn);

	sysgenid_counter = (u32 *)get_zeroed_page(GFP_KERNEL);
	if (!sysgenid_counter)
		return -ENOMEM;

	sysgenid_watcher_cache = KMEM_CACHE(sysgenid_watcher, SLAB_ACCOUNT);
	if (!sysgenid_watcher_cache)
		goto free_page;

	sysgenid_wq = alloc_workqueue("sysgenid", WQ_UNBOUND | WQ_HIGHPRI, 0);
	if (!sysgenid_wq)
		goto destroy_cache;

	ret = misc_register(&sysgenid_misc);
	if (ret)
		goto destroy_wq;
	return 0;

destroy_wq:
	destroy_workqueue(sysgenid_wq);
destroy_cache:
	kmem_cache_destroy(sysgenid_watcher_cache);
free_page:
	free_page((unsigned long)sysgenid_counter);
	sysgenid_counter = NULL;
	return ret;
}
module_init(sysgenid_init);

static void __exit sysgenid_exit(void)
{
	/* No descriptor is open and no backend registered: nothing queues more work. */
	irq_work_sync(&sysgenid_irq_work);
	/* irq_work_sync() can miss a run that a run on another CPU overtook. */
	synchronize_rcu();
	flush_work(&sysgenid_notify_work);
	flush_delayed_work(&sysgenid_uevent_work);
	cancel_delayed_work_sync(&sysgenid_uevent_work);

	misc_deregister(&sysgenid_misc);
	destroy_workqueue(sysgenid_wq);
	kmem_cache_destroy(sysgenid_watcher_cache);
	free_page((unsigned long)sysgenid_counter);
}
module_exit(sysgenid_exit);

MODULE_DESCRIPTION("System generation ID");
MODULE_LICENSE("GPL");
