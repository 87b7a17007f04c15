/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The system generation ID inside the kernel. Backends detect that the system
 * was cloned or restored, and move the counter. Notifiers are called for each
 * new generation.
 */
#ifndef _LINUX_SYSGENID_H
#define _LINUX_SYSGENID_H

#include <linux/types.h>

struct notifier_block;

/**
 * struct sysgenid_backend - what drives the generation counter
 * @name: the backend's name, shown in sysfs as the counter's source
 * @id: the identifier that the backend handled last. sysgenid does not interpret
 *	it. It keeps the @id of an unregistered backend. When a backend of the
 *	same name registers, it restores the @id: no change in between is lost.
 * @hardware: physical address of the identifier, or 0. The identifier has the
 *	size of @id, and its memory outlives the backend. Programs may map the
 *	page that holds it.
 * @check: reads the hardware. If the identifier differs from @id, it calls
 *	sysgenid_bump_generation() before it returns. System calls of
 *	/dev/sysgenid call @check before they answer: it must be cheap. Called in
 *	process context under rcu_read_lock(), possibly by several threads at
 *	once: must not sleep.
 */
struct sysgenid_backend {
	const char *name;
	u64 id[2];
	phys_addr_t hardware;
	void (*check)(struct sysgenid_backend *backend);
};

#if IS_ENABLED(CONFIG_SYSGENID)
int sysgenid_register_backend(struct sysgenid_backend *backend);
void sysgenid_unregister_backend(struct sysgenid_backend *backend);
void sysgenid_bump_generation(void);

int sysgenid_register_notifier(struct notifier_block *nb);
int sysgenid_unregister_notifier(struct notifier_block *nb);
#else
/* Without SYSGENID, a backend only reseeds the random number generator. */
static inline int sysgenid_register_backend(struct sysgenid_backend *backend) { return 0; }
static inline void sysgenid_unregister_backend(struct sysgenid_backend *backend) { }
static inline void sysgenid_bump_generation(void) { }

static inline int sysgenid_register_notifier(struct notifier_block *nb) { return 0; }
static inline int sysgenid_unregister_notifier(struct notifier_block *nb) { return 0; }
#endif

#endif /* _LINUX_SYSGENID_H */
