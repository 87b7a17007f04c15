/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Loads and unloads modules, for tests that need the counter at 0, or fake_backend.ko as
 * its backend. The modules are in $SYSGENID_MODULES, or in /modules.
 */
#ifndef MODULES_H
#define MODULES_H

#include "device.h"

#include <linux/module.h>

#define TEST_FILES "/sys/kernel/debug/fake_backend/"

static inline bool load_module(const char *name, const char *parameters)
{
	const char *dir = getenv("SYSGENID_MODULES");
	char path[256];
	int fd, ret;

	snprintf(path, sizeof(path), "%s/%s.ko", dir ? dir : "/modules", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	ret = syscall(SYS_finit_module, fd, parameters, 0);
	if (ret)
		warn("loading %s", path);
	close(fd);
	return !ret;
}

/* Unloads a module; returns true if it is not loaded afterwards. */
static inline bool unload_module(const char *name)
{
	if (!syscall(SYS_delete_module, name, O_NONBLOCK) || errno == ENOENT)
		return true;
	warn("unloading %s", name);
	return false;
}

static inline bool load_test_module(const char *parameters)
{
	return unload_module("vm_generation_id") && unload_module("fake_backend") &&
	       load_module("fake_backend", parameters);
}

/* Starts the counter at 0 again, with fake_backend as its backend. */
static inline bool reload_modules(void)
{
	return unload_module("vm_generation_id") && unload_module("fake_backend") &&
	       unload_module("sysgenid") && load_module("sysgenid", "") &&
	       load_module("fake_backend", "");
}

/* Reads a number from a file of fake_backend.c in debugfs. */
static inline long long test_get(const char *name)
{
	char path[64];

	snprintf(path, sizeof(path), TEST_FILES "%s", name);
	return number_in(path, "");
}

static inline void test_set(const char *name, unsigned long long value)
{
	char path[64];
	FILE *file;

	snprintf(path, sizeof(path), TEST_FILES "%s", name);
	file = fopen(path, "we");
	if (!file || fprintf(file, "%llu\n", value) < 0 || fclose(file))
		err(1, "%s", path);
}

#endif /* MODULES_H */
