/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Makes text and numbers from other programs safe for terminals and JSON.
 */
#ifndef TEXT_H
#define TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json_object;

/**
 * clean_text() - replace invalid and unsafe characters
 * @text: changed in place; each bad byte becomes '?'
 * @length: its length in bytes
 *
 * Bad bytes are those that are not UTF-8. Bad characters are those that control a
 * terminal (C0 and C1), and those that change the direction of writing.
 */
void clean_text(char *text, size_t length);

/**
 * json_generation() - convert a generation to a JSON value
 * @generation: the generation
 *
 * Values up to 2^53 - 1, which every reader represents exactly, become a number.
 * Larger ones become a string, as RFC 7493, section 2.2, recommends.
 */
struct json_object *json_generation(uint64_t generation);

/* Does the reverse; returns false if @value is not a generation. */
bool json_get_generation(struct json_object *value, uint64_t *generation);

/* Returns an object in one line of JSON, valid as long as the object. */
const char *json_line(struct json_object *object);

#endif /* TEXT_H */
