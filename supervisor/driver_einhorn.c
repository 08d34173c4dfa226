/* SPDX-License-Identifier: MIT */
/* --compat einhorn: the socket to which workers say that they are ready. */
#include "driver_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <bsd/string.h>

#include "compat.h"
#include "fd.h"
#include "log.h"

/* More than any worker has to say. */
#define LINE_MAX_BYTES 4096
#define CLIENTS_MAX 64

struct einhorn_client {
	TAILQ_ENTRY(einhorn_client) link; /* in einhorn.clients */
	struct einhorn *einhorn;
	struct loop_source *source;
	int fd; /* owned */
	pid_t pid;
	char line[LINE_MAX_BYTES];
	size_t length;
};

struct einhorn {
	struct driver *driver;
	char *path; /* owned */
	int fd;     /* owned */
	struct loop_source *source;
	TAILQ_HEAD(, einhorn_client) clients;
	size_t count;
};

static void client_close(struct einhorn_client *client)
{
	TAILQ_REMOVE(&client->einhorn->clients, client, link);
	client->einhorn->count--;
	loop_remove(client->source);
	fd_close(client->fd);
	free(client);
}

static bool acknowledges(struct generation *generation, pid_t pid)
{
	for (size_t i = 0; i < generation->worker_count; i++) {
		struct worker *worker = generation->workers[i];
		struct process_stat stat;
		bool its = pid == worker->child.pid || process_is_below(pid, worker->child.pid) ||
			   (process_stat(pid, &stat) == 0 && stat.group == worker->child.pid);
		if (worker->child.pid == 0 || !its || !worker->ready)
			continue;
		/* Also where a guess was quicker than its word: what comes after it is waited for. */
		generation->driver->own_word = true;
		ready_acknowledge(worker->ready, "worker:ack on EINHORN_SOCK_PATH");
		return true;
	}
	return false;
}

/* By who sent it (the kernel's word), not by the pid in the message. Not only a generation that starts is asked: a lost
 * worker's replacement is one of the active generation's. */
static void acknowledge(struct driver *driver, pid_t pid)
{
	struct generation *generation;

	TAILQ_FOREACH (generation, &driver->generations, link)
		if (acknowledges(generation, pid))
			return;
	log_debug("ignored a worker:ack from pid %d, which is of no generation", pid);
}

static void on_client(struct loop_source *source, int fd, uint32_t events, void *data)
{
	(void)source;
	(void)events;
	struct einhorn_client *client = data;
	ssize_t length =
		recv(fd, client->line + client->length, sizeof(client->line) - 1 - client->length, MSG_DONTWAIT);
	if (length < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (length <= 0) {
		client_close(client);
		return;
	}
	client->length += (size_t)length;
	client->line[client->length] = '\0';
	for (char *newline; (newline = memchr(client->line, '\n', client->length));) {
		*newline = '\0';
		if (compat_is_ack(client->line))
			acknowledge(client->einhorn->driver, client->pid);
		client->length -= (size_t)(newline + 1 - client->line);
		memmove(client->line, newline + 1, client->length);
	}
	if (client->length == sizeof(client->line) - 1)
		client_close(client);
}

static void on_connect(struct loop_source *source, int listen_fd, uint32_t events, void *data)
{
	(void)source;
	(void)events;
	struct einhorn *einhorn = data;
	struct ucred peer;
	socklen_t length = sizeof(peer);
	int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct einhorn_client *client = fd < 0 ? NULL : calloc(1, sizeof(*client));
	if (!client || einhorn->count >= CLIENTS_MAX || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0 ||
	    loop_add_fd(einhorn->driver->loop, fd, EPOLLIN, on_client, client, &client->source) < 0) {
		fd_close(fd);
		free(client);
		return;
	}
	client->einhorn = einhorn;
	client->fd = fd;
	client->pid = peer.pid;
	einhorn->count++;
	TAILQ_INSERT_TAIL(&einhorn->clients, client, link);
}

const char *driver_einhorn_path(const struct driver *driver)
{
	return driver->einhorn ? driver->einhorn->path : NULL;
}

void driver_einhorn_finish(struct driver *driver)
{
	struct einhorn *einhorn = driver->einhorn;
	struct einhorn_client *client;
	if (!einhorn)
		return;
	while ((client = TAILQ_FIRST(&einhorn->clients)))
		client_close(client);
	loop_remove(einhorn->source);
	if (einhorn->fd >= 0)
		unlink(einhorn->path);
	fd_close(einhorn->fd);
	free(einhorn->path);
	free(einhorn);
	driver->einhorn = NULL;
}

/* The server may run as another user, hence the mode; only workers are listened to. */
static int open_socket(struct einhorn *einhorn)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	if (strlcpy(address.sun_path, einhorn->path, sizeof(address.sun_path)) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	CLEANUP(fd_closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	unlink(einhorn->path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || chmod(einhorn->path, 0666) < 0 ||
	    listen(fd, 64) < 0)
		return -errno;
	einhorn->fd = fd_steal(&fd);
	return 0;
}

int driver_einhorn_init(struct driver *driver, const struct control_place *place, struct error *error)
{
	if (!(driver->options->compat & COMPAT_EINHORN))
		return 0;
	if (!place)
		return error_set(error, -ENOTSUP,
				 "--compat einhorn needs the control socket, beside which its own lies");
	struct einhorn *einhorn = driver->einhorn = calloc(1, sizeof(*einhorn));
	if (!einhorn)
		return error_set(error, -ENOMEM, "out of memory");
	*einhorn = (struct einhorn){.driver = driver, .fd = -1};
	TAILQ_INIT(&einhorn->clients);
	/* The lock of the place is ours, so that a socket that is there is of somebody who died. */
	int r = asprintf(&einhorn->path, "%s.einhorn", place->path) < 0 ? -ENOMEM : open_socket(einhorn);
	if (r >= 0)
		r = loop_add_fd(driver->loop, einhorn->fd, EPOLLIN, on_connect, einhorn, &einhorn->source);
	return r < 0 ? error_set(error, r, "cannot make einhorn's socket beside %s: %s", place->path, strerror(-r)) : 0;
}
