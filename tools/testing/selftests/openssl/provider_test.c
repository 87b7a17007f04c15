// SPDX-License-Identifier: GPL-2.0
/*
 * Tests the OpenSSL provider through libcrypto's functions. Run it as root, with
 * OPENSSL_CONF set to a configuration that activates the provider.
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

/* Enters an empty root, with or without a file called dev/random. */
static int enter_empty_root(int with_file)
{
	int file;

	/* The mount is in a namespace of its own, so that it ends with this process. */
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

/* Makes getrandom() fail with EPERM, as a sandbox does. */
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

TEST(all_generators_are_from_provider)
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

TEST(concurrent_threads_draw_different_bytes)
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

/* One system call does not return as much, and signals interrupt calls. */
TEST(large_draw_is_complete_despite_signals)
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

/* A program's own OpenSSL generator keeps a state, which must not outlive a clone. */
TEST(chained_generator_reseeds_before_each_draw)
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

TEST(draw_works_in_root_without_dev)
{
	unsigned char drawn[SIZE];

	ASSERT_TRUE(is_ours(RAND_get0_primary(NULL)));
	ASSERT_EQ(0, enter_empty_root(0));
	EXPECT_EQ(1, RAND_bytes(drawn, SIZE));
	EXPECT_EQ(1, RAND_status());
}

TEST(device_serves_without_getrandom)
{
	unsigned char drawn[2][SIZE] = { 0 };

	ASSERT_EQ(0, forbid_getrandom());
	ASSERT_EQ(-1, syscall(SYS_getrandom, drawn, SIZE, 0));
	EXPECT_EQ(1, RAND_bytes(drawn[0], SIZE));
	EXPECT_EQ(1, RAND_bytes(drawn[1], SIZE));
	EXPECT_NE(0, memcmp(drawn[0], drawn[1], SIZE));
	EXPECT_TRUE(is_ours(RAND_get0_public(NULL)));
}

/* Checks that a draw fails, instead of falling back to OpenSSL's own generator. */
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

TEST(draw_fails_without_getrandom_and_device)
{
	check_failure(_metadata, 0);
}

TEST(file_in_place_of_device_is_not_read)
{
	check_failure(_metadata, 1);
}

TEST_HARNESS_MAIN
