/* SPDX-License-Identifier: MIT */
/* Open connections of processes: which sockets they hold, and which names these would have to bear. */
#include <bsd/stdlib.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "connections_private.h"
#include "fd.h"

#define STATM_MAX 4096

/* /proc/PID/task/TID/statm with two numbers of ten digits. */
#define PATH_LENGTH 64

static void closedirp(DIR **dir)
{
	if (*dir)
		closedir(*dir);
}

/* --- What processes hold --- */

static int add_socket(struct connections *connections, ino_t inode)
{
	if (connections->count == connections->capacity) {
		size_t capacity = connections->capacity ? connections->capacity * 2 : 256;
		struct connections_socket *sockets =
			reallocarray(connections->sockets, capacity, sizeof(*connections->sockets));
		if (!sockets)
			return -ENOMEM;
		connections->sockets = sockets;
		connections->capacity = capacity;
	}
	connections->sockets[connections->count++] = (struct connections_socket){.inode = inode};
	return 0;
}

/* Adds the sockets of one fd folder; *ret_any, whether anything is open there. */
static int add_folder(struct connections *connections, const char *path, bool *ret_any)
{
	CLEANUP(closedirp) DIR *folder = opendir(path);

	if (!folder)
		return -errno;
	for (;;) {
		char target[64];

		errno = 0;
		const struct dirent *entry = readdir(folder);
		if (!entry)
			return -errno;
		if (entry->d_name[0] == '.')
			continue;
		*ret_any = true;
		if (++connections->looked_at > CONNECTIONS_MAX)
			return -E2BIG;
		ssize_t length = readlinkat(dirfd(folder), entry->d_name, target, sizeof(target) - 1);
		if (length < 0 && (errno == EACCES || errno == EPERM))
			return -errno;
		if (length < 0) /* closed meanwhile */
			continue;
		target[length] = '\0';
		if (strncmp(target, "socket:[", 8) != 0)
			continue;
		int result = add_socket(connections, strtoul(target + 8, NULL, 10));
		if (result < 0)
			return result;
	}
}

static bool has_memory(const char *task)
{
	CLEANUP(freep) char *text = NULL;
	char path[PATH_LENGTH];
	size_t length;

	snprintf(path, sizeof(path), "%s/statm", task);
	return fd_read_file(path, STATM_MAX, &text, &length) == 0 && strtoul(text, NULL, 10) > 0;
}

/* Adds the sockets of one task, which is a folder of /proc. */
static int add_task(struct connections *connections, const char *task, bool *ret_any)
{
	char path[PATH_LENGTH];

	snprintf(path, sizeof(path), "%s/fd", task);
	int result = add_folder(connections, path, ret_any);
	/* A task that exits gives up its memory first, and its files in /proc are root's from then on. */
	return result == -EACCES && !has_memory(task) ? 0 : result;
}

/* The descriptors of a process whose first thread is gone are to be seen at the others. */
static int add_threads(struct connections *connections, pid_t pid)
{
	char path[PATH_LENGTH];
	bool any = false;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	CLEANUP(closedirp) DIR *folder = opendir(path);
	if (!folder)
		return errno == ENOENT || errno == ESRCH ? 0 : -errno;
	while (!any) {
		errno = 0;
		const struct dirent *entry = readdir(folder);
		if (!entry)
			return errno == ENOENT || errno == ESRCH ? 0 : -errno;
		int thread = atoi(entry->d_name);
		if (thread < 1 || thread == pid)
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%d", (int)pid, thread);
		int result = add_task(connections, path, &any);
		if (result < 0 && result != -ENOENT && result != -ESRCH)
			return result;
	}
	return 0;
}

static int add_process(struct connections *connections, pid_t pid)
{
	char path[PATH_LENGTH];
	bool any = false;

	snprintf(path, sizeof(path), "/proc/%d", (int)pid);
	int result = add_task(connections, path, &any);
	/* Gone, or hidden from us: hidepid=, or /proc is not there. */
	if (result == -ENOENT || result == -ESRCH)
		return kill(pid, 0) == 0 || errno == EPERM ? -EACCES : 0;
	return result < 0 || any ? result : add_threads(connections, pid);
}

static int compare_sockets(const void *a, const void *b)
{
	ino_t first = ((const struct connections_socket *)a)->inode;
	ino_t second = ((const struct connections_socket *)b)->inode;

	return (first > second) - (first < second);
}

static void sort_sockets(struct connections *connections)
{
	size_t kept = 0;

	if (connections->count == 0)
		return;
	qsort(connections->sockets, connections->count, sizeof(*connections->sockets), compare_sockets);
	for (size_t i = 1; i < connections->count; i++)
		if (connections->sockets[i].inode != connections->sockets[kept].inode)
			connections->sockets[++kept] = connections->sockets[i];
	connections->count = kept + 1;
}

/* --- What they would be connections of --- */

static int option_of(int fd, int option, int *ret_value)
{
	socklen_t length = sizeof(*ret_value);

	return getsockopt(fd, SOL_SOCKET, option, ret_value, &length) < 0 ? -errno : 0;
}

bool connections_has_port(const struct connections *connections, uint16_t port)
{
	for (size_t i = 0; i < connections->port_count; i++)
		if (connections->ports[i] == port)
			return true;
	return false;
}

static void add_port(struct connections *connections, uint16_t port)
{
	if (!connections_has_port(connections, port))
		connections->ports[connections->port_count++] = port;
}

static int add_listener(struct connections *connections, int listen_fd)
{
	union {
		struct sockaddr any;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
		struct sockaddr_un un;
		struct sockaddr_storage storage;
	} address = {.any.sa_family = AF_UNSPEC};
	socklen_t length = sizeof(address);
	int type, protocol, result = option_of(listen_fd, SO_TYPE, &type);

	if (result == 0)
		result = option_of(listen_fd, SO_PROTOCOL, &protocol);
	if (result < 0)
		return result;
	if (type == SOCK_DGRAM)
		return 0;
	if (getsockname(listen_fd, &address.any, &length) < 0)
		return -errno;
	if (address.any.sa_family == AF_UNIX) {
		struct connections_name *name = &connections->names[connections->name_count];
		size_t start = offsetof(struct sockaddr_un, sun_path);
		if (length <= start || length - start > sizeof(name->bytes))
			return -EINVAL;
		*name = (struct connections_name){.type = type, .length = length - start};
		memcpy(name->bytes, (const char *)&address + start, name->length);
		connections->name_count++;
		return 0;
	}
	if (protocol != IPPROTO_TCP)
		return -EPROTONOSUPPORT;
	bool ipv6 = address.any.sa_family == AF_INET6;
	add_port(connections, ntohs(ipv6 ? address.in6.sin6_port : address.in.sin_port));
	*(ipv6 ? &connections->ipv6 : &connections->ipv4) = true;
	return 0;
}

/* Whether what is accepted from the listener is in the network namespace that we can see. Before Linux 5.14 nobody
 * says so. */
static bool is_in_our_network(int listen_fd)
{
#ifdef SO_NETNS_COOKIE
	uint64_t theirs, ours;
	socklen_t length = sizeof(theirs);

	if (getsockopt(listen_fd, SOL_SOCKET, SO_NETNS_COOKIE, &theirs, &length) < 0)
		return true;
	CLEANUP(fd_closep) int our_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	return our_fd < 0 || getsockopt(our_fd, SOL_SOCKET, SO_NETNS_COOKIE, &ours, &length) < 0 || theirs == ours;
#else
	(void)listen_fd;
	return true;
#endif
}

static int add_listeners(struct connections *connections, const struct listener_set *listeners)
{
	int result = 0;

	if (listeners->count == 0)
		return 0;
	connections->ports = reallocarray(NULL, listeners->count, sizeof(*connections->ports));
	connections->names = reallocarray(NULL, listeners->count, sizeof(*connections->names));
	if (!connections->ports || !connections->names)
		return -ENOMEM;
	for (size_t i = 0; i < listeners->count && result == 0; i++) {
		if (!is_in_our_network(listeners->items[i].fd))
			return -EXDEV;
		result = add_listener(connections, listeners->items[i].fd);
	}
	return result;
}

/* --- The count --- */

int connections_init(struct connections *connections, const pid_t *pids, size_t count,
		     const struct listener_set *listeners)
{
	*connections = (struct connections){.count = 0};
	int result = add_listeners(connections, listeners);
	for (size_t i = 0; i < count && result == 0; i++)
		result = add_process(connections, pids[i]);
	sort_sockets(connections);
	return result;
}

void connections_finish(struct connections *connections)
{
	free(connections->sockets);
	free(connections->ports);
	free(connections->names);
	*connections = (struct connections){.count = 0};
}

static void mark(struct connections *connections, ino_t inode)
{
	struct connections_socket wanted = {.inode = inode};

	if (connections->count == 0)
		return;
	struct connections_socket *found = bsearch(&wanted, connections->sockets, connections->count,
						   sizeof(*connections->sockets), compare_sockets);
	if (found)
		found->connected = true;
}

void connections_see_tcp(struct connections *connections, uint16_t port, ino_t inode)
{
	if (connections_has_port(connections, port))
		mark(connections, inode);
}

void connections_see_unix(struct connections *connections, const struct connections_name *name, ino_t inode)
{
	for (size_t i = 0; i < connections->name_count; i++) {
		const struct connections_name *ours = &connections->names[i];
		if (ours->type == name->type && ours->length == name->length &&
		    memcmp(ours->bytes, name->bytes, name->length) == 0) {
			mark(connections, inode);
			return;
		}
	}
}

int64_t connections_marked(const struct connections *connections)
{
	int64_t marked = 0;

	for (size_t i = 0; i < connections->count; i++)
		marked += connections->sockets[i].connected;
	return marked;
}

int64_t connections_count(const pid_t *pids, size_t count, const struct listener_set *listeners)
{
	CLEANUP(connections_finish) struct connections connections;
	int result = connections_init(&connections, pids, count, listeners);

	if (result < 0)
		return -1;
	if (connections.count == 0)
		return 0;
#ifdef HAVE_LIBMNL
	result = connections_diag(&connections);
	/* Refused (a service without AF_NETLINK) or not in this kernel. What it marked until then are connections. */
	if (result == 0)
		return connections_marked(&connections);
#endif
	result = connections_proc(&connections);
	return result < 0 ? -1 : connections_marked(&connections);
}
