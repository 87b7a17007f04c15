/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The parts of the overseer, sysgenidd(8): its reports, its memory across
 * restarts, and the hooks that it runs.
 */
#ifndef OVERSEER_H
#define OVERSEER_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <syslog.h>

#include <clock.h>

/* What a generation has gone through. */
enum phase {
	PHASE_HOOKS,		/* hooks are to be run, after the last one done */
	PHASE_WATCHERS,		/* watchers are to be waited for */
	PHASE_SETTLED
};

/*
 * What is kept across restarts.
 * @generation: the one that @phase is of
 * @attempts: how often @tried was started without ending
 * @hook: in PHASE_HOOKS, the last hook that was run to its end, or empty
 * @tried: the hook that was started last, or empty
 */
struct state {
	uint64_t generation;
	enum phase phase;
	unsigned int attempts;
	char hook[NAME_MAX + 1];
	char tried[NAME_MAX + 1];
};

/* How hooks are run. */
struct hook_options {
	const char *folder;
	int timeout;		/* seconds for each */
	int signal_fd;		/* readable: the overseer has to end */
};

struct hook_counts {
	unsigned int good;
	unsigned int bad;
};

/*
 * Tells the journal, or stderr where there is none. @event is for programs, as
 * the journal's field SYSGENID_EVENT; @hook may be NULL.
 */
void __attribute__((format(printf, 5, 6)))
report(int priority, const char *event, uint64_t generation, const char *hook,
       const char *format, ...);

/* Is anything to be read, or over, within so many milliseconds (-1: ever)? */
bool wait_readable(int fd, int timeout);

/* Waits until @end for a child's end, which may have come already; reaps it. */
bool wait_child(pid_t pid, int64_t end);

/* Where those that end_children() ends are found. */
#define CHILDREN	"/proc/thread-self/children"

/*
 * What hooks have left behind.
 * @error: why that can't be known, or 0
 * @killed: how many had to be killed
 * @stuck: one that did not end even so, or 0
 */
struct leftovers {
	int error;
	unsigned int killed;
	pid_t stuck;
};

/*
 * Ends all children of the overseer. As it is the subreaper of all that is
 * started by its hooks, that is everything that lost its parent, too.
 * @grace: for how long they may end by themselves, in milliseconds
 * @patience: for how long, then, to wait for the end of those that are killed
 */
struct leftovers end_children(int grace, int patience);

/*
 * Could others than root exchange or change what is there?
 * @kind: S_IFREG for a file to be run, S_IFDIR for a folder
 * @real: is given the path without links, of PATH_MAX bytes, which is safe to
 *	be used later if nothing is wrong
 *
 * Returns what is wrong, in words that last until the next call, or NULL.
 */
const char *why_untrusted(const char *path, mode_t kind, char *real);

/*
 * Finds out what was done before a restart, or else @state is as @fresh. The
 * counter has started anew if the system was booted, or the module loaded since
 * then; what had not settled by then goes on as @fresh's generation.
 */
void load_state(const char *path, const struct state *fresh,
		struct state *state);

/*
 * Writes it down, as far as to the disk.
 * @sync: fdatasync; or syncfs, when it says that a hook is done: what that has
 *	changed, mostly in the same file system, has to be on the disk as well
 */
void save_state(const char *path, const struct state *state, int (*sync)(int));

/*
 * Runs the hooks that come after state->hook, in order, and keeps account in
 * @state. Returns false if it was cut short because the overseer has to end.
 */
bool run_hooks(const struct hook_options *options, const char *state_path,
	       struct state *state, struct hook_counts *counts);

#endif /* OVERSEER_H */
