/* SPDX-License-Identifier: MIT */
/* What the parts of load share: settings, where to connect, one record a request, and the marks of hand-offs. */
#ifndef HANDOFF_LOAD_H
#define HANDOFF_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

enum load_kind { LOAD_NEW, LOAD_KEEPALIVE, LOAD_KINDS };
enum load_result {
	LOAD_OK,
	LOAD_REFUSED,   /* nobody listened (a unix path that is not there included) */
	LOAD_RESET,     /* the connection was reset, before or after the first byte of the answer */
	LOAD_EMPTY,     /* closed without a byte of an answer */
	LOAD_TRUNCATED, /* closed in the middle of the answer */
	LOAD_TIMEOUT,
	LOAD_WRONG, /* a whole answer, but not 200 or without the expected text */
	LOAD_ERROR, /* our own trouble: no descriptor, no port */
	LOAD_RESULTS,
};

struct load_record {
	int64_t scheduled_ns; /* CLOCK_MONOTONIC, when the request was to be made */
	int64_t late_ns;      /* how much later we began: our own lateness, or the previous answer's */
	int64_t latency_ns;   /* from the schedule to the last byte, or to the failure */
	int32_t generation;   /* -1: none was named */
	uint8_t kind, result;
};

struct load_target {
	struct sockaddr_storage address;
	socklen_t length;
	const char *text;
};

struct load_settings {
	struct load_target target;
	const char *path, *expect, *records_file, *marks_file;
	double rate, keepalive_rate;
	unsigned keepalive, sources;
	int64_t duration_ns, timeout_ns, mark_window_ns;
	int mark_fd; /* -1: none */
};

/* What is counted beside the requests. */
struct load_counts {
	uint64_t keepalive_connects;
	uint64_t told_to_close; /* answers with Connection: close to a keep-alive client */
	uint64_t closed_idle;   /* keep-alive connections that the server closed between two requests, cleanly */
	uint64_t reset_idle;    /* …or reset: a failure, though no request was lost */
};

extern const char *const load_result_names[];
extern struct load_settings load;
extern struct load_counts load_counts;

int64_t load_now_ns(void);

/* load_net.c; negative errno returns */

/* "tcp:HOST:PORT" or "unix:/path"; HOST is a literal address. `text` must stay. */
int load_target_parse(const char *text, struct load_target *ret_target);
/* A non-blocking socket with a connect under way; *ret_connected: already done. -EAGAIN: a unix listener's queue is
 * full, which a blocking connect would wait out. Source addresses go round within 127.0.0.0/8, so that ports last. */
int load_connect(const struct load_target *target, int *ret_fd, bool *ret_connected);
/* What an errno of connect, send or recv means for the request. */
enum load_result load_result_of(int error);
/* Prints a TCP port that nobody uses. */
int load_print_free_port(void);
/* One request, its body on stdout; the request's last bytes are held back for `hold_ms`. Returns the exit status. */
int load_one(int hold_ms);

/* load_http.c */

struct load_answer {
	bool complete, close;
	int status;
	int32_t generation;
	bool expected; /* the expected text is in it */
	const char *body;
	size_t body_length; /* of what is there, chunk sizes included where the answer is chunked */
};

/* Looks at `size` bytes (NUL-terminated behind); `ended`: the peer closed. False: not a whole answer yet. */
bool load_answer_parse(const char *text, size_t size, bool ended, struct load_answer *ret_answer);
/* Writes the request; returns its length. */
size_t load_request(char *text, size_t size, bool keepalive);

/* load_run.c: the open loop. Returns 0, or -errno when it cannot run at all. */
int load_run(int64_t *ret_begin_ns);

/* load_report.c */

/* Keeps a record; ends the process when memory ends. */
void load_record_add(const struct load_record *record);
/* A line of marks: "start [NS]", "end [NS]" or "mark [NS]" (start now, end a window later); others are refused. */
int load_mark_line(const char *line);
/* Reads --marks, writes --records, prints the JSON object; returns the number of failures, or -errno. */
int64_t load_report(int64_t begin_ns);

#endif
