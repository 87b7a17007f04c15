// SPDX-License-Identifier: MIT
/*
 * The out-of-line copies of the functions that the header has inline, and the
 * version.
 */
#define SYSGENID_INLINE
#include "sysgenid.h"

unsigned int sysgenid_version(void)
{
	return SYSGENID_VERSION;
}
