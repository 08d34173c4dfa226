/* SPDX-License-Identifier: MIT */
/* The command line of ts, and where its listeners come from. */
#include "ts.h"

#include <bsd/stdlib.h>
#include <bsd/string.h>
#include <err.h>
#include <getopt.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static const char usage_text[] =
	"Usage: ts [OPTIONS]\n"
	"Listeners: LISTEN_FDS from 3 on, and:\n"
	"  --fd N                    an inherited descriptor (repeatable)\n"
	"  --bind ADDR:PORT|unix:P   bind it here (repeatable); the address is printed on stderr\n"
	"  --strict-pid              take LISTEN_FDS only where LISTEN_PID is our pid\n"
	"  --set-nonblock            set O_NONBLOCK on the listeners\n"
	"  --mode epoll|poll|select|threads\n"
	"Requests: / (gen=N pid=P fd=F), /sleep?ms=N, /env?NAME, /environ, /cwd,\n"
	"  /born (descriptors and signal state at start), /proc?FILE (of /proc/self)\n"
	"Readiness:\n"
	"  --ready pipe|notify|none|signal[:USR1]\n"
	"  --slow-boot MS            not ready before\n"
	"  --never-ready             neither ready nor serving; ends on the drain signals\n"
	"  --ready-then-garbage      noise after the word\n"
	"  --ready-bytes N           N bytes without a newline on the pipe, and no word\n"
	"  --ready-late-byte-by-byte[=MS]  \"slow\" and a newline, a byte every MS (100)\n"
	"Signals (INT and TERM drain):\n"
	"  --ignore-int, --ignore-term\n"
	"  --term-exits              TERM ends it at once, with 143\n"
	"  --count-int FILE          a line for each INT received\n"
	"Misbehaviour:\n"
	"  --exit-at-once[=STATUS]   (1)\n"
	"  --exit-after-ready MS[:STATUS]  (1), whatever is in flight\n"
	"  --crash-on-start SIG      die of this signal at once\n"
	"  --stop-self               SIGSTOP itself before it is ready\n"
	"  --close-fds               close all above 2, then stay\n"
	"  --leave-helper[=stubborn] fork a helper that stays, in the same group (stubborn: ignores INT and TERM)\n"
	"  --leave-daemon            fork a helper that stays, in its own session\n"
	"  --background              go on in a child of its own session; the first process exits 0\n"
	"  --unlink-path             unlink the listeners' unix paths on exit\n"
	"  --cpu-us N                burn as much for each request\n";

static char *binds[TS_LISTENERS_MAX];
static size_t bind_count;

static int signal_by_name(const char *name)
{
	for (int signo = 1; signo < NSIG; signo++)
		if (sigabbrev_np(signo) && strcmp(sigabbrev_np(signo), name) == 0)
			return signo;
	errx(2, "unknown signal \"%s\"", name);
}

static void add_listener(int fd)
{
	if (ts.listeners == TS_LISTENERS_MAX)
		errx(2, "too many listeners");
	ts.listen_fds[ts.listeners++] = fd;
}

static void bind_unix(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strlcpy(address.sun_path, path, sizeof(address.sun_path));
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 4096) < 0)
		err(1, "cannot bind unix:%s", path);
	add_listener(fd);
	fprintf(stderr, "ts: listening on unix:%s\n", path);
}

static void bind_address(const char *text)
{
	struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE, .ai_socktype = SOCK_STREAM};
	char host[64], port[16], *colon;
	struct sockaddr_storage bound;
	socklen_t length = sizeof(bound);
	struct addrinfo *found;
	const int on = 1;

	if (strncmp(text, "unix:", 5) == 0) {
		bind_unix(text + 5);
		return;
	}
	strlcpy(host, text, sizeof(host));
	colon = strrchr(host, ':');
	if (!colon)
		errx(2, "--bind %s: no port", text);
	*colon = '\0';
	strlcpy(port, colon + 1, sizeof(port));
	char *name = host;
	if (host[0] == '[' && colon[-1] == ']') {
		colon[-1] = '\0';
		name++;
	}
	if (getaddrinfo(*name ? name : NULL, port, &hints, &found) != 0)
		errx(2, "--bind %s: not an address", text);
	int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, found->ai_addr, found->ai_addrlen) < 0 || listen(fd, 4096) < 0)
		err(1, "cannot bind %s", text);
	freeaddrinfo(found);
	getsockname(fd, (struct sockaddr *)&bound, &length);
	getnameinfo((struct sockaddr *)&bound, length, host, sizeof(host), port, sizeof(port),
		    NI_NUMERICHOST | NI_NUMERICSERV);
	add_listener(fd);
	fprintf(stderr, "ts: listening on %s:%s\n", host, port);
}

void ts_open_listeners(void)
{
	const char *count_text = getenv("LISTEN_FDS"), *pid_text = getenv("LISTEN_PID"), *problem = NULL;
	int count = count_text ? (int)strtonum(count_text, 0, TS_LISTENERS_MAX, &problem) : 0;

	if (problem)
		errx(2, "LISTEN_FDS is \"%s\": %s", count_text, problem);
	if (ts.strict_pid && count > 0 && (!pid_text || atoi(pid_text) != getpid())) {
		warnx("LISTEN_PID is %s, not %d", pid_text ? pid_text : "not set", (int)getpid());
		count = 0;
	}
	for (int i = 0; i < count; i++)
		add_listener(3 + i);
	for (size_t i = 0; i < bind_count; i++)
		bind_address(binds[i]);
	if (ts.listeners == 0)
		errx(2, "no listener: neither LISTEN_FDS nor --fd nor --bind");
}

enum option_code {
	OPT_FD = 256,
	OPT_BIND,
	OPT_MODE,
	OPT_READY,
	OPT_SLOW_BOOT,
	OPT_READY_BYTES,
	OPT_BYTE_BY_BYTE,
	OPT_COUNT_INT,
	OPT_EXIT_AT_ONCE,
	OPT_EXIT_AFTER,
	OPT_CRASH,
	OPT_HELPER,
	OPT_CPU,
	OPT_HELP,
	OPT_FLAG, /* and above: an index into flags[] */
};

static const struct {
	const char *name;
	bool *set;
} flags[] = {
	{"strict-pid", &ts.strict_pid},     {"set-nonblock", &ts.set_nonblock},
	{"never-ready", &ts.never_ready},   {"ignore-int", &ts.ignore_int},
	{"ignore-term", &ts.ignore_term},   {"term-exits", &ts.term_exits},
	{"stop-self", &ts.stop_self},       {"close-fds", &ts.close_fds},
	{"leave-daemon", &ts.leave_daemon}, {"background", &ts.background},
	{"unlink-path", &ts.unlink_path},   {"ready-then-garbage", &ts.ready_then_garbage},
};

static long long number(const char *option, const char *text, long long max)
{
	const char *problem;
	long long value = strtonum(text, 0, max, &problem);

	if (problem)
		errx(2, "--%s %s: %s", option, text, problem);
	return value;
}

static void set_mode(const char *text)
{
	static const char *const names[] = {"epoll", "poll", "select", "threads"};

	for (size_t i = 0; i < 4; i++)
		if (strcmp(text, names[i]) == 0) {
			ts.mode = (enum ts_mode)i;
			return;
		}
	errx(2, "--mode %s: unknown", text);
}

static void set_ready(const char *text)
{
	static const char *const names[] = {"pipe", "notify", "none", "signal"};

	if (strncmp(text, "signal:", 7) == 0) {
		ts.ready_signal = signal_by_name(text + 7);
		ts.ready = TS_READY_SIGNAL;
		return;
	}
	for (size_t i = 0; i < 4; i++)
		if (strcmp(text, names[i]) == 0) {
			ts.ready = (enum ts_ready)i;
			return;
		}
	errx(2, "--ready %s: unknown", text);
}

static void set_exit_after(char *text)
{
	char *colon = strchr(text, ':');

	if (colon)
		*colon = '\0';
	ts.exit_after_ms = (int)number("exit-after-ready", text, 3600 * 1000);
	ts.exit_after_status = colon ? (int)number("exit-after-ready", colon + 1, 255) : 1;
}

static void take_option(int code, char *value)
{
	switch (code) {
	case OPT_FD:
		add_listener((int)number("fd", value, 1 << 20));
		break;
	case OPT_BIND:
		if (bind_count == TS_LISTENERS_MAX)
			errx(2, "too many listeners");
		binds[bind_count++] = value;
		break;
	case OPT_MODE:
		set_mode(value);
		break;
	case OPT_READY:
		set_ready(value);
		break;
	case OPT_SLOW_BOOT:
		ts.slow_boot_ms = (int)number("slow-boot", value, 3600 * 1000);
		break;
	case OPT_READY_BYTES:
		ts.ready_bytes = number("ready-bytes", value, 1LL << 40);
		break;
	case OPT_BYTE_BY_BYTE:
		ts.ready_gap_ms = value ? (int)number("ready-late-byte-by-byte", value, 3600 * 1000) : 100;
		break;
	case OPT_COUNT_INT:
		ts.count_int = value;
		break;
	case OPT_EXIT_AT_ONCE:
		ts.exit_at_once = value ? (int)number("exit-at-once", value, 255) : 1;
		break;
	case OPT_EXIT_AFTER:
		set_exit_after(value);
		break;
	case OPT_CRASH:
		ts.crash_signal = signal_by_name(value);
		break;
	case OPT_HELPER:
		ts.leave_helper = true;
		ts.stubborn_helper = value && strcmp(value, "stubborn") == 0;
		break;
	case OPT_CPU:
		ts.cpu_us = (int)number("cpu-us", value, 60 * 1000000);
		break;
	case OPT_HELP:
		fputs(usage_text, stdout);
		exit(0);
	default:
		if (code < OPT_FLAG)
			exit(2);
		*flags[code - OPT_FLAG].set = true;
	}
}

void ts_parse_options(int argc, char **argv)
{
	static const size_t flag_count = sizeof(flags) / sizeof(flags[0]);
	struct option options[64] = {
		{"fd", required_argument, NULL, OPT_FD},
		{"bind", required_argument, NULL, OPT_BIND},
		{"mode", required_argument, NULL, OPT_MODE},
		{"ready", required_argument, NULL, OPT_READY},
		{"slow-boot", required_argument, NULL, OPT_SLOW_BOOT},
		{"ready-bytes", required_argument, NULL, OPT_READY_BYTES},
		{"ready-late-byte-by-byte", optional_argument, NULL, OPT_BYTE_BY_BYTE},
		{"count-int", required_argument, NULL, OPT_COUNT_INT},
		{"exit-at-once", optional_argument, NULL, OPT_EXIT_AT_ONCE},
		{"exit-after-ready", required_argument, NULL, OPT_EXIT_AFTER},
		{"crash-on-start", required_argument, NULL, OPT_CRASH},
		{"leave-helper", optional_argument, NULL, OPT_HELPER},
		{"cpu-us", required_argument, NULL, OPT_CPU},
		{"help", no_argument, NULL, OPT_HELP},
	};
	size_t used = 0;
	int code;

	while (options[used].name)
		used++;
	for (size_t i = 0; i < flag_count; i++)
		options[used++] = (struct option){flags[i].name, no_argument, NULL, OPT_FLAG + (int)i};
	while ((code = getopt_long(argc, argv, "", options, NULL)) != -1)
		take_option(code, optarg);
	if (optind < argc)
		errx(2, "unexpected argument \"%s\"", argv[optind]);
}
