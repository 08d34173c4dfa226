/* SPDX-License-Identifier: MIT */
/* Unix sockets: taking a path from a dead one, permissions, the guard link from which a path is restored, removal. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <bsd/string.h>

#include "fd.h"
#include "listener_private.h"

/* sun_path with its final NUL; the kernel would take one byte more, but other programs could not say that path. */
#define PATH_BYTES_MAX (sizeof(((struct sockaddr_un *)0)->sun_path) - 1)

/* Others lock folders too (systemd-tmpfiles takes it as "keep out"), maybe for long. */
#define LOCK_WAIT_MS 2000
#define LOCK_RETRY_MS 5

/* <stdio.h> of older C libraries has neither this nor renameat2(2). */
#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE (1 << 0)
#endif

/* Where a unix path is. */
struct place {
	char path[PATH_BYTES_MAX + 1];       /* absolute */
	char folder[PATH_BYTES_MAX + 1];     /* "/" or without a final slash */
	const char *base;                    /* in path */
	char guard[PATH_BYTES_MAX + 1 + 32]; /* beside it */
	bool guard_free;                     /* nothing of somebody else's is there */
	int folder_fd;                       /* holds the lock, or -1 */
};

/* --- Where the path is --- */

/* Writes `FOLDER/.BASE.handoffSUFFIX`. */
static void beside(char *buffer, size_t size, const char *path, const char *suffix)
{
	const char *slash = strrchr(path, '/');

	snprintf(buffer, size, "%.*s.%s.handoff%s", (int)(slash + 1 - path), path, slash + 1, suffix);
}

static int place_init(struct place *place, const struct listen_spec *spec, struct error *error)
{
	CLEANUP(freep) char *cwd = NULL;
	const char *path = spec->path;

	*place = (struct place){.folder_fd = -1};
	if (path[0] != '/' && !(cwd = getcwd(NULL, 0)))
		return error_set(error, -errno, "cannot listen on %s: no current folder: %s", spec->text,
				 strerror(errno));
	while (cwd && path[0] == '.' && path[1] == '/')
		path += 2 + strspn(path + 2, "/");
	size_t length = (cwd && strcmp(cwd, "/") != 0 ? strlen(cwd) : 0) + (cwd != NULL) + strlen(path);
	if (length > PATH_BYTES_MAX)
		return error_set(error, -ENAMETOOLONG,
				 "cannot listen on %s: the path has %zu bytes%s, and a unix socket takes at most %zu",
				 spec->text, length, cwd ? " with the current folder before it" : "", PATH_BYTES_MAX);
	snprintf(place->path, sizeof(place->path), "%s%s%s", cwd && strcmp(cwd, "/") != 0 ? cwd : "", cwd ? "/" : "",
		 path);
	place->base = strrchr(place->path, '/') + 1;
	if (place->base[0] == '\0' || strcmp(place->base, ".") == 0 || strcmp(place->base, "..") == 0)
		return error_set(error, -EISDIR, "cannot listen on %s: the path names a folder", spec->text);
	strlcpy(place->folder, place->path, sizeof(place->folder));
	place->folder[place->base - 1 - place->path + (place->base - 1 == place->path)] = '\0';
	beside(place->guard, sizeof(place->guard), place->path, "");
	return 0;
}

static void place_finish(struct place *place)
{
	place->folder_fd = fd_close(place->folder_fd);
}

static void make_address(const char *name, bool abstract, struct listener_address *ret_address)
{
	size_t length = strlen(name);

	*ret_address = (struct listener_address){.un = {.sun_family = AF_UNIX}};
	memcpy(ret_address->un.sun_path + abstract, name, length);
	ret_address->length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + 1);
}

int listener_unix_address(const struct listen_spec *spec, struct listener_address *ret_address, struct error *error)
{
	struct place place;

	if (spec->abstract) {
		if (strlen(spec->path) > PATH_BYTES_MAX)
			return error_set(error, -ENAMETOOLONG,
					 "cannot listen on %s: the name has %zu bytes, and a unix socket takes at most "
					 "%zu",
					 spec->text, strlen(spec->path), PATH_BYTES_MAX);
		make_address(spec->path, true, ret_address);
		return 0;
	}
	int r = place_init(&place, spec, error);
	if (r == 0)
		make_address(place.path, false, ret_address);
	return r;
}

/* --- What lies there --- */

enum found { FOUND_NOTHING, FOUND_DEAD, FOUND_LIVE, FOUND_OTHER };

/* Looks at a name without following a link, and asks a socket whether anybody has it: 0 with *ret_found, or -errno. For
 * a socket *ret_fd (O_PATH, the caller's) keeps the inode, so that its number stays its own until it is removed. */
static int look(const char *path, int type, enum found *ret_found, struct stat *ret_status, int *ret_fd)
{
	struct listener_address address;
	char link[32];
	CLEANUP(fd_closep) int inode_fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	CLEANUP(fd_closep) int probe_fd = -1;

	if (inode_fd < 0 && errno == ENOENT) {
		*ret_found = FOUND_NOTHING;
		return 0;
	}
	if (inode_fd < 0 || fstat(inode_fd, ret_status) < 0)
		return -errno;
	if (!S_ISSOCK(ret_status->st_mode)) {
		*ret_found = FOUND_OTHER;
		return 0;
	}
	probe_fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (probe_fd < 0)
		return -errno;
	/* By way of the descriptor: exactly the inode that was looked at, and a name of any length. */
	snprintf(link, sizeof(link), "/proc/self/fd/%d", inode_fd);
	if (access("/proc/self/fd", X_OK) < 0 && strlen(path) <= PATH_BYTES_MAX)
		make_address(path, false, &address);
	else
		make_address(link, false, &address);
	int code = connect(probe_fd, &address.any, address.length) < 0 ? errno : 0;
	/* EAGAIN: its queue is full. EPROTOTYPE: it is of another type. EPERM: a datagram socket with another peer. */
	if (code != 0 && code != ECONNREFUSED && code != EAGAIN && code != EPROTOTYPE && code != EPERM)
		return -code;
	*ret_found = code == ECONNREFUSED ? FOUND_DEAD : FOUND_LIVE;
	*ret_fd = fd_steal(&inode_fd);
	return 0;
}

static bool is_inode(const char *path, dev_t dev, ino_t ino)
{
	struct stat status;

	return lstat(path, &status) == 0 && status.st_dev == dev && status.st_ino == ino;
}

static int move_name(const char *from, const char *to)
{
	return syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) < 0 ? -errno : 0;
}

/* Removes the name if it still is that inode. What somebody else puts there in the instant after the look must survive,
 * and unlink(2) cannot ask: so the name is moved aside first, looked at once more, and put back if it is not ours. */
static int remove_exactly(const char *path, dev_t dev, ino_t ino)
{
	char aside[PATH_BYTES_MAX + 1 + 64], suffix[24];

	if (!is_inode(path, dev, ino))
		return -ENOENT;
	snprintf(suffix, sizeof(suffix), "-%d", (int)getpid());
	beside(aside, sizeof(aside), path, suffix);
	int r = move_name(path, aside);
	/* Not every file system can, and a leftover may have that name. */
	if (r == -EINVAL || r == -ENOSYS || r == -EEXIST)
		return unlink(path) < 0 ? -errno : 0;
	if (r < 0)
		return r;
	if (is_inode(aside, dev, ino))
		return unlink(aside) < 0 ? -errno : 0;
	move_name(aside, path);
	return -ENOENT;
}

/* --- Making sure that the path is free --- */

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Two of us must not find the same dead socket and each replace it. flock(2) knows no deadline, so it is asked again
 * and again. Where the folder cannot be locked (not readable, NFS), folder_fd stays -1: then bind(2) alone decides, and
 * a dead socket is not replaced. */
static int lock_folder(struct place *place, const struct listen_spec *spec, struct error *error)
{
	CLEANUP(fd_closep) int fd = open(place->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int64_t deadline = now_ms() + LOCK_WAIT_MS;

	if (fd < 0 && (errno == EACCES || errno == EPERM))
		return 0;
	if (fd < 0)
		return error_set(error, -errno, "cannot listen on %s: the folder %s: %s", spec->text, place->folder,
				 strerror(errno));
	while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return 0;
		if (now_ms() >= deadline)
			return error_set(error, -EBUSY,
					 "cannot listen on %s: another process has kept the folder %s locked for %d ms",
					 spec->text, place->folder, LOCK_WAIT_MS);
		poll(NULL, 0, LOCK_RETRY_MS);
	}
	place->folder_fd = fd_steal(&fd);
	return 0;
}

static int fail_at(const struct listen_spec *spec, const char *what, const char *path, int code, struct error *error)
{
	return error_set(error, code, "cannot listen on %s: %s %s: %s", spec->text, what, path, strerror(-code));
}

static int socket_type(const struct listen_spec *spec)
{
	return spec->type == LISTEN_UNIXGRAM ? SOCK_DGRAM : SOCK_STREAM;
}

static int clear_path(const struct place *place, const struct listen_spec *spec, bool checking, struct error *error)
{
	CLEANUP(fd_closep) int inode_fd = -1;
	struct listener_address address;
	struct stat status;
	enum found found;
	int r = look(place->path, socket_type(spec), &found, &status, &inode_fd);

	if (r < 0)
		return fail_at(spec, "cannot tell whether somebody uses", place->path, r, error);
	make_address(place->path, false, &address);
	switch (found) {
	case FOUND_NOTHING:
		break;
	case FOUND_LIVE:
		return listener_fail_in_use(spec, &address, error);
	case FOUND_OTHER:
		return error_set(error, -EEXIST, "cannot listen on %s: %s is %s, not a socket: it is left alone",
				 spec->text, place->path,
				 S_ISLNK(status.st_mode)   ? "a symbolic link"
				 : S_ISDIR(status.st_mode) ? "a folder"
							   : "a file");
	case FOUND_DEAD:
		if (checking)
			break;
		if (place->folder_fd < 0)
			return error_set(error, -EADDRINUSE,
					 "cannot listen on %s: %s is a dead socket, but its folder cannot be locked to "
					 "replace it safely: remove it by hand",
					 spec->text, place->path);
		r = remove_exactly(place->path, status.st_dev, status.st_ino);
		if (r < 0 && r != -ENOENT)
			return fail_at(spec, "cannot remove the dead socket", place->path, r, error);
		break;
	}
	return 0;
}

/* A live guard: one of us holds this address, and its server has just removed the path, which comes back soon. */
static int clear_guard(struct place *place, const struct listen_spec *spec, bool checking, struct error *error)
{
	CLEANUP(fd_closep) int inode_fd = -1;
	struct listener_address address;
	struct stat status;
	enum found found;
	int r = look(place->guard, socket_type(spec), &found, &status, &inode_fd);

	if (r == 0 && found == FOUND_LIVE) {
		make_address(place->path, false, &address);
		return listener_fail_in_use(spec, &address, error);
	}
	if (r == 0 && found == FOUND_DEAD && !checking && place->folder_fd >= 0)
		r = remove_exactly(place->guard, status.st_dev, status.st_ino);
	else if (r == 0 && found != FOUND_NOTHING)
		r = -EEXIST;
	place->guard_free = r == 0 || r == -ENOENT;
	return 0;
}

/* --- Binding --- */

static int set_owner_and_mode(const struct listen_spec *spec, const struct place *place, mode_t usual_mode,
			      struct error *error)
{
	mode_t mode = spec->mode == (mode_t)-1 ? usual_mode : spec->mode;

	if ((spec->uid != (uid_t)-1 || spec->gid != (gid_t)-1) &&
	    fchownat(AT_FDCWD, place->path, spec->uid, spec->gid, AT_SYMLINK_NOFOLLOW) < 0)
		return fail_at(spec, "cannot set user and group of", place->path, -errno, error);
	if (fchmodat(AT_FDCWD, place->path, mode, AT_SYMLINK_NOFOLLOW) < 0)
		return fail_at(spec, "cannot set the mode of", place->path, -errno, error);
	return 0;
}

/* Binds with no permission at all where some are asked for, so that nobody can connect (or, to a datagram socket, send)
 * between bind, chown and chmod. After success *ret_status says what the path is. */
static int bind_path(const struct listen_spec *spec, const struct place *place, int fd, struct stat *ret_status,
		     struct error *error)
{
	bool asked = spec->mode != (mode_t)-1 || spec->uid != (uid_t)-1 || spec->gid != (gid_t)-1;
	mode_t usual_umask = asked ? umask(0777) : 0;
	struct listener_address address;

	make_address(place->path, false, &address);
	int r = bind(fd, &address.any, address.length) < 0 ? -errno : 0;
	if (asked)
		umask(usual_umask);
	if (r == -EADDRINUSE)
		return listener_fail_in_use(spec, &address, error);
	if (r < 0)
		return fail_at(spec, "cannot make", place->path, r, error);
	if (lstat(place->path, ret_status) < 0)
		return fail_at(spec, "somebody removed", place->path, -errno, error);
	r = asked ? set_owner_and_mode(spec, place, 0777 & ~usual_umask, error) : 0;
	if (r < 0)
		remove_exactly(place->path, ret_status->st_dev, ret_status->st_ino);
	return r;
}

static int start_listening(const struct listen_spec *spec, int fd, int *ret_backlog, struct error *error)
{
	*ret_backlog = 0;
	if (spec->type == LISTEN_UNIXGRAM)
		return 0;
	*ret_backlog = listener_effective_backlog(spec->backlog);
	if (listen(fd, *ret_backlog) < 0)
		return error_set(error, -errno, "cannot listen on %s: %s", spec->text, strerror(errno));
	return 0;
}

static const char *type_name(const struct listen_spec *spec)
{
	return spec->type == LISTEN_UNIXGRAM ? "unixgram" : "unix";
}

/* Adds the bound socket with its path and guard. On failure the path is the caller's to remove. */
static int add_path(struct listener_opening *opening, const struct listen_spec *spec, const struct place *place, int fd,
		    const struct stat *status, struct error *error)
{
	CLEANUP(freep) char *path = strdup(place->path);
	CLEANUP(freep) char *guard = strdup(place->guard);
	struct listener *listener;
	int backlog = 0;

	if (!path || !guard)
		return error_set(error, -ENOMEM, "cannot listen on %s: %s", spec->text, strerror(ENOMEM));
	int r = start_listening(spec, fd, &backlog, error);
	if (r < 0)
		return r;
	r = listener_add(opening, spec, type_name(spec), path, fd, &listener, error);
	if (r < 0)
		return r;
	listener->stream = spec->type == LISTEN_UNIX;
	listener->backlog = backlog;
	listener->path_dev = status->st_dev;
	listener->path_ino = status->st_ino;
	if (place->guard_free && linkat(AT_FDCWD, path, AT_FDCWD, guard, 0) == 0) {
		listener->guard_path = guard;
		guard = NULL;
	}
	listener->path = path;
	path = NULL;
	return 0;
}

static int open_path(struct listener_opening *opening, const struct listen_spec *spec, struct error *error)
{
	CLEANUP(place_finish) struct place place;
	CLEANUP(fd_closep) int fd = -1;
	struct stat status;
	int r = place_init(&place, spec, error);

	if (r == 0)
		r = lock_folder(&place, spec, error);
	if (r == 0)
		r = clear_path(&place, spec, false, error);
	if (r == 0)
		r = clear_guard(&place, spec, false, error);
	if (r == 0)
		r = fd = listener_socket(spec, AF_UNIX, socket_type(spec), error);
	if (r >= 0)
		r = bind_path(spec, &place, fd, &status, error);
	if (r < 0)
		return r;
	r = add_path(opening, spec, &place, fd, &status, error);
	if (r < 0)
		remove_exactly(place.path, status.st_dev, status.st_ino);
	else
		fd_steal(&fd);
	return r;
}

/* With the sentences of a start, which opens the folder and then makes the path. */
static int check_folder(const struct place *place, const struct listen_spec *spec, struct error *error)
{
	struct stat status;

	if (stat(place->folder, &status) < 0)
		return fail_at(spec, "the folder", place->folder, -errno, error);
	if (!S_ISDIR(status.st_mode))
		return fail_at(spec, "the folder", place->folder, -ENOTDIR, error);
	if (faccessat(AT_FDCWD, place->folder, W_OK | X_OK, AT_EACCESS) < 0)
		return fail_at(spec, "cannot make", place->path, -errno, error);
	return 0;
}

static int check_path(struct listener_opening *opening, const struct listen_spec *spec, struct error *error)
{
	CLEANUP(place_finish) struct place place;
	struct listener *listener;
	int r = place_init(&place, spec, error);

	if (r == 0)
		r = check_folder(&place, spec, error);
	if (r == 0)
		r = clear_path(&place, spec, true, error);
	if (r == 0)
		r = clear_guard(&place, spec, true, error);
	for (size_t i = 0; r == 0 && i < opening->set.count; i++)
		if (strcmp(opening->set.items[i].address, place.path) == 0)
			r = error_set(error, -EADDRINUSE,
				      "cannot listen on %s: %s is in use by another of our listeners", spec->text,
				      place.path);
	return r == 0 ? listener_add(opening, spec, type_name(spec), place.path, -1, &listener, error) : r;
}

static int open_abstract(struct listener_opening *opening, const struct listen_spec *spec, struct error *error)
{
	CLEANUP(fd_closep) int fd = -1;
	struct listener_address address;
	struct listener *listener;
	char text[LISTENER_TEXT_MAX];
	int backlog = 0, r = listener_unix_address(spec, &address, error);

	if (r < 0)
		return r;
	fd = listener_socket(spec, AF_UNIX, socket_type(spec), error);
	if (fd < 0)
		return fd;
	if (bind(fd, &address.any, address.length) < 0)
		return errno == EADDRINUSE ? listener_fail_in_use(spec, &address, error)
					   : fail_at(spec, "cannot bind", spec->path, -errno, error);
	r = opening->checking ? 0 : start_listening(spec, fd, &backlog, error);
	if (r == 0)
		r = listener_add(opening, spec, type_name(spec), listener_address_text(&address, text), fd, &listener,
				 error);
	if (r < 0)
		return r;
	fd_steal(&fd);
	listener->stream = spec->type == LISTEN_UNIX;
	listener->backlog = backlog;
	return 0;
}

int listener_unix_open(struct listener_opening *opening, const struct listen_spec *spec, struct error *error)
{
	if (spec->abstract)
		return open_abstract(opening, spec, error);
	return opening->checking ? check_path(opening, spec, error) : open_path(opening, spec, error);
}

void listener_unix_remove(struct listener *listener)
{
	/* The guard first: while the path is there, a starter sees that it is live; once the path is gone, nothing must
	 * say so any more. */
	if (listener->guard_path)
		remove_exactly(listener->guard_path, listener->path_dev, listener->path_ino);
	if (listener->path)
		remove_exactly(listener->path, listener->path_dev, listener->path_ino);
}

/* --- Keeping the path --- */

enum listener_path_state listener_repair(struct listener *listener, struct error *error)
{
	const char *path = listener->path, *guard = listener->guard_path;
	struct stat status;

	if (!path)
		return LISTENER_PATH_FINE;
	if (is_inode(path, listener->path_dev, listener->path_ino)) {
		/* A server's clean-up may have taken the guard as well, or alone. */
		if (guard && lstat(guard, &status) < 0 && errno == ENOENT)
			(void)!link(path, guard);
		return LISTENER_PATH_FINE;
	}
	if (lstat(path, &status) == 0)
		return LISTENER_PATH_FOREIGN;
	if (!guard || !is_inode(guard, listener->path_dev, listener->path_ino)) {
		error_set(error, -ENOENT, "no hard link to it is left");
		return LISTENER_PATH_LOST;
	}
	/* link(2) and not rename(2): what somebody put there just now is not replaced, and the guard stays. */
	if (linkat(AT_FDCWD, guard, AT_FDCWD, path, 0) == 0)
		return LISTENER_PATH_RESTORED;
	if (errno == EEXIST)
		return is_inode(path, listener->path_dev, listener->path_ino) ? LISTENER_PATH_FINE
									      : LISTENER_PATH_FOREIGN;
	error_set(error, -errno, "cannot link %s to it: %s", guard, strerror(errno));
	return LISTENER_PATH_LOST;
}

/* Watches the socket's own inode (its count of names changes, it is renamed) and its folder's, not what else happens in
 * the folder: in a busy one, such as /tmp, that would wake us for nothing. Only where the path is not ours now, the
 * folder's names are watched, to see it become free. */
static int watch_path(int watch_fd, const struct listener *listener)
{
	const uint32_t own = IN_ATTRIB | IN_MOVE_SELF | IN_DELETE_SELF | IN_DONT_FOLLOW | IN_MASK_ADD;
	const uint32_t folder = IN_MOVE_SELF | IN_DELETE_SELF | IN_ONLYDIR | IN_MASK_ADD;
	bool ours = is_inode(listener->path, listener->path_dev, listener->path_ino);
	const char *guard = listener->guard_path, *inode = ours ? listener->path : guard;
	char name[PATH_BYTES_MAX + 1];

	strlcpy(name, listener->path, sizeof(name));
	name[strrchr(name, '/') - name + (strrchr(name, '/') == name)] = '\0';
	if (inotify_add_watch(watch_fd, name, ours ? folder : folder | IN_CREATE | IN_DELETE | IN_MOVE) < 0 &&
	    errno != ENOENT)
		return -errno;
	if (inode && is_inode(inode, listener->path_dev, listener->path_ino) &&
	    inotify_add_watch(watch_fd, inode, own) < 0 && errno != ENOENT)
		return -errno;
	return 0;
}

int listener_watch_paths(const struct listener_set *set)
{
	CLEANUP(fd_closep) int watch_fd = -1;

	for (size_t i = 0; i < set->count; i++) {
		if (!set->items[i].path)
			continue;
		if (watch_fd < 0 && (watch_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC)) < 0)
			return -errno;
		int r = watch_path(watch_fd, &set->items[i]);
		if (r < 0)
			return r;
	}
	return watch_fd < 0 ? -ENOENT : fd_steal(&watch_fd);
}
