// SPDX-License-Identifier: GPL-2.0
/*
 * The overseer's reports: to the journal with fields for programs, or to
 * stderr, for those who start it by hand.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <systemd/sd-journal.h>

#include "overseer.h"

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

	if (getenv("JOURNAL_STREAM"))
		sd_journal_send("MESSAGE=%s", text, "PRIORITY=%i", priority,
				"SYSGENID_EVENT=%s", event,
				"SYSGENID_GENERATION=%" PRIu64, generation,
				hook ? "SYSGENID_HOOK=%s" : NULL, hook, NULL);
	else
		fprintf(stderr, "sysgenidd: %s\n", text);
	free(text);
}
