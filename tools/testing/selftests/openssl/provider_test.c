// SPDX-License-Identifier: GPL-2.0
/*
 * Tests what programs get of the OpenSSL provider, by libcrypto's own functions. To be
 * run as root with OPENSSL_CONF set to a configuration that activates it.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>

#include <kselftest_harness.h>

#define THREADS		8
#define DRAWS		2000
#define SIZE		16

/* Goes to an empty root, with or without a file called dev/random. */
static int enter_empty_root(int with_file)
{
	int file;

	/* A mount of this process's own, so that nothing stays. */
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("empty", "/mnt", "tmpfs", 0, NULL) || chroot("/mnt") || chdir("/"))
		return -1;
	if (!with_file)
		return 0;
	if (mkdir("dev", 0755))
		return -1;
	file = open("dev/random", O_WRONLY | O_CREAT, 0644);
	return file < 0 || ftruncate(file, 4096) || close(file);
}

/* Has getrandom() fail with EPERM, as a sandbox does. */
static int forbid_getrandom(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getrandom, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { ARRAY_SIZE(filter), filter };

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	       prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

static int is_ours(EVP_RAND_CTX *context)
{
	return context && EVP_RAND_is_a(EVP_RAND_CTX_get0_rand(context), "SYSGENID");
}

static int compare(const void *a, const void *b)
{
	return memcmp(a, b, SIZE);
}

TEST(every_generator_of_a_program_is_the_providers)
{
	EXPECT_TRUE(is_ours(RAND_get0_primary(NULL)));
	EXPECT_TRUE(is_ours(RAND_get0_public(NULL)));
	EXPECT_TRUE(is_ours(RAND_get0_private(NULL)));
	EXPECT_EQ(256, EVP_RAND_get_strength(RAND_get0_private(NULL)));
	EXPECT_EQ(1, RAND_status());
}

TEST(parent_and_child_draw_different_bytes)
{
	unsigned char *drawn = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
				    -1, 0);
	int status;

	ASSERT_EQ(1, RAND_bytes(drawn, SIZE));
	if (!fork())
		_exit(RAND_bytes(drawn, SIZE) != 1);
	ASSERT_EQ(1, RAND_bytes(drawn + SIZE, SIZE));
	wait(&status);
	EXPECT_EQ(0, status);
	EXPECT_NE(0, memcmp(drawn, drawn + SIZE, SIZE));
}

static void *draw_many(void *out)
{
	for (int i = 0; i < DRAWS; i++)
		if ((i & 1 ? RAND_bytes : RAND_priv_bytes)((unsigned char *)out + i * SIZE, SIZE) != 1)
			return NULL;
	return out;
}

TEST(threads_draw_different_bytes_at_once)
{
	static unsigned char drawn[THREADS * DRAWS][SIZE];
	pthread_t threads[THREADS];
	void *done;

	for (int i = 0; i < THREADS; i++)
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, draw_many, drawn[i * DRAWS]));
	for (int i = 0; i < THREADS; i++) {
		pthread_join(threads[i], &done);
		EXPECT_NE(NULL, done);
	}
	qsort(drawn, THREADS * DRAWS, SIZE, compare);
	for (int i = 1; i < THREADS * DRAWS; i++)
		ASSERT_NE(0, memcmp(drawn[i - 1], drawn[i], SIZE));
}

TEST(seeding_and_polling_succeed)
{
	unsigned char drawn[SIZE];

	RAND_seed("seed", 4);
	RAND_add("more", 4, 4);
	EXPECT_EQ(1, RAND_poll());
	EXPECT_EQ(1, RAND_status());
	EXPECT_EQ(1, RAND_bytes(drawn, SIZE));
}

static void ignore(int signal)
{
	(void)signal;
}

/* More than one system call gives, with signals that cut calls short. */
TEST(a_large_draw_is_whole_in_spite_of_signals)
{
	const struct itimerval often = { { 0, 1000 }, { 0, 1000 } };
	size_t size = 40 << 20;
	unsigned char *drawn = calloc(1, size), none[64] = { 0 };

	ASSERT_NE(NULL, drawn);
	signal(SIGALRM, ignore);
	setitimer(ITIMER_REAL, &often, NULL);
	ASSERT_EQ(1, RAND_bytes(drawn, size));
	for (size_t at = 0; at < size; at += sizeof(none))
		ASSERT_NE(0, memcmp(drawn + at, none, sizeof(none)));
}

TEST(keys_can_be_made)
{
	EVP_PKEY *rsa = EVP_RSA_gen(2048), *ec = EVP_EC_gen("P-256");

	EXPECT_NE(NULL, rsa);
	EXPECT_NE(NULL, ec);
}

static unsigned int reseeds(EVP_RAND_CTX *context)
{
	unsigned int count = 0;
	OSSL_PARAM params[] = {
		OSSL_PARAM_uint(OSSL_DRBG_PARAM_RESEED_COUNTER, &count),
		OSSL_PARAM_END
	};

	return EVP_RAND_CTX_get_params(context, params) ? count : 0;
}

/* Programs that make a generator of OpenSSL's have its state; it must not last. */
TEST(a_generator_chained_to_it_reseeds_before_each_draw)
{
	char cipher[] = "AES-256-CTR";
	OSSL_PARAM params[] = {
		OSSL_PARAM_utf8_string(OSSL_DRBG_PARAM_CIPHER, cipher, sizeof(cipher) - 1),
		OSSL_PARAM_END
	};
	EVP_RAND *drbg = EVP_RAND_fetch(NULL, "CTR-DRBG", NULL);
	EVP_RAND_CTX *context = EVP_RAND_CTX_new(drbg, RAND_get0_primary(NULL));
	unsigned char drawn[SIZE];
	unsigned int before;

	ASSERT_EQ(1, EVP_RAND_instantiate(context, 256, 0, NULL, 0, params));
	for (int i = 0; i < 10; i++) {
		before = reseeds(context);
		ASSERT_EQ(1, EVP_RAND_generate(context, drawn, SIZE, 256, 0, NULL, 0));
		ASSERT_NE(before, reseeds(context));
	}
}

TEST(a_root_without_dev_does_not_matter)
{
	unsigned char drawn[SIZE];

	ASSERT_TRUE(is_ours(RAND_get0_primary(NULL)));
	ASSERT_EQ(0, enter_empty_root(0));
	EXPECT_EQ(1, RAND_bytes(drawn, SIZE));
	EXPECT_EQ(1, RAND_status());
}

TEST(without_the_system_call_the_device_serves)
{
	unsigned char drawn[2][SIZE] = { 0 };

	ASSERT_EQ(0, forbid_getrandom());
	ASSERT_EQ(-1, syscall(SYS_getrandom, drawn, SIZE, 0));
	EXPECT_EQ(1, RAND_bytes(drawn[0], SIZE));
	EXPECT_EQ(1, RAND_bytes(drawn[1], SIZE));
	EXPECT_NE(0, memcmp(drawn[0], drawn[1], SIZE));
	EXPECT_TRUE(is_ours(RAND_get0_public(NULL)));
}

/* Fails, rather than that OpenSSL's own generator serves. */
static void check_failure(struct __test_metadata *_metadata, int with_file)
{
	unsigned char drawn[SIZE];
	unsigned long error;

	ASSERT_TRUE(is_ours(RAND_get0_primary(NULL)));
	ASSERT_EQ(0, enter_empty_root(with_file));
	ASSERT_EQ(0, forbid_getrandom());
	ERR_clear_error();
	EXPECT_NE(1, RAND_bytes(drawn, SIZE));
	error = ERR_get_error();
	ASSERT_NE(NULL, ERR_reason_error_string(error));
	EXPECT_STREQ("no random numbers from the kernel", ERR_reason_error_string(error));
	EXPECT_NE(1, RAND_priv_bytes(drawn, SIZE));
	EXPECT_NE(1, RAND_status());
}

TEST(with_neither_call_nor_device_a_draw_fails_and_says_why)
{
	check_failure(_metadata, 0);
}

TEST(a_file_in_the_devices_place_is_not_read)
{
	check_failure(_metadata, 1);
}

TEST_HARNESS_MAIN
