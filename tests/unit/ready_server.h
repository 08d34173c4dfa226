/* SPDX-License-Identifier: MIT */
/* The server side of test_ready.c: does the words of its command line, one after the other. */
#ifndef HANDOFF_TEST_READY_SERVER_H
#define HANDOFF_TEST_READY_SERVER_H

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define SERVER_LISTEN_FD 3
#define SERVER_READY_FD 4

/* Sends one datagram to "@name", with a descriptor if there is one. */
static inline void server_send(const char *name, const char *text, size_t length, int fd)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec part = {.iov_len = length};
	struct msghdr header = {.msg_name = &address, .msg_iov = &part, .msg_iovlen = 1};
	memcpy(&part.iov_base, &text, sizeof(text));
	memcpy(address.sun_path + 1, name + 1, strlen(name) - 1);
	header.msg_namelen = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name));
	if (fd >= 0) {
		header.msg_control = &control;
		header.msg_controllen = sizeof(control);
		struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
		rights->cmsg_level = SOL_SOCKET;
		rights->cmsg_type = SCM_RIGHTS;
		rights->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(rights), &fd, sizeof(fd));
	}
	int socket_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (sendmsg(socket_fd, &header, 0) != (ssize_t)length)
		abort();
	close(socket_fd);
}

static inline void server_say(const char *text)
{
	server_send(getenv("NOTIFY_SOCKET"), text, strlen(text), -1);
}

static inline void server_many(int count, void (*sink)(const char *bytes, size_t length))
{
	char *bytes = malloc((size_t)count);
	memset(bytes, 'x', (size_t)count);
	sink(bytes, (size_t)count);
	free(bytes);
}

static inline void server_to_pipe(const char *bytes, size_t length)
{
	while (length > 0) {
		ssize_t written = write(SERVER_READY_FD, bytes, length);
		if (written < 0)
			abort();
		bytes += written;
		length -= (size_t)written;
	}
}

static inline void server_to_socket(const char *bytes, size_t length)
{
	server_send(getenv("NOTIFY_SOCKET"), bytes, length, -1);
}

/* As sd_notify_barrier(3): goes on when the other side has closed the descriptor. */
static inline void server_barrier(const char *text)
{
	int ends[2];
	if (pipe(ends) < 0)
		abort();
	server_send(getenv("NOTIFY_SOCKET"), text, strlen(text), ends[1]);
	close(ends[1]);
	struct pollfd end = {.fd = ends[0], .events = 0};
	if (poll(&end, 1, 10000) != 1)
		abort();
	close(ends[0]);
}

/* In a child that stays, with "self" replaced by its number. */
static inline void server_from_child(const char *text)
{
	int ends[2];
	char byte, own[256];
	if (pipe(ends) < 0)
		abort();
	if (fork() == 0) {
		const char *self = strstr(text, "self");
		int before = self ? (int)(self - text) : (int)strlen(text);
		snprintf(own, sizeof(own), "%.*s%d", before, text, getpid());
		server_say(own);
		if (write(ends[1], "x", 1) != 1)
			abort();
		pause();
		_exit(0);
	}
	if (read(ends[0], &byte, 1) != 1)
		abort();
	close(ends[0]);
	close(ends[1]);
}

static inline void server_send_and_go(const char *text)
{
	pid_t pid = fork();
	if (pid == 0) {
		server_say(text);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
}

/* In a process that is neither below us nor in our group any more when it sends. */
static inline void server_detached(const char *text)
{
	pid_t pid = fork();
	if (pid == 0) {
		setsid();
		pid_t middle = getpid();
		if (fork() == 0) {
			alarm(10);
			while (getppid() == middle)
				poll(NULL, 0, 1);
			server_say(text);
			/* Until the test has read it and ends. */
			for (;;)
				pause();
		}
		_exit(0);
	}
	waitpid(pid, NULL, 0);
}

static inline void server_word(const char *word)
{
	const char *colon = strchr(word, ':');
	const char *value = colon ? colon + 1 : "";
	size_t length = colon ? (size_t)(colon - word) : strlen(word);
#define IS(name) (strlen(name) == length && strncmp(word, name, length) == 0)
	if (IS("say"))
		server_to_pipe(value, strlen(value));
	else if (IS("say-many"))
		server_many(atoi(value), server_to_pipe);
	else if (IS("close"))
		close(SERVER_READY_FD);
	else if (IS("send"))
		server_say(value);
	else if (IS("send-many"))
		server_many(atoi(value), server_to_socket);
	else if (IS("send-zero"))
		server_to_socket("READY=1\0X=1", 11);
	else if (IS("send-from-child"))
		server_from_child(value);
	else if (IS("send-and-go"))
		server_send_and_go(value);
	else if (IS("send-detached"))
		server_detached(value);
	else if (IS("barrier"))
		server_barrier(value);
	else if (IS("accept") || (IS("accept-in-child") && fork() == 0))
		accept(SERVER_LISTEN_FD, NULL, NULL);
	else if (IS("undumpable"))
		prctl(PR_SET_DUMPABLE, 0);
	else if (IS("stop"))
		raise(SIGSTOP);
	else
		pause();
#undef IS
}

static inline int server_main(char **words)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (; *words; words++)
		server_word(*words);
	return 0;
}

#endif
