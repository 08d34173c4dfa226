/* SPDX-License-Identifier: MIT */
/* The open loop: requests begin when the schedule says so, however long the answers take. */
#include "load.h"

#include <bsd/string.h>
#include <bsd/sys/queue.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum flow_state {
	FLOW_IDLE,       /* keep-alive only: no request at hand; fd is -1 or an open connection */
	FLOW_QUEUE_FULL, /* a unix connect that must be made again, as a blocking one would wait */
	FLOW_CONNECTING,
	FLOW_ANSWER,
};

/* One connection's worth of work: a single request, or a keep-alive client. */
struct flow {
	enum load_kind kind;
	enum flow_state state;
	int fd;
	int64_t due_ns;   /* keep-alive: when the next request is to begin */
	int64_t began_ns; /* the request at hand: what its timeout counts from */
	struct load_record record;
	size_t used, room;
	char *text;
	TAILQ_ENTRY(flow) busy; /* in busy_flows while not idle, oldest first */
};

TAILQ_HEAD(flow_list, flow);

static struct flow_list busy_flows = TAILQ_HEAD_INITIALIZER(busy_flows);
static struct flow *clients;
static size_t queue_full;
static int epoll_fd, timer_fd, signal_fd;
static int64_t begin_ns, end_ns;
static uint64_t started; /* requests of new connections */
static char mark_text[256];
static size_t mark_used;

static void watch(int fd, void *owner)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = owner};

	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		err(1, "epoll_ctl");
}

static void flow_want(struct flow *flow, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = flow};

	epoll_ctl(epoll_fd, EPOLL_CTL_MOD, flow->fd, &event);
}

static void flow_disconnect(struct flow *flow)
{
	if (flow->fd >= 0)
		close(flow->fd);
	flow->fd = -1;
}

/* The request at hand is over. A flow of a single request is gone after this. */
static void flow_done(struct flow *flow, enum load_result result)
{
	flow->record.latency_ns = load_now_ns() - flow->record.scheduled_ns;
	flow->record.result = (uint8_t)result;
	load_record_add(&flow->record);
	TAILQ_REMOVE(&busy_flows, flow, busy);
	if (flow->state == FLOW_QUEUE_FULL)
		queue_full--;
	flow->state = FLOW_IDLE;
	if (result != LOAD_OK || flow->kind == LOAD_NEW)
		flow_disconnect(flow);
	if (flow->kind != LOAD_NEW)
		return;
	free(flow->text);
	free(flow);
}

static void flow_send(struct flow *flow)
{
	char text[2048];
	size_t size = load_request(text, sizeof(text), flow->kind == LOAD_KEEPALIVE);
	ssize_t put = send(flow->fd, text, size, MSG_NOSIGNAL);

	/* A fresh or idle connection's buffer has room for so little. */
	if (put != (ssize_t)size) {
		flow_done(flow, put < 0 ? load_result_of(errno) : LOAD_ERROR);
		return;
	}
	flow->state = FLOW_ANSWER;
	flow->used = 0;
	flow_want(flow, EPOLLIN);
}

static void flow_connect(struct flow *flow)
{
	bool connected = false;
	int r;

	if (flow->state == FLOW_QUEUE_FULL)
		queue_full--;
	flow->state = FLOW_CONNECTING;
	r = load_connect(&load.target, &flow->fd, &connected);
	if (r == -EAGAIN) {
		flow->state = FLOW_QUEUE_FULL;
		queue_full++;
		return;
	}
	if (r < 0) {
		flow_done(flow, load_result_of(-r));
		return;
	}
	if (flow->kind == LOAD_KEEPALIVE)
		load_counts.keepalive_connects++;
	watch(flow->fd, flow);
	if (connected)
		flow_send(flow);
	else
		flow_want(flow, EPOLLOUT);
}

static void flow_begin(struct flow *flow, int64_t scheduled_ns)
{
	flow->began_ns = load_now_ns();
	flow->record = (struct load_record){.scheduled_ns = scheduled_ns,
					    .late_ns = flow->began_ns - scheduled_ns,
					    .generation = -1,
					    .kind = (uint8_t)flow->kind};
	flow->state = FLOW_CONNECTING;
	TAILQ_INSERT_TAIL(&busy_flows, flow, busy);
	if (flow->fd >= 0)
		flow_send(flow);
	else
		flow_connect(flow);
}

/* Between two requests: what the server does to the connection now costs no request. */
static void flow_check_idle(struct flow *flow)
{
	char byte;
	ssize_t got = recv(flow->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got < 0)
		load_counts.reset_idle++;
	else
		load_counts.closed_idle++; /* with or without a last word, such as a 408 */
	flow_disconnect(flow);
}

static bool flow_read(struct flow *flow)
{
	ssize_t got;

	if (flow->room - flow->used < 2) {
		flow->room = flow->room ? flow->room * 2 : 1024;
		flow->text = realloc(flow->text, flow->room);
		if (!flow->text)
			err(1, "realloc");
	}
	got = recv(flow->fd, flow->text + flow->used, flow->room - flow->used - 1, 0);
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (got < 0) {
		flow_done(flow, load_result_of(errno));
		return false;
	}
	flow->used += (size_t)got;
	flow->text[flow->used] = '\0';

	struct load_answer answer;
	if (!load_answer_parse(flow->text, flow->used, got == 0, &answer)) {
		if (got == 0)
			flow_done(flow, flow->used ? LOAD_TRUNCATED : LOAD_EMPTY);
		return got > 0;
	}
	flow->record.generation = answer.generation;
	if (flow->kind == LOAD_KEEPALIVE && answer.close) {
		load_counts.told_to_close++;
		flow_disconnect(flow);
	}
	flow_done(flow, answer.status == 200 && answer.expected ? LOAD_OK : LOAD_WRONG);
	return false;
}

static void flow_connected(struct flow *flow)
{
	int error = 0;
	socklen_t length = sizeof(error);

	getsockopt(flow->fd, SOL_SOCKET, SO_ERROR, &error, &length);
	if (error)
		flow_done(flow, load_result_of(error));
	else
		flow_send(flow);
}

static void flow_event(struct flow *flow)
{
	switch (flow->state) {
	case FLOW_IDLE:
		flow_check_idle(flow);
		break;
	case FLOW_CONNECTING:
		flow_connected(flow);
		break;
	case FLOW_ANSWER:
		while (flow_read(flow))
			;
		break;
	case FLOW_QUEUE_FULL:
		break;
	}
}

static void start_new(int64_t scheduled_ns)
{
	struct flow *flow = calloc(1, sizeof(*flow));

	if (!flow)
		err(1, "calloc");
	flow->kind = LOAD_NEW;
	flow->fd = -1;
	flow_begin(flow, scheduled_ns);
}

static int64_t new_due_ns(void)
{
	return load.rate > 0 ? begin_ns + (int64_t)((double)started * 1e9 / load.rate) : INT64_MAX;
}

/* Begins all that is due; returns when the next is. */
static int64_t run_schedule(void)
{
	int64_t now = load_now_ns(), next;
	const int64_t interval = load.keepalive_rate > 0 ? (int64_t)(1e9 / load.keepalive_rate) : INT64_MAX / 4;

	while ((next = new_due_ns()) <= now && next < end_ns) {
		started++;
		start_new(next);
	}
	for (unsigned i = 0; i < load.keepalive; i++) {
		struct flow *client = &clients[i];
		if (client->state == FLOW_IDLE && client->due_ns <= now && client->due_ns < end_ns) {
			int64_t due = client->due_ns;
			/* What the server closed before we send is no loss, even where the event is still to come. */
			if (client->fd >= 0)
				flow_check_idle(client);
			client->due_ns += interval;
			flow_begin(client, due);
		}
		if (client->state == FLOW_IDLE && client->due_ns < next)
			next = client->due_ns;
	}
	return next < end_ns ? next : INT64_MAX;
}

static void run_timeouts(void)
{
	struct flow *flow, *following;
	int64_t now = load_now_ns();

	/* A connect that is made again comes with an order of its own, so its list is walked whole; it is short. */
	TAILQ_FOREACH_SAFE (flow, &busy_flows, busy, following) {
		if (flow->began_ns + load.timeout_ns <= now)
			flow_done(flow, LOAD_TIMEOUT);
		else if (flow->state == FLOW_QUEUE_FULL)
			flow_connect(flow);
		else if (queue_full == 0)
			break;
	}
}

static void arm_timer(int64_t next)
{
	struct flow *oldest = TAILQ_FIRST(&busy_flows);
	int64_t now = load_now_ns();

	if (oldest && oldest->began_ns + load.timeout_ns < next)
		next = oldest->began_ns + load.timeout_ns;
	if (queue_full && now + 1000000 < next)
		next = now + 1000000;
	if (next > end_ns && now < end_ns && !oldest)
		next = end_ns;
	if (next < 1)
		next = 1;
	struct itimerspec when = {.it_value = {.tv_sec = next / 1000000000, .tv_nsec = next % 1000000000}};
	timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
}

static void read_marks(void)
{
	char *end;
	ssize_t got = read(load.mark_fd, mark_text + mark_used, sizeof(mark_text) - mark_used - 1);

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0) {
		epoll_ctl(epoll_fd, EPOLL_CTL_DEL, load.mark_fd, NULL);
		return;
	}
	mark_used += (size_t)got;
	mark_text[mark_used] = '\0';
	while ((end = strchr(mark_text, '\n'))) {
		*end = '\0';
		if (load_mark_line(mark_text) < 0)
			warnx("not a mark: \"%s\"", mark_text);
		mark_used -= (size_t)(end + 1 - mark_text);
		memmove(mark_text, end + 1, mark_used + 1);
	}
	if (mark_used == sizeof(mark_text) - 1)
		mark_used = 0;
}

static int open_loop(void)
{
	sigset_t mask;

	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	sigemptyset(&mask);
	sigaddset(&mask, SIGINT);
	sigaddset(&mask, SIGTERM);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	signal_fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
	if (epoll_fd < 0 || timer_fd < 0 || signal_fd < 0)
		return -errno;
	watch(timer_fd, &timer_fd);
	watch(signal_fd, &signal_fd);
	if (load.mark_fd >= 0) {
		struct epoll_event event = {.events = EPOLLIN, .data.ptr = &load.mark_fd};
		/* A regular file cannot be waited for; /dev/null as stdin neither. */
		if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, load.mark_fd, &event) < 0)
			load.mark_fd = -1;
	}
	clients = calloc(load.keepalive + 1, sizeof(*clients));
	if (!clients)
		return -ENOMEM;
	/* From here on, a TERM means a report. */
	fputs("load: running\n", stderr);
	begin_ns = load_now_ns();
	end_ns = begin_ns + load.duration_ns;
	for (unsigned i = 0; i < load.keepalive; i++) {
		clients[i].kind = LOAD_KEEPALIVE;
		clients[i].fd = -1;
		/* Spread over one interval, so that they do not all ask in the same instant. */
		clients[i].due_ns = load.keepalive_rate > 0
					    ? begin_ns + (int64_t)(1e9 / load.keepalive_rate * i / load.keepalive)
					    : INT64_MAX;
	}
	return 0;
}

static void dispatch(void *owner)
{
	uint64_t ticks;

	if (owner == &timer_fd) {
		(void)!read(timer_fd, &ticks, sizeof(ticks));
	} else if (owner == &signal_fd) {
		struct signalfd_siginfo info;
		(void)!read(signal_fd, &info, sizeof(info));
		/* The schedule ends now; what is in flight is waited for. */
		end_ns = load_now_ns();
	} else if (owner == &load.mark_fd) {
		read_marks();
	} else {
		flow_event(owner);
	}
}

int load_run(int64_t *ret_begin_ns)
{
	struct epoll_event events[256];
	int r = open_loop();

	if (r < 0)
		return r;
	for (;;) {
		int64_t next = run_schedule();
		run_timeouts();
		if (load_now_ns() >= end_ns && TAILQ_EMPTY(&busy_flows))
			break;
		arm_timer(next);
		int count = epoll_wait(epoll_fd, events, 256, -1);
		for (int i = 0; i < count; i++)
			dispatch(events[i].data.ptr);
	}
	for (unsigned i = 0; i < load.keepalive; i++) {
		flow_disconnect(&clients[i]);
		free(clients[i].text);
	}
	free(clients);
	close(signal_fd);
	close(timer_fd);
	close(epoll_fd);
	*ret_begin_ns = begin_ns;
	return 0;
}
