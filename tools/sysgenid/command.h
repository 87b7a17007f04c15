/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Declarations that the files of the command, sysgenid(8), share.
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
	char **command;		/* the words after the options */
};

/* Prints an error, with --json as an object, and exits. */
void __attribute__((noreturn, format(printf, 2, 3)))
die(int status, const char *format, ...);

/* Prints an object in one line, and frees it. */
void print_json(struct json_object *object);

/* Exits with an error if no source of the generation exists. */
void need_source(void);

/* Checks the hardware, then returns the generation. */
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
