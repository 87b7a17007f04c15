/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Measures the memory of open descriptors that a control group is charged for. Compare the
 * device with a file that has no state.
 */
#ifndef MEMORY_H
#define MEMORY_H

#include "device.h"

#include <sys/mount.h>
#include <sys/resource.h>

#define DESCRIPTORS 4096
#define GROUPS "/tmp/cgroup"

static inline bool put_word(const char *path, const char *word)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool done = fd >= 0 && write(fd, word, strlen(word)) == (ssize_t)strlen(word);

	close(fd);
	return done;
}

static inline bool have_memory_groups(void)
{
	mkdir(GROUPS, 0755);
	return (!mount("cgroup2", GROUPS, "cgroup2", 0, NULL) || errno == EBUSY) &&
	       put_word(GROUPS "/cgroup.subtree_control", "+memory");
}

/* Returns the bytes of slab memory that a new group is charged for DESCRIPTORS. */
static inline long long slab_of_descriptors(const char *group, const char *file)
{
	char dir[64], path[128];
	long long slab;
	pid_t child;
	int done[2];

	snprintf(dir, sizeof(dir), GROUPS "/%s", group);
	if (mkdir(dir, 0755) || pipe(done))
		err(1, "%s", dir);
	child = fork();
	if (!child) {
		struct rlimit limit = { DESCRIPTORS + 16, DESCRIPTORS + 16 };

		snprintf(path, sizeof(path), "%s/cgroup.procs", dir);
		if (!put_word(path, "0") || setrlimit(RLIMIT_NOFILE, &limit))
			_exit(1);
		for (int i = 0; i < DESCRIPTORS; i++)
			if (open(file, O_RDONLY) < 0)
				_exit(1);
		if (write(done[1], "", 1) == 1)
			pause();
		_exit(1);
	}
	close(done[1]);
	if (read(done[0], path, 1) != 1)
		errx(1, "%s: can't open %d descriptors", file, DESCRIPTORS);
	snprintf(path, sizeof(path), "%s/memory.stat", dir);
	slab = number_in(path, "slab ");
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	rmdir(dir);
	return slab;
}

#endif /* MEMORY_H */
