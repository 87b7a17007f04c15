// SPDX-License-Identifier: GPL-2.0
/*
 * Only root may influence what root runs. Checks the file, and each directory on the
 * way to it, where other users could replace it.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "overseer.h"

/* Returns a format that says what is wrong, with %s for the path; or NULL. */
static const char *find_fault(const struct stat *status)
{
	if (status->st_uid)
		return "%s does not belong to root";
	if (status->st_mode & S_IWOTH)
		return "%s is writable by everybody";
	/* The group bits also cover all entries of an access control list. */
	if (status->st_mode & S_IWGRP)
		return "%s is writable by a group or ACL entry";
	return NULL;
}

static const char *find_fault_of_kind(const struct stat *status, mode_t kind)
{
	if ((status->st_mode & S_IFMT) != kind)
		return kind == S_IFREG ? "%s is not a file" : "%s is not a directory";
	if (!(status->st_mode & S_IXUSR))
		return "%s is not executable";
	return NULL;
}

const char *why_untrusted(const char *path, mode_t kind, char *real)
{
	static char why[PATH_MAX + 80];
	char part[PATH_MAX], *slash;
	const char *fault = NULL;
	struct stat status;

	if (!realpath(path, real))
		return strerror(errno);
	strcpy(part, real);
	while (!stat(part, &status)) {
		fault = find_fault(&status);
		if (!fault && !strcmp(part, real))
			fault = find_fault_of_kind(&status, kind);
		if (fault) {
			snprintf(why, sizeof(why), fault, part);
			return why;
		}
		if (!strcmp(part, "/"))
			return NULL;
		slash = strrchr(part, '/');
		slash[slash == part] = '\0';
	}
	return strerror(errno);
}
