// SPDX-License-Identifier: MIT
/*
 * Logs, once, that no source was found: to the program's callback, or to the
 * system log. syslog(3) would leave a descriptor and settings in the program.
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

static void log_to_system(const char *text)
{
	static const struct sockaddr_un log = {
		.sun_family = AF_UNIX, .sun_path = "/dev/log"
	};
	char line[512];
	int fd = sysgenid_above_stdio_(socket(AF_UNIX,
			SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));

	if (fd < 0)
		return;
	snprintf(line, sizeof(line), "<%d>%s[%d]: %s", LOG_USER | LOG_NOTICE,
		 program_invocation_short_name, (int)getpid(), text);
	/* If the log is full or missing, there is no other place to report it. */
	(void)sendto(fd, line, strlen(line), MSG_NOSIGNAL,
		     (const struct sockaddr *)&log, sizeof(log));
	close(fd);
}

static sysgenid_log *callback = log_to_system;

void sysgenid_set_log(sysgenid_log *log)
{
	__atomic_store_n(&callback, log, __ATOMIC_RELEASE);
}

void sysgenid_log_no_source_(const char *path, int error)
{
	static bool logged;
	sysgenid_log *log = __atomic_load_n(&callback, __ATOMIC_ACQUIRE);
	char text[384];

	if (!log || __atomic_exchange_n(&logged, true, __ATOMIC_RELAXED))
		return;
	errno = error;
	snprintf(text, sizeof(text),
		 "clone detection unavailable: %.256s: %m", path);
	log(text);
	errno = error;
}
