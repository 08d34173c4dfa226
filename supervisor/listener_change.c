/* SPDX-License-Identifier: MIT */
/* Other options for a listener that is held already, without closing it. */
#include "listener_private.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fd.h"

static int set_number(int fd, int level, int name, int value)
{
	return setsockopt(fd, level, name, &value, sizeof(value)) < 0 ? -errno : 0;
}

static int change_inet(const struct listener *listener, const struct listen_spec *spec)
{
	int r = 0;
	if (spec->type == LISTEN_TCP) {
		r = set_number(listener->fd, SOL_SOCKET, SO_KEEPALIVE, spec->keepalive);
		if (r >= 0)
			r = set_number(listener->fd, IPPROTO_TCP, TCP_NODELAY, spec->nodelay);
		if (r >= 0)
			r = set_number(listener->fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, spec->defer_accept);
	}
	return r;
}

static int change_path(const struct listener *listener, const struct listen_spec *spec)
{
	if ((spec->uid != (uid_t)-1 || spec->gid != (gid_t)-1) && lchown(listener->path, spec->uid, spec->gid) < 0)
		return -errno;
	return spec->mode != (mode_t)-1 && chmod(listener->path, spec->mode) < 0 ? -errno : 0;
}

int listener_change(struct listener *listener, const struct listen_spec *spec, struct error *error)
{
	int r = 0;
	if (spec->type == LISTEN_TCP || spec->type == LISTEN_UDP)
		r = change_inet(listener, spec);
	else if (listener->path)
		r = change_path(listener, spec);
	if (r >= 0 && spec->rcvbuf > 0)
		r = set_number(listener->fd, SOL_SOCKET, SO_RCVBUF, spec->rcvbuf);
	if (r >= 0 && spec->sndbuf > 0)
		r = set_number(listener->fd, SOL_SOCKET, SO_SNDBUF, spec->sndbuf);
	/* listen(2) again only changes the backlog; the queue stays. */
	if (r >= 0 && listener->stream && !listener->inherited) {
		r = listen(listener->fd, spec->backlog) < 0 ? -errno : 0;
		if (r >= 0)
			listener->backlog = listener_effective_backlog(spec->backlog);
	}
	return r < 0 ? error_set(error, r, "cannot change the options of %s to those of %s: %s", listener->address,
				 spec->text, strerror(-r))
		     : 0;
}
