/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The parts of the command, sysgenid(8).
 */
#ifndef COMMAND_H
#define COMMAND_H

#include <stdbool.h>
#include <stdint.h>

struct json_object;

/* The options of the command line. */
struct options {
	bool json;
	bool has_from;
	bool dry_run;
	bool undo;
	bool list;
	bool yes;
	bool first_boot;
	uint64_t from;
	uint32_t minimum;
	const char *root;	/* NULL: the running system */
	int timeout;		/* in milliseconds; -1: forever */
	char **command;		/* the words that are no options */
};

/* Ends the command; with --json, the error is an object. */
void __attribute__((noreturn, format(printf, 2, 3)))
die(int status, const char *format, ...);

/* Prints one line, and frees the object. */
void print_json(struct json_object *object);

/* Ends the command if there is no generation. */
void need_source(void);

/* The generation, after a look at the hardware. */
uint64_t get_generation(void);

/* sysgenid hooks [list | run [NAME…]], in command_hooks.c */
int do_hooks(const struct options *options);

/* sysgenid prepare [--undo], in command_prepare.c */
int do_prepare(const struct options *options);

/* sysgenid seal, in seal.c */
int do_seal(const struct options *options);

/* sysgenid gate [PORT], in gate.c */
int __attribute__((noreturn)) do_gate(const struct options *options);

#endif /* COMMAND_H */
