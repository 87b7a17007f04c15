// SPDX-License-Identifier: GPL-2.0
/*
 * The guest's first process. It runs the host's commands, which come over a second
 * serial port, and sends back their output and exit status. channel.py is the other end.
 * The agent uses no CPU time while it is idle, and survives snapshot and restore.
 *
 * From the host:  "run ID LENGTH\n" and that many bytes of shell script,
 *                 "kill ID SIGNAL\n"
 * To the host:    "ready\n" once, "out ID LENGTH\n" and that many bytes,
 *                 "exit ID STATUS\n" (128 + signal if one killed it)
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define MAX_JOBS	32
#define MAX_SCRIPT	65536

struct job {
	int id;
	pid_t pid;	/* 0: this entry is free */
	int output;	/* the pipe from its stdout and stderr; -1: closed */
};

static struct job jobs[MAX_JOBS];
static int port;

static void send_bytes(const char *bytes, size_t length)
{
	while (length) {
		ssize_t sent = write(port, bytes, length);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			err(1, "writing to the host");
		bytes += sent;
		length -= sent;
	}
}

__attribute__((format(printf, 1, 2)))
static void send_line(const char *format, ...)
{
	char line[64];
	va_list args;
	int length;

	va_start(args, format);
	length = vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	send_bytes(line, length);
}

/* Reads from the host. The read may block, as the host always sends whole messages. */
static void receive(char *buffer, size_t length)
{
	while (length) {
		ssize_t got = read(port, buffer, length);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			err(1, "reading from the host");
		buffer += got;
		length -= got;
	}
}

static void receive_line(char *line, size_t size)
{
	size_t i = 0;

	do {
		if (i == size - 1)
			errx(1, "the host sent too long a line");
		receive(&line[i], 1);
	} while (line[i++] != '\n');
	line[i] = '\0';
}

static void become(const char *script, int output)
{
	sigset_t none;
	int input = open("/dev/null", O_RDONLY);

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setsid();
	dup2(input, 0);
	dup2(output, 1);
	dup2(output, 2);
	execl("/bin/sh", "sh", "-c", script, NULL);
	err(127, "/bin/sh");
}

static void run(int id, const char *script)
{
	struct job *job = jobs;
	int ends[2];

	while (job < jobs + MAX_JOBS && job->pid)
		job++;
	if (job == jobs + MAX_JOBS || pipe2(ends, O_CLOEXEC)) {
		send_line("exit %d 126\n", id);
		return;
	}
	job->id = id;
	job->output = ends[0];
	job->pid = fork();
	if (job->pid < 0)
		err(1, "fork");
	if (!job->pid)
		become(script, ends[1]);
	close(ends[1]);
	fcntl(job->output, F_SETFL, O_NONBLOCK);
}

static void signal_job(int id, int number)
{
	for (struct job *job = jobs; job < jobs + MAX_JOBS; job++)
		if (job->pid && job->id == id)
			kill(-job->pid, number);
}

static void handle_message(void)
{
	static char script[MAX_SCRIPT + 1];
	char line[64];
	int id, number;

	receive_line(line, sizeof(line));
	if (sscanf(line, "run %d %d", &id, &number) == 2) {
		if (number < 0 || number > MAX_SCRIPT)
			errx(1, "a script of %d bytes", number);
		receive(script, number);
		script[number] = '\0';
		run(id, script);
	} else if (sscanf(line, "kill %d %d", &id, &number) == 2) {
		signal_job(id, number);
	} else {
		errx(1, "the host sent: %s", line);
	}
}

/* Forwards pending output. A job's output ends when all its processes have closed it. */
static void forward(struct job *job)
{
	char buffer[4096];
	ssize_t got;

	while ((got = read(job->output, buffer, sizeof(buffer))) > 0) {
		send_line("out %d %zd\n", job->id, got);
		send_bytes(buffer, got);
	}
	if (got == 0) {
		close(job->output);
		job->output = -1;
	}
}

static void finish(struct job *job, int status)
{
	if (job->output >= 0)
		forward(job);
	if (job->output >= 0)
		close(job->output);
	send_line("exit %d %d\n", job->id,
		  WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
	job->pid = 0;
}

static void reap(int children)
{
	struct signalfd_siginfo info;
	int status;
	pid_t pid;

	if (read(children, &info, sizeof(info)) < 0)
		err(1, "signalfd");
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (struct job *job = jobs; job < jobs + MAX_JOBS; job++)
			if (job->pid == pid)
				finish(job, status);
}

static int watch_children(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC);
}

static int open_port(const char *path)
{
	struct termios raw;
	int fd = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);

	if (fd < 0 || tcgetattr(fd, &raw))
		err(1, "%s", path);
	cfmakeraw(&raw);
	raw.c_cflag |= CLOCAL;
	tcsetattr(fd, TCSANOW, &raw);
	return fd;
}

int main(int argc, char **argv)
{
	struct pollfd fds[2 + MAX_JOBS];

	if (argc != 2)
		errx(2, "usage: agent PORT");
	port = open_port(argv[1]);
	fds[0] = (struct pollfd){ .fd = port, .events = POLLIN };
	fds[1] = (struct pollfd){ .fd = watch_children(), .events = POLLIN };
	send_line("ready\n");
	for (;;) {
		for (int i = 0; i < MAX_JOBS; i++)
			fds[2 + i] = (struct pollfd){
				.fd = jobs[i].pid ? jobs[i].output : -1,
				.events = POLLIN,
			};
		if (poll(fds, 2 + MAX_JOBS, -1) < 0 && errno != EINTR)
			err(1, "poll");
		for (int i = 0; i < MAX_JOBS; i++)
			if (fds[2 + i].revents)
				forward(&jobs[i]);
		if (fds[1].revents)
			reap(fds[1].fd);
		if (fds[0].revents)
			handle_message();
	}
}
