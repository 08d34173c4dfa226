/* SPDX-License-Identifier: MIT */
/* The relay process of --capture: whole lines from the servers' pipes to fd 2, and the last ones kept for asking. */
#include "capture_private.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <bsd/stdlib.h>
#include <bsd/sys/queue.h>
#include <bsd/unistd.h>

#include "fd.h"

/* One write: what a pipe takes as a whole, so that lines of several writers do not mix. */
#define WRITE_MAX PIPE_BUF
/* One read in the normal course. */
#define READ_MAX 16384
/* What one question reads at most: the default capacity of a pipe. */
#define ASK_READ_MAX 65536
/* Room for an unfinished line, a read and the whole pipe after that. */
#define HELD_SIZE (WRITE_MAX + READ_MAX + ASK_READ_MAX)

/* One generation's pipe. */
struct relay_pipe {
	TAILQ_ENTRY(relay_pipe) link; /* in relay.pipes, which owns it */
	uint32_t number;
	int fd; /* owned; -1 after end-of-file */
	bool forgotten;
	/* The line being read, cut at CAPTURE_LINE_MAX. */
	char line[CAPTURE_LINE_MAX];
	size_t line_length;
	/* A ring of finished lines, printable. */
	char kept[CAPTURE_LINES][CAPTURE_LINE_MAX + 1];
	size_t kept_total;
	/* Read, but not written yet: held[start..end). */
	size_t start, end;
	char held[HELD_SIZE];
};
TAILQ_HEAD(relay_pipes, relay_pipe);

struct relay {
	int control_fd;      /* owned; open to the end, which is how the supervisor sees it */
	bool alone;          /* the supervisor closed its end */
	bool stderr_socket;  /* fd 2 is a socket */
	size_t reply_length; /* 0: no reply waits */
	struct capture_reply reply;
	struct relay_pipes pipes; /* the one written last goes to the end, so that each has its turn */
	struct pollfd *polls;
	size_t poll_capacity;
};

/* Faults and job control keep their default; everything that a terminal, a manager or an operator's broad kill might
 * send is ignored, because the relay has to outlive all servers. */
static bool signal_stays_default(int number)
{
	switch (number) {
	case SIGILL:
	case SIGTRAP:
	case SIGABRT:
	case SIGBUS:
	case SIGFPE:
	case SIGSEGV:
	case SIGSYS:
	case SIGXCPU:
	case SIGXFSZ:
	case SIGCHLD:
	case SIGCONT:
	case SIGTSTP:
		return true;
	default:
		return false;
	}
}

static void set_signals(void)
{
	for (int number = 1; number <= SIGRTMAX; number++)
		signal(number, signal_stays_default(number) ? SIG_DFL : SIG_IGN); /* KILL, STOP, libc's own: refused */
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Others write to the same stderr, so that it may fill up between poll and write. A description of our own can be
 * non-blocking without anybody else noticing; where there is none to be had (another user's pipe, no /proc), poll's
 * word has to do. */
static void own_stderr(struct relay *relay)
{
	struct stat info;
	if (fstat(STDERR_FILENO, &info) < 0)
		return;
	relay->stderr_socket = S_ISSOCK(info.st_mode);
	if (!S_ISFIFO(info.st_mode) && !isatty(STDERR_FILENO))
		return;
	int fd = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return;
	dup2(fd, STDERR_FILENO);
	fd_close(fd);
}

/* Leaves the supervisor's world behind: session, folder, signals, and every descriptor, among them the listeners, locks
 * and sockets that must not outlive it. Returns where the control socket is now. */
static int leave(int control_fd)
{
	set_signals();
	setsid();
	if (chdir("/") < 0) { /* only a courtesy to who wants to unmount it */
	}
	if (control_fd != STDERR_FILENO + 1) {
		dup3(control_fd, STDERR_FILENO + 1, O_CLOEXEC);
		control_fd = STDERR_FILENO + 1;
	}
	if (syscall(SYS_close_range, (unsigned)control_fd + 1, ~0U, 0) < 0)
		closefrom(control_fd + 1); /* a seccomp filter older than the call */
	close(STDIN_FILENO);
	close(STDOUT_FILENO);
	fd_guard_stdio();
	setproctitle("capture relay");
	return control_fd;
}

static void keep_line(struct relay_pipe *pipe)
{
	size_t length = pipe->line_length;
	if (length > 0 && pipe->line[length - 1] == '\r')
		length--;
	error_printable(pipe->kept[pipe->kept_total++ % CAPTURE_LINES], CAPTURE_LINE_MAX + 1, pipe->line, length);
	pipe->line_length = 0;
}

/* Tabs are blanks in the kept lines: stack traces are full of them, and \x09 reads badly. */
static void collect_line(struct relay_pipe *pipe, const char *text, size_t length)
{
	size_t room = sizeof(pipe->line) - pipe->line_length;
	if (length > room)
		length = room;
	for (size_t i = 0; i < length; i++)
		pipe->line[pipe->line_length++] = text[i] == '\t' ? ' ' : text[i];
}

static void collect_lines(struct relay_pipe *pipe, const char *text, size_t length)
{
	const char *end = text + length, *newline;
	while ((newline = memchr(text, '\n', (size_t)(end - text)))) {
		collect_line(pipe, text, (size_t)(newline - text));
		keep_line(pipe);
		text = newline + 1;
	}
	collect_line(pipe, text, (size_t)(end - text));
}

/* How much may be written now: as many whole lines as one write takes, a piece of a longer line, or the rest. */
static size_t writable(const struct relay_pipe *pipe)
{
	const char *text = pipe->held + pipe->start;
	size_t length = pipe->end - pipe->start;
	if (length > WRITE_MAX)
		length = WRITE_MAX;
	const char *newline = memrchr(text, '\n', length);
	if (newline)
		return (size_t)(newline - text) + 1;
	return length == WRITE_MAX || pipe->fd < 0 ? length : 0;
}

static bool pipe_finished(const struct relay_pipe *pipe)
{
	return pipe->forgotten && pipe->fd < 0 && pipe->start == pipe->end;
}

/* Reads what is there, at most `limit` bytes and what the buffer has room for. The pipe is non-blocking. */
static void read_pipe(struct relay_pipe *pipe, size_t limit)
{
	if (pipe->start > 0) {
		memmove(pipe->held, pipe->held + pipe->start, pipe->end - pipe->start);
		pipe->end -= pipe->start;
		pipe->start = 0;
	}
	while (limit > 0 && pipe->fd >= 0 && pipe->end < sizeof(pipe->held)) {
		size_t room = sizeof(pipe->held) - pipe->end;
		ssize_t length = read(pipe->fd, pipe->held + pipe->end, limit < room ? limit : room);
		if (length > 0) {
			collect_lines(pipe, pipe->held + pipe->end, (size_t)length);
			pipe->end += (size_t)length;
			limit -= (size_t)length;
		} else if (length == 0 || (errno != EAGAIN && errno != EINTR)) {
			pipe->fd = fd_close(pipe->fd);
			if (pipe->line_length > 0)
				keep_line(pipe);
		} else if (errno == EAGAIN) {
			return;
		}
	}
}

/* One write to stderr. What it will never take (closed pipe, full disk) is dropped, as a server's own write would be.
 */
static void write_pipe(struct relay *relay, struct relay_pipe *pipe)
{
	const char *text = pipe->held + pipe->start;
	size_t length = writable(pipe);
	ssize_t written = relay->stderr_socket ? send(STDERR_FILENO, text, length, MSG_DONTWAIT | MSG_NOSIGNAL)
					       : write(STDERR_FILENO, text, length);
	if (written < 0) {
		if (errno == EAGAIN || errno == EINTR)
			return;
		written = (ssize_t)length;
	}
	pipe->start += (size_t)written;
	TAILQ_REMOVE(&relay->pipes, pipe, link);
	TAILQ_INSERT_TAIL(&relay->pipes, pipe, link);
}

static struct relay_pipe *find_pipe(struct relay *relay, uint32_t number)
{
	struct relay_pipe *pipe;
	TAILQ_FOREACH (pipe, &relay->pipes, link)
		if (pipe->number == number && !pipe->forgotten)
			return pipe;
	return NULL;
}

static void add_pipe(struct relay *relay, uint32_t number, int fd)
{
	struct relay_pipe *pipe = fd < 0 ? NULL : calloc(1, sizeof(*pipe));
	if (!pipe)
		_exit(1); /* a pipe that nobody reads would stop a server: better a new relay, which gets all again */
	pipe->number = number;
	pipe->fd = fd;
	TAILQ_INSERT_TAIL(&relay->pipes, pipe, link);
}

/* An unfinished line counts as the last one: it may be the very word that explains the failure. */
static void answer(struct relay *relay, const struct capture_request *request)
{
	struct relay_pipe *pipe = find_pipe(relay, request->pipe);
	char *position = relay->reply.text;
	relay->reply = (struct capture_reply){.token = request->token};
	if (pipe) {
		read_pipe(pipe, ASK_READ_MAX);
		size_t most = CAPTURE_LINES - (pipe->line_length > 0);
		size_t count = pipe->kept_total < most ? pipe->kept_total : most;
		for (size_t i = pipe->kept_total - count; i < pipe->kept_total; i++) {
			position = stpcpy(position, pipe->kept[i % CAPTURE_LINES]) + 1;
			relay->reply.count++;
		}
		if (pipe->line_length > 0) {
			error_printable(position, CAPTURE_LINE_MAX + 1, pipe->line, pipe->line_length);
			position += strlen(position) + 1;
			relay->reply.count++;
		}
	}
	relay->reply_length = (size_t)(position - (char *)&relay->reply);
}

/* From here on only the pipes matter. */
static void lose_supervisor(struct relay *relay)
{
	struct relay_pipe *pipe;
	relay->alone = true;
	relay->reply_length = 0;
	TAILQ_FOREACH (pipe, &relay->pipes, link)
		pipe->forgotten = true;
}

static void send_reply(struct relay *relay)
{
	ssize_t sent = send(relay->control_fd, &relay->reply, relay->reply_length, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (sent < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	relay->reply_length = 0; /* an answer that cannot be sent is one that times out */
}

static ssize_t receive(int control_fd, struct capture_request *request, int *ret_fd)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec vector = {.iov_base = request, .iov_len = sizeof(*request)};
	struct msghdr message = {
		.msg_iov = &vector, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	ssize_t length = recvmsg(control_fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	struct cmsghdr *head = length > 0 ? CMSG_FIRSTHDR(&message) : NULL;
	*ret_fd = -1;
	if (head && head->cmsg_type == SCM_RIGHTS && head->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(ret_fd, CMSG_DATA(head), sizeof(int));
	return length;
}

static void serve(struct relay *relay)
{
	struct capture_request request = {0};
	int fd;
	ssize_t length = receive(relay->control_fd, &request, &fd);
	if (length < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (length != (ssize_t)sizeof(request)) {
		lose_supervisor(relay);
		return;
	}
	struct relay_pipe *pipe;
	switch ((enum capture_request_kind)request.kind) {
	case CAPTURE_OPEN:
		add_pipe(relay, request.pipe, fd);
		break;
	case CAPTURE_FORGET:
		pipe = find_pipe(relay, request.pipe);
		if (pipe)
			pipe->forgotten = true;
		break;
	case CAPTURE_ASK:
		answer(relay, &request);
		send_reply(relay);
		break;
	}
}

/* Lets go of pipes that are done and fills the poll array: control socket, stderr, then the pipes in list order. While
 * a reply waits, no request is read; while text of a pipe waits, that pipe is not read, so that the server feels the
 * full stderr and we hold no more than a little. */
static nfds_t prepare(struct relay *relay)
{
	struct relay_pipe *pipe, *next;
	size_t count = 2;
	TAILQ_FOREACH_SAFE (pipe, &relay->pipes, link, next) {
		if (pipe_finished(pipe)) {
			TAILQ_REMOVE(&relay->pipes, pipe, link);
			free(pipe);
		} else {
			count++;
		}
	}
	if (count > relay->poll_capacity) {
		struct pollfd *polls = reallocarray(relay->polls, count * 2, sizeof(*polls));
		if (!polls)
			_exit(1);
		relay->polls = polls;
		relay->poll_capacity = count * 2;
	}
	relay->polls[0] = (struct pollfd){.fd = relay->alone ? -1 : relay->control_fd,
					  .events = relay->reply_length ? POLLOUT : POLLIN};
	relay->polls[1] = (struct pollfd){.fd = -1, .events = POLLOUT};
	size_t i = 2;
	TAILQ_FOREACH (pipe, &relay->pipes, link) {
		bool waits = writable(pipe) > 0;
		if (waits) /* only then: a broken stderr is always an event */
			relay->polls[1].fd = STDERR_FILENO;
		relay->polls[i++] = (struct pollfd){.fd = waits ? -1 : pipe->fd, .events = POLLIN};
	}
	return (nfds_t)i;
}

static void round_of_events(struct relay *relay)
{
	struct relay_pipe *pipe, *due = NULL;
	struct pollfd *polls = relay->polls;
	size_t i = 2;
	TAILQ_FOREACH (pipe, &relay->pipes, link) {
		if (!due && writable(pipe) > 0)
			due = pipe;
		if (polls[i++].revents)
			read_pipe(pipe, READ_MAX);
	}
	if (polls[1].revents && due)
		write_pipe(relay, due);
	if (polls[0].revents) {
		if (relay->reply_length)
			send_reply(relay);
		else
			serve(relay);
	}
}

_Noreturn void capture_relay_run(int control_fd)
{
	static struct relay relay; /* some 20 KiB, and this process has only one */
	relay.control_fd = leave(control_fd);
	TAILQ_INIT(&relay.pipes);
	own_stderr(&relay);
	for (;;) {
		nfds_t count = prepare(&relay);
		if (relay.alone && TAILQ_EMPTY(&relay.pipes))
			_exit(0);
		if (poll(relay.polls, count, -1) > 0)
			round_of_events(&relay);
	}
}
