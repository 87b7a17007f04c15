/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The system generation ID, as kernel code sees it: backends, which notice
 * that the system was cloned or restored and move the counter, and users,
 * which want to be told.
 */
#ifndef _LINUX_SYSGENID_H
#define _LINUX_SYSGENID_H

#include <linux/types.h>

struct notifier_block;

/**
 * struct sysgenid_backend - what drives the generation counter
 * @name: the backend's name, shown in sysfs as the counter's source
 * @id: the identifier of the machine's generation that the backend has last
 *	handled. sysgenid does not interpret it, but keeps it when the backend
 *	leaves, and gives it back when one of the same name registers: a change
 *	in between is not lost.
 * @hardware: physical address of the identifier, of the size of @id, in memory
 *	that stays when the backend leaves; 0: there is none. Programs may map
 *	the page that holds it.
 * @check: looks at the hardware and, if it shows an identifier that was not
 *	handled, calls sysgenid_bump_generation() before it returns. Every
 *	system call of /dev/sysgenid calls it before it answers, so it has to be
 *	cheap. Called in process context, possibly by several threads at once,
 *	under RCU: must not sleep.
 */
struct sysgenid_backend {
	const char *name;
	u64 id[2];
	phys_addr_t hardware;
	void (*check)(struct sysgenid_backend *backend);
};

int sysgenid_register_backend(struct sysgenid_backend *backend);
void sysgenid_unregister_backend(struct sysgenid_backend *backend);
void sysgenid_bump_generation(void);

int sysgenid_register_notifier(struct notifier_block *nb);
int sysgenid_unregister_notifier(struct notifier_block *nb);

#endif /* _LINUX_SYSGENID_H */
