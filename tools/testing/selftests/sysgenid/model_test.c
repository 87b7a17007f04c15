// SPDX-License-Identifier: GPL-2.0
/*
 * Checks long random sequences of calls against a model of the device. With one call at a
 * time, from several threads, the model knows every answer. With concurrent calls, it
 * knows their bounds.
 *
 * In the environment, SYSGENID_SEED repeats the run with that seed, and SYSGENID_STEPS is
 * the number of steps.
 */
#include "modules.h"

#include <limits.h>
#include <sys/random.h>

#define THREADS 4
#define SLOTS 12

static unsigned long long from_environment(const char *name, unsigned long long otherwise)
{
	const char *value = getenv(name);

	return value ? strtoull(value, NULL, 0) : otherwise;
}

/* Chooses a random seed, or that of the environment, and prints it. */
static uint64_t choose_seed(void)
{
	uint32_t seed;

	if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
		err(1, "getrandom");
	seed = from_environment("SYSGENID_SEED", seed);
	printf("# SYSGENID_SEED=%u\n", seed);
	fflush(stdout);
	return seed;
}

static uint32_t draw(uint64_t *random, uint32_t below)
{
	*random = *random * 6364136223846793005ULL + 1442695040888963407ULL;
	return (*random >> 33) % below;
}

/*
 * The model: one call at a time
 */

/* An open file, which may have several descriptors. */
struct description {
	int users;
	bool readable, writable;
	uint32_t acknowledged;
	bool tracked;
};

struct slot {
	int fd;
	struct description *description;	/* NULL: the slot is free */
};

struct model {
	uint64_t random;
	uint32_t generation;
	bool event;		/* an event in the hardware, not detected yet */
	struct description descriptions[SLOTS];
	struct slot slots[SLOTS];
	const volatile uint32_t *counter;
	int steps;
	const char *step;	/* the current step's name */
	bool failed;
	int turn;		/* number of the thread that does the next step */
	pthread_mutex_t mutex;
	pthread_cond_t next;
};

static void check(struct model *model, const char *what, long long is, long long should)
{
	if (is == should || model->failed)
		return;
	printf("# %d steps before the end: %s: %s is %lld, should be %lld\n",
	       model->steps, model->step, what, is, should);
	fflush(stdout);
	model->failed = true;
}

/* Returns a call's result as the kernel returns it: a negative errno on failure. */
static long result(long returned)
{
	return returned < 0 ? -errno : returned;
}

/* Updates the model after a call that has to look at the hardware. */
static void look(struct model *model)
{
	model->generation += model->event;
	model->event = false;
}

static bool is_outdated(struct model *model, struct description *description)
{
	return description->acknowledged != model->generation;
}

static int count(struct model *model, bool only_outdated)
{
	int number = 0;

	for (int i = 0; i < SLOTS; i++) {
		struct description *description = &model->descriptions[i];

		if (description->users && description->tracked &&
		    (!only_outdated || is_outdated(model, description)))
			number++;
	}
	return number;
}

static struct description *free_description(struct model *model)
{
	struct description *description = model->descriptions;

	while (description->users)
		description++;
	return description;
}

static void step_open(struct model *model, struct slot *slot)
{
	static const int modes[] = { O_RDONLY, O_WRONLY, O_RDWR, O_RDWR };
	int mode = modes[draw(&model->random, ARRAY_SIZE(modes))];
	struct description *description = free_description(model);

	slot->fd = open_device(mode | O_NONBLOCK);
	look(model);
	*description = (struct description){
		.users = 1, .acknowledged = model->generation,
		.readable = mode != O_WRONLY, .writable = mode != O_RDONLY,
	};
	slot->description = description;
}

static void step_close(struct model *model, struct slot *slot)
{
	check(model, "close", close(slot->fd), 0);
	slot->description->users--;
	slot->description = NULL;
}

static void step_duplicate(struct model *model, struct slot *slot)
{
	for (int i = 0; i < SLOTS; i++) {
		if (model->slots[i].description)
			continue;
		model->slots[i] = (struct slot){ dup(slot->fd), slot->description };
		slot->description->users++;
		return;
	}
}

static void step_read(struct model *model, struct slot *slot)
{
	size_t size = draw(&model->random, 9);
	struct description *description = slot->description;
	uint32_t buffer[2] = { 0 };
	long got = result(read(slot->fd, buffer, size));

	if (!description->readable) {
		check(model, "read", got, -EBADF);
	} else if (size < 4) {
		check(model, "read", got, size ? -EINVAL : 0);
	} else {
		look(model);
		check(model, "read", got, is_outdated(model, description) ? 4 : -EAGAIN);
		if (got == 4)
			check(model, "generation read", buffer[0], model->generation);
	}
}

static void step_write(struct model *model, struct slot *slot)
{
	static const size_t sizes[] = { 4, 4, 4, 4, 4, 4, 0, 1, 3, 5, 8 };
	size_t size = sizes[draw(&model->random, ARRAY_SIZE(sizes))];
	struct description *description = slot->description;
	uint32_t values[] = {
		model->generation, model->generation, model->generation,
		model->generation + 1, model->generation - 1, description->acknowledged,
	};
	uint32_t buffer[2] = { values[draw(&model->random, ARRAY_SIZE(values))] };
	long got = result(write(slot->fd, buffer, size));

	if (!description->writable) {
		check(model, "write", got, -EBADF);
	} else if (size != 4) {
		check(model, "write", got, -ENOBUFS);
	} else {
		look(model);
		check(model, "write", got, buffer[0] == model->generation ? 4 : -EINVAL);
		if (got == 4)
			description->acknowledged = buffer[0];
	}
}

static void step_poll(struct model *model, struct slot *slot)
{
	bool news = is_readable(slot->fd);

	look(model);
	check(model, "poll", news, is_outdated(model, slot->description));
}

static void step_track(struct model *model, struct slot *slot)
{
	bool on = draw(&model->random, 2);
	long got = result(set_tracking(slot->fd, on));

	look(model);
	if (slot->description->writable) {
		check(model, "tracking", got, 0);
		slot->description->tracked = on;
	} else {
		check(model, "tracking", got, -EBADF);
	}
}

static void step_wait(struct model *model, struct slot *slot)
{
	long got = result(wait_watchers(slot->fd, 1));

	look(model);
	if (is_outdated(model, slot->description))
		check(model, "wait", got, -EINTR);
	else
		check(model, "wait", got, count(model, true) ? -ETIME : 0);
}

static unsigned long draw_minimum(struct model *model)
{
	switch (draw(&model->random, 24)) {
	case 0:
		return model->generation - 1;
	case 1:
		return model->generation;
	case 2:
		return model->generation + 1;
	case 3:
		return model->generation + draw(&model->random, 1 << 16);
	case 4:
		return ULONG_MAX - draw(&model->random, 1 << 16);
	case 5:
		return SYSGENID_TRIGGER_MAX + draw(&model->random, 3);
	case 6:
		return model->generation + draw(&model->random, 1 << 30);
	default:
		return 0;
	}
}

static void step_trigger(struct model *model, struct slot *slot)
{
	unsigned long minimum = draw_minimum(model);
	long got;

	/* Rarely go near the end of the range, as the counter cannot go back. */
	if (minimum > INT_MAX && minimum <= SYSGENID_TRIGGER_MAX && draw(&model->random, 4))
		minimum = 0;
	got = result(trigger(slot->fd, minimum));
	look(model);
	if (minimum > SYSGENID_TRIGGER_MAX) {
		check(model, "trigger", got, -EINVAL);
	} else if (model->generation >= SYSGENID_TRIGGER_MAX) {
		check(model, "trigger", got, -EOVERFLOW);
	} else {
		check(model, "trigger", got, 0);
		model->generation++;
		if (minimum > model->generation)
			model->generation = minimum;
	}
}

static void step_get(struct model *model, struct slot *slot)
{
	uint32_t generation = get_generation(slot->fd);

	look(model);
	check(model, "generation", generation, model->generation);
}

static void step_event(struct model *model, struct slot *slot)
{
	(void)slot;
	test_set("hardware", test_get("hardware") + !model->event);
	model->event = true;
}

static void step_look_around(struct model *model, struct slot *slot)
{
	struct description *description = slot->description;

	check(model, "acknowledged", fdinfo(slot->fd, "sysgenid-acknowledged:"),
	      description->acknowledged);
	check(model, "tracked", fdinfo(slot->fd, "sysgenid-tracked:"), description->tracked);
	check(model, "watchers", watchers(), count(model, false));
	look(model);
	check(model, "generation", number_in(SYSFS "generation", ""), model->generation);
	check(model, "outdated", outdated(), count(model, true));
}

static void step_in_a_child(struct model *model, struct slot *slot)
{
	struct description *description = slot->description;
	pid_t child = fork();

	if (!child)
		_exit(acknowledge(slot->fd, get_generation(slot->fd)) != 4);
	check(model, "child", succeeds(child), description->writable);
	look(model);
	if (description->writable)
		description->acknowledged = model->generation;
}

static const struct {
	const char *name;
	void (*run)(struct model *model, struct slot *slot);
	int weight;
} steps[] = {
	{ "close", step_close, 6 },
	{ "duplicate", step_duplicate, 3 },
	{ "read", step_read, 10 },
	{ "write", step_write, 14 },
	{ "poll", step_poll, 8 },
	{ "track", step_track, 12 },
	{ "wait", step_wait, 3 },
	{ "trigger", step_trigger, 8 },
	{ "get", step_get, 4 },
	{ "event", step_event, 4 },
	{ "look around", step_look_around, 10 },
	{ "acknowledge in a child", step_in_a_child, 1 },
};

static void do_step(struct model *model)
{
	struct slot *slot = &model->slots[draw(&model->random, SLOTS)];
	int number = 0, chosen = 0;

	for (size_t i = 0; i < ARRAY_SIZE(steps); i++)
		number += steps[i].weight;
	number = draw(&model->random, number);
	while (number >= steps[chosen].weight)
		number -= steps[chosen++].weight;

	model->step = slot->description ? steps[chosen].name : "open";
	if (slot->description)
		steps[chosen].run(model, slot);
	else
		step_open(model, slot);
	/* The device may look at the hardware in other calls, too. */
	if (*model->counter != model->generation)
		look(model);
	check(model, "mapped counter", *model->counter, model->generation);
}

struct worker {
	struct model *model;
	int number;
	pthread_t thread;
};

static void *worker_main(void *data)
{
	struct worker *worker = data;
	struct model *model = worker->model;

	pthread_mutex_lock(&model->mutex);
	while (model->steps && !model->failed) {
		if (model->turn == worker->number) {
			do_step(model);
			model->steps--;
			model->turn = draw(&model->random, THREADS);
			pthread_cond_broadcast(&model->next);
		} else {
			pthread_cond_wait(&model->next, &model->mutex);
		}
	}
	pthread_mutex_unlock(&model->mutex);
	return NULL;
}

/* Runs the steps, then closes all descriptors; true if the device matched the model. */
static bool episode(uint64_t seed, int steps_to_do)
{
	struct model model = {
		.random = seed, .steps = steps_to_do, .step = "start",
		.mutex = PTHREAD_MUTEX_INITIALIZER, .next = PTHREAD_COND_INITIALIZER,
	};
	struct worker workers[THREADS];
	int fd = open_device(O_RDONLY);

	model.counter = map_counter(fd);
	model.generation = *model.counter;
	close(fd);
	for (int i = 0; i < THREADS; i++) {
		workers[i] = (struct worker){ .model = &model, .number = i };
		pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]);
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(workers[i].thread, NULL);

	model.step = "end";
	for (int i = 0; i < SLOTS; i++)
		if (model.slots[i].description)
			step_close(&model, &model.slots[i]);
	check(&model, "watchers", watchers(), 0);
	check(&model, "outdated", outdated(), 0);
	munmap((void *)model.counter, page_size());
	return !model.failed;
}

FIXTURE(model) {
};

FIXTURE_SETUP(model)
{
	if (module_users() < 0)
		SKIP(return, "sysgenid is built into this kernel");
	if (!reload_modules())
		SKIP(return, "the modules can't be reloaded");
}

FIXTURE_TEARDOWN(model)
{
}

#define EPISODES 4

TEST_F_TIMEOUT(model, device_answers_every_call_like_model, 300)
{
	int steps_to_do = from_environment("SYSGENID_STEPS", 1500);
	uint64_t seed = choose_seed();

	for (int i = 0; i < EPISODES; i++) {
		ASSERT_TRUE(reload_modules());
		ASSERT_TRUE(episode(seed + i, steps_to_do))
			TH_LOG("run again with SYSGENID_SEED=%u", (uint32_t)seed);
	}
}

/*
 * The bounds: threads call concurrently. Each knows the state of its own descriptor, while
 * the others move the counter.
 */
struct actor {
	uint64_t random;
	int steps;
	int fd, blocking_fd;
	uint32_t acknowledged;
	bool tracked;
	unsigned int triggers;
	const volatile uint32_t *counter;
	const char *complaint;
	pthread_t thread;
};

static void expect(struct actor *actor, bool holds, const char *complaint)
{
	if (!holds && !actor->complaint)
		actor->complaint = complaint;
}

static void act_read(struct actor *actor, uint32_t before)
{
	uint32_t generation;
	bool got = read(actor->fd, &generation, 4) == 4;
	uint32_t after = *actor->counter;

	if (got) {
		expect(actor, generation >= before && generation <= after,
		       "read returned a generation outside of its bounds");
		expect(actor, generation != actor->acknowledged,
		       "read returned an acknowledged generation");
	} else {
		expect(actor, before == actor->acknowledged,
		       "read returned EAGAIN, but there was a new generation");
	}
}

/* The read ends, as call_bump_now_and_then() always triggers another generation. */
static void act_blocking_read(struct actor *actor, uint32_t before)
{
	uint32_t generation = *actor->counter;

	acknowledge(actor->blocking_fd, generation);
	expect(actor, read(actor->blocking_fd, &generation, 4) == 4, "a blocking read failed");
	expect(actor, generation >= before && generation <= *actor->counter,
	       "a blocking read returned a generation outside of its bounds");
}

static void act_acknowledge(struct actor *actor, uint32_t before)
{
	bool done = acknowledge(actor->fd, before) == 4;

	if (done)
		actor->acknowledged = before;
	else
		expect(actor, *actor->counter != before,
		       "the current generation could not be acknowledged");
}

static void act_poll(struct actor *actor, uint32_t before)
{
	if (is_readable(actor->fd))
		expect(actor, *actor->counter != actor->acknowledged,
		       "poll reported an acknowledged generation");
	else
		expect(actor, before == actor->acknowledged,
		       "poll did not report a new generation");
}

static void act_trigger(struct actor *actor, uint32_t before)
{
	expect(actor, !trigger(actor->fd, 0), "a trigger failed");
	actor->triggers++;
	expect(actor, *actor->counter > before, "a trigger did not move the counter");
}

static void act_track(struct actor *actor, uint32_t before)
{
	(void)before;
	actor->tracked = draw(&actor->random, 2);
	expect(actor, !set_tracking(actor->fd, actor->tracked), "tracking failed");
}

static void act_wait(struct actor *actor, uint32_t before)
{
	if (!wait_watchers(actor->fd, 1))
		expect(actor, before == actor->acknowledged, "an outdated overseer did not get EINTR");
	else if (errno == EINTR)
		expect(actor, *actor->counter != actor->acknowledged,
		       "an overseer got EINTR without a new generation");
	else
		expect(actor, errno == ETIME, "a wait failed");
}

static void act_reopen(struct actor *actor, uint32_t before)
{
	close(actor->fd);
	actor->fd = open_device(O_RDWR | O_NONBLOCK);
	actor->tracked = false;
	actor->acknowledged = fdinfo(actor->fd, "sysgenid-acknowledged:");
	expect(actor, actor->acknowledged >= before, "open acknowledged an old generation");
}

static void act_count(struct actor *actor, uint32_t before)
{
	(void)before;
	expect(actor, watchers() <= THREADS && outdated() <= THREADS,
	       "there were more watchers than descriptors");
}

static void *actor_main(void *data)
{
	static void (*const acts[])(struct actor *actor, uint32_t before) = {
		act_read, act_read, act_blocking_read, act_acknowledge, act_acknowledge,
		act_acknowledge, act_poll, act_poll, act_trigger, act_track, act_track,
		act_wait, act_reopen, act_count,
	};
	struct actor *actor = data;
	uint32_t last = 0;

	while (actor->steps-- && !actor->complaint) {
		uint32_t before = *actor->counter;

		expect(actor, before >= last, "the counter went backwards");
		acts[draw(&actor->random, ARRAY_SIZE(acts))](actor, before);
		last = before;
	}
	return NULL;
}

static void start_actor(struct actor *actor, uint64_t seed, const volatile uint32_t *counter)
{
	*actor = (struct actor){
		.random = seed, .counter = counter,
		.steps = from_environment("SYSGENID_STEPS", 1500),
		.fd = open_device(O_RDWR | O_NONBLOCK), .blocking_fd = open_device(O_RDWR),
	};
	actor->acknowledged = fdinfo(actor->fd, "sysgenid-acknowledged:");
	pthread_create(&actor->thread, NULL, actor_main, actor);
}

/* Bumps often enough to end each blocking read, and seldom enough for some to sleep. */
static atomic_bool over;

static int call_bump_now_and_then(int fd, unsigned long unused)
{
	int bumps = 0;

	(void)unused;
	for (; !over; usleep(2000))
		bumps += !trigger(fd, 0);
	return bumps;
}

TEST_F_TIMEOUT(model, concurrent_calls_stay_within_bounds, 300)
{
	int fd = open_device(O_RDONLY);
	const volatile uint32_t *counter = map_counter(fd);
	uint32_t should = *counter;
	struct actor actors[THREADS];
	int tracked = 0, behind = 0;
	uint64_t seed = choose_seed();
	struct caller bumper;

	for (int i = 0; i < THREADS; i++)
		start_actor(&actors[i], seed + i, counter);
	start_call(&bumper, call_bump_now_and_then, fd, 0);
	for (int i = 0; i < THREADS; i++) {
		pthread_join(actors[i].thread, NULL);
		EXPECT_EQ(NULL, actors[i].complaint)
			TH_LOG("%s; seed %u", actors[i].complaint, (uint32_t)seed);
		should += actors[i].triggers;
	}
	over = true;
	finish_call(&bumper);
	EXPECT_EQ(should + bumper.result, *counter);

	for (int i = 0; i < THREADS; i++) {
		tracked += actors[i].tracked;
		behind += actors[i].tracked && actors[i].acknowledged != *counter;
	}
	EXPECT_EQ(tracked, watchers());
	EXPECT_EQ(behind, outdated());
	for (int i = 0; i < THREADS; i++)
		close(actors[i].fd);
	EXPECT_EQ(0, watchers());
	EXPECT_EQ(0, outdated());
}

TEST_HARNESS_MAIN
