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
 * @changed: looks at the hardware: does it show a generation that @check has
 *	not acted on? Every system call of /dev/sysgenid asks before it answers,
 *	so it has to be cheap. Must not sleep.
 * @check: looks as well and, if there is a new generation, calls
 *	sysgenid_bump_generation() before it returns. Called when @changed says
 *	so, possibly by several threads at once. Process context, may sleep.
 */
struct sysgenid_backend {
	const char *name;
	u64 id[2];
	bool (*changed)(struct sysgenid_backend *backend);
	void (*check)(struct sysgenid_backend *backend);
};

int sysgenid_register_backend(struct sysgenid_backend *backend);
void sysgenid_unregister_backend(struct sysgenid_backend *backend);
void sysgenid_bump_generation(void);

int sysgenid_register_notifier(struct notifier_block *nb);
int sysgenid_unregister_notifier(struct notifier_block *nb);

#endif /* _LINUX_SYSGENID_H */
