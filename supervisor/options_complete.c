/* SPDX-License-Identifier: MIT */
/* The ends of a struct options: defaults, what must hold between options, what differs between two, and its release. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include <bsd/stdlib.h>

#include "command.h"
#include "options_private.h"

#define RESTART_DELAY_MAX_DEFAULT_MS 30000

static void default_signals(struct signal_rule *signals)
{
	/* Everything that a process outside, a limit or a timer may send, and that would end us by default. What is
	 * left out is never ours to catch (KILL, STOP), is waited for in another way (CHLD), reports a fault (SEGV,
	 * BUS, FPE, ILL, ABRT, SYS, TRAP), does no harm (URG), or is job control (TSTP, TTIN, TTOU, CONT). */
	static const int ignored[] = {
		SIGUSR2,   SIGWINCH, SIGALRM, SIGPIPE, SIGIO, SIGPWR, SIGXCPU, SIGVTALRM, SIGPROF, SIGXFSZ,
#ifdef SIGSTKFLT
		SIGSTKFLT,
#endif
	};
	for (size_t i = 0; i < ARRAY_SIZE(ignored); i++)
		signals[ignored[i]].action = SIGNAL_ACTION_IGNORE;
	for (int signal = SIGRTMIN; signal <= SIGRTMAX; signal++)
		signals[signal].action = SIGNAL_ACTION_IGNORE;
	signals[SIGUSR1].action = SIGNAL_ACTION_RELOAD;
	signals[SIGHUP].action = SIGNAL_ACTION_HANGUP;
	signals[SIGINT].action = SIGNAL_ACTION_STOP;
	signals[SIGTERM].action = SIGNAL_ACTION_KILL;
	signals[SIGQUIT].action = SIGNAL_ACTION_QUIT;
}

void options_set_defaults(struct options *options)
{
	*options = (struct options){
		.ready_timeout_ms = 30000,
		.settle_ms = 250,
		.drain_signal = SIGINT,
		.drain_to = DRAIN_TO_AUTO,
		.drain_timeout_ms = DURATION_NONE,
		.max_draining = 16,
		.kill_timeout_ms = 8000,
		.order = ORDER_START_FIRST,
		.workers = 1,
		.restart = RESTART_ON_FAILURE,
		.restart_delay_ms = 100,
		.restart_delay_max_ms = 0, /* not given: see check_restart_delays */
		.uid = (uid_t)-1,
		.gid = (gid_t)-1,
		.control = {.mode = (mode_t)-1, .gid = (gid_t)-1},
		.notify_fd = -1,
		.log_format = LOG_FORMAT_TEXT,
		.log_level = LOG_LEVEL_INFO,
	};
	default_signals(options->signals);
}

/* A server that speaks the protocol of fork and signal says that it is ready by a signal to its parent. Where that is
 * not listened for, the signal would be an order to us to stop; so it is, whatever else was asked for. */
static int default_ready(struct options *options, struct error *error)
{
	bool by_signal = options->compat & COMPAT_FORKED_SERVER;
	for (size_t i = 0; i < options->ready_count; i++)
		by_signal = by_signal && options->readies[i].kind != READY_SIGNAL;
	if (options->ready_count > 0 && !by_signal)
		return 0;
	struct ready_how *readies = reallocarray(options->readies, options->ready_count + 1, sizeof(*readies));
	if (!readies)
		return error_set(error, -ENOMEM, "out of memory");
	readies[options->ready_count++] = (struct ready_how){.kind = by_signal ? READY_SIGNAL : READY_AUTO};
	options->readies = readies;
	return 0;
}

static int check_restart_delays(struct options *options, struct error *error)
{
	/* Not given, it is never below the delay: who sets only a long --restart-delay means just that. */
	if (options->restart_delay_max_ms == 0)
		options->restart_delay_max_ms = options->restart_delay_ms > RESTART_DELAY_MAX_DEFAULT_MS
							? options->restart_delay_ms
							: RESTART_DELAY_MAX_DEFAULT_MS;
	if (options->restart_delay_max_ms < options->restart_delay_ms)
		return error_set(error, -EINVAL,
				 "--restart-delay-max is %lldms, below --restart-delay, which is %lldms",
				 (long long)options->restart_delay_max_ms, (long long)options->restart_delay_ms);
	return 0;
}

static int check_ready(const struct options *options, struct error *error)
{
	bool stream = false;
	for (size_t i = 0; i < options->listen_count; i++)
		stream |= options->listens[i].type != LISTEN_UDP && options->listens[i].type != LISTEN_UNIXGRAM;
	for (size_t i = 0; i < options->ready_count; i++) {
		if (options->readies[i].kind == READY_LISTEN)
			return error_set(error, -EINVAL,
					 "--ready \"listen\": comes with adoption, which this version lacks");
		if (options->readies[i].kind == READY_ACCEPTING && !stream)
			return error_set(error, -EINVAL,
					 "--ready \"accepting\": needs a --listen that connections can be accepted on");
	}
	return 0;
}

int options_complete(struct options *options, struct error *error)
{
	int code = default_ready(options, error);
	if (code == 0)
		code = check_restart_delays(options, error);
	if (code == 0)
		code = check_ready(options, error);
	if (code < 0)
		return code;
	if (options->rolling && options->order == ORDER_STOP_FIRST)
		return error_set(
			error, -EINVAL,
			"--rolling starts a new worker before an old one drains, which --order stop-first rules "
			"out");

	for (size_t i = 0; i < options->listen_count; i++) {
		const struct listen_spec *spec = &options->listens[i];
		if (spec->type == LISTEN_FD && spec->fd == options->notify_fd)
			return error_set(error, -EINVAL, "--notify-fd \"%d\": --listen %s names the same descriptor",
					 options->notify_fd, spec->text);
	}
	/* Left alone, the server would run with our own group, which is root's. */
	if (options->set_user && options->gid == (gid_t)-1)
		return error_set(error, -EINVAL,
				 "--user \"%lu\": is not in the user database, so its group is needed: add --group",
				 (unsigned long)options->uid);
	return 0;
}

int options_fixed_difference(const struct options *old_options, const struct options *new_options, struct error *error)
{
	for (size_t i = 0; i < options_table_count; i++) {
		const struct option_row *row = &options_table[i];
		if (row->fixed && !option_row_same(row, old_options, new_options)) {
			error_set(error, 0, "%s was changed, which takes effect only at the next start", row->option);
			return 1;
		}
	}
	return 0;
}

static void string_list_finish(struct string_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		free(list->items[i]);
	free(list->items);
}

void options_finish(struct options *options)
{
	for (size_t i = 0; i < options->listen_count; i++)
		listen_spec_finish(&options->listens[i]);
	for (size_t i = 0; i < options->ready_count; i++)
		ready_how_finish(&options->readies[i]);
	if (options->command_is_files)
		command_free(options->command);
	free(options->config_path);
	free(options->given);
	free(options->listens);
	free(options->readies);
	free(options->name);
	free(options->chdir);
	string_list_finish(&options->env);
	string_list_finish(&options->env_files);
	string_list_finish(&options->env_dirs);
	free(options->user_name);
	free(options->rlimits);
	control_option_finish(&options->control);
	free(options->pid_file);
	memset(options, 0, sizeof(*options));
}
