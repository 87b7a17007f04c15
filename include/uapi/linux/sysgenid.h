/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * The system generation ID, /dev/sysgenid: a counter that changes whenever
 * this system was cloned or restored from a snapshot.
 *
 * The counter is a __u32 in native byte order. It starts at 0 when the driver
 * is loaded, only ever grows, and takes every value between two generations
 * at most once. What to do with it:
 *
 *   mmap()   one read-only page at offset 0; the counter is its first 4 bytes,
 *            to be loaded with acquire semantics
 *   mmap()   one read-only MAP_SHARED page at an offset of one page, for a
 *            descriptor open for writing: the hardware's identifier, see
 *            SYSGENID_GET_HARDWARE
 *   read()   blocks until there is a generation this descriptor has not
 *            acknowledged, then returns it, 4 bytes
 *   write()  4 bytes, the current generation: acknowledges it
 *   poll()   POLLIN while a generation is not acknowledged
 *
 * A descriptor starts out with the generation of the moment of its open() as
 * the acknowledged one.
 *
 * The end of the range: SYSGENID_TRIGGER_GEN_UPDATE can take the counter to
 * SYSGENID_TRIGGER_MAX and no further. What is above is kept for generations
 * that the hardware announces, which always count one up: 2^28 of them, one
 * a second for eight years. Should even those be used up, the counter stays
 * at its last value, and the kernel says so, rather than go backwards.
 */
#ifndef _UAPI_LINUX_SYSGENID_H
#define _UAPI_LINUX_SYSGENID_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define SYSGENID_IOCTL	0xE4

/*
 * Counts this descriptor as a watcher that the system waits for (argument,
 * by value: non-zero), or no longer (0). The descriptor must be open for
 * writing, as it could not acknowledge otherwise: EBADF.
 */
#define SYSGENID_SET_WATCHER_TRACKING	_IO(SYSGENID_IOCTL, 1)

/*
 * Waits until no tracked watcher has yet to acknowledge the current
 * generation, for as many milliseconds as the argument says (by value; 0: for
 * ever). ETIME: the time is over. EINTR: the generation that this descriptor
 * has acknowledged is not, or is no longer, the current one.
 */
#define SYSGENID_WAIT_WATCHERS		_IO(SYSGENID_IOCTL, 2)

/*
 * Starts a new generation: the argument (by value), or the current generation
 * plus one, whichever is more. EACCES: the caller has neither
 * CAP_CHECKPOINT_RESTORE nor CAP_SYS_ADMIN in the initial user namespace.
 * EINVAL: the argument is over SYSGENID_TRIGGER_MAX. EOVERFLOW: the counter is
 * there already.
 */
#define SYSGENID_TRIGGER_GEN_UPDATE	_IO(SYSGENID_IOCTL, 3)

/*
 * Stores the current generation, after a look at the hardware: when this
 * returns, a clone or restore that happened before the call is in it.
 */
#define SYSGENID_GET_GENERATION		_IOR(SYSGENID_IOCTL, 4, __u32)

/**
 * struct sysgenid_hardware - the hardware's identifier in the page behind the counter's
 * @offset: offset of the identifier from the start of that page, in bytes
 * @size: size of the identifier, in bytes
 */
struct sysgenid_hardware {
	__u32 offset;
	__u32 size;
};

/*
 * Says where the hardware's identifier is in the page that mmap() maps at an
 * offset of one page. The identifier is not aligned more strictly than @offset
 * is. ENODEV: no backend has such a page, or the identifier crosses its end.
 */
#define SYSGENID_GET_HARDWARE		_IOR(SYSGENID_IOCTL, 5, struct sysgenid_hardware)

/* The greatest generation that SYSGENID_TRIGGER_GEN_UPDATE can start. */
#define SYSGENID_TRIGGER_MAX		0xefffffffU

#endif /* _UAPI_LINUX_SYSGENID_H */
