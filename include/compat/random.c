// SPDX-License-Identifier: GPL-2.0
/*
 * add_vmfork_randomness() where the kernel has none for modules: mixes in what
 * is unique about this machine, and makes the random number generator reseed
 * before it returns. See linux/random.h beside this file.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/random.h>

#ifdef COMPAT_VMFORK_RANDOMNESS

#include <linux/anon_inodes.h>
#include <linux/cred.h>
#include <linux/err.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/major.h>
#include <linux/mount.h>
#include <linux/printk.h>
#include <linux/sched/mm.h>
#include <linux/sched/task.h>

#define COMPAT_URANDOM_MINOR	9	/* Documentation/admin-guide/devices.txt */

/*
 * Opens the random device by its number, in no file system. A path could be
 * missing: in an initramfs without /dev, after switch_root, in the mount
 * namespace of whoever calls. The inode and its dentry live on the mount of
 * the anonymous inodes, which only a file on it can tell.
 */
static struct file *compat_open_urandom(void)
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
			   MKDEV(MEM_MAJOR, COMPAT_URANDOM_MINOR));

	file = alloc_file_pseudo(inode, anon->f_path.mnt, "urandom", O_RDONLY,
				 inode->i_fop);
	if (IS_ERR(file)) {
		iput(inode);
		goto put_anon;
	}
	/* Takes a reference to the character device, that fput() gives back. */
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
 * RNDRESEEDCRNG is what userspace has for this. It wants CAP_SYS_ADMIN, which
 * whoever is in a system call here need not have. ENODATA: the generator is yet
 * to be seeded, which will take in all that was mixed in before.
 */
static int compat_reseed(void)
{
	const struct cred *kernel = get_task_cred(&init_task);
	const struct cred *caller = override_creds(kernel);
	struct file *file;
	int ret;

	file = compat_open_urandom();
	ret = PTR_ERR_OR_ZERO(file);
	if (!ret) {
		ret = file->f_op->unlocked_ioctl(file, RNDRESEEDCRNG, 0);
		if (ret == -ENODATA)
			ret = 0;
		fput(file);
	}
	revert_creds(caller);
	put_cred(kernel);
	return ret;
}

/* It must not fail for want of memory, nor wait for it: takes the reserves. */
void compat_add_vmfork_randomness(const void *id, size_t len)
{
	unsigned int noreclaim = memalloc_noreclaim_save();
	int ret, tries = 3;

	add_device_randomness(id, len);
	do {
		ret = compat_reseed();
	} while (ret && --tries);
	memalloc_noreclaim_restore(noreclaim);

	if (ret)
		pr_err_once("can't make the random number generator reseed at once: %pe\n",
			    ERR_PTR(ret));
}

#endif /* COMPAT_VMFORK_RANDOMNESS */
