// SPDX-License-Identifier: GPL-2.0
/*
 * sysgenidd(8), the overseer: for each new generation it runs the hooks, starts
 * sysgenid-changed.target, waits for the tracked watchers, and then says that
 * the system has settled.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <sysgenid.h>
#include <systemd/sd-bus.h>
#include <systemd/sd-daemon.h>

#include "overseer.h"
#include "system.h"

#define TARGET		"sysgenid-changed.target"
#define MAX_LAGGARDS	16
/* The longest that a request to end has to wait, in milliseconds. */
#define SLICE		500

static struct hook_options hooks = {
	.folder = "/etc/sysgenid/hooks.d",
	.timeout = 90,
};
static const char *state_path = "/var/lib/sysgenid/state";
static int watchers_timeout = 30;
static struct sysgenid_watcher *watcher;

static void __attribute__((format(printf, 1, 2)))
tell_status(const char *format, ...)
{
	char text[256];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	sd_notifyf(0, "STATUS=%s", text);
}

static bool has_to_end(void)
{
	return wait_readable(hooks.signal_fd, 0);
}

/* By systemd's own socket, as a system may have no D-Bus daemon. */
static int open_systemd(sd_bus **bus)
{
	int ret = sd_bus_new(bus);

	if (ret >= 0)
		ret = sd_bus_set_address(*bus, "unix:path=/run/systemd/private");
	if (ret >= 0)
		ret = sd_bus_start(*bus);
	return ret;
}

/* Restart, so that it is started again if it has been for another generation. */
static void start_target(uint64_t generation)
{
	sd_bus_error error = SD_BUS_ERROR_NULL;
	sd_bus *bus = NULL;
	int ret;

	if (sd_booted() <= 0)
		return;
	ret = open_systemd(&bus);
	if (ret >= 0)
		ret = sd_bus_call_method(bus, "org.freedesktop.systemd1",
					 "/org/freedesktop/systemd1",
					 "org.freedesktop.systemd1.Manager",
					 "RestartUnit", &error, NULL, "ss",
					 TARGET, "replace");
	if (ret < 0)
		report(LOG_ERR, "target-failed", generation, NULL,
		       TARGET " can't be started: %s",
		       error.message ? error.message : strerror(-ret));
	sd_bus_error_free(&error);
	sd_bus_flush_close_unref(bus);
}

static void report_laggards(uint64_t generation)
{
	struct laggard laggards[MAX_LAGGARDS];
	size_t count = find_laggards(generation, laggards, MAX_LAGGARDS);

	for (size_t i = 0; i < count; i++)
		report(LOG_WARNING, "watcher-late", generation, NULL,
		       "generation %" PRIu64 " still waits for %s (pid %d, descriptor %d), "
		       "which has acknowledged %" PRIu32, generation,
		       laggards[i].name, laggards[i].pid, laggards[i].fd,
		       laggards[i].acknowledged);
	if (count)
		tell_status("generation %" PRIu64 ": waiting for %s (pid %d)%s",
			    generation, laggards[0].name, laggards[0].pid,
			    count > 1 ? " and others" : "");
}

/* Returns false if there is a newer generation, or the overseer has to end. */
static bool wait_for_watchers(uint64_t generation)
{
	int64_t every = watchers_timeout * INT64_C(1000);
	int64_t report_at = now_ms() + every;
	int error = ETIME, last_error;

	tell_status("generation %" PRIu64 ": waiting for watchers", generation);
	while (!has_to_end()) {
		if (!sysgenid_wait_watchers(SLICE))
			return sysgenid_generation() == generation;
		last_error = error;
		error = errno;
		if (error == ENODEV)
			return true;
		if (error == ESTALE || sysgenid_generation() != generation)
			return false;
		if (error != ETIME && error != last_error)
			report(LOG_ERR, "watchers-failed", generation, NULL,
			       "waiting for watchers: %s", strerror(error));
		if (error != ETIME)
			wait_readable(hooks.signal_fd, SLICE);
		if (now_ms() >= report_at) {
			report_laggards(generation);
			report_at += every;
		}
	}
	return false;
}

static void settle(struct state *state, const struct hook_counts *counts)
{
	state->phase = PHASE_SETTLED;
	save_state(state_path, state, fdatasync);
	report(counts->bad ? LOG_WARNING : LOG_NOTICE, "settled",
	       state->generation, NULL,
	       "generation %" PRIu64 " settled (hooks: %u done, %u failed)",
	       state->generation, counts->good, counts->bad);
	tell_status("generation %" PRIu64 " settled (hooks: %u done, %u failed)",
		    state->generation, counts->good, counts->bad);
}

/* Goes on with a generation from wherever it is. */
static void oversee(struct state *state)
{
	struct hook_counts counts = {};

	if (state->phase == PHASE_HOOKS) {
		report(LOG_NOTICE, "new", state->generation, NULL,
		       "generation %" PRIu64 ": running the hooks in %s",
		       state->generation, hooks.folder);
		tell_status("generation %" PRIu64 ": running hooks",
			    state->generation);
		if (!run_hooks(&hooks, state_path, state, &counts))
			return;
		start_target(state->generation);
		state->phase = PHASE_WATCHERS;
		save_state(state_path, state, fdatasync);
	}
	if (wait_for_watchers(state->generation))
		settle(state, &counts);
}

/* The generation, acknowledged, as it is ours to deal with from here on. */
static uint64_t take_generation(void)
{
	uint64_t generation;

	while (sysgenid_watcher_wait(watcher, 0, &generation) == 1)
		if (!sysgenid_watcher_ack(watcher, generation))
			break;
	sysgenid_barrier(&generation);
	return generation;
}

static void oversee_all(struct state *state)
{
	struct pollfd polled[] = {
		{ .fd = sysgenid_watcher_fd(watcher), .events = POLLIN },
		{ .fd = hooks.signal_fd, .events = POLLIN },
	};
	uint64_t generation;

	while (!has_to_end()) {
		generation = take_generation();
		if (generation != state->generation) {
			if (state->phase != PHASE_SETTLED)
				report(LOG_WARNING, "superseded", state->generation,
				       NULL, "generation %" PRIu64 " did not settle before "
				       "generation %" PRIu64, state->generation, generation);
			*state = (struct state){ .generation = generation };
			save_state(state_path, state, fdatasync);
		}
		if (state->phase != PHASE_SETTLED)
			oversee(state);
		else
			poll(polled, 2, -1);
	}
}

static int open_signals(void)
{
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	return signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void __attribute__((noreturn)) usage(int status)
{
	fputs("Usage: sysgenidd [--hooks=FOLDER] [--hook-timeout=SECONDS]\n"
	      "                 [--watchers-timeout=SECONDS] [--state=FILE]\n"
	      "See sysgenidd(8).\n", status ? stderr : stdout);
	exit(status);
}

static int parse_seconds(const char *option, const char *text)
{
	char *end;
	long seconds = strtol(text, &end, 10);

	if (end == text || *end || seconds < 1 || seconds > 1000000) {
		fprintf(stderr, "sysgenidd: --%s=%s: seconds from 1 to 1000000 are needed\n",
			option, text);
		exit(EXIT_USAGE);
	}
	return seconds;
}

static void parse(int argc, char **argv)
{
	static const struct option options[] = {
		{ "hooks", required_argument, NULL, 'h' },
		{ "hook-timeout", required_argument, NULL, 't' },
		{ "watchers-timeout", required_argument, NULL, 'w' },
		{ "state", required_argument, NULL, 's' },
		{ "help", no_argument, NULL, '?' + 256 },
		{ }
	};
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 'h')
			hooks.folder = optarg;
		else if (option == 't')
			hooks.timeout = parse_seconds("hook-timeout", optarg);
		else if (option == 'w')
			watchers_timeout = parse_seconds("watchers-timeout", optarg);
		else if (option == 's')
			state_path = optarg;
		else
			usage(option == '?' ? EXIT_USAGE : 0);
	}
	if (optind < argc)
		usage(EXIT_USAGE);
}

/* What is taken for dealt with, if nothing is known: a new counter's start. */
static struct state fresh_state(void)
{
	struct state fresh = { .phase = PHASE_SETTLED };

	if (sysgenid_get_source() == SYSGENID_SOURCE_VMCLOCK)
		fresh.generation = sysgenid_generation();
	return fresh;
}

int main(int argc, char **argv)
{
	struct state fresh, state;

	parse(argc, argv);
	sysgenid_set_log(NULL);
	if (sysgenid_open()) {
		report(LOG_ERR, "no-device", 0, NULL, "%s",
		       explain_no_device(errno));
		return EXIT_NO_DEVICE;
	}
	hooks.signal_fd = open_signals();
	watcher = sysgenid_watcher_new(0);
	if (hooks.signal_fd < 0 || !watcher) {
		report(LOG_ERR, "no-device", 0, NULL,
		       "watching the generation: %s", strerror(errno));
		return EXIT_ERROR;
	}
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	fresh = fresh_state();
	load_state(state_path, &fresh, &state);
	save_state(state_path, &state, fdatasync);
	sd_notify(0, "READY=1");
	if (state.phase == PHASE_SETTLED)
		tell_status("generation %" PRIu64 " settled", state.generation);
	oversee_all(&state);
	sd_notify(0, "STOPPING=1");
	sysgenid_watcher_free(watcher);
	return 0;
}
