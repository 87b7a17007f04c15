// SPDX-License-Identifier: GPL-2.0
/*
 * Checks the generation ID before every draw of random numbers, at every timer
 * tick, and in the interrupt of a Generic Event Device. A kernel tree calls
 * vmfork_look() in these places; in a stock kernel, ftrace inserts the calls.
 */

#include <linux/acpi.h>
#include <linux/device.h>
#include <linux/ftrace.h>
#include <linux/kstrtox.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/mutex.h>
#include <linux/random.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/string.h>
#include <linux/sysfs.h>

static void (*look_function)(bool announced);

static DEFINE_MUTEX(look_mutex);
static struct device *look_device;	/* under look_mutex; NULL: none is bound */
static bool look_wanted = true;		/* under look_mutex: parameter "looks" */

#ifdef CONFIG_FUNCTION_TRACER
static void notrace look_unannounced(unsigned long ip, unsigned long parent_ip,
				     struct ftrace_ops *ops,
				     struct ftrace_regs *fregs)
{
	READ_ONCE(look_function)(false);
}

static void notrace look_announced(unsigned long ip, unsigned long parent_ip,
				   struct ftrace_ops *ops,
				   struct ftrace_regs *fregs)
{
	READ_ONCE(look_function)(true);
}

/**
 * struct look - calls of look_function() from functions of the kernel
 * @ops: the ftrace side; PERMANENT, so that kernel.ftrace_enabled=0 keeps it on
 * @functions: names of the traced functions, in writable memory as ftrace needs
 * @registered: ftrace makes the calls
 */
struct look {
	struct ftrace_ops ops;
	char functions[2][32];
	bool registered;
};

/*
 * All draws call crng_make_state(), except those that a batch serves. Ticks limit
 * how long a batch of the time before the event is used.
 */
static struct look look_draws = {
	.ops = { .func = look_unannounced, .flags = FTRACE_OPS_FL_PERMANENT },
	.functions = { "crng_make_state", "update_process_times" },
};

/*
 * The interrupt of a Generic Event Device is often exclusive, and its handler
 * threaded. This function is the hard interrupt handler of all such devices.
 */
static struct look look_events = {
	.ops = { .func = look_announced, .flags = FTRACE_OPS_FL_PERMANENT },
	.functions = { "irq_default_primary_handler" },
};

static int look_set_filter(struct look *look)
{
	char *name;
	int i, ret = 0;

	for (i = 0; !ret && i < ARRAY_SIZE(look->functions); i++) {
		name = look->functions[i];
		if (*name)
			ret = ftrace_set_filter(&look->ops, name, strlen(name),
						i == 0);
	}
	return ret;
}

static int look_register(struct look *look)
{
	int ret;

	lockdep_assert_held(&look_mutex);

	/* On PREEMPT_RT, vmgenid's locks may sleep, but the traced functions may not. */
	if (IS_ENABLED(CONFIG_PREEMPT_RT))
		return -EOPNOTSUPP;

	ret = look_set_filter(look);
	if (!ret)
		ret = register_ftrace_function(&look->ops);
	look->registered = !ret;
	return ret;
}

static void look_at_nothing(bool announced)
{
}

/*
 * Under look_mutex: ftrace has shut itself down after a bug of its own. It leaves its
 * calls in place, so the module has to stay loaded.
 */
static bool look_stuck;

/* On return, no call of the driver is running. */
static void look_unregister(struct look *look)
{
	lockdep_assert_held(&look_mutex);

	if (look->registered && unregister_ftrace_function(&look->ops)) {
		look_stuck = true;
		__module_get(THIS_MODULE);
	}
	look->registered = false;
	if (look_stuck) {
		WRITE_ONCE(look_function, look_at_nothing);
		synchronize_rcu_tasks();
	}
}

/* Called once, at unload: ftrace keeps pointers to what this frees. */
void look_free(void)
{
	/* An unload that began before __module_get() would free the code: never end. */
	while (look_stuck)
		schedule_timeout_idle(MAX_SCHEDULE_TIMEOUT);
	ftrace_free_filter(&look_draws.ops);
	ftrace_free_filter(&look_events.ops);
}
#else /* CONFIG_FUNCTION_TRACER */
struct look {
	bool registered;
};

static struct look look_draws, look_events;

static int look_register(struct look *look)
{
	return -ENODEV;
}

static void look_unregister(struct look *look)
{
}

void look_free(void)
{
}
#endif /* CONFIG_FUNCTION_TRACER */

static const char *look_why_not(int error)
{
	switch (error) {
	case -EOPNOTSUPP:
		return "not supported with PREEMPT_RT";
	case -ENODEV:
		return "this kernel has no function tracer";
	case -EBUSY:
		return "kernel.ftrace_enabled is 0";
	default:
		return "ftrace can't trace the functions";
	}
}

static void look_stop(void *unused)
{
	mutex_lock(&look_mutex);
	look_unregister(&look_draws);
	look_unregister(&look_events);
	look_device = NULL;
	mutex_unlock(&look_mutex);
}

static bool look_has_event_device(struct device *dev)
{
	return has_acpi_companion(dev) &&
	       acpi_gbl_FADT.flags & ACPI_FADT_HW_REDUCED;
}

int devm_vmfork_look(struct device *dev, void (*look)(bool announced))
{
	int draws = 0, events = 0, ret;

	mutex_lock(&look_mutex);
	look_device = dev;
	WRITE_ONCE(look_function, look);
	if (look_wanted)
		draws = look_register(&look_draws);
	if (look_has_event_device(dev))
		events = look_register(&look_events);
	mutex_unlock(&look_mutex);

	ret = devm_add_action_or_reset(dev, look_stop, NULL);
	if (ret)
		return ret;
	if (draws == -ENOMEM || events == -ENOMEM)
		return -ENOMEM;
	if (draws)
		dev_warn(dev, "no check before random draws, so clones may draw the same numbers until the interrupt: %s (%d)\n",
			 look_why_not(draws), draws);
	if (events)
		dev_warn(dev, "no check in the event device's interrupt, so new generations are some milliseconds late: %s (%d)\n",
			 look_why_not(events), events);
	return 0;
}

static int look_set(const char *value, const struct kernel_param *param)
{
	int ret;

	mutex_lock(&look_mutex);
	ret = kstrtobool(value, &look_wanted);
	if (!ret && !look_wanted)
		look_unregister(&look_draws);
	else if (!ret && look_device && !look_draws.registered)
		ret = look_register(&look_draws);
	mutex_unlock(&look_mutex);
	return ret;
}

static int look_get(char *buffer, const struct kernel_param *param)
{
	const char *state;

	mutex_lock(&look_mutex);
	if (look_draws.registered)
		state = "on";
	else
		state = look_wanted ? "unavailable" : "off";
	mutex_unlock(&look_mutex);
	return sysfs_emit(buffer, "%s\n", state);
}

static const struct kernel_param_ops look_param_ops = {
	.set = look_set,
	.get = look_get,
};
module_param_cb(looks, &look_param_ops, NULL, 0644);
MODULE_PARM_DESC(looks, "Check the generation ID before every random draw and at every timer tick (on, off)");
