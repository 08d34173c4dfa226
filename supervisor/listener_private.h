/* SPDX-License-Identifier: MIT */
/* What the files of the listener module share: addresses, the set while it is being opened, the search for a holder. */
#ifndef HANDOFF_LISTENER_PRIVATE_H
#define HANDOFF_LISTENER_PRIVATE_H

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "listener.h"

/* Room for the text of any address: a unix path, or an IPv6 address with its scope and port. */
#define LISTENER_TEXT_MAX 128

struct listener_address {
	union {
		struct sockaddr any;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
		struct sockaddr_un un;
		struct sockaddr_storage storage;
	};
	socklen_t length;
};

struct listener_addresses {
	struct listener_address *items; /* owned */
	size_t count;
	bool first_suffices; /* the wildcard: the second is there for hosts without IPv6 */
};

/* An inherited descriptor that a spec has named; changed only once the whole set is there. */
struct listener_taken {
	int fd;
	bool nonblock;
};

/* A set while it is being opened or checked. */
struct listener_opening {
	struct listener_set set;
	const struct listener_inherited *inherited; /* borrowed; NULL for none */
	bool checking;                              /* nothing may stay or change */
	bool more_tries; /* an address in use is not the last word: nobody is looked for yet, no sentence is made */
	struct listener_taken *taken; /* owned */
	size_t taken_count;
};

/* listener.c */

/* Appends a listener to the set; it takes `fd` (-1 for one that is only checked). 0, -ENOMEM or -errno; on failure the
 * descriptor stays the caller's. *ret_listener is valid until the next call. */
int listener_add(struct listener_opening *opening, const struct listen_spec *spec, const char *type,
		 const char *address, int fd, struct listener **ret_listener, struct error *error);
/* min(asked, somaxconn of this network namespace), what listen(2) silently makes of it. */
int listener_effective_backlog(int asked);
/* socket(2) with the flags and buffer sizes of the spec. The descriptor or -errno with a sentence. */
int listener_socket(const struct listen_spec *spec, int family, int type, struct error *error);
/* "[::1]:80", "127.0.0.1:80", "/run/a.sock", "@name"; empty for an unnamed unix socket. Returns `buffer`. */
const char *listener_address_text(const struct listener_address *address, char buffer[static LISTENER_TEXT_MAX]);
/* getsockname(2). 0 or -errno. */
int listener_address_of(int fd, struct listener_address *ret_address);
/* Every address that a TCP or UDP spec means, without doubles. 0 or -errno with a sentence. */
int listener_resolve(const struct listen_spec *spec, struct listener_addresses *ret_addresses, struct error *error);
/* The sentence for an address in use, with its holder where it can be seen. Returns -EADDRINUSE. */
int listener_fail_in_use(const struct listen_spec *spec, const struct listener_address *address, struct error *error);

/* listener_unix.c */

/* Binds (or looks at) one unix spec and adds it. 0 or -errno with a sentence. */
int listener_unix_open(struct listener_opening *opening, const struct listen_spec *spec, struct error *error);
/* Removes the path and its guard while they are ours. To be called before the descriptor is closed: as long as it is
 * open, the inode's number cannot come back as somebody else's socket. */
void listener_unix_remove(struct listener *listener);
/* The address of a unix spec, with a relative path made absolute. 0 or -errno with a sentence. */
int listener_unix_address(const struct listen_spec *spec, struct listener_address *ret_address, struct error *error);

/* listener_inherit.c */

/* Takes what fd:N or systemd names. 0 or -errno with a sentence. */
int listener_inherited_open(struct listener_opening *opening, const struct listen_spec *spec, struct error *error);
/* The whole set is there: sets the flags that were asked for. */
void listener_inherited_commit(struct listener_opening *opening);

/* listener_holder.c */

/* The process that holds the address; where several do, the one that was started first (a supervisor before its
 * servers). 0 or -ENOENT. */
int listener_holder_find(enum listen_type type, const struct listener_address *address, pid_t *ret_pid,
			 char ret_comm[static 17]);
/* Whether two inet addresses of one protocol collide: same port, and same address or one a wildcard over the other. */
bool listener_address_overlaps(const struct listener_address *a, const struct listener_address *b);

#endif
