// SPDX-License-Identifier: GPL-2.0
/*
 * VM generation ID: hypervisors put a 128-bit GUID into guest memory, change it
 * whenever the virtual machine was cloned or restored, and send an ACPI event.
 * This driver notices, has the random number generator reseed, and moves the
 * system's generation counter. See Documentation/virt/vmgenid.rst.
 */

#include <linux/acpi.h>
#include <linux/delay.h>
#include <linux/device.h>
#include <linux/err.h>
#include <linux/io.h>
#include <linux/ioport.h>
#include <linux/limits.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/percpu.h>
#include <linux/platform_device.h>
#include <linux/pm.h>
#include <linux/random.h>
#include <linux/rtmutex.h>
#include <linux/sched.h>
#include <linux/smpboot.h>
#include <linux/string.h>
#include <linux/sysgenid.h>
#include <linux/timekeeping.h>
#include <linux/unaligned.h>

/* The Notify code of "Virtual Machine Generation ID", Microsoft, 2012. */
#define VMGENID_NOTIFY_CHANGED	0x80

/*
 * After how many microseconds a new GUID is read again, to see whether the
 * hypervisor is done with writing it, and how often, if it does not look so.
 */
#define VMGENID_READS		50
#define VMGENID_READ_DELAY	20

struct vmgenid_guid {
	u64 half[2];
};

/**
 * struct vmgenid - the system's generation ID device
 * @dev: the device that the driver is bound to
 * @addr: the GUID in memory: written by the hypervisor, never by us
 * @in_nvs: that is memory which hibernation saves and puts back
 * @backend: what sysgenid calls; its id is the GUID that was last acted on,
 *	written under @lock, after everything that follows from it, so that who
 *	finds it up to date without the lock need not wait for anything
 * @lock: makes one event one generation. Inherits priority: the thread of the
 *	CPU that took the interrupt must not wait for a system call that has
 *	found the same event and was preempted by some other program.
 */
struct vmgenid {
	struct device *dev;
	const void *addr;
	bool in_nvs;
	struct sysgenid_backend backend;
	struct rt_mutex lock;
};

/*
 * There is one at most; claimed by probe, for as long as the device is bound. It
 * is not the device's driver data: when the kernel's own driver was unbound from
 * that device, it may have left its Notify handler, which would take it for its.
 */
static struct vmgenid *vmgenid_device;

/* A real-time thread for each CPU, for the interrupts that this CPU takes. */
static DEFINE_PER_CPU(struct task_struct *, vmgenid_thread);
static DEFINE_PER_CPU(bool, vmgenid_kicked);

/*
 * Noticing the change
 *
 * Whatever may have noticed one calls vmgenid_check(), and nothing else reseeds
 * or bumps:
 *
 *   vmgenid_thread_fn()	the interrupt (SCI), in a thread of its CPU
 *   vmgenid_notify()		ACPI Notify, some milliseconds later, or where
 *				there is no SCI, the only one
 *   vmgenid_backend_check()	a system call of /dev/sysgenid
 *   vmgenid_resume()		the end of suspend
 *   vmgenid_restore()		the end of hibernation
 *   vmgenid_probe()		the driver has come, after having been away
 *   vmgenid_put_backend()	the driver is about to go
 */

static struct vmgenid_guid vmgenid_read(const struct vmgenid *vmgenid)
{
	struct vmgenid_guid guid;

	/* The compiler does not know who else writes there. */
	barrier();
	guid.half[0] = get_unaligned((const u64 *)vmgenid->addr);
	guid.half[1] = get_unaligned((const u64 *)vmgenid->addr + 1);
	barrier();
	return guid;
}

/* Any context, without the lock. The common case, so it has to be cheap. */
static bool vmgenid_changed(const struct vmgenid *vmgenid)
{
	struct vmgenid_guid guid = vmgenid_read(vmgenid);
	bool changed = guid.half[0] != READ_ONCE(vmgenid->backend.id[0]) ||
		       guid.half[1] != READ_ONCE(vmgenid->backend.id[1]);

	/* Who finds the GUID known sees the generation that it has made. */
	smp_rmb();
	return changed;
}

static void vmgenid_set_known(struct vmgenid *vmgenid, u64 half0, u64 half1)
{
	/* Pairs with vmgenid_changed(). */
	smp_wmb();
	WRITE_ONCE(vmgenid->backend.id[0], half0);
	WRITE_ONCE(vmgenid->backend.id[1], half1);
}

/*
 * A hypervisor may be caught in the middle of writing. Then two reads differ,
 * or one half is still the old one. With random GUIDs that is never so for
 * long; with others it may be, therefore not for ever.
 */
static struct vmgenid_guid vmgenid_read_settled(const struct vmgenid *vmgenid)
{
	const u64 *old = vmgenid->backend.id;
	struct vmgenid_guid last, guid = vmgenid_read(vmgenid);
	bool mixed;
	int i;

	for (i = 0; i < VMGENID_READS; i++) {
		udelay(VMGENID_READ_DELAY);
		last = guid;
		guid = vmgenid_read(vmgenid);
		mixed = (guid.half[0] == old[0]) != (guid.half[1] == old[1]);
		if (!mixed && !memcmp(&guid, &last, sizeof(guid)))
			break;
	}
	return guid;
}

/*
 * Called by everyone above, in process context; may sleep. When it returns, the
 * GUID that was in memory when it was called has been acted on: first mixed in
 * and the random number generator reseeded, then the new generation published,
 * and only then remembered as known.
 */
static void vmgenid_check(struct vmgenid *vmgenid)
{
	struct vmgenid_guid guid;

	if (!vmgenid_changed(vmgenid))
		return;

	rt_mutex_lock(&vmgenid->lock);
	guid = vmgenid_read_settled(vmgenid);
	if (memcmp(&guid, vmgenid->backend.id, sizeof(guid))) {
		add_vmfork_randomness(&guid, sizeof(guid));
		sysgenid_bump_generation();
		vmgenid_set_known(vmgenid, guid.half[0], guid.half[1]);
	}
	rt_mutex_unlock(&vmgenid->lock);
}

static bool vmgenid_backend_changed(struct sysgenid_backend *backend)
{
	return vmgenid_changed(container_of(backend, struct vmgenid, backend));
}

static void vmgenid_backend_check(struct sysgenid_backend *backend)
{
	vmgenid_check(container_of(backend, struct vmgenid, backend));
}

static void vmgenid_notify(acpi_handle handle, u32 event, void *context)
{
	if (event == VMGENID_NOTIFY_CHANGED)
		vmgenid_check(context);
}

/*
 * The interrupt. It is pending before the restored CPU executes anything, long
 * before ACPI has found out whom it is for. The work is done by a thread, as it
 * may sleep, but by one that runs before anything of userspace does, and on this
 * very CPU. Called with interrupts off, from the interrupt or its thread.
 */
static u32 vmgenid_sci(void *context)
{
	if (vmgenid_changed(context)) {
		__this_cpu_write(vmgenid_kicked, true);
		wake_up_process(__this_cpu_read(vmgenid_thread));
	}
	return ACPI_INTERRUPT_NOT_HANDLED;
}

static int vmgenid_thread_should_run(unsigned int cpu)
{
	return __this_cpu_read(vmgenid_kicked);
}

static void vmgenid_thread_fn(unsigned int cpu)
{
	__this_cpu_write(vmgenid_kicked, false);
	vmgenid_check(vmgenid_device);
}

static void vmgenid_thread_setup(unsigned int cpu)
{
	sched_set_fifo(current);
}

static struct smp_hotplug_thread vmgenid_threads = {
	.store			= &vmgenid_thread,
	.thread_should_run	= vmgenid_thread_should_run,
	.thread_fn		= vmgenid_thread_fn,
	.setup			= vmgenid_thread_setup,
	.thread_comm		= "vmgenid/%u",
};

/*
 * Finding the GUID
 */

/* The package's two integers, as one address. */
static int vmgenid_parse_addr(struct device *dev, const union acpi_object *addr,
			      u64 *phys)
{
	const union acpi_object *element;
	u64 low, high;
	u32 i;

	if (!addr || addr->type != ACPI_TYPE_PACKAGE)
		return dev_err_probe(dev, -EINVAL,
				     FW_BUG "ADDR is no package (ACPI type %u)\n",
				     addr ? addr->type : ACPI_TYPE_ANY);
	if (addr->package.count != 2)
		return dev_err_probe(dev, -EINVAL,
				     FW_BUG "ADDR has %u elements instead of 2\n",
				     addr->package.count);
	for (i = 0; i < 2; i++) {
		element = &addr->package.elements[i];
		if (element->type != ACPI_TYPE_INTEGER)
			return dev_err_probe(dev, -EINVAL,
					     FW_BUG "ADDR[%u] is no integer (ACPI type %u)\n",
					     i, element->type);
	}

	low = addr->package.elements[0].integer.value;
	high = addr->package.elements[1].integer.value;
	if (high > U32_MAX || (high && low > U32_MAX))
		return dev_err_probe(dev, -EINVAL,
				     FW_BUG "ADDR halves %#llx, %#llx make no address\n",
				     low, high);
	if (low > U32_MAX)
		dev_warn(dev, FW_BUG "ADDR has the whole address in its low half\n");

	*phys = low | high << 32;
	return 0;
}

static int vmgenid_intersects(u64 phys, unsigned long flags, unsigned long desc)
{
	return region_intersects(phys, sizeof(struct vmgenid_guid), flags, desc);
}

/*
 * Memory that firmware keeps, or that nobody has told us about; else it is some
 * device's registers. Only x86 has this among its resources.
 */
static bool vmgenid_is_memory(u64 phys)
{
	if (!IS_ENABLED(CONFIG_X86))
		return true;

	return vmgenid_intersects(phys, IORESOURCE_MEM,
				  IORES_DESC_NONE) == REGION_DISJOINT ||
	       vmgenid_intersects(phys, IORESOURCE_MEM,
				  IORES_DESC_RESERVED) != REGION_DISJOINT ||
	       vmgenid_intersects(phys, IORESOURCE_MEM,
				  IORES_DESC_ACPI_NV_STORAGE) != REGION_DISJOINT ||
	       vmgenid_intersects(phys, IORESOURCE_MEM,
				  IORES_DESC_ACPI_TABLES) != REGION_DISJOINT;
}

static int vmgenid_check_addr(struct device *dev, u64 phys)
{
	const u64 last = iomem_resource.end - (sizeof(struct vmgenid_guid) - 1);

	if (!phys)
		return dev_err_probe(dev, -EINVAL, FW_BUG "ADDR is 0\n");
	if (phys > last)
		return dev_err_probe(dev, -EINVAL,
				     FW_BUG "ADDR %#llx is past the last physical address %pa\n",
				     phys, &iomem_resource.end);
	/* Where the kernel keeps its own data, every change would be an event. */
	if (vmgenid_intersects(phys, IORESOURCE_SYSTEM_RAM,
			       IORES_DESC_NONE) != REGION_DISJOINT)
		return dev_err_probe(dev, -EBUSY,
				     FW_BUG "ADDR %#llx is in RAM that is not reserved\n",
				     phys);
	if (!vmgenid_is_memory(phys))
		return dev_err_probe(dev, -EBUSY,
				     FW_BUG "ADDR %#llx is no memory, but a device's\n",
				     phys);
	if (!IS_ALIGNED(phys, sizeof(u64)))
		dev_warn(dev, FW_BUG "ADDR %#llx is not aligned to 8 bytes\n",
			 phys);
	return 0;
}

static int vmgenid_get_addr(struct device *dev, u64 *phys)
{
	struct acpi_buffer buffer = { ACPI_ALLOCATE_BUFFER };
	acpi_handle addr;
	acpi_status status;
	int ret;

	status = acpi_get_handle(ACPI_HANDLE(dev), "ADDR", &addr);
	if (status == AE_NOT_FOUND)
		return dev_err_probe(dev, -ENODEV, FW_BUG "there is no ADDR\n");

	/* A method may find no other object: that is a failure of ADDR. */
	if (ACPI_SUCCESS(status))
		status = acpi_evaluate_object(addr, NULL, NULL, &buffer);
	if (status == AE_NO_MEMORY)
		return -ENOMEM;
	if (ACPI_FAILURE(status))
		return dev_err_probe(dev, -EIO, FW_BUG "ADDR fails with %s\n",
				     acpi_format_exception(status));

	ret = vmgenid_parse_addr(dev, buffer.pointer, phys);
	ACPI_FREE(buffer.pointer);
	return ret ?: vmgenid_check_addr(dev, *phys);
}

static int vmgenid_map(struct vmgenid *vmgenid)
{
	struct device *dev = vmgenid->dev;
	void *addr;
	u64 phys;
	int ret;

	ret = vmgenid_get_addr(dev, &phys);
	if (ret)
		return ret;

	/* The specification forbids any other mapping than a cacheable one. */
	addr = devm_memremap(dev, phys, sizeof(struct vmgenid_guid),
			     MEMREMAP_WB);
	if (IS_ERR(addr))
		return dev_err_probe(dev, PTR_ERR(addr),
				     "no cacheable mapping of ADDR %#llx\n",
				     phys);
	vmgenid->addr = addr;
	vmgenid->in_nvs = vmgenid_intersects(phys, IORESOURCE_MEM,
					     IORES_DESC_ACPI_NV_STORAGE) !=
			  REGION_DISJOINT;
	return 0;
}

/*
 * Coming and going. What is taken is given back in the reverse order by devm.
 */

static void vmgenid_unclaim(void *vmgenid)
{
	WRITE_ONCE(vmgenid_device, NULL);
}

static int vmgenid_claim(struct vmgenid *vmgenid)
{
	if (cmpxchg(&vmgenid_device, NULL, vmgenid))
		return dev_err_probe(vmgenid->dev, -EBUSY,
				     "there is a generation ID already, and a system has one\n");
	return devm_add_action_or_reset(vmgenid->dev, vmgenid_unclaim, vmgenid);
}

static void vmgenid_put_backend(void *data)
{
	struct vmgenid *vmgenid = data;

	/* An event may have come after those who would have told were gone. */
	vmgenid_check(vmgenid);
	sysgenid_unregister_backend(&vmgenid->backend);
}

static int vmgenid_get_backend(struct vmgenid *vmgenid)
{
	struct vmgenid_guid guid = vmgenid_read(vmgenid);
	int ret;

	add_device_randomness(&guid, sizeof(guid));
	memcpy(vmgenid->backend.id, guid.half, sizeof(guid.half));
	vmgenid->backend.name = "vmgenid";
	vmgenid->backend.changed = vmgenid_backend_changed;
	vmgenid->backend.check = vmgenid_backend_check;

	ret = sysgenid_register_backend(&vmgenid->backend);
	if (ret)
		return dev_err_probe(vmgenid->dev, ret,
				     "something else drives the generation counter\n");
	return devm_add_action_or_reset(vmgenid->dev, vmgenid_put_backend,
					vmgenid);
}

static int vmgenid_no_handler(struct vmgenid *vmgenid, const char *what,
			      acpi_status status)
{
	return dev_err_probe(vmgenid->dev,
			     status == AE_NO_MEMORY ? -ENOMEM : -ENODEV,
			     "no %s handler: %s\n", what,
			     acpi_format_exception(status));
}

static void vmgenid_stop_threads(void *vmgenid)
{
	smpboot_unregister_percpu_thread(&vmgenid_threads);
}

static void vmgenid_remove_sci(void *vmgenid)
{
	acpi_remove_sci_handler(vmgenid_sci);
}

static int vmgenid_install_sci(struct vmgenid *vmgenid)
{
	acpi_status status;
	int ret;

	/* There is no SCI: Notify has to do. */
	if (acpi_gbl_FADT.flags & ACPI_FADT_HW_REDUCED)
		return 0;

	ret = smpboot_register_percpu_thread(&vmgenid_threads);
	if (ret)
		return dev_err_probe(vmgenid->dev, ret, "no threads\n");
	ret = devm_add_action_or_reset(vmgenid->dev, vmgenid_stop_threads,
				       vmgenid);
	if (ret)
		return ret;

	status = acpi_install_sci_handler(vmgenid_sci, vmgenid);
	if (ACPI_FAILURE(status))
		return vmgenid_no_handler(vmgenid, "SCI", status);
	return devm_add_action_or_reset(vmgenid->dev, vmgenid_remove_sci,
					vmgenid);
}

static void vmgenid_remove_notify(void *data)
{
	struct vmgenid *vmgenid = data;

	acpi_remove_notify_handler(ACPI_HANDLE(vmgenid->dev),
				   ACPI_DEVICE_NOTIFY, vmgenid_notify);
}

static int vmgenid_install_notify(struct vmgenid *vmgenid)
{
	acpi_status status;

	status = acpi_install_notify_handler(ACPI_HANDLE(vmgenid->dev),
					     ACPI_DEVICE_NOTIFY, vmgenid_notify,
					     vmgenid);
	if (ACPI_FAILURE(status))
		return vmgenid_no_handler(vmgenid, "Notify", status);
	return devm_add_action_or_reset(vmgenid->dev, vmgenid_remove_notify,
					vmgenid);
}

/* The kernel's own driver was an ACPI driver before it became a platform one. */
static bool vmgenid_is_shared(struct device *dev)
{
	struct acpi_device *adev = ACPI_COMPANION(dev);

	return acpi_get_first_physical_node(adev) != dev || adev->dev.driver;
}

static int vmgenid_probe(struct platform_device *pdev)
{
	struct device *dev = &pdev->dev;
	struct vmgenid *vmgenid;
	int ret;

	vmgenid = devm_kzalloc(dev, sizeof(*vmgenid), GFP_KERNEL);
	if (!vmgenid)
		return -ENOMEM;
	vmgenid->dev = dev;
	rt_mutex_init(&vmgenid->lock);

	ret = vmgenid_claim(vmgenid);
	if (ret)
		return ret;
	ret = vmgenid_map(vmgenid);
	if (ret)
		return ret;
	ret = vmgenid_get_backend(vmgenid);
	if (ret)
		return ret;
	ret = vmgenid_install_notify(vmgenid);
	if (ret)
		return ret;
	ret = vmgenid_install_sci(vmgenid);
	if (ret)
		return ret;

	/* What changed before the handlers were there, told by nobody. */
	vmgenid_check(vmgenid);
	dev_info(dev, "drives the generation counter%s\n",
		 vmgenid_is_shared(dev) ? ", beside the kernel's own driver" :
					  "");
	return 0;
}

static int vmgenid_resume(struct device *dev)
{
	vmgenid_check(vmgenid_device);
	return 0;
}

/*
 * Resuming from hibernation, the kernel has put back what was in NVS memory when
 * the image was made, over the GUID that the hypervisor had written. Whether
 * that was another one can't be told any more, so it has to be taken for one.
 */
static int vmgenid_restore(struct device *dev)
{
	struct vmgenid *vmgenid = vmgenid_device;
	u64 *known = vmgenid->backend.id;
	u64 now = ktime_get_real_ns();

	if (vmgenid->in_nvs) {
		/* At least the time is another in every clone. */
		add_device_randomness(&now, sizeof(now));
		rt_mutex_lock(&vmgenid->lock);
		vmgenid_set_known(vmgenid, ~known[0], ~known[1]);
		rt_mutex_unlock(&vmgenid->lock);
	}
	vmgenid_check(vmgenid);
	return 0;
}

static const struct dev_pm_ops vmgenid_pm_ops = {
	.resume = pm_sleep_ptr(vmgenid_resume),
	.thaw = pm_sleep_ptr(vmgenid_resume),
	.restore = pm_sleep_ptr(vmgenid_restore),
};

static const struct acpi_device_id vmgenid_acpi_ids[] = {
	{ "VMGENID" },
	{ "QEMUVGID" },
	{ "VMGENCTR" },
	{ "VM_GEN_COUNTER" },	/* the compatible id that all hypervisors give */
	{ }
};
MODULE_DEVICE_TABLE(acpi, vmgenid_acpi_ids);

static const struct platform_device_id vmgenid_platform_ids[] = {
	{ "vmgenid-observer" },
	{ }
};

/*
 * A driver "vmgenid" is built into some kernels. The module can't have that name
 * either: to modprobe, it would be loaded already, and could not be removed.
 */
static struct platform_driver vmgenid_driver = {
	.probe		= vmgenid_probe,
	.id_table	= vmgenid_platform_ids,
	.driver		= {
		.name			= "vm_generation_id",
		.acpi_match_table	= vmgenid_acpi_ids,
		.pm			= pm_sleep_ptr(&vmgenid_pm_ops),
		.probe_type		= PROBE_FORCE_SYNCHRONOUS,
	},
};

/*
 * Where the kernel's own driver has the device, we work beside it, on a second
 * platform device of the same ACPI device: any number of handlers can listen.
 */
static struct platform_device *vmgenid_observer;

/* The first generation ID that another driver is bound to, with a reference. */
static struct acpi_device *vmgenid_find_taken(void)
{
	const struct acpi_device_id *id;
	struct acpi_device *adev;
	struct device *node;

	for (id = vmgenid_acpi_ids; id->id[0]; id++) {
		for_each_acpi_dev_match(adev, id->id, NULL, -1) {
			node = acpi_get_first_physical_node(adev);
			if (node && node->driver)
				return adev;
		}
	}
	return NULL;
}

static int vmgenid_observe(void)
{
	struct platform_device_info info = {
		.name = vmgenid_platform_ids[0].name,
		.id = PLATFORM_DEVID_NONE,
	};
	struct acpi_device *adev = vmgenid_find_taken();
	struct platform_device *pdev;

	if (!adev)
		return 0;

	info.fwnode = acpi_fwnode_handle(adev);
	pdev = platform_device_register_full(&info);
	acpi_dev_put(adev);
	if (IS_ERR(pdev))
		return PTR_ERR(pdev);
	vmgenid_observer = pdev;
	return 0;
}

static int __init vmgenid_init(void)
{
	int ret;

	ret = platform_driver_register(&vmgenid_driver);
	if (ret)
		return ret;

	if (!vmgenid_device)
		ret = vmgenid_observe();
	if (ret)
		platform_driver_unregister(&vmgenid_driver);
	return ret;
}
module_init(vmgenid_init);

static void __exit vmgenid_exit(void)
{
	platform_device_unregister(vmgenid_observer);
	platform_driver_unregister(&vmgenid_driver);
}
module_exit(vmgenid_exit);

MODULE_ALIAS("vmgenid");
MODULE_DESCRIPTION("VM generation ID");
MODULE_LICENSE("GPL");
