/* SPDX-License-Identifier: MIT */
/*
 * libsysgenid: tells a program that the system it runs on was cloned, or
 * restored from a snapshot, so that what it keeps in memory and has to be
 * unique in the world no longer is. See libsysgenid(3).
 *
 *	static uint64_t seen;
 *
 *	if (sysgenid_changed(&seen))
 *		reseed();
 */
#ifndef SYSGENID_H
#define SYSGENID_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Where the generation comes from. */
enum sysgenid_source {
	SYSGENID_SOURCE_NONE,		/* nowhere: it never changes */
	SYSGENID_SOURCE_DEVICE,		/* /dev/sysgenid */
	SYSGENID_SOURCE_VMCLOCK		/* /dev/vmclock0 */
};

/* Use sysgenid_generation() instead. */
extern const volatile void *sysgenid_word_;

/*
 * sysgenid_open() - find out where the generation comes from
 *
 * Linking with the library is enough, as it does this before main(). A program
 * calls it to learn how that went, to try again later, or from a constructor
 * of its own that may run earlier. From then on nothing is looked up in the
 * file system to read the generation.
 *
 * Returns 0, or -1 with errno set as open() or mmap() of the device left it.
 * After -1 all calls work, and say that the generation has not changed.
 */
int sysgenid_open(void);

/* What was found so far; a library that only wants to know asks this. */
enum sysgenid_source sysgenid_get_source(void);

/*
 * sysgenid_set_log() - who is told that nothing tells of clones here
 * @log: gets one sentence, without a newline, from the thread that found out;
 *	NULL: nobody is told
 *
 * It is said once in a process, by the first sysgenid_open() or
 * sysgenid_watcher_new() of the program that finds no device, and never before
 * main(). Without this call, the system's log is told (priority notice).
 */
typedef void sysgenid_log(const char *text);
void sysgenid_set_log(sysgenid_log *log);

/*
 * sysgenid_generation() - the generation, by one load from a mapped page
 *
 * Numbers are to be compared for equality only: a reboot starts anew at 0, and
 * with SYSGENID_SOURCE_VMCLOCK they are the hypervisor's, of any value.
 */
static inline uint64_t sysgenid_generation(void)
{
	const volatile void *word = __atomic_load_n(&sysgenid_word_,
						    __ATOMIC_ACQUIRE);
	uint64_t now;

#if __SIZEOF_POINTER__ == 8
	now = __atomic_load_n((const volatile uint64_t *)word,
			      __ATOMIC_ACQUIRE);
#else
	/* Two halves of two generations are another number still. */
	now = ((const volatile uint32_t *)word)[1];
	now = now << 32 | ((const volatile uint32_t *)word)[0];
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
#endif
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ && __SIZEOF_POINTER__ == 8
	/* The device's counter is the first half of the word. */
	now = now << 32 | now >> 32;
#endif
	return now;
}

/*
 * sysgenid_changed() - is the generation another than the one last seen here?
 * @seen: the caller's own; one for each thing that has to be made anew, and
 *	for each thread, or protected by whatever protects that thing
 *
 * Returns true once for every change (and possibly for the first call), and
 * remembers the new generation.
 */
static inline bool sysgenid_changed(uint64_t *seen)
{
	uint64_t now = sysgenid_generation();

	if (__builtin_expect(now == *seen, 1))
		return false;
	*seen = now;
	return true;
}

/*
 * sysgenid_barrier() - the generation, after a look at the hardware
 *
 * A load may come some milliseconds before the kernel has handled the
 * interrupt that tells of a restore, if that is for another CPU. This, which
 * is a system call, never is too early: restores that happened before the call
 * are in what it stores. With SYSGENID_SOURCE_VMCLOCK, the load does that.
 *
 * Returns 0, or -1 with errno set, if the descriptor that the library had
 * opened was closed by the program, and no other can be had. The loaded
 * generation is stored then.
 */
int sysgenid_barrier(uint64_t *generation);

/*
 * Watchers, for programs that want to be woken. A watcher is used by one thread
 * at a time; any number of threads and libraries can have some. In the child
 * of a fork(), the first call for a watcher gives the child one of its own.
 */
struct sysgenid_watcher;

/* The system waits for this watcher to acknowledge; needs write permission. */
#define SYSGENID_TRACKED	1u

/*
 * sysgenid_watcher_new() - start to watch, from the current generation on
 *
 * Returns NULL with errno set, if SYSGENID_TRACKED was asked for and the device
 * can't be opened for writing (EACCES), or resources are short. Where there is
 * no device, the watcher is as any, and never wakes.
 */
struct sysgenid_watcher *sysgenid_watcher_new(unsigned int flags);

/* A child frees those of its parent that it has no use for, or executes. */
void sysgenid_watcher_free(struct sysgenid_watcher *watcher);

/*
 * sysgenid_watcher_fd() - a descriptor for one's own event loop
 *
 * Readable (POLLIN) when sysgenid_watcher_wait() with a timeout of 0 should be
 * called; not to be read. It stays the same until the watcher is freed.
 */
int sysgenid_watcher_fd(const struct sysgenid_watcher *watcher);

/*
 * sysgenid_watcher_wait() - wait for a generation not acknowledged yet
 * @timeout: in milliseconds; -1: for ever
 *
 * Returns 1 and stores the generation; 0: the time is over; -1 with errno set:
 * EINTR, a signal; ENODEV and others, if a forked child can't open the device.
 */
int sysgenid_watcher_wait(struct sysgenid_watcher *watcher, int timeout,
			  uint64_t *generation);

/*
 * sysgenid_watcher_ack() - say that all has been adjusted to that generation
 *
 * Returns 0, or -1 with errno set: ESTALE, there is a newer generation, so
 * wait and adjust again.
 */
int sysgenid_watcher_ack(struct sysgenid_watcher *watcher,
			 uint64_t generation);

/*
 * For overseers. All of these fail with ENODEV without /dev/sysgenid.
 */

/*
 * sysgenid_trigger() - start a new generation
 * @minimum: or the current one plus one, whichever is more
 *
 * Returns 0, or -1 with errno set: EACCES, the caller has neither
 * CAP_CHECKPOINT_RESTORE nor CAP_SYS_ADMIN; EINVAL, EOVERFLOW: too much.
 */
int sysgenid_trigger(uint32_t minimum);

/*
 * sysgenid_wait_watchers() - wait until all tracked watchers have acknowledged
 * @timeout: in milliseconds; -1: for ever
 *
 * Returns 0, or -1 with errno set: ETIME, the time is over; ESTALE, there is a
 * new generation; EINTR, a signal came.
 */
int sysgenid_wait_watchers(int timeout);

#ifdef __cplusplus
}
#endif

#endif /* SYSGENID_H */
