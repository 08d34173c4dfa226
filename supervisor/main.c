/* SPDX-License-Identifier: MIT */
/* handoff: parse, init, run, unwind; the only place that decides an exit status. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bsd/unistd.h>

#include "check.h"
#include "ctl.h"
#include "driver.h"
#include "fd.h"
#include "listener.h"
#include "log.h"
#include "notify.h"
#include "options.h"
#include "pidfile.h"
#include "recipe.h"

/* Our own start-up error (docs/handoff.1). */
#define EXIT_STARTUP 125

static int fail(const struct error *error)
{
	log_error("%s", error->text);
	return EXIT_STARTUP;
}

static int print(const char *text, bool stdout_open)
{
	/* A full disk or a closed descriptor must not look like success to a script. */
	if (!stdout_open)
		errno = EBADF;
	if (!stdout_open || fputs(text, stdout) == EOF || fflush(stdout) == EOF) {
		log_error("cannot write to standard output: %s", strerror(errno));
		return EXIT_STARTUP;
	}
	return 0;
}

/* Without a control socket a server can still be served; one that was asked for by path or name must be there. */
static int take_place(const struct options *options, struct control_place *place, struct error *error)
{
	/* Under another supervisor of ours the one that we replace still has the name, and goes when we are ready. */
	bool fixed_name = options->name && !getenv("HANDOFF_GENERATION");
	int r = control_place_take(&options->control, options_name(options), fixed_name, place, error);
	if (r < 0 && (options->control.path || r == -EADDRINUSE))
		return r;
	if (r < 0)
		log_warning("no control socket: %s", error->text);
	else
		log_set_name(place->name);
	error->text[0] = '\0';
	return 0;
}

/* Whoever passed it keeps it open, so that its clients would wait in the queue without a word. */
static void warn_untaken(const struct listener_inherited *inherited, const struct listener_set *listeners)
{
	for (int i = 0; i < inherited->count; i++) {
		bool taken = false;
		for (size_t j = 0; j < listeners->count && !taken; j++)
			taken = listeners->items[j].fd == i + 3;
		if (!taken)
			log_warning("descriptor %d (%s) was passed to us by LISTEN_FDS, but no -l takes it: nobody "
				    "serves it",
				    i + 3, inherited->names ? inherited->names[i] : "unknown");
	}
}

/* What must exist before anything is started, in the order in which it is undone. */
static int run_supervised(const struct options *options, const struct listener_inherited *inherited)
{
	struct error error = {.text = ""};
	struct pidfile pidfile = {.fd = -1};
	struct recipe *recipe = NULL;
	struct notify notify = {.fd = -1, .newline_fd = -1};
	struct control_place place = {.lock_fd = -1};
	int r = take_place(options, &place, &error);
	if (r >= 0 && options->pid_file)
		r = pidfile_create(&pidfile, options->pid_file, &error);
	if (r >= 0)
		r = recipe_open(options, inherited, &recipe, &error);
	if (r >= 0)
		warn_untaken(inherited, &recipe->listeners);
	if (r >= 0 && notify_init(&notify, options->notify_fd, &error) == -EBADF)
		r = -EBADF;
	else if (r >= 0 && error.text[0] != '\0')
		log_warning("%s", error.text);
	if (r >= 0) {
		const struct driver_setup setup = {.recipe = recipe,
						   .notify = &notify,
						   .place = place.path ? &place : NULL,
						   .environment = environ};
		r = driver_run(&setup, &error);
		recipe = NULL;
	}
	notify_finish(&notify);
	recipe_destroy(recipe);
	if (options->pid_file)
		pidfile_finish(&pidfile);
	control_place_release(&place);
	return r < 0 ? fail(&error) : r;
}

static int run(struct options *options)
{
	struct error error = {.text = ""};
	struct listener_inherited inherited = {.count = 0};
	if (driver_block_signals(options, &error) < 0 || listener_inherit(&inherited, &error) < 0)
		return fail(&error);
	int status = run_supervised(options, &inherited);
	listener_inherited_finish(&inherited);
	return status;
}

static int check(const struct options *options)
{
	struct error error = {.text = ""};
	struct listener_inherited inherited = {.count = 0};
	int r = listener_inherit(&inherited, &error);
	if (r >= 0)
		r = check_options(options, &inherited, &error);
	listener_inherited_finish(&inherited);
	return r < 0 ? fail(&error) : 0;
}

int main(int argc, char **argv)
{
	struct options options;
	struct error error = {.text = ""};
	int status = EXIT_STARTUP;

	/* First of all: a hand-off that is asked while we parse waits, instead of killing us. */
	sigset_t all, before;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	bool stdout_open = fcntl(STDOUT_FILENO, F_GETFD) >= 0;
	if (fd_guard_stdio() < 0)
		return EXIT_STARTUP;
	setproctitle_init(argc, argv, environ);
	if (argc > 1 && ctl_is_command(argv[1])) {
		sigprocmask(SIG_SETMASK, &before, NULL);
		return ctl_main(argc, argv);
	}
	if (options_parse(argc, argv, &options, &error) < 0)
		return fail(&error);
	log_init(options.log_format, options.log_level, options_name(&options));
	if (options.command_kind != COMMAND_RUN)
		sigprocmask(SIG_SETMASK, &before, NULL);
	switch (options.command_kind) {
	case COMMAND_RUN:
		status = run(&options);
		break;
	case COMMAND_CHECK:
		status = check(&options);
		break;
	case COMMAND_HELP:
		status = print(options_help(), stdout_open);
		break;
	case COMMAND_VERSION:
		status = print("handoff " HANDOFF_VERSION "\n", stdout_open);
		break;
	}
	options_finish(&options);
	return status;
}
