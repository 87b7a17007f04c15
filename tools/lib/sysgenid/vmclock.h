/* SPDX-License-Identifier: MIT */
/*
 * The fields of the VMClock page that show a restored snapshot.
 *
 * https://uapi-group.org/specifications/specs/vmclock/ and the kernel's
 * include/uapi/linux/vmclock-abi.h specify the layout. The page came with Linux
 * 6.13, the generation counter and the notification with 7.0. All fields are
 * little-endian.
 */
#ifndef VMCLOCK_H
#define VMCLOCK_H

#include <stddef.h>
#include <stdint.h>

#define VMCLOCK_PAGE_MAGIC	0x4b4c4356	/* "VCLK" */
#define VMCLOCK_PAGE_VERSION	1

#define VMCLOCK_HAS_GENERATION	(UINT64_C(1) << 8)
#define VMCLOCK_HAS_NOTIFY	(UINT64_C(1) << 9)

struct vmclock_page {
	uint32_t magic;
	uint32_t size;
	uint16_t version;
	uint8_t other_constants[2];
	uint32_t sequence;		/* odd: the fields below are being changed */
	uint64_t disruption;
	uint64_t flags;
	uint8_t clock[72];		/* the time; not used here */
	uint64_t generation;		/* any value, never repeated */
};

_Static_assert(offsetof(struct vmclock_page, flags) == 24, "layout");
_Static_assert(offsetof(struct vmclock_page, generation) == 104, "layout");

#endif /* VMCLOCK_H */
