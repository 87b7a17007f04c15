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
 * @id: the last identifier of the machine's generation that the backend has
 *	acted on. sysgenid does not interpret it, but keeps it when the backend
 *	leaves and gives it back when one of the same name comes: what changed
 *	in between is not lost.
 * @check: looks at the hardware and, if the generation has changed, calls
 *	sysgenid_bump_generation() before it returns. Called by every system
 *	call of /dev/sysgenid before it answers, so it has to be cheap when
 *	there is nothing new. Process context, may sleep; may be called by
 *	several threads at once.
 */
struct sysgenid_backend {
	const char *name;
	u64 id[2];
	void (*check)(struct sysgenid_backend *backend);
};

int sysgenid_register_backend(struct sysgenid_backend *backend);
void sysgenid_unregister_backend(struct sysgenid_backend *backend);
void sysgenid_bump_generation(void);

int sysgenid_register_notifier(struct notifier_block *nb);
int sysgenid_unregister_notifier(struct notifier_block *nb);

#endif /* _LINUX_SYSGENID_H */
