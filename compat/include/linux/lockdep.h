/* SPDX-License-Identifier: GPL-2.0 */
/*
 * DEFINE_WAIT_OVERRIDE_MAP() and lock_map_acquire_try() came with Linux 6.4 and a
 * late 6.1. Older kernels can't override the wait type that lockdep checks: there,
 * the map is an ordinary lock.
 */
#ifndef _COMPAT_LINUX_LOCKDEP_H
#define _COMPAT_LINUX_LOCKDEP_H

#include_next <linux/lockdep.h>

#ifndef DEFINE_WAIT_OVERRIDE_MAP
#ifdef CONFIG_LOCKDEP
#define DEFINE_WAIT_OVERRIDE_MAP(_name, _wait_type) \
	struct lockdep_map _name = { .name = #_name }
#else
#define DEFINE_WAIT_OVERRIDE_MAP(_name, _wait_type) \
	struct lockdep_map __maybe_unused _name
#endif

#define lock_map_acquire_try(_map) \
	lock_acquire_exclusive(_map, 0, 1, NULL, _THIS_IP_)
#endif

#endif /* _COMPAT_LINUX_LOCKDEP_H */
