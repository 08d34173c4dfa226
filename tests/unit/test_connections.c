/* SPDX-License-Identifier: MIT */
/* Tests of the count of open connections: real ones of every kind, seen in both ways, and what must not be counted. */
#include <fcntl.h>
#include <sys/stat.h>

#include "connections_fixture.h"

/* Opens three connections one by one and closes them again, counting after each step. */
static void check_counted(int listen_fd, bool v4)
{
	struct pair pairs[3];

	check_int(count_own(), 0);
	for (int i = 0; i < 3; i++) {
		pairs[i] = pair_of(listen_fd, v4);
		check_int(count_own(), i + 1);
	}
	for (int i = 3; i-- > 0;) {
		close_pair(&pairs[i]);
		check_int(count_own(), i);
	}
}

/* --- Every kind --- */

static void test_connections_v4(void)
{
	add_listener(listen_v4(SOCK_STREAM, 0));
	check_counted(items[0].fd, true);
	close_listeners();
}

static void test_connections_v6(void)
{
	add_listener(listen_v6(&in6addr_loopback));
	check_counted(items[0].fd, false);
	close_listeners();
}

static void test_connections_dual_stack(void)
{
	add_listener(listen_v6(&in6addr_any));
	check_counted(items[0].fd, true);
	check_counted(items[0].fd, false);
	close_listeners();
}

static void test_connections_unix_path(void)
{
	static const char *const names[] = {"socket", "a name with blanks", " @one"};
	char folder[] = "/tmp/test_connections_XXXXXX";

	check(mkdtemp(folder));
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		char path[100];
		snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
		add_listener(listen_unix(i == 1 ? SOCK_SEQPACKET : SOCK_STREAM, path));
		check_counted(items[0].fd, false);
		close_listeners();
		check_int(unlink(path), 0);
	}
	check_int(rmdir(folder), 0);
}

static void test_connections_longest_unix_path(void)
{
	char folder[] = "/tmp/test_connections_XXXXXX";
	union address address = {.un = {.sun_family = AF_UNIX}};
	char path[sizeof(address.un.sun_path) + 1];

	check(mkdtemp(folder));
	memset(path, 'x', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	memcpy(path, folder, strlen(folder));
	path[strlen(folder)] = '/';
	/* No room for the NUL: the kernel adds it. */
	memcpy(address.un.sun_path, path, sizeof(address.un.sun_path));
	add_listener(bound(AF_UNIX, SOCK_STREAM, 0, &address, sizeof(address.un)));
	/* Another such address cannot be asked for: it is returned with a length beyond the structure. */
	struct pair pair = {.client_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
	check_int(connect(pair.client_fd, &address.any, sizeof(address.un)), 0);
	check((pair.server_fd = accept4(items[0].fd, NULL, NULL, SOCK_CLOEXEC)) >= 0);
	check_int(count_own(), 1);
	close_pair(&pair);
	close_listeners();
	check_int(unlink(path), 0);
	check_int(rmdir(folder), 0);
}

static void test_connections_unix_abstract(void)
{
	char name[64];

	snprintf(name, sizeof(name), "@test_connections.%d", (int)getpid());
	add_listener(listen_unix(SOCK_STREAM, name));
	check_counted(items[0].fd, false);
	close_listeners();
}

static void check_many_listeners(size_t count)
{
	struct pair pairs[ARRAY_SIZE(items)];

	for (size_t i = 0; i < count; i++) {
		add_listener(i % 3 == 2 ? listen_v6(&in6addr_any) : listen_v4(SOCK_STREAM, 0));
		pairs[i] = pair_of(items[i].fd, i % 2);
		check_int(count_own(), (int64_t)i + 1);
	}
	/* What belongs to no listener of the set any more is no connection. */
	int last_fd = items[count - 1].fd, first_fd = items[0].fd;
	set.count--;
	check_int(count_own(), (int64_t)count - 1);
	items[0].fd = last_fd;
	check_int(count_own(), (int64_t)count - 1);
	items[0].fd = first_fd;
	set.count++;
	for (size_t i = 0; i < count; i++)
		close_pair(&pairs[i]);
	close_listeners();
}

/* More of them than the kernel is asked to pick. */
static void test_connections_many_listeners(void)
{
	check_many_listeners(2);
	check_many_listeners(3);
	check_many_listeners(64);
	check_many_listeners(70);
}

/* --- What is counted, and what is not --- */

static void test_connections_shared_by_processes_count_once(void)
{
	add_listener(listen_v4(SOCK_STREAM, 0));
	struct pair pair = pair_of(items[0].fd, true);
	int copy_fd = fcntl(pair.server_fd, F_DUPFD_CLOEXEC, 0);
	pid_t pids[] = {start(hold), start(hold), getpid()};
	check_int(count_all(pids, 2), 1);
	check_int(count_all(pids, 3), 1);
	struct pair own = pair_of(items[0].fd, true);
	check_int(count_all(pids, 2), 1);
	check_int(count_all(pids, 3), 2);
	close_pair(&own);
	stop(pids[0]);
	stop(pids[1]);
	close(copy_fd);
	close_pair(&pair);
	close_listeners();
}

static void test_connections_of_others_do_not_count(void)
{
	add_listener(listen_v4(SOCK_STREAM, 0));
	pid_t child = start(hold);
	struct pair pair = pair_of(items[0].fd, true);
	check_int(count_all(&child, 1), 0);
	check_int(count_own(), 1);
	check_int(count_all(NULL, 0), 0);
	stop(child);
	close_pair(&pair);
	close_listeners();
}

static void test_connections_waiting_in_the_queue_do_not_count(void)
{
	add_listener(listen_v4(SOCK_STREAM, 0));
	int client_fd = connected_to(items[0].fd, true);
	check_int(count_own(), 0);
	int server_fd = accept4(items[0].fd, NULL, NULL, SOCK_CLOEXEC);
	check_int(count_own(), 1);
	close(client_fd);
	close(server_fd);
	close_listeners();
}

/* Peer gone, server not done: still a connection. Closed by the server first (TIME_WAIT): none. */
static void test_connections_half_closed_count(void)
{
	add_listener(listen_v4(SOCK_STREAM, 0));
	struct pair pair = pair_of(items[0].fd, true);
	close(pair.client_fd);
	wait_readable(pair.server_fd);
	check_int(count_own(), 1);
	close(pair.server_fd);
	check_int(count_own(), 0);
	pair = pair_of(items[0].fd, true);
	check_int(shutdown(pair.server_fd, SHUT_WR), 0);
	wait_readable(pair.client_fd);
	check_int(count_own(), 1);
	close(pair.server_fd);
	check_int(count_own(), 0);
	close(pair.client_fd);
	/* A reset one is open, but in the state CLOSE. */
	pair = pair_of(items[0].fd, true);
	struct linger now = {.l_onoff = 1};
	check_int(setsockopt(pair.client_fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
	close(pair.client_fd);
	wait_readable(pair.server_fd);
	check_int(count_own(), 0);
	close(pair.server_fd);
	close_listeners();
}

static void test_connections_to_elsewhere_do_not_count(void)
{
	int pair_fds[2];
	char name[64];

	snprintf(name, sizeof(name), "@test_connections.%d", (int)getpid());
	add_listener(listen_v4(SOCK_STREAM, 0));
	add_listener(listen_unix(SOCK_STREAM, name));
	strlcat(name, "2", sizeof(name));
	int other_tcp_fd = listen_v4(SOCK_STREAM, 0), other_unix_fd = listen_unix(SOCK_STREAM, name);
	int same_name_fd = (name[strlen(name) - 1] = '\0', listen_unix(SOCK_SEQPACKET, name));
	struct pair pairs[] = {pair_of(other_tcp_fd, true), pair_of(other_unix_fd, true), pair_of(same_name_fd, true)};
	check_int(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair_fds), 0);
	check_int(count_own(), 0);
	for (size_t i = 0; i < ARRAY_SIZE(pairs); i++)
		close_pair(&pairs[i]);
	close(pair_fds[0]);
	close(pair_fds[1]);
	close(other_tcp_fd);
	close(other_unix_fd);
	close(same_name_fd);
	close_listeners();
}

static void test_connections_datagram_listeners_have_none(void)
{
	add_listener(listen_v4(SOCK_DGRAM, 0));
	int client_fd = connected_to(items[0].fd, true);
	check_int(count_own(), 0);
	close(client_fd);
	close_listeners();
	check_int(count_own(), 0);
}

TEST_MAIN(TEST(test_connections_v4), TEST(test_connections_v6), TEST(test_connections_dual_stack),
	  TEST(test_connections_unix_path), TEST(test_connections_longest_unix_path),
	  TEST(test_connections_unix_abstract), TEST(test_connections_many_listeners),
	  TEST(test_connections_shared_by_processes_count_once), TEST(test_connections_of_others_do_not_count),
	  TEST(test_connections_waiting_in_the_queue_do_not_count), TEST(test_connections_half_closed_count),
	  TEST(test_connections_to_elsewhere_do_not_count), TEST(test_connections_datagram_listeners_have_none))
