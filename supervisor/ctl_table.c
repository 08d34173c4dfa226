/* SPDX-License-Identifier: MIT */
/* The table of `handoff status`: what one wants to know at 3 a.m., in that order. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ctl_private.h"
#include "fd.h"

#define LABEL "%-13s"

static const cJSON *member(const cJSON *object, const char *key)
{
	return cJSON_GetObjectItemCaseSensitive(object, key);
}

static void print_safe(FILE *out, const char *text)
{
	CLEANUP(freep) char *safe = ctl_safe(text);
	fputs(safe ? safe : "?", out);
}

/* "2026-01-31T12:00:00.000Z" to milliseconds since 1970; -1. */
static int64_t parse_time(const char *text)
{
	struct tm parts = {.tm_year = 0};
	const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &parts);
	if (!rest)
		return -1;
	int64_t ms = *rest == '.' ? atoi(rest + 1) : 0;
	return (int64_t)timegm(&parts) * 1000 + ms;
}

/* " for 5 m 12 s" since a member that is a time; nothing where it is missing. */
static void print_age(FILE *out, const cJSON *object, const char *key, const char *before, int64_t now_unix_ms)
{
	char age[32];
	const char *text = ctl_string(object, key, NULL);
	int64_t since_ms = text ? parse_time(text) : -1;
	if (since_ms >= 0)
		fprintf(out, "%s%s", before, ctl_duration(now_unix_ms - since_ms, age, sizeof(age)));
}

static void print_head(FILE *out, const cJSON *status, int64_t now_unix_ms)
{
	print_safe(out, ctl_string(status, "name", "?"));
	fputs(": ", out);
	print_safe(out, ctl_string(status, "state", "?"));
	int64_t generation = ctl_number(status, "generation", 0);
	if (generation > 0)
		fprintf(out, ", generation %" PRId64, generation);
	fprintf(out, " (pid %" PRId64 ", handoff ", ctl_number(status, "pid", 0));
	print_safe(out, ctl_string(status, "version", "?"));
	print_age(out, status, "started", ", up ", now_unix_ms);
	fputs(")\n", out);
}

static void print_command(FILE *out, const cJSON *status)
{
	CLEANUP(freep) char *line = ctl_command_line(member(status, "command"));
	fprintf(out, LABEL, "command");
	print_safe(out, line ? line : "?");
	const char *from = ctl_string(status, "command_from", NULL);
	if (from) {
		fputs("  (from ", out);
		print_safe(out, strcmp(from, "reload") == 0 ? "a reload, until the supervisor ends" : from);
		fputc(')', out);
	}
	fputc('\n', out);
}

static void print_listeners(FILE *out, const cJSON *status)
{
	const cJSON *list = member(status, "listeners"), *listener;
	if (cJSON_GetArraySize(list) == 0)
		fprintf(out, LABEL "none\n", "listeners");
	cJSON_ArrayForEach (listener, list) {
		const char *name = ctl_string(listener, "name", NULL);
		fprintf(out, LABEL "fd %-3" PRId64 " ", listener == list->child ? "listeners" : "",
			ctl_number(listener, "fd", -1));
		print_safe(out, ctl_string(listener, "type", "?"));
		fputc(' ', out);
		print_safe(out, ctl_string(listener, "address", "?"));
		if (name) {
			fputs("  name ", out);
			print_safe(out, name);
		}
		int64_t backlog = ctl_number(listener, "backlog", 0);
		if (backlog > 0)
			fprintf(out, "  backlog %" PRId64, backlog);
		fputc('\n', out);
	}
}

static void print_pids(FILE *out, const cJSON *generation)
{
	const cJSON *pids = member(generation, "pids"), *pid;
	fputs(cJSON_GetArraySize(pids) == 1 ? "  pid" : "  pids", out);
	cJSON_ArrayForEach (pid, pids)
		if (cJSON_IsNumber(pid))
			fprintf(out, " %d", pid->valueint);
}

static void print_generation(FILE *out, const cJSON *generation, int64_t now_unix_ms)
{
	char time[32];
	const char *by = ctl_string(generation, "ready_by", NULL);
	int64_t ready_ms = ctl_number(generation, "ready_ms", -1);
	int64_t draining_ms = ctl_number(generation, "draining_ms", -1);
	int64_t connections = ctl_number(generation, "connections", -1);
	fprintf(out, "%-3" PRId64 " %-9s", ctl_number(generation, "generation", 0),
		ctl_string(generation, "state", "?"));
	print_pids(out, generation);
	print_age(out, generation, "started", ", started ", now_unix_ms);
	fputs(member(generation, "started") ? " ago" : "", out);
	if (draining_ms >= 0)
		fprintf(out, ", drains for %s", ctl_duration(draining_ms, time, sizeof(time)));
	else if (ready_ms >= 0)
		fprintf(out, ", ready after %s", ctl_duration(ready_ms, time, sizeof(time)));
	if (draining_ms < 0 && ready_ms >= 0 && by) {
		fputs(" (", out);
		print_safe(out, by);
		fputc(')', out);
	}
	if (connections >= 0)
		fprintf(out, ", %" PRId64 " connection%s left", connections, connections == 1 ? "" : "s");
	fputc('\n', out);
}

static void print_generations(FILE *out, const cJSON *status, int64_t now_unix_ms)
{
	const cJSON *list = member(status, "generations"), *generation;
	if (cJSON_GetArraySize(list) == 0)
		fprintf(out, LABEL "none\n", "generations");
	cJSON_ArrayForEach (generation, list) {
		fprintf(out, LABEL, generation == list->child ? "generations" : "");
		print_generation(out, generation, now_unix_ms);
	}
}

static void print_last_reload(FILE *out, const cJSON *status)
{
	char time[32];
	const cJSON *last = member(status, "last_reload");
	fprintf(out, LABEL, "last reload");
	if (!cJSON_IsObject(last)) {
		fputs("none\n", out);
		return;
	}
	const char *reason = ctl_string(last, "reason", NULL);
	int64_t generation = ctl_number(last, "generation", 0), duration_ms = ctl_number(last, "duration_ms", -1);
	if (generation > 0)
		fprintf(out, "generation %" PRId64 ": ", generation);
	print_safe(out, ctl_string(last, "result", "?"));
	if (duration_ms >= 0)
		fprintf(out, " after %s", ctl_duration(duration_ms, time, sizeof(time)));
	if (reason) {
		fputs(": ", out);
		print_safe(out, reason);
	}
	fputc('\n', out);
}

static void print_restarts(FILE *out, const cJSON *status)
{
	char time[32];
	int64_t next_ms = ctl_number(status, "next_restart_ms", -1);
	fprintf(out, LABEL "%" PRId64, "restarts", ctl_number(status, "restarts", 0));
	if (next_ms >= 0)
		fprintf(out, ", the next one in %s", ctl_duration(next_ms, time, sizeof(time)));
	fputc('\n', out);
}

char *ctl_table(const cJSON *status, int64_t now_unix_ms)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);
	if (!out)
		return NULL;
	print_head(out, status, now_unix_ms);
	print_generations(out, status, now_unix_ms);
	print_last_reload(out, status);
	print_restarts(out, status);
	print_command(out, status);
	print_listeners(out, status);
	if (fclose(out) != 0) {
		free(text);
		return NULL;
	}
	return text;
}
