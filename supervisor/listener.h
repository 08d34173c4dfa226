/* SPDX-License-Identifier: MIT */
/* The sockets that we hold: binding, taking inherited ones, keeping unix paths alive, and closing. */
#ifndef HANDOFF_LISTENER_H
#define HANDOFF_LISTENER_H

#include <sys/types.h>

#include "error.h"
#include "spec.h"

enum listener_path_state {
	LISTENER_PATH_FINE,     /* ours, or nothing to keep */
	LISTENER_PATH_RESTORED, /* was gone; linked back from the guard, which stays */
	LISTENER_PATH_FOREIGN,  /* something else is there now: left alone */
	LISTENER_PATH_LOST,     /* gone, and could not be restored: error has the reason, without the path */
};

/* One bound socket. Everything a successor of this process would need is plain data here. */
struct listener {
	char *spec;       /* the SPEC that it came from, as written */
	char *name;       /* NULL when unnamed (LISTEN_FDNAMES says "unknown") */
	char *address;    /* as in status: "[::]:8080", "127.0.0.1:80", "/run/a.sock", "@name" */
	const char *type; /* "tcp", "udp", "unix", "unixgram" (static) */
	int fd;           /* owned by the set; close-on-exec */
	bool stream;      /* can be accepted on */
	int backlog;      /* the effective one (somaxconn may have lowered it); 0 for datagrams and where unknown */
	bool inherited;   /* not bound by us: never unlinked, flags never touched */
	dev_t socket_dev; /* fstat(2) of the socket itself: names it in /proc/PID/fd ("socket:[INO]") */
	ino_t socket_ino;
	/* Bound unix paths only. */
	char *path;       /* absolute; NULL otherwise */
	char *guard_path; /* our hard link beside it, from which the path is restored; NULL where links do not work */
	dev_t path_dev;   /* lstat(2) of the path right after bind: says whether it still is ours */
	ino_t path_ino;
	enum listener_path_state path_state; /* as the caller of listener_repair last saw it; a restored one is fine */
};

struct listener_set {
	struct listener *items; /* owned, in the order in which they are passed as fd 3, 4, … */
	size_t count;
};

/* What a socket-passing parent (systemd, or a supervisor like us) gave this process: sd_listen_fds(3). */
struct listener_inherited {
	int count;    /* descriptors 3 … 3+count-1; 0 when LISTEN_PID is not us or there are none */
	char **names; /* `count` names, or NULL */
};

/* Reads LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES from the environment (it is not changed: the child's environment leaves
 * them out); sets FD_CLOEXEC on those descriptors. A LISTEN_PID of another process means none (a stale value leaked
 * into our environment). Broken values (not numbers, names that do not match the count) are an error. 0 or -errno. */
int listener_inherit(struct listener_inherited *ret_inherited, struct error *error);
void listener_inherited_finish(struct listener_inherited *inherited);

/* Binds (and listens on) everything that the specs name, in order; a host name gives one listener an address, all with
 * the same name. All or nothing: on failure what was opened is closed, paths that were made are removed, and the
 * sentence names the SPEC as it was written; for an address in use it also names the process that holds it ("… is in
 * use by nginx (pid 812)") where /proc lets us see it. Never blocks for long (name resolution aside).
 *
 * TCP: SO_REUSEADDR on; `:PORT` is one dual-stack IPv6 socket, or an IPv4 one where IPv6 is not there; several sockets
 * with port 0 from one spec share the port that the first one got. Options as in the spec. O_NONBLOCK as `nonblock`.
 * Unix paths: under flock(2) of the parent folder, so that two of us cannot both take a stale path: a live one (connect
 * succeeds, or its queue is full) is refused; a dead socket (ECONNREFUSED) is replaced; anything that is no socket
 * (file, folder, symbolic link) is refused and left alone. mode/user/group are set before listen. Then a hard link to
 * it is made beside it (`.NAME.handoff`, stale ones replaced), see listener_repair. A relative path is made absolute.
 * fd:N and systemd: checked (open, a socket, bound; a stream one listens), taken over with FD_CLOEXEC set; its status
 * flags are untouched unless `nonblock=` is given. A descriptor can be taken once.
 * 0 or -errno. */
int listener_set_open(struct listener_set *ret_set, const struct listen_spec *specs, size_t count,
		      const struct listener_inherited *inherited, struct error *error);

/* Like open, but binds nothing that stays: says what would fail. For `handoff check`: an address in use is a failure
 * too; it binds for an instant (never listens) and undoes it; a unix path is only looked at. 0 or -errno. */
int listener_set_check(const struct listen_spec *specs, size_t count, const struct listener_inherited *inherited,
		       struct error *error);

/* Closes all descriptors, removes our paths (only while they are still ours by device and inode) and guards. Frees. */
void listener_set_close(struct listener_set *set);

/* Gives a listener that is held the options of another SPEC of the same address: backlog, socket options, mode and
 * owner of a path. The descriptor, its queue and its status flags stay. 0 or -errno with a sentence; then some may be
 * changed. */
int listener_change(struct listener *listener, const struct listen_spec *spec, struct error *error);

/* Looks at the path of one listener and restores it where a server removed it (field report: servers unlink what
 * getsockname tells them). Between the removal and this call clients see ENOENT. */
enum listener_path_state listener_repair(struct listener *listener, struct error *error);

/* An inotify(7) descriptor that becomes readable when something happens to one of the set's paths or their folders, to
 * be watched by the caller, who owns it; on a readable one the caller drains it and calls listener_repair for each.
 * The sockets' own inodes are watched, so that other files in a busy folder wake nobody; only the folder of a path that
 * is not ours at the time of the call is watched for every name. So call it anew after LISTENER_PATH_FOREIGN or _LOST,
 * to be told when the path becomes free; and call listener_repair once after it, for what happened before.
 * -ENOENT when the set has no paths; else the descriptor or -errno. */
int listener_watch_paths(const struct listener_set *set);

/* The process that listens on the same address, for messages: *ret_pid and its command name (comm, at most 16 bytes).
 * 0, -ENOENT where it cannot be seen. */
int listener_find_holder(const struct listen_spec *spec, pid_t *ret_pid, char ret_comm[static 17]);

#endif
