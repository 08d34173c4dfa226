/* SPDX-License-Identifier: MIT */
/* What `handoff status` shows: a snapshot as plain data, and how it reads as JSON and for Prometheus. */
#ifndef HANDOFF_STATUS_H
#define HANDOFF_STATUS_H

#include <sys/types.h>

#include <cjson/cJSON.h>

#include "macro.h"

struct status_listener {
	const char *name; /* NULL when unnamed */
	const char *address, *type;
	int fd;      /* the number that a server sees */
	int backlog; /* the effective one; 0 where there is none */
};

struct status_generation {
	uint32_t number;
	const char *state;
	const pid_t *pids;
	size_t pid_count;
	int64_t started_ms;   /* wall clock, since 1970 */
	int64_t ready_ms;     /* from its start; -1 before */
	const char *ready_by; /* NULL before */
	int64_t draining_ms;  /* since the drain signal; -1 before */
	int64_t connections;  /* -1 where it cannot be counted */
};

struct status_reload {
	uint32_t generation; /* 0: none could be started */
	const char *result;  /* NULL before the first */
	const char *reason;  /* NULL when it went well */
	int64_t duration_ms;
};

/* All borrowed. */
struct status {
	const char *name, *version, *state, *command_from;
	pid_t pid;
	int64_t started_ms; /* wall clock, since 1970 */
	uint32_t generation;
	char *const *command;
	const struct status_listener *listeners;
	size_t listener_count;
	const struct status_generation *generations;
	size_t generation_count;
	struct status_reload last_reload;
	uint64_t restarts, handoffs, failed_handoffs; /* since our start */
	int64_t next_restart_ms;                      /* -1: none is planned */
};

/* A new object with the stable keys of handoff-control(7); NULL when out of memory. */
cJSON *status_json(const struct status *status);

/* The text exposition format of Prometheus (version 0.0.4), on the heap (free); NULL when out of memory. */
char *status_prometheus(const struct status *status);

#endif
