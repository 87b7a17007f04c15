/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Functions of the random number generator that the driver needs, and that no
 * stock kernel offers to modules; see compat/random.c and compat/look.c.
 */
#ifndef _COMPAT_LINUX_RANDOM_H
#define _COMPAT_LINUX_RANDOM_H

#include_next <linux/random.h>

struct device;

/**
 * devm_vmfork_look() - look before every draw of random numbers
 * @dev: the device that announces that this machine was cloned
 * @look: called before every draw of random numbers and at every timer tick,
 *	with false; where a Generic Event Device stands in for the SCI, also
 *	from its hard interrupt, with true. Any context, interrupts included. No
 *	call is under way any more once @dev is unbound.
 *
 * Where the looks are not available, a message says why, and they are left out.
 *
 * Context: Process context. May sleep.
 * Return: 0, or -ENOMEM.
 */
int devm_vmfork_look(struct device *dev, void (*look)(bool announced));

/**
 * vmfork_reseed() - have the random number generator reseed with an identifier
 * @id: what is unique about this machine; not credited as entropy
 * @len: the length of @id in bytes
 *
 * A generator that was never seeded only takes @id in, for its first seeding.
 *
 * Context: Any in which a spinlock_t can be taken.
 * Return: 0, or the error of RNDRESEEDCRNG.
 */
int vmfork_reseed(const void *id, size_t len);

/**
 * vmfork_notify() - call the vmfork notifiers, soon
 *
 * They may block, so that a work item calls them. A module reaches them only
 * where the kernel's own driver is a module too; where that driver is built in,
 * it calls them itself.
 *
 * Context: Any.
 */
#if IS_MODULE(CONFIG_VMGENID)
void vmfork_notify(void);
#else
static inline void vmfork_notify(void) { }
#endif

/* For compat/module.c: opens and closes what vmfork_reseed() needs. */
int vmfork_open(void);
void vmfork_close(void);
/* Frees what the looks have left, when no device is bound any more. */
void look_free(void);

#endif /* _COMPAT_LINUX_RANDOM_H */
