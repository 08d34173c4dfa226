/* SPDX-License-Identifier: MIT */
/* Parsing of the values that options and the config file share: listen SPECs, durations, signals, counts, modes. */
#ifndef HANDOFF_SPEC_H
#define HANDOFF_SPEC_H

#include <sys/types.h>

#include "error.h"

/* A duration of `none`: never. */
#define DURATION_NONE ((int64_t)-1)

/* `500ms`, `30s`, `5m`, `1h`, `0`, or `none` (DURATION_NONE) to milliseconds; a bare number other than 0, a negative
 * one and one beyond 10 years are refused with a sentence that names `what` (an option such as "--settle") and the
 * text. 0 or -EINVAL. */
int spec_duration(const char *what, const char *text, int64_t *ret_ms, struct error *error);

/* `INT`, `SIGINT`, `int`, `2`, `RTMIN+3` to a signal number that can be sent; 0 or -EINVAL. */
int spec_signal(const char *what, const char *text, int *ret_signal, struct error *error);
/* The name without SIG ("INT", "RTMIN+3"), in static storage or `buffer`. */
const char *spec_signal_name(int signal, char *buffer, size_t size);

/* One of `words` (NULL-terminated), told by its index; a wrong one is -EINVAL with a sentence that lists them all and
 * names the closest. */
int spec_word(const char *what, const char *text, const char *const *words, unsigned *ret_index, struct error *error);
/* The word of a NULL-terminated list that `text` was probably meant to be: the one with the fewest letters changed,
 * left out, added or swapped, or one that begins with it. NULL when none is near. */
const char *spec_closest(const char *text, const char *const *words);

/* A decimal number within [minimum, maximum]; 0 or -EINVAL with a sentence. */
int spec_number(const char *what, const char *text, int64_t minimum, int64_t maximum, int64_t *ret_number,
		struct error *error);
/* An octal mode, 0 to 07777; 0 or -EINVAL. */
int spec_mode(const char *what, const char *text, mode_t *ret_mode, struct error *error);
/* A user or group, by name or number; for a user also the primary group where it has one in the user database
 * (else the same number as the group is NOT assumed: *ret_gid stays (gid_t)-1). 0, -EINVAL (unknown) or -errno. */
int spec_user(const char *what, const char *text, uid_t *ret_uid, gid_t *ret_gid, struct error *error);
int spec_group(const char *what, const char *text, gid_t *ret_gid, struct error *error);

enum listen_type {
	LISTEN_TCP,
	LISTEN_UDP,
	LISTEN_UNIX,     /* stream */
	LISTEN_UNIXGRAM, /* datagram */
	LISTEN_FD,       /* fd:N, inherited */
	LISTEN_SYSTEMD,  /* what LISTEN_FDS gave us, all or those of one name */
};

/* One `[NAME=]ADDRESS[?opt=value&…]`, as written; nothing is resolved or opened yet. All strings are owned. */
struct listen_spec {
	char *text; /* as given, for messages */
	char *name; /* NULL when unnamed; [A-Za-z0-9_.-]+ */
	enum listen_type type;
	char *host;    /* TCP, UDP: NULL is the dual-stack wildcard; IPv6 without its brackets */
	uint16_t port; /* TCP, UDP: 0 lets the kernel choose */
	char *path;    /* UNIX, UNIXGRAM: the path, or the abstract name after its '@' */
	bool abstract;
	int fd;        /* LISTEN_FD */
	char *fd_name; /* LISTEN_SYSTEMD: NULL takes all */
	/* Options. */
	int backlog; /* default 4096 */
	int v6only;  /* -1 as the address says, 0, 1 */
	bool reuseport, freebind, nodelay, keepalive;
	int defer_accept; /* seconds, 0 off */
	bool nonblock;
	bool nonblock_given; /* tells `nonblock=no` from silence, which leaves an inherited socket as it is */
	int rcvbuf, sndbuf;  /* bytes, 0 leaves the kernel's */
	mode_t mode;         /* unix paths; (mode_t)-1 leaves what umask gives */
	uid_t uid;           /* unix paths; (uid_t)-1 leaves it */
	gid_t gid;
};

/* Parses `[NAME=]ADDRESS[?opt=value&…]`: `:8080`, `127.0.0.1:8080`, `[::1]:8080`, `localhost:8080`, `:0`,
 * `udp:HOST:PORT`, `unix:/path`, `unix:@abstract`, `unixgram:/path`, `fd:N`, `systemd`, `systemd:FDNAME`; options as in
 * the struct (`backlog=`, `v6only=yes|no`, `reuseport`, `freebind`, `nodelay`, `keepalive`, `defer-accept=` (a duration
 * of whole seconds), `nonblock=yes|no`, `rcvbuf=`, `sndbuf=`, `mode=`, `user=`, `group=`); a flag may also be written
 * `=yes|no`. An option that does not fit the type (mode of a TCP address, v6only of unix, nodelay of UDP, an option
 * other than nonblock on fd: and systemd), an unknown or doubled one, an over-long unix path (sun_path, 107 bytes), a
 * port beyond 65535 is refused. 0, -EINVAL, -ENOMEM. `ret_spec` is untouched on failure. */
int listen_spec_parse(const char *text, struct listen_spec *ret_spec, struct error *error);
void listen_spec_finish(struct listen_spec *spec);

#endif
