/* SPDX-License-Identifier: MIT */
/* The HTTP/1.1 that ts speaks: one request out of a buffer, one answer into another. */
#include "ts.h"

#include <bsd/stdlib.h>
#include <bsd/string.h>
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static void parse_head(struct ts_conn *conn, char *end)
{
	char version[16] = "", line[1100], *at;

	/* The head ends in two line ends; cutting at the second leaves every header line whole for the searches. */
	end[2] = '\0';
	conn->status = 200;
	conn->sleep_ms = 0;
	conn->body_left = 0;
	strlcpy(line, conn->in, sizeof(line));
	if (sscanf(line, "%*15s %1023s %15s", conn->path, version) != 2 || strncmp(version, "HTTP/1.", 7) != 0) {
		conn->status = 400;
		conn->last = true;
		return;
	}
	conn->last = strcasestr(conn->in, "\r\nConnection: close") != NULL;
	if (strcmp(version, "HTTP/1.0") == 0 && !strcasestr(conn->in, "\r\nConnection: keep-alive"))
		conn->last = true;
	at = strcasestr(conn->in, "\r\nContent-Length:");
	if (at)
		conn->body_left = strtoull(at + strlen("\r\nContent-Length:"), NULL, 10);
	if (strncmp(conn->path, "/sleep?ms=", 10) == 0)
		conn->sleep_ms = (int)strtonum(conn->path + 10, 0, 3600 * 1000, &(const char *){NULL});
}

static void consume(struct ts_conn *conn, size_t count)
{
	conn->in_len -= count;
	memmove(conn->in, conn->in + count, conn->in_len);
}

int ts_http_parse(struct ts_conn *conn)
{
	if (!conn->in_body) {
		char *end = memmem(conn->in, conn->in_len, "\r\n\r\n", 4);
		if (!end && conn->in_len == sizeof(conn->in)) {
			conn->status = 431;
			conn->last = true;
			conn->in_len = 0;
			return 1;
		}
		if (!end)
			return 0;
		parse_head(conn, end);
		consume(conn, (size_t)(end - conn->in) + 4);
		conn->in_body = true;
	}
	size_t part = conn->in_len < conn->body_left ? conn->in_len : (size_t)conn->body_left;
	consume(conn, part);
	conn->body_left -= part;
	if (conn->body_left)
		return 0;
	conn->in_body = false;
	return 1;
}

int ts_http_identity(char *text, size_t size, int listen_fd)
{
	const char *generation = getenv("HANDOFF_GENERATION");
	return snprintf(text, size, "gen=%s pid=%d fd=%d\n", generation ? generation : "0", (int)getpid(), listen_fd);
}

static void put_file(FILE *to, const char *name)
{
	char path[64], part[4096];
	size_t got;
	FILE *from;

	snprintf(path, sizeof(path), "/proc/self/%s", name);
	from = strchr(name, '/') ? NULL : fopen(path, "re");
	if (!from)
		return;
	while ((got = fread(part, 1, sizeof(part), from)) > 0)
		fwrite(part, 1, got, to);
	fclose(from);
}

static void put_body(FILE *to, struct ts_conn *conn)
{
	char text[256];

	if (conn->status != 200) {
		fprintf(to, "bad request\n");
	} else if (strncmp(conn->path, "/env?", 5) == 0) {
		const char *value = getenv(conn->path + 5);
		conn->status = value ? 200 : 404;
		fprintf(to, "%s\n", value ? value : "unset");
	} else if (strcmp(conn->path, "/environ") == 0) {
		for (char **entry = environ; *entry; entry++)
			fprintf(to, "%s\n", *entry);
	} else if (strcmp(conn->path, "/cwd") == 0) {
		char *cwd = getcwd(NULL, 0);
		fprintf(to, "cwd=%s pwd=%s\n", cwd ? cwd : "?", getenv("PWD") ? getenv("PWD") : "");
		free(cwd);
	} else if (strcmp(conn->path, "/born") == 0) {
		fprintf(to, "%s", ts_born());
	} else if (strncmp(conn->path, "/proc?", 6) == 0) {
		put_file(to, conn->path + 6);
	} else {
		ts_http_identity(text, sizeof(text), conn->listen_fd);
		fprintf(to, "%s", text);
	}
}

static void burn(int us)
{
	struct timespec start, now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &start);
	do {
		clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	} while ((now.tv_sec - start.tv_sec) * 1000000 + (now.tv_nsec - start.tv_nsec) / 1000 < us);
}

void ts_http_answer(struct ts_conn *conn)
{
	char *body = NULL, *head = NULL;
	size_t size = 0;
	int length;
	FILE *to = open_memstream(&body, &size);

	if (!to)
		err(1, "open_memstream");
	if (ts.cpu_us > 0)
		burn(ts.cpu_us);
	put_body(to, conn);
	fclose(to);
	conn->closing = conn->last || atomic_load(&ts_draining);
	length =
		asprintf(&head,
			 "HTTP/1.1 %d %s\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n"
			 "Connection: %s\r\n\r\n",
			 conn->status, conn->status == 200 ? "OK" : "No", size, conn->closing ? "close" : "keep-alive");
	conn->out = length < 0 ? NULL : realloc(head, (size_t)length + size);
	if (!conn->out)
		err(1, "no memory for an answer");
	/* Not text: /proc/self/environ and cmdline hold NUL bytes. */
	memcpy(conn->out + length, body, size);
	free(body);
	conn->out_len = (size_t)length + size;
	conn->out_sent = 0;
}
