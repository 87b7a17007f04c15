/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * The system generation ID, /dev/sysgenid: a counter that changes whenever
 * this system was cloned or restored from a snapshot.
 *
 * The counter is a __u32 in native byte order. It starts at 0 when the driver
 * is loaded, only increases, and never repeats a value. Its operations:
 *
 *   open()   starts with the current generation acknowledged
 *   read()   blocks until the current generation is not acknowledged, then
 *            returns it, 4 bytes
 *   write()  acknowledges the current generation, given in 4 bytes
 *   poll()   returns POLLIN while the current generation is not acknowledged
 *   mmap()   at offset 0, maps one read-only page. The counter is its first
 *            4 bytes; load it with acquire semantics.
 *   mmap()   at an offset of one page, maps the page of the hardware's
 *            identifier, read-only and MAP_SHARED. The descriptor must be open
 *            for writing. See SYSGENID_GET_HARDWARE.
 *
 * Each descriptor has its own acknowledged generation.
 *
 * SYSGENID_TRIGGER_GEN_UPDATE can raise the counter to SYSGENID_TRIGGER_MAX.
 * The 2^28 values above it are reserved for events that the hardware announces.
 * Each event adds one: at one event a second, they last eight years. After the
 * last value the counter stops, and the kernel logs an emergency message.
 */
#ifndef _UAPI_LINUX_SYSGENID_H
#define _UAPI_LINUX_SYSGENID_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define SYSGENID_IOCTL	0xE4

/*
 * Starts (argument, by value: non-zero) or stops (0) tracking this descriptor:
 * SYSGENID_WAIT_WATCHERS waits for tracked descriptors to acknowledge.
 * EBADF: the descriptor is not open for writing, so it could not acknowledge.
 */
#define SYSGENID_SET_WATCHER_TRACKING	_IO(SYSGENID_IOCTL, 1)

/*
 * Blocks until every tracked watcher has acknowledged the current generation.
 * The argument (by value) is the timeout in milliseconds; 0: forever.
 * ETIME: the timeout expired. EINTR: the generation that this descriptor
 * acknowledged is not, or is no longer, the current one; or a signal arrived.
 */
#define SYSGENID_WAIT_WATCHERS		_IO(SYSGENID_IOCTL, 2)

/*
 * Starts a new generation: the greater of the argument (by value) and the
 * current generation plus one.
 * EACCES: the caller has neither CAP_CHECKPOINT_RESTORE nor CAP_SYS_ADMIN in
 * the initial user namespace. EINVAL: the argument exceeds
 * SYSGENID_TRIGGER_MAX. EOVERFLOW: the counter is at or above that value.
 */
#define SYSGENID_TRIGGER_GEN_UPDATE	_IO(SYSGENID_IOCTL, 3)

/*
 * Checks the hardware, then stores the current generation. The result includes
 * every clone or restore that happened before the call.
 */
#define SYSGENID_GET_GENERATION		_IOR(SYSGENID_IOCTL, 4, __u32)

/**
 * struct sysgenid_hardware - position of the hardware's identifier
 * @offset: offset of the identifier in the page that mmap() maps at an offset
 *	of one page, in bytes
 * @size: size of the identifier, in bytes
 */
struct sysgenid_hardware {
	__u32 offset;
	__u32 size;
};

/*
 * Stores the position of the hardware's identifier. The identifier has no
 * alignment beyond that of @offset.
 * ENODEV: no backend has an identifier in memory, or it crosses a page boundary.
 */
#define SYSGENID_GET_HARDWARE		_IOR(SYSGENID_IOCTL, 5, struct sysgenid_hardware)

/* The highest generation that SYSGENID_TRIGGER_GEN_UPDATE can start. */
#define SYSGENID_TRIGGER_MAX		0xefffffffU

#endif /* _UAPI_LINUX_SYSGENID_H */
