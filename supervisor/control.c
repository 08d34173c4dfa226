/* SPDX-License-Identifier: MIT */
/* The control socket: JSON lines from clients, events and results to them. */
#include "control.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <bsd/stdlib.h>
#include <bsd/string.h>
#include <bsd/sys/queue.h>

#include "fd.h"

/* A request that has no result yet. */
struct request {
	TAILQ_ENTRY(request) link; /* in client.requests */
	uint32_t number;
	cJSON *id; /* owned copy of what the client sent; NULL when it sent none */
};

struct client {
	TAILQ_ENTRY(client) link; /* in control.clients */
	struct control *control;
	int fd; /* owned */
	struct loop_source *source;
	TAILQ_HEAD(, request) requests;
	bool subscribed;
	bool closing; /* no further input; ends when its requests are answered and the output is sent */
	char *input;  /* owned, at most CONTROL_LINE_MAX */
	size_t input_length, input_capacity;
	char *output; /* owned: what the socket did not take yet */
	size_t output_length, output_capacity;
	int64_t last_line_ms;
};

struct control {
	struct loop *loop;
	int fd; /* owned: the listening socket */
	struct loop_source *source;
	struct loop_source *silence_timer; /* runs only while there are clients */
	bool check_peer;
	control_request_fn fn;
	void *data;
	TAILQ_HEAD(client_list, client) clients;
	size_t client_count;
	uint32_t last_request;
};

static void client_close(struct client *client)
{
	struct control *control = client->control;
	struct request *request;
	while ((request = TAILQ_FIRST(&client->requests))) {
		TAILQ_REMOVE(&client->requests, request, link);
		cJSON_Delete(request->id);
		free(request);
	}
	TAILQ_REMOVE(&control->clients, client, link);
	control->client_count--;
	loop_remove(client->source);
	fd_close(client->fd);
	free(client->input);
	free(client->output);
	free(client);
}

/* ---- output ---- */

/* Sends what the socket takes. False when the client is gone (and freed). */
static bool client_flush(struct client *client)
{
	while (client->output_length > 0) {
		ssize_t sent = send(client->fd, client->output, client->output_length, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && errno == EAGAIN)
			break;
		if (sent < 0) {
			client_close(client);
			return false;
		}
		client->output_length -= (size_t)sent;
		memmove(client->output, client->output + sent, client->output_length);
	}
	if (client->output_length == 0 && client->closing && TAILQ_EMPTY(&client->requests)) {
		client_close(client);
		return false;
	}
	uint32_t events = (client->closing ? 0 : EPOLLIN) | (client->output_length > 0 ? EPOLLOUT : 0);
	loop_fd_set_events(client->source, events);
	return true;
}

/* False when the client is gone. */
static bool client_send(struct client *client, const cJSON *message)
{
	char *text = cJSON_PrintUnformatted(message);
	size_t length = text ? strlen(text) : 0;
	size_t needed = client->output_length + length + 1;
	/* One who does not read is cut off, not waited for. */
	if (!text || needed > CONTROL_OUTPUT_MAX) {
		cJSON_free(text);
		client_close(client);
		return false;
	}
	if (needed > client->output_capacity) {
		char *output = realloc(client->output, needed + 1024);
		if (!output) {
			cJSON_free(text);
			client_close(client);
			return false;
		}
		client->output = output;
		client->output_capacity = needed + 1024;
	}
	memcpy(client->output + client->output_length, text, length);
	client->output[needed - 1] = '\n';
	client->output_length = needed;
	cJSON_free(text);
	return client_flush(client);
}

static struct client *find_request(struct control *control, uint32_t number, struct request **ret_request)
{
	struct client *client;
	TAILQ_FOREACH (client, &control->clients, link)
		TAILQ_FOREACH (*ret_request, &client->requests, link)
			if ((*ret_request)->number == number)
				return client;
	return NULL;
}

static void add_id(cJSON *message, const struct request *request)
{
	if (request->id)
		cJSON_AddItemToObject(message, "id", cJSON_Duplicate(request->id, true));
}

void control_event(struct control *control, uint32_t number, cJSON *event)
{
	struct request *request;
	struct client *client = control ? find_request(control, number, &request) : NULL;
	if (client) {
		add_id(event, request);
		client_send(client, event);
	}
	cJSON_Delete(event);
}

void control_result(struct control *control, uint32_t number, cJSON *result)
{
	struct request *request;
	struct client *client = control ? find_request(control, number, &request) : NULL;
	if (client) {
		add_id(result, request);
		TAILQ_REMOVE(&client->requests, request, link);
		cJSON_Delete(request->id);
		free(request);
		client->last_line_ms = loop_now_ms();
		client_send(client, result);
	}
	cJSON_Delete(result);
}

void control_result_error(struct control *control, uint32_t request, const char *reason)
{
	cJSON *result = cJSON_CreateObject();
	cJSON_AddStringToObject(result, "result", "error");
	cJSON_AddStringToObject(result, "reason", reason);
	control_result(control, request, result);
}

void control_subscribe(struct control *control, uint32_t number)
{
	struct request *request;
	struct client *client = find_request(control, number, &request);
	if (client)
		client->subscribed = true;
}

bool control_has_subscribers(const struct control *control)
{
	const struct client *client;
	if (control)
		TAILQ_FOREACH (client, &control->clients, link)
			if (client->subscribed)
				return true;
	return false;
}

void control_broadcast(struct control *control, cJSON *event)
{
	struct client *client, *next;
	if (control)
		TAILQ_FOREACH_SAFE (client, &control->clients, link, next)
			if (client->subscribed)
				client_send(client, event);
	cJSON_Delete(event);
}

/* ---- input ---- */

/* Something that is no request still gets a result. False when the client is gone. */
static bool complain(struct client *client, const cJSON *id, const char *reason)
{
	cJSON *result = cJSON_CreateObject();
	cJSON_AddStringToObject(result, "result", "error");
	cJSON_AddStringToObject(result, "reason", reason);
	if (id)
		cJSON_AddItemToObject(result, "id", cJSON_Duplicate(id, true));
	bool alive = client_send(client, result);
	cJSON_Delete(result);
	return alive;
}

static bool add_request(struct client *client, const cJSON *message, uint32_t *ret_number)
{
	struct request *request = calloc(1, sizeof(*request));
	if (!request)
		return false;
	const cJSON *id = cJSON_GetObjectItemCaseSensitive(message, "id");
	request->id = id ? cJSON_Duplicate(id, true) : NULL;
	request->number = ++client->control->last_request;
	TAILQ_INSERT_TAIL(&client->requests, request, link);
	*ret_number = request->number;
	return true;
}

static bool is_alive(struct control *control, const struct client *wanted)
{
	const struct client *client;
	TAILQ_FOREACH (client, &control->clients, link)
		if (client == wanted)
			return true;
	return false;
}

/* False when the client is gone. */
static bool take_line(struct client *client, const char *line, size_t length)
{
	struct control *control = client->control;
	const char *end = NULL;
	client->last_line_ms = loop_now_ms();
	cJSON *message = cJSON_ParseWithLengthOpts(line, length, &end, false);
	while (message && end < line + length && strchr(" \t\r", *end))
		end++;
	bool alive;
	uint32_t number;
	if (!message || end != line + length || !cJSON_IsObject(message)) {
		alive = complain(client, NULL, "a request is one JSON object on one line");
	} else if (!cJSON_IsString(cJSON_GetObjectItemCaseSensitive(message, "command"))) {
		alive = complain(client, cJSON_GetObjectItemCaseSensitive(message, "id"),
				 "a request has a \"command\", which is a string");
	} else if (!add_request(client, message, &number)) {
		alive = complain(client, cJSON_GetObjectItemCaseSensitive(message, "id"), "out of memory");
	} else {
		control->fn(control->data, number, message);
		alive = is_alive(control, client);
	}
	cJSON_Delete(message);
	return alive;
}

/* Takes every whole line in the buffer. */
static void take_lines(struct client *client)
{
	for (char *newline; !client->closing && (newline = memchr(client->input, '\n', client->input_length));) {
		size_t length = (size_t)(newline - client->input);
		if (length >= CONTROL_LINE_MAX)
			break;
		/* The handler may end the client, so the line must not live in it. */
		CLEANUP(freep) char *line = malloc(length + 1);
		if (!line) {
			client_close(client);
			return;
		}
		memcpy(line, client->input, length);
		line[length] = '\0';
		client->input_length -= length + 1;
		memmove(client->input, newline + 1, client->input_length);
		if (!take_line(client, line, length))
			return;
	}
	if (client->input_length < CONTROL_LINE_MAX || client->closing)
		return;
	client->closing = true;
	complain(client, NULL, "a line is at most 65536 bytes");
}

static void on_client(struct loop_source *source, int fd, uint32_t events, void *data)
{
	(void)source;
	struct client *client = data;
	if ((events & EPOLLOUT) && !client_flush(client))
		return;
	if (client->closing || !(events & (EPOLLIN | EPOLLHUP | EPOLLERR))) {
		if (events & (EPOLLHUP | EPOLLERR))
			client_close(client);
		return;
	}
	if (client->input_capacity - client->input_length < 4096) {
		size_t capacity = client->input_capacity ? 2 * client->input_capacity : 4096;
		char *input = realloc(client->input, capacity);
		if (!input) {
			client_close(client);
			return;
		}
		client->input = input;
		client->input_capacity = capacity;
	}
	ssize_t length = recv(fd, client->input + client->input_length, client->input_capacity - client->input_length,
			      MSG_DONTWAIT);
	if (length < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (length < 0) {
		client_close(client);
		return;
	}
	if (length == 0) {
		/* A client may shut down its side and still read its answers (`printf … | socat`). */
		client->closing = true;
		client_flush(client);
		return;
	}
	client->input_length += (size_t)length;
	take_lines(client);
}

/* ---- clients come and go ---- */

static void on_silence(struct loop_source *source, void *data)
{
	struct control *control = data;
	struct client *client, *next;
	int64_t now = loop_now_ms();
	TAILQ_FOREACH_SAFE (client, &control->clients, link, next)
		if (TAILQ_EMPTY(&client->requests) && now - client->last_line_ms >= CONTROL_SILENCE_MS)
			client_close(client);
	if (control->client_count > 0)
		loop_timer_set(source, CONTROL_SILENCE_MS);
}

static bool peer_may(const struct control *control, int fd)
{
	struct ucred peer;
	socklen_t length = sizeof(peer);
	if (!control->check_peer)
		return true;
	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 && (peer.uid == 0 || peer.uid == geteuid());
}

static struct client *client_create(struct control *control, int fd)
{
	struct client *client = calloc(1, sizeof(*client));
	if (!client)
		return NULL;
	client->control = control;
	client->fd = fd;
	client->last_line_ms = loop_now_ms();
	TAILQ_INIT(&client->requests);
	if (loop_add_fd(control->loop, fd, EPOLLIN, on_client, client, &client->source) < 0) {
		free(client);
		return NULL;
	}
	TAILQ_INSERT_TAIL(&control->clients, client, link);
	if (control->client_count++ == 0)
		loop_timer_set(control->silence_timer, CONTROL_SILENCE_MS);
	return client;
}

static void on_connect(struct loop_source *source, int listen_fd, uint32_t events, void *data)
{
	(void)source;
	(void)events;
	struct control *control = data;
	int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0)
		return;
	bool welcome = peer_may(control, fd);
	struct client *client = client_create(control, fd);
	if (!client) {
		fd_close(fd);
		return;
	}
	client->closing = !welcome || control->client_count > CONTROL_CLIENTS_MAX;
	if (!welcome)
		complain(client, NULL, "only the user that runs this supervisor, or root, may talk to it");
	else if (client->closing)
		complain(client, NULL, "too many clients");
}

/* Mode and owner are set between bind and listen, when nobody can connect yet. */
static int open_socket(const struct control_place *place, struct error *error)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	if (strlcpy(address.sun_path, place->path, sizeof(address.sun_path)) >= sizeof(address.sun_path))
		return error_set(error, -ENAMETOOLONG, "the control socket's path %s is longer than %zu bytes",
				 place->path, sizeof(address.sun_path) - 1);
	CLEANUP(fd_closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return error_set(error, -errno, "cannot make the control socket: %s", strerror(errno));
	mode_t umask_before = umask(0777);
	int bound = bind(fd, (struct sockaddr *)&address, sizeof(address));
	int code = -errno;
	umask(umask_before);
	if (bound < 0)
		return error_set(error, code, "cannot make the control socket %s: %s", place->path, strerror(-code));
	if ((place->gid != (gid_t)-1 && chown(place->path, (uid_t)-1, place->gid) < 0) ||
	    chmod(place->path, place->mode) < 0 || listen(fd, 128) < 0)
		return error_set(error, -errno, "cannot set up the control socket %s: %s", place->path,
				 strerror(errno));
	return fd_steal(&fd);
}

int control_create(struct loop *loop, const struct control_place *place, control_request_fn fn, void *data,
		   struct control **ret_control, struct error *error)
{
	struct control *control = calloc(1, sizeof(*control));
	if (!control)
		return error_set(error, -ENOMEM, "out of memory");
	*control = (struct control){.loop = loop, .fn = fn, .data = data, .check_peer = place->check_peer};
	TAILQ_INIT(&control->clients);
	int r = control->fd = open_socket(place, error);
	if (r >= 0) {
		r = loop_add_timer(loop, on_silence, control, &control->silence_timer);
		if (r >= 0)
			r = loop_add_fd(loop, control->fd, EPOLLIN, on_connect, control, &control->source);
		if (r < 0)
			error_set(error, r, "cannot watch the control socket: %s", strerror(-r));
	}
	if (r < 0) {
		control_destroy(control);
		return r;
	}
	*ret_control = control;
	return 0;
}

void control_destroy(struct control *control)
{
	if (!control)
		return;
	struct client *client, *next;
	TAILQ_FOREACH_SAFE (client, &control->clients, link, next) {
		if (client_flush(client))
			client_close(client);
	}
	loop_remove(control->source);
	loop_remove(control->silence_timer);
	fd_close(control->fd);
	free(control);
}
