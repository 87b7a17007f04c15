/* SPDX-License-Identifier: GPL-2.0 */
/*
 * devm_request_irq() for a line that threaded handlers may share. Since Linux 6.9
 * it adapts to their IRQF_ONESHOT by IRQF_COND_ONESHOT.
 */
#ifndef _COMPAT_LINUX_INTERRUPT_H
#define _COMPAT_LINUX_INTERRUPT_H

#include_next <linux/interrupt.h>

#ifndef IRQF_COND_ONESHOT
#define devm_request_irq compat_devm_request_irq
static inline int devm_request_irq(struct device *dev, unsigned int irq,
				   irq_handler_t handler, unsigned long flags,
				   const char *name, void *dev_id)
{
	/* IRQF_PROBE_SHARED: no message if the other handlers' flags differ. */
	int ret = devm_request_threaded_irq(dev, irq, handler, NULL,
					    flags | IRQF_PROBE_SHARED, name,
					    dev_id);

	if (ret != -EBUSY)
		return ret;
	return devm_request_threaded_irq(dev, irq, handler, NULL,
					 flags | IRQF_ONESHOT, name, dev_id);
}
#endif

#endif /* _COMPAT_LINUX_INTERRUPT_H */
