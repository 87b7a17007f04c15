/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Text and numbers of others, made fit for terminals and for JSON.
 */
#ifndef TEXT_H
#define TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json_object;

/**
 * clean_text() - replace what is no text
 * @text: changed in place; each bad byte becomes '?'
 * @length: its length in bytes
 *
 * Bad are bytes that are not UTF-8, and characters that control a terminal:
 * C0 and C1, and those that change the direction of writing.
 */
void clean_text(char *text, size_t length);

/**
 * json_generation() - a generation as a JSON value
 * @generation: the generation
 *
 * A number up to 2^53 - 1, which every reader represents exactly; a larger one
 * is a string, as RFC 7493, section 2.2, recommends.
 */
struct json_object *json_generation(uint64_t generation);

/* The reverse; false: it is none. */
bool json_get_generation(struct json_object *value, uint64_t *generation);

/* One line of JSON, valid for as long as the object. */
const char *json_line(struct json_object *object);

#endif /* TEXT_H */
