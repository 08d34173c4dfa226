/* SPDX-License-Identifier: MIT */
/* Where control sockets live, who owns a name, and how a client finds them. */
#ifndef HANDOFF_CONTROL_PLACE_H
#define HANDOFF_CONTROL_PLACE_H

#include <sys/types.h>

#include "error.h"

/* `--control PATH[?mode=&group=]`, as parsed. */
struct control_option {
	char *path;  /* owned; NULL when not given */
	mode_t mode; /* (mode_t)-1: 0600, and the peer's uid is checked */
	gid_t gid;   /* (gid_t)-1: not changed */
};
int control_option_parse(const char *text, struct control_option *ret_option, struct error *error);
void control_option_finish(struct control_option *option);

/* A socket path that is ours: the lock is held as long as the struct lives. */
struct control_place {
	char *path;         /* owned */
	char *name;         /* owned: the name as it became ("web-2") */
	char *registration; /* owned: our symbolic link in /run/handoff, or NULL */
	int lock_fd;        /* owned: PATH.lock, locked */
	mode_t mode;
	gid_t gid;
	bool check_peer; /* only the same uid or root may talk to us */
};

/* Takes the place for `name`: --control, else $RUNTIME_DIRECTORY/control, else /run/handoff/NAME as root, else
 * $XDG_RUNTIME_DIR/handoff/NAME, else /tmp/handoff-UID/NAME (folders are made with mode 0700; one that is another
 * user's or a symbolic link is refused). The lock file beside the socket decides who is alive: a held one is
 * -EADDRINUSE with the pid, unless the name is a derived one and the path comes from it; then NAME-2, NAME-3 … are
 * tried. A dead socket is removed. 0 or -errno. */
int control_place_take(const struct control_option *option, const char *name, bool name_explicit,
		       struct control_place *ret_place, struct error *error);
/* Once the socket listens: puts a symbolic link to it into /run/handoff, where it is not there already and we may. */
void control_place_publish(struct control_place *place);
/* Removes socket, registration and lock file, and unlocks. */
void control_place_release(struct control_place *place);

/* One supervisor that a client found. */
struct control_found {
	char *path; /* owned */
	char *name; /* owned */
};
/* Every live control socket in the places above that can be connected to, each once. 0 or -ENOMEM. */
int control_place_find(struct control_found **ret_found, size_t *ret_count);
void control_found_free(struct control_found *found, size_t count);

#endif
