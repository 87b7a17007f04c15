// SPDX-License-Identifier: GPL-2.0
/*
 * Jobs of systemd. Calls go to its private socket, because a system may have no D-Bus
 * daemon. A signal of systemd announces the end of each job.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <systemd/sd-bus.h>

#include "overseer.h"

#define SERVICE		"org.freedesktop.systemd1"
#define MANAGER_PATH	"/org/freedesktop/systemd1"
#define MANAGER		"org.freedesktop.systemd1.Manager"
#define UNIT		"org.freedesktop.systemd1.Unit"
#define SERVICE_UNIT	"org.freedesktop.systemd1.Service"

/* Timeout for an answer of systemd, in microseconds */
#define CALL_TIMEOUT	(30 * UINT64_C(1000000))
/* Timeout for systemd to return after it executes itself, in ms */
#define REOPEN_TIMEOUT	10000
#define REOPEN_EVERY	100

static sd_bus *bus;
/* The jobs that the overseer waits for: one set at a time. */
static struct jobs *waited;
static char failure[256];

static const char *fail(const sd_bus_error *error, int ret)
{
	snprintf(failure, sizeof(failure), "%s",
		 error->message ? error->message : strerror(-ret));
	return failure;
}

/* Records the job's result, a word of systemd: done, failed, timeout, … */
static void end_job(struct job *job, const char *result)
{
	if (job->result[0])
		return;
	snprintf(job->result, sizeof(job->result), "%s", result);
	waited->running--;
}

static int on_job_removed(sd_bus_message *message, void *data, sd_bus_error *error)
{
	const char *path, *unit, *result;
	uint32_t id;

	(void)data;
	(void)error;
	if (sd_bus_message_read(message, "uoss", &id, &path, &unit, &result) < 0)
		return 0;
	for (struct job *job = waited ? waited->list : NULL; job; job = job->next)
		if (!strcmp(job->path, path))
			end_job(job, result);
	return 0;
}

int systemd_open(void)
{
	int ret = sd_bus_new(&bus);

	if (ret >= 0)
		ret = sd_bus_set_address(bus, "unix:path=/run/systemd/private");
	if (ret >= 0)
		ret = sd_bus_negotiate_fds(bus, true);
	if (ret >= 0)
		ret = sd_bus_start(bus);
	if (ret >= 0)
		ret = sd_bus_match_signal(bus, NULL, NULL, MANAGER_PATH, MANAGER,
					  "JobRemoved", on_job_removed, NULL);
	if (ret >= 0)
		ret = sd_bus_set_method_call_timeout(bus, CALL_TIMEOUT);
	if (ret < 0)
		systemd_close();
	return ret;
}

void systemd_close(void)
{
	bus = sd_bus_close_unref(bus);
}

int systemd_fd(void)
{
	return bus ? sd_bus_get_fd(bus) : -1;
}

static char *unit_path(const char *unit)
{
	char *path = NULL;

	sd_bus_path_encode(MANAGER_PATH "/unit", unit, &path);
	return path;
}

static char *get_string(const char *unit, const char *interface,
			const char *property)
{
	char *path = unit_path(unit), *value = NULL;

	if (path)
		sd_bus_get_property_string(bus, SERVICE, path, interface,
					   property, NULL, &value);
	free(path);
	return value;
}

/* A job that no longer exists ended while its signal could not arrive. */
static void look_at_job(struct job *job)
{
	char *state = NULL, *active;

	if (sd_bus_get_property_string(bus, SERVICE, job->path,
				       "org.freedesktop.systemd1.Job", "State",
				       NULL, &state) >= 0) {
		free(state);
		return;
	}
	active = get_string(job->unit, UNIT, "ActiveState");
	end_job(job, active && strcmp(active, "failed") ? "done" : "failed");
	free(active);
}

/*
 * systemd closes its connections when it executes itself, for example on an upgrade.
 * On a forced shutdown it does not return, and terminates all processes.
 */
static void open_again(void)
{
	int64_t end = now_ms() + REOPEN_TIMEOUT;
	bool last;

	systemd_close();
	for (;;) {
		last = has_to_end() || now_ms() >= end;
		if (systemd_open() >= 0 || last)
			break;
		poll(NULL, 0, REOPEN_EVERY);
	}
	for (struct job *job = waited ? waited->list : NULL; job; job = job->next) {
		if (!bus)
			end_job(job, "unknown");
		else if (!job->result[0])
			look_at_job(job);
	}
}

void systemd_process(void)
{
	int ret;

	while (bus && (ret = sd_bus_process(bus, NULL)) != 0)
		if (ret < 0) {
			open_again();
			return;
		}
}

static void add_job(struct jobs *jobs, const char *path, const char *unit)
{
	struct job *job = calloc(1, sizeof(*job));

	if (job) {
		job->path = strdup(path);
		job->unit = strdup(unit);
	}
	if (!job || !job->path || !job->unit)
		abort();
	job->next = jobs->list;
	jobs->list = job;
	jobs->running++;
	waited = jobs;
}

void jobs_free(struct jobs *jobs)
{
	struct job *job;

	while ((job = jobs->list)) {
		jobs->list = job->next;
		free(job->path);
		free(job->unit);
		free(job);
	}
	jobs->running = 0;
	waited = NULL;
}

/* Sends a call; it fails if systemd has disconnected since the last one. */
static int call(sd_bus_message *message, sd_bus_error *error,
		sd_bus_message **reply)
{
	return sd_bus_call(bus, message, CALL_TIMEOUT, error, reply);
}

const char *systemd_enqueue(struct jobs *jobs, const char *unit, const char *type)
{
	const char *path = "", *name, *affected_path, *affected_name;
	sd_bus_error error = SD_BUS_ERROR_NULL;
	sd_bus_message *reply = NULL;
	const char *why = NULL;
	int ret;

	systemd_process();
	ret = bus ? sd_bus_call_method(bus, SERVICE, MANAGER_PATH, MANAGER,
				       "EnqueueUnitJob", &error, &reply, "sss",
				       unit, type, "replace") : -ENOTCONN;
	if (ret >= 0)
		ret = sd_bus_message_read(reply, "uosos", NULL, &path, &name,
					  NULL, NULL);
	if (ret >= 0) {
		add_job(jobs, path, name);
		ret = sd_bus_message_enter_container(reply, 'a', "(uosos)");
	}
	while (ret >= 0 && (ret = sd_bus_message_read(reply, "(uosos)", NULL,
						      &affected_path,
						      &affected_name, NULL,
						      NULL)) > 0)
		if (strcmp(affected_path, path))
			add_job(jobs, affected_path, affected_name);
	if (ret < 0)
		why = fail(&error, ret);
	sd_bus_error_free(&error);
	sd_bus_message_unref(reply);
	return why;
}

static int append_strings(sd_bus_message *message, const char *const *strings)
{
	int ret = sd_bus_message_open_container(message, 'a', "s");

	for (; ret >= 0 && *strings; strings++)
		ret = sd_bus_message_append(message, "s", *strings);
	return ret < 0 ? ret : sd_bus_message_close_container(message);
}

static int append_exec(sd_bus_message *message, const char *const *argv)
{
	int ret = sd_bus_message_open_container(message, 'r', "sv");

	if (ret >= 0)
		ret = sd_bus_message_append(message, "s", "ExecStart");
	if (ret >= 0)
		ret = sd_bus_message_open_container(message, 'v', "a(sasb)");
	if (ret >= 0)
		ret = sd_bus_message_open_container(message, 'a', "(sasb)");
	if (ret >= 0)
		ret = sd_bus_message_open_container(message, 'r', "sasb");
	if (ret >= 0)
		ret = sd_bus_message_append(message, "s", argv[0]);
	if (ret >= 0)
		ret = append_strings(message, argv);
	if (ret >= 0)
		ret = sd_bus_message_append(message, "b", false);
	for (int i = 0; ret >= 0 && i < 4; i++)
		ret = sd_bus_message_close_container(message);
	return ret;
}

static int append_environment(sd_bus_message *message,
			      const char *const *environment)
{
	int ret = sd_bus_message_open_container(message, 'r', "sv");

	if (ret >= 0)
		ret = sd_bus_message_append(message, "s", "Environment");
	if (ret >= 0)
		ret = sd_bus_message_open_container(message, 'v', "as");
	if (ret >= 0)
		ret = append_strings(message, environment);
	for (int i = 0; ret >= 0 && i < 2; i++)
		ret = sd_bus_message_close_container(message);
	return ret;
}

/* Appends the variable properties; the units' drop-in has the fixed ones. */
static int append_hook(sd_bus_message *message, const char *unit,
		       const char *const *argv, const char *const *environment,
		       int timeout, int output)
{
	int ret = sd_bus_message_append(message, "ss", unit, "replace");

	if (ret >= 0)
		ret = sd_bus_message_open_container(message, 'a', "(sv)");
	if (ret >= 0)
		ret = sd_bus_message_append(message, "(sv)(sv)(sv)(sv)(sv)",
			"Description", "s", "Hook for a new generation of the system",
			"Type", "s", "oneshot",
			"TimeoutStartUSec", "t", timeout * UINT64_C(1000000),
			"StandardOutputFileDescriptor", "h", output,
			"StandardErrorFileDescriptor", "h", output);
	if (ret >= 0)
		ret = append_environment(message, environment);
	if (ret >= 0)
		ret = append_exec(message, argv);
	if (ret >= 0)
		ret = sd_bus_message_close_container(message);
	if (ret >= 0)
		ret = sd_bus_message_append(message, "a(sa(sv))", 0);
	return ret;
}

const char *systemd_start_hook(struct jobs *jobs, const char *unit,
			       const char *const *argv,
			       const char *const *environment, int timeout,
			       int output)
{
	sd_bus_message *message = NULL, *reply = NULL;
	sd_bus_error error = SD_BUS_ERROR_NULL;
	const char *path, *why = NULL;
	int ret;

	systemd_process();
	ret = bus ? sd_bus_message_new_method_call(bus, &message, SERVICE,
						   MANAGER_PATH, MANAGER,
						   "StartTransientUnit") :
		    -ENOTCONN;
	if (ret >= 0)
		ret = append_hook(message, unit, argv, environment, timeout,
				  output);
	if (ret >= 0)
		ret = call(message, &error, &reply);
	if (ret >= 0)
		ret = sd_bus_message_read(reply, "o", &path);
	if (ret >= 0)
		add_job(jobs, path, unit);
	else
		why = fail(&error, ret);
	sd_bus_error_free(&error);
	sd_bus_message_unref(message);
	sd_bus_message_unref(reply);
	return why;
}

static char **get_names(const char *path, const char *property)
{
	char **names = NULL;

	sd_bus_get_property_strv(bus, SERVICE, path, UNIT, property, NULL, &names);
	return names;
}

char **systemd_wanted(const char *unit)
{
	static const char * const properties[] = { "Wants", "Requires" };
	char *path = unit_path(unit), **all = calloc(1, sizeof(*all));
	size_t count = 0;

	systemd_process();
	for (int i = 0; bus && path && i < 2; i++) {
		char **names = get_names(path, properties[i]);

		for (char **name = names; name && *name; name++) {
			char **more = realloc(all, (count + 2) * sizeof(*all));

			if (!more)
				abort();
			all = more;
			all[count++] = *name;
			all[count] = NULL;
		}
		free(names);
	}
	free(path);
	return all;
}

void free_names(char **names)
{
	for (char **name = names; name && *name; name++)
		free(*name);
	free(names);
}

bool systemd_confirms(const char *unit)
{
	char *state = NULL;

	/* Try twice: systemd may be executing itself. */
	for (int i = 0; i < 2 && !state; i++) {
		systemd_process();
		state = bus ? get_string(unit, UNIT, "ActiveState") : NULL;
	}
	free(state);
	return state;
}

void systemd_why_failed(const char *unit, char *why, size_t size)
{
	char *path = unit_path(unit), *result = get_string(unit, SERVICE_UNIT, "Result");
	int32_t code = 0;

	if (path)
		sd_bus_get_property_trivial(bus, SERVICE, path, SERVICE_UNIT,
					    "ExecMainStatus", NULL, 'i', &code);
	if (!result)
		snprintf(why, size, "its unit failed");
	else if (!strcmp(result, "exit-code"))
		snprintf(why, size, "exit status %d", code);
	else if (!strcmp(result, "signal") || !strcmp(result, "core-dump"))
		snprintf(why, size, "signal %d", code);
	else
		snprintf(why, size, "%s", result);
	free(result);
	free(path);
}

void systemd_reset_failed(const char *unit)
{
	systemd_process();
	if (bus)
		sd_bus_call_method(bus, SERVICE, MANAGER_PATH, MANAGER,
				   "ResetFailedUnit", NULL, NULL, "s", unit);
}
