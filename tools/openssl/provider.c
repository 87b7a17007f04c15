// SPDX-License-Identifier: MIT
/*
 * sysgenid.so, a provider for OpenSSL 3 with the random generator SYSGENID. Each draw
 * comes from the kernel. The process keeps no random state, which a clone or a child
 * could repeat. The module calls no function of libcrypto, and therefore loads into
 * every OpenSSL 3.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <openssl/core.h>
#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>

#define NAME		"SYSGENID"
#define STRENGTH	256	/* bits; that of the kernel's ChaCha20 */
#define DEVICE		"/dev/random"
#define DEVICE_NUMBER	makedev(1, 8)	/* Documentation/admin-guide/devices.txt */

enum reason { NO_KERNEL_RANDOMNESS = 1, TOO_STRONG, NO_MEMORY };

static const OSSL_ITEM reasons[] = {
	{ NO_KERNEL_RANDOMNESS, "no random numbers from the kernel" },
	{ TOO_STRONG, "more than 256 bits of security requested" },
	{ NO_MEMORY, "no memory for a seed" },
	{ 0, NULL }
};

/* The handles from libcrypto when it loaded the provider; every generator's context. */
struct provider {
	const OSSL_CORE_HANDLE *core;
	OSSL_FUNC_core_new_error_fn *new_error;
	OSSL_FUNC_core_set_error_debug_fn *set_error_debug;
	OSSL_FUNC_core_vset_error_fn *vset_error;
};

/* Puts an error into the calling thread's OpenSSL error queue. Returns 0. */
__attribute__((format(printf, 4, 5)))
static int fail(const struct provider *provider, enum reason reason, int line,
		const char *format, ...)
{
	va_list arguments;

	if (!provider->new_error || !provider->set_error_debug || !provider->vset_error)
		return 0;
	va_start(arguments, format);
	provider->new_error(provider->core);
	provider->set_error_debug(provider->core, __FILE__, line, __func__);
	provider->vset_error(provider->core, reason, format, arguments);
	va_end(arguments);
	return 0;
}

#define FAIL(provider, reason, ...)	fail(provider, reason, __LINE__, __VA_ARGS__)

/* Reads from the kernel's random device. Returns 0, or an errno value. */
static int read_device(unsigned char *out, size_t size)
{
	struct stat found;
	int fd, error = 0;

	do
		fd = open(DEVICE, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	while (fd < 0 && errno == EINTR);
	if (fd < 0)
		return errno;
	/* In a chroot, a regular file may have this name. */
	if (fstat(fd, &found) || !S_ISCHR(found.st_mode) || found.st_rdev != DEVICE_NUMBER)
		error = ENODEV;
	while (size && !error) {
		ssize_t got = read(fd, out, size);

		if (got > 0) {
			out += got;
			size -= got;
		} else if (!got || errno != EINTR) {
			error = got ? errno : EIO;
		}
	}
	close(fd);
	return error;
}

/*
 * Draws from the kernel only. It makes the system call itself: the vDSO's getrandom()
 * keeps state in the process. The device is for sandboxes that forbid the call.
 * Returns 1, or 0 with an error in the queue.
 */
static int draw(const struct provider *provider, unsigned char *out, size_t size)
{
	while (size) {
		ssize_t got = syscall(SYS_getrandom, out, size, 0);
		int refused = errno, error;

		if (got > 0) {
			out += got;
			size -= got;
			continue;
		}
		if (got < 0 && refused == EINTR)
			continue;
		error = read_device(out, size);
		if (error)
			return FAIL(provider, NO_KERNEL_RANDOMNESS,
				    "getrandom() failed with errno %d, " DEVICE " with errno %d: "
				    "allow the system call, or provide the device",
				    got ? refused : 0, error);
		break;
	}
	return 1;
}

static void *new_context(void *provider, void *parent, const OSSL_DISPATCH *parent_functions)
{
	(void)parent;
	(void)parent_functions;
	return provider;
}

static void free_context(void *context)
{
	(void)context;
}

static int instantiate(void *context, unsigned int strength, int prediction_resistance,
		       const unsigned char *personal, size_t personal_size,
		       const OSSL_PARAM params[])
{
	unsigned char tried;

	(void)prediction_resistance;
	(void)personal;
	(void)personal_size;
	(void)params;
	if (strength > STRENGTH)
		return FAIL(context, TOO_STRONG, "%u", strength);
	return draw(context, &tried, sizeof(tried));
}

static int uninstantiate(void *context)
{
	(void)context;
	return 1;
}

static int generate(void *context, unsigned char *out, size_t size, unsigned int strength,
		    int prediction_resistance, const unsigned char *extra, size_t extra_size)
{
	(void)prediction_resistance;
	(void)extra;
	(void)extra_size;
	if (strength > STRENGTH)
		return FAIL(context, TOO_STRONG, "%u", strength);
	return draw(context, out, size);
}

/* RAND_seed(), RAND_add() and RAND_poll() call this: there is no state to seed. */
static int reseed(void *context, int prediction_resistance, const unsigned char *entropy,
		  size_t entropy_size, const unsigned char *extra, size_t extra_size)
{
	(void)context;
	(void)prediction_resistance;
	(void)entropy;
	(void)entropy_size;
	(void)extra;
	(void)extra_size;
	return 1;
}

static size_t limit(size_t wanted, size_t least, size_t most)
{
	if (wanted < least)
		wanted = least;
	return wanted < most ? wanted : most;
}

/* Returns the size of the nonce, or 0 on failure; fills @out unless it is NULL. */
static size_t nonce(void *context, unsigned char *out, unsigned int strength, size_t least,
		    size_t most)
{
	size_t size = limit(strength / 8, least, most);

	return !out || draw(context, out, size) ? size : 0;
}

/* Returns a seed for a generator that a program has chained to this one. */
static size_t get_seed(void *context, unsigned char **seed, int entropy, size_t least, size_t most,
		       int prediction_resistance, const unsigned char *extra, size_t extra_size)
{
	size_t size = limit(entropy > 0 ? (entropy + 7) / 8 : 0, least, most);

	(void)prediction_resistance;
	(void)extra;
	(void)extra_size;
	*seed = malloc(size ? size : 1);
	if (!*seed) {
		FAIL(context, NO_MEMORY, "%zu bytes", size);
		return 0;
	}
	if (draw(context, *seed, size))
		return size;
	free(*seed);
	*seed = NULL;
	return 0;
}

static void clear_seed(void *context, unsigned char *seed, size_t size)
{
	(void)context;
	if (seed)
		explicit_bzero(seed, size);
	free(seed);
}

/* Without state, no lock is needed: threads may draw at the same time. */
static int enable_locking(void *context)
{
	(void)context;
	return 1;
}

static int lock(void *context)
{
	(void)context;
	return 1;
}

static void unlock(void *context)
{
	(void)context;
}

static int verify_zeroization(void *context)
{
	(void)context;
	return 1;
}

static const OSSL_PARAM *gettable_context(void *context, void *provider)
{
	static const OSSL_PARAM known[] = {
		OSSL_PARAM_int(OSSL_RAND_PARAM_STATE, NULL),
		OSSL_PARAM_uint(OSSL_RAND_PARAM_STRENGTH, NULL),
		OSSL_PARAM_size_t(OSSL_RAND_PARAM_MAX_REQUEST, NULL),
		OSSL_PARAM_uint(OSSL_DRBG_PARAM_RESEED_COUNTER, NULL),
		OSSL_PARAM_END
	};

	(void)context;
	(void)provider;
	return known;
}

/* Stores a non-negative number; returns 0 if it does not fit. */
static int set_number(OSSL_PARAM *param, uint64_t value)
{
	param->return_size = param->data_size;
	if (param->data_type != OSSL_PARAM_INTEGER && param->data_type != OSSL_PARAM_UNSIGNED_INTEGER)
		return 0;
	if (!param->data)
		return 1;
	if (param->data_size == sizeof(uint32_t) && value <= INT32_MAX)
		*(uint32_t *)param->data = value;
	else if (param->data_size == sizeof(uint64_t))
		*(uint64_t *)param->data = value;
	else
		return 0;
	return 1;
}

static int get_context(void *context, OSSL_PARAM params[])
{
	/*
	 * A generator that is chained to this one checks this number before each
	 * draw, starting from 0. It always finds a change, and reseeds.
	 */
	static atomic_uint reseeds;
	unsigned char tried;

	for (OSSL_PARAM *param = params; param && param->key; param++) {
		uint64_t value;

		if (!strcmp(param->key, OSSL_RAND_PARAM_STATE))
			value = draw(context, &tried, sizeof(tried)) ? EVP_RAND_STATE_READY :
								       EVP_RAND_STATE_ERROR;
		else if (!strcmp(param->key, OSSL_RAND_PARAM_STRENGTH))
			value = STRENGTH;
		else if (!strcmp(param->key, OSSL_RAND_PARAM_MAX_REQUEST))
			value = INT32_MAX;
		else if (!strcmp(param->key, OSSL_DRBG_PARAM_RESEED_COUNTER))
			value = atomic_fetch_add(&reseeds, 1) % INT32_MAX + 1;
		else
			continue;
		if (!set_number(param, value))
			return 0;
	}
	return 1;
}

#define FUNCTION(id, function)	{ id, (void (*)(void))(function) }

static const OSSL_DISPATCH generator[] = {
	FUNCTION(OSSL_FUNC_RAND_NEWCTX, new_context),
	FUNCTION(OSSL_FUNC_RAND_FREECTX, free_context),
	FUNCTION(OSSL_FUNC_RAND_INSTANTIATE, instantiate),
	FUNCTION(OSSL_FUNC_RAND_UNINSTANTIATE, uninstantiate),
	FUNCTION(OSSL_FUNC_RAND_GENERATE, generate),
	FUNCTION(OSSL_FUNC_RAND_RESEED, reseed),
	FUNCTION(OSSL_FUNC_RAND_NONCE, nonce),
	FUNCTION(OSSL_FUNC_RAND_GET_SEED, get_seed),
	FUNCTION(OSSL_FUNC_RAND_CLEAR_SEED, clear_seed),
	FUNCTION(OSSL_FUNC_RAND_ENABLE_LOCKING, enable_locking),
	FUNCTION(OSSL_FUNC_RAND_LOCK, lock),
	FUNCTION(OSSL_FUNC_RAND_UNLOCK, unlock),
	FUNCTION(OSSL_FUNC_RAND_VERIFY_ZEROIZATION, verify_zeroization),
	FUNCTION(OSSL_FUNC_RAND_GETTABLE_CTX_PARAMS, gettable_context),
	FUNCTION(OSSL_FUNC_RAND_GET_CTX_PARAMS, get_context),
	{ 0, NULL }
};

static const OSSL_ALGORITHM *query(void *provider, int operation, int *no_cache)
{
	static const OSSL_ALGORITHM generators[] = {
		{ NAME, "provider=sysgenid", generator, "draws from the kernel, keeps no state" },
		{ NULL, NULL, NULL, NULL }
	};

	(void)provider;
	*no_cache = 0;
	return operation == OSSL_OP_RAND ? generators : NULL;
}

static const OSSL_PARAM *gettable_provider(void *provider)
{
	static const OSSL_PARAM known[] = {
		OSSL_PARAM_DEFN(OSSL_PROV_PARAM_NAME, OSSL_PARAM_UTF8_PTR, NULL, 0),
		OSSL_PARAM_DEFN(OSSL_PROV_PARAM_VERSION, OSSL_PARAM_UTF8_PTR, NULL, 0),
		OSSL_PARAM_DEFN(OSSL_PROV_PARAM_BUILDINFO, OSSL_PARAM_UTF8_PTR, NULL, 0),
		OSSL_PARAM_DEFN(OSSL_PROV_PARAM_STATUS, OSSL_PARAM_INTEGER, NULL, 0),
		OSSL_PARAM_END
	};

	(void)provider;
	return known;
}

static int get_provider(void *provider, OSSL_PARAM params[])
{
	(void)provider;
	for (OSSL_PARAM *param = params; param && param->key; param++) {
		const char *text;

		if (!strcmp(param->key, OSSL_PROV_PARAM_STATUS)) {
			if (!set_number(param, 1))
				return 0;
			continue;
		}
		if (!strcmp(param->key, OSSL_PROV_PARAM_NAME))
			text = "sysgenid";
		else if (!strcmp(param->key, OSSL_PROV_PARAM_VERSION) ||
			 !strcmp(param->key, OSSL_PROV_PARAM_BUILDINFO))
			text = VERSION;
		else
			continue;
		if (param->data_type != OSSL_PARAM_UTF8_PTR)
			return 0;
		if (param->data)
			*(const char **)param->data = text;
		param->return_size = strlen(text);
	}
	return 1;
}

static const OSSL_ITEM *get_reasons(void *provider)
{
	(void)provider;
	return reasons;
}

static void teardown(void *provider)
{
	free(provider);
}

static const OSSL_DISPATCH functions[] = {
	FUNCTION(OSSL_FUNC_PROVIDER_TEARDOWN, teardown),
	FUNCTION(OSSL_FUNC_PROVIDER_GETTABLE_PARAMS, gettable_provider),
	FUNCTION(OSSL_FUNC_PROVIDER_GET_PARAMS, get_provider),
	FUNCTION(OSSL_FUNC_PROVIDER_QUERY_OPERATION, query),
	FUNCTION(OSSL_FUNC_PROVIDER_GET_REASON_STRINGS, get_reasons),
	{ 0, NULL }
};

/**
 * OSSL_provider_init() - initialize the provider, after libcrypto has loaded the module
 * @core: names this provider to libcrypto
 * @in: libcrypto's functions; the provider uses those that report errors
 * @out: receives the provider's functions
 * @context: receives the provider's data, later the first argument of its functions
 *
 * Return: 1, or 0 if there is no memory. See provider(7).
 */
__attribute__((visibility("default")))
int OSSL_provider_init(const OSSL_CORE_HANDLE *core, const OSSL_DISPATCH *in,
		       const OSSL_DISPATCH **out, void **context)
{
	struct provider *provider = calloc(1, sizeof(*provider));

	if (!provider)
		return 0;
	provider->core = core;
	for (; in->function_id; in++) {
		if (in->function_id == OSSL_FUNC_CORE_NEW_ERROR)
			provider->new_error = OSSL_FUNC_core_new_error(in);
		else if (in->function_id == OSSL_FUNC_CORE_SET_ERROR_DEBUG)
			provider->set_error_debug = OSSL_FUNC_core_set_error_debug(in);
		else if (in->function_id == OSSL_FUNC_CORE_VSET_ERROR)
			provider->vset_error = OSSL_FUNC_core_vset_error(in);
	}
	*out = functions;
	*context = provider;
	return 1;
}
