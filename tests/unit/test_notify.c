/* SPDX-License-Identifier: MIT */
/* Tests of notify.c: what arrives at a manager that listens, and that one that does not never holds us up. */
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include "fd.h"
#include "notify.h"
#include "../lib/test.h"

/* A manager's socket with a name that the kernel chose; NOTIFY_SOCKET is set to it. */
static int manager_socket(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	socklen_t size = sizeof(address);
	char text[64];
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	check(fd >= 0);
	check_int(bind(fd, (const struct sockaddr *)&address, sizeof(sa_family_t)), 0); /* autobind, unix(7) */
	check_int(getsockname(fd, (struct sockaddr *)&address, &size), 0);
	size_t length = size - offsetof(struct sockaddr_un, sun_path) - 1;
	snprintf(text, sizeof(text), "@%.*s", (int)length, address.sun_path + 1);
	setenv("NOTIFY_SOCKET", text, 1);
	return fd;
}

static void clear_environment(void)
{
	unsetenv("NOTIFY_SOCKET");
	unsetenv("WATCHDOG_USEC");
	unsetenv("WATCHDOG_PID");
}

/* The next datagram; unix sockets deliver within send, so that nothing is waited for. */
static const char *received(int fd)
{
	static char text[4096];
	ssize_t length = recv(fd, text, sizeof(text) - 1, 0);

	if (length < 0)
		return NULL;
	text[length] = '\0';
	return text;
}

static void test_notify_without_a_manager_does_nothing(void)
{
	struct notify notify;
	struct error error;

	clear_environment();
	setenv("WATCHDOG_USEC", "2000000", 1);
	check_int(notify_init(&notify, -1, &error), 0);
	check_int(notify.fd, -1);
	check_int(notify.newline_fd, -1);
	check_int(notify.watchdog_ms, -1);
	check_int(notify_ready(&notify), 0);
	check_int(notify_reloading(&notify), 0);
	check_int(notify_status(&notify, "x"), 0);
	notify_finish(&notify);
	setenv("NOTIFY_SOCKET", "", 1);
	check_int(notify_init(&notify, -1, &error), 0);
	notify_finish(&notify);
	clear_environment();
}

static void test_notify_sends_the_words_of_sd_notify(void)
{
	struct notify notify;
	struct error error;
	int manager_fd = manager_socket();

	check_int(notify_init(&notify, -1, &error), 0);
	check(fcntl(notify.fd, F_GETFD) & FD_CLOEXEC);
	check_int(notify_ready(&notify), 0);
	check_str(received(manager_fd), "READY=1");
	check_int(notify_stopping(&notify), 0);
	check_str(received(manager_fd), "STOPPING=1");
	check_int(notify_watchdog(&notify), 0);
	check_str(received(manager_fd), "WATCHDOG=1");
	check_int(notify_status(&notify, "generation 7 is active"), 0);
	check_str(received(manager_fd), "STATUS=generation 7 is active");
	check_int(notify_extend(&notify, UINT64_C(18446744073709551615)), 0);
	check_str(received(manager_fd), "EXTEND_TIMEOUT_USEC=18446744073709551615");
	notify_finish(&notify);
	check_int(notify_ready(&notify), 0);
	check(!received(manager_fd));
	fd_close(manager_fd);
	clear_environment();
}

static uint64_t monotonic_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void test_notify_reloading_carries_the_time(void)
{
	static const char start[] = "RELOADING=1\nMONOTONIC_USEC=";
	struct notify notify;
	int manager_fd = manager_socket();

	check_int(notify_init(&notify, -1, NULL), 0);
	uint64_t before = monotonic_us();
	check_int(notify_reloading(&notify), 0);
	const char *text = received(manager_fd);
	check(text && strncmp(text, start, strlen(start)) == 0);
	uint64_t sent = strtoull(text + strlen(start), NULL, 10);
	check(sent >= before && sent <= monotonic_us());
	notify_finish(&notify);
	fd_close(manager_fd);
	clear_environment();
}

static void test_notify_status_cannot_smuggle_assignments(void)
{
	struct notify notify;
	char text[5000];
	int manager_fd = manager_socket();

	check_int(notify_init(&notify, -1, NULL), 0);
	check_int(notify_status(&notify, "warm\nMAINPID=1"), 0);
	check_str(received(manager_fd), "STATUS=warm\\x0aMAINPID=1");
	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	check_int(notify_status(&notify, text), 0);
	check_contains(received(manager_fd), "STATUS=xxx");
	notify_finish(&notify);
	fd_close(manager_fd);
	clear_environment();
}

static void test_notify_reaches_a_socket_with_a_path(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	char folder[] = "/tmp/test_notify.XXXXXX";
	struct notify notify;
	struct error error;
	int manager_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	check(mkdtemp(folder));
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/notify", folder);
	check_int(bind(manager_fd, (const struct sockaddr *)&address, sizeof(address)), 0);
	setenv("NOTIFY_SOCKET", address.sun_path, 1);
	check_int(notify_init(&notify, -1, &error), 0);
	check_int(notify_ready(&notify), 0);
	check_str(received(manager_fd), "READY=1");
	notify_finish(&notify);
	fd_close(manager_fd);
	/* The file is there, and nobody behind it. */
	check_int(notify_init(&notify, -1, &error), -ECONNREFUSED);
	check_contains(error.text, address.sun_path);
	unlink(address.sun_path);
	rmdir(folder);
	clear_environment();
}

static void test_notify_init_names_a_bad_socket(void)
{
	static const struct {
		const char *value;
		int code;
	} cases[] = {{"relative/path", -EAFNOSUPPORT},
		     {"vsock:2:1234", -EAFNOSUPPORT},
		     {"@", -EINVAL},
		     {"/", -EINVAL},
		     {"/nowhere/notify", -ENOENT}};
	struct notify notify;
	char long_name[200];
	int fds[2];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct error error = {""};
		setenv("NOTIFY_SOCKET", cases[i].value, 1);
		check_int(notify_init(&notify, -1, &error), cases[i].code);
		check_contains(error.text, cases[i].value);
		check_int(notify_ready(&notify), 0);
		notify_finish(&notify);
	}
	memset(long_name, 'x', sizeof(long_name));
	long_name[0] = '/';
	long_name[sizeof(long_name) - 1] = '\0';
	setenv("NOTIFY_SOCKET", long_name, 1);
	/* The newline is another manager's word, and works all the same. */
	check_int(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
	check_int(notify_init(&notify, fds[1], NULL), -EINVAL);
	check_int(notify_ready(&notify), 0);
	char text[4];
	check_int(read(fds[0], text, sizeof(text)), 1);
	notify_finish(&notify);
	fd_close(fds[0]);
	clear_environment();
}

static void test_notify_never_waits_for_a_full_queue(void)
{
	struct notify notify;
	int manager_fd = manager_socket();
	int result, count = 0;

	check_int(notify_init(&notify, -1, NULL), 0);
	do
		result = notify_watchdog(&notify);
	while (result == 0 && ++count < 1000000);
	check_int(result, -EAGAIN);
	check(count > 0);
	check_str(received(manager_fd), "WATCHDOG=1");
	check_int(notify_ready(&notify), 0);
	/* A manager that is gone is no reason to die either. */
	fd_close(manager_fd);
	check_int(notify_watchdog(&notify), -ECONNREFUSED);
	notify_finish(&notify);
	clear_environment();
}

static void test_notify_newline_is_sent_once_and_closed(void)
{
	struct notify notify;
	struct error error;
	char text[4];
	int fds[2];

	clear_environment();
	check_int(pipe(fds), 0);
	check_int(notify_init(&notify, fds[1], &error), 0);
	check(fcntl(fds[1], F_GETFD) & FD_CLOEXEC);
	check_int(notify_stopping(&notify), 0);
	check_int(notify_ready(&notify), 0);
	check_int(notify.newline_fd, -1);
	check_int(notify_ready(&notify), 0);
	check_int(read(fds[0], text, sizeof(text)), 1);
	check_int(text[0], '\n');
	check_int(read(fds[0], text, sizeof(text)), 0);
	notify_finish(&notify);
	fd_close(fds[0]);
	check_int(notify_init(&notify, fds[0], &error), -EBADF);
	check_contains(error.text, "not open");
	notify_finish(&notify);
	check_int(notify_init(&notify, 1, &error), -EBADF);
	check_contains(error.text, "descriptor 1 ");
	notify_finish(&notify);
	check(fcntl(1, F_GETFD) >= 0);
}

static void test_notify_newline_never_waits_nor_kills(void)
{
	struct notify notify;
	char text[4096] = "";
	int fds[2];

	clear_environment();
	signal(SIGPIPE, SIG_DFL);
	check_int(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
	while (write(fds[1], text, sizeof(text)) > 0)
		;
	check_int(fd_set_nonblock(fds[1], false), 0);
	check_int(notify_init(&notify, fds[1], NULL), 0);
	check_int(notify_ready(&notify), -EAGAIN);
	check_int(notify.newline_fd, fds[1]);
	while (read(fds[0], text, sizeof(text)) > 0)
		;
	check_int(notify_ready(&notify), 0);
	check_int(read(fds[0], text, sizeof(text)), 1);
	fd_close(fds[0]);
	check_int(pipe2(fds, O_CLOEXEC), 0);
	fd_close(fds[0]);
	check_int(notify_init(&notify, fds[1], NULL), 0);
	check_int(notify_ready(&notify), -EPIPE);
	check_int(notify.newline_fd, -1);
	notify_finish(&notify);
}

static void test_notify_watchdog_is_half_of_what_was_asked(void)
{
	char pid[16], other_pid[16];
	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	snprintf(other_pid, sizeof(other_pid), "%d", (int)getppid());
	const struct {
		const char *usec, *pid;
		int64_t want_ms;
	} cases[] = {
		{"2000000", NULL, 1000},
		{"2000000", pid, 1000},
		{"2000000", other_pid, -1},
		{"2000000", "x", -1},
		{"1", NULL, 1},
		{"0", NULL, -1},
		{"-5", NULL, -1},
		{"2s", NULL, -1},
		{"", NULL, -1},
		{NULL, pid, -1},
		{"18446744073709551615", NULL, -1},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct notify notify;
		int manager_fd = manager_socket();
		if (cases[i].usec)
			setenv("WATCHDOG_USEC", cases[i].usec, 1);
		if (cases[i].pid)
			setenv("WATCHDOG_PID", cases[i].pid, 1);
		check_int(notify_init(&notify, -1, NULL), 0);
		check_int(notify.watchdog_ms, cases[i].want_ms);
		notify_finish(&notify);
		fd_close(manager_fd);
		clear_environment();
	}
}

TEST_MAIN(TEST(test_notify_without_a_manager_does_nothing), TEST(test_notify_sends_the_words_of_sd_notify),
	  TEST(test_notify_reloading_carries_the_time), TEST(test_notify_status_cannot_smuggle_assignments),
	  TEST(test_notify_reaches_a_socket_with_a_path), TEST(test_notify_init_names_a_bad_socket),
	  TEST(test_notify_never_waits_for_a_full_queue), TEST(test_notify_newline_is_sent_once_and_closed),
	  TEST(test_notify_newline_never_waits_nor_kills), TEST(test_notify_watchdog_is_half_of_what_was_asked))
