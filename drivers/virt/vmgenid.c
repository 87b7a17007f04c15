// SPDX-License-Identifier: GPL-2.0
/*
 * VM generation ID: a hypervisor stores a 128-bit GUID in guest memory. When the
 * virtual machine is cloned or restored, it changes the GUID and raises an
 * interrupt. This driver detects the change, has the random number generator
 * reseed, and moves the generation counter of sysgenid. See
 * Documentation/virt/vmgenid.rst.
 */

#include <linux/acpi.h>
#include <linux/cc_platform.h>
#include <linux/delay.h>
#include <linux/device.h>
#include <linux/dmi.h>
#include <linux/err.h>
#include <linux/hrtimer.h>
#include <linux/interrupt.h>
#include <linux/io.h>
#include <linux/ioport.h>
#include <linux/irq_work.h>
#include <linux/kernel.h>
#include <linux/limits.h>
#include <linux/lockdep.h>
#include <linux/mm.h>
#include <linux/mod_devicetable.h>
#include <linux/module.h>
#include <linux/platform_device.h>
#include <linux/pm.h>
#include <linux/random.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/suspend.h>
#include <linux/sysgenid.h>
#include <linux/timekeeping.h>
#include <linux/unaligned.h>

/* Notify code from "Virtual Machine Generation ID", Microsoft, 2012 */
#define VMGENID_NOTIFY_CHANGED	0x80

/*
 * A GUID without an announcement may be half-written. It counts once it has been
 * the same for VMGENID_SETTLE, and both halves differ from the last GUID.
 * Non-random GUIDs may legitimately share a half: VMGENID_SETTLE_MAX after the
 * first difference, any GUID counts.
 */
#define VMGENID_SETTLE		(20 * NSEC_PER_USEC)
#define VMGENID_SETTLE_MAX	NSEC_PER_MSEC

/* After S3, the kernel restores NVS memory only if firmware is older than this. */
#define VMGENID_NVS_YEAR	2012

struct vmgenid_guid {
	u64 half[2];
};

/**
 * struct vmgenid - the system's generation ID device
 * @dev: the device that the driver is bound to
 * @addr: the GUID in memory, written by the hypervisor only
 * @in_nvs: the GUID is in NVS memory, which a resume can overwrite with old contents
 * @resumed_before: value of pm_resume_via_firmware() before hibernation
 * @backend: the interface to sysgenid. Its id is the last GUID handled, protected
 *	by @lock. It is written last, so a lockless match implies that the new
 *	generation is visible.
 * @lock: serializes checks, so that one event makes one generation; protects
 *	@seeded, @first, @since and writes to @owner
 * @owner: the task that was current when @lock was taken, or NULL
 * @seeded: the GUID of the last reseed
 * @first: when the GUID first differed from the last one handled, in ns of
 *	CLOCK_MONOTONIC
 * @since: when @seeded was first read, in ns of CLOCK_MONOTONIC
 * @irq_work: starts @timer, on behalf of contexts in which no timer can be started
 * @timer: checks again after a GUID had no time to settle
 */
struct vmgenid {
	struct device *dev;
	const void *addr;
	bool in_nvs;
	bool resumed_before;
	struct sysgenid_backend backend;
	spinlock_t lock;		/* serializes checks */
	struct task_struct *owner;
	struct vmgenid_guid seeded;
	u64 first;
	u64 since;
	struct irq_work irq_work;
	struct hrtimer timer;
};

/*
 * The one bound device: a system has one. Not driver data: the upstream driver can
 * leak its notify handler, which would dereference it.
 */
static struct vmgenid *vmgenid_device;

/*
 * Detecting the change
 *
 * Every trigger calls vmgenid_check(). Once the driver is bound, no other function
 * reseeds or bumps. The triggers are:
 *
 *   vmgenid_interrupt()	the device's interrupt: the SCI, or its own
 *   vmgenid_look()		a draw of random numbers, a timer tick, or the
 *				interrupt of a Generic Event Device
 *   vmgenid_timer_fn()		a GUID that vmgenid_look() found has had time to settle
 *   vmgenid_notify()		ACPI Notify, some milliseconds later
 *   vmgenid_backend_check()	a system call of /dev/sysgenid; also the end of
 *				binding and of unbinding
 *   vmgenid_thaw()		the end of suspend or hibernation, or of a restore by Xen
 */

static struct vmgenid_guid vmgenid_read(const struct vmgenid *vmgenid)
{
	struct vmgenid_guid guid;

	/* The hypervisor writes to this memory behind the compiler's back. */
	barrier();
	guid.half[0] = get_unaligned((const u64 *)vmgenid->addr);
	guid.half[1] = get_unaligned((const u64 *)vmgenid->addr + 1);
	barrier();
	return guid;
}

static bool vmgenid_same(const struct vmgenid_guid *guid, const u64 *half)
{
	return guid->half[0] == half[0] && guid->half[1] == half[1];
}

/* Called in any context, without the lock, by every trigger: must be cheap. */
static bool vmgenid_changed(const struct vmgenid *vmgenid)
{
	struct vmgenid_guid guid = vmgenid_read(vmgenid);
	bool changed = guid.half[0] != READ_ONCE(vmgenid->backend.id[0]) ||
		       guid.half[1] != READ_ONCE(vmgenid->backend.id[1]);

	/* Pairs with smp_wmb() in vmgenid_set_known(). */
	smp_rmb();
	return changed;
}

static void vmgenid_set_known(struct vmgenid *vmgenid, u64 half0, u64 half1)
{
	lockdep_assert_held(&vmgenid->lock);

	/* Pairs with smp_rmb() in vmgenid_changed(). */
	smp_wmb();
	WRITE_ONCE(vmgenid->backend.id[0], half0);
	WRITE_ONCE(vmgenid->backend.id[1], half1);
}

static bool vmgenid_is_settled(const struct vmgenid *vmgenid, u64 now)
{
	const struct vmgenid_guid *guid = &vmgenid->seeded;
	const u64 *known = vmgenid->backend.id;

	if (now - vmgenid->first >= VMGENID_SETTLE_MAX)
		return true;
	return now - vmgenid->since >= VMGENID_SETTLE &&
	       guid->half[0] != known[0] && guid->half[1] != known[1];
}

static bool vmgenid_check_locked(struct vmgenid *vmgenid, bool announced)
{
	struct vmgenid_guid guid = vmgenid_read(vmgenid);
	const u64 *known = vmgenid->backend.id;
	u64 now = ktime_get_mono_fast_ns();
	int ret;

	lockdep_assert_held(&vmgenid->lock);

	if (vmgenid_same(&guid, known)) {
		vmgenid->seeded = guid;
		return true;
	}
	if (!vmgenid_same(&guid, vmgenid->seeded.half)) {
		ret = vmfork_reseed(&guid, sizeof(guid));
		if (ret) {
			dev_err_once(vmgenid->dev,
				     "cloned, but reseeding the random number generator failed (%d): the generation stays until a retry succeeds\n",
				     ret);
			return true;
		}
		if (vmgenid_same(&vmgenid->seeded, known))
			vmgenid->first = now;
		vmgenid->seeded = guid;
		vmgenid->since = now;
	}
	if (!announced && !vmgenid_is_settled(vmgenid, now))
		return false;

	sysgenid_bump_generation();
	vmgenid_set_known(vmgenid, guid.half[0], guid.half[1]);
	vmfork_notify();
	return true;
}

/*
 * Checks for a new GUID, in any context in which a spinlock_t can be taken. On
 * return, the random number generator has been reseeded with the GUID that was in
 * memory at the call. The order is: reseed, publish, remember as handled.
 *
 * Returns false if the hypervisor has not @announced the GUID and it has not
 * settled. Otherwise the new generation is visible, unless the reseed failed.
 */
static bool vmgenid_check(struct vmgenid *vmgenid, bool announced)
{
	/* Without PREEMPT_RT, hard interrupts may take a spinlock_t. */
	static DEFINE_WAIT_OVERRIDE_MAP(wait_map, LD_WAIT_CONFIG);
	unsigned long flags;
	bool done;

	if (!vmgenid_changed(vmgenid))
		return true;
	/* A reseed can recurse: a security module may allocate, and that may draw. */
	if (READ_ONCE(vmgenid->owner) == current)
		return true;

	lock_map_acquire_try(&wait_map);
	spin_lock_irqsave(&vmgenid->lock, flags);
	WRITE_ONCE(vmgenid->owner, current);
	done = vmgenid_check_locked(vmgenid, announced);
	WRITE_ONCE(vmgenid->owner, NULL);
	spin_unlock_irqrestore(&vmgenid->lock, flags);
	lock_map_release(&wait_map);
	return done;
}

/* Waits with interrupts on, for VMGENID_SETTLE_MAX at most. */
static noinline void vmgenid_check_settled(struct vmgenid *vmgenid)
{
	while (!vmgenid_check(vmgenid, false))
		udelay(VMGENID_SETTLE / NSEC_PER_USEC);
}

static void vmgenid_backend_check(struct sysgenid_backend *backend)
{
	struct vmgenid *vmgenid = container_of(backend, struct vmgenid, backend);

	if (unlikely(vmgenid_changed(vmgenid)))
		vmgenid_check_settled(vmgenid);
}

/*
 * The interrupt is pending before the restored CPU executes its first
 * instruction. ACPI identifies the device much later. This handler does all the
 * work before the CPU returns to user code.
 */
static irqreturn_t vmgenid_interrupt(int irq, void *context)
{
	struct vmgenid *vmgenid = context;

	if (!vmgenid_changed(vmgenid))
		return IRQ_NONE;
	vmgenid_check(vmgenid, true);
	return IRQ_HANDLED;
}

/* Called through compat/look.c, or through vmfork_look() in a kernel tree. */
static void vmgenid_look(bool announced)
{
	struct vmgenid *vmgenid = vmgenid_device;

	if (likely(!vmgenid_changed(vmgenid)))
		return;
	/* crng_reseed() reads the suspended clock; vmgenid_thaw() checks later. */
	if (system_state == SYSTEM_SUSPEND)
		return;
	if (!vmgenid_check(vmgenid, announced))
		irq_work_queue(&vmgenid->irq_work);
}

static void vmgenid_start_timer(struct irq_work *work)
{
	struct vmgenid *vmgenid = container_of(work, struct vmgenid, irq_work);

	hrtimer_start(&vmgenid->timer, ns_to_ktime(VMGENID_SETTLE),
		      HRTIMER_MODE_REL);
}

static enum hrtimer_restart vmgenid_timer_fn(struct hrtimer *timer)
{
	struct vmgenid *vmgenid = container_of(timer, struct vmgenid, timer);

	/* Not HRTIMER_RESTART: another CPU may start the timer meanwhile. */
	if (!vmgenid_check(vmgenid, false))
		vmgenid_start_timer(&vmgenid->irq_work);
	return HRTIMER_NORESTART;
}

/*
 * Finding the GUID
 */

static int vmgenid_intersects(u64 phys, unsigned long flags, unsigned long desc)
{
	return region_intersects(phys, sizeof(struct vmgenid_guid), flags, desc);
}

/*
 * On x86, the GUID must be in memory that firmware reserved, or that no resource
 * describes; other resources are device registers. Other architectures do not
 * list reserved memory.
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
	/* In the kernel's own data, every change would count as an event. */
	if (vmgenid_intersects(phys, IORESOURCE_SYSTEM_RAM,
			       IORES_DESC_NONE) != REGION_DISJOINT)
		return dev_err_probe(dev, -EBUSY,
				     FW_BUG "ADDR %#llx is in RAM that is not reserved\n",
				     phys);
	if (!vmgenid_is_memory(phys))
		return dev_err_probe(dev, -EBUSY,
				     FW_BUG "ADDR %#llx is in device registers, not in memory\n",
				     phys);
	if (!IS_ALIGNED(phys, sizeof(u64)))
		dev_warn(dev, FW_BUG "ADDR %#llx is not aligned to 8 bytes\n",
			 phys);
	return 0;
}

static int vmgenid_request_irq(struct vmgenid *vmgenid, int irq)
{
	unsigned long flags = IRQF_SHARED;
	int ret;

	/* With threadirqs, a thread could run late, or on another CPU. */
	if (!IS_ENABLED(CONFIG_PREEMPT_RT))
		flags |= IRQF_NO_THREAD;
	ret = devm_request_irq(vmgenid->dev, irq, vmgenid_interrupt, flags,
			       KBUILD_MODNAME, vmgenid);
	if (ret)
		return dev_err_probe(vmgenid->dev, ret,
				     "requesting shared interrupt %d failed\n", irq);
	return 0;
}

/*
 * ACPI
 */

#ifdef CONFIG_ACPI
/* Combines the package's two integers into one address. */
static int vmgenid_parse_addr(struct device *dev, const union acpi_object *addr,
			      u64 *phys)
{
	const union acpi_object *element;
	u64 low, high;
	u32 i;

	if (!addr || addr->type != ACPI_TYPE_PACKAGE)
		return dev_err_probe(dev, -EINVAL,
				     FW_BUG "ADDR is not a package (ACPI type %u)\n",
				     addr ? addr->type : ACPI_TYPE_ANY);
	if (addr->package.count != 2)
		return dev_err_probe(dev, -EINVAL,
				     FW_BUG "ADDR has %u elements instead of 2\n",
				     addr->package.count);
	for (i = 0; i < 2; i++) {
		element = &addr->package.elements[i];
		if (element->type != ACPI_TYPE_INTEGER)
			return dev_err_probe(dev, -EINVAL,
					     FW_BUG "ADDR[%u] is not an integer (ACPI type %u)\n",
					     i, element->type);
	}

	low = addr->package.elements[0].integer.value;
	high = addr->package.elements[1].integer.value;
	if (high > U32_MAX || (high && low > U32_MAX))
		return dev_err_probe(dev, -EINVAL,
				     FW_BUG "ADDR halves %#llx, %#llx exceed 32 bits\n",
				     low, high);
	if (low > U32_MAX)
		dev_warn(dev, FW_BUG "ADDR has the whole address in its low half\n");

	*phys = low | high << 32;
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
		return dev_err_probe(dev, -ENODEV, FW_BUG "ADDR is missing\n");

	/* Here, AE_NOT_FOUND means that ADDR refers to a missing object. */
	if (ACPI_SUCCESS(status))
		status = acpi_evaluate_object(addr, NULL, NULL, &buffer);
	if (status == AE_NO_MEMORY)
		return -ENOMEM;
	if (ACPI_FAILURE(status))
		return dev_err_probe(dev, -EIO, FW_BUG "evaluating ADDR failed: %s\n",
				     acpi_format_exception(status));

	ret = vmgenid_parse_addr(dev, buffer.pointer, phys);
	ACPI_FREE(buffer.pointer);
	return ret;
}

static void vmgenid_notify(acpi_handle handle, u32 event, void *context)
{
	if (event == VMGENID_NOTIFY_CHANGED)
		vmgenid_check(context, true);
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
		return dev_err_probe(vmgenid->dev,
				     status == AE_NO_MEMORY ? -ENOMEM : -ENODEV,
				     "installing the Notify handler failed: %s\n",
				     acpi_format_exception(status));
	return devm_add_action_or_reset(vmgenid->dev, vmgenid_remove_notify,
					vmgenid);
}

/* Hardware-reduced ACPI has no SCI: a Generic Event Device calls vmgenid_look(). */
static int vmgenid_add_acpi_handlers(struct vmgenid *vmgenid)
{
	unsigned int irq;
	int ret = vmgenid_install_notify(vmgenid);

	if (ret || acpi_gbl_FADT.flags & ACPI_FADT_HW_REDUCED)
		return ret;
	ret = acpi_gsi_to_irq(acpi_gbl_FADT.sci_interrupt, &irq);
	if (ret)
		return dev_err_probe(vmgenid->dev, ret,
				     "mapping the SCI to an interrupt failed\n");
	return vmgenid_request_irq(vmgenid, irq);
}

/* The kernel's own driver was an ACPI driver before it became a platform driver. */
static bool vmgenid_is_shared(struct device *dev)
{
	struct acpi_device *adev = ACPI_COMPANION(dev);

	if (!adev)
		return !dev_of_node(dev);
	return acpi_get_first_physical_node(adev) != dev || adev->dev.driver;
}
#else
static int vmgenid_get_addr(struct device *dev, u64 *phys)
{
	return -ENODEV;
}

static int vmgenid_add_acpi_handlers(struct vmgenid *vmgenid)
{
	return -ENODEV;
}

static bool vmgenid_is_shared(struct device *dev)
{
	return false;
}
#endif

/*
 * Devicetree: "microsoft,vmgenid", with the GUID in its reg
 */

static int vmgenid_get_reg(struct device *dev, u64 *phys)
{
	struct platform_device *pdev = to_platform_device(dev);
	struct resource *reg = platform_get_resource(pdev, IORESOURCE_MEM, 0);

	if (!reg)
		return dev_err_probe(dev, -ENODEV, "reg is missing\n");
	if (resource_size(reg) < sizeof(struct vmgenid_guid))
		return dev_err_probe(dev, -EINVAL, "%pR is too small for a GUID\n",
				     reg);
	*phys = reg->start;
	return 0;
}

static int vmgenid_add_of_handler(struct vmgenid *vmgenid)
{
	int irq = platform_get_irq(to_platform_device(vmgenid->dev), 0);

	return irq < 0 ? irq : vmgenid_request_irq(vmgenid, irq);
}

/*
 * Binding and unbinding. devm unwinds in the reverse order: first the callers of
 * vmgenid_check() stop, then the backend is unregistered.
 */

static int vmgenid_map(struct vmgenid *vmgenid)
{
	struct device *dev = vmgenid->dev;
	void *addr;
	u64 phys;
	int ret;

	if (has_acpi_companion(dev))
		ret = vmgenid_get_addr(dev, &phys);
	else
		ret = vmgenid_get_reg(dev, &phys);
	if (!ret)
		ret = vmgenid_check_addr(dev, phys);
	if (ret)
		return ret;

	/* The specification forbids uncached mappings. */
	addr = devm_memremap(dev, phys, sizeof(struct vmgenid_guid),
			     MEMREMAP_WB);
	if (IS_ERR(addr))
		return dev_err_probe(dev, PTR_ERR(addr),
				     "mapping ADDR %#llx cacheable failed\n",
				     phys);
	vmgenid->addr = addr;
	vmgenid->backend.hardware = phys;
	vmgenid->in_nvs = vmgenid_intersects(phys, IORESOURCE_MEM,
					     IORES_DESC_ACPI_NV_STORAGE) !=
			  REGION_DISJOINT;
	return 0;
}

static void vmgenid_unclaim(void *unused)
{
	WRITE_ONCE(vmgenid_device, NULL);
}

static int vmgenid_claim(struct vmgenid *vmgenid)
{
	if (cmpxchg(&vmgenid_device, NULL, vmgenid))
		return dev_err_probe(vmgenid->dev, -EBUSY,
				     "the system already has a generation ID device\n");
	return devm_add_action_or_reset(vmgenid->dev, vmgenid_unclaim, NULL);
}

static int vmgenid_try_reseed(struct vmgenid *vmgenid)
{
	struct vmgenid_guid guid = vmgenid_read(vmgenid);
	int ret = vmfork_reseed(&guid, sizeof(guid));

	memcpy(vmgenid->backend.id, guid.half, sizeof(guid.half));
	if (ret)
		return dev_err_probe(vmgenid->dev, ret,
				     "reseeding the random number generator failed\n");
	return 0;
}

static void vmgenid_put_backend(void *data)
{
	struct vmgenid *vmgenid = data;

	/* Catch a change after the handlers were removed. */
	vmgenid_backend_check(&vmgenid->backend);
	sysgenid_unregister_backend(&vmgenid->backend);
}

static int vmgenid_get_backend(struct vmgenid *vmgenid)
{
	int ret;

	spin_lock_init(&vmgenid->lock);
	vmgenid->backend.name = "vmgenid";
	vmgenid->backend.check = vmgenid_backend_check;
	ret = sysgenid_register_backend(&vmgenid->backend);
	if (ret)
		return dev_err_probe(vmgenid->dev, ret,
				     "registering as backend of the generation counter failed\n");
	/* sysgenid may have replaced the id by that of an earlier backend. */
	spin_lock_irq(&vmgenid->lock);
	memcpy(vmgenid->seeded.half, vmgenid->backend.id,
	       sizeof(vmgenid->seeded.half));
	spin_unlock_irq(&vmgenid->lock);
	return devm_add_action_or_reset(vmgenid->dev, vmgenid_put_backend,
					vmgenid);
}

static void vmgenid_stop_timer(void *data)
{
	struct vmgenid *vmgenid = data;

	irq_work_sync(&vmgenid->irq_work);
	/* irq_work_sync() can miss a run that a run on another CPU overtook. */
	synchronize_rcu();
	hrtimer_cancel(&vmgenid->timer);
}

static int vmgenid_start_looks(struct vmgenid *vmgenid)
{
	int ret;

	init_irq_work(&vmgenid->irq_work, vmgenid_start_timer);
	hrtimer_setup(&vmgenid->timer, vmgenid_timer_fn, CLOCK_MONOTONIC,
		      HRTIMER_MODE_REL);
	ret = devm_add_action_or_reset(vmgenid->dev, vmgenid_stop_timer,
				       vmgenid);
	return ret ?: devm_vmfork_look(vmgenid->dev, vmgenid_look);
}

static int vmgenid_probe(struct platform_device *pdev)
{
	struct device *dev = &pdev->dev;
	struct vmgenid *vmgenid;
	int ret;

	/*
	 * The host of an encrypted guest is not trusted, and no hypervisor
	 * restores such a guest from a snapshot today. Reading the page has hung
	 * boots of SEV-SNP guests. An arm64 realm has only CC_ATTR_MEM_ENCRYPT,
	 * which on x86 an SME host has, too.
	 */
	if (cc_platform_has(CC_ATTR_GUEST_MEM_ENCRYPT) ||
	    (IS_ENABLED(CONFIG_ARM64) && cc_platform_has(CC_ATTR_MEM_ENCRYPT))) {
		dev_info(dev, "not used: the memory is encrypted against the host\n");
		return -ENODEV;
	}

	vmgenid = devm_kzalloc(dev, sizeof(*vmgenid), GFP_KERNEL);
	if (!vmgenid)
		return -ENOMEM;
	vmgenid->dev = dev;

	ret = vmgenid_claim(vmgenid);
	if (ret)
		return ret;
	ret = vmgenid_map(vmgenid);
	if (ret)
		return ret;
	ret = vmgenid_try_reseed(vmgenid);
	if (ret)
		return ret;
	ret = vmgenid_get_backend(vmgenid);
	if (ret)
		return ret;
	ret = vmgenid_start_looks(vmgenid);
	if (ret)
		return ret;
	if (has_acpi_companion(dev))
		ret = vmgenid_add_acpi_handlers(vmgenid);
	else
		ret = vmgenid_add_of_handler(vmgenid);
	if (ret)
		return ret;

	/* Catch a change before the handlers were installed. */
	vmgenid_backend_check(&vmgenid->backend);
	dev_info(dev, "%s%s\n",
		 IS_ENABLED(CONFIG_SYSGENID) ?
			 "drives the generation counter" :
			 "reseeds the random number generator",
		 vmgenid_is_shared(dev) ? ", beside the kernel's own driver" :
					  "");
	return 0;
}

/*
 * Suspend and hibernation
 */

/*
 * On resume, the kernel restored NVS memory, and overwrote any GUID that the
 * hypervisor had written meanwhile. A change cannot be ruled out; assume one.
 */
static void vmgenid_assume_changed(struct vmgenid *vmgenid)
{
	u64 now = ktime_get_real_ns();
	u64 *known = vmgenid->backend.id;

	/* The GUID is lost, but the time differs between clones. */
	add_device_randomness(&now, sizeof(now));

	spin_lock_irq(&vmgenid->lock);
	vmgenid_set_known(vmgenid, ~known[0], ~known[1]);
	memcpy(vmgenid->seeded.half, known, sizeof(vmgenid->seeded.half));
	spin_unlock_irq(&vmgenid->lock);
}

static int vmgenid_thaw(struct device *dev)
{
	vmgenid_check(vmgenid_device, true);
	return 0;
}

static int vmgenid_resume(struct device *dev)
{
	struct vmgenid *vmgenid = vmgenid_device;

	/* After S3, NVS memory is restored for older firmware: acpi_sleep_init(). */
	if (vmgenid->in_nvs && pm_resume_via_firmware() &&
	    dmi_get_bios_year() < VMGENID_NVS_YEAR)
		vmgenid_assume_changed(vmgenid);
	return vmgenid_thaw(dev);
}

static int vmgenid_freeze(struct device *dev)
{
	vmgenid_device->resumed_before = pm_resume_via_firmware();
	return 0;
}

/*
 * ACPI's platform code restores NVS memory after hibernation, and makes
 * pm_resume_via_firmware() true. Xen's restore does neither, but an earlier resume
 * may have left it true.
 */
static int vmgenid_restore(struct device *dev)
{
	struct vmgenid *vmgenid = vmgenid_device;

	if (vmgenid->in_nvs && pm_resume_via_firmware() &&
	    !vmgenid->resumed_before)
		vmgenid_assume_changed(vmgenid);
	return vmgenid_thaw(dev);
}

static const struct dev_pm_ops vmgenid_pm_ops = {
	.resume = pm_sleep_ptr(vmgenid_resume),
	.freeze = pm_sleep_ptr(vmgenid_freeze),
	.thaw = pm_sleep_ptr(vmgenid_thaw),
	.restore = pm_sleep_ptr(vmgenid_restore),
};

static const struct acpi_device_id vmgenid_acpi_ids[] = {
	{ "VMGENID" },
	{ "QEMUVGID" },
	{ "VMGENCTR" },
	{ "VM_GEN_COUNTER" },	/* the compatible id on all hypervisors */
	{ }
};
MODULE_DEVICE_TABLE(acpi, vmgenid_acpi_ids);

static const struct of_device_id vmgenid_of_ids[] = {
	{ .compatible = "microsoft,vmgenid" },
	{ }
};
MODULE_DEVICE_TABLE(of, vmgenid_of_ids);

static struct platform_driver vmgenid_driver = {
	.probe		= vmgenid_probe,
	.driver		= {
		.name			= KBUILD_MODNAME,
		.acpi_match_table	= vmgenid_acpi_ids,
		.of_match_table		= vmgenid_of_ids,
		.pm			= pm_sleep_ptr(&vmgenid_pm_ops),
		.probe_type		= PROBE_FORCE_SYNCHRONOUS,
	},
};
module_platform_driver(vmgenid_driver);

MODULE_ALIAS("vmgenid");
MODULE_DESCRIPTION("VM generation ID");
MODULE_LICENSE("GPL");
