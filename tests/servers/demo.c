/* SPDX-License-Identifier: MIT */
/* The server that ./bootstrap run shows: small, over epoll, and a model of what a server does to be handed off. */
#include <bsd/stdlib.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS_MAX 4096
#define IDLE_MS 500

struct connection {
	bool open;
	char head[4096];
	size_t used;
	int64_t last_ms;
};

/* By descriptor number. */
static struct connection connections[CONNECTIONS_MAX];
static int epoll_fd, open_count, top_fd;
static int64_t started_ms, drain_ms;
static unsigned long long requests;

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int number_from(const char *variable)
{
	const char *text = getenv(variable), *problem = NULL;
	int value = text ? (int)strtonum(text, 0, 1 << 20, &problem) : -1;

	return problem ? -1 : value;
}

static void watch(int fd)
{
	struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		err(1, "epoll_ctl");
}

static void drop(int fd)
{
	close(fd);
	connections[fd].open = false;
	open_count--;
}

/* False when the connection is over. */
static bool answer(int fd, bool last)
{
	const char *generation = getenv("HANDOFF_GENERATION");
	char text[1024], body[512];
	int64_t up_ms = now_ms() - started_ms;
	int size;

	requests++;
	size = snprintf(body, sizeof(body),
			"Hello from generation %s (gen=%s, pid %d).\n"
			"Up for %lld.%lld s, %llu request%s answered%s.\n",
			generation ? generation : "0", generation ? generation : "0", (int)getpid(),
			(long long)(up_ms / 1000), (long long)(up_ms % 1000 / 100), requests, requests == 1 ? "" : "s",
			drain_ms ? ", and about to leave" : "");
	/* While it drains, every client is told to come back on a new connection: to the next generation. */
	last |= drain_ms != 0;
	size = snprintf(text, sizeof(text),
			"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: %s\r\n\r\n%s",
			size, last ? "close" : "keep-alive", body);
	/* An answer this small fits any socket's buffer; a client that leaves no room for it has gone wrong. */
	return send(fd, text, (size_t)size, MSG_DONTWAIT | MSG_NOSIGNAL) == size && !last;
}

static void serve(int fd)
{
	struct connection *connection = &connections[fd];
	ssize_t got = recv(fd, connection->head + connection->used, sizeof(connection->head) - connection->used - 1,
			   MSG_DONTWAIT);
	char *end;

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0) {
		drop(fd);
		return;
	}
	connection->last_ms = now_ms();
	connection->used += (size_t)got;
	connection->head[connection->used] = '\0';
	while ((end = strstr(connection->head, "\r\n\r\n"))) {
		end[2] = '\0';
		bool last = strcasestr(connection->head, "\r\nConnection: close") ||
			    strstr(connection->head, "HTTP/1.0\r\n");
		if (!answer(fd, last)) {
			drop(fd);
			return;
		}
		connection->used -= (size_t)(end + 4 - connection->head);
		memmove(connection->head, end + 4, connection->used + 1);
	}
	if (connection->used == sizeof(connection->head) - 1)
		drop(fd);
}

static void take_all(int listen_fd)
{
	int fd;

	while ((fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC)) >= 0 || errno == ECONNABORTED || errno == EINTR) {
		if (fd < 0)
			continue;
		if (fd >= CONNECTIONS_MAX) {
			close(fd);
			continue;
		}
		connections[fd].open = true;
		connections[fd].used = 0;
		connections[fd].last_ms = now_ms();
		top_fd = fd > top_fd ? fd : top_fd;
		open_count++;
		watch(fd);
	}
}

/* What waits in the queue now is served; what comes later is for the next generation. */
static void start_drain(int first_fd, int count)
{
	drain_ms = now_ms();
	for (int fd = first_fd; fd < first_fd + count; fd++) {
		take_all(fd);
		/* The supervisor keeps the socket open, so closing our descriptor alone would not end its events. */
		epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, NULL);
		close(fd);
	}
	fprintf(stderr, "demo: draining, %d connection%s open\n", open_count, open_count == 1 ? "" : "s");
}

/* A client that is told nothing, because it asks nothing, is let go after a while. */
static void drop_idle(void)
{
	int64_t now = now_ms();

	for (int fd = 0; fd <= top_fd; fd++) {
		struct connection *connection = &connections[fd];
		if (!connection->open || connection->used > 0)
			continue;
		if (now - (connection->last_ms > drain_ms ? connection->last_ms : drain_ms) >= IDLE_MS)
			drop(fd);
	}
}

static void say_ready(void)
{
	int fd = number_from("HANDOFF_READY_FD");

	if (fd < 0)
		return;
	if (write(fd, "\n", 1) != 1)
		warn("HANDOFF_READY_FD");
	close(fd);
}

static int hold_drain_signals(void)
{
	sigset_t mask;
	int fd;

	sigemptyset(&mask);
	sigaddset(&mask, SIGINT);
	sigaddset(&mask, SIGTERM);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		err(1, "signalfd");
	return fd;
}

int main(void)
{
	const int first_fd = 3, count = number_from("LISTEN_FDS");
	struct epoll_event events[64];

	if (count < 1)
		errx(2, "no listener was passed: run it as `handoff run -l :8080 -- demo`");
	started_ms = now_ms();
	int signal_fd = hold_drain_signals();
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	watch(signal_fd);
	for (int fd = first_fd; fd < first_fd + count; fd++) {
		/* Shared with the other generations, which are this program as well and want the same. */
		fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
		watch(fd);
	}
	say_ready();
	while (!drain_ms || open_count > 0) {
		int ready = epoll_wait(epoll_fd, events, 64, drain_ms ? 50 : -1);
		bool asked = false;
		for (int i = 0; i < ready; i++) {
			int fd = events[i].data.fd;
			if (fd == signal_fd) {
				struct signalfd_siginfo info;
				asked |= read(signal_fd, &info, sizeof(info)) > 0;
			} else if (fd >= first_fd && fd < first_fd + count && !connections[fd].open) {
				take_all(fd);
			} else {
				serve(fd);
			}
		}
		if (asked && !drain_ms)
			start_drain(first_fd, count);
		if (drain_ms)
			drop_idle();
	}
	return 0;
}
