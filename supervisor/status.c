/* SPDX-License-Identifier: MIT */
/* What `handoff status` shows, as JSON and for Prometheus. */
#include "status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* RFC 3339, UTC, with milliseconds. */
static void add_time(cJSON *object, const char *key, int64_t unix_ms)
{
	time_t seconds = (time_t)(unix_ms / 1000);
	struct tm parts;
	char date[32], text[48];
	gmtime_r(&seconds, &parts);
	strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &parts);
	snprintf(text, sizeof(text), "%s.%03dZ", date, (int)(unix_ms % 1000));
	cJSON_AddStringToObject(object, key, text);
}

static void add_text(cJSON *object, const char *key, const char *text)
{
	if (text)
		cJSON_AddStringToObject(object, key, text);
	else
		cJSON_AddNullToObject(object, key);
}

/* -1 is what is not known. */
static void add_count(cJSON *object, const char *key, int64_t count)
{
	if (count >= 0)
		cJSON_AddNumberToObject(object, key, (double)count);
	else
		cJSON_AddNullToObject(object, key);
}

static cJSON *listener_json(const struct status_listener *listener)
{
	cJSON *object = cJSON_CreateObject();
	add_text(object, "name", listener->name);
	add_text(object, "address", listener->address);
	add_text(object, "type", listener->type);
	cJSON_AddNumberToObject(object, "fd", listener->fd);
	add_count(object, "backlog", listener->backlog > 0 ? listener->backlog : -1);
	return object;
}

static cJSON *generation_json(const struct status_generation *generation)
{
	cJSON *object = cJSON_CreateObject();
	cJSON_AddNumberToObject(object, "generation", generation->number);
	add_text(object, "state", generation->state);
	cJSON *pids = cJSON_AddArrayToObject(object, "pids");
	for (size_t i = 0; i < generation->pid_count; i++)
		cJSON_AddItemToArray(pids, cJSON_CreateNumber(generation->pids[i]));
	add_time(object, "started", generation->started_ms);
	add_count(object, "ready_ms", generation->ready_ms);
	add_text(object, "ready_by", generation->ready_by);
	if (generation->draining_ms >= 0) {
		add_count(object, "draining_ms", generation->draining_ms);
		add_count(object, "connections", generation->connections);
	}
	return object;
}

static void add_reload(cJSON *object, const struct status_reload *reload)
{
	if (!reload->result) {
		cJSON_AddNullToObject(object, "last_reload");
		return;
	}
	cJSON *last = cJSON_AddObjectToObject(object, "last_reload");
	add_count(last, "generation", reload->generation > 0 ? (int64_t)reload->generation : -1);
	add_text(last, "result", reload->result);
	add_text(last, "reason", reload->reason);
	add_count(last, "duration_ms", reload->duration_ms);
}

cJSON *status_json(const struct status *status)
{
	cJSON *object = cJSON_CreateObject();
	add_text(object, "name", status->name);
	cJSON_AddNumberToObject(object, "pid", status->pid);
	add_text(object, "version", status->version);
	add_text(object, "state", status->state);
	add_time(object, "started", status->started_ms);
	cJSON_AddNumberToObject(object, "generation", status->generation);
	cJSON *command = cJSON_AddArrayToObject(object, "command");
	for (char *const *word = status->command; *word; word++)
		cJSON_AddItemToArray(command, cJSON_CreateString(*word));
	add_text(object, "command_from", status->command_from);
	cJSON *listeners = cJSON_AddArrayToObject(object, "listeners");
	for (size_t i = 0; i < status->listener_count; i++)
		cJSON_AddItemToArray(listeners, listener_json(&status->listeners[i]));
	cJSON *generations = cJSON_AddArrayToObject(object, "generations");
	for (size_t i = 0; i < status->generation_count; i++)
		cJSON_AddItemToArray(generations, generation_json(&status->generations[i]));
	add_reload(object, &status->last_reload);
	add_count(object, "restarts", (int64_t)status->restarts);
	add_count(object, "handoffs", (int64_t)status->handoffs);
	add_count(object, "failed_handoffs", (int64_t)status->failed_handoffs);
	add_count(object, "next_restart_ms", status->next_restart_ms);
	return object;
}

/* ---- Prometheus ---- */

/* A label's value: backslash, quote and newline are escaped (exposition formats, "Comments, help text, and type
 * information"). */
static void print_label(FILE *out, const char *key, const char *value)
{
	fprintf(out, "%s=\"", key);
	for (; *value; value++) {
		if (*value == '\n') {
			fputs("\\n", out);
			continue;
		}
		if (*value == '\\' || *value == '"')
			fputc('\\', out);
		fputc(*value, out);
	}
	fputc('"', out);
}

static void print_head(FILE *out, const char *metric, const char *type, const char *help)
{
	fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", metric, help, metric, type);
}

static void print_one(FILE *out, const struct status *status, const char *metric, double value)
{
	fprintf(out, "%s{", metric);
	print_label(out, "name", status->name);
	fprintf(out, "} %.17g\n", value);
}

static void print_single(FILE *out, const struct status *status, const char *metric, const char *type, const char *help,
			 double value)
{
	print_head(out, metric, type, help);
	print_one(out, status, metric, value);
}

static void print_states(FILE *out, const struct status *status)
{
	static const char *const states[] = {"starting", "running", "handing-off", "stopping"};
	print_head(out, "handoff_state", "gauge", "1 for the state that the supervisor is in.");
	for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
		fputs("handoff_state{", out);
		print_label(out, "name", status->name);
		fputc(',', out);
		print_label(out, "state", states[i]);
		fprintf(out, "} %d\n", strcmp(states[i], status->state) == 0);
	}
}

static void print_generation_line(FILE *out, const struct status *status, const struct status_generation *generation,
				  const char *metric, double value)
{
	fprintf(out, "%s{", metric);
	print_label(out, "name", status->name);
	fprintf(out, ",generation=\"%u\",", generation->number);
	print_label(out, "state", generation->state);
	fprintf(out, "} %.17g\n", value);
}

static void print_generations(FILE *out, const struct status *status)
{
	print_head(out, "handoff_generation_processes", "gauge", "Main processes of a generation.");
	for (size_t i = 0; i < status->generation_count; i++)
		print_generation_line(out, status, &status->generations[i], "handoff_generation_processes",
				      (double)status->generations[i].pid_count);
	print_head(out, "handoff_generation_start_time_seconds", "gauge", "When a generation was started.");
	for (size_t i = 0; i < status->generation_count; i++)
		print_generation_line(out, status, &status->generations[i], "handoff_generation_start_time_seconds",
				      (double)status->generations[i].started_ms / 1000);
	print_head(out, "handoff_generation_connections", "gauge",
		   "Open connections of a draining generation, where they can be counted.");
	for (size_t i = 0; i < status->generation_count; i++)
		if (status->generations[i].connections >= 0)
			print_generation_line(out, status, &status->generations[i], "handoff_generation_connections",
					      (double)status->generations[i].connections);
}

char *status_prometheus(const struct status *status)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);
	if (!out)
		return NULL;
	print_states(out, status);
	print_single(out, status, "handoff_generation", "gauge", "The active generation's number.", status->generation);
	print_single(out, status, "handoff_start_time_seconds", "gauge", "When the supervisor was started.",
		     (double)status->started_ms / 1000);
	print_single(out, status, "handoff_handoffs_total", "counter", "Hand-offs that were completed.",
		     (double)status->handoffs);
	print_single(out, status, "handoff_failed_handoffs_total", "counter", "Hand-offs that failed.",
		     (double)status->failed_handoffs);
	print_single(out, status, "handoff_restarts_total", "counter",
		     "Starts after the active generation died unasked.", (double)status->restarts);
	print_generations(out, status);
	if (fclose(out) != 0) {
		free(text);
		return NULL;
	}
	return text;
}
