/* SPDX-License-Identifier: GPL-2.0 */
/* guard(mutex), which came with Linux 6.5 and 6.1.82, together with its header. */
#ifndef _COMPAT_LINUX_CLEANUP_H
#define _COMPAT_LINUX_CLEANUP_H

#if __has_include_next(<linux/cleanup.h>)
#include_next <linux/cleanup.h>
#else

#include <linux/compiler.h>
#include <linux/mutex.h>

static inline struct mutex *compat_guard_lock(struct mutex *mutex)
{
	mutex_lock(mutex);
	return mutex;
}

static inline void compat_guard_unlock(struct mutex **mutex)
{
	mutex_unlock(*mutex);
}

#define guard(type) compat_guard_##type
#define compat_guard_mutex(lock)					\
	struct mutex *__UNIQUE_ID(guard) __maybe_unused			\
		__attribute__((__cleanup__(compat_guard_unlock))) =	\
			compat_guard_lock(lock)

#endif

#endif /* _COMPAT_LINUX_CLEANUP_H */
