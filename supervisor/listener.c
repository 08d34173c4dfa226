/* SPDX-License-Identifier: MIT */
/* The set of sockets that we hold: opened all or none, checked, closed; and the inet ones among them. */
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netdb.h>
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

/* With port 0 and several addresses, the port that one address got may be taken at the next: how often to start over.
 */
#define PORT_TRIES 16

static long read_sysctl(const char *path, long otherwise)
{
	CLEANUP(freep) char *text = NULL;
	size_t length = 0;
	const char *problem = NULL;

	if (fd_read_file(path, 64, &text, &length) < 0)
		return otherwise;
	text[strcspn(text, "\n")] = '\0';
	long value = (long)strtonum(text, 0, INT32_MAX, &problem);
	return problem ? otherwise : value;
}

int listener_effective_backlog(int asked)
{
	long limit = read_sysctl("/proc/sys/net/core/somaxconn", INT32_MAX);

	return asked < 0 || asked > limit ? (int)limit : asked;
}

/* --- The set --- */

static void listener_finish(struct listener *listener, bool close_inherited)
{
	listener_unix_remove(listener);
	if (close_inherited || !listener->inherited)
		fd_close(listener->fd);
	free(listener->spec);
	free(listener->name);
	free(listener->address);
	free(listener->path);
	free(listener->guard_path);
}

/* Takes back everything from `first` on. Inherited descriptors stay open: nobody could give them to us again. */
static void opening_drop(struct listener_opening *opening, size_t first)
{
	while (opening->set.count > first)
		listener_finish(&opening->set.items[--opening->set.count], false);
}

static void opening_finish(struct listener_opening *opening)
{
	opening_drop(opening, 0);
	free(opening->set.items);
	free(opening->taken);
}

int listener_add(struct listener_opening *opening, const struct listen_spec *spec, const char *type,
		 const char *address, int fd, struct listener **ret_listener, struct error *error)
{
	struct listener_set *set = &opening->set;
	struct listener listener = {.type = type, .fd = fd};
	struct stat status;

	if (fd >= 0) {
		if (fstat(fd, &status) < 0)
			return error_set(error, -errno, "cannot listen on %s: %s", spec->text, strerror(errno));
		listener.socket_dev = status.st_dev;
		listener.socket_ino = status.st_ino;
	}
	struct listener *items = reallocarray(set->items, set->count + 1, sizeof(*items));
	if (items)
		set->items = items;
	listener.address = strdup(address);
	listener.spec = strdup(spec->text);
	listener.name = spec->name ? strdup(spec->name) : NULL;
	if (!items || !listener.spec || !listener.address || (spec->name && !listener.name)) {
		free(listener.spec);
		free(listener.address);
		free(listener.name);
		return error_set(error, -ENOMEM, "cannot listen on %s: %s", spec->text, strerror(ENOMEM));
	}
	items[set->count] = listener;
	*ret_listener = &items[set->count++];
	return 0;
}

int listener_socket(const struct listen_spec *spec, int family, int type, struct error *error)
{
	CLEANUP(fd_closep) int fd = socket(family, type | SOCK_CLOEXEC | (spec->nonblock ? SOCK_NONBLOCK : 0), 0);

	if (fd < 0 && errno == EAFNOSUPPORT)
		return error_set(error, -EAFNOSUPPORT, "cannot listen on %s: %s is not available on this host",
				 spec->text,
				 family == AF_INET6  ? "IPv6"
				 : family == AF_INET ? "IPv4"
						     : "this kind of socket");
	if (fd < 0)
		return error_set(error, -errno, "cannot listen on %s: cannot make a socket: %s", spec->text,
				 strerror(errno));
	/* Beyond rmem_max and wmem_max only with CAP_NET_ADMIN; without it the kernel caps silently. */
	if (spec->rcvbuf > 0 && setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &spec->rcvbuf, sizeof(int)) < 0 &&
	    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &spec->rcvbuf, sizeof(int)) < 0)
		return error_set(error, -errno, "cannot listen on %s: cannot set rcvbuf: %s", spec->text,
				 strerror(errno));
	if (spec->sndbuf > 0 && setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &spec->sndbuf, sizeof(int)) < 0 &&
	    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &spec->sndbuf, sizeof(int)) < 0)
		return error_set(error, -errno, "cannot listen on %s: cannot set sndbuf: %s", spec->text,
				 strerror(errno));
	return fd_steal(&fd);
}

/* --- Addresses --- */

const char *listener_address_text(const struct listener_address *address, char buffer[static LISTENER_TEXT_MAX])
{
	char host[INET6_ADDRSTRLEN + IF_NAMESIZE + 1] = "?";

	if (address->any.sa_family == AF_UNIX) {
		size_t length = address->length > offsetof(struct sockaddr_un, sun_path)
					? address->length - offsetof(struct sockaddr_un, sun_path)
					: 0;
		bool abstract = length > 0 && address->un.sun_path[0] == '\0';
		snprintf(buffer, LISTENER_TEXT_MAX, "%s%.*s", abstract ? "@" : "", (int)(length - abstract),
			 address->un.sun_path + abstract);
		return buffer;
	}
	getnameinfo(&address->any, address->length, host, sizeof(host), NULL, 0, NI_NUMERICHOST);
	if (address->any.sa_family == AF_INET6)
		snprintf(buffer, LISTENER_TEXT_MAX, "[%s]:%u", host, ntohs(address->in6.sin6_port));
	else
		snprintf(buffer, LISTENER_TEXT_MAX, "%s:%u", host, ntohs(address->in.sin_port));
	return buffer;
}

int listener_address_of(int fd, struct listener_address *ret_address)
{
	struct listener_address address = {.length = sizeof(address.storage)};

	if (getsockname(fd, &address.any, &address.length) < 0)
		return -errno;
	*ret_address = address;
	return 0;
}

static void address_set_port(struct listener_address *address, uint16_t port)
{
	if (address->any.sa_family == AF_INET6)
		address->in6.sin6_port = htons(port);
	else
		address->in.sin_port = htons(port);
}

static uint16_t address_port(const struct listener_address *address)
{
	return ntohs(address->any.sa_family == AF_INET6 ? address->in6.sin6_port : address->in.sin_port);
}

static bool address_is_wildcard(const struct listener_address *address)
{
	return address->any.sa_family == AF_INET6 ? IN6_IS_ADDR_UNSPECIFIED(&address->in6.sin6_addr)
						  : address->in.sin_addr.s_addr == htonl(INADDR_ANY);
}

static int resolve_wildcard(const struct listen_spec *spec, struct listener_addresses *ret_addresses,
			    struct error *error)
{
	struct listener_address *items = calloc(2, sizeof(*items));

	if (!items)
		return error_set(error, -ENOMEM, "cannot listen on %s: %s", spec->text, strerror(ENOMEM));
	items[0].in6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(spec->port)};
	items[0].length = sizeof(items[0].in6);
	items[1].in = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(spec->port)};
	items[1].length = sizeof(items[1].in);
	*ret_addresses =
		(struct listener_addresses){.items = items, .count = spec->v6only == 1 ? 1 : 2, .first_suffices = true};
	return 0;
}

static int resolve_name(const struct listen_spec *spec, struct addrinfo **ret_list, struct error *error)
{
	const struct addrinfo hints = {.ai_flags = AI_PASSIVE,
				       .ai_family = AF_UNSPEC,
				       .ai_socktype = spec->type == LISTEN_UDP ? SOCK_DGRAM : SOCK_STREAM};
	int failure = getaddrinfo(spec->host, NULL, &hints, ret_list);

	if (failure == 0)
		return 0;
	int code = failure == EAI_SYSTEM ? -errno : failure == EAI_MEMORY ? -ENOMEM : -EADDRNOTAVAIL;
	return error_set(error, code, "cannot listen on %s: cannot resolve \"%s\": %s", spec->text, spec->host,
			 failure == EAI_SYSTEM ? strerror(errno) : gai_strerror(failure));
}

int listener_resolve(const struct listen_spec *spec, struct listener_addresses *ret_addresses, struct error *error)
{
	struct addrinfo *list = NULL;
	size_t room = 0, count = 0;
	int r = spec->host ? resolve_name(spec, &list, error) : resolve_wildcard(spec, ret_addresses, error);

	if (r < 0 || !spec->host)
		return r;
	for (const struct addrinfo *info = list; info; info = info->ai_next)
		room++;
	struct listener_address *items = calloc(room ? room : 1, sizeof(*items));
	if (!items) {
		freeaddrinfo(list);
		return error_set(error, -ENOMEM, "cannot listen on %s: %s", spec->text, strerror(ENOMEM));
	}
	for (const struct addrinfo *info = list; info; info = info->ai_next) {
		struct listener_address *item = &items[count];
		size_t same = 0;
		if (info->ai_family != AF_INET && info->ai_family != AF_INET6)
			continue;
		*item = (struct listener_address){.length = info->ai_addrlen};
		memcpy(&item->storage, info->ai_addr, info->ai_addrlen);
		address_set_port(item, spec->port);
		while (memcmp(&items[same].storage, &item->storage, sizeof(item->storage)) != 0)
			same++;
		count += same == count;
	}
	freeaddrinfo(list);
	*ret_addresses = (struct listener_addresses){.items = items, .count = count};
	return 0;
}

/* --- Inet sockets --- */

static int fail_in_use_by_us(const struct listen_spec *spec, const struct listener_address *address,
			     struct error *error)
{
	char text[LISTENER_TEXT_MAX];
	bool wildcard = address->any.sa_family != AF_UNIX && address_is_wildcard(address);

	return error_set(error, -EADDRINUSE, "cannot listen on %s: %s is in use by another of our listeners%s",
			 spec->text, listener_address_text(address, text),
			 wildcard ? " (with v6only=yes, [::] leaves the IPv4 addresses alone)" : "");
}

int listener_fail_in_use(const struct listen_spec *spec, const struct listener_address *address, struct error *error)
{
	char text[LISTENER_TEXT_MAX], comm[17];
	pid_t pid = 0;

	listener_address_text(address, text);
	if (listener_holder_find(spec->type, address, &pid, comm) < 0)
		return error_set(error, -EADDRINUSE,
				 "cannot listen on %s: %s is in use by a process that cannot be seen from here",
				 spec->text, text);
	if (pid == getpid())
		return fail_in_use_by_us(spec, address, error);
	return error_set(error, -EADDRINUSE, "cannot listen on %s: %s is in use by %s (pid %d)", spec->text, text, comm,
			 (int)pid);
}

static int inet_fail(const struct listen_spec *spec, const struct listener_address *address, int code,
		     struct error *error)
{
	char text[LISTENER_TEXT_MAX];
	long free_ports = read_sysctl("/proc/sys/net/ipv4/ip_unprivileged_port_start", 1024);

	listener_address_text(address, text);
	if (code == EADDRINUSE)
		return listener_fail_in_use(spec, address, error);
	if (code == EACCES && address_port(address) < free_ports)
		return error_set(error, -code,
				 "cannot listen on %s: permission denied for %s: a port below %ld "
				 "(net.ipv4.ip_unprivileged_port_start) needs CAP_NET_BIND_SERVICE",
				 spec->text, text, free_ports);
	if (code == EACCES)
		return error_set(error, -code, "cannot listen on %s: permission denied for %s", spec->text, text);
	if (code == EADDRNOTAVAIL)
		return error_set(error, -code,
				 "cannot listen on %s: %s is no address of this host (freebind binds it all the same)",
				 spec->text, text);
	return error_set(error, -code, "cannot listen on %s: %s: %s", spec->text, text, strerror(code));
}

static int inet_set_options(const struct listen_spec *spec, int family, int fd, struct error *error)
{
	const struct {
		bool wanted;
		int level, name, value;
		const char *what;
	} options[] = {
		/* On a datagram socket SO_REUSEADDR would let a second server take our datagrams. */
		{spec->type == LISTEN_TCP, SOL_SOCKET, SO_REUSEADDR, 1, "SO_REUSEADDR"},
		/* Always said, so that net.ipv6.bindv6only does not decide. */
		{family == AF_INET6, IPPROTO_IPV6, IPV6_V6ONLY, spec->v6only == 1, "v6only"},
		{spec->reuseport, SOL_SOCKET, SO_REUSEPORT, 1, "reuseport"},
		{spec->freebind, IPPROTO_IP, IP_FREEBIND, 1, "freebind"},
		{spec->keepalive, SOL_SOCKET, SO_KEEPALIVE, 1, "keepalive"},
		{spec->nodelay, IPPROTO_TCP, TCP_NODELAY, 1, "nodelay"},
		{spec->defer_accept > 0, IPPROTO_TCP, TCP_DEFER_ACCEPT, spec->defer_accept, "defer-accept"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		if (options[i].wanted &&
		    setsockopt(fd, options[i].level, options[i].name, &options[i].value, sizeof(int)) < 0)
			return error_set(error, -errno, "cannot listen on %s: cannot set %s: %s", spec->text,
					 options[i].what, strerror(errno));
	return 0;
}

static int socket_option(int fd, int level, int name)
{
	int value = 0;
	socklen_t length = sizeof(value);

	return getsockopt(fd, level, name, &value, &length) < 0 ? 0 : value;
}

/* In a check nothing listens, and sockets with SO_REUSEADDR that do not listen do not collide: so ask ourselves. */
static int inet_check_against_own(const struct listener_opening *opening, const struct listen_spec *spec,
				  const struct listener_address *address, struct error *error)
{
	for (size_t i = 0; i < opening->set.count; i++) {
		const struct listener *other = &opening->set.items[i];
		struct listener_address held;
		bool v6only = spec->v6only == 1;
		if (other->fd < 0 || strcmp(other->type, spec->type == LISTEN_TCP ? "tcp" : "udp") != 0 ||
		    listener_address_of(other->fd, &held) < 0 || !listener_address_overlaps(&held, address))
			continue;
		if (spec->reuseport && socket_option(other->fd, SOL_SOCKET, SO_REUSEPORT))
			continue;
		if (held.any.sa_family == AF_INET6)
			v6only = socket_option(other->fd, IPPROTO_IPV6, IPV6_V6ONLY);
		if (v6only && held.any.sa_family != address->any.sa_family)
			continue;
		return fail_in_use_by_us(spec, address, error);
	}
	return 0;
}

static int inet_bind(const struct listener_opening *opening, const struct listen_spec *spec,
		     const struct listener_address *address, int fd, int backlog, struct error *error)
{
	int code = bind(fd, &address->any, address->length) < 0 ? errno : 0;

	if (code == 0 && spec->type == LISTEN_TCP && !opening->checking && listen(fd, backlog) < 0)
		code = errno;
	if (code == EADDRINUSE && opening->more_tries)
		return -code;
	if (code != 0)
		return inet_fail(spec, address, code, error);
	return opening->checking ? inet_check_against_own(opening, spec, address, error) : 0;
}

static int inet_open_one(struct listener_opening *opening, const struct listen_spec *spec,
			 const struct listener_address *address, struct error *error)
{
	bool stream = spec->type == LISTEN_TCP;
	int family = address->any.sa_family;
	CLEANUP(fd_closep) int fd = listener_socket(spec, family, stream ? SOCK_STREAM : SOCK_DGRAM, error);
	int backlog = stream ? listener_effective_backlog(spec->backlog) : 0;
	struct listener_address bound;
	struct listener *listener;
	char text[LISTENER_TEXT_MAX];

	if (fd < 0)
		return fd;
	int r = inet_set_options(spec, family, fd, error);
	if (r == 0)
		r = inet_bind(opening, spec, address, fd, backlog, error);
	if (r < 0)
		return r;
	r = listener_address_of(fd, &bound);
	if (r < 0)
		return inet_fail(spec, address, -r, error);
	r = listener_add(opening, spec, stream ? "tcp" : "udp", listener_address_text(&bound, text), fd, &listener,
			 error);
	if (r < 0)
		return r;
	fd_steal(&fd);
	listener->stream = stream;
	listener->backlog = backlog;
	return address_port(&bound);
}

/* One round over all addresses. A family that this host does not have is left out, as long as the other one works; an
 * address that is missing while others of its family are there is a failure. */
static int inet_open_all(struct listener_opening *opening, const struct listen_spec *spec,
			 const struct listener_addresses *addresses, struct error *error)
{
	struct error missing[2];
	int missing_code[2] = {0, 0}, port = spec->port;
	bool works[2] = {false, false};

	for (size_t i = 0; i < addresses->count; i++) {
		struct listener_address address = addresses->items[i];
		int family = address.any.sa_family == AF_INET6;
		struct error failure = {""};
		if (addresses->first_suffices && works[1])
			break;
		address_set_port(&address, (uint16_t)port);
		int r = inet_open_one(opening, spec, &address, &failure);
		if (r >= 0) {
			port = r;
			works[family] = true;
		} else if (r != -EADDRNOTAVAIL && r != -EAFNOSUPPORT) {
			return error_set(error, r, "%s", failure.text);
		} else if (missing_code[family] == 0) {
			missing_code[family] = r;
			missing[family] = failure;
		}
	}
	bool none = !works[0] && !works[1];
	for (int family = 1; family >= 0; family--)
		if (missing_code[family] < 0 && (works[family] || none))
			return error_set(error, missing_code[family], "%s", missing[family].text);
	return none ? error_set(error, -EADDRNOTAVAIL, "cannot listen on %s: it has no address", spec->text) : 0;
}

static int inet_open(struct listener_opening *opening, const struct listen_spec *spec, struct error *error)
{
	struct listener_addresses addresses = {.items = NULL};
	size_t first = opening->set.count;
	int r = listener_resolve(spec, &addresses, error);

	if (r < 0)
		return r;
	bool any_port = spec->port == 0 && addresses.count > 1;
	for (int tries = 1; tries <= PORT_TRIES; tries++) {
		opening_drop(opening, first);
		opening->more_tries = any_port && tries < PORT_TRIES;
		r = inet_open_all(opening, spec, &addresses, error);
		if (r != -EADDRINUSE || !any_port)
			break;
	}
	free(addresses.items);
	return r;
}

/* --- Opening, checking, closing --- */

static int opening_run(struct listener_opening *opening, const struct listen_spec *specs, size_t count,
		       struct error *error)
{
	for (size_t i = 0; i < count; i++) {
		int r = -EINVAL;
		switch (specs[i].type) {
		case LISTEN_TCP:
		case LISTEN_UDP:
			r = inet_open(opening, &specs[i], error);
			break;
		case LISTEN_UNIX:
		case LISTEN_UNIXGRAM:
			r = listener_unix_open(opening, &specs[i], error);
			break;
		case LISTEN_FD:
		case LISTEN_SYSTEMD:
			r = listener_inherited_open(opening, &specs[i], error);
			break;
		}
		if (r < 0)
			return r;
	}
	return 0;
}

int listener_set_open(struct listener_set *ret_set, const struct listen_spec *specs, size_t count,
		      const struct listener_inherited *inherited, struct error *error)
{
	struct listener_opening opening = {.inherited = inherited};
	int r = opening_run(&opening, specs, count, error);

	if (r < 0) {
		opening_finish(&opening);
		return r;
	}
	listener_inherited_commit(&opening);
	free(opening.taken);
	*ret_set = opening.set;
	return 0;
}

int listener_set_check(const struct listen_spec *specs, size_t count, const struct listener_inherited *inherited,
		       struct error *error)
{
	struct listener_opening opening = {.inherited = inherited, .checking = true};
	int r = opening_run(&opening, specs, count, error);

	opening_finish(&opening);
	return r;
}

void listener_set_close(struct listener_set *set)
{
	for (size_t i = 0; i < set->count; i++)
		listener_finish(&set->items[i], true);
	free(set->items);
	*set = (struct listener_set){.items = NULL};
}
