/* SPDX-License-Identifier: MIT */
/* ts in one thread: the same server over epoll, poll or select. */
#include "ts.h"

#include <bsd/sys/queue.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum source_kind { SOURCE_LISTENER, SOURCE_DATAGRAMS, SOURCE_SIGNALS, SOURCE_EXIT, SOURCE_CONN };

/* One descriptor waited for; the loop owns it, a connection's descriptor and state included. */
struct source {
	enum source_kind kind;
	int fd;
	short want, got; /* in poll's bits, whatever the call */
	int64_t last_ms; /* when its connection last did something */
	int64_t wake_ms; /* when its /sleep is over, 0: it does not sleep */
	struct ts_conn *conn;
	TAILQ_ENTRY(source) link;
	TAILQ_ENTRY(source) sleeper;
};

TAILQ_HEAD(source_list, source);

static struct source_list sources = TAILQ_HEAD_INITIALIZER(sources);
static struct source_list sleepers = TAILQ_HEAD_INITIALIZER(sleepers);
static size_t source_count, conn_count;
static int epoll_fd = -1;
static int64_t drain_ms;
static bool full; /* no descriptors left: listeners are not waited for until a connection ends */

static void source_want(struct source *source, short want)
{
	struct epoll_event event = {.events = (uint32_t)want, .data.ptr = source};

	if (source->want == want)
		return;
	source->want = want;
	if (ts.mode == TS_EPOLL && epoll_ctl(epoll_fd, EPOLL_CTL_MOD, source->fd, &event) < 0)
		err(1, "epoll_ctl");
}

static struct source *source_add(enum source_kind kind, int fd)
{
	struct source *source = calloc(1, sizeof(*source));
	struct epoll_event event = {.events = POLLIN, .data.ptr = source};

	if (!source)
		err(1, "calloc");
	source->kind = kind;
	source->fd = fd;
	source->want = POLLIN;
	if (ts.mode == TS_EPOLL && epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		err(1, "epoll_ctl");
	TAILQ_INSERT_TAIL(&sources, source, link);
	source_count++;
	return source;
}

static void listeners_want(short want)
{
	struct source *source;

	TAILQ_FOREACH (source, &sources, link)
		if (source->kind == SOURCE_LISTENER)
			source_want(source, want);
}

static void source_remove(struct source *source)
{
	/* A listener stays open elsewhere, and with its description open an epoll keeps reporting it. */
	if (ts.mode == TS_EPOLL)
		epoll_ctl(epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
	if (source->wake_ms)
		TAILQ_REMOVE(&sleepers, source, sleeper);
	TAILQ_REMOVE(&sources, source, link);
	source_count--;
	close(source->fd);
	if (source->conn) {
		conn_count--;
		free(source->conn->out);
		free(source->conn);
	}
	free(source);
	if (full) {
		full = false;
		listeners_want(POLLIN);
	}
}

static void conn_answer(struct source *source)
{
	ts_http_answer(source->conn);
	source_want(source, POLLOUT);
}

/* False when the connection is over. */
static bool conn_next_request(struct source *source)
{
	struct ts_conn *conn = source->conn;

	if (!ts_http_parse(conn)) {
		source_want(source, POLLIN);
		return true;
	}
	if (conn->sleep_ms > 0) {
		source->wake_ms = ts_now_ms() + conn->sleep_ms;
		TAILQ_INSERT_TAIL(&sleepers, source, sleeper);
		source_want(source, 0);
		return true;
	}
	conn_answer(source);
	return true;
}

static bool conn_read(struct source *source)
{
	struct ts_conn *conn = source->conn;
	ssize_t got = recv(source->fd, conn->in + conn->in_len, sizeof(conn->in) - conn->in_len, MSG_DONTWAIT);

	if (got < 0)
		return errno == EAGAIN || errno == EINTR;
	if (got == 0)
		return false;
	conn->in_len += (size_t)got;
	return conn_next_request(source);
}

static bool conn_write(struct source *source)
{
	struct ts_conn *conn = source->conn;
	ssize_t put = send(source->fd, conn->out + conn->out_sent, conn->out_len - conn->out_sent,
			   MSG_DONTWAIT | MSG_NOSIGNAL);

	if (put < 0)
		return errno == EAGAIN || errno == EINTR;
	conn->out_sent += (size_t)put;
	if (conn->out_sent < conn->out_len)
		return true;
	free(conn->out);
	conn->out = NULL;
	conn->answered++;
	return conn->closing ? false : conn_next_request(source);
}

static void conn_event(struct source *source)
{
	bool alive;

	source->last_ms = ts_now_ms();
	if (source->wake_ms)
		alive = false; /* it waits for nothing but an error or a hang-up: the client has gone */
	else
		alive = source->conn->out ? conn_write(source) : conn_read(source);
	/* Most answers fit the socket's buffer: trying at once saves a turn of the loop. */
	if (alive && source->conn->out && source->conn->out_sent == 0)
		alive = conn_write(source);
	if (!alive)
		source_remove(source);
}

static void on_alarm(int signo)
{
	(void)signo;
}

/* The listener may be a blocking one, and another process may have taken the connection that woke us: this accept
 * would then sit until the next client comes. The flag is shared with the other holders, so it is not ours to change;
 * an alarm that keeps ringing gets us out. */
static int accept_blocking(int listen_fd)
{
	const struct itimerval ring = {.it_interval.tv_usec = 1000, .it_value.tv_usec = 2000}, quiet = {0};
	int fd, error;

	setitimer(ITIMER_REAL, &ring, NULL);
	fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
	error = errno;
	setitimer(ITIMER_REAL, &quiet, NULL);
	errno = error;
	return fd;
}

/* Takes one connection; false when there is none to take now. */
static bool accept_one(int listen_fd, bool blocking)
{
	int fd = blocking ? accept_blocking(listen_fd) : accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0 && (errno == EMFILE || errno == ENFILE)) {
		full = true;
		listeners_want(0);
	}
	if (fd < 0)
		return errno == ECONNABORTED;
	struct source *source = source_add(SOURCE_CONN, fd);
	source->conn = calloc(1, sizeof(*source->conn));
	if (!source->conn)
		err(1, "calloc");
	source->conn->fd = fd;
	source->conn->listen_fd = listen_fd;
	source->last_ms = ts_now_ms();
	conn_count++;
	if (ts.mode == TS_SELECT && source_count + 32 > FD_SETSIZE) {
		full = true;
		listeners_want(0);
	}
	return true;
}

static bool is_blocking(int fd)
{
	return !(fcntl(fd, F_GETFL) & O_NONBLOCK);
}

static void accept_event(struct source *source)
{
	/* Asked each time: any other holder of the socket may have changed it. */
	if (is_blocking(source->fd)) {
		accept_one(source->fd, true);
		return;
	}
	while (!full && accept_one(source->fd, false))
		;
}

static void datagram_event(int fd)
{
	struct sockaddr_storage from;
	char text[2048];
	ssize_t got;

	for (;;) {
		socklen_t length = sizeof(from);
		got = recvfrom(fd, text, sizeof(text), MSG_DONTWAIT, (struct sockaddr *)&from, &length);
		if (got < 0)
			return;
		int size = ts_http_identity(text, sizeof(text), fd);
		if (length > sizeof(from.ss_family))
			sendto(fd, text, (size_t)size, MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&from, length);
	}
}

static void start_drain(void)
{
	struct source *source, *next;

	atomic_store(&ts_draining, true);
	drain_ms = ts_now_ms();
	TAILQ_FOREACH_SAFE (source, &sources, link, next) {
		struct pollfd queue = {.fd = source->fd, .events = POLLIN};
		if (source->kind == SOURCE_DATAGRAMS)
			datagram_event(source->fd);
		if (source->kind == SOURCE_LISTENER)
			while (poll(&queue, 1, 0) > 0 && !full)
				accept_one(source->fd, is_blocking(source->fd));
	}
	TAILQ_FOREACH_SAFE (source, &sources, link, next)
		if (source->kind == SOURCE_LISTENER || source->kind == SOURCE_DATAGRAMS)
			source_remove(source);
}

/* When this connection is to be closed for its silence; INT64_MAX: never (not draining, or it has work). */
static int64_t idle_deadline(const struct source *source)
{
	const struct ts_conn *conn = source->conn;

	if (!drain_ms || !conn || source->wake_ms || conn->out || conn->in_len || conn->in_body)
		return INT64_MAX;
	return (source->last_ms > drain_ms ? source->last_ms : drain_ms) + (conn->answered ? TS_IDLE_MS : TS_FRESH_MS);
}

static int next_timeout(void)
{
	int64_t soonest = INT64_MAX, now = ts_now_ms();
	struct source *source;

	TAILQ_FOREACH (source, &sleepers, sleeper)
		if (source->wake_ms < soonest)
			soonest = source->wake_ms;
	if (drain_ms)
		TAILQ_FOREACH (source, &sources, link)
			if (idle_deadline(source) < soonest)
				soonest = idle_deadline(source);
	if (soonest == INT64_MAX)
		return -1;
	return soonest <= now ? 0 : (int)(soonest - now);
}

static void run_timers(void)
{
	struct source *source, *next;
	int64_t now = ts_now_ms();

	TAILQ_FOREACH_SAFE (source, &sleepers, sleeper, next)
		if (source->wake_ms <= now) {
			source->wake_ms = 0;
			source->last_ms = now;
			TAILQ_REMOVE(&sleepers, source, sleeper);
			conn_answer(source);
		}
	if (!drain_ms)
		return;
	TAILQ_FOREACH_SAFE (source, &sources, link, next) {
		char byte;
		if (idle_deadline(source) > now)
			continue;
		/* A request that came in since the wait is not to be thrown away with the connection. */
		if (recv(source->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0)
			conn_event(source);
		else
			source_remove(source);
	}
}

static int wait_epoll(int timeout)
{
	struct epoll_event events[256];
	int count = epoll_wait(epoll_fd, events, 256, timeout);

	for (int i = 0; i < count; i++)
		((struct source *)events[i].data.ptr)->got = (short)events[i].events;
	return count;
}

static int wait_poll(int timeout)
{
	struct pollfd *fds = calloc(source_count, sizeof(*fds));
	struct source *source;
	nfds_t used = 0;
	int count;

	if (!fds)
		err(1, "calloc");
	TAILQ_FOREACH (source, &sources, link)
		fds[used++] = (struct pollfd){.fd = source->fd, .events = source->want};
	count = poll(fds, used, timeout);
	used = 0;
	if (count > 0)
		TAILQ_FOREACH (source, &sources, link)
			source->got = fds[used++].revents;
	free(fds);
	return count;
}

static int wait_select(int timeout)
{
	struct timeval time = {.tv_sec = timeout / 1000, .tv_usec = timeout % 1000 * 1000};
	struct source *source;
	fd_set in, out;
	int count, top = -1;

	FD_ZERO(&in);
	FD_ZERO(&out);
	TAILQ_FOREACH (source, &sources, link) {
		if (source->want & POLLIN)
			FD_SET(source->fd, &in);
		if (source->want & POLLOUT)
			FD_SET(source->fd, &out);
		top = source->fd > top ? source->fd : top;
	}
	count = select(top + 1, &in, &out, NULL, timeout < 0 ? NULL : &time);
	if (count > 0)
		TAILQ_FOREACH (source, &sources, link)
			source->got = (short)((FD_ISSET(source->fd, &in) ? POLLIN : 0) |
					      (FD_ISSET(source->fd, &out) ? POLLOUT : 0));
	return count;
}

static void source_event(struct source *source)
{
	switch (source->kind) {
	case SOURCE_LISTENER:
		accept_event(source);
		break;
	case SOURCE_DATAGRAMS:
		datagram_event(source->fd);
		break;
	case SOURCE_SIGNALS:
		if (ts_take_signals() && !drain_ms)
			start_drain();
		break;
	case SOURCE_EXIT:
		_exit(ts.exit_after_status);
	case SOURCE_CONN:
		conn_event(source);
		break;
	}
}

/* Connections first, then listeners, then signals: a drain then begins with nothing left over in this turn, and no
 * event refers to a source that an earlier one removed (only a source's own event or a signal removes it). */
static void dispatch(void)
{
	static const enum source_kind order[] = {SOURCE_CONN, SOURCE_LISTENER, SOURCE_DATAGRAMS, SOURCE_EXIT,
						 SOURCE_SIGNALS};
	struct source *source, *next;

	for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++)
		TAILQ_FOREACH_SAFE (source, &sources, link, next)
			if (source->kind == order[i] && source->got) {
				source->got = 0;
				source_event(source);
				if (drain_ms && order[i] == SOURCE_SIGNALS)
					return;
			}
}

static void open_sources(void)
{
	for (size_t i = 0; i < ts.listeners; i++) {
		int fd = ts.listen_fds[i], type = SOCK_STREAM;
		socklen_t length = sizeof(type);
		getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length);
		source_add(type == SOCK_STREAM ? SOURCE_LISTENER : SOURCE_DATAGRAMS, fd);
	}
	source_add(SOURCE_SIGNALS, ts_signal_fd);
}

void ts_serve_events(void)
{
	struct sigaction action = {.sa_handler = on_alarm};

	sigaction(SIGALRM, &action, NULL);
	if (ts.mode == TS_EPOLL)
		epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	open_sources();
	ts_say_ready();
	if (ts_exit_fd >= 0)
		source_add(SOURCE_EXIT, ts_exit_fd);
	while (!drain_ms || conn_count) {
		int timeout = next_timeout(), count;
		if (ts.mode == TS_EPOLL)
			count = wait_epoll(timeout);
		else
			count = ts.mode == TS_POLL ? wait_poll(timeout) : wait_select(timeout);
		if (count < 0 && errno != EINTR)
			err(1, "waiting");
		if (count > 0)
			dispatch();
		run_timers();
	}
	while (!TAILQ_EMPTY(&sources))
		source_remove(TAILQ_FIRST(&sources));
	if (epoll_fd >= 0)
		close(epoll_fd);
}
