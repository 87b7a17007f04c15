// SPDX-License-Identifier: GPL-2.0
/*
 * sysgenid hooks: lists the hooks of the overseer, or runs some of them now, in the
 * same units and the same sandbox.
 */
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "command.h"
#include "overseer.h"
#include "system.h"
#include "text.h"

#define DIRECTORY	"/etc/sysgenid/hooks.d"

/* Returns why a hook would not be run, or NULL. */
static const char *why_refused(const char *name, char *real)
{
	char path[PATH_MAX], unit[NAME_MAX + 1];

	if (!hook_unit("", name, unit, sizeof(unit)))
		return "its name is too long";
	snprintf(path, sizeof(path), DIRECTORY "/%s", name);
	return why_untrusted(path, S_IFREG, real);
}

static void list(char **names, bool json)
{
	json_object *hooks = json_object_new_array();
	char real[PATH_MAX];

	for (; names && *names; names++) {
		const char *why = why_refused(*names, real);
		json_object *hook = json_object_new_object();

		if (!json)
			printf("%-23s %s%s\n", *names, why ? "refused: " : "",
			       why ? why : real);
		json_object_object_add(hook, "name", json_object_new_string(*names));
		if (why)
			json_object_object_add(hook, "refused",
					       json_object_new_string(why));
		else
			json_object_object_add(hook, "program",
					       json_object_new_string(real));
		json_object_array_add(hooks, hook);
	}
	if (json)
		print_json(json_object_get(hooks));
	json_object_put(hooks);
}

static bool run(const char *name, uint64_t generation, bool dry)
{
	struct hook_run hook = {
		.directory = DIRECTORY, .name = name, .family = "",
		.generation = generation, .previous = generation,
		.timeout = HOOK_TIMEOUT,
	};
	char real[PATH_MAX], unit[NAME_MAX + 1];
	const char *why = why_refused(name, real);

	if (dry) {
		hook_unit("", name, unit, sizeof(unit));
		if (why)
			printf("%s would not be run: %s\n", name, why);
		else
			printf("%s would be run: %s, in %s, with SYSGENID_GENERATION=%"
			       PRIu64 "\n", name, real, unit, generation);
		return !why;
	}
	if (run_hook(&hook) == HOOK_DONE) {
		printf("%s is done\n", name);
		return true;
	}
	fprintf(stderr, "sysgenid: hook %s failed: %s\n", name, hook.why);
	return false;
}

static bool is_listed(char **names, const char *name)
{
	while (names && *names && strcmp(*names, name))
		names++;
	return names && *names;
}

int do_hooks(const struct options *options)
{
	char **words = options->command, **names, **chosen;
	uint64_t generation;
	const char *why;
	bool good = true;

	if (!list_hooks(DIRECTORY, &names, &why))
		die(EXIT_ERROR, "no hook of %s is run: %s", DIRECTORY, why);
	if (!words[0] || (!strcmp(words[0], "list") && !words[1])) {
		list(names, options->json);
		return 0;
	}
	if (strcmp(words[0], "run"))
		die(EXIT_USAGE, "hooks %s: use hooks list or hooks run [NAME…]",
		    words[0]);
	chosen = words[1] ? words + 1 : names;
	for (char **name = chosen; name && *name; name++)
		if (!is_listed(names, *name))
			die(EXIT_USAGE, "no hook %s in %s; sysgenid hooks lists the hooks",
			    *name, DIRECTORY);
	generation = get_generation();
	if (!options->dry_run && systemd_open() < 0)
		die(EXIT_PERMISSION, "cannot connect to systemd, which runs the hooks: "
		    "run this as root");
	for (char **name = chosen; name && *name; name++)
		good &= run(*name, generation, options->dry_run);
	return good ? 0 : EXIT_ERROR;
}
