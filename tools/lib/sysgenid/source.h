/* SPDX-License-Identifier: MIT */
/*
 * The sources of the generation, as the library's files share them. Everything
 * here has a prefix and is hidden: a static program has it in its own names.
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
 * @fd: open for reading; the program may have closed or reused it, so to be
 *	used only while it is still @node
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

/* The source /dev/sysgenid or /dev/vmclock0; NULL: not found so far. */
const struct source *sysgenid_device_(void);
const struct source *sysgenid_vmclock_(void);

/* Looks for both, and returns whether there is one; errno is the device's. */
bool sysgenid_find_(void);

/* The words: the device's counter, and vmclock's in the host's byte order. */
uint64_t sysgenid_load_counter_(void);
uint64_t sysgenid_load_vmclock_(void);

/* Is that descriptor the source, and does it have a device's calls? */
bool sysgenid_is_source_(const struct source *source, int fd);

/* Opens the source again. */
int sysgenid_reopen_(const struct source *source, int flags);

/* A duplicate of the source's descriptor, or the source opened for reading. */
int sysgenid_dup_source_(const struct source *source);

/*
 * Moves a descriptor just opened above the standard streams, which the program
 * may have closed: its output is not for us.
 */
int sysgenid_above_stdio_(int fd);

/* A number that differs between a process and its children; 0: errno is set. */
uint64_t sysgenid_process_(void);

/* Logs, once, that there is no source; errno stays @error. */
void sysgenid_log_no_source_(const char *path, int error);

#pragma GCC visibility pop

#endif /* SOURCE_H */
