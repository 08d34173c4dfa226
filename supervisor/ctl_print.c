/* SPDX-License-Identifier: MIT */
/* How the client's sentences, events and progress read. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <bsd/string.h>

#include "ctl_private.h"
#include "fd.h"
#include "loop.h"

#define TAB_AS "    "

/* ---- safe text ---- */

char *ctl_safe(const char *text)
{
	size_t length = strlen(text);
	/* Four bytes are the most that one becomes, as \xNN or as a tab. */
	char *spaced = malloc(4 * length + 1), *safe = malloc(16 * length + 1), *end = spaced;
	if (!spaced || !safe) {
		free(spaced);
		free(safe);
		return NULL;
	}
	for (size_t i = 0; i < length; i++) {
		if (text[i] == '\t') {
			memcpy(end, TAB_AS, strlen(TAB_AS));
			end += strlen(TAB_AS);
		} else {
			*end++ = text[i];
		}
	}
	error_printable(safe, 16 * length + 1, spaced, (size_t)(end - spaced));
	free(spaced);
	return safe;
}

static PRINTF_LIKE(3, 0) void print_safe(FILE *out, const char *prefix, const char *format, va_list arguments)
{
	CLEANUP(freep) char *text = NULL;
	if (vasprintf(&text, format, arguments) < 0)
		return;
	CLEANUP(freep) char *safe = ctl_safe(text);
	fprintf(out, "%s%s\n", prefix, safe ? safe : "out of memory");
}

void ctl_complain(const char *format, ...)
{
	va_list arguments;
	/* So that the order is right where both go to one place. */
	fflush(stdout);
	va_start(arguments, format);
	print_safe(stderr, "handoff: ", format, arguments);
	va_end(arguments);
}

void ctl_say(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	print_safe(stdout, "", format, arguments);
	va_end(arguments);
	fflush(stdout);
}

int ctl_flush(void)
{
	if (fflush(stdout) != EOF && !ferror(stdout))
		return CTL_OK;
	fprintf(stderr, "handoff: cannot write to standard output: %s\n", strerror(errno));
	return CTL_ERROR;
}

char *ctl_command_line(const cJSON *words)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);
	if (!out)
		return NULL;
	const cJSON *item;
	cJSON_ArrayForEach (item, words) {
		const char *word = cJSON_IsString(item) ? item->valuestring : "?";
		size_t plain =
			strspn(word, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_@%+=:,./{}-");
		fputs(item == words->child ? "" : " ", out);
		if (*word && word[plain] == '\0') {
			fputs(word, out);
			continue;
		}
		fputc('\'', out);
		for (; *word; word++)
			*word == '\'' ? fputs("'\\''", out) : fputc(*word, out);
		fputc('\'', out);
	}
	if (fclose(out) != 0) {
		free(text);
		return NULL;
	}
	return text;
}

/* ---- members of messages ---- */

const char *ctl_string(const cJSON *object, const char *key, const char *otherwise)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
	return cJSON_IsString(item) ? item->valuestring : otherwise;
}

int64_t ctl_number(const cJSON *object, const char *key, int64_t otherwise)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
	/* What a double holds exactly; beyond that the conversion may be undefined. */
	if (!cJSON_IsNumber(item) || !(item->valuedouble > -9e15 && item->valuedouble < 9e15))
		return otherwise;
	return (int64_t)item->valuedouble;
}

char *ctl_duration(int64_t ms, char *ret, size_t size)
{
	int64_t s = ms / 1000;
	if (ms < 1000)
		snprintf(ret, size, "%" PRId64 " ms", ms < 0 ? 0 : ms);
	else if (s < 60)
		snprintf(ret, size, "%" PRId64 " s", s);
	else if (s < 3600)
		snprintf(ret, size, "%" PRId64 " m %" PRId64 " s", s / 60, s % 60);
	else if (s < 24 * 3600)
		snprintf(ret, size, "%" PRId64 " h %" PRId64 " m", s / 3600, s % 3600 / 60);
	else
		snprintf(ret, size, "%" PRId64 " d %" PRId64 " h", s / 86400, s % 86400 / 3600);
	return ret;
}

/* ---- events ---- */

static void starting_text(const cJSON *event, int64_t generation, char *ret, size_t size)
{
	const cJSON *pids = cJSON_GetObjectItemCaseSensitive(event, "pids");
	int count = cJSON_GetArraySize(pids);
	if (count == 1 && cJSON_IsNumber(pids->child))
		snprintf(ret, size, "generation %" PRId64 " starts (pid %d)", generation, pids->child->valueint);
	else if (count > 1)
		snprintf(ret, size, "generation %" PRId64 " starts (%d processes)", generation, count);
	else
		snprintf(ret, size, "generation %" PRId64 " starts", generation);
}

/* With several workers one comes for each. */
static void ready_text(const cJSON *event, int64_t generation, char *ret, size_t size)
{
	char time[32], who[32] = "";
	const char *by = ctl_string(event, "by", NULL);
	int64_t pid = ctl_number(event, "pid", 0);
	if (pid > 0)
		snprintf(who, sizeof(who), ": pid %" PRId64, pid);
	snprintf(ret, size, "generation %" PRId64 "%s is ready after %s%s%s%s", generation, who,
		 ctl_duration(ctl_number(event, "ready_ms", 0), time, sizeof(time)), by ? " (" : "", by ? by : "",
		 by ? ")" : "");
}

static void draining_text(const cJSON *event, int64_t generation, char *ret, size_t size)
{
	char time[32] = "";
	int64_t connections = ctl_number(event, "connections", -1), ms = ctl_number(event, "draining_ms", 0);
	int length = snprintf(ret, size, "generation %" PRId64 " drains", generation);
	if (connections >= 0 && length > 0 && (size_t)length < size)
		length += snprintf(ret + length, size - (size_t)length, ", %" PRId64 " connection%s left", connections,
				   connections == 1 ? "" : "s");
	if (ms >= 1000 && length > 0 && (size_t)length < size)
		snprintf(ret + length, size - (size_t)length, ", since %s", ctl_duration(ms, time, sizeof(time)));
}

bool ctl_event_text(const cJSON *event, char *ret, size_t size)
{
	const char *kind = ctl_string(event, "event", "");
	int64_t generation = ctl_number(event, "generation", 0);
	char time[32];
	if (strcmp(kind, "waiting") == 0)
		strlcpy(ret, "waiting for the hand-off that is under way", size);
	else if (strcmp(kind, "starting") == 0)
		starting_text(event, generation, ret, size);
	else if (strcmp(kind, "ready") == 0)
		ready_text(event, generation, ret, size);
	else if (strcmp(kind, "active") == 0)
		snprintf(ret, size, "generation %" PRId64 " is active", generation);
	else if (strcmp(kind, "draining") == 0)
		draining_text(event, generation, ret, size);
	else if (strcmp(kind, "gone") == 0)
		snprintf(ret, size, "generation %" PRId64 " is gone", generation);
	else if (strcmp(kind, "failed") == 0)
		snprintf(ret, size, "generation %" PRId64 " failed: %s", generation,
			 ctl_string(event, "reason", "no reason was given"));
	else if (strcmp(kind, "restarting") == 0)
		snprintf(ret, size, "the active generation died; a new one starts in %s",
			 ctl_duration(ctl_number(event, "in_ms", 0), time, sizeof(time)));
	else if (strcmp(kind, "stopping") == 0)
		strlcpy(ret, "the supervisor stops", size);
	else
		return false;
	return true;
}

void ctl_active_text(const cJSON *result, char *ret, size_t size)
{
	int64_t active = ctl_number(result, "active", 0);
	if (active > 0)
		snprintf(ret, size, "generation %" PRId64 " still serves", active);
	else
		strlcpy(ret, "no generation serves", size);
}

void ctl_print_failure(FILE *out, const char *name, const cJSON *result)
{
	char active[64];
	int64_t generation = ctl_number(result, "generation", 0), status = ctl_number(result, "status", -1);
	const cJSON *lines = cJSON_GetObjectItemCaseSensitive(result, "stderr"), *line;
	CLEANUP(freep) char *reason = ctl_safe(ctl_string(result, "reason", "no reason was given"));
	fflush(stdout);
	fprintf(out, "handoff: %s: ", name);
	if (generation > 0)
		fprintf(out, "generation %" PRId64 " failed: %s\n", generation, reason ? reason : "");
	else
		fprintf(out, "the hand-off failed: %s\n", reason ? reason : "");
	if (status >= 0)
		fprintf(out, "    its exit status: %" PRId64 "\n", status);
	if (cJSON_GetArraySize(lines) > 0)
		fprintf(out, "    its last lines on stderr:\n");
	cJSON_ArrayForEach (line, lines) {
		CLEANUP(freep) char *safe = ctl_safe(cJSON_IsString(line) ? line->valuestring : "");
		fprintf(out, "        %s\n", safe ? safe : "");
	}
	ctl_active_text(result, active, sizeof(active));
	fprintf(out, "handoff: %s: %s\n", name, active);
}

/* ---- progress ---- */

bool ctl_on_terminal(void)
{
	const char *term = getenv("TERM");
	return isatty(STDOUT_FILENO) && term && *term && strcmp(term, "dumb") != 0;
}

void ctl_progress_init(struct ctl_progress *progress, const char *name, bool json)
{
	*progress = (struct ctl_progress){.name = name, .json = json, .live = !json && ctl_on_terminal()};
}

/* One line, cut at the terminal's width: a longer one would wrap, and could not be taken back. */
static void draw(const struct ctl_progress *progress)
{
	struct winsize window = {.ws_col = 0};
	char line[512], time[32];
	int64_t ms = loop_now_ms() - progress->since_ms;
	snprintf(line, sizeof(line), "%s: %s%s%s%s", progress->name, progress->text, ms >= 1000 ? " [" : "",
		 ms >= 1000 ? ctl_duration(ms, time, sizeof(time)) : "", ms >= 1000 ? "]" : "");
	CLEANUP(freep) char *safe = ctl_safe(line);
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) < 0 || window.ws_col < 2)
		window.ws_col = 80;
	printf("\r%.*s\033[K", window.ws_col - 1, safe ? safe : "");
	fflush(stdout);
}

void ctl_progress_clear(struct ctl_progress *progress)
{
	if (!progress->live || !progress->text[0])
		return;
	fputs("\r\033[K", stdout);
	fflush(stdout);
	progress->text[0] = '\0';
}

void ctl_progress_tick(struct ctl_progress *progress)
{
	if (progress->live && progress->text[0])
		draw(progress);
}

void ctl_progress_event(struct ctl_progress *progress, const cJSON *event)
{
	char text[sizeof(progress->text)];
	const char *kind = ctl_string(event, "event", "");
	bool draining = strcmp(kind, "draining") == 0;
	int64_t generation = ctl_number(event, "generation", 0);
	/* Those are what the result says next, and more. */
	if (strcmp(kind, "active") == 0 || strcmp(kind, "failed") == 0 || !ctl_event_text(event, text, sizeof(text)))
		return;
	if (progress->live) {
		strlcpy(progress->text, text, sizeof(progress->text));
		progress->since_ms = loop_now_ms();
		/* That event says its time itself. */
		if (draining)
			progress->since_ms = INT64_MAX;
		draw(progress);
		return;
	}
	/* It comes every second; where lines stay, once says it. */
	if (draining && progress->drained == generation)
		return;
	if (draining)
		progress->drained = generation;
	ctl_say("%s: %s", progress->name, text);
}
