/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The parts of the overseer, sysgenidd(8): what it waits for, its reports, its
 * memory across restarts, its use of systemd, and the hooks that it runs.
 */
#ifndef OVERSEER_H
#define OVERSEER_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <syslog.h>

/* The stages of a generation. */
enum phase {
	PHASE_HOOKS,		/* hooks are to be run, after the last one done */
	PHASE_UNITS,		/* units are to be restarted */
	PHASE_WATCHERS,		/* watchers are to be waited for */
	PHASE_SETTLED
};

/* A key and a digest, in hexadecimal. */
#define IDENTITY_SIZE	(2 * (16 + 32) + 1)

/**
 * struct state - what is kept across restarts
 * @generation: the generation that @phase describes
 * @previous: the generation that settled before it
 * @phase: how far @generation has come
 * @attempts: how often @tried was started
 * @done: hooks that succeeded
 * @failed: hooks that failed
 * @faults: other failures: units, and a state that could not be saved
 * @identity: of the hardware that it last settled with, or empty
 * @hook: in PHASE_HOOKS, the last hook that was dealt with, or empty
 * @tried: the hook that was started last, or empty
 */
struct state {
	uint64_t generation;
	uint64_t previous;
	enum phase phase;
	unsigned int attempts;
	unsigned int done;
	unsigned int failed;
	unsigned int faults;
	char identity[IDENTITY_SIZE];
	char hook[NAME_MAX + 1];
	char tried[NAME_MAX + 1];
};

/*
 * report.c
 */

/*
 * Writes to the journal, or to stderr where that is no journal. @event is for
 * programs, as the journal's field SYSGENID_EVENT; @hook may be NULL.
 */
void __attribute__((format(printf, 5, 6)))
report(int priority, const char *event, uint64_t generation, const char *hook,
       const char *format, ...);

/*
 * events.c: one place where the overseer waits
 */

/* CLOCK_MONOTONIC, in milliseconds. */
int64_t now_ms(void);

/**
 * events_open() - start to watch the generation, and for signals to end
 *
 * Returns 0, or -1 with errno set.
 */
int events_open(void);

/**
 * wait_event() - wait until something happens, and handle it
 * @end: when to give up, by now_ms(); INT64_MAX: never
 * @fd: a descriptor of the caller, which handles it if it is readable; or -1
 *
 * Handled are messages of systemd and of the host, and new generations.
 * Returns true if @fd is readable or has hung up.
 */
bool wait_event(int64_t end, int fd);

/* Has a signal asked the overseer to end? */
bool has_to_end(void);

/* The current generation, after a look at the hardware. */
uint64_t current_generation(void);

/* Forgets such a signal, so that what was begun can be undone. */
void forget_signals(void);

/* Does another generation than @generation need the overseer, or its end? */
bool is_interrupted(uint64_t generation);

void events_close(void);

/*
 * tracked.c: the descriptor by which the system waits for the overseer
 */

/* Opens it, or takes it back from systemd. Returns 0, or -1 with errno set. */
int tracked_open(void);

/* How many other tracked watchers have not acknowledged yet? */
unsigned long tracked_others(void);

/* Acknowledges; false: there is a newer generation. */
bool tracked_acknowledge(uint64_t generation);

/* The descriptor; -1: the generation is VMClock's. */
int tracked_fd(void);

/*
 * identity.c: does the system run where it last settled?
 */

enum identity {
	IDENTITY_UNKNOWN,	/* nothing is remembered, or there is no hardware */
	IDENTITY_SAME,
	IDENTITY_OTHER
};

/* Remembers the hardware's identifier; false: there is none to be seen. */
bool identity_make(int fd, char *identity);

enum identity identity_compare(int fd, const char *identity);

/*
 * Has the hardware another identifier than when the last generation settled? If
 * the generation is still the same after that, the driver has failed. The caller
 * has to be root; for others nothing is known.
 */
bool identity_has_changed(void);

/*
 * systemd.c: jobs of the service manager
 */

struct job;

/**
 * struct jobs - jobs to be waited for together
 * @list: jobs; ended ones too
 * @running: how many of them have not ended
 */
struct jobs {
	struct job *list;
	unsigned int running;
};

struct job {
	struct job *next;
	char *path;
	char *unit;
	char result[16];	/* systemd's word for it; empty: running */
};

/* Connects; returns 0 or a negative errno. */
int systemd_open(void);
int systemd_fd(void);
/* Handles messages that have arrived; connects again where systemd has left. */
void systemd_process(void);
void systemd_close(void);

/**
 * systemd_enqueue() - enqueue a job, and wait for it with others
 * @jobs: receives the job and all that systemd adds to it for dependencies
 * @unit: the unit's name
 * @type: as systemctl(1) calls it: start, stop, restart
 *
 * Returns NULL, or why it can't be enqueued; valid until the next call.
 */
const char *systemd_enqueue(struct jobs *jobs, const char *unit,
			    const char *type);

/* The same for a hook; @output is the descriptor that it prints to. */
const char *systemd_start_hook(struct jobs *jobs, const char *unit,
			       const char *const *argv,
			       const char *const *environment, int timeout,
			       int output);

/* The units that the unit wants or requires, NULL-terminated; free_names(). */
char **systemd_wanted(const char *unit);
void free_names(char **names);

/*
 * Does systemd still know of units? At a forced shutdown it leaves, and calls
 * all jobs done that have not ended.
 */
bool systemd_confirms(const char *unit);

/* Writes why a unit has failed, such as "exit status 3". */
void systemd_why_failed(const char *unit, char *why, size_t size);

/* Makes systemd forget a failed unit. */
void systemd_reset_failed(const char *unit);

void jobs_free(struct jobs *jobs);

/*
 * state.c
 */

/* The file with the state. */
extern const char *state_path;

/*
 * Finds out what was done before a restart, or else @state is as @fresh. The
 * counter starts at 0 if the system was booted, or the module loaded since
 * then; what had not settled by then goes on as @fresh's generation.
 */
void load_state(const struct state *fresh, struct state *state);

/* How much of what was written has to be on the disk. */
enum sync { SYNC_STATE, SYNC_FILESYSTEM };

/*
 * Writes it to the disk, within a time limit. SYNC_FILESYSTEM says that a hook
 * is done: its changes, mostly in the same file system, have to be there too.
 * Returns false, and has reported it, if that failed.
 */
bool save_state(const struct state *state, enum sync sync);

/*
 * record.c: what others can read of the overseer's work
 */

/* Has an overseer published anything since the system was booted? */
bool record_exists(void);

/* Takes up the failures recorded for this generation before a restart. */
void record_open(const struct state *state);

/* Publishes how far a generation is; @hook: the one that runs, or NULL. */
void record_publish(const struct state *state, const char *hook);

/* Adds a failure; @kind is hook, unit or state, @output may be NULL. */
void record_failure(const char *kind, const char *name, const char *reason,
		    unsigned int attempts, const char *output);

/* Forgets the failures of an earlier generation. */
void record_clear(void);

/*
 * hooks.c
 */

/* Why hooks ended. */
enum hook_result { HOOK_DONE, HOOK_FAILED, HOOK_REFUSED, HOOK_INTERRUPTED };

/* The defaults: a hook's time limit in seconds, and how often it is started. */
#define HOOK_TIMEOUT	90
#define HOOK_ATTEMPTS	3

/* The end of what a hook has printed, in bytes. */
#define OUTPUT_TAIL	1024

/**
 * struct hook_run - one run of a hook
 * @directory: where it is
 * @name: its name there
 * @family: what goes before the name in that of its unit
 * @argument: its only argument, or NULL
 * @generation: the generation that it is run for
 * @previous: the one before that
 * @timeout: in seconds
 * @why: receives why it failed
 * @tail: receives the end of its output
 */
struct hook_run {
	const char *directory;
	const char *name;
	const char *family;
	const char *argument;
	uint64_t generation;
	uint64_t previous;
	int timeout;
	char why[PATH_MAX + 128];
	char tail[OUTPUT_TAIL + 1];
};

/* Runs a hook once, in a unit of its own, and waits for its end. */
enum hook_result run_hook(struct hook_run *run);

/* Ends a hook that an earlier overseer has left running. */
void stop_hook(const char *family, const char *name);

/**
 * list_hooks() - the names of the hooks in a directory, in their order
 * @directory: where to look
 * @names: receives the names, NULL-terminated, for free_names(); NULL if none
 * @why: receives why the directory can't be used
 *
 * Returns false if the directory can't be used. A missing one has no hooks.
 */
bool list_hooks(const char *directory, char ***names, const char **why);

/* The unit in which a hook of that name runs; false: the name is too long. */
bool hook_unit(const char *family, const char *name, char *unit, size_t size);

/*
 * prepare.c: before a snapshot
 */

#define PREPARE_DIRECTORY	"/etc/sysgenid/pre-snapshot.d"
#define PREPARE_FAMILY		"pre-snapshot-"

/* Only one process prepares, or undoes that; false: another one does. */
bool prepare_try_lock(void);

/* Waits for that; false: a new generation, or the overseer's end, came first. */
bool prepare_lock(uint64_t generation);

void prepare_unlock(void);

/* Has a hook of PREPARE_DIRECTORY been begun, and not been undone? */
bool is_prepared(void);

/**
 * prepare_run() - run a hook that prepares
 * @run: the hook's name, generations and time limit; receives why it failed
 * @begun: the names of all that were begun, a JSON array; this one is added
 *
 * Returns false if it failed. It is to be undone in any case.
 */
struct json_object;
bool prepare_run(struct hook_run *run, struct json_object *begun);

typedef void (*thawed_fn)(const struct hook_run *run, enum hook_result result,
			  void *data);

/**
 * prepare_undo() - have the hooks undo what they did, the last one first
 * @like: the generations and the time limit
 * @attempts: how often each is started until it succeeds
 * @thawed: called for each with its result and @data
 *
 * Returns false if it was cut short; then it is to be done again.
 */
bool prepare_undo(const struct hook_run *like, int attempts, thawed_fn thawed,
		  void *data);

/*
 * Could users other than root exchange or change what is there?
 * @kind: S_IFREG for a file to be run, S_IFDIR for a directory
 * @real: receives the path without links, of PATH_MAX bytes, which is safe to
 *	be used later if nothing is wrong
 *
 * Returns what is wrong, in words that last until the next call, or NULL.
 */
const char *why_untrusted(const char *path, mode_t kind, char *real);

#endif /* OVERSEER_H */
