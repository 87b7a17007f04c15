// SPDX-License-Identifier: GPL-2.0
/*
 * sysgenid(8): shows the system's generation, waits for changes of it, starts
 * new ones, and waits for those that have to adjust.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sysgenid.h>

#include "system.h"

#define MAX_LAGGARDS	64
/* The longest pause of `run` before it tries again, in seconds. */
#define MAX_PAUSE	64

/* What the command line says. */
struct options {
	bool json;
	bool has_from;
	uint64_t from;
	uint32_t minimum;
	int timeout;		/* in milliseconds; -1: for ever */
	char **command;		/* after --; its first is NULL if there is none */
};

struct command {
	const char *name;
	const char *options;	/* the letters of those it takes */
	bool takes_command;
	const char *help;
	int (*run)(const struct options *options);
};

static const struct command commands[];

/* Errors are for programs, too. */
static bool json_errors;

static void print_json_string(const char *string)
{
	putchar('"');
	for (; *string; string++) {
		unsigned char c = *string;

		if (c == '"' || c == '\\')
			printf("\\%c", c);
		else if (c < 0x20 || c > 0x7e)
			printf("\\u%04x", c);
		else
			putchar(c);
	}
	putchar('"');
}

static void __attribute__((noreturn, format(printf, 2, 3)))
die(int status, const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (json_errors && !ferror(stdout)) {
		printf("{\"error\": ");
		print_json_string(text);
		printf(", \"status\": %d}\n", status);
		fflush(stdout);
	} else {
		fflush(stdout);
		fprintf(stderr, "sysgenid: %s\n", text);
	}
	exit(status);
}

/* For what may fail, if nothing is wrong with the command line. */
static void __attribute__((noreturn)) die_errno(const char *doing)
{
	int error = errno;

	if (error == ENODEV || error == ENOENT)
		die(EXIT_NO_DEVICE, "%s", explain_no_device(error));
	die(error == EACCES || error == EPERM ? EXIT_PERMISSION : EXIT_ERROR,
	    "%s: %s", doing, strerror(error));
}

static void need_source(void)
{
	if (sysgenid_open())
		die(errno == EACCES ? EXIT_PERMISSION : EXIT_NO_DEVICE, "%s",
		    explain_no_device(errno));
}

static uint64_t get_generation(void)
{
	uint64_t generation;

	need_source();
	if (sysgenid_barrier(&generation))
		die_errno("asking for the generation");
	return generation;
}

/* One line that reaches who reads it at once, through a pipe too. */
static void print_generation(const struct options *options, uint64_t generation)
{
	printf(options->json ? "{\"generation\": %" PRIu64 "}\n" :
			       "%" PRIu64 "\n", generation);
	if (fflush(stdout))
		die(EXIT_ERROR, "writing the output: %s", strerror(errno));
}

static void print_json_laggards(const struct laggard *laggards, size_t count)
{
	printf("\"waiting_for\": [");
	for (size_t i = 0; i < count; i++) {
		printf("%s{\"pid\": %d, \"fd\": %d, \"acknowledged\": %" PRIu32
		       ", \"name\": ", i ? ", " : "", laggards[i].pid,
		       laggards[i].fd, laggards[i].acknowledged);
		print_json_string(laggards[i].name);
		putchar('}');
	}
	putchar(']');
}

static void print_laggards(FILE *out, const struct laggard *laggards,
			   size_t count)
{
	for (size_t i = 0; i < count; i++)
		fprintf(out, "waiting for   %s, pid %d, descriptor %d: acknowledged %"
			PRIu32 "\n", laggards[i].name, laggards[i].pid,
			laggards[i].fd, laggards[i].acknowledged);
}

static const char *source_name(char *value, size_t size)
{
	if (sysgenid_get_source() == SYSGENID_SOURCE_VMCLOCK)
		return "vmclock";
	return read_attribute("source", value, size) ? value : "unknown";
}

static unsigned long number_attribute(const char *name)
{
	char value[32];

	return read_attribute(name, value, sizeof(value)) ?
	       strtoul(value, NULL, 10) : 0;
}

static int do_status(const struct options *options)
{
	uint64_t generation = get_generation();
	unsigned long watchers = number_attribute("watchers");
	unsigned long outdated = number_attribute("outdated");
	struct laggard laggards[MAX_LAGGARDS];
	size_t count = outdated ?
		       find_laggards(generation, laggards, MAX_LAGGARDS) : 0;
	char value[64];
	const char *source = source_name(value, sizeof(value));

	if (options->json) {
		printf("{\"generation\": %" PRIu64 ", \"source\": ", generation);
		print_json_string(source);
		printf(", \"watchers\": %lu, \"outdated\": %lu, ", watchers,
		       outdated);
		print_json_laggards(laggards, count);
		puts("}");
		return 0;
	}
	printf("generation    %" PRIu64 "\n", generation);
	printf("source        %s%s\n", source, strcmp(source, "none") ? "" :
	       " (only sysgenid trigger changes the generation)");
	printf("watchers      %lu tracked, %lu outdated\n", watchers, outdated);
	print_laggards(stdout, laggards, count);
	if (outdated > count && geteuid())
		puts("waiting for   others' processes, which root is shown");
	return 0;
}

static int do_get(const struct options *options)
{
	print_generation(options, get_generation());
	return 0;
}

static struct sysgenid_watcher *new_watcher(unsigned int flags)
{
	struct sysgenid_watcher *watcher;

	need_source();
	watcher = sysgenid_watcher_new(flags);
	if (!watcher && errno == EACCES)
		die(EXIT_PERMISSION, "no permission: to be waited for takes "
		    "membership of the group sysgenid, or root");
	if (!watcher)
		die_errno("watching the generation");
	return watcher;
}

static uint64_t wait_for_change(struct sysgenid_watcher *watcher, int timeout)
{
	uint64_t generation;
	int ret = sysgenid_watcher_wait(watcher, timeout, &generation);

	if (ret < 0)
		die_errno("waiting for a new generation");
	if (!ret && json_errors)
		die(EXIT_TIMEOUT, "the time is over");
	if (!ret)
		exit(EXIT_TIMEOUT);
	return generation;
}

static int do_wait(const struct options *options)
{
	struct sysgenid_watcher *watcher = new_watcher(0);
	uint64_t generation = get_generation();

	if (!options->has_from || generation == options->from)
		generation = wait_for_change(watcher, options->timeout);
	print_generation(options, generation);
	return 0;
}

/* Runs the command with the generation in its environment. */
static int run_command(char **argv, uint64_t generation)
{
	char number[32];
	int status;
	pid_t child;

	fflush(stdout);
	snprintf(number, sizeof(number), "%" PRIu64, generation);
	child = fork();
	if (child < 0)
		die_errno("starting a process");
	if (!child) {
		setenv("SYSGENID_GENERATION", number, 1);
		execvp(argv[0], argv);
		fprintf(stderr, "sysgenid: %s: %s\n", argv[0], strerror(errno));
		_exit(errno == ENOENT ? 127 : 126);
	}
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			die_errno("waiting for the command");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void acknowledge(struct sysgenid_watcher *watcher, uint64_t generation)
{
	if (sysgenid_watcher_ack(watcher, generation) && errno != ESTALE)
		die_errno("acknowledging the generation");
}

/*
 * Ends if nobody reads what is printed any more, as `head -n 1` does not after
 * a line: the next one may be years away.
 */
static uint64_t wait_with_reader(struct sysgenid_watcher *watcher)
{
	struct pollfd polled[2] = {
		{ .fd = sysgenid_watcher_fd(watcher), .events = POLLIN },
		{ .fd = STDOUT_FILENO },
	};
	uint64_t generation;
	int ret;

	while (!(ret = sysgenid_watcher_wait(watcher, 0, &generation))) {
		if (poll(polled, 2, -1) >= 0 &&
		    polled[1].revents & (POLLERR | POLLHUP)) {
			raise(SIGPIPE);
			die(EXIT_ERROR, "writing the output: %s", strerror(EPIPE));
		}
	}
	if (ret < 0)
		die_errno("waiting for a new generation");
	return generation;
}

static int __attribute__((noreturn)) do_watch(const struct options *options)
{
	struct sysgenid_watcher *watcher = new_watcher(0);

	for (;;) {
		uint64_t generation = options->command[0] ?
				      wait_for_change(watcher, -1) :
				      wait_with_reader(watcher);
		int status = 0;

		acknowledge(watcher, generation);
		if (options->command[0])
			status = run_command(options->command, generation);
		else
			print_generation(options, generation);
		if (status)
			fprintf(stderr, "sysgenid: generation %" PRIu64
				": %s ended with %d\n", generation,
				options->command[0], status);
	}
}

static int do_run(const struct options *options)
{
	struct sysgenid_watcher *watcher = new_watcher(SYSGENID_TRACKED);
	unsigned int pause = 1;

	for (;;) {
		uint64_t generation = wait_for_change(watcher, -1);
		int status = run_command(options->command, generation);

		if (!status) {
			acknowledge(watcher, generation);
			pause = 1;
			continue;
		}
		if (status == 126 || status == 127)
			return status;
		fprintf(stderr, "sysgenid: generation %" PRIu64
			" is not acknowledged: %s ended with %d; trying again in %u s\n",
			generation, options->command[0], status, pause);
		sleep(pause);
		if (pause < MAX_PAUSE)
			pause *= 2;
	}
}

static int do_trigger(const struct options *options)
{
	need_source();
	if (sysgenid_trigger(options->minimum)) {
		if (errno == EACCES)
			die(EXIT_PERMISSION, "no permission: to start a generation takes "
			    "CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN outside of "
			    "containers, as root has");
		if (errno == EINVAL)
			die(EXIT_ERROR, "--min %" PRIu32 " is more than can be started",
			    options->minimum);
		if (errno == EOVERFLOW)
			die(EXIT_ERROR, "the generations that can be started are used up");
		die_errno("starting a generation");
	}
	print_generation(options, get_generation());
	return 0;
}

static int do_wait_watchers(const struct options *options)
{
	struct laggard laggards[MAX_LAGGARDS];
	size_t count = 0;
	bool settled;

	need_source();
	do
		settled = !sysgenid_wait_watchers(options->timeout);
	while (!settled && errno == ESTALE && options->timeout < 0);

	if (!settled && errno != ETIME && errno != ESTALE)
		die_errno("waiting for the watchers");
	if (!settled)
		count = find_laggards(get_generation(), laggards, MAX_LAGGARDS);
	if (options->json) {
		printf("{\"generation\": %" PRIu64 ", \"settled\": %s, ",
		       get_generation(), settled ? "true" : "false");
		print_json_laggards(laggards, count);
		puts("}");
	} else {
		print_laggards(stderr, laggards, count);
	}
	return settled ? 0 : EXIT_TIMEOUT;
}

/*
 * The command line
 */

static const struct command commands[] = {
	{ "status", "j", false, "what the generation is, and who is waited for",
	  do_status },
	{ "get", "j", false, "print the generation, after a look at the hardware",
	  do_get },
	{ "wait", "jft", false, "wait for a new generation and print it",
	  do_wait },
	{ "watch", "j", true, "print each new generation, or run COMMAND for it",
	  do_watch },
	{ "run", "", true, "run COMMAND for each, and be waited for until it succeeds",
	  do_run },
	{ "trigger", "jm", false, "start a new generation", do_trigger },
	{ "wait-watchers", "jt", false, "wait until all that are waited for are done",
	  do_wait_watchers },
};

#define N_COMMANDS	(sizeof(commands) / sizeof(*commands))

static const struct option long_options[] = {
	{ "json", no_argument, NULL, 'j' },
	{ "from", required_argument, NULL, 'f' },
	{ "timeout", required_argument, NULL, 't' },
	{ "min", required_argument, NULL, 'm' },
	{ "help", no_argument, NULL, 'h' },
	{ }
};

static int print_help(void)
{
	puts("Usage: sysgenid COMMAND [OPTIONS] [-- PROGRAM [ARGUMENTS]]\n");
	for (size_t i = 0; i < N_COMMANDS; i++)
		printf("  %-15s%s\n", commands[i].name, commands[i].help);
	puts("\n"
	     "  --json         print JSON\n"
	     "  --from=N       (wait) return at once if the generation is not N\n"
	     "  --timeout=S    (wait, wait-watchers) at most S seconds; exit status 5\n"
	     "  --min=N        (trigger) at least generation N\n\n"
	     "See sysgenid(8).");
	return 0;
}

static const struct command *find_command(const char *name)
{
	for (size_t i = 0; i < N_COMMANDS; i++)
		if (!strcmp(name, commands[i].name))
			return &commands[i];
	die(EXIT_USAGE, "there is no command %s; sysgenid --help lists them",
	    name);
}

static uint64_t parse_number(const char *option, const char *text, uint64_t max)
{
	char *end;
	uint64_t number;

	errno = 0;
	number = strtoull(text, &end, 10);
	if (errno || end == text || *end || *text < '0' || *text > '9' ||
	    number > max)
		die(EXIT_USAGE, "%s=%s: a number from 0 to %" PRIu64 " is needed",
		    option, text, max);
	return number;
}

static int parse_timeout(const char *text)
{
	char *end;
	double seconds = strtod(text, &end);

	if (end == text || *end || !(seconds >= 0 && seconds <= 2000000))
		die(EXIT_USAGE, "--timeout=%s: seconds from 0 to 2000000 are needed",
		    text);
	return (int)(seconds * 1000);
}

static void parse_option(const struct command *command, int option,
			 struct options *options)
{
	if (!strchr(command->options, option))
		die(EXIT_USAGE, "%s takes no such option; see sysgenid --help",
		    command->name);
	if (option == 'j')
		options->json = true;
	else if (option == 't')
		options->timeout = parse_timeout(optarg);
	else if (option == 'm')
		options->minimum = parse_number("--min", optarg, UINT32_MAX);
	else if (option == 'f')
		options->from = parse_number("--from", optarg, UINT64_MAX);
	options->has_from |= option == 'f';
}

static void parse(const struct command *command, int argc, char **argv,
		  struct options *options)
{
	int option;

	opterr = 0;
	while ((option = getopt_long(argc, argv, "+:h", long_options, NULL)) != -1) {
		if (option == 'h')
			exit(print_help());
		if (option == ':')
			die(EXIT_USAGE, "%s needs a value", argv[optind - 1]);
		if (option == '?' && optopt && !strchr(argv[optind - 1], '='))
			die(EXIT_USAGE, "there is no option -%c; see sysgenid --help",
			    optopt);
		if (option == '?')
			die(EXIT_USAGE, "there is no option %s; see sysgenid --help",
			    argv[optind - 1]);
		parse_option(command, option, options);
	}
	options->command = argv + optind;
	if (options->command[0] && !command->takes_command)
		die(EXIT_USAGE, "%s takes no argument %s", command->name,
		    options->command[0]);
	if (!options->command[0] && command->run == do_run)
		die(EXIT_USAGE, "run needs a program: sysgenid run -- PROGRAM");
	if (options->command[0] && options->json)
		die(EXIT_USAGE, "--json and a program exclude each other");
}

/* Errors that come before --json on the command line are to be JSON too. */
static bool wants_json(char **argv)
{
	bool program = !strcmp(argv[1], "watch") || !strcmp(argv[1], "run");

	for (char **word = argv + 2; *word && strcmp(*word, "--"); word++) {
		if (!strcmp(*word, "--json"))
			return true;
		/* What follows are its own options. */
		if (program && **word != '-')
			break;
	}
	return false;
}

int main(int argc, char **argv)
{
	struct options options = { .timeout = -1 };
	const struct command *command;

	/* What it has to say about that, it says itself. */
	sysgenid_set_log(NULL);
	if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") ||
			 !strcmp(argv[1], "help")))
		return print_help();
	json_errors = argc > 1 && wants_json(argv);
	if (argc < 2)
		die(EXIT_USAGE, "a command is needed; sysgenid --help lists them");
	command = find_command(argv[1]);
	parse(command, argc - 1, argv + 1, &options);
	return command->run(&options);
}
