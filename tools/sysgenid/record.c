// SPDX-License-Identifier: GPL-2.0
/*
 * The overseer's record, which sysgenid(8) reads, also on behalf of the host. All
 * users may read it, except for the output of hooks.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "overseer.h"
#include "system.h"
#include "text.h"

static const char * const phases[] = { "hooks", "units", "watchers", "settled" };

static json_object *failures, *outputs;

static void publish(const char *path, mode_t mode, json_object *object)
{
	if (publish_json(path, mode, object))
		return;
	report(LOG_ERR, "state-lost", 0, NULL, "cannot write %s: %s", path,
	       strerror(errno));
	/* Remove the old record: it is no longer true. */
	unlink(path);
}

static const char *phase_name(const struct state *state)
{
	return state->phase == PHASE_SETTLED && state->failed + state->faults ?
	       "failed" : phases[state->phase];
}

static void publish_identity(const struct state *state)
{
	json_object *identity = json_object_new_string(state->identity);

	publish(IDENTITY_PATH, 0600, identity);
	json_object_put(identity);
}

void record_publish(const struct state *state, const char *hook)
{
	json_object *record = json_object_new_object();
	char key[COUNTER_KEY_SIZE];

	counter_key(key);
	json_object_object_add(record, "generation",
			       json_generation(state->generation));
	json_object_object_add(record, "state",
			       json_object_new_string(phase_name(state)));
	if (hook)
		json_object_object_add(record, "hook",
				       json_object_new_string(hook));
	json_object_object_add(record, "hooks_done",
			       json_object_new_int(state->done));
	json_object_object_add(record, "hooks_failed",
			       json_object_new_int(state->failed));
	json_object_object_add(record, "failures", json_object_get(failures));
	json_object_object_add(record, "counter", json_object_new_string(key));
	/* Publish this before the record can say that the system has settled. */
	publish_identity(state);
	publish(STATUS_PATH, 0644, record);
	json_object_put(record);
}

void record_failure(const char *kind, const char *name, const char *reason,
		    unsigned int attempts, const char *output)
{
	json_object *failure = json_object_new_object();

	json_object_object_add(failure, "kind", json_object_new_string(kind));
	json_object_object_add(failure, "name", json_object_new_string(name));
	json_object_object_add(failure, "reason", json_object_new_string(reason));
	json_object_object_add(failure, "attempts", json_object_new_int(attempts));
	json_object_array_add(failures, failure);
	if (output) {
		json_object_object_add(outputs, name,
				       json_object_new_string(output));
		publish(OUTPUT_PATH, 0600, outputs);
	}
}

void record_clear(void)
{
	json_object_put(failures);
	json_object_put(outputs);
	failures = json_object_new_array();
	outputs = json_object_new_object();
	unlink(OUTPUT_PATH);
}

/* Returns the failures that were recorded for this generation before a restart. */
static json_object *read_failures(const struct state *state)
{
	json_object *record = read_record(), *value = NULL;
	uint64_t generation;

	if (record && json_object_object_get_ex(record, "generation", &value) &&
	    json_get_generation(value, &generation) &&
	    generation == state->generation)
		value = json_object_get(json_object_object_get(record, "failures"));
	else
		value = NULL;
	json_object_put(record);
	return value;
}

bool record_exists(void)
{
	return !access(STATUS_PATH, F_OK);
}

bool record_is_current(void)
{
	json_object *record = read_record();

	json_object_put(record);
	return record;
}

void record_open(const struct state *state)
{
	mkdir(RUN_DIRECTORY, 0755);
	failures = read_failures(state);
	outputs = json_object_from_file(OUTPUT_PATH);
	if (!failures)
		record_clear();
	if (!outputs)
		outputs = json_object_new_object();
}
