/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Declarations that the files of the overseer, sysgenidd(8), share: waiting,
 * reports, state across restarts, systemd, and hooks.
 */
#ifndef OVERSEER_H
#define OVERSEER_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <syslog.h>

#include <clock.h>

/* The stages of a generation. */
enum phase {
	PHASE_HOOKS,		/* run hooks, from the one after the last one done */
	PHASE_UNITS,		/* restart units */
	PHASE_WATCHERS,		/* wait for watchers */
	PHASE_SETTLED
};

/* Size of a key and a digest, in hexadecimal, with the terminating NUL. */
#define IDENTITY_SIZE	(2 * (16 + 32) + 1)

/**
 * struct state - what the overseer keeps across restarts
 * @generation: the generation that @phase describes
 * @previous: the generation that settled before it
 * @phase: the stage that @generation has reached
 * @attempts: number of starts of @tried
 * @done: number of hooks that succeeded
 * @failed: number of hooks that failed
 * @faults: number of other failures: of units, and of saving the state
 * @identity: digest of the hardware's identifier when the generation began, or
 *	empty
 * @hook: in PHASE_HOOKS, the last hook that was completed, or empty
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
 * Writes a report to the journal, or to stderr if that is not the journal.
 * Programs find @event in the journal's field SYSGENID_EVENT. @hook may be NULL.
 */
void __attribute__((format(printf, 5, 6)))
report(int priority, const char *event, uint64_t generation, const char *hook,
       const char *format, ...);

/*
 * events.c: the overseer's event loop
 */

/**
 * events_open() - start to watch the generation and the signals that end the overseer
 *
 * Returns 0, or -1 with errno set.
 */
int events_open(void);

/**
 * wait_event() - wait for an event, and handle it
 * @end: time limit, as of now_ms(); INT64_MAX: none
 * @fd: a descriptor that the caller handles when it is readable; or -1
 *
 * It handles messages of systemd and of the host, and new generations.
 * Returns true if @fd is readable or has hung up.
 */
bool wait_event(int64_t end, int fd);

/* Returns whether a signal asked the overseer to end. */
bool has_to_end(void);

/* Checks the hardware, then returns the current generation. */
uint64_t current_generation(void);

/* Forgets such a signal, so that the caller can undo what it began. */
void forget_signals(void);

/* Returns whether there is a generation newer than @generation, or a signal to end. */
bool is_interrupted(uint64_t generation);

void events_close(void);

/*
 * tracked.c: the overseer's own tracked descriptor
 */

/* Opens the descriptor, or gets it back from systemd. Returns 0, or -1 with errno set. */
int tracked_open(void);

/* Returns the number of other tracked watchers that have not acknowledged. */
unsigned long tracked_others(void);

/* Acknowledges a generation; returns false if there is a newer one. */
bool tracked_acknowledge(uint64_t generation);

/* Returns the descriptor; -1: VMClock is the source. */
int tracked_fd(void);

/*
 * identity.c: the hardware's identifier
 */

enum identity {
	IDENTITY_UNKNOWN,	/* none is remembered, or there is no hardware */
	IDENTITY_SAME,
	IDENTITY_OTHER
};

/* Stores a digest of the hardware's identifier; false: there is no identifier. */
bool identity_make(int fd, char *identity);

enum identity identity_compare(int fd, const char *identity);

/*
 * Returns whether the hardware's identifier has changed since the generation began.
 * If the generation is still the same afterwards, the driver failed to reseed. Only
 * root can compare the identifiers; other users get false.
 */
bool identity_has_changed(void);

/*
 * systemd.c: jobs of the service manager
 */

struct job;

/**
 * struct jobs - jobs to wait for together
 * @list: the jobs, including those that have ended
 * @running: number of jobs that have not ended
 */
struct jobs {
	struct job *list;
	unsigned int running;
};

struct job {
	struct job *next;
	char *path;
	char *unit;
	char result[16];	/* systemd's result; empty: running */
};

/* Connects to systemd; returns 0 or a negative errno. */
int systemd_open(void);
int systemd_fd(void);
/* Handles messages that have arrived; reconnects if systemd closed the connection. */
void systemd_process(void);
void systemd_close(void);

/**
 * systemd_enqueue() - enqueue a job, and add it to a set of jobs to wait for
 * @jobs: receives the job, and the jobs that systemd adds for its dependencies
 * @unit: the unit's name
 * @type: as systemctl(1) calls it: start, stop, restart
 *
 * Returns NULL, or the error as text, valid until the next call.
 */
const char *systemd_enqueue(struct jobs *jobs, const char *unit,
			    const char *type);

/* Does the same for a hook; @output is the descriptor for its output. */
const char *systemd_start_hook(struct jobs *jobs, const char *unit,
			       const char *const *argv,
			       const char *const *environment, int timeout,
			       int output);

/* Returns the units that @unit wants or requires, NULL-terminated, for free_names(). */
char **systemd_wanted(const char *unit);
void free_names(char **names);

/*
 * Returns whether systemd still answers for a unit. On a forced shutdown, it
 * disconnects and reports all unfinished jobs as done.
 */
bool systemd_confirms(const char *unit);

/* Stores why a unit failed, such as "exit status 3". */
void systemd_why_failed(const char *unit, char *why, size_t size);

/* Makes systemd forget a failed unit. */
void systemd_reset_failed(const char *unit);

void jobs_free(struct jobs *jobs);

/*
 * state.c
 */

/* Path of the state file. */
extern const char *state_path;

/*
 * Loads the state of before a restart into @state, or copies @fresh. After a boot
 * or a reload of the module, the counter starts at 0 again. A generation that had
 * not settled before then continues as @fresh's generation.
 */
void load_state(const struct state *fresh, struct state *state);

/* How much must reach the disk. */
enum sync { SYNC_STATE, SYNC_FILESYSTEM };

/*
 * Writes the state to the disk, within a time limit. SYNC_FILESYSTEM is for a hook
 * that is done: its changes, mostly in the same file system, must be on the disk, too.
 * On failure, reports it and returns false.
 */
bool save_state(const struct state *state, enum sync sync);

/*
 * record.c: the record of the overseer's work for other programs
 */

/* Returns whether an overseer has published a record since the system booted. */
bool record_exists(void);

/* Returns whether an overseer has published a record for this counter. */
bool record_is_current(void);

/* Loads the failures that were recorded for this generation before a restart. */
void record_open(const struct state *state);

/* Publishes the stage of a generation; @hook: the running hook, or NULL. */
void record_publish(const struct state *state, const char *hook);

/* Adds a failure; @kind is hook, unit or state. @output may be NULL. */
void record_failure(const char *kind, const char *name, const char *reason,
		    unsigned int attempts, const char *output);

/* Drops the failures of an earlier generation. */
void record_clear(void);

/*
 * hooks.c
 */

/* How a hook ended. */
enum hook_result { HOOK_DONE, HOOK_FAILED, HOOK_REFUSED, HOOK_INTERRUPTED };

/* Defaults: a hook's time limit in seconds, and the number of attempts. */
#define HOOK_TIMEOUT	90
#define HOOK_ATTEMPTS	3

/* Size of the end of a hook's output that is kept, in bytes. */
#define OUTPUT_TAIL	1024

/**
 * struct hook_run - one run of a hook
 * @directory: the directory of the hook
 * @name: the hook's name in it
 * @family: prefix of the name in the unit's name
 * @argument: the only argument, or NULL
 * @generation: the generation that the hook runs for
 * @previous: the generation before that
 * @timeout: time limit in seconds
 * @why: receives the reason of a failure
 * @tail: receives the end of the output
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

/* Runs a hook once, in a separate unit, and waits for its end. */
enum hook_result run_hook(struct hook_run *run);

/* Stops a hook that an earlier overseer has left running. */
void stop_hook(const char *family, const char *name);

/**
 * list_hooks() - list the hooks in a directory, in the order in which they run
 * @directory: the directory
 * @names: receives the names, NULL-terminated, for free_names(); NULL if none
 * @why: receives the reason if the directory can't be used
 *
 * Returns false if the directory can't be used. A missing directory has no hooks.
 */
bool list_hooks(const char *directory, char ***names, const char **why);

/* Stores the name of a hook's unit; returns false if the name is too long. */
bool hook_unit(const char *family, const char *name, char *unit, size_t size);

/*
 * prepare.c: preparing for a snapshot
 */

#define PREPARE_DIRECTORY	"/etc/sysgenid/pre-snapshot.d"
#define PREPARE_FAMILY		"pre-snapshot-"

/* Takes the lock for preparing and undoing; false: another process has it. */
bool prepare_try_lock(void);

/* Waits for the lock; false: a new generation or a signal to end came first. */
bool prepare_lock(uint64_t generation);

void prepare_unlock(void);

/* Returns whether a hook of PREPARE_DIRECTORY was begun and not undone. */
bool is_prepared(void);

/**
 * prepare_run() - run a hook that prepares for a snapshot
 * @run: the hook's name, generations and time limit; receives the reason of a failure
 * @begun: the names of all hooks that were begun, a JSON array; adds this one
 *
 * Returns false if the hook failed. The caller must undo it in any case.
 */
struct json_object;
bool prepare_run(struct hook_run *run, struct json_object *begun);

typedef void (*thawed_fn)(const struct hook_run *run, enum hook_result result,
			  void *data);

/**
 * prepare_undo() - have the hooks undo their preparation, the last one first
 * @like: the generations and the time limit
 * @attempts: maximum number of starts of each hook
 * @thawed: called for each hook with its result and @data
 *
 * Returns false if it was interrupted; the caller must call it again.
 */
bool prepare_undo(const struct hook_run *like, int attempts, thawed_fn thawed,
		  void *data);

/**
 * why_untrusted() - check that users other than root can't replace or change a path
 * @path: the path
 * @kind: S_IFREG for a file to be run, S_IFDIR for a directory
 * @real: receives the path without links, of PATH_MAX bytes; safe to use later if
 *	the check passes
 *
 * Returns NULL, or the reason as text, valid until the next call.
 */
const char *why_untrusted(const char *path, mode_t kind, char *real);

#endif /* OVERSEER_H */
