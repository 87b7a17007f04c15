// SPDX-License-Identifier: GPL-2.0
/*
 * Loads the driver on stock kernels, which may have one of their own. If that one
 * is bound to the device, this module registers a second platform device for the
 * same hardware, and binds to it. Any number of handlers can listen.
 */

#include <linux/acpi.h>
#include <linux/err.h>
#include <linux/ioport.h>
#include <linux/module.h>
#include <linux/of.h>
#include <linux/of_platform.h>
#include <linux/platform_device.h>
#include <linux/random.h>

static struct platform_device *observer;

/* Returns the first device that another driver is bound to, with a reference. */
static struct acpi_device *find_taken_acpi(const struct acpi_device_id *id)
{
	struct acpi_device *adev;
	struct device *node;

	for (; id->id[0]; id++) {
		for_each_acpi_dev_match(adev, id->id, NULL, -1) {
			node = acpi_get_first_physical_node(adev);
			if (node && node->driver)
				return adev;
		}
	}
	return NULL;
}

static int observe(const struct platform_device_info *info)
{
	struct platform_device *pdev = platform_device_register_full(info);

	if (IS_ERR(pdev))
		return PTR_ERR(pdev);
	observer = pdev;
	return 0;
}

static int observe_acpi(void)
{
	const struct device_driver *driver = &compat_driver->driver;
	struct acpi_device *adev = find_taken_acpi(driver->acpi_match_table);
	struct platform_device_info info = {
		.name = driver->name,
		.id = PLATFORM_DEVID_NONE,
	};
	int ret;

	if (!adev)
		return 0;
	info.fwnode = acpi_fwnode_handle(adev);
	ret = observe(&info);
	acpi_dev_put(adev);
	return ret;
}

/* Registered without the node: the kernel's own driver would bind to that, too. */
static int observe_of_device(struct platform_device *taken)
{
	struct resource *reg = platform_get_resource(taken, IORESOURCE_MEM, 0);
	int irq = platform_get_irq(taken, 0);
	struct resource res[] = {
		DEFINE_RES_MEM(reg ? reg->start : 0,
			       reg ? resource_size(reg) : 0),
		DEFINE_RES_IRQ(irq),
	};
	const struct platform_device_info info = {
		.name = compat_driver->driver.name,
		.id = PLATFORM_DEVID_NONE,
		.res = res,
		.num_res = ARRAY_SIZE(res),
	};

	if (!reg || irq < 0)
		return -ENODEV;
	res[0].parent = reg;
	return observe(&info);
}

static int observe_of(void)
{
	struct platform_device *pdev;
	struct device_node *node;
	int ret = 0;

	for_each_matching_node(node, compat_driver->driver.of_match_table) {
		pdev = of_find_device_by_node(node);
		if (pdev && pdev->dev.driver &&
		    pdev->dev.driver != &compat_driver->driver && !observer)
			ret = observe_of_device(pdev);
		if (pdev)
			put_device(&pdev->dev);
	}
	return ret;
}

static int is_bound(struct device *dev, void *unused)
{
	return 1;
}

static int __init compat_init(void)
{
	int ret = vmfork_open();

	if (ret) {
		pr_err(KBUILD_MODNAME ": opening the random device failed (%d)\n",
		       ret);
		return ret;
	}
	/* If registering fails, a device may have been bound and unbound meanwhile. */
	ret = platform_driver_register(compat_driver);
	if (ret)
		goto free;

	if (!driver_for_each_device(&compat_driver->driver, NULL, NULL,
				    is_bound)) {
		ret = observe_acpi();
		if (!ret && !observer)
			ret = observe_of();
	}
	if (!ret)
		return 0;

	platform_driver_unregister(compat_driver);
free:
	look_free();
	vmfork_close();
	return ret;
}
module_init(compat_init);

static void __exit compat_exit(void)
{
	platform_device_unregister(observer);
	platform_driver_unregister(compat_driver);
	look_free();
	vmfork_close();
}
module_exit(compat_exit);

MODULE_VERSION(SYSGENID_VERSION);
