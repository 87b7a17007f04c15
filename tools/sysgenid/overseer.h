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
#include <syslog.h>

/* What a generation has gone through. */
enum phase {
	PHASE_HOOKS,		/* hooks are to be run, after the last one done */
	PHASE_WATCHERS,		/* watchers are to be waited for */
	PHASE_SETTLED
};

/*
 * What is kept across restarts.
 * @generation: the one that @phase is of
 * @hook: in PHASE_HOOKS, the last hook that was run to its end, or empty
 */
struct state {
	uint64_t generation;
	enum phase phase;
	char hook[NAME_MAX + 1];
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

/*
 * Finds out what was done before a restart. Whatever was kept of another boot,
 * or of the module when it was loaded before, whose counter has started anew,
 * does not count; then @state is as @fresh.
 */
void load_state(const char *path, const struct state *fresh,
		struct state *state);
void save_state(const char *path, const struct state *state);

/*
 * Runs the hooks that come after state->hook, in order, and keeps account in
 * @state. Returns false if it was cut short because the overseer has to end.
 */
bool run_hooks(const struct hook_options *options, const char *state_path,
	       struct state *state, struct hook_counts *counts);

#endif /* OVERSEER_H */
