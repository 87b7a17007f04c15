// SPDX-License-Identifier: GPL-2.0
/*
 * The overseer's reports: to the journal, with fields for programs, or to stderr if
 * an administrator has started the overseer by hand.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <systemd/sd-journal.h>

#include "overseer.h"

/*
 * Returns whether stderr is the journal. Programs inherit JOURNAL_STREAM even if
 * their stderr is another file: compare the device and inode that it names.
 */
static bool is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	uintmax_t device, inode;
	struct stat status;

	return stream && sscanf(stream, "%ju:%ju", &device, &inode) == 2 &&
	       !fstat(STDERR_FILENO, &status) && status.st_dev == device &&
	       status.st_ino == inode;
}

void report(int priority, const char *event, uint64_t generation,
	    const char *hook, const char *format, ...)
{
	char *text;
	va_list args;

	va_start(args, format);
	if (vasprintf(&text, format, args) < 0)
		text = NULL;
	va_end(args);
	if (!text)
		return;

	if (is_journal())
		sd_journal_send("MESSAGE=%s", text, "PRIORITY=%i", priority,
				"SYSGENID_EVENT=%s", event,
				"SYSGENID_GENERATION=%" PRIu64, generation,
				hook ? "SYSGENID_HOOK=%s" : NULL, hook, NULL);
	else
		fprintf(stderr, "%s: %s\n", program_invocation_short_name, text);
	free(text);
}
