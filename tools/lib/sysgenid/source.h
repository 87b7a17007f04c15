/* SPDX-License-Identifier: MIT */
/*
 * Declarations that the library's files share. Everything here is hidden, and has
 * a prefix because a static program has it among its own names.
 */
#ifndef SOURCE_H
#define SOURCE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "sysgenid.h"

/**
 * struct source - a mapped source; never modified or freed once published
 * @path: its name in the file system, or the one from the environment
 * @fd: descriptor for reading. The program may have closed or reused it: use it
 *	only while sysgenid_is_source_() says so.
 * @node: the file that was mapped
 * @page: the mapped page
 */
struct source {
	const char *path;
	int fd;
	struct stat node;
	const volatile void *page;
};

#pragma GCC visibility push(hidden)

/* Return the source /dev/sysgenid or /dev/vmclock0, or NULL if not found so far. */
const struct source *sysgenid_device_(void);
const struct source *sysgenid_vmclock_(void);

/* Searches for both; returns whether there is one, with the device's errno. */
bool sysgenid_find_(void);

/* Return the device's counter, and vmclock's in the host's byte order; or 0. */
uint64_t sysgenid_load_counter_(void);
uint64_t sysgenid_load_vmclock_(void);

/* Returns whether @fd refers to the source, and the source is a device. */
bool sysgenid_is_source_(const struct source *source, int fd);

/* Opens the source again. */
int sysgenid_reopen_(const struct source *source, int flags);

/* Duplicates the source's descriptor, or opens the source for reading. */
int sysgenid_dup_source_(const struct source *source);

/*
 * Moves a descriptor just opened above the standard streams. If the program has
 * closed these, its output must not go to the library's descriptor.
 */
int sysgenid_above_stdio_(int fd);

/* Returns a number that differs between a process and its children; 0: errno is set. */
uint64_t sysgenid_process_(void);

/* Logs, once, that there is no source; sets errno to @error. */
void sysgenid_log_no_source_(const char *path, int error);

#pragma GCC visibility pop

#endif /* SOURCE_H */
