// SPDX-License-Identifier: GPL-2.0
/*
 * Makes text and numbers from other programs safe for terminals and JSON.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"

/* The largest N for which a double represents all integers up to N */
#define MAX_EXACT	((UINT64_C(1) << 53) - 1)

/*
 * Decodes a character of UTF-8 (RFC 3629) of at most @left bytes. Returns its
 * length, or 0 if it is invalid.
 */
static size_t decode(const unsigned char *text, size_t left, uint32_t *character)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t length = text[0] < 0x80 ? 1 : text[0] >= 0xf0 ? 4 :
			text[0] >= 0xe0 ? 3 : 2;

	if (length == 1) {
		*character = text[0];
		return 1;
	}
	if (text[0] < 0xc2 || text[0] > 0xf4 || length > left)
		return 0;
	*character = text[0] & (0xff >> (length + 1));
	for (size_t i = 1; i < length; i++) {
		if ((text[i] & 0xc0) != 0x80)
			return 0;
		*character = *character << 6 | (text[i] & 0x3f);
	}
	if (*character < least[length] || *character > 0x10ffff ||
	    (*character >= 0xd800 && *character <= 0xdfff))
		return 0;
	return length;
}

static bool controls_terminal(uint32_t character)
{
	return character < 0x20 || (character >= 0x7f && character < 0xa0) ||
	       (character >= 0x202a && character <= 0x202e) ||
	       (character >= 0x2066 && character <= 0x2069);
}

void clean_text(char *text, size_t length)
{
	for (size_t i = 0; i < length;) {
		uint32_t character = 0;
		size_t bytes = decode((unsigned char *)text + i, length - i,
				      &character);

		if (!bytes || controls_terminal(character)) {
			if (!bytes)
				bytes = 1;
			memset(text + i, '?', bytes);
		}
		i += bytes;
	}
}

struct json_object *json_generation(uint64_t generation)
{
	char text[32];

	if (generation <= MAX_EXACT)
		return json_object_new_uint64(generation);
	snprintf(text, sizeof(text), "%" PRIu64, generation);
	return json_object_new_string(text);
}

bool json_get_generation(struct json_object *value, uint64_t *generation)
{
	if (json_object_is_type(value, json_type_int))
		*generation = json_object_get_uint64(value);
	else if (json_object_is_type(value, json_type_string))
		*generation = strtoull(json_object_get_string(value), NULL, 10);
	else
		return false;
	return true;
}

const char *json_line(struct json_object *object)
{
	return json_object_to_json_string_ext(object, JSON_C_TO_STRING_SPACED |
					      JSON_C_TO_STRING_NOSLASHESCAPE);
}
