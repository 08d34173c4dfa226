/* SPDX-License-Identifier: MIT */
/* Sockets that our parent gave us: the LISTEN_FDS protocol of sd_listen_fds(3), and plain descriptor numbers. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bsd/stdlib.h>
#include <bsd/string.h>

#include "fd.h"
#include "listener_private.h"

#define FIRST_FD 3

/* --- What the environment says --- */

static int split_names(const char *text, int count, char ***ret_names, struct error *error)
{
	char **names = calloc((size_t)count + 1, sizeof(*names));
	CLEANUP(freep) char *copy = strdup(text);
	char *rest = copy, *name;
	int found = 0;

	if (!names || !copy) {
		free(names);
		return error_set(error, -ENOMEM, "cannot read LISTEN_FDNAMES: %s", strerror(ENOMEM));
	}
	while ((name = strsep(&rest, ":")) && found < count && (names[found] = strdup(name)))
		found++;
	if (!name && found == count) {
		*ret_names = names;
		return 0;
	}
	bool memory = name && found < count;
	while (found > 0)
		free(names[--found]);
	free(names);
	if (memory)
		return error_set(error, -ENOMEM, "cannot read LISTEN_FDNAMES: %s", strerror(ENOMEM));
	return error_set(error, -EINVAL, "LISTEN_FDNAMES \"%s\" does not have as many names as LISTEN_FDS says (%d)",
			 text, count);
}

int listener_inherit(struct listener_inherited *ret_inherited, struct error *error)
{
	struct listener_inherited inherited = {.names = NULL};
	const char *pid_text = getenv("LISTEN_PID"), *count_text = getenv("LISTEN_FDS");
	const char *names_text = getenv("LISTEN_FDNAMES");
	int64_t pid = 0, count = 0;
	int r = 0;

	if (pid_text && count_text) {
		r = spec_number("LISTEN_PID", pid_text, 1, INT32_MAX, &pid, error);
		if (r == 0 && pid == getpid())
			r = spec_number("LISTEN_FDS", count_text, 0, INT32_MAX - FIRST_FD, &count, error);
	}
	if (r < 0)
		return r;
	inherited.count = (int)count;
	for (int fd = FIRST_FD; fd < FIRST_FD + inherited.count; fd++)
		if (fd_set_cloexec(fd, true) < 0)
			return error_set(error, -EBADF, "LISTEN_FDS says %d, but descriptor %d is not open",
					 inherited.count, fd);
	if (inherited.count > 0 && names_text)
		r = split_names(names_text, inherited.count, &inherited.names, error);
	if (r == 0)
		*ret_inherited = inherited;
	return r;
}

void listener_inherited_finish(struct listener_inherited *inherited)
{
	for (int i = 0; inherited->names && i < inherited->count; i++)
		free(inherited->names[i]);
	free(inherited->names);
	*inherited = (struct listener_inherited){.names = NULL};
}

/* --- Taking a descriptor --- */

static bool is_taken(const struct listener_opening *opening, int fd)
{
	for (size_t i = 0; i < opening->taken_count; i++)
		if (opening->taken[i].fd == fd)
			return true;
	return false;
}

/* The name that came with the descriptor; "unknown" is the protocol's word for none. */
static const char *passed_name(const struct listener_opening *opening, int fd)
{
	const struct listener_inherited *inherited = opening->inherited;

	if (!inherited || !inherited->names || fd < FIRST_FD || fd >= FIRST_FD + inherited->count)
		return NULL;
	const char *name = inherited->names[fd - FIRST_FD];
	return name[0] == '\0' || strcmp(name, "unknown") == 0 ? NULL : name;
}

static const char *type_of(int family, int type)
{
	if (family == AF_INET || family == AF_INET6)
		return type == SOCK_STREAM ? "tcp" : type == SOCK_DGRAM ? "udp" : NULL;
	if (family == AF_UNIX)
		return type == SOCK_DGRAM ? "unixgram" : type == SOCK_STREAM || type == SOCK_SEQPACKET ? "unix" : NULL;
	return NULL;
}

static int socket_option(int fd, int name)
{
	int value = -1;
	socklen_t length = sizeof(value);

	return getsockopt(fd, SOL_SOCKET, name, &value, &length) < 0 ? -1 : value;
}

/* A listening TCP socket tells its backlog where a connection has its sacked segments (tcp_get_info() in the kernel).
 */
static int inherited_backlog(int fd, const char *type)
{
	struct tcp_info info;
	socklen_t length = sizeof(info);

	if (strcmp(type, "tcp") != 0 || getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) < 0)
		return 0;
	return (int)info.tcpi_sacked;
}

static bool is_bound(const struct listener_address *address)
{
	if (address->any.sa_family == AF_UNIX)
		return address->length > offsetof(struct sockaddr_un, sun_path);
	return address->any.sa_family == AF_INET6 ? address->in6.sin6_port != 0 : address->in.sin_port != 0;
}

/* Says why the descriptor is of no use, or fills what is known of it. */
static int inspect(const struct listen_spec *spec, int fd, struct listener_address *ret_address, const char **ret_type,
		   struct error *error)
{
	struct listener_address address;
	struct stat status;

	if (fstat(fd, &status) < 0)
		return error_set(error, -EBADF, "cannot listen on %s: descriptor %d is not open", spec->text, fd);
	if (!S_ISSOCK(status.st_mode))
		return error_set(error, -ENOTSOCK, "cannot listen on %s: descriptor %d is no socket", spec->text, fd);
	int r = listener_address_of(fd, &address), type = socket_option(fd, SO_TYPE);
	const char *name = r < 0 ? NULL : type_of(address.any.sa_family, type);
	if (!name)
		return error_set(error, -EINVAL,
				 "cannot listen on %s: descriptor %d is a socket of a kind that is not supported",
				 spec->text, fd);
	if (!is_bound(&address))
		return error_set(error, -EINVAL, "cannot listen on %s: descriptor %d is not bound to an address",
				 spec->text, fd);
	if (type != SOCK_DGRAM && socket_option(fd, SO_ACCEPTCONN) != 1)
		return error_set(error, -EINVAL, "cannot listen on %s: descriptor %d is a socket that does not listen",
				 spec->text, fd);
	*ret_address = address;
	*ret_type = name;
	return 0;
}

static int take(struct listener_opening *opening, const struct listen_spec *spec, int fd, struct error *error)
{
	struct listener_address address;
	struct listener *listener;
	const char *type = NULL, *name = passed_name(opening, fd);
	char text[LISTENER_TEXT_MAX];

	if (is_taken(opening, fd))
		return error_set(error, -EBUSY, "cannot listen on %s: descriptor %d is taken by another listener",
				 spec->text, fd);
	int r = inspect(spec, fd, &address, &type, error);
	if (r < 0)
		return r;
	struct listener_taken *taken = reallocarray(opening->taken, opening->taken_count + 1, sizeof(*taken));
	if (!taken)
		return error_set(error, -ENOMEM, "cannot listen on %s: %s", spec->text, strerror(ENOMEM));
	opening->taken = taken;
	r = listener_add(opening, spec, type, listener_address_text(&address, text), fd, &listener, error);
	if (r < 0)
		return r;
	listener->inherited = true;
	listener->stream = socket_option(fd, SO_ACCEPTCONN) == 1;
	listener->backlog = listener->stream ? inherited_backlog(fd, type) : 0;
	if (!listener->name && name && !(listener->name = strdup(name)))
		return error_set(error, -ENOMEM, "cannot listen on %s: %s", spec->text, strerror(ENOMEM));
	taken[opening->taken_count++] = (struct listener_taken){.fd = fd, .nonblock = spec->nonblock};
	return 0;
}

/* Why `systemd` finds nothing, in the protocol's own words. */
static int nothing_passed(const struct listener_opening *opening, const struct listen_spec *spec, struct error *error)
{
	const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");

	if (opening->inherited && opening->inherited->count > 0 && spec->fd_name)
		return error_set(error, -ENOENT,
				 "cannot listen on %s: no socket named \"%s\" is left among those that were passed",
				 spec->text, spec->fd_name);
	if (opening->inherited && opening->inherited->count > 0)
		return error_set(error, -ENOENT,
				 "cannot listen on %s: every socket that was passed is taken by another listener",
				 spec->text);
	if (!count || !pid)
		return error_set(error, -ENOENT, "cannot listen on %s: no sockets were passed to us (%s is not set)",
				 spec->text, count ? "LISTEN_PID" : "LISTEN_FDS");
	return error_set(error, -ENOENT,
			 "cannot listen on %s: no sockets were passed to us (LISTEN_FDS=%s LISTEN_PID=%s, our pid is "
			 "%d)",
			 spec->text, count, pid, (int)getpid());
}

int listener_inherited_open(struct listener_opening *opening, const struct listen_spec *spec, struct error *error)
{
	const struct listener_inherited *inherited = opening->inherited;
	int taken = 0;

	if (spec->type == LISTEN_FD)
		return take(opening, spec, spec->fd, error);
	for (int i = 0; inherited && i < inherited->count; i++) {
		const char *name = inherited->names ? inherited->names[i] : "unknown";
		if (is_taken(opening, FIRST_FD + i) || (spec->fd_name && strcmp(name, spec->fd_name) != 0))
			continue;
		int r = take(opening, spec, FIRST_FD + i, error);
		if (r < 0)
			return r;
		taken++;
	}
	return taken > 0 ? 0 : nothing_passed(opening, spec, error);
}

/* --- Commit --- */

void listener_inherited_commit(struct listener_opening *opening)
{
	for (size_t i = 0; i < opening->taken_count; i++) {
		fd_set_cloexec(opening->taken[i].fd, true);
		if (opening->taken[i].nonblock)
			fd_set_nonblock(opening->taken[i].fd, true);
	}
}
