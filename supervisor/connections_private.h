/* SPDX-License-Identifier: MIT */
/* What the parts of the connections module share: what is looked for, and the two ways to see the sockets' states. */
#ifndef HANDOFF_CONNECTIONS_PRIVATE_H
#define HANDOFF_CONNECTIONS_PRIVATE_H

#include <netinet/in.h>
#include <netinet/tcp.h>

#include "connections.h"

/* The states in which a TCP socket is no connection, as a mask. The kernel counts its numbers from 1 up. */
#define CONNECTIONS_TCP_NOT ((1U << TCP_LISTEN) | (1U << TCP_CLOSE) | (1U << TCP_TIME_WAIT))

/* A socket that one of the processes holds. */
struct connections_socket {
	ino_t inode;
	bool connected; /* seen as a connection from one of the listeners */
};

/* The name of a unix listener, as the kernel keeps it: a path with its NUL, an abstract name with one in front. */
struct connections_name {
	int type; /* SOCK_STREAM or SOCK_SEQPACKET */
	size_t length;
	char bytes[sizeof(struct sockaddr_storage)];
};

struct connections {
	struct connections_socket *sockets; /* owned; sorted by inode, each once */
	size_t count, capacity;
	size_t looked_at; /* descriptors */
	uint16_t *ports;  /* owned; of the TCP listeners, host byte order, each once */
	size_t port_count;
	bool ipv4, ipv6;                /* families of the TCP listeners: what they accept is of the same */
	struct connections_name *names; /* owned */
	size_t name_count;
};

/* Collects what is to be looked for. 0 or -errno; to be finished in both cases. */
int connections_init(struct connections *connections, const pid_t *pids, size_t count,
		     const struct listener_set *listeners);
void connections_finish(struct connections *connections);

/* Each marks the sockets that are connections. 0 or -errno, with some marked maybe. */
int connections_diag(struct connections *connections); /* sock_diag(7); only where built with libmnl */
int connections_proc(struct connections *connections); /* /proc/net/{tcp,tcp6,unix} */

/* How many are marked. */
int64_t connections_marked(const struct connections *connections);

/* Whether one of the TCP listeners has the port. */
bool connections_has_port(const struct connections *connections, uint16_t port);

/* For the two ways to see: a socket in a state that counts, which is marked if it is one of ours. */
void connections_see_tcp(struct connections *connections, uint16_t port, ino_t inode);
void connections_see_unix(struct connections *connections, const struct connections_name *name, ino_t inode);

#endif
