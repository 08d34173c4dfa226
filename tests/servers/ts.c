/* SPDX-License-Identifier: MIT */
/* A test server on inherited listeners, which drains without loss, and misbehaves in every way that it is told to. */
#include "ts.h"

#include <bsd/stdlib.h>
#include <bsd/string.h>
#include <bsd/unistd.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

struct ts_settings ts = {
	.ready_signal = SIGTERM,
	.ready_gap_ms = -1,
	.ready_bytes = -1,
	.exit_at_once = -1,
	.exit_after_ms = -1,
};
atomic_bool ts_draining;
int ts_signal_fd = -1, ts_exit_fd = -1;

static char born[8192];

#ifndef __has_feature
#define __has_feature(feature) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
int __lsan_is_turned_off(void);

/* Leak detection stops its process with a SIGSTOP; the SIGCONT that a supervisor sends after its TERM undoes that, and
 * both wait for ever. */
int __lsan_is_turned_off(void)
{
	return 1;
}
#endif

const char *ts_born(void)
{
	return born;
}

static void remember_birth(void)
{
	size_t used = 0;
	char line[256];
	FILE *status = fopen("/proc/self/status", "re");

	while (status && fgets(line, sizeof(line), status))
		if (strncmp(line, "Sig", 3) == 0 && strncmp(line, "SigQ", 4) != 0)
			used += strlcpy(born + used, line, sizeof(born) - used - 200);
	if (status)
		fclose(status);
	for (int fd = 0; fd < 1024 && used < sizeof(born) - 200; fd++) {
		char path[64], target[128];
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		ssize_t length = readlink(path, target, sizeof(target) - 1);
		if (length < 0)
			continue;
		target[length] = '\0';
		used += (size_t)snprintf(born + used, sizeof(born) - used, "%d %s\n", fd, target);
	}
}

int64_t ts_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void ts_nap(int ms)
{
	int64_t until = ts_now_ms() + ms, left;

	while ((left = until - ts_now_ms()) > 0)
		poll(NULL, 0, (int)left);
}

bool ts_take_signals(void)
{
	struct signalfd_siginfo info;
	bool drain = false;

	while (read(ts_signal_fd, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGTERM) {
			if (ts.term_exits)
				_exit(128 + SIGTERM);
			drain |= !ts.ignore_term;
			continue;
		}
		drain |= !ts.ignore_int;
		int fd = ts.count_int ? open(ts.count_int, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666) : -1;
		if (fd >= 0) {
			dprintf(fd, "INT pid=%d from=%u\n", (int)getpid(), info.ssi_pid);
			close(fd);
		}
	}
	return drain;
}

/* Nothing was accepted yet, so a drain signal simply ends it. `ms` < 0: for ever. */
static void boot_wait(int64_t ms)
{
	int64_t until = ts_now_ms() + ms;

	while (ms < 0 || ts_now_ms() < until) {
		struct pollfd fds = {.fd = ts_signal_fd, .events = POLLIN};
		if (poll(&fds, 1, ms < 0 ? -1 : (int)(until - ts_now_ms())) > 0 && ts_take_signals())
			exit(0);
	}
}

static void notify(const char *text, size_t size)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd;

	if (!path || strlcpy(address.sun_path, path, sizeof(address.sun_path)) >= sizeof(address.sun_path))
		return;
	socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
	if (address.sun_path[0] == '@')
		address.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (sendto(fd, text, size, MSG_NOSIGNAL, (struct sockaddr *)&address, length) < 0)
		warn("NOTIFY_SOCKET");
	close(fd);
}

static void put(int fd, const char *text, size_t size)
{
	while (size > 0) {
		ssize_t done = write(fd, text, size);
		if (done < 0)
			return; /* the reader has closed it, which is its right */
		text += done;
		size -= (size_t)done;
	}
}

static void put_noise(int fd)
{
	char noise[4096];

	for (int i = 0; i < 16; i++) {
		arc4random_buf(noise, sizeof(noise));
		put(fd, noise, sizeof(noise));
	}
}

static void ready_pipe(void)
{
	const char *text = getenv("HANDOFF_READY_FD"), *problem = NULL;
	int fd = text ? (int)strtonum(text, 0, 1 << 20, &problem) : -1;

	if (!text || problem)
		return;
	for (long long left = ts.ready_bytes; left > 0; left -= 4096) {
		char part[4096];
		memset(part, 'x', sizeof(part));
		put(fd, part, left < 4096 ? (size_t)left : 4096);
	}
	if (ts.ready_bytes >= 0)
		return;
	for (const char *slow = ts.ready_gap_ms < 0 ? "" : "slow"; *slow; slow++) {
		put(fd, slow, 1);
		boot_wait(ts.ready_gap_ms);
	}
	put(fd, "\n", 1);
	if (ts.ready_then_garbage)
		put_noise(fd);
	close(fd);
}

static void ready_notify(void)
{
	static const char *const noise[] = {
		"READY=maybe", "=", "\n\n\n", "MAINPID=1\nSTOPPING=0", "EXTEND_TIMEOUT_USEC=-9", "\xff\xfe\x01"};

	notify("READY=1\nSTATUS=serving", strlen("READY=1\nSTATUS=serving"));
	for (size_t i = 0; ts.ready_then_garbage && i < sizeof(noise) / sizeof(noise[0]); i++)
		notify(noise[i], strlen(noise[i]));
}

void ts_say_ready(void)
{
	switch (ts.ready) {
	case TS_READY_PIPE:
		ready_pipe();
		break;
	case TS_READY_NOTIFY:
		ready_notify();
		break;
	case TS_READY_SIGNAL:
		kill(getppid(), ts.ready_signal);
		break;
	case TS_READY_NONE:
		break;
	}
	if (ts.exit_after_ms < 0)
		return;
	struct itimerspec when = {.it_value.tv_sec = ts.exit_after_ms / 1000,
				  .it_value.tv_nsec = ts.exit_after_ms % 1000 * 1000000 + 1};
	ts_exit_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	timerfd_settime(ts_exit_fd, 0, &when, NULL);
}

static void leave_helper(bool own_session)
{
	sigset_t none;

	if (fork() != 0)
		return;
	if (own_session)
		setsid();
	sigemptyset(&none);
	if (ts.stubborn_helper && !own_session) {
		signal(SIGINT, SIG_IGN);
		signal(SIGTERM, SIG_IGN);
	}
	sigprocmask(SIG_SETMASK, &none, NULL);
	for (;;)
		pause();
}

static void crash(void)
{
	/* The death is what counts; a core file would only be litter. */
	setrlimit(RLIMIT_CORE, &(struct rlimit){0});
	signal(ts.crash_signal, SIG_DFL);
	raise(ts.crash_signal);
	_exit(1);
}

static void go_to_background(void)
{
	pid_t pid = fork();

	if (pid < 0)
		err(1, "fork");
	if (pid > 0)
		_exit(0);
	setsid();
}

static void hold_signals(void)
{
	sigset_t mask;

	/* Writing to a ready pipe that its reader has closed is not worth dying for. */
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&mask);
	sigaddset(&mask, SIGINT);
	sigaddset(&mask, SIGTERM);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	if (ts.close_fds)
		closefrom(3);
	ts_signal_fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
	if (ts_signal_fd < 0)
		err(1, "signalfd");
}

static char *own_paths[TS_LISTENERS_MAX];

/* Asked while the listeners are open; the unlink comes when they are long closed. */
static void remember_paths(void)
{
	for (size_t i = 0; i < ts.listeners; i++) {
		struct sockaddr_un address = {0};
		socklen_t length = sizeof(address);
		if (getsockname(ts.listen_fds[i], (struct sockaddr *)&address, &length) == 0 &&
		    address.sun_family == AF_UNIX && address.sun_path[0])
			own_paths[i] = strdup(address.sun_path);
	}
}

static void unlink_paths(void)
{
	for (size_t i = 0; i < ts.listeners; i++)
		if (own_paths[i]) {
			unlink(own_paths[i]);
			free(own_paths[i]);
		}
}

/* Everything that goes before the first request, wrong turns included. */
static void boot(void)
{
	if (ts.crash_signal)
		crash();
	if (ts.exit_at_once >= 0)
		exit(ts.exit_at_once);
	if (ts.background)
		go_to_background();
	hold_signals();
	if (ts.leave_helper)
		leave_helper(false);
	if (ts.leave_daemon)
		leave_helper(true);
	if (ts.stop_self)
		raise(SIGSTOP);
	if (ts.close_fds || ts.never_ready)
		boot_wait(-1);
	boot_wait(ts.slow_boot_ms);
	ts_open_listeners();
	if (ts.unlink_path)
		remember_paths();
	for (size_t i = 0; ts.set_nonblock && i < ts.listeners; i++)
		fcntl(ts.listen_fds[i], F_SETFL, fcntl(ts.listen_fds[i], F_GETFL) | O_NONBLOCK);
}

int main(int argc, char **argv)
{
	remember_birth();
	ts_parse_options(argc, argv);
	boot();
	if (ts.mode == TS_THREADS)
		ts_serve_threads();
	else
		ts_serve_events();
	unlink_paths();
	return 0;
}
