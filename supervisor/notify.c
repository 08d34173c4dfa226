/* SPDX-License-Identifier: MIT */
/* What we tell our own manager: sd_notify(3) datagrams, and s6's newline on a descriptor. */
#include <bsd/string.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "fd.h"
#include "notify.h"

/* The whole of `text` as a positive number, or 0. */
static uint64_t parse_positive(const char *text)
{
	char *end;

	/* strtoull takes signs and blanks. */
	if (!text || text[0] < '0' || text[0] > '9')
		return 0;
	errno = 0;
	unsigned long long value = strtoull(text, &end, 10);
	return errno || *end ? 0 : value;
}

/* A value that makes no sense counts as absent: the manager then waits for nothing either. */
static int64_t watchdog_from_environment(void)
{
	const char *pid = getenv("WATCHDOG_PID");
	uint64_t usec = parse_positive(getenv("WATCHDOG_USEC"));

	if (usec == 0 || usec == UINT64_MAX || (pid && parse_positive(pid) != (uint64_t)getpid()))
		return -1;
	int64_t half_ms = (int64_t)(usec / 2000);
	return half_ms > 0 ? half_ms : 1;
}

/* Connects to NOTIFY_SOCKET. The descriptor, -1 where the variable is not set, or another -errno and a sentence. */
static int connect_socket(const char *path, struct error *error)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	size_t length = strlen(path);

	if (path[0] != '/' && path[0] != '@')
		return error_set(error, -EAFNOSUPPORT, "NOTIFY_SOCKET=%s is neither a path nor an abstract socket",
				 path);
	/* An abstract name has no terminator, but room for one less is the limit of sd_notify(3) too. */
	if (length >= sizeof(address.sun_path) || length < 2)
		return error_set(error, -EINVAL, "NOTIFY_SOCKET=%s is no name that a socket can have", path);
	memcpy(address.sun_path, path, length);
	socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + (path[0] == '/'));
	if (path[0] == '@')
		address.sun_path[0] = '\0';
	CLEANUP(fd_closep) int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (const struct sockaddr *)&address, size) < 0) {
		int code = -errno;
		return error_set(error, code, "cannot connect to NOTIFY_SOCKET=%s: %s", path, strerror(-code));
	}
	return fd_steal(&fd);
}

int notify_init(struct notify *notify, int newline_fd, struct error *error)
{
	const char *path = getenv("NOTIFY_SOCKET");

	*notify = (struct notify){.fd = -1, .newline_fd = -1, .watchdog_ms = -1};
	if (newline_fd >= 0) {
		/* It is closed after the newline, and that would leave a standard stream closed. */
		if (newline_fd <= STDERR_FILENO)
			return error_set(error, -EBADF, "--notify-fd: descriptor %d is a standard stream", newline_fd);
		int result = fd_set_cloexec(newline_fd, true);
		if (result < 0)
			return error_set(error, result, "--notify-fd: descriptor %d is not open", newline_fd);
		notify->newline_fd = newline_fd;
	}
	if (!path || !*path)
		return 0;
	int fd = connect_socket(path, error);
	if (fd < 0)
		return fd;
	notify->fd = fd;
	notify->watchdog_ms = watchdog_from_environment();
	return 0;
}

void notify_finish(struct notify *notify)
{
	notify->fd = fd_close(notify->fd);
	notify->newline_fd = fd_close(notify->newline_fd);
	notify->watchdog_ms = -1;
}

static int send_text(const struct notify *notify, const char *text)
{
	if (notify->fd < 0)
		return 0;
	return send(notify->fd, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* Writes the newline once it can be written without waiting, then closes. A reader that is gone is not written to,
 * which would raise SIGPIPE. 0 or -errno. */
static int send_newline(struct notify *notify)
{
	struct pollfd poll_fd = {.fd = notify->newline_fd, .events = POLLOUT};
	int result = 0;

	if (notify->newline_fd < 0)
		return 0;
	if (poll(&poll_fd, 1, 0) < 0)
		return -errno;
	if (poll_fd.revents & (POLLERR | POLLNVAL))
		result = -EPIPE;
	else if (!(poll_fd.revents & POLLOUT))
		return -EAGAIN; /* kept for the next time that we are ready */
	else if (write(notify->newline_fd, "\n", 1) < 0)
		result = -errno;
	notify->newline_fd = fd_close(notify->newline_fd);
	return result;
}

int notify_ready(struct notify *notify)
{
	int newline_result = send_newline(notify);
	int result = send_text(notify, "READY=1");

	return result < 0 ? result : newline_result;
}

int notify_reloading(struct notify *notify)
{
	struct timespec now;
	char text[64];

	clock_gettime(CLOCK_MONOTONIC, &now);
	snprintf(text, sizeof(text), "RELOADING=1\nMONOTONIC_USEC=%" PRIu64,
		 (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000);
	return send_text(notify, text);
}

int notify_stopping(struct notify *notify)
{
	return send_text(notify, "STOPPING=1");
}

int notify_watchdog(struct notify *notify)
{
	return send_text(notify, "WATCHDOG=1");
}

int notify_status(struct notify *notify, const char *text)
{
	char line[1024] = "STATUS=";
	size_t used = strlen(line);

	/* Printable: a newline would start another assignment, such as MAINPID=. */
	error_printable(line + used, sizeof(line) - used, text, strlen(text));
	return send_text(notify, line);
}

int notify_extend(struct notify *notify, uint64_t usec)
{
	char text[64];

	snprintf(text, sizeof(text), "EXTEND_TIMEOUT_USEC=%" PRIu64, usec);
	return send_text(notify, text);
}
