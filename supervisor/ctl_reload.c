/* SPDX-License-Identifier: MIT */
/* `handoff reload` and `handoff stop`: asking for it, waiting, and saying how it went. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "ctl_private.h"
#include "loop.h"
#include "spec.h"

/* What a request that is waited for needs to say in the sentences that its wait may end with. */
struct wait {
	const struct ctl_request *request;
	struct ctl_peer *peer;
	int64_t deadline_ms; /* INT64_MAX without one */
	struct ctl_progress progress;
	const char *work; /* "the hand-off", "the stop" */
};

static int64_t earlier(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* Says why the wait is over before there is a result; the exit status. */
static int give_up(struct wait *wait, int code)
{
	const char *name = wait->peer->name;
	ctl_progress_clear(&wait->progress);
	if (code == -EINTR) {
		ctl_complain("%s: interrupted; %s goes on", name, wait->work);
		return CTL_INTERRUPTED;
	}
	if (code == -ETIMEDOUT && wait->request->timeout_given && loop_now_ms() >= wait->deadline_ms) {
		char time[32];
		ctl_complain("%s: no result after %s; %s goes on", name,
			     ctl_duration(wait->request->timeout_ms, time, sizeof(time)), wait->work);
		return CTL_TIMEOUT;
	}
	return ctl_peer_lost(wait->peer, code);
}

/* The next message, however long it takes: 1, 0 at the end, or the negative errno that the wait ends with. */
static int next_message(struct wait *wait, struct ctl_message *ret_message)
{
	struct ctl_stream *stream = &wait->peer->stream;
	for (;;) {
		int64_t until_ms = earlier(wait->deadline_ms, ctl_stream_probe_at(stream));
		if (wait->progress.live)
			until_ms = earlier(until_ms, loop_now_ms() + 1000);
		int code = ctl_stream_next(stream, until_ms, ret_message);
		int64_t now_ms = loop_now_ms();
		if (code != -ETIMEDOUT || now_ms >= wait->deadline_ms)
			return code;
		ctl_progress_tick(&wait->progress);
		code = ctl_stream_probe(stream, now_ms);
		if (code < 0)
			return code;
	}
}

/* Shows events until the result is there. CTL_OK with it, or an exit status after having said why. */
static int await_result(struct wait *wait, struct ctl_message *ret_message)
{
	for (;;) {
		struct ctl_message message = {.text = NULL};
		int code = next_message(wait, &message);
		if (code <= 0)
			return give_up(wait, code);
		if (wait->request->json)
			puts(message.text);
		if (wait->request->json && fflush(stdout) == EOF) {
			ctl_message_finish(&message);
			return ctl_flush();
		}
		if (cJSON_GetObjectItemCaseSensitive(message.json, "result")) {
			ctl_progress_clear(&wait->progress);
			*ret_message = message;
			return CTL_OK;
		}
		if (!wait->request->json)
			ctl_progress_event(&wait->progress, message.json);
		ctl_message_finish(&message);
	}
}

static int wait_for_result(struct wait *wait, struct ctl_message *ret_message)
{
	if (wait->request->wait) {
		ctl_catch_interrupt();
	} else {
		wait->deadline_ms = loop_now_ms() + CTL_ANSWER_MS;
		wait->progress.live = false;
	}
	return await_result(wait, ret_message);
}

/* ---- reload ---- */

static cJSON *reload_message(const struct ctl_request *request)
{
	cJSON *message = cJSON_CreateObject();
	cJSON_AddStringToObject(message, "command", "reload");
	if (request->wait)
		cJSON_AddTrueToObject(message, "wait");
	if (request->if_generation > 0)
		cJSON_AddNumberToObject(message, "if_generation", (double)request->if_generation);
	if (request->argv) {
		cJSON *words = cJSON_AddArrayToObject(message, "argv");
		for (char **word = request->argv; *word; word++)
			cJSON_AddItemToArray(words, cJSON_CreateString(*word));
	}
	return message;
}

static void say_active(const struct ctl_request *request, const char *name, const cJSON *result)
{
	char ready[32], all[32];
	int64_t ready_ms = ctl_number(result, "ready_ms", -1), all_ms = ctl_number(result, "duration_ms", -1);
	const char *by = ctl_string(result, "ready_by", NULL);
	ctl_say("%s: generation %" PRId64 " is active%s%s%s%s%s%s%s%s", name, ctl_number(result, "generation", 0),
		ready_ms >= 0 ? "; ready after " : "",
		ready_ms >= 0 ? ctl_duration(ready_ms, ready, sizeof(ready)) : "", ready_ms >= 0 && by ? " (" : "",
		ready_ms >= 0 && by ? by : "", ready_ms >= 0 && by ? ")" : "", all_ms >= 0 ? "; " : "",
		all_ms >= 0 ? ctl_duration(all_ms, all, sizeof(all)) : "", all_ms >= 0 ? " in all" : "");
	if (request->argv)
		ctl_say("%s: the new command line holds until this supervisor ends", name);
}

static void say_accepted(const char *name, const cJSON *result)
{
	int64_t generation = ctl_number(result, "generation", 0);
	if (generation > 0)
		ctl_say("%s: a hand-off was asked for; generation %" PRId64 " serves until the new one is ready", name,
			generation);
	else
		ctl_say("%s: a hand-off was asked for; no generation serves yet", name);
}

/* Prints what a reload's result says (unless it was printed as JSON), and returns its exit status. */
static int report_reload(const struct ctl_request *request, const char *name, const cJSON *result)
{
	const char *word = ctl_string(result, "result", "");
	const char *reason = ctl_string(result, "reason", "no reason was given");
	char active[64];
	bool quiet = request->json;
	if (strcmp(word, "ok") == 0) {
		if (!quiet)
			say_active(request, name, result);
		return CTL_OK;
	}
	if (strcmp(word, "accepted") == 0) {
		if (!quiet)
			say_accepted(name, result);
		return CTL_OK;
	}
	if (strcmp(word, "failed") == 0) {
		if (!quiet)
			ctl_print_failure(stderr, name, result);
		return CTL_FAILED;
	}
	if (quiet)
		return CTL_REFUSED;
	ctl_active_text(result, active, sizeof(active));
	if (strcmp(word, "refused") == 0 && cJSON_GetObjectItemCaseSensitive(result, "active"))
		ctl_complain("%s: refused: %s; %s", name, reason, active);
	else if (strcmp(word, "superseded") == 0)
		ctl_complain("%s: superseded: %s", name, reason);
	else
		ctl_complain("%s: refused: %s", name, reason);
	return CTL_REFUSED;
}

static int64_t deadline_of(const struct ctl_request *request)
{
	return request->timeout_ms == DURATION_NONE ? INT64_MAX : loop_now_ms() + request->timeout_ms;
}

int ctl_reload(const struct ctl_request *request)
{
	struct ctl_peer peer = {.stream.fd = -1};
	struct ctl_message message = {.text = NULL};
	struct wait wait = {
		.request = request, .peer = &peer, .deadline_ms = deadline_of(request), .work = "the hand-off"};
	int status = ctl_peer_open(request, &peer);
	if (status != CTL_OK)
		return status;
	ctl_progress_init(&wait.progress, peer.name, request->json);
	status = ctl_peer_send(&peer, reload_message(request));
	if (status == CTL_OK)
		status = wait_for_result(&wait, &message);
	if (status == CTL_OK)
		status = report_reload(request, peer.name, message.json);
	ctl_message_finish(&message);
	ctl_peer_finish(&peer);
	/* A result that could not be printed must not look like one that was; a failure stays what it is. */
	return status == CTL_OK ? ctl_flush() : status;
}

/* ---- stop ---- */

static cJSON *stop_message(const struct ctl_request *request)
{
	cJSON *message = cJSON_CreateObject();
	cJSON_AddStringToObject(message, "command", "stop");
	if (request->now)
		cJSON_AddTrueToObject(message, "now");
	if (request->wait)
		cJSON_AddTrueToObject(message, "wait");
	return message;
}

/* What goes on meanwhile is told to subscribers; that request is never answered. */
static int ask_to_stop(struct wait *wait)
{
	int status = CTL_OK;
	if (wait->request->wait) {
		cJSON *message = cJSON_CreateObject();
		cJSON_AddStringToObject(message, "command", "subscribe");
		status = ctl_peer_send(wait->peer, message);
	}
	return status == CTL_OK ? ctl_peer_send(wait->peer, stop_message(wait->request)) : status;
}

/* It ends right after the result. Its end is waited for, so that its name and addresses are free when we say so. */
static int await_end(struct wait *wait)
{
	wait->deadline_ms = loop_now_ms() + CTL_ANSWER_MS;
	for (;;) {
		struct ctl_message message = {.text = NULL};
		int code = next_message(wait, &message);
		if (code == 0 || code == -ECONNRESET)
			return CTL_OK;
		if (code == -ETIMEDOUT) {
			ctl_complain("%s: every generation is gone, but the supervisor itself does not end",
				     wait->peer->name);
			return CTL_TIMEOUT;
		}
		if (code < 0)
			return give_up(wait, code);
		ctl_message_finish(&message);
	}
}

static int report_stop(struct wait *wait, const cJSON *result)
{
	const char *name = wait->peer->name;
	if (strcmp(ctl_string(result, "result", ""), "ok") != 0) {
		ctl_complain("%s: %s", name, ctl_string(result, "reason", "the supervisor gave no reason"));
		return CTL_ABSENT;
	}
	if (!wait->request->wait) {
		ctl_say(wait->request->now ? "%s: stops at once" : "%s: stops when every generation has drained", name);
		return CTL_OK;
	}
	int status = await_end(wait);
	if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(result, "forced")))
		ctl_complain("%s: something had to be killed at a timeout", name);
	if (status == CTL_OK)
		ctl_say("%s: stopped", name);
	return status;
}

int ctl_stop(const struct ctl_request *request)
{
	struct ctl_peer peer = {.stream.fd = -1};
	struct ctl_message message = {.text = NULL};
	struct wait wait = {.request = request, .peer = &peer, .deadline_ms = INT64_MAX, .work = "the stop"};
	int status = ctl_peer_open(request, &peer);
	if (status != CTL_OK)
		return status;
	ctl_progress_init(&wait.progress, peer.name, false);
	status = ask_to_stop(&wait);
	if (status == CTL_OK)
		status = wait_for_result(&wait, &message);
	if (status == CTL_OK)
		status = report_stop(&wait, message.json);
	ctl_message_finish(&message);
	ctl_peer_finish(&peer);
	return status == CTL_OK ? ctl_flush() : status;
}
