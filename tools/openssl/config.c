// SPDX-License-Identifier: MIT
/*
 * Helper of sysgenid-openssl(8). OpenSSL itself parses the configuration files here,
 * so the command never reads them differently. Usage:
 *
 *	config block FILE MODULE...
 *				prints the lines that make SYSGENID FILE's random
 *				generator; each program uses the MODULE for its
 *				architecture
 *	config generator FILE	prints the generator that programs get from FILE
 *	config file		prints the file that programs read by default
 *
 * Exit status: 0; 1 with a message; 3 if FILE configures FIPS.
 */
#include <err.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <openssl/conf.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/provider.h>
#include <openssl/rand.h>

enum { FIPS = 3 };

#define GENERATOR	"SYSGENID"
#define PROVIDER	"sysgenid"	/* also the algorithm's property: see provider.c */
#define KERNEL_FIPS	"/proc/sys/crypto/fips_enabled"

/* Prints a message about a file, with OpenSSL's reason, and exits. */
static void __attribute__((noreturn)) stop(const char *file, const char *failure)
{
	const char *data = NULL;
	int flags = 0;
	unsigned long error = ERR_peek_error_all(NULL, NULL, NULL, &data, &flags);
	const char *reason = ERR_reason_error_string(error);

	errx(1, "%s: %s%s%s%s%s", file, failure, reason ? ": " : "", reason ? reason : "",
	     data && *data && (flags & ERR_TXT_STRING) ? ": " : "",
	     data && (flags & ERR_TXT_STRING) ? data : "");
}

/* Configures libcrypto as the start of a program does, but reports all errors. */
static void load(const char *file)
{
	OPENSSL_INIT_SETTINGS *settings = OPENSSL_INIT_new();

	if (!settings || !OPENSSL_INIT_set_config_filename(settings, file))
		errx(1, "no memory");
	if (!OPENSSL_init_crypto(OPENSSL_INIT_LOAD_CONFIG, settings))
		stop(file, "OpenSSL does not accept it");
	OPENSSL_INIT_free(settings);
}

/* Returns whether a value turns an option on; OpenSSL 3.0 checks only the name. */
static int is_on(const char *value)
{
	return value && strcmp(value, "0") && strcasecmp(value, "no") &&
	       strcasecmp(value, "off") && strcasecmp(value, "false");
}

static const char *get(const CONF *conf, const char *section, const char *name)
{
	const char *value;

	ERR_set_mark();
	value = NCONF_get_string(conf, section, name);
	ERR_pop_to_mark();
	return value;
}

/* Checks a name for the block: it must have the same meaning there. */
static const char *plain(const char *file, const char *name)
{
	if (!*name || name[strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				  "0123456789_-.")])
		errx(1, "%s: the section name '%s' has unusual characters: rename the section",
		     file, name);
	return name;
}

/* Returns whether a section activates FIPS, by a provider or by default properties. */
static int names_fips(const CONF *conf, const char *section)
{
	STACK_OF(CONF_VALUE) *values = section ? NCONF_get_section(conf, section) : NULL;

	for (int i = 0; i < sk_CONF_VALUE_num(values); i++) {
		const CONF_VALUE *entry = sk_CONF_VALUE_value(values, i);
		const char *properties = strstr(entry->value, "fips");

		if (!strcmp(entry->name, "fips") ||
		    (!strcmp(entry->name, "fips_mode") && is_on(entry->value)))
			return 1;
		if ((!strcmp(entry->name, "default_properties") ||
		     !strcmp(entry->name, "properties")) && properties &&
		    !strstr(properties, "fips=no"))
			return 1;
		if (!strcmp(entry->name, "identity") && !strcmp(entry->value, "fips"))
			return 1;
	}
	return 0;
}

static int fips_configured(const CONF *conf, const char *init)
{
	const char *providers = init ? get(conf, init, "providers") : NULL;
	STACK_OF(CONF_VALUE) *listed = providers ? NCONF_get_section(conf, providers) : NULL;
	FILE *kernel = fopen(KERNEL_FIPS, "re");
	int kernels = 0;

	if (kernel) {
		kernels = fgetc(kernel) == '1';
		fclose(kernel);
	}
	for (int i = 0; i < sk_CONF_VALUE_num(listed); i++)
		if (names_fips(conf, sk_CONF_VALUE_value(listed, i)->value))
			return 1;
	return kernels || (init && (names_fips(conf, providers) ||
				    names_fips(conf, get(conf, init, "alg_section")) ||
				    names_fips(conf, get(conf, init, "random"))));
}

static void __attribute__((noreturn)) leave_fips(const char *file)
{
	warnx("%s: not changed, because it configures FIPS: " GENERATOR " is not an approved generator; "
	      "restart services in a clone instead, see sysgenid-restart@.service", file);
	exit(FIPS);
}

/*
 * Lists the modules in a section of providers, with absolute paths: a program may
 * bring its own OpenSSL, which searches elsewhere. OpenSSL skips a module for another
 * architecture when it fails to load.
 */
static void list_modules(char *const *modules)
{
	for (int i = 0; modules[i]; i++)
		printf(PROVIDER "_%d = sysgenid_provider_%d\n", i, i);
}

static void print_modules(const char *file, char *const *modules)
{
	for (int i = 0; modules[i]; i++) {
		if (strpbrk(modules[i], "#$\\\"'` \t\n"))
			errx(1, "%s: the path %s has unusual characters", file, modules[i]);
		printf("[sysgenid_provider_%d]\nmodule = %s\nactivate = 1\n", i, modules[i]);
	}
}

/*
 * A section that is named twice continues, and a value that is set twice moves to the
 * end. The block names the generator before it loads a provider. If loading fails,
 * OpenSSL has no generator, instead of its own.
 */
static void print_block(const char *file, char *const *modules)
{
	CONF *conf = NCONF_new(NULL);
	const char *init, *providers, *section;
	long line = 0;

	if (!conf)
		errx(1, "no memory");
	if (NCONF_load(conf, file, &line) <= 0) {
		if (line > 0)
			errx(1, "%s: OpenSSL can't parse line %ld: correct it first", file, line);
		stop(file, "OpenSSL can't read it");
	}
	ERR_clear_error();
	init = get(conf, "default", "openssl_conf");
	if (fips_configured(conf, init))
		leave_fips(file);
	ERR_clear_error();
	load(file);
	if (EVP_default_properties_is_fips_enabled(NULL) || OSSL_PROVIDER_available(NULL, "fips"))
		leave_fips(file);

	if (!init)
		printf("[default]\nopenssl_conf = %s\n", init = "sysgenid_init");
	plain(file, init);
	providers = get(conf, init, "providers");
	providers = plain(file, providers ? providers : "sysgenid_providers");
	printf("[%s]\nrandom = sysgenid_random\nproviders = %s\n", init, providers);
	printf("[%s]\n", providers);
	/* OpenSSL activates its default provider only if the file activates none. */
	if (OSSL_PROVIDER_available(NULL, "default")) {
		section = get(conf, providers, "default");
		section = plain(file, section ? section : "sysgenid_default");
		printf("default = %s\n", section);
		list_modules(modules);
		printf("[%s]\nactivate = 1\n", section);
	} else {
		list_modules(modules);
	}
	print_modules(file, modules);
	printf("[sysgenid_random]\nrandom = " GENERATOR "\nproperties = provider=" PROVIDER "\n");
	/* Node.js reads a separate section. */
	if (!get(conf, "default", "nodejs_conf")) {
		printf("[default]\nnodejs_conf = sysgenid_nodejs\n"
		       "[sysgenid_nodejs]\nrandom = sysgenid_random\n"
		       "providers = sysgenid_nodejs_providers\n"
		       "[sysgenid_nodejs_default]\nactivate = 1\n"
		       "[sysgenid_nodejs_providers]\ndefault = sysgenid_nodejs_default\n");
		list_modules(modules);
	}
	NCONF_free(conf);
}

/* Draws as a program does, and prints the name of the generator. */
static void print_generator(const char *file)
{
	EVP_RAND_CTX *public, *private;
	unsigned char drawn[32];
	const char *names[2];

	load(file);
	if (RAND_bytes(drawn, sizeof(drawn)) <= 0 || RAND_priv_bytes(drawn, sizeof(drawn)) <= 0)
		stop(file, "cannot draw random numbers with it");
	public = RAND_get0_public(NULL);
	private = RAND_get0_private(NULL);
	names[0] = EVP_RAND_get0_name(EVP_RAND_CTX_get0_rand(public));
	names[1] = EVP_RAND_get0_name(EVP_RAND_CTX_get0_rand(private));
	printf("%s\n", strcmp(names[0], names[1]) ? "different" : names[0]);
}

static void print_default_file(void)
{
	char *file = CONF_get1_default_config_file();

	if (!file)
		errx(1, "no memory");
	puts(file);
	OPENSSL_free(file);
}

int main(int argc, char **argv)
{
	if (argc > 3 && !strcmp(argv[1], "block"))
		print_block(argv[2], argv + 3);
	else if (argc == 3 && !strcmp(argv[1], "generator"))
		print_generator(argv[2]);
	else if (argc == 2 && !strcmp(argv[1], "file"))
		print_default_file();
	else
		errx(1, "usage: %s block FILE MODULE...|generator FILE|file", argv[0]);
	if (fflush(stdout))
		err(1, "standard output");
	return 0;
}
