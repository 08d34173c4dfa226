/* SPDX-License-Identifier: MIT */
/* ts in threads: eight in a blocking accept on each listener, and one for each connection. */
#include "ts.h"

#include <err.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define ACCEPTORS 8

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t fewer; /* somebody of the two below has ended */
static size_t acceptors, conns;
static int drain_event; /* readable from the start of the drain on, so that idle connections wake */

static void count_down(size_t *counter)
{
	pthread_mutex_lock(&lock);
	(*counter)--;
	pthread_cond_signal(&fewer);
	pthread_mutex_unlock(&lock);
}

/* True when there is something to read; false when the drain has waited long enough for it. */
static bool wait_for_request(const struct ts_conn *conn)
{
	struct pollfd fds[2] = {{.fd = conn->fd, .events = POLLIN}, {.fd = drain_event, .events = POLLIN}};
	int patience = conn->answered ? TS_IDLE_MS : TS_FRESH_MS;

	if (!atomic_load(&ts_draining) && poll(fds, 2, -1) > 0 && fds[0].revents)
		return true;
	if (conn->in_len || conn->in_body)
		patience = -1;
	return poll(fds, 1, patience) > 0;
}

static bool read_request(struct ts_conn *conn)
{
	while (!ts_http_parse(conn)) {
		ssize_t got;
		if (!wait_for_request(conn))
			return false;
		got = recv(conn->fd, conn->in + conn->in_len, sizeof(conn->in) - conn->in_len, 0);
		if (got <= 0)
			return false;
		conn->in_len += (size_t)got;
	}
	return true;
}

static bool write_answer(struct ts_conn *conn)
{
	while (conn->out_sent < conn->out_len) {
		ssize_t put = send(conn->fd, conn->out + conn->out_sent, conn->out_len - conn->out_sent, MSG_NOSIGNAL);
		if (put < 0)
			break;
		conn->out_sent += (size_t)put;
	}
	free(conn->out);
	conn->out = NULL;
	conn->answered++;
	return conn->out_sent == conn->out_len;
}

static void *serve_conn(void *argument)
{
	struct ts_conn *conn = argument;

	while (!conn->closing && read_request(conn)) {
		if (conn->sleep_ms > 0)
			ts_nap(conn->sleep_ms);
		ts_http_answer(conn);
		if (!write_answer(conn))
			break;
	}
	close(conn->fd);
	free(conn);
	count_down(&conns);
	return NULL;
}

static void start_conn(int fd, int listen_fd)
{
	struct ts_conn *conn = calloc(1, sizeof(*conn));
	pthread_attr_t attributes;
	pthread_t thread;

	if (!conn)
		err(1, "calloc");
	conn->fd = fd;
	conn->listen_fd = listen_fd;
	pthread_mutex_lock(&lock);
	conns++;
	pthread_mutex_unlock(&lock);
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attributes, 256 * 1024);
	/* Too many threads is no reason to lose a connection that is ours already. */
	if (pthread_create(&thread, &attributes, serve_conn, conn) != 0)
		serve_conn(conn);
	pthread_attr_destroy(&attributes);
}

static void *acceptor(void *argument)
{
	struct pollfd queue = {.fd = *(int *)argument, .events = POLLIN};

	/* The check and the accept are two steps, so a drain can begin between them. The thread then sits in accept
	 * with the drain on, until interrupted again or handed one more connection, which it serves like any other. */
	while (!atomic_load(&ts_draining) || poll(&queue, 1, 0) > 0) {
		int fd = accept4(queue.fd, NULL, NULL, SOCK_CLOEXEC);
		if (fd >= 0)
			start_conn(fd, queue.fd);
		else if (errno == EAGAIN) /* somebody made the listener non-blocking */
			poll(&queue, 1, -1);
		else if (errno == EMFILE || errno == ENFILE)
			poll(NULL, 0, 10);
		else if (errno != EINTR && errno != ECONNABORTED)
			err(1, "accept");
	}
	count_down(&acceptors);
	return NULL;
}

static void on_wake(int signo)
{
	(void)signo;
}

static void wait_for_drain(void)
{
	struct pollfd fds[2] = {{.fd = ts_signal_fd, .events = POLLIN}, {.fd = ts_exit_fd, .events = POLLIN}};

	for (;;) {
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			err(1, "poll");
		if (fds[0].revents && ts_take_signals())
			return;
		if (fds[1].revents)
			_exit(ts.exit_after_status);
	}
}

/* Waits for *counter to reach 0, and looks at the threads (if there are any) every few milliseconds. */
static void wait_until_none(const size_t *counter, const pthread_t *threads, size_t count)
{
	pthread_mutex_lock(&lock);
	while (*counter > 0) {
		struct timespec until;
		for (size_t i = 0; i < count; i++)
			pthread_kill(threads[i], SIGUSR2);
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_nsec += 5 * 1000 * 1000;
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		pthread_cond_timedwait(&fewer, &lock, &until);
		if (count == 0) /* signals that come now still count, and --term-exits still holds */
			ts_take_signals();
	}
	pthread_mutex_unlock(&lock);
}

void ts_serve_threads(void)
{
	static pthread_t threads[TS_LISTENERS_MAX * ACCEPTORS];
	/* Without SA_RESTART: the one purpose of this signal is to end a blocked accept. */
	struct sigaction action = {.sa_handler = on_wake};
	size_t count = ts.listeners * ACCEPTORS;
	pthread_condattr_t attributes;

	sigaction(SIGUSR2, &action, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&fewer, &attributes);
	drain_event = eventfd(0, EFD_CLOEXEC);
	acceptors = count;
	for (size_t i = 0; i < count; i++)
		if (pthread_create(&threads[i], NULL, acceptor, &ts.listen_fds[i / ACCEPTORS]) != 0)
			errx(1, "cannot start a thread");
	ts_say_ready();
	wait_for_drain();
	atomic_store(&ts_draining, true);
	eventfd_write(drain_event, 1);
	wait_until_none(&acceptors, threads, count);
	for (size_t i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
	for (size_t i = 0; i < ts.listeners; i++)
		close(ts.listen_fds[i]);
	wait_until_none(&conns, NULL, 0);
}
