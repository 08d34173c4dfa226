/* SPDX-License-Identifier: MIT */
/* Listeners, connections and processes for the tests of the connections module, and the count in both ways. */
#ifndef HANDOFF_CONNECTIONS_FIXTURE_H
#define HANDOFF_CONNECTIONS_FIXTURE_H

#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <bsd/string.h>

#include "connections_private.h"
#include "../lib/test.h"

#define DEADLINE_MS 10000

union address {
	struct sockaddr any;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
	struct sockaddr_un un;
};

static struct listener items[80];
static struct listener_set set = {.items = items};

static inline void add_listener(int fd)
{
	check(set.count < ARRAY_SIZE(items));
	items[set.count++] = (struct listener){.fd = fd};
}

static inline void close_listeners(void)
{
	for (size_t i = 0; i < set.count; i++)
		close(items[i].fd);
	set.count = 0;
}

static inline int bound(int family, int type, int protocol, const union address *address, socklen_t length)
{
	int fd = socket(family, type | SOCK_CLOEXEC, protocol), off = 0;

	check(fd >= 0);
	if (family == AF_INET6)
		check_int(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)), 0);
	if (bind(fd, &address->any, length) < 0)
		test_fail("bind: %s", strerror(errno));
	if (type != SOCK_DGRAM)
		check_int(listen(fd, 128), 0);
	return fd;
}

static inline int listen_v4(int type, int protocol)
{
	union address address = {.in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}};

	return bound(AF_INET, type, protocol, &address, sizeof(address.in));
}

static inline int listen_v6(const struct in6_addr *on)
{
	union address address = {.in6 = {.sin6_family = AF_INET6, .sin6_addr = *on}};

	return bound(AF_INET6, SOCK_STREAM, 0, &address, sizeof(address.in6));
}

/* A name that begins with '@' is abstract. */
static inline int listen_unix(int type, const char *name)
{
	union address address = {.un = {.sun_family = AF_UNIX}};
	size_t length = offsetof(struct sockaddr_un, sun_path) + strlen(name);

	strlcpy(address.un.sun_path, name, sizeof(address.un.sun_path));
	if (name[0] == '@')
		address.un.sun_path[0] = '\0';
	else
		length++;
	return bound(AF_UNIX, type, 0, &address, (socklen_t)length);
}

/* A client of the listener: through IPv4 if `v4`, to where it is bound otherwise. */
static inline int connected_to(int listen_fd, bool v4)
{
	union address address;
	socklen_t length = sizeof(address), size = sizeof(int);
	int type;

	check_int(getsockname(listen_fd, &address.any, &length), 0);
	check_int(getsockopt(listen_fd, SOL_SOCKET, SO_TYPE, &type, &size), 0);
	if (v4 && address.any.sa_family == AF_INET6) {
		in_port_t port = address.in6.sin6_port;
		address.in = (struct sockaddr_in){
			.sin_family = AF_INET, .sin_port = port, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
		length = sizeof(address.in);
	}
	int fd = socket(address.any.sa_family, type | SOCK_CLOEXEC, 0);
	check(fd >= 0);
	if (connect(fd, &address.any, length) < 0)
		test_fail("connect: %s", strerror(errno));
	return fd;
}

struct pair {
	int client_fd, server_fd;
};

static inline struct pair pair_of(int listen_fd, bool v4)
{
	struct pair pair = {.client_fd = connected_to(listen_fd, v4)};

	pair.server_fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
	check(pair.server_fd >= 0);
	return pair;
}

/* Closes both at once: a reset, which leaves no TIME_WAIT behind. */
static inline void close_pair(struct pair *pair)
{
	struct linger now = {.l_onoff = 1};

	setsockopt(pair->client_fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	close(pair->client_fd);
	close(pair->server_fd);
}

static inline void wait_readable(int fd)
{
	struct pollfd poll_fd = {.fd = fd, .events = POLLIN};

	check_int(poll(&poll_fd, 1, DEADLINE_MS), 1);
}

static inline pid_t start(void (*body)(void))
{
	pid_t pid = fork();

	check(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		body();
		_exit(99);
	}
	return pid;
}

static inline void stop(pid_t pid)
{
	kill(pid, SIGKILL);
	check_int(waitpid(pid, NULL, 0), pid);
}

static inline void hold(void)
{
	for (;;)
		pause();
}

/* Through one of the two ways to see. */
static inline int64_t count_of_way(int (*way)(struct connections *), const pid_t *pids, size_t count)
{
	struct connections connections;
	int result = connections_init(&connections, pids, count, &set);

	if (result == 0)
		result = way(&connections);
	int64_t marked = result < 0 ? result : connections_marked(&connections);
	connections_finish(&connections);
	return marked;
}

/* The count, which both ways must agree on. */
static inline int64_t count_all(const pid_t *pids, size_t count)
{
	int64_t counted = connections_count(pids, count, &set);

	check_int(count_of_way(connections_proc, pids, count), counted);
#ifdef HAVE_LIBMNL
	check_int(count_of_way(connections_diag, pids, count), counted);
#endif
	return counted;
}

static inline int64_t count_own(void)
{
	pid_t self = getpid();

	return count_all(&self, 1);
}

#endif
