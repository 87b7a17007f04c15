// SPDX-License-Identifier: GPL-2.0
/*
 * sysgenid gate: reports through a virtio-serial port whether the system has settled.
 * Each state is one line of JSON.
 *
 * Lines written before a snapshot may reach the host of a clone. Therefore the host
 * sends a line, the nonce, and all later lines carry it. A line with a nonce that the
 * host chose after the restore describes the clone.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sysgenid.h>

#include "command.h"
#include "overseer.h"
#include "system.h"
#include "text.h"

#define PORT		"/dev/virtio-ports/org.sysgenid.gate"
#define NONCE_SIZE	129

/**
 * struct gate - the port to the host
 * @port: the port's descriptor
 * @input: bytes from the host since its last newline
 * @length: the length of @input; the line is ignored if it exceeds NONCE_SIZE
 * @nonce: the last line from the host, or empty
 * @sent: the last line sent
 */
struct gate {
	int port;
	char input[NONCE_SIZE];
	size_t length;
	char nonce[NONCE_SIZE];
	char *sent;
};

static void take_byte(struct gate *gate, char byte)
{
	if (byte != '\n') {
		if (gate->length < NONCE_SIZE)
			gate->input[gate->length] = byte;
		gate->length += gate->length < NONCE_SIZE;
		return;
	}
	if (gate->length < NONCE_SIZE) {
		memcpy(gate->nonce, gate->input, gate->length);
		gate->nonce[gate->length] = '\0';
		clean_text(gate->nonce, gate->length);
		/* A nonce asks for a line, even if the state is unchanged. */
		free(gate->sent);
		gate->sent = NULL;
	}
	gate->length = 0;
}

static void read_port(struct gate *gate)
{
	char bytes[256];
	ssize_t count;

	while ((count = read(gate->port, bytes, sizeof(bytes))) > 0)
		for (ssize_t i = 0; i < count; i++)
			take_byte(gate, bytes[i]);
}

/*
 * Reads the record first, and checks the hardware afterwards: if both have the same
 * generation, the record was true at that moment.
 */
static json_object *make_line(const struct gate *gate)
{
	static const char * const names[] = { "hook", "failures" };
	json_object *line = json_object_new_object(), *record = read_record();
	json_object *value = NULL;
	bool changed = identity_has_changed();
	uint64_t generation = get_generation(), recorded;
	const char *state = "unknown";

	if (record)
		state = json_get_generation(json_object_object_get(record, "generation"),
					    &recorded) && recorded == generation ?
			json_object_get_string(json_object_object_get(record, "state")) :
			"pending";
	/* The driver failed to reseed the random number generator. */
	if (changed && state && !strcmp(state, "settled"))
		state = "pending";
	json_object_object_add(line, "generation", json_generation(generation));
	json_object_object_add(line, "state", json_object_new_string(state ? state : "unknown"));
	for (size_t i = 0; record && strcmp(state, "pending") && i < 2; i++)
		if (json_object_object_get_ex(record, names[i], &value))
			json_object_object_add(line, names[i], json_object_get(value));
	json_object_object_add(line, "prepared", json_object_new_boolean(is_prepared()));
	if (gate->nonce[0])
		json_object_object_add(line, "nonce", json_object_new_string(gate->nonce));
	json_object_put(record);
	return line;
}

/* If the host does not listen, the next event sends the state of that time. */
static void write_state(struct gate *gate)
{
	json_object *object = make_line(gate);
	char *line = NULL;
	ssize_t length;

	if (asprintf(&line, "%s\n", json_line(object)) < 0)
		abort();
	json_object_put(object);
	length = strlen(line);
	if (gate->sent && !strcmp(gate->sent, line)) {
		free(line);
		return;
	}
	free(gate->sent);
	gate->sent = NULL;
	if (write(gate->port, line, length) == length)
		gate->sent = line;
	else
		free(line);
}

static void drain(int fd)
{
	char bytes[4096];

	while (read(fd, bytes, sizeof(bytes)) > 0)
		;
}

/* Returns a descriptor that is readable when the state may have changed. */
static int open_changes(const struct gate *gate, int *inotify)
{
	/* Edge-triggered: if the host does not listen, the port stays ready. */
	struct epoll_event edge = {
		.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.fd = gate->port
	};
	int changes = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event level = { .events = EPOLLIN };

	*inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	mkdir(RUN_DIRECTORY, 0755);
	level.data.fd = *inotify;
	if (changes < 0 || *inotify < 0 ||
	    inotify_add_watch(*inotify, RUN_DIRECTORY, IN_MOVED_TO | IN_DELETE) < 0 ||
	    epoll_ctl(changes, EPOLL_CTL_ADD, gate->port, &edge) ||
	    epoll_ctl(changes, EPOLL_CTL_ADD, *inotify, &level))
		die(EXIT_ERROR, "cannot watch %s and the port: %s", RUN_DIRECTORY,
		    strerror(errno));
	return changes;
}

int do_gate(const struct options *options)
{
	const char *path = options->command[0] ? options->command[0] : PORT;
	struct gate gate = { .port = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC) };
	struct sysgenid_watcher *watcher;
	struct pollfd polled[2] = {{ .events = POLLIN }, { .events = POLLIN }};
	struct epoll_event event;
	uint64_t generation;
	int inotify;

	if (gate.port < 0)
		die(errno == EACCES ? EXIT_PERMISSION : EXIT_ERROR,
		    "cannot open the port %s: %s", path, strerror(errno));
	need_source();
	watcher = sysgenid_watcher_new(0);
	if (!watcher)
		die(EXIT_ERROR, "cannot watch the generation: %s", strerror(errno));
	polled[0].fd = sysgenid_watcher_fd(watcher);
	polled[1].fd = open_changes(&gate, &inotify);
	for (;;) {
		read_port(&gate);
		write_state(&gate);
		poll(polled, 2, -1);
		while (epoll_wait(polled[1].fd, &event, 1, 0) == 1 &&
		       event.data.fd == inotify)
			drain(inotify);
		while (sysgenid_watcher_wait(watcher, 0, &generation) == 1)
			sysgenid_watcher_ack(watcher, generation);
	}
}
