/* SPDX-License-Identifier: MIT */
/* Tests of the look into other processes: every kind of wait, and what must not be taken for one. */
#include <fcntl.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

#include "accepting.h"
#include "process.h"
#include "../lib/test.h"

#define DEADLINE_MS 10000
#define NOBODY 65534

static int fds[2];
static ino_t inodes[2];

static int64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void open_listeners(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
		struct stat stat;
		fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		check(fds[i] >= 0);
		int on = 1;
		check_int(setsockopt(fds[i], SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)), 0);
		check_int(bind(fds[i], (struct sockaddr *)&address, sizeof(address)), 0);
		check_int(listen(fds[i], 8), 0);
		check_int(fstat(fds[i], &stat), 0);
		inodes[i] = stat.st_ino;
	}
}

static void close_listeners(void)
{
	close(fds[0]);
	close(fds[1]);
}

static pid_t start(void (*server)(void))
{
	pid_t pid = fork();
	check(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		server();
		_exit(99);
	}
	return pid;
}

static void stop(pid_t pid)
{
	kill(pid, SIGKILL);
	check_int(waitpid(pid, NULL, 0), pid);
}

/* Waits until the process sleeps in a call that is not the one it began with: nothing tells, so it is asked. */
static void wait_blocked(pid_t pid, long number)
{
	int64_t deadline = now_ms() + DEADLINE_MS;
	char path[64], text[64] = "";
	snprintf(path, sizeof(path), "/proc/%d/syscall", pid);
	while (now_ms() < deadline) {
		FILE *file = fopen(path, "re");
		if (file && fgets(text, sizeof(text), file) && text[0] != 'r' && atol(text) == number) {
			fclose(file);
			return;
		}
		if (file)
			fclose(file);
		poll(NULL, 0, 1);
	}
	test_fail("pid %d never was in call %ld, but in %s", pid, number, text);
}

static enum accepting_verdict look_until(struct accepting *accepting, const pid_t *pids, size_t count,
					 enum accepting_verdict wanted)
{
	int64_t deadline = now_ms() + DEADLINE_MS;
	enum accepting_verdict verdict = accepting_look(accepting, pids, count);
	while (verdict != wanted && now_ms() < deadline) {
		poll(NULL, 0, 1);
		verdict = accepting_look(accepting, pids, count);
	}
	return verdict;
}

static void check_becomes(void (*server)(void), enum accepting_verdict wanted)
{
	struct accepting accepting;
	open_listeners();
	accepting_init(&accepting, inodes, 1, 0);
	pid_t pid = start(server);
	check_int(look_until(&accepting, &pid, 1, wanted), wanted);
	check_int(accepting.seen, wanted == ACCEPTING_YES ? 1 : 0);
	stop(pid);
	close_listeners();
}

static void check_stays(void (*server)(void), long number)
{
	struct accepting accepting;
	open_listeners();
	accepting_init(&accepting, inodes, 1, 0);
	pid_t pid = start(server);
	wait_blocked(pid, number);
	for (int i = 0; i < 4; i++)
		check_int(accepting_look(&accepting, &pid, 1), ACCEPTING_NOT_YET);
	check_int(accepting.seen, 0);
	stop(pid);
	close_listeners();
}

static void serve_accept(void)
{
	accept(fds[0], NULL, NULL);
}

static void serve_second(void)
{
	accept(fds[1], NULL, NULL);
}

static void *accept_thread(void *data)
{
	(void)data;
	accept(fds[0], NULL, NULL);
	return NULL;
}

static void serve_threads(void)
{
	pthread_t thread;
	pthread_create(&thread, NULL, accept_thread, NULL);
	pause();
}

static void serve_leader_gone(void)
{
	pthread_t thread;
	pthread_create(&thread, NULL, accept_thread, NULL);
	/* Not pthread_exit: the call alone ends this thread without what belongs to the sanitizers. */
	syscall(SYS_exit, 0);
}

static void serve_moved(void)
{
	int fd = dup2(fds[0], 200);
	close(fds[0]);
	accept(fd, NULL, NULL);
}

static void serve_poll(void)
{
	struct pollfd entries[600];
	for (size_t i = 0; i < ARRAY_SIZE(entries); i++)
		entries[i] = (struct pollfd){.fd = -1, .events = POLLIN};
	entries[ARRAY_SIZE(entries) - 1].fd = fds[0];
	poll(entries, ARRAY_SIZE(entries), -1);
}

static void serve_ppoll(void)
{
	struct pollfd entry = {.fd = fds[0], .events = POLLIN};
	struct timespec limit = {.tv_sec = 60};
	ppoll(&entry, 1, &limit, NULL);
}

static void serve_poll_urgent(void)
{
	struct pollfd entry = {.fd = fds[0], .events = POLLPRI};
	ppoll(&entry, 1, NULL, NULL);
}

static void serve_select(void)
{
	int fd = dup2(fds[0], 300);
	fd_set set;
	FD_ZERO(&set);
	FD_SET(fd, &set);
	close(fds[0]);
	select(fd + 1, &set, NULL, NULL, NULL);
}

static void serve_pselect(void)
{
	fd_set set;
	FD_ZERO(&set);
	FD_SET(fds[0], &set);
	pselect(fds[0] + 1, &set, NULL, NULL, NULL, NULL);
}

static void serve_select_errors(void)
{
	fd_set set;
	FD_ZERO(&set);
	FD_SET(fds[0], &set);
	pselect(fds[0] + 1, NULL, NULL, &set, NULL, NULL);
}

static int make_epoll(int fd, uint32_t events)
{
	struct epoll_event event = {.events = events};
	int epoll_fd = epoll_create1(0);
	epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
	return epoll_fd;
}

static void serve_epoll(void)
{
	struct epoll_event event;
	epoll_wait(make_epoll(fds[0], EPOLLIN | EPOLLET), &event, 1, -1);
}

static void serve_epoll_paused(void)
{
	struct epoll_event event;
	epoll_pwait(make_epoll(fds[0], EPOLLOUT), &event, 1, -1, NULL);
}

static void serve_epoll_nested(void)
{
	struct epoll_event event;
	epoll_wait(make_epoll(make_epoll(fds[0], EPOLLIN), EPOLLIN), &event, 1, -1);
}

static void serve_epoll_in_poll(void)
{
	struct pollfd entry = {.fd = make_epoll(fds[0], EPOLLIN), .events = POLLIN};
	poll(&entry, 1, -1);
}

/* A registered listener alone is no wait. */
static void serve_asleep(void)
{
	make_epoll(fds[0], EPOLLIN);
	ppoll(NULL, 0, NULL, NULL);
}

static void serve_running(void)
{
	make_epoll(fds[0], EPOLLIN);
	for (volatile int i = 0;; i++)
		;
}

static void serve_uring(void)
{
	struct io_uring_params parameters;
	memset(&parameters, 0, sizeof(parameters));
	if (syscall(SYS_io_uring_setup, 4, &parameters) < 0)
		_exit(1);
	pause();
}

static int told[2]; /* a pipe from the server: its preparations are done */

static void tell_and_spin(void)
{
	if (write(told[1], "x", 1) == 1)
		serve_running();
}

static void serve_busy_with_connection(void)
{
	if (accept(fds[0], NULL, NULL) >= 0)
		tell_and_spin();
}

/* A client of the held listener, with a listener of its own on the same address. */
static void serve_busy_as_client(void)
{
	struct sockaddr_in address;
	socklen_t length = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM, 0), own_fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
	getsockname(fds[0], (struct sockaddr *)&address, &length);
	setsockopt(own_fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
	if (connect(fd, (struct sockaddr *)&address, length) == 0 &&
	    bind(own_fd, (struct sockaddr *)&address, length) == 0 && listen(own_fd, 1) == 0)
		tell_and_spin();
}

static enum accepting_verdict look_at_busy(void (*server)(void))
{
	struct accepting accepting;
	enum accepting_verdict verdict = ACCEPTING_NOT_YET;
	char byte;
	check_int(pipe2(told, O_CLOEXEC), 0);
	accepting_init(&accepting, inodes, 1, 0);
	pid_t pid = start(server);
	check_int(read(told[0], &byte, 1), 1);
	for (int i = 0; i < 20; i++)
		verdict = accepting_look(&accepting, &pid, 1);
	stop(pid);
	close(told[0]);
	close(told[1]);
	return verdict;
}

static bool fds_can_be_borrowed(void)
{
#ifdef SYS_pidfd_getfd
	int pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
	int fd = pidfd < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, pidfd, 0, 0);
	if (pidfd >= 0)
		close(pidfd);
	if (fd >= 0)
		close(fd);
	return fd >= 0;
#else
	return false;
#endif
}

static int connect_to(int listen_fd)
{
	struct sockaddr_storage address;
	socklen_t length = sizeof(address);
	check_int(getsockname(listen_fd, (struct sockaddr *)&address, &length), 0);
	int fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	check_int(connect(fd, (struct sockaddr *)&address, length), 0);
	return fd;
}

static void test_accepting_sees_taken_connections_of_a_busy_server(void)
{
	if (!fds_can_be_borrowed())
		return; /* an older kernel, or a filter: then only waits are seen */
	open_listeners();
	int client_fd = connect_to(fds[0]);
	check_int(look_at_busy(serve_busy_with_connection), ACCEPTING_YES);
	close(client_fd);
	check_int(look_at_busy(serve_busy_as_client), ACCEPTING_NOT_YET);
	close_listeners();
}

static void test_accepting_sees_taken_connections_of_any_family(void)
{
	/* Without a path the kernel gives an abstract name. */
	struct sockaddr address = {.sa_family = AF_UNIX};
	struct sockaddr_in6 wildcard = {.sin6_family = AF_INET6, .sin6_addr = in6addr_any};
	struct stat stat;
	if (!fds_can_be_borrowed())
		return;
	for (int i = 0; i < 2; i++) {
		open_listeners();
		close(fds[0]);
		fds[0] = socket(i ? AF_UNIX : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (fds[0] >= 0) {
			check_int(i ? bind(fds[0], &address, sizeof(sa_family_t))
				    : bind(fds[0], (struct sockaddr *)&wildcard, sizeof(wildcard)),
				  0);
			check_int(listen(fds[0], 8), 0);
			check_int(fstat(fds[0], &stat), 0);
			inodes[0] = stat.st_ino;
			int client_fd = connect_to(fds[0]);
			check_int(look_at_busy(serve_busy_with_connection), ACCEPTING_YES);
			close(client_fd);
		}
		close_listeners();
	}
}

static void test_accepting_sees_accept(void)
{
	check_becomes(serve_accept, ACCEPTING_YES);
	check_becomes(serve_threads, ACCEPTING_YES);
	check_becomes(serve_moved, ACCEPTING_YES);
}

static void test_accepting_sees_a_process_without_its_leader_thread(void)
{
	check_becomes(serve_leader_gone, ACCEPTING_YES);
}

static void test_accepting_sees_poll(void)
{
	check_becomes(serve_poll, ACCEPTING_YES);
	check_becomes(serve_ppoll, ACCEPTING_YES);
}

static void test_accepting_sees_select(void)
{
	check_becomes(serve_select, ACCEPTING_YES);
	check_becomes(serve_pselect, ACCEPTING_YES);
}

static void test_accepting_sees_epoll(void)
{
	check_becomes(serve_epoll, ACCEPTING_YES);
	check_becomes(serve_epoll_nested, ACCEPTING_YES);
	check_becomes(serve_epoll_in_poll, ACCEPTING_YES);
}

static void test_accepting_wants_epoll_idle_twice(void)
{
	struct accepting accepting;
	open_listeners();
	accepting_init(&accepting, inodes, 1, 0);
	pid_t pid = start(serve_epoll);
	int64_t deadline = now_ms() + DEADLINE_MS;
	while (accepting.idle_count == 0 && now_ms() < deadline)
		check_int(accepting_look(&accepting, &pid, 1), ACCEPTING_NOT_YET);
	check_int(accepting.idle_count, 1);
	check_int(accepting.idle[0].tid, pid);
	/* Another task's wait in the look before is no wait of this one's. */
	accepting.idle[0].tid++;
	check_int(accepting_look(&accepting, &pid, 1), ACCEPTING_NOT_YET);
	check_int(accepting_look(&accepting, &pid, 1), ACCEPTING_YES);
	stop(pid);
	close_listeners();
}

static void test_accepting_ignores_other_waits(void)
{
	check_stays(serve_poll_urgent, SYS_ppoll);
	check_stays(serve_select_errors, SYS_pselect6);
	check_stays(serve_epoll_paused, SYS_epoll_pwait);
	check_stays(serve_asleep, SYS_ppoll);
	check_stays(serve_second, SYS_accept);
}

static void test_accepting_ignores_a_running_task(void)
{
	struct accepting accepting;
	open_listeners();
	accepting_init(&accepting, inodes, 1, 0);
	pid_t pid = start(serve_running);
	for (int i = 0; i < 50; i++)
		check_int(accepting_look(&accepting, &pid, 1), ACCEPTING_NOT_YET);
	stop(pid);
	close_listeners();
}

static void test_accepting_wants_every_listener_of_any_process(void)
{
	struct accepting accepting, second;
	open_listeners();
	accepting_init(&accepting, inodes, 2, 0);
	check_int(accepting.wanted, 3);
	pid_t pids[2] = {start(serve_accept), 0};
	wait_blocked(pids[0], SYS_accept);
	check_int(accepting_look(&accepting, pids, 1), ACCEPTING_NOT_YET);
	check_int(accepting.seen, 1);
	pids[1] = start(serve_second);
	check_int(look_until(&accepting, pids, 2, ACCEPTING_YES), ACCEPTING_YES);
	check_int(accepting.seen, 3);
	accepting_init(&second, inodes, 2, 2);
	check_int(accepting_look(&second, pids, 1), ACCEPTING_NOT_YET);
	check_int(accepting_look(&second, pids + 1, 1), ACCEPTING_YES);
	stop(pids[0]);
	stop(pids[1]);
	close_listeners();
}

static void test_accepting_keeps_what_it_saw(void)
{
	struct accepting accepting;
	open_listeners();
	accepting_init(&accepting, inodes, 2, 0);
	pid_t pid = start(serve_accept);
	wait_blocked(pid, SYS_accept);
	check_int(accepting_look(&accepting, &pid, 1), ACCEPTING_NOT_YET);
	stop(pid);
	pid = start(serve_second);
	check_int(look_until(&accepting, &pid, 1, ACCEPTING_YES), ACCEPTING_YES);
	stop(pid);
	close_listeners();
}

static void test_accepting_without_listeners_is_never_yes(void)
{
	struct accepting accepting;
	pid_t pid = getpid();
	accepting_init(&accepting, NULL, 0, 0);
	check_int(accepting_look(&accepting, &pid, 1), ACCEPTING_NOT_YET);
	accepting_init(&accepting, inodes, 100, 0);
	check_int(accepting.count, ACCEPTING_MAX);
	check(accepting.wanted == UINT64_MAX);
}

static void test_accepting_leaves_out_what_exits(void)
{
	struct accepting accepting;
	open_listeners();
	accepting_init(&accepting, inodes, 1, 0);
	pid_t pid = fork();
	if (pid == 0)
		_exit(0);
	siginfo_t info;
	check_int(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
	check_int(accepting_look(&accepting, &pid, 1), ACCEPTING_NOT_YET);
	check_int(waitpid(pid, NULL, 0), pid);
	check_int(accepting_look(&accepting, &pid, 1), ACCEPTING_NOT_YET);
	close_listeners();
}

static void test_accepting_tells_uring(void)
{
	struct accepting accepting;
	struct io_uring_params parameters;
	memset(&parameters, 0, sizeof(parameters));
	int ring_fd = (int)syscall(SYS_io_uring_setup, 4, &parameters);
	if (ring_fd < 0 && (errno == ENOSYS || errno == EPERM))
		return; /* switched off in this kernel or container: nobody can have one */
	check(ring_fd >= 0);
	close(ring_fd);
	check_becomes(serve_uring, ACCEPTING_URING);

	open_listeners();
	accepting_init(&accepting, inodes, 1, 0);
	pid_t pids[2] = {start(serve_uring), start(serve_accept)};
	check_int(look_until(&accepting, pids, 1, ACCEPTING_URING), ACCEPTING_URING);
	check_int(accepting.uring_pid, pids[0]);
	check_int(look_until(&accepting, pids, 2, ACCEPTING_YES), ACCEPTING_YES);
	stop(pids[0]);
	stop(pids[1]);
	close_listeners();
}

static void serve_not_dumpable(void)
{
	prctl(PR_SET_DUMPABLE, 0);
	accept(fds[0], NULL, NULL);
}

static int look_as_nobody(void)
{
	struct accepting accepting;
	struct process_stat stat;
	pid_t other = 1;
	if (geteuid() == 0 && (setresgid(NOBODY, NOBODY, NOBODY) < 0 || setresuid(NOBODY, NOBODY, NOBODY) < 0))
		return 2;
	/* A change of the uid took it away, and the children would inherit that. */
	prctl(PR_SET_DUMPABLE, 1);
	accepting_init(&accepting, inodes, 1, 0);
	pid_t pids[2] = {start(serve_not_dumpable), start(serve_accept)};
	int result = 0;
	if (look_until(&accepting, pids, 1, ACCEPTING_UNREADABLE) != ACCEPTING_UNREADABLE)
		result = 3;
	else if (accepting.unreadable_pid != pids[0] || strcmp(accepting.unreadable_why, "not dumpable") != 0)
		result = 4;
	else if (look_until(&accepting, pids, 2, ACCEPTING_YES) != ACCEPTING_YES)
		result = 5;
	accepting_init(&accepting, inodes, 1, 0);
	if (result == 0 && process_stat(other, &stat) >= 0 &&
	    (accepting_look(&accepting, &other, 1) != ACCEPTING_UNREADABLE ||
	     strcmp(accepting.unreadable_why, "another user") != 0))
		result = 6;
	stop(pids[0]);
	stop(pids[1]);
	return result;
}

static void test_accepting_tells_unreadable(void)
{
	int status;
	open_listeners();
	pid_t pid = fork();
	check(pid >= 0);
	if (pid == 0)
		_exit(look_as_nobody());
	check_int(waitpid(pid, &status, 0), pid);
	check_int(status, 0);
	close_listeners();
}

TEST_MAIN(TEST(test_accepting_sees_accept), TEST(test_accepting_sees_a_process_without_its_leader_thread),
	  TEST(test_accepting_sees_poll), TEST(test_accepting_sees_select), TEST(test_accepting_sees_epoll),
	  TEST(test_accepting_wants_epoll_idle_twice), TEST(test_accepting_ignores_other_waits),
	  TEST(test_accepting_ignores_a_running_task), TEST(test_accepting_wants_every_listener_of_any_process),
	  TEST(test_accepting_keeps_what_it_saw), TEST(test_accepting_without_listeners_is_never_yes),
	  TEST(test_accepting_leaves_out_what_exits), TEST(test_accepting_sees_taken_connections_of_a_busy_server),
	  TEST(test_accepting_sees_taken_connections_of_any_family), TEST(test_accepting_tells_uring),
	  TEST(test_accepting_tells_unreadable))
