/* SPDX-License-Identifier: GPL-2.0 */
/*
 * add_vmfork_randomness() for modules, on kernels that don't export it. Those
 * are all whose own generation ID driver is built in or left out.
 */
#ifndef _COMPAT_LINUX_RANDOM_H
#define _COMPAT_LINUX_RANDOM_H

#include_next <linux/random.h>

#if defined(MODULE) && !IS_MODULE(CONFIG_VMGENID)
#define COMPAT_VMFORK_RANDOMNESS
#define add_vmfork_randomness compat_add_vmfork_randomness
void compat_add_vmfork_randomness(const void *id, size_t len);
#endif

#endif /* _COMPAT_LINUX_RANDOM_H */
