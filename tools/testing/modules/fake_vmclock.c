// SPDX-License-Identifier: GPL-2.0
/*
 * A /dev/vmclock0 whose page a test writes in the hypervisor's place. It can be mapped,
 * read and polled, as in kernels that support notifications.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/wait.h>

#define SEQUENCE_OFFSET	12
#define FLAGS_OFFSET	24
#define HAS_NOTIFY	BIT(9)

static DECLARE_WAIT_QUEUE_HEAD(changed);
static void *page;

static u32 sequence(void)
{
	return le32_to_cpu(READ_ONCE(*(__le32 *)(page + SEQUENCE_OFFSET)));
}

/* private_data holds the sequence that the file has read last. */
static int vmclock_open(struct inode *inode, struct file *file)
{
	file->private_data = NULL;
	return 0;
}

static ssize_t vmclock_read(struct file *file, char __user *buffer,
			    size_t size, loff_t *position)
{
	file->private_data = (void *)(unsigned long)sequence();
	return simple_read_from_buffer(buffer, size, position, page, PAGE_SIZE);
}

static ssize_t vmclock_write(struct file *file, const char __user *buffer,
			     size_t size, loff_t *position)
{
	ssize_t written = simple_write_to_buffer(page, PAGE_SIZE, position,
						 buffer, size);

	wake_up_all(&changed);
	return written;
}

static __poll_t vmclock_poll(struct file *file, poll_table *wait)
{
	__le64 *flags = page + FLAGS_OFFSET;

	poll_wait(file, &changed, wait);
	if (!(le64_to_cpu(READ_ONCE(*flags)) & HAS_NOTIFY))
		return EPOLLHUP;
	if (sequence() != (unsigned long)file->private_data)
		return EPOLLIN | EPOLLRDNORM;
	return 0;
}

static int vmclock_mmap(struct file *file, struct vm_area_struct *vma)
{
	if ((vma->vm_flags & (VM_READ | VM_WRITE)) != VM_READ)
		return -EROFS;
	if (vma->vm_end - vma->vm_start != PAGE_SIZE || vma->vm_pgoff)
		return -EINVAL;
	return vm_insert_page(vma, vma->vm_start, virt_to_page(page));
}

static const struct file_operations vmclock_fops = {
	.owner = THIS_MODULE,
	.open = vmclock_open,
	.read = vmclock_read,
	.write = vmclock_write,
	.poll = vmclock_poll,
	.mmap = vmclock_mmap,
};

static struct miscdevice vmclock_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "vmclock0",
	.fops = &vmclock_fops,
	.mode = 0644,
};

static int __init vmclock_test_init(void)
{
	int ret;

	page = (void *)get_zeroed_page(GFP_KERNEL);
	if (!page)
		return -ENOMEM;
	ret = misc_register(&vmclock_device);
	if (ret)
		free_page((unsigned long)page);
	return ret;
}
module_init(vmclock_test_init);

static void __exit vmclock_test_exit(void)
{
	misc_deregister(&vmclock_device);
	free_page((unsigned long)page);
}
module_exit(vmclock_test_exit);

MODULE_DESCRIPTION("System generation ID: a VMClock page, for tests");
MODULE_LICENSE("GPL");
