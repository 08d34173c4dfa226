/* SPDX-License-Identifier: MIT */
/* Sockets that a parent passed: LISTEN_FDS and its names, stale and broken values, fd:N, and what is left untouched. */
#include <bsd/unistd.h>

#include "listener_fixture.h"

static struct listener_inherited inherited;

#define open_passed(set, ...) open_specs(set, &inherited, false, (const char *const[]){__VA_ARGS__, NULL})
#define check_passed(...) open_specs(NULL, &inherited, true, (const char *const[]){__VA_ARGS__, NULL})

/* Puts `fd` at `number`, open across exec as a parent would pass it. */
static void place(int fd, int number)
{
	check_int(dup2(fd, number), number);
	close(fd);
}

/* A bound socket, far above the numbers that are passed. */
static int make_socket(int type, bool listening, int backlog)
{
	const struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int low = socket(AF_INET, type | SOCK_CLOEXEC, 0), fd = fcntl(low, F_DUPFD_CLOEXEC, 50);

	check(fd >= 50);
	close(low);
	check_int(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
	if (listening)
		check_int(listen(fd, backlog), 0);
	return fd;
}

/* The child's own environment: what is passed, and to whom. Closes what the harness or valgrind's caller left at 3…5.
 */
static void pass(int count, const char *fds, const char *names, pid_t pid)
{
	char text[16];

	for (int i = 0; i < count; i++)
		place(make_socket(SOCK_STREAM, true, 11), 3 + i);
	snprintf(text, sizeof(text), "%d", (int)pid);
	setenv("LISTEN_PID", text, 1);
	setenv("LISTEN_FDS", fds, 1);
	unsetenv("LISTEN_FDNAMES");
	if (names)
		setenv("LISTEN_FDNAMES", names, 1);
}

static void must_inherit(void)
{
	if (listener_inherit(&inherited, &failure) != 0)
		test_fail("%s", failure.text);
}

static void nothing_is_passed(void)
{
	struct listener_set set;

	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	must_inherit();
	check_int(inherited.count, 0);
	check_int(open_passed(&set, "systemd"), -ENOENT);
	check_contains(failure.text, "LISTEN_FDS is not set");
	check_int(check_passed("systemd"), -ENOENT);
	setenv("LISTEN_FDS", "1", 1);
	must_inherit();
	check_int(inherited.count, 0);
	check_int(open_passed(&set, "systemd"), -ENOENT);
	check_contains(failure.text, "LISTEN_PID is not set");
}

static void test_listener_inherit_without_the_variables_there_is_nothing(void)
{
	in_child(nothing_is_passed);
}

static void three_named(void)
{
	struct listener_set set;

	pass(3, "3", "http:unknown:http", getpid());
	check_int(fcntl(4, F_SETFL, fcntl(4, F_GETFL) | O_NONBLOCK), 0);
	must_inherit();
	check_int(inherited.count, 3);
	check_str(inherited.names[0], "http");
	check_str(inherited.names[1], "unknown");
	for (int fd = 3; fd <= 5; fd++)
		check(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	check_str(getenv("LISTEN_FDS"), "3");
	check_int(check_passed("systemd"), 0);
	check_int(open_passed(&set, "systemd"), 0);
	check_int(set.count, 3);
	for (int i = 0; i < 3; i++) {
		check_int(set.items[i].fd, 3 + i);
		check(set.items[i].inherited && set.items[i].stream && !set.items[i].path);
		check_str(set.items[i].type, "tcp");
		check_contains(set.items[i].address, "127.0.0.1:");
		check_int(set.items[i].backlog, 11);
		check_int(reach_inet("127.0.0.1", port_of(&set.items[i])), 0);
	}
	check_str(set.items[0].name, "http");
	check(!set.items[1].name);
	/* The status flags are the parent's affair. */
	check(!(fcntl(3, F_GETFL) & O_NONBLOCK) && (fcntl(4, F_GETFL) & O_NONBLOCK));
	listener_set_close(&set);
	check_int(fcntl(3, F_GETFD), -1);
	listener_inherited_finish(&inherited);
	check(!inherited.names && inherited.count == 0);
}

static void test_listener_inherit_takes_what_was_passed(void)
{
	in_child(three_named);
}

static void chosen_by_name(void)
{
	struct listener_set set;

	pass(3, "3", "http:metrics:http", getpid());
	must_inherit();
	check_int(open_passed(&set, "systemd:nothing"), -ENOENT);
	check_contains(failure.text, "no socket named \"nothing\"");
	check_int(open_passed(&set, "m=systemd:metrics?nonblock=yes", "systemd"), 0);
	check_int(set.count, 3);
	check_int(set.items[0].fd, 4);
	check_str(set.items[0].name, "m");
	check(fcntl(4, F_GETFL) & O_NONBLOCK);
	check_int(set.items[1].fd, 3);
	check_int(set.items[2].fd, 5);
	check_str(set.items[2].name, "http");
	check_int(fcntl(5, F_GETFL) & O_NONBLOCK, 0);
	listener_set_close(&set);
	listener_inherited_finish(&inherited);
}

static void test_listener_inherit_chooses_by_name_and_leaves_the_rest(void)
{
	in_child(chosen_by_name);
}

/* Field report A4: values that were meant for another process leaked into our environment. */
static void stale_values(void)
{
	struct listener_set set;
	char want[64];

	pass(0, "2", "x:y", getppid());
	must_inherit();
	check_int(inherited.count, 0);
	check(!inherited.names);
	check_int(open_passed(&set, "systemd"), -ENOENT);
	snprintf(want, sizeof(want), "LISTEN_PID=%d, our pid is %d", (int)getppid(), (int)getpid());
	check_contains(failure.text, want);
	setenv("LISTEN_FDS", "rubbish", 1);
	must_inherit();
	check_int(inherited.count, 0);
}

static void test_listener_inherit_drops_values_for_another_process(void)
{
	in_child(stale_values);
}

static void refused(const char *fds, const char *names, int code, const char *part)
{
	struct listener_inherited untouched = {.count = 77};

	pass(0, fds, names, getpid());
	check_int(listener_inherit(&untouched, &failure), code);
	check_contains(failure.text, part);
	check_int(untouched.count, 77);
}

static void broken_values(void)
{
	pass(2, "2", NULL, getpid());
	closefrom(5);
	refused("two", NULL, -EINVAL, "LISTEN_FDS");
	refused("-1", NULL, -EINVAL, "LISTEN_FDS");
	refused("", NULL, -EINVAL, "LISTEN_FDS");
	refused("99999999999", NULL, -EINVAL, "LISTEN_FDS");
	refused("3", NULL, -EBADF, "descriptor 5 is not open");
	refused("2147483644", NULL, -EBADF, "descriptor 5 is not open");
	refused("2", "one", -EINVAL, "LISTEN_FDNAMES \"one\"");
	refused("2", "", -EINVAL, "LISTEN_FDNAMES");
	refused("2", "one:two:three", -EINVAL, "LISTEN_FDNAMES");
	refused("2", "one:two:", -EINVAL, "LISTEN_FDNAMES");
	setenv("LISTEN_PID", "me", 1);
	check_int(listener_inherit(&inherited, &failure), -EINVAL);
	check_contains(failure.text, "LISTEN_PID");
	pass(0, "2", ":", getpid());
	must_inherit();
	check_int(inherited.count, 2);
	check_str(inherited.names[1], "");
	listener_inherited_finish(&inherited);
	pass(0, "0", "", getpid());
	must_inherit();
	check_int(inherited.count, 0);
}

static void test_listener_inherit_refuses_broken_values(void)
{
	in_child(broken_values);
}

static void unfit_descriptors(void)
{
	struct listener_set set;
	int pair[2];

	place(open("/dev/null", O_RDONLY | O_CLOEXEC), 20);
	place(make_socket(SOCK_STREAM, false, 0), 21);
	place(socket(AF_INET, SOCK_DGRAM, 0), 22);
	check_int(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	place(pair[0], 23);
	place(socket(AF_NETLINK, SOCK_RAW, 0), 24);
	place(make_socket(SOCK_STREAM, true, 5), 25);
	place(make_socket(SOCK_DGRAM, false, 0), 26);
	check_int(open_these(&set, "fd:199"), -EBADF);
	check_contains(failure.text, "fd:199: descriptor 199 is not open");
	check_int(open_these(&set, "fd:20"), -ENOTSOCK);
	check_contains(failure.text, "descriptor 20 is no socket");
	check_int(open_these(&set, "fd:21"), -EINVAL);
	check_contains(failure.text, "does not listen");
	check_int(open_these(&set, "fd:22"), -EINVAL);
	check_contains(failure.text, "is not bound");
	check_int(open_these(&set, "fd:23"), -EINVAL);
	check_int(open_these(&set, "fd:24"), -EINVAL);
	check_contains(failure.text, "not supported");
	check_int(open_these(&set, "fd:25", "fd:26", "fd:25"), -EBUSY);
	check_contains(failure.text, "descriptor 25 is taken by another listener");
	check_int(check_these("fd:25", "fd:25"), -EBUSY);
	/* Nobody could give them to us again: a failure, and a check, leave them open and as they were. */
	check_int(check_these("fd:25?nonblock=yes"), 0);
	for (int fd = 20; fd <= 26; fd++)
		check_int(fcntl(fd, F_GETFD), 0);
	check_int(fcntl(25, F_GETFL) & O_NONBLOCK, 0);
	check_int(open_these(&set, "fd:25?nonblock=yes", "d=fd:26"), 0);
	check_int(fcntl(25, F_GETFD), FD_CLOEXEC);
	check(fcntl(25, F_GETFL) & O_NONBLOCK);
	check_str(set.items[1].type, "udp");
	check(!set.items[1].stream && set.items[1].backlog == 0);
	check_str(set.items[1].name, "d");
	listener_set_close(&set);
}

static void test_listener_fd_is_looked_at_before_it_is_taken(void)
{
	in_child(unfit_descriptors);
}

static void unix_of_a_parent(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	char folder[] = "/tmp/listener-test-XXXXXX";
	struct listener_set set;

	check(mkdtemp(folder));
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/parent", folder);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	check_int(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	check_int(listen(fd, 5), 0);
	place(fd, 20);
	check_int(open_these(&set, "fd:20"), 0);
	check_str(set.items[0].address, address.sun_path);
	check_str(set.items[0].type, "unix");
	check(!set.items[0].path && !set.items[0].guard_path);
	check_int(listener_watch_paths(&set), -ENOENT);
	check_int(listener_repair(&set.items[0], &failure), LISTENER_PATH_FINE);
	listener_set_close(&set);
	check_int(reach_unix(address.sun_path), -ECONNREFUSED);
	check_int(unlink(address.sun_path), 0);
	check_int(rmdir(folder), 0);
}

static void test_listener_fd_of_a_unix_path_is_never_unlinked(void)
{
	in_child(unix_of_a_parent);
}

TEST_MAIN(TEST(test_listener_inherit_without_the_variables_there_is_nothing),
	  TEST(test_listener_inherit_takes_what_was_passed),
	  TEST(test_listener_inherit_chooses_by_name_and_leaves_the_rest),
	  TEST(test_listener_inherit_drops_values_for_another_process),
	  TEST(test_listener_inherit_refuses_broken_values), TEST(test_listener_fd_is_looked_at_before_it_is_taken),
	  TEST(test_listener_fd_of_a_unix_path_is_never_unlinked))
