/* SPDX-License-Identifier: MIT */
/* `handoff status` and `handoff list`. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ctl_private.h"
#include "fd.h"
#include "loop.h"

/* How long `list` waits for all of them together: one that does not answer must not hide the others for long. */
#define LIST_MS 2000

static int64_t unix_now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static cJSON *status_message(const char *format)
{
	cJSON *message = cJSON_CreateObject();
	cJSON_AddStringToObject(message, "command", "status");
	if (format)
		cJSON_AddStringToObject(message, "format", format);
	return message;
}

/* Prints what the result holds, in the form asked for; the exit status. */
static int print_status(const struct ctl_request *request, const struct ctl_peer *peer, const cJSON *result)
{
	const cJSON *status = cJSON_GetObjectItemCaseSensitive(result, "status");
	const char *text = ctl_string(result, "text", NULL);
	CLEANUP(freep) char *printed = NULL;
	if (request->prometheus ? !text : !cJSON_IsObject(status)) {
		ctl_complain("%s: the answer holds no status", peer->name);
		return CTL_ABSENT;
	}
	if (request->prometheus) {
		fputs(text, stdout);
		return ctl_flush();
	}
	printed = request->json ? cJSON_PrintUnformatted(status) : ctl_table(status, unix_now_ms());
	if (!printed) {
		ctl_complain("out of memory");
		return CTL_ERROR;
	}
	fputs(printed, stdout);
	fputs(request->json ? "\n" : "", stdout);
	return ctl_flush();
}

int ctl_show_status(const struct ctl_request *request)
{
	struct ctl_peer peer = {.stream.fd = -1};
	struct ctl_message message = {.text = NULL};
	int status = ctl_peer_open(request, &peer);
	if (status != CTL_OK)
		return status;
	if (request->watch) {
		status = ctl_watch(request, &peer);
	} else {
		status = ctl_peer_send(&peer, status_message(request->prometheus ? "prometheus" : NULL));
		if (status == CTL_OK)
			status = ctl_peer_answer(&peer, &message);
		if (status == CTL_OK)
			status = print_status(request, &peer, message.json);
	}
	ctl_message_finish(&message);
	ctl_peer_finish(&peer);
	return status;
}

/* ---- watch ---- */

struct watch {
	const struct ctl_request *request;
	struct ctl_peer *peer;
	bool live;        /* reprinted in place */
	bool asked;       /* a status was asked for, and is not here yet */
	bool dirty;       /* something happened since it was asked for */
	bool stopping;    /* it said so; then its end is no accident */
	int64_t shown_ms; /* live: when it was shown last */
	char *seen;       /* owned, not live: what was shown last, without what changes by itself */
};

/* The status without its clocks: a block is added only where something else changed. */
static char *without_clocks(const cJSON *status)
{
	cJSON *copy = cJSON_Duplicate(status, true), *generation;
	cJSON_DeleteItemFromObjectCaseSensitive(copy, "next_restart_ms");
	cJSON_ArrayForEach (generation, cJSON_GetObjectItemCaseSensitive(copy, "generations"))
		cJSON_DeleteItemFromObjectCaseSensitive(generation, "draining_ms");
	char *text = cJSON_PrintUnformatted(copy);
	cJSON_Delete(copy);
	return text;
}

static void show(struct watch *watch, const cJSON *status)
{
	int64_t now_ms = unix_now_ms();
	CLEANUP(freep) char *table = ctl_table(status, now_ms);
	if (!table)
		return;
	if (watch->live) {
		watch->shown_ms = loop_now_ms();
		printf("\033[H\033[J%s", table);
		fflush(stdout);
		return;
	}
	char *seen = without_clocks(status);
	if (seen && watch->seen && strcmp(seen, watch->seen) == 0) {
		free(seen);
		return;
	}
	printf("%s%s", watch->seen ? "\n" : "", table);
	fflush(stdout);
	free(watch->seen);
	watch->seen = seen;
}

static int ask(struct watch *watch)
{
	watch->asked = true;
	watch->dirty = false;
	return ctl_peer_send(watch->peer, status_message(NULL));
}

/* CTL_OK, or the exit status with which it ends. */
static int take(struct watch *watch, const struct ctl_message *message)
{
	const char *kind = ctl_string(message->json, "event", ""), *result = ctl_string(message->json, "result", NULL);
	const cJSON *status = cJSON_GetObjectItemCaseSensitive(message->json, "status");
	watch->stopping |= strcmp(kind, "stopping") == 0;
	if (result && strcmp(result, "ok") != 0) {
		ctl_complain("%s: %s", watch->peer->name,
			     ctl_string(message->json, "reason", "the supervisor gave no reason"));
		return CTL_ABSENT;
	}
	if (watch->request->json) {
		puts(message->text);
		return ctl_flush();
	}
	if (result)
		watch->asked = false;
	if (cJSON_IsObject(status)) {
		show(watch, status);
		watch->stopping |= strcmp(ctl_string(status, "state", ""), "stopping") == 0;
	} else {
		watch->dirty = true;
	}
	if (watch->dirty && !watch->asked)
		return ask(watch);
	return ferror(stdout) ? ctl_flush() : CTL_OK;
}

static int watch_loop(struct watch *watch)
{
	struct ctl_stream *stream = &watch->peer->stream;
	for (;;) {
		int64_t until_ms = ctl_stream_probe_at(stream);
		if (watch->live && !watch->asked && until_ms > watch->shown_ms + 1000)
			until_ms = watch->shown_ms + 1000;
		struct ctl_message message = {.text = NULL};
		int code = ctl_stream_next(stream, until_ms, &message);
		if (code == 0 && watch->stopping) {
			if (!watch->request->json)
				ctl_say("%s: the supervisor has ended", watch->peer->name);
			return ctl_flush();
		}
		int status = CTL_OK;
		if (code == 1)
			status = take(watch, &message);
		else if (code == -ETIMEDOUT && ctl_stream_probe(stream, loop_now_ms()) < 0)
			return ctl_peer_lost(watch->peer, -ETIMEDOUT);
		else if (code != -ETIMEDOUT)
			return ctl_peer_lost(watch->peer, code);
		else if (watch->live && !watch->asked)
			status = ask(watch); /* ages and connections go on without an event */
		ctl_message_finish(&message);
		if (status != CTL_OK)
			return status;
	}
}

int ctl_watch(const struct ctl_request *request, struct ctl_peer *peer)
{
	struct watch watch = {.request = request, .peer = peer, .live = !request->json && ctl_on_terminal()};
	cJSON *message = cJSON_CreateObject();
	cJSON_AddStringToObject(message, "command", "subscribe");
	/* The first status comes by itself. */
	watch.shown_ms = loop_now_ms();
	int status = ctl_peer_send(peer, message);
	if (status == CTL_OK)
		status = watch_loop(&watch);
	free(watch.seen);
	return status;
}

/* ---- list ---- */

/* Asks one supervisor; its stream, or one with fd -1. */
static struct ctl_stream list_ask(const char *path, int64_t until_ms)
{
	struct ctl_stream stream = {.fd = -1};
	int64_t left_ms = until_ms - loop_now_ms();
	if (ctl_stream_open(path, left_ms > 1 ? left_ms : 1, &stream, NULL) < 0)
		return (struct ctl_stream){.fd = -1};
	cJSON *message = status_message(NULL);
	if (ctl_stream_send(&stream, message) < 0)
		ctl_stream_finish(&stream);
	cJSON_Delete(message);
	return stream;
}

static void list_row(const char *name, const cJSON *status, int width)
{
	CLEANUP(freep) char *command = ctl_command_line(cJSON_GetObjectItemCaseSensitive(status, "command"));
	char pid[24] = "-", generation[24] = "-";
	if (status) {
		snprintf(pid, sizeof(pid), "%" PRId64, ctl_number(status, "pid", 0));
		snprintf(generation, sizeof(generation), "%" PRId64, ctl_number(status, "generation", 0));
	}
	ctl_say("%-*s  %-7s  %-11s  %-10s  %s", width, name, pid, ctl_string(status, "state", "no answer"), generation,
		status && command ? command : "-");
}

/* Prints a row for each. Ends the streams. */
static int list_print(const struct control_found *found, size_t count, struct ctl_stream *streams, int64_t until_ms)
{
	int width = 4;
	for (size_t i = 0; i < count; i++)
		width = (int)strlen(found[i].name) > width ? (int)strlen(found[i].name) : width;
	ctl_say("%-*s  %-7s  %-11s  %-10s  %s", width, "NAME", "PID", "STATE", "GENERATION", "COMMAND");
	for (size_t i = 0; i < count; i++) {
		struct ctl_message message = {.text = NULL};
		if (streams[i].fd >= 0)
			(void)ctl_stream_next(&streams[i], until_ms, &message);
		list_row(found[i].name, cJSON_GetObjectItemCaseSensitive(message.json, "status"), width);
		ctl_message_finish(&message);
		ctl_stream_finish(&streams[i]);
	}
	return ctl_flush();
}

/* All are asked before the first is waited for. */
static int list_found(const struct control_found *found, size_t count)
{
	int64_t until_ms = loop_now_ms() + LIST_MS;
	struct ctl_stream *streams = calloc(count, sizeof(*streams));
	if (!streams) {
		ctl_complain("out of memory");
		return CTL_ERROR;
	}
	for (size_t i = 0; i < count; i++)
		streams[i] = list_ask(found[i].path, until_ms);
	int status = list_print(found, count, streams, until_ms);
	free(streams);
	return status;
}

static int list_one(const struct ctl_request *request)
{
	struct ctl_peer peer = {.stream.fd = -1};
	int status = ctl_peer_open(request, &peer);
	if (status != CTL_OK)
		return status;
	const struct control_found one = {.path = request->control.path, .name = request->control.path};
	status = ctl_peer_send(&peer, status_message(NULL));
	if (status == CTL_OK)
		status = list_print(&one, 1, &peer.stream, loop_now_ms() + LIST_MS);
	ctl_peer_finish(&peer);
	return status;
}

int ctl_list(const struct ctl_request *request)
{
	struct control_found *found = NULL;
	size_t count = 0;
	int status = CTL_OK;
	if (request->control.path)
		return list_one(request);
	if (control_place_find(&found, &count) < 0) {
		ctl_complain("out of memory");
		return CTL_ERROR;
	}
	if (count > 0)
		status = list_found(found, count);
	else
		ctl_complain("no supervisor runs here that you may talk to");
	control_found_free(found, count);
	return status;
}
