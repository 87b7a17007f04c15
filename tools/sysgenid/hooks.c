// SPDX-License-Identifier: GPL-2.0
/*
 * Runs hooks: one after the other, with a limit to the time that each takes
 * and to what it prints, so that none can keep the others from being run.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "overseer.h"

/*
 * What is passed on of a hook's output, in bytes and in lines. With more lines
 * the journal would suppress all that the overseer says, for half a minute.
 */
#define OUTPUT_LIMIT	65536
#define LINE_LIMIT	500
#define LINE_SIZE	1024
/* From SIGTERM to SIGKILL, and then to giving up, in milliseconds. */
#define PATIENCE	5000
/* For what a hook leaves running, such as a filter of its output. */
#define GRACE		2000
/* Or a hook that reboots the system, or stops the overseer, would do for ever. */
#define MAX_ATTEMPTS	3

/*
 * A hook that is running.
 * @output: what it prints; -1 when it has closed that
 * @line: what it has printed since the last line's end
 * @flooded: it has printed more than is passed on
 */
struct hook {
	const char *name;
	uint64_t generation;
	pid_t pid;
	int pidfd;
	int output;
	char line[LINE_SIZE];
	size_t length;
	unsigned int printed;
	unsigned int lines;
	bool flooded;
};

static void report_line(struct hook *hook)
{
	if (hook->length)
		report(LOG_INFO, "hook-output", hook->generation, hook->name,
		       "hook %s: %.*s", hook->name, (int)hook->length,
		       hook->line);
	hook->lines += hook->length > 0;
	hook->length = 0;
}

static void take_output(struct hook *hook, const char *text, size_t length)
{
	for (size_t i = 0; i < length && !hook->flooded; i++) {
		hook->flooded = hook->printed++ == OUTPUT_LIMIT ||
				hook->lines == LINE_LIMIT;
		if (hook->flooded)
			break;
		if (text[i] != '\n')
			hook->line[hook->length++] =
				isprint((unsigned char)text[i]) ? text[i] : '?';
		if (text[i] == '\n' || hook->length == LINE_SIZE)
			report_line(hook);
	}
}

/* Reads once; @output is non-blocking. Returns false when there is no more. */
static bool read_output(struct hook *hook)
{
	char text[4096];
	ssize_t length;

	if (hook->output < 0)
		return false;
	length = read(hook->output, text, sizeof(text));
	if (length > 0) {
		take_output(hook, text, length);
		return true;
	}
	if (!length || errno != EAGAIN) {
		close(hook->output);
		hook->output = -1;
	}
	return false;
}

static void __attribute__((noreturn))
exec_hook(const char *path, const char *real, const struct hook *hook,
	  int output)
{
	char generation[64];
	char *argv[] = { (char *)path, NULL };
	char *envp[] = {
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8",
		generation, NULL
	};
	sigset_t none;

	snprintf(generation, sizeof(generation), "SYSGENID_GENERATION=%" PRIu64,
		 hook->generation);
	setpgid(0, 0);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	dup2(open("/dev/null", O_RDONLY), STDIN_FILENO);
	dup2(output, STDOUT_FILENO);
	dup2(output, STDERR_FILENO);
	if (!chdir("/"))
		execve(real, argv, envp);
	fprintf(stderr, "%s\n", strerror(errno));
	_exit(127);
}

static bool start_hook(const char *path, const char *real, struct hook *hook)
{
	int output[2];

	if (pipe2(output, O_CLOEXEC))
		return false;
	fcntl(output[0], F_SETFL, O_NONBLOCK);
	hook->output = output[0];
	hook->pid = fork();
	if (!hook->pid)
		exec_hook(path, real, hook, output[1]);
	close(output[1]);
	if (hook->pid > 0) {
		setpgid(hook->pid, hook->pid);
		hook->pidfd = pidfd_open(hook->pid, 0);
		if (hook->pidfd >= 0)
			return true;
		kill(-hook->pid, SIGKILL);
		waitpid(hook->pid, NULL, 0);
	}
	close(output[0]);
	return false;
}

/* Passes output on until the hook ends (true), or time or overseer do. */
static bool watch_hook(struct hook *hook, int64_t end, int signal_fd)
{
	struct pollfd polled[] = {
		{ .fd = hook->pidfd, .events = POLLIN },
		{ .fd = signal_fd, .events = POLLIN },
		{ .fd = hook->output, .events = POLLIN },
	};
	int64_t left;

	while ((left = end - now_ms()) > 0) {
		polled[2].fd = hook->output;
		if (poll(polled, 3, left) < 0 && errno != EINTR)
			return false;
		if (polled[0].revents)
			return true;
		if (polled[1].revents)
			return false;
		if (polled[2].revents)
			read_output(hook);
	}
	return false;
}

static void end_leftovers(const struct hook *hook, bool ended)
{
	struct leftovers left = end_children(ended ? GRACE : 0, PATIENCE);

	if (left.killed && ended)
		report(LOG_WARNING, "hook-leftover", hook->generation, hook->name,
		       "hook %s has left %u processes running, which were killed",
		       hook->name, left.killed);
	if (left.error)
		report(LOG_ERR, "hook-leftover", hook->generation, hook->name,
		       "what hook %s has left running is not known: %s: %s",
		       hook->name, CHILDREN, strerror(left.error));
	if (left.error && !ended && !wait_child(hook->pid, now_ms() + PATIENCE))
		left.stuck = hook->pid;
	if (left.stuck)
		report(LOG_ERR, "hook-stuck", hook->generation, hook->name,
		       "pid %d, which hook %s or one before it has started, can't be killed",
		       left.stuck, hook->name);
}

/*
 * Ends the hook and all that it has started; returns the wait status of one
 * that has ended by itself.
 */
static int end_hook(struct hook *hook, bool ended)
{
	int status = 0;

	if (ended) {
		waitpid(hook->pid, &status, 0);
	} else {
		kill(-hook->pid, SIGTERM);
		watch_hook(hook, now_ms() + PATIENCE, -1);
		kill(-hook->pid, SIGKILL);
	}
	end_leftovers(hook, ended);
	while (!hook->flooded && read_output(hook))
		;
	report_line(hook);
	if (hook->flooded)
		report(LOG_WARNING, "hook-flood", hook->generation, hook->name,
		       "hook %s printed more than %d bytes or %d lines, the rest is dropped",
		       hook->name, OUTPUT_LIMIT, LINE_LIMIT);
	if (hook->output >= 0)
		close(hook->output);
	close(hook->pidfd);
	return status;
}

static bool report_end(const struct hook *hook, int status)
{
	if (WIFEXITED(status) && !WEXITSTATUS(status)) {
		report(LOG_INFO, "hook-done", hook->generation, hook->name,
		       "hook %s is done", hook->name);
		return true;
	}
	report(LOG_ERR, "hook-failed", hook->generation, hook->name,
	       "hook %s failed: %s %d", hook->name,
	       WIFEXITED(status) ? "exit status" : "signal",
	       WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
	return false;
}

/* 1: good, 0: bad, -1: the overseer has to end */
static int run_hook(const struct hook_options *options, const char *name,
		    uint64_t generation)
{
	struct hook hook = { .name = name, .generation = generation };
	char path[PATH_MAX], real[PATH_MAX];
	const char *refused;
	bool ended;
	int status;

	snprintf(path, sizeof(path), "%s/%s", options->folder, name);
	refused = why_untrusted(path, S_IFREG, real);
	if (refused) {
		report(LOG_ERR, "hook-refused", generation, name,
		       "hook %s is not run: %s", path, refused);
		return 0;
	}
	if (!start_hook(path, real, &hook)) {
		report(LOG_ERR, "hook-failed", generation, name,
		       "hook %s can't be started: %s", path, strerror(errno));
		return 0;
	}

	ended = watch_hook(&hook, now_ms() + options->timeout * INT64_C(1000),
			   options->signal_fd);
	status = end_hook(&hook, ended);
	/* One that failed when all were told to end has to run again. */
	if (ended && (!status || !wait_readable(options->signal_fd, 0)))
		return report_end(&hook, status);
	if (wait_readable(options->signal_fd, 0))
		return -1;
	report(LOG_ERR, "hook-timeout", generation, name,
	       "hook %s was ended, as it took more than %d s", name,
	       options->timeout);
	return 0;
}

/* As run-parts(8) does it: no backups, no packages' leftovers. */
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

/* No folder is no hook; one that can't be used is worth a word. */
static int list_hooks(const char *folder, uint64_t generation,
		      struct dirent ***names)
{
	char real[PATH_MAX];
	const char *refused;
	struct stat status;
	int count = -1;

	/* A link that leads nowhere is something, and not what was meant. */
	if (lstat(folder, &status) && errno == ENOENT)
		return 0;
	refused = why_untrusted(folder, S_IFDIR, real);
	if (!refused)
		count = scandir(folder, names, is_hook, by_name);
	if (count < 0)
		report(LOG_ERR, "hook-refused", generation, NULL,
		       "no hook of %s is run: %s", folder,
		       refused ? refused : strerror(errno));
	return count;
}

/* Returns as run_hook(). */
static int try_hook(const struct hook_options *options, const char *name,
		    const char *state_path, struct state *state)
{
	if (wait_readable(options->signal_fd, 0))
		return -1;
	if (strcmp(name, state->tried)) {
		strcpy(state->tried, name);
		state->attempts = 0;
	}
	if (state->attempts >= MAX_ATTEMPTS) {
		report(LOG_ERR, "hook-failed", state->generation, name,
		       "hook %s is not run again, as it was cut short %u times",
		       name, state->attempts);
		return 0;
	}
	state->attempts++;
	save_state(state_path, state, fdatasync);
	return run_hook(options, name, state->generation);
}

bool run_hooks(const struct hook_options *options, const char *state_path,
	       struct state *state, struct hook_counts *counts)
{
	struct dirent **names = NULL;
	int count = list_hooks(options->folder, state->generation, &names);
	int result = 0;

	counts->bad += count < 0;
	for (int i = 0; i < count; i++) {
		const char *name = names[i]->d_name;

		if (result < 0 || strcmp(name, state->hook) <= 0)
			continue;
		result = try_hook(options, name, state_path, state);
		if (result < 0)
			continue;
		counts->good += result;
		counts->bad += !result;
		strcpy(state->hook, name);
		state->attempts = 0;
		save_state(state_path, state, syncfs);
	}
	for (int i = 0; i < count; i++)
		free(names[i]);
	free(names);
	return result >= 0;
}
