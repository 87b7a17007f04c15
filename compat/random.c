// SPDX-License-Identifier: GPL-2.0
/*
 * Makes the random number generator reseed at once, through userspace's ioctl
 * RNDRESEEDCRNG. Stock kernels export no function for this that may be called from
 * an interrupt. See compat/include/linux/random.h.
 */

#include <linux/anon_inodes.h>
#include <linux/cred.h>
#include <linux/err.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/irq_work.h>
#include <linux/major.h>
#include <linux/mount.h>
#include <linux/random.h>
#include <linux/sched.h>
#include <linux/sched/task.h>
#include <linux/workqueue.h>

#define URANDOM_MINOR	9	/* Documentation/admin-guide/devices.txt */

/* Set while the module is loaded. */
static struct file *vmfork_urandom;
static const struct cred *vmfork_cred;

/*
 * Opens the random device by its number, outside of any file system. A path may
 * not exist: in an initramfs without /dev, after switch_root, or in the caller's
 * mount namespace. The inode and dentry need a mount: the file of an anonymous inode
 * has one.
 */
static struct file *vmfork_open_urandom(void)
{
	struct file *anon, *file;
	struct inode *inode;
	int ret;

	anon = anon_inode_getfile("[urandom]", &generic_ro_fops, NULL, O_RDONLY);
	if (IS_ERR(anon))
		return anon;

	inode = alloc_anon_inode(anon->f_path.mnt->mnt_sb);
	if (IS_ERR(inode)) {
		file = ERR_CAST(inode);
		goto put_anon;
	}
	init_special_inode(inode, S_IFCHR | 0400,
			   MKDEV(MEM_MAJOR, URANDOM_MINOR));

	file = alloc_file_pseudo(inode, anon->f_path.mnt, "urandom", O_RDONLY,
				 inode->i_fop);
	if (IS_ERR(file)) {
		iput(inode);
		goto put_anon;
	}
	/* open() takes a reference to the character device; fput() drops it. */
	ret = file->f_op->open(inode, file);
	if (ret) {
		fput(file);
		file = ERR_PTR(ret);
	}
put_anon:
	fput(anon);
	return file;
}

/*
 * The ioctl requires CAP_SYS_ADMIN, which the interrupted task may lack. It returns
 * -ENODATA if the generator was never seeded.
 */
int vmfork_reseed(const void *id, size_t len)
{
	const unsigned int superpriv = current->flags & PF_SUPERPRIV;
	const struct cred *caller;
	int ret;

	add_device_randomness(id, len);
	caller = override_creds(vmfork_cred);
	ret = vmfork_urandom->f_op->unlocked_ioctl(vmfork_urandom,
						   RNDRESEEDCRNG, 0);
	revert_creds(caller);
	/* capable() set PF_SUPERPRIV, but the task itself used no privilege. */
	if (!superpriv)
		current->flags &= ~PF_SUPERPRIV;
	return ret == -ENODATA ? 0 : ret;
}

#if IS_MODULE(CONFIG_VMGENID)
/* Reseeds once more, which is harmless, and then calls the notifiers. */
static void vmfork_call_notifiers(struct work_struct *work)
{
	add_vmfork_randomness("", 0);
}

static DECLARE_WORK(vmfork_work, vmfork_call_notifiers);

/* vmfork_notify()'s caller may hold a workqueue or scheduler lock. */
static void vmfork_queue_work(struct irq_work *irq_work)
{
	schedule_work(&vmfork_work);
}

static DEFINE_IRQ_WORK(vmfork_irq_work, vmfork_queue_work);

void vmfork_notify(void)
{
	irq_work_queue(&vmfork_irq_work);
}

static void vmfork_flush(void)
{
	irq_work_sync(&vmfork_irq_work);
	flush_work(&vmfork_work);
}
#else
void vmfork_notify(void)
{
}

static void vmfork_flush(void)
{
}
#endif

/* Called before the first vmfork_reseed(). Process context. May sleep. */
int vmfork_open(void)
{
	struct file *urandom = vmfork_open_urandom();

	if (IS_ERR(urandom))
		return PTR_ERR(urandom);
	vmfork_urandom = urandom;
	vmfork_cred = get_task_cred(&init_task);
	return 0;
}

void vmfork_close(void)
{
	vmfork_flush();
	fput(vmfork_urandom);
	put_cred(vmfork_cred);
}
