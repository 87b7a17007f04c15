// SPDX-License-Identifier: GPL-2.0
/*
 * sysgenid seal: turns a system into a template for copies. It removes what no two
 * systems may share; each copy creates its own when it boots.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <glob.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "command.h"
#include "system.h"

/* The unit that creates what a sealed system lacks, when it boots */
#define UNSEAL		UNITDIR "/sysgenid-unseal.service"
#define DIRECTORY	"/var/lib/sysgenid"
/* This file enables UNSEAL, which removes it. */
#define MARK		DIRECTORY "/sealed"

#define MAX_PATTERNS	8
#define MAX_OPEN	16

/**
 * struct item - something that no two systems may share
 * @name: its name in one word
 * @what: what it is, and how a copy gets its own
 * @content: new contents of the files; NULL: remove them
 * @at_boot: also remove it when a copy boots, as a shutdown may write it again
 * @patterns: the files or directories, as patterns of glob(7)
 */
struct item {
	const char *name;
	const char *what;
	const char *content;
	bool at_boot;
	const char *patterns[MAX_PATTERNS];
};

static const struct item items[] = {
	{ "machine-id", "the machine ID; systemd makes one",
	  .content = "", .patterns = { "/etc/machine-id" } },
	{ "dbus-machine-id", "D-Bus's copy of it; tmpfiles.d makes a link",
	  .patterns = { "/var/lib/dbus/machine-id" } },
	{ "ssh-host-keys", "SSH host keys; recreated with the types and lengths of the public keys",
	  .patterns = { "/etc/ssh/ssh_host_*_key", "/etc/ssh/ssh_host_*_key-cert.pub" } },
	{ "random-seed", "the random seed; systemd saves one",
	  .at_boot = true, .patterns = { "/var/lib/systemd/random-seed" } },
	{ "efi-random-seed", "the boot loader's random seed; bootctl random-seed makes one",
	  .patterns = { "/efi/loader/random-seed", "/boot/loader/random-seed",
			"/boot/efi/loader/random-seed" } },
	{ "credential-secret", "the key of systemd-creds(1); all that it encrypted becomes unreadable",
	  .patterns = { "/var/lib/systemd/credential.secret" } },
	{ "dhcp", "leases and identifiers of dhclient and dhcpcd; they create their own",
	  .at_boot = true,
	  .patterns = { "/var/lib/dhcp/dhclient*.leases", "/var/lib/dhclient/*.lease*",
			"/var/lib/dhcpcd/*", "/var/lib/dhcpcd5/*", "/etc/dhcpcd.duid",
			"/etc/dhcpcd.secret" } },
	{ "networkmanager", "NetworkManager's leases and secret key; it creates its own",
	  .at_boot = true,
	  .patterns = { "/var/lib/NetworkManager/*.lease",
			"/var/lib/NetworkManager/secret_key" } },
	{ "iscsi-initiator", "the name of the iSCSI initiator; iscsi-iname creates one",
	  .content = "GenerateName=yes\n",
	  .patterns = { "/etc/iscsi/initiatorname.iscsi" } },
	{ "nvme-host", "the NQN and the ID of the NVMe host; created if there is /etc/nvme",
	  .patterns = { "/etc/nvme/hostnqn", "/etc/nvme/hostid" } },
	{ "cloud-init", "cloud-init's record of this instance; it runs again",
	  .patterns = { "/var/lib/cloud/instance", "/var/lib/cloud/instances",
			"/var/lib/cloud/sem", "/var/lib/cloud/data" } },
	{ "overseer", "the state of sysgenidd(8); it starts without one",
	  .at_boot = true, .patterns = { DIRECTORY "/state" } },
};

#define N_ITEMS	(sizeof(items) / sizeof(*items))

/* Global: callbacks of glob(3) and nftw(3) take no argument. */
static bool dry_run, failed;

static void __attribute__((format(printf, 1, 2))) fail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("sysgenid: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	failed = true;
}

static int remove_one(const char *path, const struct stat *status, int kind,
		      struct FTW *where)
{
	(void)status;
	(void)kind;
	(void)where;
	if (remove(path))
		fail("cannot remove %s: %s", path, strerror(errno));
	return 0;
}

/* Does not follow a link: it removes the link itself. */
static void remove_all(const char *path)
{
	bool already = failed;

	if (dry_run) {
		printf("%s would be removed\n", path);
		return;
	}
	failed = false;
	if (nftw(path, remove_one, MAX_OPEN, FTW_DEPTH | FTW_PHYS | FTW_MOUNT))
		fail("cannot remove %s: %s", path, strerror(errno));
	if (!failed)
		printf("%s is removed\n", path);
	failed |= already;
}

/* Returns whether the file already has exactly this content. */
static bool has_content(const char *path, const char *content)
{
	char text[64] = "";
	FILE *file = fopen(path, "re");
	size_t length;

	if (!file)
		return false;
	length = fread(text, 1, sizeof(text) - 1, file);
	fclose(file);
	return length == strlen(content) && !memcmp(text, content, length);
}

static void write_content(const char *path, const char *content)
{
	FILE *file;

	if (has_content(path, content))
		return;
	if (dry_run) {
		printf("%s would be %s\n", path, *content ? "replaced" : "emptied");
		return;
	}
	/* Write in place: the file may be a mount. */
	file = fopen(path, "we");
	if (file)
		fputs(content, file);
	if (!file || fclose(file))
		fail("cannot write %s: %s", path, strerror(errno));
	else
		printf("%s is %s\n", path, *content ? "replaced" : "emptied");
}

static void seal_item(const struct item *item)
{
	glob_t found = {};

	for (const char *const *pattern = item->patterns; *pattern; pattern++)
		if (glob(*pattern, GLOB_APPEND, NULL, &found) == GLOB_NOSPACE)
			fail("searching for %s failed: %s", *pattern, strerror(ENOMEM));
	for (size_t i = 0; i < found.gl_pathc; i++) {
		if (item->content)
			write_content(found.gl_pathv[i], item->content);
		else
			remove_all(found.gl_pathv[i]);
	}
	globfree(&found);
}

static void list(bool json)
{
	json_object *all = json_object_new_array();

	for (size_t i = 0; i < N_ITEMS; i++) {
		json_object *item = json_object_new_object();
		json_object *files = json_object_new_array();

		if (!json)
			printf("%-19s %s\n", items[i].name, items[i].what);
		json_object_object_add(item, "name",
				       json_object_new_string(items[i].name));
		json_object_object_add(item, "what",
				       json_object_new_string(items[i].what));
		for (const char *const *pattern = items[i].patterns; *pattern; pattern++) {
			if (!json)
				printf("%-19s   %s\n", "", *pattern);
			json_object_array_add(files, json_object_new_string(*pattern));
		}
		json_object_object_add(item, "files", files);
		json_object_array_add(all, item);
	}
	if (json)
		print_json(json_object_get(all));
	json_object_put(all);
}

/* Call this before anything is removed: the mark has a boot create what is missing. */
static void make_mark(void)
{
	int fd;

	mkdir(DIRECTORY, 0700);
	fd = open(MARK, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		die(EXIT_ERROR, "nothing is sealed: cannot write %s: %s", MARK,
		    strerror(errno));
	close(fd);
}

/* All later steps run inside the root directory: no link leads out of it. */
static void enter(const char *root)
{
	if (root && (chroot(root) || chdir("/")))
		die(EXIT_ERROR, "--root=%s: cannot enter the directory: %s", root,
		    strerror(errno));
	if (access(UNSEAL, F_OK))
		die(EXIT_ERROR, "nothing is sealed: %s%s is missing, which creates what a "
		    "sealed system lacks: install sysgenid there", root ? root : "",
		    UNSEAL);
}

int do_seal(const struct options *options)
{
	if (options->list) {
		list(options->json);
		return 0;
	}
	if (options->json)
		die(EXIT_USAGE, "seal prints JSON with --list only");
	if (geteuid())
		die(EXIT_PERMISSION, "only root may seal a system");
	if (!options->yes && !options->dry_run && !options->first_boot)
		die(EXIT_USAGE, "seal removes what makes this system unique: "
		    "see sysgenid seal --dry-run, then give --yes");
	enter(options->root);
	dry_run = options->dry_run;
	if (!dry_run && !options->first_boot)
		make_mark();
	for (size_t i = 0; i < N_ITEMS; i++)
		if (!options->first_boot || items[i].at_boot)
			seal_item(&items[i]);
	if (dry_run)
		return 0;
	/* The disk may be copied next. */
	sync();
	if (failed)
		die(EXIT_ERROR, "sealing is incomplete: fix the errors above, then run it again");
	if (!options->first_boot)
		puts("sealed: switch the system off before its disk is copied");
	return 0;
}
