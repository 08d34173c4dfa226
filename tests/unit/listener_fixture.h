/* SPDX-License-Identifier: MIT */
/* Helpers that the tests of the listener module share: opening by SPEC text, children, folders, connecting. */
#ifndef HANDOFF_LISTENER_FIXTURE_H
#define HANDOFF_LISTENER_FIXTURE_H

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <bsd/string.h>

#include "fd.h"
#include "listener.h"
#include "test.h"

#define DEADLINE_MS 10000
#define SPECS_MAX 8

/* The sentence of the last open or check that failed. */
static struct error failure;

static inline size_t parse_all(const char *const *texts, struct listen_spec *specs)
{
	size_t count = 0;

	for (; texts[count]; count++)
		if (listen_spec_parse(texts[count], &specs[count], &failure) < 0)
			test_fail("%s", failure.text);
	return count;
}

static inline int open_specs(struct listener_set *set, const struct listener_inherited *inherited, bool checking,
			     const char *const *texts)
{
	struct listen_spec specs[SPECS_MAX] = {{.text = NULL}};
	size_t count = parse_all(texts, specs);

	failure.text[0] = '\0';
	int r = checking ? listener_set_check(specs, count, inherited, &failure)
			 : listener_set_open(set, specs, count, inherited, &failure);
	for (size_t i = 0; i < count; i++)
		listen_spec_finish(&specs[i]);
	return r;
}

#define open_these(set, ...) open_specs(set, NULL, false, (const char *const[]){__VA_ARGS__, NULL})
#define check_these(...) open_specs(NULL, NULL, true, (const char *const[]){__VA_ARGS__, NULL})
/* For an open that must succeed: says why it did not. */
#define must_open(set, ...)                                                                                            \
	do {                                                                                                           \
		if (open_these(set, __VA_ARGS__) != 0)                                                                 \
			test_fail("%s", failure.text);                                                                 \
	} while (0)

/* fork(2) for a child that must not outlive a test that fails. */
static inline pid_t fork_bound(void)
{
	pid_t parent = getpid(), pid = fork();

	check(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(3);
	}
	return pid;
}

/* Runs `run` in a process of its own; its checks count as ours. */
static inline void in_child(void (*run)(void))
{
	int status = 0;

	fflush(stdout);
	pid_t pid = fork_bound();
	if (pid == 0) {
		run();
		fflush(stdout);
		_exit(0);
	}
	check_int(waitpid(pid, &status, 0), pid);
	if (status != 0)
		test_fail("the check in the child failed (wait status %d)", status);
}

/* A process that does `start`, then waits until it is killed. Returned once start is done. */
static inline pid_t start_helper(const char *comm, void (*start)(void))
{
	int done[2];
	char byte;

	fflush(stdout);
	check_int(pipe2(done, O_CLOEXEC), 0);
	pid_t pid = fork_bound();
	if (pid == 0) {
		prctl(PR_SET_NAME, comm);
		start();
		check_int(write(done[1], "x", 1), 1);
		for (;;)
			pause();
	}
	close(done[1]);
	check_int(read(done[0], &byte, 1), 1);
	close(done[0]);
	return pid;
}

static inline void stop_helper(pid_t pid)
{
	check_int(kill(pid, SIGKILL), 0);
	check_int(waitpid(pid, NULL, 0), pid);
}

static inline bool is_readable(int fd, int wait_ms)
{
	struct pollfd poll_fd = {.fd = fd, .events = POLLIN};

	return poll(&poll_fd, 1, wait_ms) == 1;
}

/* Connects to a unix path; the descriptor or -errno. */
static inline int connect_unix(const char *path, int type)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	check(fd >= 0);
	strlcpy(address.sun_path, path, sizeof(address.sun_path));
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	int code = -errno;
	close(fd);
	return code;
}

/* Whether somebody answers at a unix path: 0 or -errno. */
static inline int reach_unix(const char *path)
{
	int fd = connect_unix(path, SOCK_STREAM);

	if (fd < 0)
		return fd;
	close(fd);
	return 0;
}

static inline unsigned port_of(const struct listener *listener)
{
	const char *colon = strrchr(listener->address, ':');

	check(colon);
	return (unsigned)strtoul(colon + 1, NULL, 10);
}

/* Whether somebody answers at an inet address on loopback: 0 or -errno. */
static inline int reach_inet(const char *host, unsigned port)
{
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	bool is_v6 = inet_pton(AF_INET6, host, &v6.sin6_addr) == 1;
	int r = 0;

	check(is_v6 || inet_pton(AF_INET, host, &v4.sin_addr) == 1);
	int fd = socket(is_v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, is_v6 ? (struct sockaddr *)&v6 : (struct sockaddr *)&v4, is_v6 ? sizeof(v6) : sizeof(v4)) < 0)
		r = -errno;
	close(fd);
	return r;
}

static inline int option_of(int fd, int level, int name)
{
	int value = -1;
	socklen_t length = sizeof(value);

	check_int(getsockopt(fd, level, name, &value, &length), 0);
	return value;
}

#endif
