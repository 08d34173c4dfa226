/* SPDX-License-Identifier: MIT */
/* Requests on the control socket: who asked for which hand-off, what they are told meanwhile, and their one answer. */
#include "driver_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "command.h"
#include "fd.h"
#include "log.h"
#include "status.h"

/* Somebody who asked for a hand-off and has no result yet. */
struct asker {
	TAILQ_ENTRY(asker) link; /* in driver.askers */
	uint32_t request;        /* the control socket's number */
	uint32_t wish;           /* what it joined; 0 until the machine says */
	uint32_t key;            /* of the command line that it brought; 0: none */
	int64_t asked_ms;
	bool wait; /* wants to know how it ends */
};

/* A failure whose result still waits for the last lines of stderr. */
struct late_answer {
	TAILQ_ENTRY(late_answer) link; /* in driver.late_answers */
	struct driver *driver;
	uint32_t request;
	uint32_t generation;
	cJSON *result; /* owned until it is sent */
};

/* A hand-off that was asked for by clients, as long as it is not answered. */
struct wish {
	TAILQ_ENTRY(wish) link; /* in driver.wishes */
	uint32_t id;
	uint32_t key;
};

/* ---- command lines that requests brought ---- */

static struct command_line *find_command(struct driver *driver, uint32_t key)
{
	struct command_line *command;
	TAILQ_FOREACH (command, &driver->commands, link)
		if (command->key == key)
			return command;
	return NULL;
}

static bool same_words(char *const *one, char *const *other)
{
	for (; *one && *other; one++, other++)
		if (strcmp(*one, *other) != 0)
			return false;
	return !*one && !*other;
}

/* The same words get the same key, so that the machine folds equal requests. NULL when out of memory. */
static struct command_line *intern_command(struct driver *driver, const cJSON *words)
{
	CLEANUP(freep) char **argv = calloc((size_t)cJSON_GetArraySize(words) + 1, sizeof(char *));
	struct command_line *command;
	const cJSON *word;
	size_t count = 0;
	if (!argv)
		return NULL;
	cJSON_ArrayForEach (word, words)
		argv[count++] = word->valuestring;
	TAILQ_FOREACH (command, &driver->commands, link)
		if (same_words(command->argv, argv))
			return command;
	command = calloc(1, sizeof(*command));
	char **copy = calloc(count + 1, sizeof(char *));
	bool complete = command && copy;
	for (size_t i = 0; complete && i < count; i++)
		complete = (copy[i] = strdup(argv[i])) != NULL;
	if (!complete) {
		command_free(copy);
		free(command);
		return NULL;
	}
	*command = (struct command_line){.key = ++driver->last_key, .argv = copy};
	TAILQ_INSERT_TAIL(&driver->commands, command, link);
	return command;
}

static struct wish *find_wish(struct driver *driver, uint32_t id)
{
	struct wish *wish;
	TAILQ_FOREACH (wish, &driver->wishes, link)
		if (wish->id == id)
			return wish;
	return NULL;
}

static bool is_wanted(struct driver *driver, const struct command_line *command)
{
	struct wish *wish;
	struct asker *asker;
	if (command == driver->kept || command == driver->kept_before)
		return true;
	TAILQ_FOREACH (wish, &driver->wishes, link)
		if (wish->key == command->key)
			return true;
	TAILQ_FOREACH (asker, &driver->askers, link)
		if (asker->key == command->key)
			return true;
	return false;
}

static void drop_unwanted_commands(struct driver *driver)
{
	struct command_line *command, *next;
	TAILQ_FOREACH_SAFE (command, &driver->commands, link, next) {
		if (is_wanted(driver, command))
			continue;
		TAILQ_REMOVE(&driver->commands, command, link);
		command_free(command->argv);
		free(command);
	}
}

char *const *driver_command(struct driver *driver, const struct generation *generation)
{
	const struct wish *wish = generation ? find_wish(driver, generation->wish) : NULL;
	const struct command_line *command = wish ? find_command(driver, wish->key) : NULL;
	const struct recipe *recipe = generation && generation->recipe ? generation->recipe : driver->recipe;
	if (!command)
		command = driver->kept;
	return command ? command->argv : recipe->options->command;
}

bool driver_fall_back(struct driver *driver)
{
	if (!driver->kept)
		return false;
	driver->kept = driver->kept_before;
	driver->kept_before = NULL;
	drop_unwanted_commands(driver);
	return true;
}

/* ---- events ---- */

static cJSON *new_event(const char *kind, const struct generation *generation)
{
	cJSON *event = cJSON_CreateObject();
	cJSON_AddStringToObject(event, "event", kind);
	if (generation)
		cJSON_AddNumberToObject(event, "generation", generation->number);
	return event;
}

cJSON *driver_event_new(struct driver *driver, const char *kind, const struct generation *generation)
{
	/* Nobody listens: nothing is built. */
	if (TAILQ_EMPTY(&driver->askers) && !control_has_subscribers(driver->control))
		return NULL;
	return new_event(kind, generation);
}

void driver_event_send(struct driver *driver, const struct generation *generation, cJSON *event)
{
	struct asker *asker, *next;
	if (!event)
		return;
	TAILQ_FOREACH_SAFE (asker, &driver->askers, link, next)
		if (asker->wait && asker->wish != 0 && generation &&
		    (asker->wish == generation->wish || generation->draining_ms >= 0))
			control_event(driver->control, asker->request, cJSON_Duplicate(event, true));
	control_broadcast(driver->control, event);
}

static void on_progress(struct loop_source *source, void *data)
{
	struct driver *driver = data;
	struct generation *generation;
	(void)source;
	TAILQ_FOREACH (generation, &driver->generations, link) {
		const struct handoff_generation *known = handoff_find(&driver->machine, generation->number);
		if (known && known->state == GENERATION_DRAINING)
			driver_event_draining(generation);
	}
}

void driver_event_draining(struct generation *generation)
{
	struct driver *driver = generation->driver;
	cJSON *event = driver_event_new(driver, "draining", generation);
	if (!event)
		return;
	int64_t connections = driver_connections(generation);
	if (connections < 0)
		cJSON_AddNullToObject(event, "connections");
	else
		cJSON_AddNumberToObject(event, "connections", (double)connections);
	cJSON_AddNumberToObject(event, "draining_ms", (double)(loop_now_ms() - generation->draining_ms));
	driver_event_send(driver, generation, event);
	if (driver->progress_timer || loop_add_timer(driver->loop, on_progress, driver, &driver->progress_timer) >= 0)
		loop_timer_set(driver->progress_timer, 1000);
}

/* ---- answers ---- */

static void drop_asker(struct driver *driver, struct asker *asker)
{
	TAILQ_REMOVE(&driver->askers, asker, link);
	free(asker);
}

static uint32_t active_number(const struct driver *driver)
{
	const struct handoff_generation *active = handoff_active(&driver->machine);
	return active ? active->number : 0;
}

static void add_number_or_null(cJSON *object, const char *key, uint32_t number)
{
	if (number != 0)
		cJSON_AddNumberToObject(object, key, number);
	else
		cJSON_AddNullToObject(object, key);
}

static cJSON *new_result(const char *result, const char *reason)
{
	cJSON *object = cJSON_CreateObject();
	cJSON_AddStringToObject(object, "result", result);
	if (reason)
		cJSON_AddStringToObject(object, "reason", reason);
	return object;
}

static cJSON *result_object(struct driver *driver, const struct handoff_action *action, const struct asker *asker)
{
	struct generation *generation = driver_find(driver, action->generation);
	cJSON *object = NULL;
	switch (action->result) {
	case HANDOFF_RESULT_OK:
		object = new_result("ok", NULL);
		cJSON_AddNumberToObject(object, "generation", action->generation);
		cJSON_AddNumberToObject(object, "ready_ms", (double)(generation->ready_ms - generation->started_ms));
		cJSON_AddStringToObject(object, "ready_by", generation->ready_by);
		break;
	case HANDOFF_RESULT_FAILED:
		object =
			new_result("failed", generation ? generation->reason : "too many generations are still ending");
		add_number_or_null(object, "generation", action->generation);
		if (generation && generation->left_with >= 0)
			cJSON_AddNumberToObject(object, "status", generation->left_with);
		else
			cJSON_AddNullToObject(object, "status");
		add_number_or_null(object, "active", active_number(driver));
		break;
	case HANDOFF_RESULT_REFUSED_STOPPING:
		object = new_result("refused", "the supervisor is stopping");
		break;
	case HANDOFF_RESULT_REFUSED_GENERATION:
		object = new_result("refused", "another generation is active than was asked for");
		add_number_or_null(object, "active", driver->machine.last_active);
		break;
	case HANDOFF_RESULT_SUPERSEDED:
		object = new_result("superseded", "a newer, different request took its place");
		break;
	}
	cJSON_AddNumberToObject(object, "duration_ms", (double)(loop_now_ms() - asker->asked_ms));
	return object;
}

static void send_late(struct late_answer *late, const char *const *lines, size_t count)
{
	struct driver *driver = late->driver;
	cJSON *array = cJSON_AddArrayToObject(late->result, "stderr");
	for (size_t i = 0; i < count; i++)
		cJSON_AddItemToArray(array, cJSON_CreateString(lines[i]));
	control_result(driver->control, late->request, late->result);
	TAILQ_REMOVE(&driver->late_answers, late, link);
	if (!driver_find(driver, late->generation))
		capture_forget(driver->capture, late->generation);
	free(late);
}

static void on_lines(unsigned generation, const char *const *lines, size_t count, void *data)
{
	(void)generation;
	send_late(data, lines, count);
}

bool driver_lines_wanted(const struct driver *driver, uint32_t generation)
{
	const struct late_answer *late;
	TAILQ_FOREACH (late, &driver->late_answers, link)
		if (late->generation == generation)
			return true;
	return false;
}

/* A failure is told with the last lines that the server wrote, which the relay has. */
static void answer_late(struct driver *driver, uint32_t request, uint32_t generation, cJSON *result)
{
	struct late_answer *late = calloc(1, sizeof(*late));
	if (!late) {
		control_result(driver->control, request, result);
		return;
	}
	*late = (struct late_answer){.driver = driver, .request = request, .generation = generation, .result = result};
	TAILQ_INSERT_TAIL(&driver->late_answers, late, link);
	if (capture_ask(driver->capture, generation, on_lines, late) < 0)
		send_late(late, NULL, 0);
}

static void answer_asker(struct driver *driver, struct asker *asker, const struct handoff_action *action)
{
	cJSON *result = result_object(driver, action, asker);
	uint32_t request = asker->request;
	drop_asker(driver, asker);
	if (action->result == HANDOFF_RESULT_FAILED && driver->capture && action->generation != 0)
		answer_late(driver, request, action->generation, result);
	else
		control_result(driver->control, request, result);
}

void driver_answer(struct driver *driver, const struct handoff_action *action)
{
	struct asker *asker, *next;
	struct wish *wish = find_wish(driver, action->wish);
	struct command_line *command = wish ? find_command(driver, wish->key) : NULL;
	if (command && action->result == HANDOFF_RESULT_OK && command != driver->kept) {
		driver->kept_before = driver->kept;
		driver->kept = command;
	}
	TAILQ_FOREACH_SAFE (asker, &driver->askers, link, next)
		if (asker->wish == action->wish)
			answer_asker(driver, asker, action);
	if (wish) {
		TAILQ_REMOVE(&driver->wishes, wish, link);
		free(wish);
	}
	drop_unwanted_commands(driver);
}

static struct asker *find_asker(struct driver *driver, uint32_t request)
{
	struct asker *asker;
	TAILQ_FOREACH (asker, &driver->askers, link)
		if (asker->request == request)
			return asker;
	return NULL;
}

void driver_refuse(struct driver *driver, const struct handoff_action *action)
{
	struct asker *asker = find_asker(driver, action->request);
	if (asker)
		answer_asker(driver, asker, action);
}

void driver_join(struct driver *driver, const struct handoff_action *action)
{
	struct asker *asker = find_asker(driver, action->request);
	if (!asker)
		return;
	asker->wish = action->wish;
	if (find_wish(driver, action->wish))
		return;
	struct wish *wish = calloc(1, sizeof(*wish));
	/* Without it the hand-off would run the wrong command line. */
	if (!wish)
		abort();
	*wish = (struct wish){.id = action->wish, .key = asker->key};
	TAILQ_INSERT_TAIL(&driver->wishes, wish, link);
}

/* ---- status ---- */

static const char *state_name(enum handoff_state state)
{
	switch (state) {
	case HANDOFF_NEW:
	case HANDOFF_STARTING:
	case HANDOFF_WAITING:
		return "starting";
	case HANDOFF_RUNNING:
		return "running";
	case HANDOFF_REPLACING:
	case HANDOFF_EMPTYING:
		return "handing-off";
	case HANDOFF_STOPPING:
	case HANDOFF_KILLING:
	case HANDOFF_DONE:
	case HANDOFF_STATES:
		break;
	}
	return "stopping";
}

static const char *generation_state_name(enum handoff_generation_state state)
{
	static const char *const names[GENERATION_STATES] = {[GENERATION_STARTING] = "starting",
							     [GENERATION_SETTLING] = "settling",
							     [GENERATION_ACTIVE] = "active",
							     [GENERATION_DRAINING] = "draining",
							     [GENERATION_FAILING] = "failing"};
	return names[state];
}

static int64_t wall_clock(int64_t monotonic_ms)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000 - (loop_now_ms() - monotonic_ms);
}

/* The parts of a snapshot that live on the heap. */
struct snapshot {
	struct status status;
	struct status_listener *listeners;
	struct status_generation *generations;
	pid_t *pids;
};

static void snapshot_finish(struct snapshot *snapshot)
{
	free(snapshot->listeners);
	free(snapshot->generations);
	free(snapshot->pids);
}

static void fill_generation(struct status_generation *out, struct generation *generation, const char *state,
			    pid_t *pids)
{
	int64_t now = loop_now_ms();
	*out = (struct status_generation){
		.number = generation->number,
		.state = state,
		.pids = pids,
		.started_ms = wall_clock(generation->started_ms),
		.ready_ms = generation->ready_ms < 0 ? -1 : generation->ready_ms - generation->started_ms,
		.ready_by = generation->ready_by,
		.draining_ms = generation->draining_ms < 0 ? -1 : now - generation->draining_ms,
		.connections = generation->draining_ms < 0 ? -1 : driver_connections(generation),
	};
	for (size_t i = 0; i < generation->worker_count; i++)
		if (generation->workers[i]->child.pid != 0 && !generation->workers[i]->exited)
			pids[out->pid_count++] = generation->workers[i]->child.pid;
}

/* Newest first, as one reads it. */
static void fill_generations(struct driver *driver, struct snapshot *snapshot)
{
	struct generation *generation;
	pid_t *pids = snapshot->pids;
	TAILQ_FOREACH_REVERSE(generation, &driver->generations, generation_list, link)
	{
		const struct handoff_generation *known = handoff_find(&driver->machine, generation->number);
		if (!known || known->state == GENERATION_FAILING)
			continue;
		struct status_generation *out = &snapshot->generations[snapshot->status.generation_count++];
		fill_generation(out, generation, generation_state_name(known->state), pids);
		pids += out->pid_count;
	}
}

static int take_snapshot(struct driver *driver, struct snapshot *snapshot)
{
	size_t generations = 0, pids = 0;
	struct generation *generation;
	TAILQ_FOREACH (generation, &driver->generations, link) {
		generations++;
		pids += generation->worker_count;
	}
	const struct handoff_generation *starting = handoff_starting(&driver->machine);
	uint32_t shown = driver->machine.last_active;
	if (shown == 0 && starting)
		shown = starting->number;
	*snapshot = (struct snapshot){
		.status = {.name = driver->name,
			   .version = HANDOFF_VERSION,
			   .pid = getpid(),
			   .state = state_name(driver->machine.state),
			   .started_ms = wall_clock(driver->started_ms),
			   .generation = shown,
			   .command = driver_command(driver, NULL),
			   .command_from = driver->kept                        ? "reload"
					   : driver->options->command_is_files ? "config"
									       : "options",
			   .last_reload = {.generation = driver->last_reload.generation,
					   .result = driver->last_reload.result,
					   .reason = driver->last_reload.reason[0] ? driver->last_reload.reason : NULL,
					   .duration_ms = driver->last_reload.duration_ms},
			   .restarts = driver->restarts,
			   .handoffs = driver->handoffs,
			   .failed_handoffs = driver->failed_handoffs,
			   .next_restart_ms = loop_timer_left_ms(driver->restart_timer)},
		.listeners = calloc(driver->listeners->count + 1, sizeof(struct status_listener)),
		.generations = calloc(generations + 1, sizeof(struct status_generation)),
		.pids = calloc(pids + 1, sizeof(pid_t)),
	};
	if (!snapshot->listeners || !snapshot->generations || !snapshot->pids)
		return -ENOMEM;
	for (size_t i = 0; i < driver->listeners->count; i++) {
		const struct listener *listener = &driver->listeners->items[i];
		snapshot->listeners[i] = (struct status_listener){.name = driver->recipe->names[i],
								  .address = listener->address,
								  .type = listener->type,
								  .fd = COMMAND_FIRST_FD + (int)i,
								  .backlog = listener->backlog};
	}
	snapshot->status.listeners = snapshot->listeners;
	snapshot->status.listener_count = driver->listeners->count;
	snapshot->status.generations = snapshot->generations;
	fill_generations(driver, snapshot);
	return 0;
}

static cJSON *status_object(struct driver *driver)
{
	CLEANUP(snapshot_finish) struct snapshot snapshot;
	return take_snapshot(driver, &snapshot) < 0 ? NULL : status_json(&snapshot.status);
}

/* ---- requests ---- */

static void on_status(struct driver *driver, uint32_t request, const cJSON *message)
{
	const char *format = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(message, "format"));
	cJSON *result = new_result("ok", NULL);
	if (format && strcmp(format, "prometheus") == 0) {
		CLEANUP(snapshot_finish) struct snapshot snapshot;
		CLEANUP(freep)
		char *text = take_snapshot(driver, &snapshot) < 0 ? NULL : status_prometheus(&snapshot.status);
		cJSON_AddStringToObject(result, "text", text ? text : "");
	} else if (!format || strcmp(format, "json") == 0) {
		cJSON_AddItemToObject(result, "status", status_object(driver));
	} else {
		cJSON_Delete(result);
		control_result_error(driver->control, request, "\"format\" is \"json\" or \"prometheus\"");
		return;
	}
	control_result(driver->control, request, result);
}

static void on_subscribe(struct driver *driver, uint32_t request)
{
	cJSON *event = new_event("status", NULL);
	cJSON_AddItemToObject(event, "status", status_object(driver));
	control_subscribe(driver->control, request);
	control_event(driver->control, request, event);
}

static void wait_for_stop(struct driver *driver, uint32_t request)
{
	struct asker *asker = calloc(1, sizeof(*asker));
	if (!asker) {
		control_result_error(driver->control, request, "out of memory");
		return;
	}
	asker->request = request;
	TAILQ_INSERT_TAIL(&driver->stop_waiters, asker, link);
}

static void on_stop(struct driver *driver, uint32_t request, const cJSON *message)
{
	bool now = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(message, "now"));
	log_info("%s asked by the control socket", now ? "immediate stop" : "graceful stop");
	if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(message, "wait")))
		wait_for_stop(driver, request);
	else
		control_result(driver->control, request, new_result("ok", NULL));
	/* Unlike a second Ctrl-C, a second request for the same is no impatience. */
	if (now || !driver->machine.stop_asked)
		driver_post(driver, &(struct handoff_event){.kind = now ? HANDOFF_KILL : HANDOFF_STOP});
}

/* Why the request is no request, or NULL. */
static const char *reload_fault(const cJSON *argv, const cJSON *if_generation)
{
	const cJSON *word;
	if (if_generation && (!cJSON_IsNumber(if_generation) || if_generation->valuedouble < 1 ||
			      if_generation->valuedouble > UINT32_MAX ||
			      if_generation->valuedouble != (uint32_t)if_generation->valuedouble))
		return "\"if_generation\" is a number from 1";
	if (!argv)
		return NULL;
	if (!cJSON_IsArray(argv) || cJSON_GetArraySize(argv) == 0)
		return "\"argv\" is an array of strings, at least one";
	cJSON_ArrayForEach (word, argv)
		if (!cJSON_IsString(word))
			return "\"argv\" is an array of strings, at least one";
	return argv->child->valuestring[0] ? NULL : "the command in \"argv\" is empty";
}

static void on_reload(struct driver *driver, uint32_t request, const cJSON *message)
{
	const cJSON *argv = cJSON_GetObjectItemCaseSensitive(message, "argv");
	const cJSON *if_generation = cJSON_GetObjectItemCaseSensitive(message, "if_generation");
	const char *fault = reload_fault(argv, if_generation);
	struct command_line *command = fault || !argv ? NULL : intern_command(driver, argv);
	struct asker *asker = fault ? NULL : calloc(1, sizeof(*asker));
	if (!asker || (argv && !command)) {
		free(asker);
		control_result_error(driver->control, request, fault ? fault : "out of memory");
		return;
	}
	*asker = (struct asker){.request = request,
				.key = command ? command->key : 0,
				.asked_ms = loop_now_ms(),
				.wait = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(message, "wait"))};
	TAILQ_INSERT_TAIL(&driver->askers, asker, link);
	log_info("hand-off asked by the control socket%s%s", command ? " with the command " : "",
		 command ? command->argv[0] : "");
	driver_post(driver,
		    &(struct handoff_event){.kind = HANDOFF_RELOAD,
					    .request = request,
					    .key = asker->key,
					    .if_generation = if_generation ? (uint32_t)if_generation->valuedouble : 0});
	driver_pump(driver);
	asker = find_asker(driver, request);
	if (!asker)
		return;
	if (!asker->wait) {
		cJSON *result = new_result("accepted", NULL);
		add_number_or_null(result, "generation", active_number(driver));
		drop_asker(driver, asker);
		control_result(driver->control, request, result);
	} else if (asker->wish == driver->machine.waiting.id) {
		control_event(driver->control, request, new_event("waiting", NULL));
	}
}

void driver_on_request(void *data, uint32_t request, const cJSON *message)
{
	struct driver *driver = data;
	const char *command = cJSON_GetObjectItemCaseSensitive(message, "command")->valuestring;
	if (strcmp(command, "reload") == 0)
		on_reload(driver, request, message);
	else if (strcmp(command, "status") == 0)
		on_status(driver, request, message);
	else if (strcmp(command, "stop") == 0)
		on_stop(driver, request, message);
	else if (strcmp(command, "subscribe") == 0)
		on_subscribe(driver, request);
	else if (strcmp(command, "ping") == 0)
		control_result(driver->control, request, new_result("ok", NULL));
	else
		control_result_error(driver->control, request,
				     "the command is none of reload, status, stop, subscribe, ping");
	driver_pump(driver);
}

void driver_control_finish(struct driver *driver, int status)
{
	struct asker *asker;
	struct late_answer *late;
	while ((late = TAILQ_FIRST(&driver->late_answers)))
		send_late(late, NULL, 0);
	while ((asker = TAILQ_FIRST(&driver->stop_waiters))) {
		cJSON *result = new_result("ok", NULL);
		cJSON_AddBoolToObject(result, "forced", driver->machine.forced);
		cJSON_AddNumberToObject(result, "status", status);
		control_result(driver->control, asker->request, result);
		TAILQ_REMOVE(&driver->stop_waiters, asker, link);
		free(asker);
	}
	while ((asker = TAILQ_FIRST(&driver->askers)))
		drop_asker(driver, asker);
	control_destroy(driver->control);
	driver->kept = driver->kept_before = NULL;
	drop_unwanted_commands(driver);
}
