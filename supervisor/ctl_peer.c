/* SPDX-License-Identifier: MIT */
/* Which supervisor a client means, and asking it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bsd/string.h>

#include "control.h"
#include "ctl_private.h"
#include "fd.h"
#include "loop.h"
#include "spec.h"

/* "a, b and c", for a sentence; cut where it is too long. With `paths`, the paths of those called `name`. */
static void join_found(const struct control_found *found, size_t count, const char *paths_of, char *ret, size_t size)
{
	bool first = true;
	*ret = '\0';
	for (size_t i = 0; i < count; i++) {
		if (paths_of && strcmp(found[i].name, paths_of) != 0)
			continue;
		if (!first)
			strlcat(ret, ", ", size);
		strlcat(ret, paths_of ? found[i].path : found[i].name, size);
		first = false;
	}
}

/* The one that is meant, or NULL with `*ret_status` after having said why. */
static const struct control_found *choose(const char *name, const struct control_found *found, size_t count,
					  int *ret_status)
{
	const struct control_found *chosen = NULL;
	size_t matches = 0;
	char list[512];
	for (size_t i = 0; i < count; i++) {
		if (!name || strcmp(found[i].name, name) == 0) {
			chosen = &found[i];
			matches++;
		}
	}
	if (matches == 1)
		return chosen;
	*ret_status = matches == 0 ? CTL_ABSENT : CTL_USAGE;
	join_found(found, count, matches > 1 ? name : NULL, list, sizeof(list));
	if (count == 0)
		ctl_complain("no supervisor runs here that you may talk to%s", name ? "" : " (handoff run starts one)");
	else if (matches == 0)
		ctl_complain("no supervisor that you may talk to is called \"%s\"; there are: %s", name, list);
	else if (name)
		ctl_complain("several supervisors are called \"%s\"; choose one with --control: %s", name, list);
	else
		ctl_complain("several supervisors run here; name one of them: %s", list);
	return NULL;
}

/* The limit for connecting and for an answer: ours, or less with a shorter --timeout. */
static int64_t answer_limit(const struct ctl_request *request)
{
	return request->timeout_ms != DURATION_NONE && request->timeout_ms < CTL_ANSWER_MS ? request->timeout_ms
											   : CTL_ANSWER_MS;
}

static int open_path(const struct ctl_request *request, const char *path, const char *name, struct ctl_peer *ret_peer)
{
	struct ctl_peer peer = {.name = strdup(name)};
	struct error error = {.text = ""};
	if (!peer.name) {
		ctl_complain("out of memory");
		return CTL_ERROR;
	}
	int code = ctl_stream_open(path, answer_limit(request), &peer.stream, &error);
	if (code == 0) {
		*ret_peer = peer;
		return CTL_OK;
	}
	if (code == -ETIMEDOUT)
		ctl_complain("%s does not take connections: is its process stopped or overloaded?", name);
	else if (code == -ENOENT)
		ctl_complain("no supervisor is at %s: there is no such file", path);
	else if (code == -ECONNREFUSED)
		ctl_complain("no supervisor is at %s any more: nobody listens there", path);
	else
		ctl_complain("%s", error.text);
	free(peer.name);
	return code == -ETIMEDOUT ? CTL_TIMEOUT : code == -ENAMETOOLONG ? CTL_USAGE : CTL_ABSENT;
}

int ctl_peer_open(const struct ctl_request *request, struct ctl_peer *ret_peer)
{
	if (request->control.path)
		return open_path(request, request->control.path, request->control.path, ret_peer);
	struct control_found *found = NULL;
	size_t count = 0;
	int status = CTL_ERROR;
	if (control_place_find(&found, &count) < 0) {
		ctl_complain("out of memory");
		return CTL_ERROR;
	}
	const struct control_found *chosen = choose(request->operand, found, count, &status);
	if (chosen)
		status = open_path(request, chosen->path, chosen->name, ret_peer);
	control_found_free(found, count);
	return status;
}

void ctl_peer_finish(struct ctl_peer *peer)
{
	ctl_stream_finish(&peer->stream);
	free(peer->name);
	peer->name = NULL;
}

int ctl_peer_lost(const struct ctl_peer *peer, int code)
{
	switch (code) {
	case 0:
	case -EPIPE:
	case -ECONNRESET:
		ctl_complain(
			"%s: the supervisor closed the connection before it answered; it has ended, or been killed",
			peer->name);
		return CTL_ABSENT;
	case -ETIMEDOUT:
		ctl_complain("%s: the supervisor does not answer: is its process stopped or overloaded?", peer->name);
		return CTL_TIMEOUT;
	case -EPROTO:
		ctl_complain("%s: what answers there does not speak the protocol of handoff", peer->name);
		return CTL_ABSENT;
	default:
		ctl_complain("%s: cannot talk to the supervisor: %s", peer->name, strerror(-code));
		return CTL_ERROR;
	}
}

int ctl_peer_send(struct ctl_peer *peer, cJSON *request)
{
	int code = ctl_stream_send(&peer->stream, request);
	cJSON_Delete(request);
	if (code == -EMSGSIZE) {
		ctl_complain("the command line is too long: a request may have %d bytes", CONTROL_LINE_MAX);
		return CTL_USAGE;
	}
	/* One that did not want us may have said why before it closed; then that is what the caller reads. */
	return code == 0 || code == -EPIPE || code == -ECONNRESET ? CTL_OK : ctl_peer_lost(peer, code);
}

int ctl_peer_answer(struct ctl_peer *peer, struct ctl_message *ret_message)
{
	int64_t until_ms = loop_now_ms() + CTL_ANSWER_MS;
	for (;;) {
		struct ctl_message message = {.text = NULL};
		int code = ctl_stream_next(&peer->stream, until_ms, &message);
		if (code <= 0)
			return ctl_peer_lost(peer, code);
		const char *result = ctl_string(message.json, "result", NULL);
		if (result && strcmp(result, "error") != 0) {
			*ret_message = message;
			return CTL_OK;
		}
		if (result)
			ctl_complain("%s: %s", peer->name,
				     ctl_string(message.json, "reason", "the supervisor gave no reason"));
		ctl_message_finish(&message);
		if (result)
			return CTL_ABSENT;
	}
}
