// SPDX-License-Identifier: GPL-2.0
/*
 * Runs each hook in a separate unit: systemd limits its time, keeps it in a sandbox,
 * and ends all processes that it has started.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "overseer.h"
#include "text.h"

/*
 * Limits of a hook's output in the journal, in bytes and in lines. After more lines,
 * the journal would drop all messages of the overseer for half a minute.
 */
#define OUTPUT_LIMIT	65536
#define LINE_LIMIT	500
#define LINE_SIZE	1024
/* How long to wait for a hook to stop, in ms: more than its TimeoutStopSec. */
#define STOP_PATIENCE	10000
/* How soon a shutdown that has stopped a hook stops the overseer, too, in ms. */
#define SHUTDOWN_PATIENCE	3000
/* systemd's limit for a unit's name */
#define UNIT_NAME_MAX	255

/*
 * The output of a hook.
 * @fd: the read end of the pipe, or -1 once all writers have closed theirs
 * @line: output since the last newline
 * @flooded: the hook has printed more than the limits allow
 */
struct output {
	struct hook_run *run;
	int fd;
	char line[LINE_SIZE];
	size_t length;
	unsigned int printed;
	unsigned int lines;
	bool flooded;
};

static void report_line(struct output *output)
{
	const struct hook_run *run = output->run;

	clean_text(output->line, output->length);
	if (output->length)
		report(LOG_INFO, "hook-output", run->generation, run->name,
		       "hook %s: %.*s", run->name, (int)output->length,
		       output->line);
	output->lines += output->length > 0;
	output->length = 0;
}

static void pass_on(struct output *output, const char *text, size_t length)
{
	for (size_t i = 0; i < length && !output->flooded; i++) {
		output->flooded = output->printed++ == OUTPUT_LIMIT ||
				  output->lines == LINE_LIMIT;
		if (output->flooded)
			break;
		if (text[i] != '\n')
			output->line[output->length++] = text[i];
		if (text[i] == '\n' || output->length == LINE_SIZE)
			report_line(output);
	}
}

/* Keeps the end of the output, even after a flood: it says why the hook failed. */
static void keep_tail(char *tail, const char *text, size_t length)
{
	size_t kept = strlen(tail), lost;

	if (length > OUTPUT_TAIL) {
		text += length - OUTPUT_TAIL;
		length = OUTPUT_TAIL;
	}
	lost = kept + length > OUTPUT_TAIL ? kept + length - OUTPUT_TAIL : 0;
	memmove(tail, tail + lost, kept - lost);
	for (size_t i = 0; i < length; i++)
		tail[kept - lost + i] = text[i] ? text[i] : '?';
	tail[kept - lost + length] = '\0';
}

/* The tail may begin inside a character, and must be valid in JSON. */
static void clean_tail(char *tail)
{
	while (*tail) {
		size_t length = strcspn(tail, "\n");

		clean_text(tail, length);
		tail += length;
		tail += *tail == '\n';
	}
}

/* Reads once; returns false if there is nothing more now, or ever. */
static bool read_output(struct output *output)
{
	char text[4096];
	ssize_t length;

	if (output->fd < 0)
		return false;
	length = read(output->fd, text, sizeof(text));
	if (length > 0) {
		keep_tail(output->run->tail, text, length);
		pass_on(output, text, length);
		return true;
	}
	if (!length || errno != EAGAIN) {
		close(output->fd);
		output->fd = -1;
	}
	return false;
}

static void end_output(struct output *output)
{
	struct hook_run *run = output->run;

	while (read_output(output))
		;
	report_line(output);
	clean_tail(run->tail);
	if (output->flooded)
		report(LOG_WARNING, "hook-flood", run->generation, run->name,
		       "hook %s printed more than %d bytes or %d lines, the rest is dropped",
		       run->name, OUTPUT_LIMIT, LINE_LIMIT);
	if (output->fd >= 0)
		close(output->fd);
}

bool hook_unit(const char *family, const char *name, char *unit, size_t size)
{
	int length = snprintf(unit, size, "sysgenid-hook-%s%s.service", family,
			      name);

	return length > 0 && (size_t)length < size && length <= UNIT_NAME_MAX;
}

/* Starts the hook's unit; returns NULL, or the error as text. */
static const char *start(const struct hook_run *run, const char *unit,
			 const char *real, struct jobs *jobs,
			 struct output *output)
{
	const char *argv[] = { real, run->argument, NULL };
	char generation[64], previous[64];
	const char *environment[] = { generation, previous, "LANG=C.UTF-8", NULL };
	const char *why;
	int ends[2];

	snprintf(generation, sizeof(generation), "SYSGENID_GENERATION=%" PRIu64,
		 run->generation);
	snprintf(previous, sizeof(previous),
		 "SYSGENID_PREVIOUS_GENERATION=%" PRIu64, run->previous);
	if (pipe2(ends, O_CLOEXEC))
		return strerror(errno);
	fcntl(ends[0], F_SETFL, O_NONBLOCK);
	output->fd = ends[0];
	/* systemd keeps a unit that failed before, for administrators to see. */
	systemd_reset_failed(unit);
	why = systemd_start_hook(jobs, unit, argv, environment, run->timeout,
				 ends[1]);
	close(ends[1]);
	if (why)
		close(ends[0]);
	return why;
}

static void watch(struct jobs *jobs, struct output *output, int64_t end)
{
	while (jobs->running && now_ms() < end &&
	       (end != INT64_MAX || !has_to_end()))
		if (wait_event(end, output->fd))
			read_output(output);
}

static void stop(const char *unit, struct output *output)
{
	struct jobs jobs = {};

	if (!systemd_enqueue(&jobs, unit, "stop"))
		watch(&jobs, output, now_ms() + STOP_PATIENCE);
	jobs_free(&jobs);
}

void stop_hook(const char *family, const char *name)
{
	struct hook_run run = { .name = name };
	struct output output = { .run = &run, .fd = -1 };
	char unit[UNIT_NAME_MAX + 1];

	if (hook_unit(family, name, unit, sizeof(unit)))
		stop(unit, &output);
}

/* Determines the hook's result from the result of its job. */
static enum hook_result judge(struct hook_run *run, const char *unit,
			      const char *result)
{
	int64_t end = now_ms() + SHUTDOWN_PATIENCE;

	if (!strcmp(result, "done") && systemd_confirms(unit))
		return HOOK_DONE;
	if (strcmp(result, "done") && strcmp(result, "canceled")) {
		systemd_why_failed(unit, run->why, sizeof(run->why));
		return HOOK_FAILED;
	}
	while (!has_to_end() && now_ms() < end)
		wait_event(end, -1);
	snprintf(run->why, sizeof(run->why), "its unit was stopped");
	return has_to_end() ? HOOK_INTERRUPTED : HOOK_FAILED;
}

enum hook_result run_hook(struct hook_run *run)
{
	struct output output = { .run = run, .fd = -1 };
	char path[PATH_MAX], real[PATH_MAX], unit[UNIT_NAME_MAX + 1];
	struct jobs jobs = {};
	enum hook_result result = HOOK_INTERRUPTED;
	const char *why;

	run->why[0] = run->tail[0] = '\0';
	snprintf(path, sizeof(path), "%s/%s", run->directory, run->name);
	why = hook_unit(run->family, run->name, unit, sizeof(unit)) ?
	      why_untrusted(path, S_IFREG, real) : "its name is too long";
	if (why) {
		snprintf(run->why, sizeof(run->why), "%s", why);
		return HOOK_REFUSED;
	}
	why = start(run, unit, real, &jobs, &output);
	if (why) {
		snprintf(run->why, sizeof(run->why), "it can't be started: %s", why);
		jobs_free(&jobs);
		return HOOK_FAILED;
	}
	watch(&jobs, &output, INT64_MAX);
	if (jobs.running) {
		jobs_free(&jobs);
		stop(unit, &output);
		end_output(&output);
		return HOOK_INTERRUPTED;
	}
	end_output(&output);
	result = judge(run, unit, jobs.list->result);
	jobs_free(&jobs);
	return result;
}

/* Accepts the same names as run-parts(8): no backups, no leftovers of packages. */
static int is_hook(const struct dirent *entry)
{
	const char *c = entry->d_name;

	while (isalnum((unsigned char)*c) || *c == '-' || *c == '_')
		c++;
	return c != entry->d_name && !*c;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

bool list_hooks(const char *directory, char ***names, const char **why)
{
	struct dirent **entries;
	struct stat status;
	char real[PATH_MAX];
	int count;

	*names = NULL;
	/* A dangling link is an error, unlike a missing directory. */
	if (lstat(directory, &status) && errno == ENOENT)
		return true;
	*why = why_untrusted(directory, S_IFDIR, real);
	if (*why)
		return false;
	count = scandir(directory, &entries, is_hook, by_name);
	*why = strerror(errno);
	if (count < 0)
		return false;
	*names = calloc(count + 1, sizeof(**names));
	for (int i = 0; i < count; i++) {
		if (*names)
			(*names)[i] = strdup(entries[i]->d_name);
		free(entries[i]);
	}
	free(entries);
	*why = strerror(ENOMEM);
	return *names;
}
