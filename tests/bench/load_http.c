/* SPDX-License-Identifier: MIT */
/* The HTTP/1.1 of load: a request, and when an answer is whole. */
#include "load.h"

#include <bsd/string.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

size_t load_request(char *text, size_t size, bool keepalive)
{
	return (size_t)snprintf(text, size, "GET %s HTTP/1.1\r\nHost: load\r\nConnection: %s\r\n\r\n", load.path,
				keepalive ? "keep-alive" : "close");
}

/* The value of a header, or NULL. The head ends at `end`, where a NUL was put for the search. */
static const char *header(const char *head, const char *name)
{
	const char *line = strcasestr(head, name);

	return line ? line + strlen(name) + strspn(line + strlen(name), " ") : NULL;
}

/* The last chunk is the empty one, and trailers are not expected. */
static bool chunks_ended(const char *body, size_t size)
{
	return (size >= 7 && memcmp(body + size - 7, "\r\n0\r\n\r\n", 7) == 0) ||
	       (size == 5 && memcmp(body, "0\r\n\r\n", 5) == 0);
}

static void look_into_body(struct load_answer *answer)
{
	const char *at;

	answer->expected = memmem(answer->body, answer->body_length, load.expect, strlen(load.expect)) != NULL;
	at = memmem(answer->body, answer->body_length, "gen=", 4);
	answer->generation = at ? atoi(at + 4) : -1;
}

bool load_answer_parse(const char *text, size_t size, bool ended, struct load_answer *ret_answer)
{
	struct load_answer answer = {.complete = false};
	const char *end = memmem(text, size, "\r\n\r\n", 4), *value;
	char head[4096];

	if (!end || (size_t)(end - text) + 2 >= sizeof(head))
		return false;
	memcpy(head, text, (size_t)(end - text) + 2);
	head[end - text + 2] = '\0';
	if (sscanf(head, "HTTP/1.%*1[01] %d", &answer.status) != 1)
		answer.status = 0;
	answer.body = end + 4;
	answer.body_length = size - (size_t)(answer.body - text);
	value = header(head, "\r\nConnection:");
	answer.close = value ? strncasecmp(value, "close", 5) == 0 : strncmp(head, "HTTP/1.0", 8) == 0;
	if ((value = header(head, "\r\nContent-Length:"))) {
		answer.complete = answer.body_length >= strtoull(value, NULL, 10);
	} else if (header(head, "\r\nTransfer-Encoding: chunked")) {
		answer.complete = chunks_ended(answer.body, answer.body_length);
	} else {
		answer.complete = ended;
		answer.close = true;
	}
	if (!answer.complete)
		return false;
	look_into_body(&answer);
	*ret_answer = answer;
	return true;
}
