/* SPDX-License-Identifier: MIT */
/*
 * Where the generation comes from: what the library's two halves, the mapped
 * word and the watchers, share.
 */
#ifndef SOURCE_H
#define SOURCE_H

#include <stdbool.h>
#include <sys/stat.h>

#include "sysgenid.h"

/*
 * @fd: for sysgenid_barrier(); perhaps closed or reused by the program, so only
 *	to be used if it is still @node
 */
struct source {
	enum sysgenid_source kind;
	const volatile void *word;
	int fd;
	struct stat node;
};

/* The source that was found, or NULL. Never changes once it is there. */
const struct source *source_get(void);

/* The same, but looks for one, if there is none yet. */
const struct source *source_find(void);

/*
 * Another number for a descriptor just made, if it has that of a standard
 * stream, as the program has closed that: what it prints is not for us.
 */
int source_keep_off_streams(int fd);

/* Opens the source's device once more, for a watcher or a command. */
int source_open(const struct source *source, int flags);

/* Its name in the file system, or the one that the environment has for it. */
const char *source_path(enum sysgenid_source kind);

/* Says so, unless it was said before; leaves errno as @error. */
void log_no_source(int error);

/* Is that descriptor the source's device, and does it have the calls of one? */
bool source_is(const struct source *source, int fd);

#endif /* SOURCE_H */
