// SPDX-License-Identifier: GPL-2.0
/*
 * sysgenid(8): shows the system's generation, waits for changes, starts new
 * generations, waits until the system has settled, and runs hooks.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sysgenid.h>

#include "command.h"
#include "overseer.h"
#include "system.h"
#include "text.h"

#define MAX_LAGGARDS	64
/* The longest delay before `run` tries again, in seconds */
#define MAX_PAUSE	64

/* Interval between reads of the overseer's record, in milliseconds */
#define LOOK_EVERY	50
/* The longest single wait for watchers, in milliseconds */
#define SLICE		500

struct command {
	const char *name;
	const char *options;	/* the letters of the options that it takes */
	bool takes_words;
	const char *help;
	int (*run)(const struct options *options);
};

static const struct command commands[];

/* Prints errors as JSON. */
static bool json_errors;

/* Prints one line, and flushes it: readers of a pipe get it at once. */
void print_json(json_object *object)
{
	puts(json_line(object));
	json_object_put(object);
	fflush(stdout);
}

void die(int status, const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (json_errors && !ferror(stdout)) {
		json_object *object = json_object_new_object();

		json_object_object_add(object, "error",
				       json_object_new_string(text));
		json_object_object_add(object, "status",
				       json_object_new_int(status));
		print_json(object);
	} else {
		fflush(stdout);
		fprintf(stderr, "sysgenid: %s\n", text);
	}
	exit(status);
}

/* Reports the failure of an operation that is not an error of usage. */
static void __attribute__((noreturn)) die_errno(const char *doing)
{
	int error = errno;

	if (error == ENODEV || error == ENOENT)
		die(EXIT_NO_DEVICE, "%s", explain_no_device(error));
	die(error == EACCES || error == EPERM ? EXIT_PERMISSION : EXIT_ERROR,
	    "%s failed: %s", doing, strerror(error));
}

void need_source(void)
{
	if (sysgenid_open())
		die(errno == EACCES ? EXIT_PERMISSION : EXIT_NO_DEVICE, "%s",
		    explain_no_device(errno));
}

uint64_t get_generation(void)
{
	uint64_t generation;

	need_source();
	if (sysgenid_barrier(&generation))
		die_errno("reading the generation");
	return generation;
}

/* Fails if the output could not be written. */
static void check_output(void)
{
	if (fflush(stdout) || ferror(stdout)) {
		json_errors = false;
		die(EXIT_ERROR, "writing the output failed: %s", strerror(errno));
	}
}

static void print_generation(const struct options *options, uint64_t generation)
{
	json_object *object;

	if (options->json) {
		object = json_object_new_object();
		json_object_object_add(object, "generation",
				       json_generation(generation));
		print_json(object);
	} else {
		printf("%" PRIu64 "\n", generation);
	}
	check_output();
}

static json_object *json_laggards(const struct laggard *laggards, size_t count)
{
	json_object *list = json_object_new_array();

	for (size_t i = 0; i < count; i++) {
		json_object *one = json_object_new_object();

		json_object_object_add(one, "pid",
				       json_object_new_int(laggards[i].pid));
		json_object_object_add(one, "fd",
				       json_object_new_int(laggards[i].fd));
		json_object_object_add(one, "acknowledged",
				       json_generation(laggards[i].acknowledged));
		json_object_object_add(one, "name",
				       json_object_new_string(laggards[i].name));
		json_object_array_add(list, one);
	}
	return list;
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

/* Returns the overseer's record if it describes this generation; or NULL. */
static json_object *record_of(uint64_t generation)
{
	json_object *record = read_record();
	uint64_t of;

	if (json_get_generation(json_object_object_get(record, "generation"), &of) &&
	    of == generation)
		return record;
	json_object_put(record);
	return NULL;
}

static const char *string_of(json_object *object, const char *name)
{
	const char *text = json_object_get_string(json_object_object_get(object, name));

	return text ? text : "";
}

static void print_output(const char *name, json_object *outputs)
{
	const char *line = string_of(outputs, name);

	while (*line) {
		int length = strcspn(line, "\n");

		printf("              | %.*s\n", length, line);
		line += length;
		line += *line == '\n';
	}
}

static void print_failures(FILE *out, json_object *record, json_object *outputs)
{
	json_object *failures = json_object_object_get(record, "failures");

	for (size_t i = 0; failures && i < json_object_array_length(failures); i++) {
		json_object *failure = json_object_array_get_idx(failures, i);

		fprintf(out, "failed        %s %s: %s (attempts: %s)\n",
			string_of(failure, "kind"), string_of(failure, "name"),
			string_of(failure, "reason"),
			string_of(failure, "attempts"));
		if (out == stdout)
			print_output(string_of(failure, "name"), outputs);
	}
}

/* Adds the overseer's record, and for root the output of failed hooks. */
static void add_record(json_object *status, json_object *record,
		       json_object *outputs)
{
	static const char * const names[] = {
		"hook", "hooks_done", "hooks_failed", "failures"
	};
	json_object *value;

	json_object_object_add(status, "state", json_object_new_string(
			       record ? string_of(record, "state") : "unknown"));
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (json_object_object_get_ex(record, names[i], &value))
			json_object_object_add(status, names[i],
					       json_object_get(value));
	if (outputs)
		json_object_object_add(status, "output", json_object_get(outputs));
}

static void print_status_json(uint64_t generation, const char *source,
			      const struct laggard *laggards, size_t count,
			      json_object *record, json_object *outputs)
{
	json_object *status = json_object_new_object();

	json_object_object_add(status, "generation", json_generation(generation));
	json_object_object_add(status, "source", json_object_new_string(source));
	json_object_object_add(status, "watchers",
			       json_object_new_int64(number_attribute("watchers")));
	json_object_object_add(status, "outdated",
			       json_object_new_int64(number_attribute("outdated")));
	json_object_object_add(status, "waiting_for",
			       json_laggards(laggards, count));
	json_object_object_add(status, "prepared", json_object_new_boolean(is_prepared()));
	add_record(status, record, outputs);
	print_json(status);
}

static void print_status(uint64_t generation, const char *source,
			 const struct laggard *laggards, size_t count,
			 json_object *record, json_object *outputs)
{
	unsigned long outdated = number_attribute("outdated");

	printf("generation    %" PRIu64 "\n", generation);
	printf("source        %s%s\n", source, strcmp(source, "none") ? "" :
	       " (only sysgenid trigger changes the generation)");
	printf("watchers      %lu tracked, %lu outdated\n",
	       number_attribute("watchers"), outdated);
	print_laggards(stdout, laggards, count);
	if (outdated > count && geteuid())
		puts("waiting for   other users' processes (run as root to list)");
	if (record)
		printf("overseer      %s %s(hooks: %s done, %s failed)\n",
		       string_of(record, "state"), string_of(record, "hook"),
		       string_of(record, "hooks_done"),
		       string_of(record, "hooks_failed"));
	else
		puts("overseer      not running, or not aware of this generation");
	print_failures(stdout, record, outputs);
	if (is_prepared())
		puts("prepared      for a snapshot: sysgenid prepare --undo");
}

static int do_status(const struct options *options)
{
	uint64_t generation = get_generation();
	struct laggard laggards[MAX_LAGGARDS];
	size_t count = number_attribute("outdated") ?
		       find_laggards(generation, laggards, MAX_LAGGARDS) : 0;
	json_object *record = record_of(generation);
	json_object *outputs = json_object_from_file(OUTPUT_PATH);
	char value[64];
	const char *source = source_name(value, sizeof(value));

	if (options->json)
		print_status_json(generation, source, laggards, count, record,
				  outputs);
	else
		print_status(generation, source, laggards, count, record, outputs);
	json_object_put(record);
	json_object_put(outputs);
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
		die(EXIT_PERMISSION, "no permission to be tracked: run as a member of the "
		    "group sysgenid, or as root");
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
		die(EXIT_TIMEOUT, "no new generation within the timeout");
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

/* Runs the command with SYSGENID_GENERATION in its environment. */
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
 * Ends if the reader of the output has gone, as with `head -n 1`. The next write
 * would show that, but the next generation may be years away.
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
			die(EXIT_ERROR, "writing the output failed: %s", strerror(EPIPE));
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
			die(EXIT_PERMISSION, "no permission: starting a generation needs "
			    "CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN outside of "
			    "containers (run as root)");
		if (errno == EINVAL)
			die(EXIT_ERROR, "--min=%" PRIu32 " exceeds the highest generation "
			    "that can be started",
			    options->minimum);
		if (errno == EOVERFLOW)
			die(EXIT_ERROR, "no more generations can be started: reboot this system");
		die_errno("starting a generation");
	}
	print_generation(options, get_generation());
	return 0;
}

enum settled { NOT_SETTLED, SETTLED, SETTLED_FAILED };

/*
 * Returns the overseer's result for the current generation, or @without if no
 * overseer has published a record for this counter.
 */
static enum settled look_settled(enum settled without)
{
	json_object *record = read_record();
	uint64_t generation;
	const char *state;
	enum settled settled = NOT_SETTLED;
	bool changed = identity_has_changed();

	if (!record)
		return without;
	state = string_of(record, "state");
	if (!changed && json_get_generation(json_object_object_get(record, "generation"),
				&generation) && generation == get_generation())
		settled = !strcmp(state, "settled") ? SETTLED :
			  !strcmp(state, "failed") ? SETTLED_FAILED : NOT_SETTLED;
	json_object_put(record);
	return settled;
}

/* Returns @pause, or the time until @end if that is shorter, in milliseconds. */
static int slice(int64_t end, int pause)
{
	int64_t left = end - now_ms();

	return left < 0 ? 0 : left < pause ? (int)left : pause;
}

static enum settled wait_settled(int timeout, enum settled without)
{
	int64_t end = timeout < 0 ? INT64_MAX : now_ms() + timeout;
	enum settled settled;

	for (;;) {
		bool over = now_ms() >= end;

		settled = NOT_SETTLED;
		/* Without the device, there are no watchers to wait for. */
		if (!sysgenid_wait_watchers(slice(end, SLICE)) || errno == ENODEV)
			settled = look_settled(without);
		else if (errno != ETIME && errno != ESTALE)
			die_errno("waiting for the watchers");
		if (settled != NOT_SETTLED || over)
			return settled;
		poll(NULL, 0, slice(end, LOOK_EVERY));
	}
}

static void report_settled(const struct options *options, enum settled settled)
{
	uint64_t generation = get_generation();
	struct laggard laggards[MAX_LAGGARDS];
	size_t count = settled == NOT_SETTLED ?
		       find_laggards(generation, laggards, MAX_LAGGARDS) : 0;
	json_object *record = record_of(generation);

	if (options->json) {
		json_object *object = json_object_new_object();

		json_object_object_add(object, "generation",
				       json_generation(generation));
		json_object_object_add(object, "settled",
				       json_object_new_boolean(settled != NOT_SETTLED));
		json_object_object_add(object, "waiting_for",
				       json_laggards(laggards, count));
		add_record(object, record, NULL);
		print_json(object);
	} else {
		print_laggards(stderr, laggards, count);
		if (settled == NOT_SETTLED && record)
			fprintf(stderr, "waiting for   the overseer: %s %s\n",
				string_of(record, "state"),
				string_of(record, "hook"));
		print_failures(stderr, record, NULL);
	}
	json_object_put(record);
}

static int do_wait_watchers(const struct options *options)
{
	enum settled settled;

	need_source();
	if (sysgenid_get_source() == SYSGENID_SOURCE_VMCLOCK) {
		errno = ENODEV;
		die_errno("waiting for the watchers");
	}
	settled = wait_settled(options->timeout, SETTLED);
	report_settled(options, settled);
	return settled == NOT_SETTLED ? EXIT_TIMEOUT : 0;
}

static int do_wait_settled(const struct options *options)
{
	enum settled settled;

	need_source();
	settled = wait_settled(options->timeout, NOT_SETTLED);
	if (settled == NOT_SETTLED && !options->json && !record_of(get_generation()))
		fputs("sysgenid: the overseer has not handled this generation: "
		      "systemctl start sysgenidd\n", stderr);
	report_settled(options, settled);
	return settled == NOT_SETTLED ? EXIT_TIMEOUT :
	       settled == SETTLED ? 0 : EXIT_SETTLED_FAILED;
}

/*
 * The command line
 */

static const struct command commands[] = {
	{ "status", "j", false, "show the generation, and which watchers are late",
	  do_status },
	{ "get", "j", false, "check the hardware, then print the generation",
	  do_get },
	{ "wait", "jft", false, "wait for a new generation and print it",
	  do_wait },
	{ "watch", "j", true, "print each new generation, or run COMMAND for it",
	  do_watch },
	{ "run", "", true, "run COMMAND for each, as a watcher that the system waits for",
	  do_run },
	{ "trigger", "jm", false, "start a new generation", do_trigger },
	{ "wait-watchers", "jt", false, "wait until all tracked watchers are done",
	  do_wait_watchers },
	{ "wait-settled", "jt", false, "wait until the system has settled; report failed hooks and units",
	  do_wait_settled },
	{ "hooks", "jn", true, "list hooks, or run them: hooks run [NAME…]",
	  do_hooks },
	{ "prepare", "nu", false, "run hooks that prepare for a snapshot, or undo that",
	  do_prepare },
	{ "seal", "jlnrbY", false, "turn the system into a template: remove what must be unique",
	  do_seal },
	{ "gate", "", true, "report to the host, through PORT, whether the system has settled",
	  do_gate },
};

#define N_COMMANDS	(sizeof(commands) / sizeof(*commands))

static const struct option long_options[] = {
	{ "json", no_argument, NULL, 'j' },
	{ "from", required_argument, NULL, 'f' },
	{ "timeout", required_argument, NULL, 't' },
	{ "min", required_argument, NULL, 'm' },
	{ "dry-run", no_argument, NULL, 'n' },
	{ "list", no_argument, NULL, 'l' },
	{ "root", required_argument, NULL, 'r' },
	{ "undo", no_argument, NULL, 'u' },
	{ "first-boot", no_argument, NULL, 'b' },
	{ "yes", no_argument, NULL, 'Y' },
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
	     "  --timeout=S    (wait, wait-watchers, wait-settled) at most S seconds; exit status 5\n"
	     "  --min=N        (trigger) at least generation N\n"
	     "  --dry-run      (hooks run, prepare, seal) only print what would be done\n"
	     "  --undo         (prepare) undo what the hooks did\n"
	     "  --list         (seal) list what is removed, and how a copy gets its own\n"
	     "  --root=DIR     (seal) the system in DIR, such as a mounted image\n"
	     "  --yes          (seal) confirm the removal\n"
	     "  --version      print the version\n\n"
	     "See sysgenid(8).");
	return 0;
}

static const struct command *find_command(const char *name)
{
	for (size_t i = 0; i < N_COMMANDS; i++)
		if (!strcmp(name, commands[i].name))
			return &commands[i];
	die(EXIT_USAGE, "unknown command %s; sysgenid --help lists the commands",
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
		die(EXIT_USAGE, "%s=%s: use a number from 0 to %" PRIu64,
		    option, text, max);
	return number;
}

static int parse_timeout(const char *text)
{
	char *end;
	double seconds = strtod(text, &end);

	if (end == text || *end || !(seconds >= 0 && seconds <= 2000000))
		die(EXIT_USAGE, "--timeout=%s: use seconds from 0 to 2000000",
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
	else if (option == 'n')
		options->dry_run = true;
	else if (option == 'u')
		options->undo = true;
	else if (option == 'l')
		options->list = true;
	else if (option == 'r')
		options->root = optarg;
	else if (option == 'b')
		options->first_boot = true;
	else if (option == 'Y')
		options->yes = true;
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
	while ((option = getopt_long(argc, argv, command->run == do_hooks ? ":h" : "+:h",
				     long_options, NULL)) != -1) {
		if (option == 'h')
			exit(print_help());
		if (option == ':')
			die(EXIT_USAGE, "%s needs a value", argv[optind - 1]);
		if (option == '?' && optopt && !strchr(argv[optind - 1], '='))
			die(EXIT_USAGE, "unknown option -%c; see sysgenid --help",
			    optopt);
		if (option == '?')
			die(EXIT_USAGE, "unknown option %s; see sysgenid --help",
			    argv[optind - 1]);
		parse_option(command, option, options);
	}
	options->command = argv + optind;
	if (options->command[0] && !command->takes_words)
		die(EXIT_USAGE, "%s takes no argument %s", command->name,
		    options->command[0]);
	if (!options->command[0] && command->run == do_run)
		die(EXIT_USAGE, "run needs a program: sysgenid run -- PROGRAM");
	if (options->command[0] && options->json && command->run == do_watch)
		die(EXIT_USAGE, "--json and a program exclude each other");
}

/* Errors before --json on the command line must be JSON, too. */
static bool wants_json(char **argv)
{
	bool program = !strcmp(argv[1], "watch") || !strcmp(argv[1], "run");

	for (char **word = argv + 2; *word && strcmp(*word, "--"); word++) {
		if (!strcmp(*word, "--json"))
			return true;
		/* The rest of the words are the program's options. */
		if (program && **word != '-')
			break;
	}
	return false;
}

int main(int argc, char **argv)
{
	struct options options = { .timeout = -1 };
	const struct command *command;
	int status;

	/* The command reports a missing device itself. */
	sysgenid_set_log(NULL);
	if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") ||
			 !strcmp(argv[1], "help")))
		return print_help();
	if (argc > 1 && !strcmp(argv[1], "--version")) {
		puts("sysgenid " VERSION);
		check_output();
		return 0;
	}
	json_errors = argc > 1 && wants_json(argv);
	if (argc < 2)
		die(EXIT_USAGE, "a command is needed; sysgenid --help lists them");
	command = find_command(argv[1]);
	parse(command, argc - 1, argv + 1, &options);
	status = command->run(&options);
	check_output();
	return status;
}
