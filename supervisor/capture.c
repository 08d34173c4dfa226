/* SPDX-License-Identifier: MIT */
/* The supervisor's side of --capture: the pipes, the relay process and its replacement, and questions to it. */
#include "capture_private.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <bsd/sys/queue.h>

#include "fd.h"
#include "loop.h"

/* How long the relay has for an answer. */
#define ASK_TIMEOUT_MS 500
/* A relay that lived less than this waits before it is replaced: twice as long each time, up to this again. */
#define HEALTHY_MS 1000
#define FIRST_DELAY_MS 10

/* One generation's pipe; stays after capture_forget until the relay has been told. */
struct capture_pipe {
	TAILQ_ENTRY(capture_pipe) link; /* in capture.pipes, which owns it */
	unsigned generation;
	uint32_t number;
	int read_fd; /* owned: our copy, so that a dead relay takes no pipe with it */
	bool sent;   /* this relay has it */
	bool forgotten;
};

/* One capture_ask that has not been answered. */
struct capture_question {
	TAILQ_ENTRY(capture_question) link; /* in capture.questions, which owns it */
	struct capture *capture;
	unsigned generation;
	uint32_t pipe;
	uint32_t token;
	bool sent; /* to this relay */
	struct loop_source *timer;
	capture_lines_fn fn;
	void *data;
};

struct capture {
	struct loop *loop;
	pid_t relay_pid; /* our child; 0 while there is none */
	int control_fd;  /* owned; -1 while there is no relay to talk to; its end-of-file is the relay's end */
	struct loop_source *control_source;
	struct loop_source *retry; /* starts a relay, reaps one, or sends again what a passing shortage refused */
	int64_t started_ms, delay_ms;
	uint32_t last_number, last_token;
	TAILQ_HEAD(, capture_pipe) pipes;
	TAILQ_HEAD(, capture_question) questions;
};

static int start_relay(struct capture *capture, struct error *error);

static void free_pipe(struct capture *capture, struct capture_pipe *pipe)
{
	TAILQ_REMOVE(&capture->pipes, pipe, link);
	fd_close(pipe->read_fd);
	free(pipe);
}

static void free_question(struct capture *capture, struct capture_question *question)
{
	TAILQ_REMOVE(&capture->questions, question, link);
	loop_remove(question->timer);
	free(question);
}

/* Never blocks; `fd` -1 sends none. 0 or -errno. */
static int send_request(int control_fd, const struct capture_request *request, int fd)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct capture_request copy = *request;
	struct iovec vector = {.iov_base = &copy, .iov_len = sizeof(copy)};
	struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
	if (fd >= 0) {
		control.head.cmsg_level = SOL_SOCKET;
		control.head.cmsg_type = SCM_RIGHTS;
		control.head.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.head), &fd, sizeof(int));
		message.msg_control = &control;
		message.msg_controllen = sizeof(control);
	}
	return sendmsg(control_fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* Tells the relay what it does not know yet: first the pipes, then the questions about them, then what to forget. Stops
 * at the first message that is refused: all have been told or will be, in this order. 0 or -errno. */
static int tell_relay(struct capture *capture)
{
	struct capture_pipe *pipe, *next;
	struct capture_question *question;
	int result = 0;
	TAILQ_FOREACH (pipe, &capture->pipes, link) {
		struct capture_request request = {.kind = CAPTURE_OPEN, .pipe = pipe->number};
		if (!pipe->sent && (result = send_request(capture->control_fd, &request, pipe->read_fd)) < 0)
			return result;
		pipe->sent = true;
	}
	TAILQ_FOREACH (question, &capture->questions, link) {
		struct capture_request request = {
			.kind = CAPTURE_ASK, .pipe = question->pipe, .token = question->token};
		if (!question->sent && (result = send_request(capture->control_fd, &request, -1)) < 0)
			return result;
		question->sent = true;
	}
	TAILQ_FOREACH_SAFE (pipe, &capture->pipes, link, next) {
		struct capture_request request = {.kind = CAPTURE_FORGET, .pipe = pipe->number};
		if (!pipe->forgotten)
			continue;
		if ((result = send_request(capture->control_fd, &request, -1)) < 0)
			return result;
		free_pipe(capture, pipe);
	}
	return 0;
}

static void flush(struct capture *capture)
{
	if (capture->control_fd < 0)
		return;
	int result = tell_relay(capture);
	loop_fd_set_events(capture->control_source, result == -EAGAIN ? EPOLLIN | EPOLLOUT : EPOLLIN);
	if (result < 0 && result != -EAGAIN && result != -EPIPE && result != -ECONNRESET)
		loop_timer_set(capture->retry, ASK_TIMEOUT_MS / 5); /* ETOOMANYREFS, ENOBUFS, ENOMEM pass */
}

/* One reply a call, because the asker may do anything in its function, capture_destroy included. */
static void deliver(struct capture *capture, const struct capture_reply *reply, size_t length)
{
	struct capture_question *question;
	TAILQ_FOREACH (question, &capture->questions, link)
		if (question->token == reply->token)
			break;
	if (!question) /* it timed out before */
		return;
	const char *lines[CAPTURE_LINES];
	const char *position = reply->text, *end = (const char *)reply + length;
	size_t count = 0;
	while (count < reply->count && count < CAPTURE_LINES && position < end) {
		size_t room = (size_t)(end - position);
		size_t line = strnlen(position, room);
		if (line == room)
			break;
		lines[count++] = position;
		position += line + 1;
	}
	unsigned generation = question->generation;
	capture_lines_fn fn = question->fn;
	void *data = question->data;
	free_question(capture, question);
	fn(generation, lines, count, data);
}

/* Closes our end, and takes back all that this relay was told. */
static void drop_control(struct capture *capture)
{
	struct capture_pipe *pipe;
	struct capture_question *question;
	loop_remove(capture->control_source);
	capture->control_source = NULL;
	capture->control_fd = fd_close(capture->control_fd);
	TAILQ_FOREACH (pipe, &capture->pipes, link)
		pipe->sent = false;
	TAILQ_FOREACH (question, &capture->questions, link)
		question->sent = false;
}

/* The relay's end of the socket is closed: it is exiting, which takes a moment still. Called again until it is done. */
static void replace_relay(struct capture *capture)
{
	if (waitpid(capture->relay_pid, NULL, WNOHANG) == 0) {
		loop_timer_set(capture->retry, 1);
		return;
	}
	capture->relay_pid = 0;
	if (loop_now_ms() - capture->started_ms >= HEALTHY_MS)
		capture->delay_ms = 0;
	loop_timer_set(capture->retry, capture->delay_ms);
	capture->delay_ms = capture->delay_ms ? capture->delay_ms * 2 : FIRST_DELAY_MS;
	if (capture->delay_ms > HEALTHY_MS)
		capture->delay_ms = HEALTHY_MS;
}

static void on_control(struct loop_source *source, int fd, uint32_t events, void *data)
{
	struct capture *capture = data;
	struct capture_reply reply;
	(void)source;
	if (events & EPOLLOUT)
		flush(capture);
	if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return;
	ssize_t length = recv(fd, &reply, sizeof(reply), MSG_DONTWAIT);
	if (length >= (ssize_t)CAPTURE_REPLY_HEAD) {
		deliver(capture, &reply, (size_t)length);
	} else if (length >= 0 || (errno != EAGAIN && errno != EINTR)) {
		drop_control(capture);
		replace_relay(capture);
	}
}

static void on_ask_timeout(struct loop_source *source, void *data)
{
	struct capture_question *question = data;
	unsigned generation = question->generation;
	capture_lines_fn fn = question->fn;
	void *fn_data = question->data;
	(void)source;
	free_question(question->capture, question);
	fn(generation, NULL, 0, fn_data);
}

static void on_retry(struct loop_source *source, void *data)
{
	struct capture *capture = data;
	(void)source;
	if (capture->control_fd >= 0)
		flush(capture);
	else if (capture->relay_pid > 0)
		replace_relay(capture);
	else if (start_relay(capture, NULL) < 0)
		loop_timer_set(capture->retry, HEALTHY_MS);
}

/* Forks with all signals blocked, so that none finds the relay before it ignores them. 0 with the pid, or -errno. */
static int fork_relay(int control_fd, pid_t *ret_pid)
{
	sigset_t all, before;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	pid_t pid = fork();
	if (pid == 0)
		capture_relay_run(control_fd);
	int result = pid < 0 ? -errno : 0;
	sigprocmask(SIG_SETMASK, &before, NULL);
	if (result == 0)
		*ret_pid = pid;
	return result;
}

static int start_relay(struct capture *capture, struct error *error)
{
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return error_set(error, -errno, "cannot make the capture relay's socket: %s", strerror(errno));
	CLEANUP(fd_closep) int control_fd = pair[0];
	CLEANUP(fd_closep) int relay_fd = pair[1];
	struct loop_source *source = NULL;
	/* First the loop, because a process that nobody watches would have to be taken back. */
	int result = loop_add_fd(capture->loop, control_fd, EPOLLIN, on_control, capture, &source);
	if (result == 0)
		result = fork_relay(relay_fd, &capture->relay_pid);
	if (result < 0) {
		loop_remove(source);
		return error_set(error, result, "cannot start the capture relay: %s", strerror(-result));
	}
	capture->control_fd = fd_steal(&control_fd);
	capture->control_source = source;
	capture->started_ms = loop_now_ms();
	relay_fd = fd_close(relay_fd); /* now, so that its end is seen */
	flush(capture);
	return 0;
}

int capture_create(struct loop *loop, struct capture **ret_capture, struct error *error)
{
	struct capture *capture = calloc(1, sizeof(*capture));
	if (!capture)
		return error_set(error, -ENOMEM, "cannot start the capture relay: %s", strerror(ENOMEM));
	capture->loop = loop;
	capture->control_fd = -1;
	TAILQ_INIT(&capture->pipes);
	TAILQ_INIT(&capture->questions);
	int result = loop_add_timer(loop, on_retry, capture, &capture->retry);
	if (result < 0)
		error_set(error, result, "cannot start the capture relay: %s", strerror(-result));
	else
		result = start_relay(capture, error);
	if (result < 0) {
		loop_remove(capture->retry);
		free(capture);
		return result;
	}
	*ret_capture = capture;
	return 0;
}

/* Milliseconds from now to the deadline, for poll(2). */
static int left_ms(int64_t deadline_ms)
{
	int64_t left = deadline_ms - loop_now_ms();
	return left > 0 ? (int)left : 0;
}

/* Tells the relay that nothing more comes, and waits for its end of the socket to close. Whether it did. */
static bool relay_ended(struct capture *capture, int64_t deadline_ms)
{
	struct capture_reply late; /* an answer to a question that was dropped */
	struct pollfd wait = {.fd = capture->control_fd, .events = POLLIN};
	shutdown(capture->control_fd, SHUT_WR);
	for (;;) {
		int ready = poll(&wait, 1, left_ms(deadline_ms));
		if (ready == 0)
			return false;
		ssize_t length = ready < 0 ? -1 : recv(wait.fd, &late, sizeof(late), MSG_DONTWAIT);
		if (length == 0 || (length < 0 && errno != EINTR && errno != EAGAIN))
			return true;
	}
}

void capture_destroy(struct capture *capture, int wait_ms)
{
	struct capture_pipe *pipe;
	struct capture_question *question;
	if (!capture)
		return;
	int64_t deadline_ms = loop_now_ms() + wait_ms;
	while ((question = TAILQ_FIRST(&capture->questions)))
		free_question(capture, question);
	if (capture->relay_pid == 0 && !TAILQ_EMPTY(&capture->pipes))
		start_relay(capture, NULL); /* for what the pipes still hold */
	while (capture->control_fd >= 0 && tell_relay(capture) == -EAGAIN) {
		struct pollfd room = {.fd = capture->control_fd, .events = POLLOUT};
		if (poll(&room, 1, left_ms(deadline_ms)) == 0)
			break;
	}
	while ((pipe = TAILQ_FIRST(&capture->pipes)))
		free_pipe(capture, pipe);
	if (capture->relay_pid > 0 && (capture->control_fd < 0 || relay_ended(capture, deadline_ms)))
		waitpid(capture->relay_pid, NULL, 0);
	drop_control(capture);
	loop_remove(capture->retry);
	free(capture);
}

static struct capture_pipe *find_pipe(struct capture *capture, unsigned generation)
{
	struct capture_pipe *pipe;
	TAILQ_FOREACH (pipe, &capture->pipes, link)
		if (pipe->generation == generation && !pipe->forgotten)
			return pipe;
	return NULL;
}

int capture_open(struct capture *capture, unsigned generation, struct error *error)
{
	int ends[2];
	if (find_pipe(capture, generation))
		return error_set(error, -EEXIST, "generation %u has a capture pipe already", generation);
	if (pipe2(ends, O_CLOEXEC) < 0)
		return error_set(error, -errno, "cannot make a capture pipe: %s", strerror(errno));
	CLEANUP(fd_closep) int read_fd = ends[0];
	CLEANUP(fd_closep) int write_fd = ends[1];
	/* The reading end only: a server expects a stderr that blocks. */
	int result = fd_set_nonblock(read_fd, true);
	struct capture_pipe *pipe = result < 0 ? NULL : calloc(1, sizeof(*pipe));
	if (!pipe) {
		result = result < 0 ? result : -ENOMEM;
		return error_set(error, result, "cannot make a capture pipe: %s", strerror(-result));
	}
	pipe->generation = generation;
	pipe->number = ++capture->last_number;
	pipe->read_fd = fd_steal(&read_fd);
	TAILQ_INSERT_TAIL(&capture->pipes, pipe, link);
	flush(capture);
	return fd_steal(&write_fd);
}

void capture_forget(struct capture *capture, unsigned generation)
{
	struct capture_pipe *pipe = find_pipe(capture, generation);
	if (!pipe)
		return;
	pipe->forgotten = true; /* it goes when the relay has been told, so that what it holds is still written */
	flush(capture);
}

int capture_ask(struct capture *capture, unsigned generation, capture_lines_fn fn, void *data)
{
	struct capture_question *question = calloc(1, sizeof(*question));
	if (!question)
		return -ENOMEM;
	int result = loop_add_timer(capture->loop, on_ask_timeout, question, &question->timer);
	if (result < 0) {
		free(question);
		return result;
	}
	const struct capture_pipe *pipe = find_pipe(capture, generation);
	question->capture = capture;
	question->generation = generation;
	question->pipe = pipe ? pipe->number : 0;
	question->token = ++capture->last_token;
	question->fn = fn;
	question->data = data;
	TAILQ_INSERT_TAIL(&capture->questions, question, link);
	loop_timer_set(question->timer, ASK_TIMEOUT_MS);
	flush(capture);
	return 0;
}

bool capture_owns(const struct capture *capture, pid_t pid)
{
	return capture && pid > 0 && capture->relay_pid == pid;
}
