// SPDX-License-Identifier: GPL-2.0
/*
 * Draws from a library's random generator, or the kernel's, once for every line on
 * standard input. Usage: draw GENERATOR. The program loads the library at run time, so
 * that building it needs none.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define SIZE	16

static void *library;

/* From <gcrypt.h> and <gnutls/crypto.h>. */
enum { GCRY_STRONG_RANDOM = 1, GNUTLS_RND_KEY = 2 };

static void *symbol(const char *name)
{
	void *found = dlsym(library, name);

	if (!found)
		errx(1, "%s", dlerror());
	return found;
}

static void load(const char *name)
{
	library = dlopen(name, RTLD_NOW);
	if (!library)
		errx(1, "%s", dlerror());
}

static int ssl_bytes(unsigned char *out)
{
	return ((int (*)(unsigned char *, int))symbol("RAND_bytes"))(out, SIZE) == 1;
}

static int ssl_private_bytes(unsigned char *out)
{
	return ((int (*)(unsigned char *, int))symbol("RAND_priv_bytes"))(out, SIZE) == 1;
}

static int gnutls(unsigned char *out)
{
	return ((int (*)(int, void *, size_t))symbol("gnutls_rnd"))(GNUTLS_RND_KEY, out, SIZE) == 0;
}

static int gcrypt(unsigned char *out)
{
	((void (*)(void *, size_t, int))symbol("gcry_randomize"))(out, SIZE, GCRY_STRONG_RANDOM);
	return 1;
}

static int nss(unsigned char *out)
{
	return ((int (*)(unsigned char *, int))symbol("PK11_GenerateRandom"))(out, SIZE) == 0;
}

static int random_words(unsigned char *out)
{
	for (int i = 0; i < SIZE; i += sizeof(uint32_t)) {
		uint32_t word = random();

		memcpy(out + i, &word, sizeof(word));
	}
	return 1;
}

static int arc4random_words(unsigned char *out)
{
	arc4random_buf(out, SIZE);
	return 1;
}

static int kernels(unsigned char *out)
{
	return getrandom(out, SIZE, 0) == SIZE;
}

static int read_file(const char *path, void *out, size_t size)
{
	int fd = open(path, O_RDONLY);
	ssize_t got = read(fd, out, size);

	close(fd);
	return got == (ssize_t)size;
}

static int device(unsigned char *out)
{
	return read_file("/dev/urandom", out, SIZE);
}

static int uuid(unsigned char *out)
{
	char text[36];

	if (!read_file("/proc/sys/kernel/random/uuid", text, sizeof(text)))
		return 0;
	memcpy(out, text, SIZE);
	return 1;
}

static const struct {
	const char *name, *library, *start;
	int (*draw)(unsigned char *out);
} generators[] = {
	{ "openssl", "libcrypto.so.3", NULL, ssl_bytes },
	{ "openssl-private", "libcrypto.so.3", NULL, ssl_private_bytes },
	{ "gnutls", "libgnutls.so.30", NULL, gnutls },
	{ "gcrypt", "libgcrypt.so.20", "gcry_check_version", gcrypt },
	{ "nss", "libnss3.so", "NSS_NoDB_Init", nss },
	{ "random", NULL, NULL, random_words },
	{ "arc4random", NULL, NULL, arc4random_words },
	{ "getrandom", NULL, NULL, kernels },
	{ "urandom", NULL, NULL, device },
	{ "uuid", NULL, NULL, uuid },
};

int main(int argc, char **argv)
{
	unsigned char drawn[SIZE];
	char line[64];

	for (size_t i = 0; argc == 2 && i < sizeof(generators) / sizeof(*generators); i++) {
		if (strcmp(argv[1], generators[i].name))
			continue;
		if (generators[i].library)
			load(generators[i].library);
		if (generators[i].start)
			((int (*)(void *))symbol(generators[i].start))(NULL);
		while (fgets(line, sizeof(line), stdin)) {
			if (!generators[i].draw(drawn))
				errx(1, "no random numbers");
			for (int j = 0; j < SIZE; j++)
				printf("%02x", drawn[j]);
			putchar('\n');
			fflush(stdout);
		}
		return 0;
	}
	errx(1, "usage: %s GENERATOR", argv[0]);
}
