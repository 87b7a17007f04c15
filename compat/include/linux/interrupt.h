/* SPDX-License-Identifier: GPL-2.0 */
/*
 * devm_request_irq() for a line whose other handlers may run in threads: since
 * Linux 6.9 it adapts to their IRQF_ONESHOT by itself.
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
	/* Without a message, if the flags don't match the other handlers'. */
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
