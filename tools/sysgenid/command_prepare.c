// SPDX-License-Identifier: GPL-2.0
/*
 * sysgenid prepare: runs hooks that prepare for a snapshot, or undoes that.
 */
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "command.h"
#include "overseer.h"
#include "system.h"

static void note_thawed(const struct hook_run *run, enum hook_result result,
			void *failed)
{
	if (result == HOOK_DONE)
		return;
	fprintf(stderr, "sysgenid: undoing %s failed: %s\n", run->name, run->why);
	*(bool *)failed = true;
}

/* Returns false if a hook could not undo its preparation. */
static bool undo(uint64_t previous)
{
	struct hook_run like = {
		.generation = get_generation(), .previous = previous,
		.timeout = HOOK_TIMEOUT,
	};
	bool failed = false;

	return prepare_undo(&like, HOOK_ATTEMPTS, note_thawed, &failed) && !failed;
}

/* Runs one hook, and prints its output to stderr. */
static bool freeze(const char *name, uint64_t generation, json_object *begun)
{
	struct hook_run run = {
		.name = name, .generation = generation, .previous = generation,
		.timeout = HOOK_TIMEOUT,
	};
	bool done = prepare_run(&run, begun);

	if (has_to_end())
		fprintf(stderr, "sysgenid: interrupted in %s\n", name);
	else if (!done)
		fprintf(stderr, "sysgenid: hook %s failed: %s\n", name, run.why);
	else if (get_generation() != generation)
		fprintf(stderr, "sysgenid: a snapshot was restored before the preparation was complete\n");
	else
		return true;
	return false;
}

static void prepare(char **names)
{
	uint64_t generation = get_generation();
	json_object *begun = json_object_new_array(), *record = read_record();
	bool good = true;

	if (!record)
		die(EXIT_ERROR, "the overseer is not running, so a clone would stay prepared: "
		    "systemctl start sysgenidd");
	json_object_put(record);
	if (is_prepared())
		die(EXIT_ERROR, "the system is already prepared: sysgenid prepare --undo");
	if (!publish_json(PREPARED_PATH, 0644, begun))
		die(EXIT_ERROR, "cannot write %s: %s", PREPARED_PATH,
		    strerror(errno));
	for (char **name = names; good && name && *name; name++)
		good = freeze(*name, generation, begun);
	json_object_put(begun);
	if (good) {
		puts("prepared: take the snapshot, then sysgenid prepare --undo");
		return;
	}
	forget_signals();
	die(EXIT_ERROR, undo(generation) ? "not prepared: everything done is undone" :
	    "not prepared, and some hooks failed to undo their preparation");
}

static void list(char **names)
{
	char real[PATH_MAX], path[PATH_MAX];

	for (char **name = names; name && *name; name++) {
		const char *why;

		snprintf(path, sizeof(path), PREPARE_DIRECTORY "/%s", *name);
		why = why_untrusted(path, S_IFREG, real);
		if (why)
			printf("%s would be refused: %s\n", *name, why);
		else
			printf("%s would be run: %s freeze\n", *name, real);
	}
}

int do_prepare(const struct options *options)
{
	const char *why;
	char **names;

	if (!list_hooks(PREPARE_DIRECTORY, &names, &why))
		die(EXIT_ERROR, "no hook of %s is run: %s", PREPARE_DIRECTORY, why);
	if (options->dry_run) {
		list(names);
		return 0;
	}
	if (geteuid())
		die(EXIT_PERMISSION, "only root may prepare the system for a snapshot");
	need_source();
	if (systemd_open() < 0)
		die(EXIT_ERROR, "cannot connect to systemd, which runs the hooks");
	if (events_open())
		die(EXIT_ERROR, "cannot watch for signals: %s", strerror(errno));
	if (!prepare_try_lock())
		die(EXIT_ERROR, "another process is preparing the system, or undoing that: try later");
	if (!options->undo) {
		prepare(names);
	} else if (!is_prepared()) {
		puts("the system is not prepared: there is nothing to undo");
	} else {
		if (!undo(get_generation()))
			die(EXIT_ERROR, "some hooks failed to undo their preparation");
		puts("undone");
	}
	free_names(names);
	return 0;
}
