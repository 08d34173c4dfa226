/* SPDX-License-Identifier: MIT */
/* The notify socket of a starting process: sd_notify(3) datagrams, and who may send them. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "fd.h"
#include "ready_private.h"

/* So that a sender who never stops cannot keep the loop from its other sources. */
#define DATAGRAMS_PER_ROUND 32

/* A number without sign or blanks, at most `maximum`; false when it is none. */
static bool parse_number(const char *text, size_t length, uint64_t maximum, uint64_t *ret_number)
{
	uint64_t number = 0;
	if (length == 0)
		return false;
	for (size_t i = 0; i < length; i++) {
		if (text[i] < '0' || text[i] > '9')
			return false;
		uint64_t digit = (uint64_t)(text[i] - '0');
		if (number > (maximum - digit) / 10)
			return false;
		number = number * 10 + digit;
	}
	*ret_number = number;
	return true;
}

/* If the line begins with `name`, what follows it. */
static bool line_value(const char *line, size_t length, const char *name, const char **ret_value, size_t *ret_length)
{
	size_t name_length = strlen(name);
	if (length < name_length || memcmp(line, name, name_length) != 0)
		return false;
	*ret_value = line + name_length;
	*ret_length = length - name_length;
	return true;
}

static void parse_line(const char *line, size_t length, struct ready_message *message)
{
	const char *value;
	size_t value_length;
	uint64_t number = 0;
	if (line_value(line, length, "READY=", &value, &value_length)) {
		message->ready |= value_length == 1 && *value == '1';
	} else if (line_value(line, length, "STOPPING=", &value, &value_length)) {
		message->stopping |= value_length == 1 && *value == '1';
	} else if (line_value(line, length, "STATUS=", &value, &value_length)) {
		message->status = value;
		message->status_length = value_length;
	} else if (line_value(line, length, "EXTEND_TIMEOUT_USEC=", &value, &value_length)) {
		message->has_extend |= parse_number(value, value_length, UINT64_MAX, &message->extend_usec);
	} else if (line_value(line, length, "MAINPID=", &value, &value_length)) {
		parse_number(value, value_length, INT32_MAX, &number);
		message->has_main_pid = true;
		message->main_pid = (pid_t)number;
	}
}

int ready_message_parse(const char *text, size_t length, struct ready_message *ret_message)
{
	/* Some senders count the terminating zero in. */
	if (length > 0 && text[length - 1] == '\0')
		length--;
	if (length == 0 || memchr(text, '\0', length))
		return -EBADMSG;
	struct ready_message message = {0};
	for (size_t start = 0; start < length;) {
		const char *end = memchr(text + start, '\n', length - start);
		size_t line_length = end ? (size_t)(end - (text + start)) : length - start;
		parse_line(text + start, line_length, &message);
		start += line_length + 1;
	}
	*ret_message = message;
	return 0;
}

int ready_notify_open(struct ready *ready, struct error *error)
{
	unsigned char random[16];
	if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
		return error_set(error, -EIO, "cannot make a name for the notify socket: no random bytes");
	size_t length = (size_t)snprintf(ready->notify_name, sizeof(ready->notify_name), "@handoff/");
	for (size_t i = 0; i < sizeof(random); i++)
		length += (size_t)snprintf(ready->notify_name + length, sizeof(ready->notify_name) - length, "%02x",
					   random[i]);

	struct sockaddr_un address = {.sun_family = AF_UNIX};
	memcpy(address.sun_path + 1, ready->notify_name + 1, length - 1);
	socklen_t address_length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
	int on = 1;
	ready->notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (ready->notify_fd < 0 || setsockopt(ready->notify_fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) < 0 ||
	    bind(ready->notify_fd, (const struct sockaddr *)&address, address_length) < 0) {
		int code = -errno;
		return error_set(error, code, "cannot make the notify socket: %s", strerror(-code));
	}
	return 0;
}

/* The uid that the server runs with now: the owner of its /proc folder, or root where it is not dumpable. */
static bool uid_is_the_servers(const struct ready *ready, uid_t uid)
{
	char path[32];
	struct stat stat_of_leader;
	const struct child_limits *limits = ready->check_plan ? ready->check_plan->limits : NULL;
	if (uid == 0 || uid == (limits && limits->set_user ? limits->uid : geteuid()))
		return true;
	snprintf(path, sizeof(path), "/proc/%d", ready->leader);
	return stat(path, &stat_of_leader) == 0 && stat_of_leader.st_uid == uid;
}

/* Whether a living process belongs to this start: the leader, its group, or below it. */
static bool is_of_generation(const struct ready *ready, pid_t pid, const struct process_stat *stat)
{
	return pid == ready->leader || stat->group == ready->leader || process_is_below(pid, ready->leader);
}

/* An abstract name has no owner and is listed in /proc/net/unix: anybody on the machine can send to it. */
static bool sender_is_ours(const struct ready *ready, const struct ucred *sender)
{
	struct process_stat stat;
	if (sender->pid <= 0)
		return false;
	if (process_stat(sender->pid, &stat) < 0)
		return uid_is_the_servers(ready, sender->uid); /* systemd-notify(1) and the like do not stay */
	if (is_of_generation(ready, sender->pid, &stat))
		return true;
	/* A helper that detached itself comes to us, the subreaper; its environment says whose it was. */
	char name[sizeof(ready->notify_name)];
	return stat.parent == getpid() && process_environ(sender->pid, "NOTIFY_SOCKET", name, sizeof(name)) >= 0 &&
	       strcmp(name, ready->notify_name) == 0;
}

static void tell_status(struct ready *ready, const struct ready_message *message)
{
	char text[READY_TEXT_MAX];
	error_printable(text, sizeof(text), message->status, message->status_length);
	if (ready->handler.on_status)
		ready->handler.on_status(ready->data, text);
}

static void tell_main_pid(struct ready *ready, const struct ready_message *message, pid_t sender)
{
	struct process_stat stat;
	if (message->main_pid <= 0)
		ready_note(ready, &ready->noted_main_pid, "ignored a MAINPID= from pid %d that is no pid", sender);
	else if (process_stat(message->main_pid, &stat) < 0 || !is_of_generation(ready, message->main_pid, &stat))
		ready_note(ready, &ready->noted_main_pid,
			   "ignored MAINPID=%d from pid %d: it is not a process of this generation", message->main_pid,
			   sender);
	else if (ready->handler.on_main_pid)
		ready->handler.on_main_pid(ready->data, message->main_pid);
}

/* MAINPID= comes before READY=1, so that what follows readiness knows it; each call may be the last. */
static void handle_message(struct ready *ready, const struct ready_message *message, pid_t sender)
{
	if (message->status)
		tell_status(ready, message);
	if (message->has_extend && ready_is_open(ready) && ready->handler.on_extend)
		ready->handler.on_extend(ready->data, message->extend_usec);
	if (message->has_main_pid && !ready->is_destroyed)
		tell_main_pid(ready, message, sender);
	if (message->ready && (ready_has_how(ready, READY_NOTIFY) || ready_has_how(ready, READY_AUTO))) {
		char why[READY_WHY_ROOM];
		snprintf(why, sizeof(why), "READY=1 from pid %d", sender);
		ready_become(ready, "notify", why);
	}
	if (message->stopping && !ready->is_destroyed && ready->handler.on_stopping)
		ready->handler.on_stopping(ready->data);
}

/* The sender's credentials. There is room for nothing else, so descriptors that come along (FDSTORE=1, BARRIER=1) are
 * dropped by the kernel instead of being installed here, where our close could be made to wait (SO_LINGER, FUSE); the
 * far end of a barrier sees the same end-of-file. The loop is for kernels that would order this in another way. */
static struct ucred take_credentials(struct msghdr *header)
{
	struct ucred sender = {.pid = 0};
	for (struct cmsghdr *part = CMSG_FIRSTHDR(header); part; part = CMSG_NXTHDR(header, part)) {
		if (part->cmsg_level != SOL_SOCKET)
			continue;
		if (part->cmsg_type == SCM_CREDENTIALS)
			memcpy(&sender, CMSG_DATA(part), sizeof(sender));
		for (size_t at = CMSG_LEN(0); part->cmsg_type == SCM_RIGHTS && at + sizeof(int) <= part->cmsg_len;
		     at += sizeof(int)) {
			int fd;
			memcpy(&fd, (const unsigned char *)part + at, sizeof(fd));
			fd_close(fd);
		}
	}
	return sender;
}

/* Takes one datagram. False when there is none. */
static bool read_datagram(struct ready *ready)
{
	char text[READY_DATAGRAM_MAX];
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(struct ucred))];
	} control;
	struct iovec part = {.iov_base = text, .iov_len = sizeof(text)};
	struct msghdr header = {
		.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	ssize_t length = recvmsg(ready->notify_fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (length < 0)
		return errno == EINTR;
	struct ucred sender = take_credentials(&header);
	struct ready_message message;
	if (!sender_is_ours(ready, &sender)) {
		ready_note(ready, &ready->noted_foreign,
			   "ignored a datagram from pid %d, which is not of this generation", sender.pid);
		return true;
	}
	ready_spoke(ready, &ready->spoke_by_datagram);
	if (header.msg_flags & MSG_TRUNC)
		ready_note(ready, &ready->noted_bad, "ignored a datagram from pid %d of more than %d bytes", sender.pid,
			   READY_DATAGRAM_MAX);
	else if (ready_message_parse(text, (size_t)length, &message) < 0)
		ready_note(ready, &ready->noted_bad, "ignored a datagram from pid %d that is not text", sender.pid);
	else
		handle_message(ready, &message, sender.pid);
	return true;
}

static void on_datagrams(struct loop_source *source, int fd, uint32_t events, void *data)
{
	struct ready *ready = data;
	(void)source;
	(void)fd;
	(void)events;
	ready_hold(ready);
	for (int i = 0; i < DATAGRAMS_PER_ROUND && !ready->is_destroyed && read_datagram(ready); i++)
		;
	ready_release(ready);
}

int ready_notify_watch(struct ready *ready)
{
	return loop_add_fd(ready->loop, ready->notify_fd, EPOLLIN, on_datagrams, ready, &ready->notify_source);
}
