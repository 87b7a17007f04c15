/* SPDX-License-Identifier: MIT */
/*
 * libsysgenid: detect that the system was cloned, or restored from a snapshot.
 * See libsysgenid(3).
 *
 *	static _Thread_local struct sysgenid_seen seen;
 *	struct sysgenid_seen now;
 *
 *	if (sysgenid_changed(&seen, &now) && reseed() == 0)
 *		sysgenid_remember(&seen, &now);
 */
#ifndef SYSGENID_H
#define SYSGENID_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of this header. sysgenid_version() returns that of the library. */
#define SYSGENID_VERSION_MAJOR	1
#define SYSGENID_VERSION_MINOR	0
#define SYSGENID_VERSION_PATCH	0
#define SYSGENID_VERSION	(SYSGENID_VERSION_MAJOR << 16 | \
				 SYSGENID_VERSION_MINOR << 8 | \
				 SYSGENID_VERSION_PATCH)

/*
 * The library also exports every inline function: for other languages, function
 * pointers, and compilers that do not inline.
 */
#ifndef SYSGENID_INLINE
#define SYSGENID_INLINE	extern __inline __attribute__((__gnu_inline__))
#endif

/**
 * sysgenid_version() - the version of the library that the program runs with
 *
 * Returns: a number to compare with SYSGENID_VERSION.
 */
unsigned int sysgenid_version(void);

/*
 * The in-line check
 */

/**
 * struct sysgenid_seen - the generation that something was last adjusted to
 *
 * Keep one for each thing that must be adjusted after a change, under the lock
 * that protects this thing. All zero bytes are a valid start: the first
 * sysgenid_changed() then reports a change. The struct can be copied and moved.
 *
 * Only this header and the library use the members. Inline code compares the
 * words behind the three pointers with @values_. sysgenid_look_() chooses the
 * words.
 */
struct sysgenid_seen {
	const volatile void *counter_;	/* one word */
	const volatile void *hardware_;	/* two words, of any alignment */
	const volatile void *vmclock_;	/* one word */
	uint64_t values_[4];
	uint64_t reserved_[5];
};

struct sysgenid_word_ {
	uint64_t value;
} __attribute__((__packed__, __may_alias__));

/* sysgenid_changed() calls this if a word differs. Do not call it directly. */
int sysgenid_look_(const struct sysgenid_seen *seen, struct sysgenid_seen *now);

/**
 * sysgenid_is_current() - check that the generation is still the one seen
 * @seen: the generation to compare with
 *
 * Call it just before a result is released. It makes no system call.
 *
 * Returns: 1 if the generation is the same; 0 if it changed, or if @seen is all
 * zero bytes.
 */
SYSGENID_INLINE int sysgenid_is_current(const struct sysgenid_seen *seen)
{
	const volatile struct sysgenid_word_ *hardware;
	int same = 0;

	/* Compiler barriers: the caller's loads and stores stay on their side. */
	__asm__ __volatile__("" : : : "memory");
	if (__builtin_expect(seen->counter_ != 0, 1)) {
		hardware = (const volatile struct sysgenid_word_ *)seen->hardware_;
		same = *(const volatile uint64_t *)seen->counter_ == seen->values_[0] &&
		       hardware[0].value == seen->values_[1] &&
		       hardware[1].value == seen->values_[2] &&
		       *(const volatile uint64_t *)seen->vmclock_ == seen->values_[3];
	}
	__asm__ __volatile__("" : : : "memory");
	return same;
}

/**
 * sysgenid_changed() - check whether the generation differs from the one seen
 * @seen: the generation to compare with; not modified
 * @now: on a change, stores the generation to remember after the adjustment;
 *	or NULL
 *
 * Without a change this costs a few loads. On a change, the library queries the
 * kernel before it returns: the kernel's random number generator has reseeded by
 * then. sysgenid_get_properties() reports the exceptions.
 *
 * Returns: 1 if the generation changed, or if @seen is all zero bytes; 0 otherwise.
 */
SYSGENID_INLINE int sysgenid_changed(const struct sysgenid_seen *seen,
				     struct sysgenid_seen *now)
{
	if (__builtin_expect(sysgenid_is_current(seen), 1))
		return 0;
	return sysgenid_look_(seen, now);
}

/**
 * sysgenid_remember() - store that an adjustment to a generation is complete
 * @seen: where to store the generation
 * @now: the generation that sysgenid_changed() stored before the adjustment
 *
 * Do not call it after an adjustment that failed: the next sysgenid_changed()
 * then reports the change again.
 */
SYSGENID_INLINE void sysgenid_remember(struct sysgenid_seen *seen,
				       const struct sysgenid_seen *now)
{
	*seen = *now;
}

/* The in-line check is never stale, on any CPU. */
#define SYSGENID_NEVER_STALE		1u
/* When sysgenid_changed() reports a change, the kernel has reseeded. */
#define SYSGENID_KERNEL_RESEEDED	2u

/**
 * sysgenid_get_properties() - what the in-line check promises in this process
 *
 * Returns: SYSGENID_NEVER_STALE and SYSGENID_KERNEL_RESEEDED, or'ed.
 */
unsigned int sysgenid_get_properties(void);

/*
 * Sources
 */

/* The source of the numbers that sysgenid_generation() returns. */
enum sysgenid_source {
	SYSGENID_SOURCE_NONE,		/* no source: the generation never changes */
	SYSGENID_SOURCE_DEVICE,		/* /dev/sysgenid */
	SYSGENID_SOURCE_VMCLOCK		/* /dev/vmclock0 */
};

/**
 * sysgenid_open() - find sources that were not found before
 *
 * The library does this before main(). A program calls it to learn the result,
 * or calls it later, if the device may have appeared since. A source that is
 * found later counts as a change.
 *
 * Returns: 0 if there is a source; -1 otherwise, with errno as open() or mmap()
 * of /dev/sysgenid set it. After -1 all functions work, and report no change.
 */
int sysgenid_open(void);

/**
 * sysgenid_get_source() - return the source that was found so far
 *
 * This function neither searches for a source nor logs.
 */
enum sysgenid_source sysgenid_get_source(void);

/**
 * sysgenid_set_log() - set the callback invoked when no source is found
 * @log: receives one sentence, without a newline; NULL: logs nothing
 *
 * The callback runs once in a process: in the first call of sysgenid_open() or
 * sysgenid_watcher_new() that finds no source. The default sends the sentence to
 * the system log, with priority notice.
 */
typedef void sysgenid_log(const char *text);
void sysgenid_set_log(sysgenid_log *log);

/**
 * sysgenid_generation() - return the number of the current generation
 *
 * The number is loaded from the source that sysgenid_get_source() names. Changes
 * that only another source shows do not change it. Compare numbers for equality
 * only: they start at 0 again on reboot, and the hypervisor chooses those of
 * /dev/vmclock0.
 */
uint64_t sysgenid_generation(void);

/**
 * sysgenid_barrier() - check the hardware, then return the generation's number
 * @generation: stores the number
 *
 * This is a system call. The number includes restores that happened before the
 * call.
 *
 * Returns: 0; or -1 with errno set if the program closed the library's descriptor
 * and the device can't be opened again. @generation then stores the result of
 * sysgenid_generation().
 */
int sysgenid_barrier(uint64_t *generation);

/*
 * Watchers, for event loops. Only one thread at a time may use a watcher.
 */
struct sysgenid_watcher;

/* The system waits for this watcher to acknowledge; needs write permission. */
#define SYSGENID_TRACKED	1u

/**
 * sysgenid_watcher_new() - create a watcher that has acknowledged the current generation
 * @flags: 0 or SYSGENID_TRACKED
 *
 * Returns: the watcher; or NULL with errno set: EINVAL for unknown flags, EACCES
 * if SYSGENID_TRACKED is set and the device can't be opened for writing, or the
 * error of a system call. Without a source the watcher never wakes.
 */
struct sysgenid_watcher *sysgenid_watcher_new(unsigned int flags);

/**
 * sysgenid_watcher_free() - free a watcher
 * @watcher: the watcher, or NULL
 *
 * In a forked child, this does not affect the parent's watcher.
 */
void sysgenid_watcher_free(struct sysgenid_watcher *watcher);

/**
 * sysgenid_watcher_fd() - return a descriptor for the caller's own event loop
 * @watcher: the watcher
 *
 * It is readable (POLLIN) when the program should call sysgenid_watcher_wait()
 * with a timeout of 0. Do not read from it or close it. It stays the same until
 * the watcher is freed.
 */
int sysgenid_watcher_fd(const struct sysgenid_watcher *watcher);

/**
 * sysgenid_watcher_wait() - wait for a generation that was not acknowledged
 * @watcher: the watcher
 * @timeout: in milliseconds; -1: forever
 * @generation: stores the number of the generation
 *
 * Returns: 1 on a new generation; 0 on timeout; -1 with errno set: EINTR on a
 * signal, or, in a forked child, the error of a system call.
 */
int sysgenid_watcher_wait(struct sysgenid_watcher *watcher, int timeout,
			  uint64_t *generation);

/**
 * sysgenid_watcher_ack() - acknowledge that the adjustment to a generation is complete
 * @watcher: the watcher
 * @generation: the number that sysgenid_watcher_wait() stored
 *
 * Returns: 0; or -1 with errno set: ESTALE if there is a newer generation: wait
 * and adjust again.
 */
int sysgenid_watcher_ack(struct sysgenid_watcher *watcher,
			 uint64_t generation);

/*
 * Functions for overseers. Both fail with ENODEV without /dev/sysgenid.
 */

/**
 * sysgenid_trigger() - start a new generation
 * @minimum: the new number is the greater of this and the current one plus one
 *
 * Returns: 0; or -1 with errno set: EACCES if the caller has neither
 * CAP_CHECKPOINT_RESTORE nor CAP_SYS_ADMIN in the initial user namespace;
 * EINVAL or EOVERFLOW if the number would exceed SYSGENID_TRIGGER_MAX.
 */
int sysgenid_trigger(uint32_t minimum);

/**
 * sysgenid_wait_watchers() - wait until every tracked watcher has acknowledged
 * @timeout: in milliseconds; -1: forever
 *
 * Returns: 0; or -1 with errno set: ETIME on timeout; ESTALE if a new
 * generation began; EINTR on a signal.
 */
int sysgenid_wait_watchers(int timeout);

#ifdef __cplusplus
}
#endif

#endif /* SYSGENID_H */
