/* SPDX-License-Identifier: MIT */
/* The client's connection: lines of JSON with deadlines, and a supervisor that does not answer. */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <bsd/string.h>

#include "control.h"
#include "ctl_private.h"
#include "fd.h"
#include "loop.h"

/* The id of our asking for a sign of life, so that its answer is told from what was asked for. */
#define PROBE_ID "handoff-ping"

volatile sig_atomic_t ctl_interrupted;

static void on_interrupt(int signal)
{
	(void)signal;
	ctl_interrupted = 1;
}

void ctl_catch_interrupt(void)
{
	struct sigaction action;
	/* The background job of a script has it ignored, and means to. */
	if (sigaction(SIGINT, NULL, &action) < 0 || action.sa_handler == SIG_IGN)
		return;
	action = (struct sigaction){.sa_handler = on_interrupt};
	sigemptyset(&action.sa_mask);
	sigaction(SIGINT, &action, NULL);
	/* It is let in only while we wait in ppoll, so that none comes between the check and the wait. */
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
}

void ctl_message_finish(struct ctl_message *message)
{
	free(message->text);
	cJSON_Delete(message->json);
	*message = (struct ctl_message){.text = NULL};
}

/* ---- opening ---- */

int ctl_stream_open(const char *path, int64_t limit_ms, struct ctl_stream *ret_stream, struct error *error)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	if (strlcpy(address.sun_path, path, sizeof(address.sun_path)) >= sizeof(address.sun_path))
		return error_set(error, -ENAMETOOLONG,
				 "the path %s is longer than the %zu bytes that a socket's may have", path,
				 sizeof(address.sun_path) - 1);
	CLEANUP(fd_closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return error_set(error, -errno, "cannot make a socket: %s", strerror(errno));
	/* It bounds connect(2) as well, which waits while the queue of a supervisor that does not run is full
	 * (socket(7), unix(7)); a full queue cannot be waited for with poll(2). */
	const struct timeval limit = {.tv_sec = limit_ms / 1000, .tv_usec = limit_ms % 1000 * 1000};
	if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) < 0)
		return error_set(error, -errno, "cannot set up a socket: %s", strerror(errno));
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		int code = errno == EAGAIN ? -ETIMEDOUT : -errno;
		return error_set(error, code, "cannot talk to a supervisor at %s: %s", path, strerror(errno));
	}
	*ret_stream = (struct ctl_stream){.fd = fd_steal(&fd), .heard_ms = loop_now_ms(), .probed_ms = -1};
	return 0;
}

void ctl_stream_finish(struct ctl_stream *stream)
{
	stream->fd = fd_close(stream->fd);
	free(stream->buffer);
	stream->buffer = NULL;
	stream->length = stream->capacity = stream->scanned = 0;
}

/* ---- sending ---- */

static int send_all(int fd, const char *bytes, size_t length)
{
	while (length > 0) {
		ssize_t sent = send(fd, bytes, length, MSG_NOSIGNAL);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			return errno == EAGAIN ? -ETIMEDOUT : -errno;
		bytes += sent;
		length -= (size_t)sent;
	}
	return 0;
}

int ctl_stream_send(struct ctl_stream *stream, const cJSON *request)
{
	char *text = cJSON_PrintUnformatted(request);
	if (!text)
		return -ENOMEM;
	size_t length = strlen(text);
	int code = length + 1 > CONTROL_LINE_MAX ? -EMSGSIZE : 0;
	if (code == 0) {
		text[length] = '\n';
		code = send_all(stream->fd, text, length + 1);
	}
	cJSON_free(text);
	return code;
}

/* ---- receiving ---- */

/* Makes room for more. A buffer that is full of one line has reached the limit. */
static int make_room(struct ctl_stream *stream)
{
	if (stream->length < stream->capacity)
		return 0;
	if (stream->capacity > CTL_LINE_MAX)
		return -EPROTO;
	size_t capacity = stream->capacity ? 2 * stream->capacity : 4096;
	if (capacity > CTL_LINE_MAX)
		capacity = CTL_LINE_MAX + 1;
	char *buffer = realloc(stream->buffer, capacity);
	if (!buffer)
		return -ENOMEM;
	stream->buffer = buffer;
	stream->capacity = capacity;
	return 0;
}

/* Cuts the first line off the buffer: 1 with it on the heap, 0 when there is none yet. */
static int cut_line(struct ctl_stream *stream, char **ret_line)
{
	char *newline = stream->length > stream->scanned
				? memchr(stream->buffer + stream->scanned, '\n', stream->length - stream->scanned)
				: NULL;
	if (!newline) {
		stream->scanned = stream->length;
		return 0;
	}
	size_t length = (size_t)(newline - stream->buffer);
	char *line = malloc(length + 1);
	if (!line)
		return -ENOMEM;
	memcpy(line, stream->buffer, length);
	line[length] = '\0';
	stream->length -= length + 1;
	memmove(stream->buffer, newline + 1, stream->length);
	stream->scanned = 0;
	*ret_line = line;
	return 1;
}

/* Waits for bytes and takes them: 1, 0 at the end, or a negative errno. */
static int receive(struct ctl_stream *stream, int64_t until_ms)
{
	sigset_t mask;
	sigprocmask(SIG_SETMASK, NULL, &mask);
	sigdelset(&mask, SIGINT);
	int64_t left_ms = until_ms - loop_now_ms();
	left_ms = left_ms < 0 ? 0 : left_ms;
	const struct timespec limit = {.tv_sec = left_ms / 1000, .tv_nsec = left_ms % 1000 * 1000000};
	struct pollfd poll_fd = {.fd = stream->fd, .events = POLLIN};
	int ready = ppoll(&poll_fd, 1, &limit, &mask);
	if (ctl_interrupted)
		return -EINTR;
	if (ready < 0 && errno != EINTR)
		return -errno;
	if (ready <= 0)
		return loop_now_ms() >= until_ms ? -ETIMEDOUT : 1;
	int code = make_room(stream);
	if (code < 0)
		return code;
	ssize_t length =
		recv(stream->fd, stream->buffer + stream->length, stream->capacity - stream->length, MSG_DONTWAIT);
	if (length < 0)
		return errno == EAGAIN || errno == EINTR ? 1 : errno == ECONNRESET ? 0 : -errno;
	stream->length += (size_t)length;
	stream->heard_ms = loop_now_ms();
	stream->probed_ms = -1;
	return length > 0;
}

/* 1 with the message, 0 when it is the answer to a probe. Takes the line. */
static int parse_line(char *line, struct ctl_message *ret_message)
{
	struct ctl_message message = {.text = line, .json = cJSON_Parse(line)};
	int code = cJSON_IsObject(message.json) ? 1 : -EPROTO;
	if (code == 1 && strcmp(ctl_string(message.json, "id", ""), PROBE_ID) == 0)
		code = 0;
	if (code == 1)
		*ret_message = message;
	else
		ctl_message_finish(&message);
	return code;
}

int ctl_stream_next(struct ctl_stream *stream, int64_t until_ms, struct ctl_message *ret_message)
{
	for (;;) {
		char *line = NULL;
		int code = cut_line(stream, &line);
		if (code > 0)
			code = parse_line(line, ret_message);
		else if (code == 0 && (code = receive(stream, until_ms)) == 1)
			continue;
		else
			return code;
		if (code != 0)
			return code;
	}
}

/* ---- signs of life ---- */

int64_t ctl_stream_probe_at(const struct ctl_stream *stream)
{
	return (stream->probed_ms >= 0 ? stream->probed_ms : stream->heard_ms) + CTL_ANSWER_MS;
}

int ctl_stream_probe(struct ctl_stream *stream, int64_t now_ms)
{
	if (now_ms < ctl_stream_probe_at(stream))
		return 0;
	if (stream->probed_ms >= 0)
		return -ETIMEDOUT;
	cJSON *request = cJSON_CreateObject();
	cJSON_AddStringToObject(request, "command", "ping");
	cJSON_AddStringToObject(request, "id", PROBE_ID);
	stream->probed_ms = now_ms;
	int code = ctl_stream_send(stream, request);
	cJSON_Delete(request);
	/* That it has closed is told by the next read, after what it still sent. */
	return code == -EPIPE || code == -ECONNRESET ? 0 : code;
}
