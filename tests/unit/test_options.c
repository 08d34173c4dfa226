/* SPDX-License-Identifier: MIT */
/* Tests of options*.c: the command line and its refusals. */
#include <signal.h>

#include "options.h"
#include "test.h"

#define WORDS_MAX 40

static char *words[WORDS_MAX + 2];

/* Copies a NULL-terminated list to an argv, as getopt_long wants it: not const. */
static int make_argv(const char *const *list)
{
	static char program[] = "handoff";
	int argc = 1;
	words[0] = program;
	for (; *list && argc <= WORDS_MAX; list++)
		words[argc++] = strdup(*list);
	words[argc] = NULL;
	return argc;
}

static void free_argv(int argc)
{
	for (int i = 1; i < argc; i++)
		free(words[i]);
}

/* What follows `parse` borrows words until `done`. */
static struct options options;
static int argument_count;

static void parse_list(const char *const *list)
{
	struct error error;
	argument_count = make_argv(list);
	if (options_parse(argument_count, words, &options, &error) < 0)
		test_fail("refused: %s", error.text);
}

static void done(void)
{
	options_finish(&options);
	free_argv(argument_count);
}

static void refuses_list(const char *part, const char *const *list)
{
	struct error error = {""};
	struct options untouched;
	memset(&options, 0x55, sizeof(options));
	untouched = options;
	int argc = make_argv(list);
	int code = options_parse(argc, words, &options, &error);
	free_argv(argc);
	if (code != -EINVAL)
		test_fail("%s was not refused (%d)", part, code);
	check(memcmp(&options, &untouched, sizeof(options)) == 0);
	check_contains(error.text, part);
	check(!strchr(error.text, '\n'));
}

#define parse(...) parse_list((const char *const[]){__VA_ARGS__, NULL})
#define refuses(part, ...) refuses_list(part, (const char *const[]){__VA_ARGS__, NULL})

/* ---- Words ---- */

static void test_options_defaults(void)
{
	parse("--", "./server");
	check_int(options.command_kind, COMMAND_RUN);
	check_str(options.command[0], "./server");
	check(!options.command[1]);
	check_int(options.listen_count, 0);
	check_int(options.ready_count, 1);
	check_int(options.readies[0].kind, READY_AUTO);
	check_int(options.ready_timeout_ms, 30000);
	check_int(options.settle_ms, 250);
	check_int(options.drain_signal, SIGINT);
	check_int(options.drain_to, DRAIN_TO_AUTO);
	check_int(options.drain_timeout_ms, DURATION_NONE);
	check_int(options.max_draining, 16);
	check_int(options.kill_timeout_ms, 8000);
	check_int(options.order, ORDER_START_FIRST);
	check_int(options.workers, 1);
	check(!options.rolling);
	check_int(options.compat, 0);
	check(!options.control.path && !options.config_path);
	check_int(options.control.mode, (mode_t)-1);
	check_int(options.control.gid, (gid_t)-1);
	check_int(options.restart, RESTART_ON_FAILURE);
	check_int(options.restart_delay_ms, 100);
	check_int(options.restart_delay_max_ms, 30000);
	check_int(options.max_restarts, 0);
	check(!options.name && !options.chdir && !options.pid_file && !options.user_name);
	check(!options.set_user && !options.set_group && !options.set_umask);
	check(!options.capture && !options.no_new_privs && !options.die_with_supervisor);
	check_int(options.rlimit_count + options.env.count + options.env_files.count + options.env_dirs.count, 0);
	check_int(options.notify_fd, -1);
	check_int(options.log_format, LOG_FORMAT_TEXT);
	check_int(options.log_level, LOG_LEVEL_INFO);
	done();
}

static void test_options_all_values_land(void)
{
	parse("run", "-l", ":80", "--listen=b=unix:/b", "-nweb", "--ready", "pipe", "--ready=delay:2s",
	      "--ready-timeout", "none", "--settle=0", "--drain-signal", "quit", "--drain-to=group",
	      "--drain-timeout=30s", "--max-draining=64", "--kill-timeout=none", "--restart=always", "x");
	check_int(options.listen_count, 2);
	check_int(options.listens[0].port, 80);
	check_str(options.listens[1].name, "b");
	check_str(options.name, "web");
	check_int(options.ready_count, 2);
	check_int(options.readies[1].delay_ms, 2000);
	check_int(options.ready_timeout_ms, DURATION_NONE);
	check_int(options.settle_ms, 0);
	check_int(options.drain_signal, SIGQUIT);
	check_int(options.drain_to, DRAIN_TO_GROUP);
	check_int(options.drain_timeout_ms, 30000);
	check_int(options.max_draining, 64);
	check_int(options.kill_timeout_ms, DURATION_NONE);
	check_int(options.restart, RESTART_ALWAYS);
	done();

	parse("--restart-delay=1s", "--restart-delay-max=1m", "--max-restarts=5", "--chdir=/", "--env=A=1", "--env",
	      "B=", "--env-file=f", "--env-dir=d", "--umask=027", "--rlimit=nofile=65536", "--rlimit",
	      "core=0:unlimited", "--no-new-privs", "--die-with-supervisor", "--notify-fd=4", "--pid-file=/run/p",
	      "--capture", "--log-format=json", "--log-level=debug", "--ready=exec:true", "x");
	check_int(options.restart_delay_ms, 1000);
	check_int(options.restart_delay_max_ms, 60000);
	check_int(options.max_restarts, 5);
	check_str(options.chdir, "/");
	check_int(options.env.count, 2);
	check_str(options.env.items[1], "B=");
	check(!options.env.items[2]);
	check_str(options.env_files.items[0], "f");
	check_str(options.env_dirs.items[0], "d");
	check(options.set_umask);
	check_int(options.umask, 027);
	check_int(options.rlimit_count, 2);
	check_int(options.rlimits[0].resource, RLIMIT_NOFILE);
	check_int(options.rlimits[0].limit.rlim_cur, 65536);
	check_int(options.rlimits[0].limit.rlim_max, 65536);
	check_int(options.rlimits[1].limit.rlim_cur, 0);
	check(options.rlimits[1].limit.rlim_max == RLIM_INFINITY);
	check(options.no_new_privs && options.die_with_supervisor && options.capture);
	check_int(options.notify_fd, 4);
	check_str(options.pid_file, "/run/p");
	check_int(options.log_format, LOG_FORMAT_JSON);
	check_int(options.log_level, LOG_LEVEL_DEBUG);
	check_str(options.readies[0].command, "true");
	done();

	parse("--workers=256", "--rolling", "--compat=server-starter,einhorn", "--compat=no-listen-pid,einhorn",
	      "--control=/run/c?mode=0660&group=0", "x");
	check_int(options.workers, 256);
	check(options.rolling);
	check_int(options.compat, COMPAT_SERVER_STARTER | COMPAT_EINHORN | COMPAT_NO_LISTEN_PID);
	check_str(options.control.path, "/run/c");
	check_int(options.control.mode, 0660);
	check_int(options.control.gid, 0);
	done();
	parse("--order=stop-first", "--control=relative", "x");
	check_int(options.order, ORDER_STOP_FIRST);
	check_str(options.control.path, "relative");
	check_int(options.control.mode, (mode_t)-1);
	done();
}

/* What a config file that is read later must not overrule. */
static void test_options_given_ones_are_remembered(void)
{
	parse("-l:80", "--rolling", "--listen=:81", "x");
	check_int(options.given_count, 3);
	check_str(options_long_names()[options.given[0].row], "listen");
	check_str(options.given[0].value, ":80");
	check_str(options_long_names()[options.given[1].row], "rolling");
	check(!options.given[1].value);
	check_str(options.given[2].value, ":81");
	done();
}

static void test_options_forked_server_listens_for_its_signal(void)
{
	parse("--compat=forked-server", "x");
	check_int(options.ready_count, 1);
	check_int(options.readies[0].kind, READY_SIGNAL);
	done();
	parse("--compat=forked-server", "--ready=pipe", "x");
	check_int(options.ready_count, 2);
	check_int(options.readies[0].kind, READY_PIPE);
	check_int(options.readies[1].kind, READY_SIGNAL);
	done();
	parse("--ready=signal", "--ready=pipe", "--compat=forked-server", "x");
	check_int(options.ready_count, 2);
	done();
	parse("--compat=einhorn", "--ready=pipe", "x");
	check_int(options.ready_count, 1);
	done();
}

static void test_options_command_words(void)
{
	parse("run", "server");
	check_str(options.command[0], "server");
	done();
	parse("check");
	check_int(options.command_kind, COMMAND_CHECK);
	check(!options.command);
	done();
	parse("check", "-l", ":80", "--", "server");
	check_int(options.command_kind, COMMAND_CHECK);
	check_str(options.command[0], "server");
	done();
	static const char *const helps[] = {"help", "--help", "-h"}, *const versions[] = {"version", "--version", "-V"};
	for (size_t i = 0; i < 3; i++) {
		parse(helps[i]);
		check_int(options.command_kind, COMMAND_HELP);
		done();
		parse(versions[i]);
		check_int(options.command_kind, COMMAND_VERSION);
		done();
	}
	parse("run", "--env", "A=1", "--help");
	check_int(options.command_kind, COMMAND_HELP);
	check_int(options.env.count, 0);
	done();
}

/* main gives them to the client side before it asks here. */
static void test_options_client_words_are_not_run(void)
{
	static const char *const clients[] = {"reload", "status", "stop", "list", "completion"};
	for (size_t i = 0; i < ARRAY_SIZE(clients); i++) {
		refuses("starts no supervisor", clients[i]);
		refuses("starts no supervisor", clients[i], "--wait", "web");
		refuses("comes before the options", "-l", ":80", clients[i]);
		parse("--", clients[i]);
		check_str(options.command[0], clients[i]);
		done();
		parse("run", clients[i]);
		check_str(options.command[0], clients[i]);
		done();
	}
	refuses("comes before the options", "-l", ":80", "check");
	parse("-l", ":80", "--", "check");
	done();
}

static void test_options_end_at_the_command(void)
{
	parse("-l", ":80", "server", "--listen", "--bogus", "-l", "--", "x");
	check_int(options.listen_count, 1);
	check_str(options.command[0], "server");
	check_str(options.command[1], "--listen");
	check_str(options.command[4], "--");
	check_str(options.command[5], "x");
	check(!options.command[6]);
	done();
	parse("--", "--server");
	check_str(options.command[0], "--server");
	done();
	parse("run", "--", "--", "x");
	check_str(options.command[0], "--");
	done();
	refuses("the command to run is missing", "run");
	refuses("the command to run is missing", "-l", ":80");
	refuses("the command to run is missing", "-l", ":80", "--");
	refuses("empty word", "--", "");
	refuses_list("the command to run is missing", (const char *const[]){NULL});
}

static void test_options_name(void)
{
	parse("--", "/usr/bin/server");
	check_str(options_name(&options), "server");
	done();
	parse("--", "bin/");
	check_str(options_name(&options), "bin/");
	done();
	parse("check");
	check_str(options_name(&options), "handoff");
	done();
	parse("--name", "my-app@1.x", "--", "server");
	check_str(options_name(&options), "my-app@1.x");
	done();
	refuses("--name \"a/b\"", "--name=a/b", "x");
	refuses("--name \"..\"", "--name=..", "x");
	refuses("--name \"a b\"", "--name", "a b", "x");
	refuses("--name", "--name=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "x");
}

/* ---- Refusals ---- */

static void test_options_unknown_ones_name_the_closest(void)
{
	refuses("unknown option --lisen; did you mean --listen?", "--lisen", ":80", "x");
	refuses("unknown option --lisen; did you mean --listen?", "--lisen=:80", "x");
	refuses("unknown option --list; did you mean --listen?", "--list", ":80", "x");
	refuses("unknown option --drain-time; did you mean --drain-timeout?", "--drain-time=1s", "x");
	refuses("unknown option --bananas; handoff --help", "--bananas", "x");
	refuses("unknown option -listen; write --listen", "-listen", ":80", "x");
	refuses("unknown option ---listen; write --listen", "---listen", ":80", "x");
	refuses("unknown option -z; handoff --help", "-z", "x");
	refuses("unknown option --\\x1b[31m", "--\033[31m", "x");
	refuses("unknown option --conf; did you mean --config?", "--conf", "f", "x");
}

static void test_options_values_missing_or_too_many(void)
{
	refuses("--listen needs a value: --listen SPEC", "--listen");
	refuses("--listen needs a value: --listen SPEC", "-l");
	refuses("--pid-file needs a value, but the next word is --capture", "--pid-file", "--capture", "x");
	refuses("--chdir needs a value, but the next word is --", "--chdir", "--", "x");
	refuses("--pid-file needs a value, but the next word is -l", "--pid-file", "-l", ":80", "x");
	refuses("--chdir \"\": the value is empty", "--chdir=", "x");
	refuses("--chdir \"\": the value is empty", "--chdir", "", "x");
	refuses("--capture takes no value", "--capture=yes", "x");
	refuses("--settle \"2s\": --settle was given before", "--settle=1s", "--settle=2s", "x");
	refuses("--name \"b\": --name was given before", "-na", "--name=b", "x");
	parse("--capture", "--capture", "--pid-file=--capture", "x");
	check_str(options.pid_file, "--capture");
	done();
}

static void test_options_wrong_values_name_option_and_value(void)
{
	refuses("--listen \":99999\": the port", "-l", ":99999", "x");
	refuses("--ready", "--ready=soon", "x");
	refuses("--ready \"listen\": comes with adoption", "--ready=listen", "x");
	refuses("--ready-timeout \"0\": nothing can be ready in no time", "--ready-timeout=0", "x");
	refuses("--settle \"none\": ", "--settle=none", "x");
	refuses("--settle \"5\": a number alone", "--settle=5", "x");
	refuses("--drain-signal \"TREM\"", "--drain-signal=TREM", "x");
	refuses("--drain-signal \"STOP\": would freeze", "--drain-signal=STOP", "x");
	refuses("--drain-signal \"CHLD\": a server does not", "--drain-signal=CHLD", "x");
	refuses("--drain-to \"all\": must be auto, main or group", "--drain-to=all", "x");
	refuses("--max-draining \"0\": must be a whole number from 1 to 64", "--max-draining=0", "x");
	refuses("--max-draining \"65\"", "--max-draining=65", "x");
	refuses("--workers \"0\": must be a whole number from 1 to 256", "--workers=0", "x");
	refuses("--workers \"257\": must be", "--workers=257", "x");
	refuses("--order \"stop\": must be start-first or stop-first; did you mean stop-first?", "--order=stop", "x");
	refuses("--compat \"unicorn\": must be server-starter, einhorn", "--compat=einhorn,unicorn", "x");
	refuses("--compat \"\": must be", "--compat=einhorn,", "x");
	refuses("--control \"/c?mode\": \"mode\" is neither", "--control=/c?mode", "x");
	refuses("--control \"?mode=0600\": the path is missing", "--control=?mode=0600", "x");
	refuses("--restart \"onfailure\": must be always, on-failure or never; did you mean on-failure?",
		"--restart=onfailure", "x");
	refuses("--restart-delay \"0\": must be at least 1ms", "--restart-delay=0", "x");
	refuses("--restart-delay \"none\": ", "--restart-delay=none", "x");
	refuses("--restart-delay-max \"none\": ", "--restart-delay-max=none", "x");
	refuses("--max-restarts \"-1\": must be", "--max-restarts=-1", "x");
	refuses("--env", "--env=A", "x");
	refuses("--env", "--env=LISTEN_FDS=3", "x");
	refuses("--umask \"1777\": must be from 0000 to 0777", "--umask=1777", "x");
	refuses("--notify-fd \"2\": must be", "--notify-fd=2", "x");
	refuses("--log-level \"warn\": must be error, warning, info or debug; did you mean warning?",
		"--log-level=warn", "x");
	refuses("--log-format \"xml\": must be text or json", "--log-format=xml", "x");
}

static void test_options_rlimits(void)
{
	refuses("--rlimit \"nofile\": must be NAME=N", "--rlimit=nofile", "x");
	refuses("--rlimit \"nofiles\": must be as, core", "--rlimit=nofiles=1", "x");
	refuses("did you mean nofile?", "--rlimit=nofiles=1", "x");
	refuses("--rlimit \"lots\": a limit must be", "--rlimit=nofile=lots", "x");
	refuses("--rlimit \"\": a limit must be", "--rlimit=nofile=1:", "x");
	refuses("--rlimit \"1:2\": a limit must be", "--rlimit=nofile=1:1:2", "x");
	refuses("soft limit is above", "--rlimit=nofile=2:1", "x");
	refuses("soft limit is above", "--rlimit=nofile=unlimited:1", "x");
	refuses("was given before", "--rlimit=nofile=1", "--rlimit=nofile=2", "x");
	parse("--rlimit=as=unlimited", "--rlimit=stack=1:2", "x");
	check_int(options.rlimits[0].resource, RLIMIT_AS);
	check(options.rlimits[0].limit.rlim_cur == RLIM_INFINITY);
	check_int(options.rlimits[1].resource, RLIMIT_STACK);
	done();
}

static void test_options_what_excludes_each_other(void)
{
	refuses("--restart-delay-max is 50ms, below --restart-delay, which is 100ms", "--restart-delay-max=50ms", "x");
	refuses("below --restart-delay", "--restart-delay-max=1s", "--restart-delay=2s", "x");
	refuses("--rolling starts a new worker before", "--rolling", "--order=stop-first", "x");
	/* A long delay alone raises the maximum that nobody set. */
	parse("--restart-delay=1m", "x");
	check_int(options.restart_delay_max_ms, 60000);
	done();
	refuses("--notify-fd \"5\": --listen fd:5", "--notify-fd=5", "-lfd:5", "x");
	refuses("--ready \"accepting\": needs a --listen", "--ready=accepting", "x");
	refuses("--ready \"accepting\": needs a --listen", "--ready=accepting", "-ludp::53", "x");
	parse("--ready=accepting", "-ludp::53", "-l:80", "x");
	done();
}

/* ---- Signals ---- */

static void check_action(int signal, enum signal_action action)
{
	check_int(options.signals[signal].action, action);
	check(!options.signals[signal].explicit_rule);
}

static void test_options_signals_by_default(void)
{
	static const int ignored[] = {SIGUSR2, SIGWINCH, SIGALRM,   SIGPIPE, SIGIO,     SIGPWR,
				      SIGXCPU, SIGXFSZ,  SIGVTALRM, SIGPROF, SIGSTKFLT, 0};
	static const int unused[] = {SIGKILL, SIGSTOP, SIGCHLD, SIGTSTP, SIGTTIN, SIGTTOU, SIGCONT, SIGSEGV,
				     SIGBUS,  SIGFPE,  SIGILL,  SIGABRT, SIGSYS,  SIGTRAP, SIGURG,  0};
	parse("x");
	check_action(SIGINT, SIGNAL_ACTION_STOP);
	check_action(SIGTERM, SIGNAL_ACTION_KILL);
	check_action(SIGQUIT, SIGNAL_ACTION_QUIT);
	check_action(SIGUSR1, SIGNAL_ACTION_RELOAD);
	check_action(SIGHUP, SIGNAL_ACTION_HANGUP);
	size_t count = 5;
	for (const int *signal = ignored; *signal; signal++, count++)
		check_action(*signal, SIGNAL_ACTION_IGNORE);
	for (int signal = SIGRTMIN; signal <= SIGRTMAX; signal++, count++)
		check_action(signal, SIGNAL_ACTION_IGNORE);
	for (const int *signal = unused; *signal; signal++, count++)
		check_action(*signal, SIGNAL_ACTION_UNUSED);
	/* Nothing is forgotten: these are all that the C library lets a program use. */
	check_int(count, 31 + SIGRTMAX - SIGRTMIN + 1);
	done();
}

static void test_options_signals_by_rule(void)
{
	parse("--signal=TERM=stop", "--signal", "SIGUSR2=forward", "--signal=RTMIN+1=forward:HUP",
	      "--signal=HUP=reload", "--signal=QUIT=ignore", "--signal=TSTP=kill", "x");
	check_int(options.signals[SIGTERM].action, SIGNAL_ACTION_STOP);
	check(options.signals[SIGTERM].explicit_rule);
	check_int(options.signals[SIGUSR2].action, SIGNAL_ACTION_FORWARD);
	check_int(options.signals[SIGUSR2].forward_to, 0);
	check_int(options.signals[SIGRTMIN + 1].action, SIGNAL_ACTION_FORWARD);
	check_int(options.signals[SIGRTMIN + 1].forward_to, SIGHUP);
	check_int(options.signals[SIGHUP].action, SIGNAL_ACTION_RELOAD);
	check_int(options.signals[SIGQUIT].action, SIGNAL_ACTION_IGNORE);
	check_int(options.signals[SIGTSTP].action, SIGNAL_ACTION_KILL);
	check_action(SIGINT, SIGNAL_ACTION_STOP);
	done();
	refuses("--signal \"TERM\": must be SIG=ACTION", "--signal=TERM", "x");
	refuses("--signal \"TREM\": there is no such signal; did you mean TERM?", "--signal=TREM=stop", "x");
	refuses("--signal \"restart\": the action must be reload, stop", "--signal=TERM=restart", "x");
	refuses("--signal \"FOO\"", "--signal=TERM=forward:FOO", "x");
	refuses("--signal \"KILL=stop\": the kernel lets nobody catch", "--signal=KILL=stop", "x");
	refuses("--signal \"STOP=stop\"", "--signal=STOP=stop", "x");
	refuses("--signal \"CHLD=ignore\": that signal says", "--signal=CHLD=ignore", "x");
	static const char *const faults[] = {"SEGV=stop", "BUS=stop", "FPE=stop", "ILL=stop",
					     "ABRT=stop", "SYS=stop", "TRAP=stop"};
	for (size_t i = 0; i < ARRAY_SIZE(faults); i++)
		refuses("a fault of the program", "--signal", faults[i], "x");
	refuses("was given an action before", "--signal=TERM=stop", "--signal=15=kill", "x");
}

/* ---- Users ---- */

static void test_options_user_as_root(void)
{
	if (geteuid() != 0)
		return;
	parse("--user=root", "x");
	check(options.set_user && !options.set_group);
	check_int(options.uid, 0);
	check_int(options.gid, 0);
	check_str(options.user_name, "root");
	done();
	parse("--group=12345", "--user=3999999999", "x");
	check(options.set_user && options.set_group);
	check_int(options.uid, 3999999999);
	check_int(options.gid, 12345);
	check(!options.user_name);
	done();
	parse("--user=root", "--group=12345", "x");
	check_int(options.gid, 12345);
	done();
	parse("--group=12345", "x");
	check(!options.set_user && options.set_group);
	done();
	refuses("--user \"3999999999\": is not in the user database", "--user=3999999999", "x");
	refuses("--user \"nobody:nogroup\"", "--user=nobody:nogroup", "x");
}

/* In a child, since the way back to root is closed for the whole process. */
static void test_options_user_without_root(void)
{
	pid_t pid = fork();
	check(pid >= 0);
	if (pid == 0) {
		char own[16], own_group[16];
		if (geteuid() == 0 && (setgid(65534) < 0 || setuid(65534) < 0))
			test_fail("cannot become nobody: %s", strerror(errno));
		snprintf(own, sizeof(own), "%u", geteuid());
		snprintf(own_group, sizeof(own_group), "%u", getegid());
		refuses("--user \"root\": only root may", "--user=root", "x");
		refuses("--group \"root\": only root may", "--group=root", "x");
		parse("--user", own, "--group", own_group, "x");
		check(!options.set_user && !options.set_group);
		check_int(options.uid, geteuid());
		done();
		_exit(0);
	}
	int status;
	check_int(waitpid(pid, &status, 0), pid);
	check(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

TEST_MAIN(TEST(test_options_defaults), TEST(test_options_all_values_land), TEST(test_options_command_words),
	  TEST(test_options_given_ones_are_remembered), TEST(test_options_forked_server_listens_for_its_signal),
	  TEST(test_options_client_words_are_not_run), TEST(test_options_end_at_the_command), TEST(test_options_name),
	  TEST(test_options_unknown_ones_name_the_closest), TEST(test_options_values_missing_or_too_many),
	  TEST(test_options_wrong_values_name_option_and_value), TEST(test_options_rlimits),
	  TEST(test_options_what_excludes_each_other), TEST(test_options_signals_by_default),
	  TEST(test_options_signals_by_rule), TEST(test_options_user_as_root), TEST(test_options_user_without_root))
