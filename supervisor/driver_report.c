/* SPDX-License-Identifier: MIT */
/* What people read in the log and in ps, and what our own manager is told. */
#include "driver_private.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bsd/string.h>
#include <bsd/unistd.h>

#include "log.h"

#define gen_log(generation_, level_, ...) log_line(level_, (generation_)->number, __VA_ARGS__)

/* "212 ms", "5.3 s", "2 min 5 s". */
static const char *span(int64_t ms, char *buffer, size_t size)
{
	if (ms < 1000)
		snprintf(buffer, size, "%lld ms", (long long)ms);
	else if (ms < 60000)
		snprintf(buffer, size, "%.1f s", (double)ms / 1000);
	else
		snprintf(buffer, size, "%lld min %lld s", (long long)(ms / 60000), (long long)(ms / 1000 % 60));
	return buffer;
}

static uint32_t active_number(const struct driver *driver)
{
	const struct handoff_generation *active = handoff_active(&driver->machine);
	return active ? active->number : 0;
}

/* The title in ps, and STATUS= in systemctl. */
static void show_state(struct driver *driver, const char *text)
{
	const struct handoff_generation *starting = handoff_starting(&driver->machine);
	uint32_t shown = active_number(driver);
	if (shown == 0 && starting)
		shown = starting->number;
	setproctitle("%s [gen %u]", driver->name, shown);
	notify_status(driver->notify, text);
}

/* Whether a command names the address as a whole: its port, between anything but digits, or its path. */
static bool names_address(const char *command, const struct listener *listener)
{
	const char *colon = listener->path ? NULL : strrchr(listener->address, ':');
	const char *name = colon ? colon + 1 : listener->address;
	size_t length = strlen(name);
	for (const char *at = strstr(command, name); at; at = strstr(at + 1, name)) {
		bool inside = colon &&
			      ((at > command && isdigit((unsigned char)at[-1])) || isdigit((unsigned char)at[length]));
		if (!inside)
			return true;
	}
	return false;
}

/* While the old generation lives, it answers there as well, so that such a command says ready too early. */
static void report_exec_at_held(const struct driver *driver)
{
	for (size_t i = 0; i < driver->options->ready_count; i++) {
		const struct ready_how *how = &driver->options->readies[i];
		for (size_t j = 0; how->kind == READY_EXEC && j < driver->listeners->count; j++)
			if (names_address(how->command, &driver->listeners->items[j]))
				log_warning(
					"--ready \"exec:%.200s\" names %s, which every generation serves: the old one "
					"answers it too, before the new one is ready; ask what only the new one "
					"answers",
					how->command, driver->listeners->items[j].address);
	}
}

void report_listeners(struct driver *driver)
{
	for (size_t i = 0; i < driver->listeners->count; i++) {
		const struct listener *listener = &driver->listeners->items[i];
		char backlog[96] = "";
		if (listener->stream && listener->backlog > 0)
			snprintf(backlog, sizeof(backlog), ", backlog %d", listener->backlog);
		log_info("holding %s%s%s (%s%s%s) as fd %zu", listener->name ? listener->name : "",
			 listener->name ? "=" : "", listener->address, listener->type, backlog,
			 listener->inherited ? ", inherited" : "", i + 3);
	}
	if (driver->listeners->count == 0)
		log_warning(
			"no -l: nothing is held, so a server that binds its own address cannot be replaced while it "
			"runs");
	report_exec_at_held(driver);
}

void report_manager_hint(struct driver *driver)
{
	if (driver->options->signals[SIGTERM].explicit_rule)
		return;
	if (getpid() == 1)
		log_info("as pid 1: TERM stops at once and drops what is in flight; for a graceful stop set STOPSIGNAL "
			 "SIGINT in the image, or --signal TERM=stop");
	else if (driver->notify->fd >= 0)
		log_info("under a manager: TERM stops at once and drops what is in flight; for a graceful stop set "
			 "KillSignal=SIGINT in the unit, or --signal TERM=stop");
}

static void add_pids(cJSON *event, const struct generation *generation)
{
	cJSON *pids = cJSON_AddArrayToObject(event, "pids");
	for (size_t i = 0; i < generation->worker_count; i++)
		if (generation->workers[i]->child.pid != 0 && !generation->workers[i]->exited)
			cJSON_AddItemToArray(pids, cJSON_CreateNumber(generation->workers[i]->child.pid));
}

static void simple_event(struct generation *generation, const char *kind)
{
	driver_event_send(generation->driver, generation, driver_event_new(generation->driver, kind, generation));
}

void report_spawned(struct generation *generation)
{
	if (generation->worker_count > 1)
		gen_log(generation, LOG_LEVEL_INFO, "started %s (%zu workers)", generation->argv[0],
			generation->worker_count);
	else
		gen_log(generation, LOG_LEVEL_INFO, "started %s (pid %d)", generation->argv[0],
			generation->workers[0]->child.pid);
	cJSON *event = driver_event_new(generation->driver, "starting", generation);
	if (event)
		add_pids(event, generation);
	driver_event_send(generation->driver, generation, event);
	if (!generation->driver->ever_active)
		show_state(generation->driver, "Starting");
}

void report_lost(struct worker *worker)
{
	char status[64];
	struct generation *generation = worker->generation;
	/* With one worker its end is its generation's, which is told in other words. */
	if (generation->worker_count > 1)
		gen_log(generation, worker->told ? LOG_LEVEL_INFO : LOG_LEVEL_WARNING, "worker %d %s",
			worker->child.pid, child_describe_status(worker->status, status, sizeof(status)));
}

void report_emptying(struct driver *driver, bool asked)
{
	log_info("stop-first: the next generation starts when the old one is gone; connections wait meanwhile");
	if (asked)
		notify_reloading(driver->notify);
	show_state(driver, "Waiting for the old generation to end");
}

void report_handing_off(struct driver *driver, struct generation *generation)
{
	if (!generation)
		return;
	char text[96];
	if (active_number(driver) > 0)
		snprintf(text, sizeof(text), "Generation %u serves, generation %u is starting", active_number(driver),
			 generation->number);
	else
		snprintf(text, sizeof(text), "Generation %u is starting", generation->number);
	notify_reloading(driver->notify);
	show_state(driver, text);
}

void report_ready(struct worker *worker, const char *why)
{
	char after[32], which[32] = "";
	struct generation *generation = worker->generation;
	if (generation->worker_count > 1)
		snprintf(which, sizeof(which), "worker %d is ", worker->child.pid);
	gen_log(generation, LOG_LEVEL_INFO, "%sready after %s (%s%s%s)", which,
		span(loop_now_ms() - worker->started_ms, after, sizeof(after)), generation->ready_by, *why ? ": " : "",
		why);
	cJSON *event = driver_event_new(generation->driver, "ready", generation);
	if (event) {
		cJSON_AddNumberToObject(event, "ready_ms", (double)(loop_now_ms() - worker->started_ms));
		cJSON_AddStringToObject(event, "by", generation->ready_by);
		cJSON_AddNumberToObject(event, "pid", worker->child.pid);
	}
	driver_event_send(generation->driver, generation, event);
}

void report_active(struct driver *driver, struct generation *generation)
{
	char text[64];
	snprintf(text, sizeof(text), "Generation %u serves", generation->number);
	gen_log(generation, LOG_LEVEL_INFO, "active: new connections are for it");
	simple_event(generation, "active");
	notify_ready(driver->notify);
	show_state(driver, text);
}

/* Which of the things that are known is the one to read first. */
static void describe_failure(struct generation *generation, enum handoff_failure failure, char *text, size_t size)
{
	struct worker *worker = generation->worker_count > 0 ? generation->workers[0] : NULL;
	for (size_t i = 0; i < generation->worker_count; i++)
		if (generation->workers[i]->exited)
			worker = generation->workers[i];
	char status[64], after[32], missing[256];
	int64_t now = loop_now_ms();
	switch (failure) {
	case HANDOFF_FAILURE_EXITED:
		if (generation->reason[0] != '\0')
			strlcpy(text, generation->reason, size);
		else if (worker->status == 0 && driver_has_rest(worker))
			snprintf(text, size, "it put itself in the background: run it in the foreground");
		else
			snprintf(text, size, "%s after %s, before it was ready",
				 child_describe_status(worker->status, status, sizeof(status)),
				 span(now - generation->started_ms, after, sizeof(after)));
		break;
	case HANDOFF_FAILURE_UNSETTLED:
		if (worker->status == 0 && driver_has_rest(worker))
			snprintf(text, size, "it put itself in the background: run it in the foreground");
		else
			snprintf(text, size, "%s %s after it was ready, within the settling time",
				 child_describe_status(worker->status, status, sizeof(status)),
				 span(now - generation->ready_ms, after, sizeof(after)));
		break;
	case HANDOFF_FAILURE_TIMEOUT:
		snprintf(text, size, "not ready in time (%s): %s",
			 span(generation->recipe->options->ready_timeout_ms, after, sizeof(after)),
			 ready_missing(worker->ready, missing, sizeof(missing)));
		break;
	case HANDOFF_FAILURE_PROTOCOL:
	case HANDOFF_FAILURE_SPAWN:
		strlcpy(text, generation->reason, size);
		break;
	case HANDOFF_FAILURE_NONE:
	case HANDOFF_FAILURE_NO_ROOM:
		strlcpy(text, "unknown", size);
		break;
	}
}

static int failure_code(const struct generation *generation, enum handoff_failure failure)
{
	if (failure == HANDOFF_FAILURE_TIMEOUT)
		return 124;
	if (failure == HANDOFF_FAILURE_SPAWN)
		return 125;
	for (size_t i = 0; i < generation->worker_count; i++)
		if (generation->workers[i]->exited && generation->workers[i]->status != 0)
			return child_exit_code(generation->workers[i]->status);
	return 1;
}

/* The exit status of the worker that ended the start. */
static int left_with(const struct generation *generation)
{
	for (size_t i = 0; i < generation->worker_count; i++)
		if (generation->workers[i]->exited)
			return child_exit_code(generation->workers[i]->status);
	return -1;
}

void report_failed(struct driver *driver, struct generation *generation, enum handoff_failure failure)
{
	if (!generation) {
		log_error("no hand-off: %d generations are still ending", HANDOFF_GENERATIONS);
		return;
	}
	char text[512];
	describe_failure(generation, failure, text, sizeof(text));
	strlcpy(generation->reason, text, sizeof(generation->reason));
	generation->exit_code = failure_code(generation, failure);
	if (failure == HANDOFF_FAILURE_EXITED || failure == HANDOFF_FAILURE_UNSETTLED)
		generation->left_with = left_with(generation);
	cJSON *event = driver_event_new(driver, "failed", generation);
	if (event)
		cJSON_AddStringToObject(event, "reason", text);
	driver_event_send(driver, generation, event);
	uint32_t active = active_number(driver);
	if (active == 0) {
		gen_log(generation, LOG_LEVEL_ERROR, "failed to start: %s", text);
		if (driver->ever_active && generation->is_handoff)
			notify_ready(driver->notify);
		return;
	}
	gen_log(generation, LOG_LEVEL_ERROR, "failed to start: %s; generation %u still serves", text, active);
	char status[700];
	snprintf(status, sizeof(status), "Generation %u serves; generation %u failed: %s", active, generation->number,
		 text);
	/* After a failure too: the service is up, and who waits for the reload must not hang. */
	notify_ready(driver->notify);
	show_state(driver, status);
}

void report_died(struct generation *generation)
{
	char status[64];
	const struct worker *worker = generation->workers[generation->worker_count - 1];
	gen_log(generation, LOG_LEVEL_WARNING, "died unasked: %s",
		child_describe_status(worker->status, status, sizeof(status)));
	notify_status(generation->driver->notify, "Nobody serves: connections wait in the queue");
}

void report_drain(struct worker *worker, const char *whom)
{
	char name[16];
	gen_log(worker->generation, LOG_LEVEL_INFO, "draining: SIG%s to %s (pid %d)",
		spec_signal_name(worker->generation->driver->options->drain_signal, name, sizeof(name)), whom,
		worker->child.pid);
	driver_event_draining(worker->generation);
}

void report_kill(struct generation *generation, enum handoff_kill_reason why)
{
	switch (why) {
	case HANDOFF_KILL_DRAIN_TIMEOUT:
		gen_log(generation, LOG_LEVEL_WARNING, "killed: not drained within --drain-timeout");
		break;
	case HANDOFF_KILL_TIMEOUT:
		gen_log(generation, LOG_LEVEL_WARNING, "killed: did not end when told to");
		break;
	case HANDOFF_KILL_MAX_DRAINING:
		gen_log(generation, LOG_LEVEL_WARNING, "killed: more than --max-draining=%d generations are draining",
			generation->driver->options->max_draining);
		break;
	}
}

void report_gone(struct generation *generation)
{
	char after[32];
	simple_event(generation, "gone");
	if (generation->draining_ms >= 0 && generation->reason[0] == '\0')
		gen_log(generation, LOG_LEVEL_INFO, "gone after draining for %s",
			span(loop_now_ms() - generation->draining_ms, after, sizeof(after)));
	else
		gen_log(generation, LOG_LEVEL_INFO, "gone");
}

void report_restarting(struct driver *driver, int64_t delay_ms)
{
	cJSON *event = driver_event_new(driver, "restarting", NULL);
	log_info("restarting in %lld ms", (long long)delay_ms);
	if (event)
		cJSON_AddNumberToObject(event, "in_ms", (double)delay_ms);
	driver_event_send(driver, NULL, event);
}

/* Why it ends, where nobody asked for it. */
static void log_end(const struct driver *driver)
{
	const struct options *options = driver->options;
	switch (driver->machine.exit) {
	case HANDOFF_EXIT_GAVE_UP:
		if (options->restart == RESTART_NEVER)
			log_error("giving up (--restart never), with status %d", driver->exit_code);
		else
			log_error("giving up after --max-restarts=%d failures in a row, with status %d",
				  options->max_restarts, driver->exit_code);
		break;
	case HANDOFF_EXIT_CLEAN:
		log_info("ending, since the server ended by itself with status 0 (--restart on-failure)");
		break;
	case HANDOFF_EXIT_NONE:
	case HANDOFF_EXIT_STOPPED:
	case HANDOFF_EXIT_FIRST_FAILED:
		break;
	}
}

void report_stopping(struct driver *driver)
{
	driver_event_send(driver, NULL, driver_event_new(driver, "stopping", NULL));
	log_end(driver);
	notify_stopping(driver->notify);
	show_state(driver, "Stopping");
	if (driver->listeners->count > 0)
		log_info("stopping: our copies of the listeners are closed");
}
