/* SPDX-License-Identifier: MIT */
/* What load measured, as one JSON object, and its records as CSV. */
#include "load.h"

#include <bsd/stdlib.h>
#include <bsd/string.h>
#include <cjson/cJSON.h>
#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct window {
	int64_t start_ns, end_ns;
};

struct generation {
	int32_t number;
	uint64_t answers;
	int64_t first_ns, last_ns;
};

/* A growing array; `element` bytes each. */
struct list {
	void *items;
	size_t count, room;
};

static const char *const kind_names[] = {"new", "keepalive"};
const char *const load_result_names[] = {"ok", "refused", "reset", "empty", "truncated", "timeout", "wrong", "error"};

static struct list records, windows, generations;
static bool window_open;
static size_t mark_count;

static void *list_add(struct list *list, size_t element)
{
	if (list->count == list->room) {
		list->room = list->room ? list->room * 2 : 1024;
		list->items = reallocarray(list->items, list->room, element);
		if (!list->items)
			err(1, "reallocarray");
	}
	return (char *)list->items + list->count++ * element;
}

void load_record_add(const struct load_record *record)
{
	*(struct load_record *)list_add(&records, sizeof(*record)) = *record;
}

int load_mark_line(const char *line)
{
	char word[16];
	long long ns = 0;
	int fields = sscanf(line, "%15s %lld", word, &ns);
	struct window *window;

	if (fields < 1)
		return line[strspn(line, " \t\r\n")] ? -EINVAL : 0;
	if (fields == 1)
		ns = load_now_ns();
	if (strcmp(word, "end") == 0) {
		if (!window_open)
			return -EINVAL;
		((struct window *)windows.items)[windows.count - 1].end_ns = ns;
		window_open = false;
		return 0;
	}
	if (strcmp(word, "start") != 0 && strcmp(word, "mark") != 0)
		return -EINVAL;
	if (window_open) /* a second start within a hand-off: it is one window still */
		return 0;
	window = list_add(&windows, sizeof(*window));
	window_open = strcmp(word, "start") == 0;
	*window = (struct window){ns, window_open ? INT64_MAX : ns + load.mark_window_ns};
	mark_count++;
	return 0;
}

static int compare_windows(const void *a, const void *b)
{
	int64_t left = ((const struct window *)a)->start_ns, right = ((const struct window *)b)->start_ns;

	return left < right ? -1 : left > right;
}

/* Sorted and without overlaps, so that one search finds the only window that matters. */
static void tidy_windows(void)
{
	struct window *all = windows.items;
	size_t kept = 0;

	if (windows.count == 0)
		return;
	qsort(all, windows.count, sizeof(*all), compare_windows);
	for (size_t i = 1; i < windows.count; i++) {
		if (all[i].start_ns > all[kept].end_ns)
			all[++kept] = all[i];
		else if (all[i].end_ns > all[kept].end_ns)
			all[kept].end_ns = all[i].end_ns;
	}
	windows.count = kept + 1;
}

/* During a hand-off: any part of the time from the schedule to the last byte lies in a window. */
static bool is_during(const struct load_record *record)
{
	const struct window *all = windows.items;
	size_t low = 0, high = windows.count;

	/* The last window that starts before the answer was there. */
	while (low < high) {
		size_t middle = (low + high) / 2;
		if (all[middle].start_ns <= record->scheduled_ns + record->latency_ns)
			low = middle + 1;
		else
			high = middle;
	}
	return low > 0 && all[low - 1].end_ns >= record->scheduled_ns;
}

static void count_generation(const struct load_record *record)
{
	int64_t done_ns = record->scheduled_ns + record->latency_ns;
	struct generation *all = generations.items;
	size_t i = generations.count;

	/* From the end, where the recent ones are. */
	while (i > 0 && all[i - 1].number != record->generation)
		i--;
	if (i == 0) {
		struct generation *added = list_add(&generations, sizeof(*added));
		*added = (struct generation){record->generation, 1, done_ns, done_ns};
		return;
	}
	struct generation *found = &all[i - 1];
	found->answers++;
	if (done_ns < found->first_ns)
		found->first_ns = done_ns;
	if (done_ns > found->last_ns)
		found->last_ns = done_ns;
}

static int compare_times(const void *a, const void *b)
{
	int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;

	return left < right ? -1 : left > right;
}

static double milliseconds(int64_t ns)
{
	return (double)(ns / 1000) / 1000;
}

/* Sorts `times`. The percentile is the nearest rank. */
static cJSON *distribution(int64_t *times, size_t count)
{
	static const struct {
		const char *name;
		double part;
	} ranks[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p999", 0.999}, {"max", 1}};
	cJSON *object = cJSON_CreateObject();

	cJSON_AddNumberToObject(object, "count", (double)count);
	if (count > 0)
		qsort(times, count, sizeof(*times), compare_times);
	for (size_t i = 0; i < sizeof(ranks) / sizeof(ranks[0]); i++) {
		size_t rank = (size_t)(ranks[i].part * (double)count + 0.999999);
		if (count == 0)
			cJSON_AddNullToObject(object, ranks[i].name);
		else
			cJSON_AddNumberToObject(object, ranks[i].name, milliseconds(times[rank > 0 ? rank - 1 : 0]));
	}
	return object;
}

static cJSON *latencies(void)
{
	int64_t *steady = reallocarray(NULL, records.count + 1, sizeof(*steady));
	int64_t *during = reallocarray(NULL, records.count + 1, sizeof(*during));
	const struct load_record *all = records.items;
	size_t steady_count = 0, during_count = 0;
	cJSON *object = cJSON_CreateObject();

	if (!steady || !during)
		err(1, "reallocarray");
	for (size_t i = 0; i < records.count; i++) {
		if (all[i].result != LOAD_OK)
			continue;
		if (is_during(&all[i]))
			during[during_count++] = all[i].latency_ns;
		else
			steady[steady_count++] = all[i].latency_ns;
	}
	cJSON_AddItemToObject(object, "steady", distribution(steady, steady_count));
	cJSON_AddItemToObject(object, "during", distribution(during, during_count));
	free(steady);
	free(during);
	return object;
}

/* How far the generator itself fell behind: of new connections only, since nothing but us can delay these. */
static cJSON *lateness(void)
{
	int64_t *late = reallocarray(NULL, records.count + 1, sizeof(*late));
	const struct load_record *all = records.items;
	size_t count = 0;

	if (!late)
		err(1, "reallocarray");
	for (size_t i = 0; i < records.count; i++)
		if (all[i].kind == LOAD_NEW)
			late[count++] = all[i].late_ns;
	cJSON *object = distribution(late, count);
	free(late);
	return object;
}

static cJSON *generation_report(void)
{
	const struct generation *all = generations.items;
	cJSON *object = cJSON_CreateObject(), *one;
	char name[16];

	for (size_t i = 0; i < generations.count; i++) {
		snprintf(name, sizeof(name), "%d", (int)all[i].number);
		one = cJSON_AddObjectToObject(object, name);
		cJSON_AddNumberToObject(one, "answers", (double)all[i].answers);
		cJSON_AddNumberToObject(one, "first_ns", (double)all[i].first_ns);
		cJSON_AddNumberToObject(one, "last_ns", (double)all[i].last_ns);
	}
	return object;
}

static void add_counts(cJSON *report, uint64_t counts[LOAD_KINDS][LOAD_RESULTS])
{
	for (int kind = 0; kind < LOAD_KINDS; kind++) {
		cJSON *object = cJSON_AddObjectToObject(report, kind_names[kind]);
		uint64_t sent = 0;
		for (int result = 0; result < LOAD_RESULTS; result++)
			sent += counts[kind][result];
		cJSON_AddNumberToObject(object, "sent", (double)sent);
		for (int result = 0; result < LOAD_RESULTS; result++)
			cJSON_AddNumberToObject(object, load_result_names[result], (double)counts[kind][result]);
		if (kind != LOAD_KEEPALIVE)
			continue;
		cJSON_AddNumberToObject(object, "connects", (double)load_counts.keepalive_connects);
		cJSON_AddNumberToObject(object, "told_to_close", (double)load_counts.told_to_close);
		cJSON_AddNumberToObject(object, "closed_idle", (double)load_counts.closed_idle);
		cJSON_AddNumberToObject(object, "reset_idle", (double)load_counts.reset_idle);
	}
}

static int read_marks_file(void)
{
	char line[128];
	FILE *file = load.marks_file ? fopen(load.marks_file, "re") : NULL;

	if (load.marks_file && !file)
		return -errno;
	while (file && fgets(line, sizeof(line), file))
		if (load_mark_line(line) < 0)
			warnx("%s: not a mark: %.*s", load.marks_file, (int)strcspn(line, "\n"), line);
	if (file)
		fclose(file);
	return 0;
}

static int write_records(void)
{
	const struct load_record *all = records.items;
	FILE *file = load.records_file ? fopen(load.records_file, "we") : NULL;

	if (load.records_file && !file)
		return -errno;
	if (!file)
		return 0;
	fprintf(file, "kind,scheduled_ns,late_ns,latency_ns,result,generation,during\n");
	for (size_t i = 0; i < records.count; i++)
		fprintf(file, "%s,%lld,%lld,%lld,%s,%d,%d\n", kind_names[all[i].kind], (long long)all[i].scheduled_ns,
			(long long)all[i].late_ns, (long long)all[i].latency_ns, load_result_names[all[i].result],
			(int)all[i].generation, is_during(&all[i]));
	return fclose(file) == 0 ? 0 : -errno;
}

static int print(cJSON *report)
{
	char *text = cJSON_Print(report);

	if (!text)
		return -ENOMEM;
	puts(text);
	free(text);
	return fflush(stdout) == 0 ? 0 : -errno;
}

int64_t load_report(int64_t begin_ns)
{
	uint64_t counts[LOAD_KINDS][LOAD_RESULTS] = {0}, ok = 0;
	const struct load_record *all = records.items;
	int r = read_marks_file();

	if (r < 0)
		return r;
	tidy_windows();
	for (size_t i = 0; i < records.count; i++) {
		counts[all[i].kind][all[i].result]++;
		ok += all[i].result == LOAD_OK;
		if (all[i].generation >= 0)
			count_generation(&all[i]);
	}
	uint64_t failures = records.count - ok + load_counts.reset_idle;
	cJSON *report = cJSON_CreateObject();
	cJSON_AddStringToObject(report, "target", load.target.text);
	cJSON_AddNumberToObject(report, "begin_ns", (double)begin_ns);
	cJSON_AddNumberToObject(report, "duration_ms", milliseconds(load_now_ns() - begin_ns));
	cJSON_AddNumberToObject(report, "sent", (double)records.count);
	cJSON_AddNumberToObject(report, "ok", (double)ok);
	cJSON_AddNumberToObject(report, "failures", (double)failures);
	add_counts(report, counts);
	cJSON_AddNumberToObject(report, "marks", (double)mark_count);
	cJSON_AddItemToObject(report, "latency_ms", latencies());
	cJSON_AddItemToObject(report, "late_ms", lateness());
	cJSON_AddItemToObject(report, "generations", generation_report());
	r = print(report);
	if (r == 0)
		r = write_records();
	cJSON_Delete(report);
	free(records.items);
	free(windows.items);
	free(generations.items);
	return r < 0 ? r : (int64_t)failures;
}
