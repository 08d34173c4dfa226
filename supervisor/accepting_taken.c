/* SPDX-License-Identifier: MIT */
/* The other proof that a busy server accepts: it holds connections that came through the held listeners. */
#include <arpa/inet.h>
#include <dirent.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "accepting_private.h"
#include "fd.h"

/* Descriptors looked at in all: a starting server has few, and the first connection is enough. */
#define FDS_MAX 1024

struct address {
	struct sockaddr_storage storage;
	socklen_t length; /* 0: not known */
};

struct taken {
	const struct accepting *accepting;
	struct address listeners[ACCEPTING_MAX];
	uint64_t bits;
	int budget; /* descriptors that may still be looked at */
};

/* Our own descriptor for the same socket, or -1. Held for two calls: if the server closes its own in between, the
 * connection ends with ours, microseconds later. */
static int borrow_fd(int pidfd, int fd)
{
#ifdef SYS_pidfd_getfd
	return (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);
#else
	(void)pidfd;
	(void)fd;
	return -1;
#endif
}

static bool is_wildcard(const struct sockaddr_storage *storage)
{
	if (storage->ss_family == AF_INET)
		return ((const struct sockaddr_in *)storage)->sin_addr.s_addr == htonl(INADDR_ANY);
	return IN6_IS_ADDR_UNSPECIFIED(&((const struct sockaddr_in6 *)storage)->sin6_addr);
}

/* Whether a socket's own address says that it was accepted from this listener: all but a wildcard's connections have
 * the very address of it. Clients have a port of their own, or no path. */
static bool came_through(const struct address *own, const struct address *listener)
{
	if (listener->length == 0 || own->storage.ss_family != listener->storage.ss_family)
		return false;
	if (own->storage.ss_family == AF_INET) {
		const struct sockaddr_in *a = (const struct sockaddr_in *)&own->storage;
		const struct sockaddr_in *b = (const struct sockaddr_in *)&listener->storage;
		return a->sin_port == b->sin_port &&
		       (a->sin_addr.s_addr == b->sin_addr.s_addr || is_wildcard(&listener->storage));
	}
	if (own->storage.ss_family == AF_INET6) {
		const struct sockaddr_in6 *a = (const struct sockaddr_in6 *)&own->storage;
		const struct sockaddr_in6 *b = (const struct sockaddr_in6 *)&listener->storage;
		return a->sin6_port == b->sin6_port &&
		       (IN6_ARE_ADDR_EQUAL(&a->sin6_addr, &b->sin6_addr) || is_wildcard(&listener->storage));
	}
	return own->length == listener->length && own->length > sizeof(sa_family_t) &&
	       memcmp(&own->storage, &listener->storage, own->length) == 0;
}

static void look_at_socket(struct taken *taken, int pidfd, int fd, unsigned long inode)
{
	size_t listener = 0;
	while (listener < taken->accepting->count && taken->accepting->inodes[listener] != inode)
		listener++;
	bool is_listener = listener < taken->accepting->count;
	if (is_listener && taken->listeners[listener].length > 0)
		return;
	CLEANUP(fd_closep) int borrowed_fd = borrow_fd(pidfd, fd);
	struct address own = {.length = sizeof(own.storage)};
	if (borrowed_fd < 0 || getsockname(borrowed_fd, (struct sockaddr *)&own.storage, &own.length) < 0)
		return;
	if (is_listener) {
		taken->listeners[listener] = own;
		return;
	}
	int accepts = 1;
	socklen_t size = sizeof(accepts);
	/* A listener of its own on the same port (SO_REUSEPORT) has the address too. */
	if (getsockopt(borrowed_fd, SOL_SOCKET, SO_ACCEPTCONN, &accepts, &size) < 0 || accepts)
		return;
	for (size_t i = 0; i < taken->accepting->count; i++) {
		if (came_through(&own, &taken->listeners[i]))
			taken->bits |= UINT64_C(1) << i;
	}
}

static void look_at_sockets(struct taken *taken, pid_t pid)
{
	char path[32];
	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	CLEANUP(fd_closep) int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	DIR *folder = pidfd < 0 ? NULL : opendir(path);
	if (!folder)
		return;
	const struct dirent *entry;
	while (taken->budget > 0 && (entry = readdir(folder))) {
		char link[64];
		unsigned long inode;
		ssize_t length = readlinkat(dirfd(folder), entry->d_name, link, sizeof(link) - 1);
		link[length > 0 ? length : 0] = '\0';
		taken->budget--;
		if (sscanf(link, "socket:[%lu]", &inode) == 1)
			look_at_socket(taken, pidfd, atoi(entry->d_name), inode);
	}
	closedir(folder);
}

uint64_t accepting_taken(const struct accepting *accepting, const pid_t *pids, size_t count)
{
	struct taken taken = {.accepting = accepting, .budget = FDS_MAX};
	/* Listeners have low numbers, so that they come before their connections within a process. */
	for (size_t i = 0; i < count; i++)
		look_at_sockets(&taken, pids[i]);
	return taken.bits;
}
