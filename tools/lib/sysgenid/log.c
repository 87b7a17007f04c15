// SPDX-License-Identifier: MIT
/*
 * Says that nothing tells of clones here: once, to whom the program has named,
 * or else to the system's log. Not by syslog(3), which would leave a descriptor
 * and its own settings to the program.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <syslog.h>
#include <unistd.h>

#include "source.h"

static void tell_system(const char *text)
{
	static const struct sockaddr_un log = {
		.sun_family = AF_UNIX, .sun_path = "/dev/log"
	};
	char line[512];
	int fd = source_keep_off_streams(socket(AF_UNIX,
			SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));

	if (fd < 0)
		return;
	snprintf(line, sizeof(line), "<%d>%s[%d]: %s", LOG_USER | LOG_NOTICE,
		 program_invocation_short_name, (int)getpid(), text);
	/* A log that is full or not there is nobody's concern here. */
	(void)sendto(fd, line, strlen(line), MSG_NOSIGNAL,
		     (const struct sockaddr *)&log, sizeof(log));
	close(fd);
}

static sysgenid_log *told = tell_system;

void sysgenid_set_log(sysgenid_log *log)
{
	__atomic_store_n(&told, log, __ATOMIC_RELEASE);
}

void log_no_source(int error)
{
	static bool said;
	sysgenid_log *log = __atomic_load_n(&told, __ATOMIC_ACQUIRE);
	char text[384];

	if (!log || __atomic_exchange_n(&said, true, __ATOMIC_RELAXED))
		return;
	errno = error;
	snprintf(text, sizeof(text),
		 "it would go unnoticed if this system was cloned: %.256s: %m",
		 source_path(SYSGENID_SOURCE_DEVICE));
	log(text);
	errno = error;
}
