// SPDX-License-Identifier: GPL-2.0
/*
 * sysgenidd(8), the overseer. For each new generation it runs the hooks, restarts
 * the units of a target, and waits for the tracked watchers. It acknowledges last:
 * then the system has settled.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sysgenid.h>
#include <systemd/sd-daemon.h>

#include "overseer.h"
#include "system.h"

#define TARGET		"sysgenid-changed.target"
#define FAILED_TARGET	"sysgenid-failed.target"
#define MAX_LAGGARDS	16
/* No event announces acknowledgements: intervals between checks, in milliseconds. */
#define LOOK_FIRST	10
#define LOOK_AT_LEAST	250
/* Delay before a failed hook runs again, in milliseconds. */
#define PAUSE		1000

#define SETTLED		"generation %" PRIu64 " settled (hooks: %u done, %u failed; " \
			"other failures: %u)"

static const char *hooks_directory = "/etc/sysgenid/hooks.d";
static int hook_timeout = HOOK_TIMEOUT;
static int hook_attempts = HOOK_ATTEMPTS;
static int watchers_timeout = 30;
/* Whether a system that boots with another generation ID counts as a clone. */
static bool cold_clones = true;

static void __attribute__((format(printf, 1, 2)))
notify_status(const char *format, ...)
{
	char text[256];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	sd_notifyf(0, "STATUS=%s", text);
}

/* Counts every failure: a generation with one must not settle as successful. */
static void fault(struct state *state, const char *kind, const char *name,
		  const char *reason)
{
	state->faults++;
	record_failure(kind, name, reason, 1, NULL);
}

/*
 * Hooks
 */

static void hook_failed(struct state *state, const struct hook_run *run,
			const char *reason)
{
	state->failed++;
	report(LOG_ERR, "hook-failed", state->generation, run->name,
	       "hook %s failed after %u attempts: %s", run->name,
	       state->attempts, reason);
	record_failure("hook", run->name, reason, state->attempts, run->tail);
}

/* Returns false if the overseer must end, or there is a newer generation. */
static bool pause_hook(uint64_t generation)
{
	int64_t end = now_ms() + PAUSE;

	while (now_ms() < end && !is_interrupted(generation))
		wait_event(end, -1);
	return !is_interrupted(generation);
}

/*
 * Runs a hook until it succeeds, or has used its attempts. Attempts of an earlier
 * overseer count, too: a hook that stops the service or reboots the system would
 * otherwise do so forever. Returns false if interrupted.
 */
static bool try_hook(struct state *state, const char *name)
{
	struct hook_run run = {
		.directory = hooks_directory, .name = name, .family = "",
		.generation = state->generation, .previous = state->previous,
		.timeout = hook_timeout,
	};

	if (strcmp(name, state->tried)) {
		strcpy(state->tried, name);
		state->attempts = 0;
	}
	if (state->attempts >= (unsigned int)hook_attempts) {
		hook_failed(state, &run, "it was cut short each time");
		return true;
	}
	for (;;) {
		state->attempts++;
		save_state(state, SYNC_STATE);
		record_publish(state, name);
		notify_status("generation %" PRIu64 ": running hook %s",
			      state->generation, name);
		switch (run_hook(&run)) {
		case HOOK_DONE:
			report(LOG_INFO, "hook-done", state->generation, name,
			       "hook %s is done", name);
			state->done++;
			return true;
		case HOOK_INTERRUPTED:
			return false;
		case HOOK_REFUSED:
			report(LOG_ERR, "hook-refused", state->generation, name,
			       "hook %s/%s is not run: %s", hooks_directory, name,
			       run.why);
			state->failed++;
			record_failure("hook", name, run.why, 0, NULL);
			return true;
		case HOOK_FAILED:
			if (has_to_end())
				return false;
			if (state->attempts >= (unsigned int)hook_attempts) {
				hook_failed(state, &run, run.why);
				return true;
			}
			report(LOG_WARNING, "hook-retry", state->generation, name,
			       "hook %s failed, running it again: %s", name,
			       run.why);
			if (!pause_hook(state->generation))
				return false;
		}
	}
}

static void thawed(const struct hook_run *run, enum hook_result result, void *data)
{
	struct state *state = data;

	if (result == HOOK_DONE) {
		report(LOG_INFO, "hook-done", state->generation, run->name,
		       "hook %s has undone what it did before the snapshot",
		       run->name);
		return;
	}
	report(LOG_ERR, "hook-failed", state->generation, run->name,
	       "hook %s failed to undo what it did before the snapshot: %s",
	       run->name, run->why);
	state->failed++;
	record_failure("hook", run->name, run->why, hook_attempts, run->tail);
}

/* Runs first: the hooks may need what the preparation has frozen. */
static bool undo_prepare(struct state *state)
{
	const struct hook_run like = {
		.generation = state->generation, .previous = state->previous,
		.timeout = hook_timeout,
	};
	bool done;

	if (!is_prepared())
		return true;
	notify_status("generation %" PRIu64 ": undoing sysgenid prepare",
		      state->generation);
	if (!prepare_lock(state->generation))
		return false;
	done = prepare_undo(&like, hook_attempts, thawed, state);
	prepare_unlock();
	return done;
}

static bool run_hooks(struct state *state)
{
	char **names = NULL;
	const char *why;
	bool goes_on = true;

	if (!list_hooks(hooks_directory, &names, &why)) {
		report(LOG_ERR, "hook-refused", state->generation, NULL,
		       "no hook of %s is run: %s", hooks_directory, why);
		state->failed++;
		record_failure("hook", hooks_directory, why, 0, NULL);
	}
	/* Stop a hook that a killed overseer has left; it runs again. */
	if (state->tried[0] && strcmp(state->hook, state->tried))
		stop_hook("", state->tried);
	for (char **name = names; name && *name && goes_on; name++) {
		if (strcmp(*name, state->hook) <= 0)
			continue;
		goes_on = !is_interrupted(state->generation) &&
			  try_hook(state, *name);
		if (!goes_on)
			break;
		strcpy(state->hook, *name);
		if (!save_state(state, SYNC_FILESYSTEM))
			fault(state, "state", state_path, "it can't be written");
	}
	free_names(names);
	return goes_on && !is_interrupted(state->generation);
}

/*
 * Units
 */

static void unit_failed(struct state *state, const char *unit, const char *why)
{
	report(LOG_ERR, "unit-failed", state->generation, NULL,
	       "generation %" PRIu64 ": %s can't be started: %s",
	       state->generation, unit, why);
	fault(state, "unit", unit, why);
}

static void enqueue(struct state *state, struct jobs *jobs, const char *unit,
		    const char *type)
{
	const char *why = systemd_enqueue(jobs, unit, type);

	if (why)
		unit_failed(state, unit, why);
}

static void report_late_jobs(const struct state *state, const struct jobs *jobs)
{
	for (const struct job *job = jobs->list; job; job = job->next) {
		if (job->result[0])
			continue;
		report(LOG_WARNING, "unit-late", state->generation, NULL,
		       "generation %" PRIu64 " still waits for the job of %s",
		       state->generation, job->unit);
		notify_status("generation %" PRIu64 ": waiting for %s",
			      state->generation, job->unit);
	}
}

/* A unit may have two jobs: its own, and one added for a dependency. */
static bool is_repeated(const struct job *job)
{
	for (const struct job *other = job->next; other; other = other->next)
		if (!strcmp(other->unit, job->unit) &&
		    !strcmp(other->result, job->result))
			return true;
	return false;
}

/*
 * Restarts the units that the target wants, and then starts the target: an active
 * unit would not notice the start of the target. Waits until all jobs have ended,
 * including those that systemd adds for dependencies.
 */
static bool restart_units(struct state *state)
{
	int64_t every = watchers_timeout * INT64_C(1000), late = now_ms() + every;
	char **names = systemd_wanted(TARGET);
	struct jobs jobs = {};
	bool goes_on;

	notify_status("generation %" PRIu64 ": restarting units", state->generation);
	for (char **name = names; name && *name; name++)
		enqueue(state, &jobs, *name, "restart");
	enqueue(state, &jobs, TARGET, "restart");
	free_names(names);
	while (jobs.running && !is_interrupted(state->generation)) {
		wait_event(late, -1);
		if (now_ms() >= late) {
			report_late_jobs(state, &jobs);
			late += every;
		}
	}
	goes_on = !is_interrupted(state->generation);
	for (struct job *job = jobs.list; goes_on && job; job = job->next)
		if (strcmp(job->result, "done") && strcmp(job->result, "skipped") &&
		    !is_repeated(job))
			unit_failed(state, job->unit, job->result);
	jobs_free(&jobs);
	return goes_on;
}

/* Notifies administrators by a target; the overseer does not wait for its jobs. */
static void set_failed_target(struct state *state, const char *type)
{
	struct jobs jobs = {};
	const char *why = systemd_enqueue(&jobs, FAILED_TARGET, type);

	if (why)
		unit_failed(state, FAILED_TARGET, why);
	jobs_free(&jobs);
}

/*
 * Watchers
 */

static void report_laggards(uint64_t generation)
{
	struct laggard laggards[MAX_LAGGARDS];
	size_t count = find_laggards(generation, laggards, MAX_LAGGARDS);

	for (size_t i = 0; i < count; i++) {
		if (laggards[i].pid == getpid())
			continue;
		report(LOG_WARNING, "watcher-late", generation, NULL,
		       "generation %" PRIu64 " still waits for %s (pid %d, descriptor %d), "
		       "which has acknowledged %" PRIu32, generation,
		       laggards[i].name, laggards[i].pid, laggards[i].fd,
		       laggards[i].acknowledged);
		notify_status("generation %" PRIu64 ": waiting for %s (pid %d)",
			      generation, laggards[i].name, laggards[i].pid);
	}
}

/* If the identifier changes but the generation stays, the driver failed to reseed. */
static bool is_reseeded(const struct state *state)
{
	return identity_compare(tracked_fd(), state->identity) != IDENTITY_OTHER;
}

static void report_missing_reseed(const struct state *state)
{
	if (is_reseeded(state))
		return;
	report(LOG_ERR, "reseed-late", state->generation, NULL,
	       "generation %" PRIu64 " still waits for the kernel, which failed to reseed "
	       "its random number generator: see its log", state->generation);
	notify_status("generation %" PRIu64 ": waiting for the kernel to reseed",
		      state->generation);
}

/* Returns false if there is a newer generation, or the overseer must end. */
static bool wait_for_watchers(const struct state *state)
{
	int64_t every = watchers_timeout * INT64_C(1000), late = now_ms() + every;
	uint64_t generation = state->generation;
	int look = LOOK_FIRST;

	notify_status("generation %" PRIu64 ": waiting for watchers", generation);
	while (!is_interrupted(generation)) {
		if (!tracked_others() && is_reseeded(state))
			return true;
		wait_event(now_ms() + look, -1);
		if (look < LOOK_AT_LEAST)
			look *= 2;
		if (now_ms() >= late) {
			report_laggards(generation);
			report_missing_reseed(state);
			late += every;
		}
	}
	return false;
}

/*
 * Generations
 */

/*
 * At boot, units ordered after the overseer, such as the network, wait for the
 * hooks. Later, no unit waits.
 */
static void notify_ready(void)
{
	static bool ready;

	if (!ready)
		sd_notify(0, "READY=1");
	ready = true;
}

/* Stores the identity of the hardware on which the generation began. */
static void remember_identity(struct state *state)
{
	if (identity_compare(tracked_fd(), state->identity) != IDENTITY_SAME &&
	    !identity_make(tracked_fd(), state->identity))
		state->identity[0] = '\0';
}

/*
 * A system may be copied, or its disk rolled back, while it is off. No interrupt
 * announces such a clone, but it boots with another generation ID than it last
 * settled with. Starting a new generation makes it a clone like any other.
 * @same_counter: the counter has gone on since the state was saved
 */
static void look_for_cold_clone(struct state *state, bool same_counter)
{
	bool other = identity_compare(tracked_fd(), state->identity) ==
		     IDENTITY_OTHER;

	/* The driver failed to reseed: keep the identity, so as not to settle. */
	if (other && same_counter)
		return;
	if (state->phase != PHASE_SETTLED) {
		remember_identity(state);
		return;
	}
	if (other && cold_clones) {
		report(LOG_NOTICE, "cold-clone", state->generation, NULL,
		       "the generation ID differs from when the system last settled: "
		       "the system was copied or rolled back while it was off");
		if (!sysgenid_trigger(0))
			return;
		report(LOG_WARNING, "cold-clone", state->generation, NULL,
		       "starting a generation failed: %s", strerror(errno));
		state->phase = PHASE_HOOKS;
		remember_identity(state);
		return;
	}
	if (other)
		report(LOG_NOTICE, "cold-clone", state->generation, NULL,
		       "the generation ID differs from when the system last settled: "
		       "ignored, because of --cold-clones=no");
	if (current_generation() == state->generation)
		remember_identity(state);
}

static void notify_settled(const struct state *state)
{
	notify_status(SETTLED, state->generation, state->done, state->failed,
		      state->faults);
}

/* Saves the state before other programs may continue: no work must be repeated. */
static void settle(struct state *state)
{
	state->phase = PHASE_SETTLED;
	if (!save_state(state, SYNC_STATE))
		fault(state, "state", state_path, "it can't be written");
	if (state->failed + state->faults)
		set_failed_target(state, "start");
	record_publish(state, NULL);
	if (!tracked_acknowledge(state->generation))
		return;
	report(state->failed + state->faults ? LOG_WARNING : LOG_NOTICE,
	       "settled", state->generation, NULL, SETTLED, state->generation,
	       state->done, state->failed, state->faults);
	notify_settled(state);
}

static void enter(struct state *state, enum phase phase)
{
	state->phase = phase;
	save_state(state, SYNC_STATE);
	record_publish(state, NULL);
}

/* Continues with a generation, from the stage that it has reached. */
static void oversee(struct state *state)
{
	record_publish(state, NULL);
	if (state->phase == PHASE_HOOKS) {
		report(LOG_NOTICE, "new", state->generation, NULL,
		       "generation %" PRIu64 ": running the hooks in %s",
		       state->generation, hooks_directory);
		if (!undo_prepare(state) || !run_hooks(state))
			return;
		enter(state, PHASE_UNITS);
	}
	notify_ready();
	if (state->phase == PHASE_UNITS) {
		if (!restart_units(state))
			return;
		enter(state, PHASE_WATCHERS);
	}
	if (wait_for_watchers(state))
		settle(state);
}

static void begin(struct state *state, uint64_t generation)
{
	bool settled = state->phase == PHASE_SETTLED;
	struct state last = *state;

	if (!settled)
		report(LOG_WARNING, "superseded", state->generation, NULL,
		       "generation %" PRIu64 " did not settle before generation %"
		       PRIu64, state->generation, generation);
	/* A hook left by a killed overseer would occupy its unit's name. */
	if (last.phase == PHASE_HOOKS && last.tried[0])
		stop_hook("", last.tried);
	*state = (struct state){
		.generation = generation,
		.previous = settled ? last.generation : last.previous,
	};
	memcpy(state->identity, last.identity, sizeof(state->identity));
	remember_identity(state);
	record_clear();
	save_state(state, SYNC_STATE);
	set_failed_target(state, "stop");
}

static void oversee_all(struct state *state)
{
	uint64_t generation;

	while (!has_to_end()) {
		generation = current_generation();
		if (generation != state->generation)
			begin(state, generation);
		if (state->phase != PHASE_SETTLED) {
			oversee(state);
		} else {
			notify_ready();
			wait_event(INT64_MAX, -1);
		}
	}
}

/*
 * The command line
 */

static void __attribute__((noreturn)) usage(int status)
{
	fputs("Usage: sysgenidd [OPTIONS]\n\n"
	      "Runs hooks, restarts units and waits for watchers when the system was cloned\n"
	      "or restored from a snapshot. systemd starts it, as sysgenidd.service.\n\n"
	      "  --hooks=DIRECTORY           directory of the hooks; /etc/sysgenid/hooks.d\n"
	      "  --hook-timeout=SECONDS      time limit of a hook; 90\n"
	      "  --hook-attempts=N           maximum number of starts of a hook; 3\n"
	      "  --watchers-timeout=SECONDS  interval of reports on late watchers; 30\n"
	      "  --cold-clones=no            another generation ID at boot is not a clone\n"
	      "  --state=FILE                the overseer's state; /var/lib/sysgenid/state\n"
	      "  --version                   print the version\n"
	      "  --help                      print this help\n\n"
	      "See sysgenidd(8).\n", status ? stderr : stdout);
	exit(status);
}

static int parse_number(const char *option, const char *text, const char *what)
{
	char *end;
	long number = strtol(text, &end, 10);

	if (end == text || *end || number < 1 || number > 1000000) {
		fprintf(stderr, "sysgenidd: --%s=%s: use a number of %s from 1 to 1000000\n",
			option, text, what);
		exit(EXIT_USAGE);
	}
	return number;
}

static bool parse_yes(const char *option, const char *text)
{
	if (strcmp(text, "yes") && strcmp(text, "no")) {
		fprintf(stderr, "sysgenidd: --%s=%s: use yes or no\n", option,
			text);
		exit(EXIT_USAGE);
	}
	return !strcmp(text, "yes");
}

static void parse(int argc, char **argv)
{
	static const struct option options[] = {
		{ "hooks", required_argument, NULL, 'h' },
		{ "hook-timeout", required_argument, NULL, 't' },
		{ "hook-attempts", required_argument, NULL, 'a' },
		{ "watchers-timeout", required_argument, NULL, 'w' },
		{ "cold-clones", required_argument, NULL, 'c' },
		{ "state", required_argument, NULL, 's' },
		{ "version", no_argument, NULL, 'v' },
		{ "help", no_argument, NULL, '?' + 256 },
		{ }
	};
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 'h')
			hooks_directory = optarg;
		else if (option == 't')
			hook_timeout = parse_number("hook-timeout", optarg, "seconds");
		else if (option == 'a')
			hook_attempts = parse_number("hook-attempts", optarg, "attempts");
		else if (option == 'w')
			watchers_timeout = parse_number("watchers-timeout", optarg,
							"seconds");
		else if (option == 'c')
			cold_clones = parse_yes("cold-clones", optarg);
		else if (option == 's')
			state_path = optarg;
		else if (option == 'v')
			exit(puts("sysgenidd " VERSION) < 0);
		else
			usage(option == '?' ? EXIT_USAGE : 0);
	}
	if (optind < argc)
		usage(EXIT_USAGE);
}

/* If nothing is known, the start of a new counter counts as settled. */
static struct state fresh_state(void)
{
	struct state fresh = { .phase = PHASE_SETTLED };

	if (sysgenid_get_source() == SYSGENID_SOURCE_VMCLOCK)
		fresh.generation = sysgenid_generation();
	return fresh;
}

static int start(void)
{
	int error;

	sysgenid_set_log(NULL);
	if (sysgenid_open()) {
		report(LOG_ERR, "no-device", 0, NULL, "%s",
		       explain_no_device(errno));
		return EXIT_NO_DEVICE;
	}
	if (tracked_open() || events_open()) {
		report(LOG_ERR, "no-device", 0, NULL,
		       "cannot watch the generation: %s", strerror(errno));
		return EXIT_ERROR;
	}
	error = systemd_open();
	if (error < 0) {
		report(LOG_ERR, "no-systemd", 0, NULL,
		       "cannot connect to systemd, which runs the hooks: %s",
		       strerror(-error));
		return EXIT_ERROR;
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct state fresh, state = {};
	bool boots, same_counter;
	int status;

	parse(argc, argv);
	status = start();
	if (status)
		return status;
	fresh = fresh_state();
	load_state(&fresh, &state);
	boots = !record_exists();
	same_counter = record_is_current();
	record_open(&state);
	look_for_cold_clone(&state, same_counter);
	save_state(&state, SYNC_STATE);
	if (current_generation() == state.generation) {
		record_publish(&state, NULL);
		if (state.phase == PHASE_SETTLED) {
			tracked_acknowledge(state.generation);
			notify_settled(&state);
		}
	}
	if (!boots)
		notify_ready();
	oversee_all(&state);
	sd_notify(0, "STOPPING=1");
	systemd_close();
	events_close();
	return 0;
}
