/* SPDX-License-Identifier: MIT */
/* The control socket: JSON lines from clients, events and results to them (docs/handoff-control.7).
 *
 * This module knows lines, clients and requests, not what a request means. Nothing here blocks: a client that is slow,
 * silent, huge or broken is cut off, and only that one. */
#ifndef HANDOFF_CONTROL_H
#define HANDOFF_CONTROL_H

#include <cjson/cJSON.h>

#include "control_place.h"
#include "error.h"
#include "loop.h"

#define CONTROL_LINE_MAX 65536     /* bytes of a request with its newline; a longer one gets an error, then the end */
#define CONTROL_CLIENTS_MAX 128    /* further ones get an error result at once, then the end */
#define CONTROL_OUTPUT_MAX 1048576 /* bytes that a client may leave unread; then it is cut off */
#define CONTROL_SILENCE_MS 30000   /* for a client that waits for nothing and sends no whole line */

struct control; /* heap */

/* Called from the loop for each well-formed request: a JSON object with a string "command". `message` is borrowed. The
 * handler answers `request` (a number never used again) with exactly one control_result, now or later. */
typedef void (*control_request_fn)(void *data, uint32_t request, const cJSON *message);

/* Listens at the place (control_place_take made it ours). 0 or -errno. */
int control_create(struct loop *loop, const struct control_place *place, control_request_fn fn, void *data,
		   struct control **ret_control, struct error *error);
/* Sends what can be sent at once, then closes everything. The place stays the caller's. NULL is fine. */
void control_destroy(struct control *control);

/* Ends a request: sends `result` (consumed; "id" is added) to whoever asked; nobody, where the client is gone. */
void control_result(struct control *control, uint32_t request, cJSON *result);
/* The usual kinds of it. */
void control_result_error(struct control *control, uint32_t request, const char *reason);

/* An event for one request that is not answered yet (consumed). */
void control_event(struct control *control, uint32_t request, cJSON *event);
/* From now on all of control_broadcast goes to the client of this request too, until it leaves; the request stays open.
 */
void control_subscribe(struct control *control, uint32_t request);
/* An event for all subscribers (consumed). Cheap where there are none. */
void control_broadcast(struct control *control, cJSON *event);
bool control_has_subscribers(const struct control *control);

#endif
