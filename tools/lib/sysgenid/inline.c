// SPDX-License-Identifier: MIT
/*
 * Out-of-line copies of the header's inline functions, and the version.
 */
#define SYSGENID_INLINE
#include "sysgenid.h"

unsigned int sysgenid_version(void)
{
	return SYSGENID_VERSION;
}
