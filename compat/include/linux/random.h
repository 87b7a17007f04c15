/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Functions of the random number generator that no stock kernel offers to modules.
 * compat/random.c and compat/look.c provide them.
 */
#ifndef _COMPAT_LINUX_RANDOM_H
#define _COMPAT_LINUX_RANDOM_H

#include_next <linux/random.h>

struct device;

/**
 * devm_vmfork_look() - check the generation ID before every random draw
 * @dev: the device that announces that this machine was cloned
 * @look: callback; any context, hard interrupts included. Called with false before
 *	every draw of random numbers and at every timer tick. With
 *	hardware-reduced ACPI, also called with true from the Generic Event
 *	Device's hard interrupt. Once @dev is unbound, no call is running.
 *
 * If the kernel can't make these calls, it logs the reason, and succeeds without.
 *
 * Context: Process context. May sleep.
 * Return: 0, or -ENOMEM.
 */
int devm_vmfork_look(struct device *dev, void (*look)(bool announced));

/**
 * vmfork_reseed() - reseed the random number generator with an identifier
 * @id: what is unique about this machine; not credited as entropy
 * @len: the length of @id in bytes
 *
 * A generator that was never seeded mixes @id in, for its first seeding.
 *
 * Context: Any in which a spinlock_t can be taken.
 * Return: 0, or the error of RNDRESEEDCRNG.
 */
int vmfork_reseed(const void *id, size_t len);

/**
 * vmfork_notify() - schedule the vmfork notifiers
 *
 * A work item calls them, because they may block. A module reaches them only
 * where the kernel's own driver is a module, too. If that driver is built in,
 * it calls them itself.
 *
 * Context: Any.
 */
void vmfork_notify(void);

/* compat/module.c calls these: they open and close what vmfork_reseed() needs. */
int vmfork_open(void);
void vmfork_close(void);
/* Frees the looks' ftrace filters. No device may be bound. */
void look_free(void);

#endif /* _COMPAT_LINUX_RANDOM_H */
