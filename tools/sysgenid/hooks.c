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
#include <time.h>
#include <unistd.h>

#include "overseer.h"

/* What is passed on of a hook's output, in bytes; the rest is counted. */
#define OUTPUT_LIMIT	65536
#define LINE_SIZE	1024
/* From SIGTERM to SIGKILL, in milliseconds. */
#define PATIENCE	5000

/*
 * A hook that is running.
 * @output: what it prints; -1 when it has closed that
 * @line: what it has printed since the last line's end
 */
struct hook {
	const char *name;
	uint64_t generation;
	pid_t pid;
	int pidfd;
	int output;
	char line[LINE_SIZE];
	size_t length;
	uint64_t printed;
};

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

static void report_line(struct hook *hook)
{
	if (hook->length)
		report(LOG_INFO, "hook-output", hook->generation, hook->name,
		       "hook %s: %.*s", hook->name, (int)hook->length,
		       hook->line);
	hook->length = 0;
}

static void take_output(struct hook *hook, const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++, hook->printed++) {
		if (hook->printed >= OUTPUT_LIMIT)
			continue;
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

/* Nobody but root may have a say in what root runs. */
static const char *why_refused(const struct stat *file)
{
	if (!S_ISREG(file->st_mode))
		return "it is not a file";
	if (file->st_uid)
		return "it does not belong to root";
	if (file->st_mode & S_IWOTH)
		return "everybody can write to it";
	if (file->st_mode & S_IWGRP && file->st_gid)
		return "a group other than root can write to it";
	if (!(file->st_mode & S_IXUSR))
		return "it is not executable";
	return NULL;
}

static void __attribute__((noreturn))
exec_hook(const char *path, const struct hook *hook, int output)
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
		execve(path, argv, envp);
	fprintf(stderr, "%s\n", strerror(errno));
	_exit(127);
}

static bool start_hook(const char *path, struct hook *hook)
{
	int output[2];

	if (pipe2(output, O_CLOEXEC))
		return false;
	fcntl(output[0], F_SETFL, O_NONBLOCK);
	hook->output = output[0];
	hook->pid = fork();
	if (!hook->pid)
		exec_hook(path, hook, output[1]);
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
		if (polled[0].revents) {
			while (hook->printed < OUTPUT_LIMIT && read_output(hook))
				;
			return true;
		}
		if (polled[1].revents)
			return false;
		if (polled[2].revents)
			read_output(hook);
	}
	return false;
}

/* Ends the hook and what it has started; returns its wait status. */
static int end_hook(struct hook *hook, bool ended)
{
	int status;

	if (!ended) {
		kill(-hook->pid, SIGTERM);
		if (!watch_hook(hook, now_ms() + PATIENCE, -1))
			kill(-hook->pid, SIGKILL);
	}
	waitpid(hook->pid, &status, 0);
	report_line(hook);
	if (hook->printed > OUTPUT_LIMIT)
		report(LOG_WARNING, "hook-flood", hook->generation, hook->name,
		       "hook %s printed more than %d bytes, the rest is dropped",
		       hook->name, OUTPUT_LIMIT);
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
	char path[PATH_MAX];
	const char *refused;
	struct stat file;
	bool ended;
	int status;

	snprintf(path, sizeof(path), "%s/%s", options->folder, name);
	refused = stat(path, &file) ? strerror(errno) : why_refused(&file);
	if (refused) {
		report(LOG_ERR, "hook-refused", generation, name,
		       "hook %s is not run: %s", path, refused);
		return 0;
	}
	if (!start_hook(path, &hook)) {
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

/* The folder is trusted no more than a hook in it. */
static int list_hooks(const char *folder, uint64_t generation,
		      struct dirent ***names)
{
	struct stat status;

	if (stat(folder, &status))
		return 0;
	if (status.st_uid || status.st_mode & S_IWOTH ||
	    (status.st_mode & S_IWGRP && status.st_gid)) {
		report(LOG_ERR, "hook-refused", generation, NULL,
		       "no hook is run: others than root can write to %s", folder);
		return 0;
	}
	return scandir(folder, names, is_hook, by_name);
}

bool run_hooks(const struct hook_options *options, const char *state_path,
	       struct state *state, struct hook_counts *counts)
{
	struct dirent **names = NULL;
	int count = list_hooks(options->folder, state->generation, &names);
	int result = 0;

	for (int i = 0; i < count; i++) {
		const char *name = names[i]->d_name;

		if (result < 0 || strcmp(name, state->hook) <= 0)
			continue;
		result = run_hook(options, name, state->generation);
		if (result < 0)
			continue;
		counts->good += result;
		counts->bad += !result;
		strcpy(state->hook, name);
		save_state(state_path, state);
	}
	for (int i = 0; i < count; i++)
		free(names[i]);
	free(names);
	return result >= 0;
}
