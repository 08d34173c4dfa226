/* SPDX-License-Identifier: MIT */
/* Where control sockets live, who owns a name, and how a client finds them. */
#include "control_place.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <bsd/libutil.h>
#include <bsd/stdlib.h>
#include <bsd/string.h>

#include "fd.h"
#include "spec.h"

#define PUBLIC_FOLDER "/run/handoff"
/* How many of NAME, NAME-2, NAME-3 … are tried. */
#define NAMES_MAX 1000

/* ---- --control ---- */

void control_option_finish(struct control_option *option)
{
	free(option->path);
	option->path = NULL;
}

static int parse_pair(const char *text, const char *pair, struct control_option *option, struct error *error)
{
	if (strncmp(pair, "mode=", 5) == 0)
		return spec_mode("--control mode=", pair + 5, &option->mode, error);
	if (strncmp(pair, "group=", 6) == 0)
		return spec_group("--control group=", pair + 6, &option->gid, error);
	return error_set(error, -EINVAL, "--control \"%s\": \"%s\" is neither mode= nor group=", text, pair);
}

int control_option_parse(const char *text, struct control_option *ret_option, struct error *error)
{
	struct control_option option = {.mode = (mode_t)-1, .gid = (gid_t)-1};
	char *rest = option.path = strdup(text);
	if (!rest)
		return error_set(error, -ENOMEM, "out of memory");
	strsep(&rest, "?");
	int r = 0;
	for (const char *pair; r >= 0 && (pair = strsep(&rest, "&"));)
		r = parse_pair(text, pair, &option, error);
	if (r >= 0 && option.path[0] == '\0')
		r = error_set(error, -EINVAL, "--control \"%s\": the path is missing", text);
	if (r < 0)
		control_option_finish(&option);
	else
		*ret_option = option;
	return r;
}

/* ---- folders ---- */

/* The folder that supervisors of this user use by default; on the heap. */
static char *default_folder(void)
{
	char *folder = NULL;
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	int r;
	if (geteuid() == 0)
		return strdup(PUBLIC_FOLDER);
	if (runtime && runtime[0] == '/')
		r = asprintf(&folder, "%s/handoff", runtime);
	else
		r = asprintf(&folder, "/tmp/handoff-%u", (unsigned)geteuid());
	return r < 0 ? NULL : folder;
}

/* In /tmp anybody may have made it before us. */
static int make_folder(const char *folder, struct error *error)
{
	struct stat status;
	if (mkdir(folder, 0700) < 0 && errno != EEXIST)
		return error_set(error, -errno, "cannot make %s for the control socket: %s", folder, strerror(errno));
	if (lstat(folder, &status) < 0)
		return error_set(error, -errno, "cannot look at %s: %s", folder, strerror(errno));
	if (!S_ISDIR(status.st_mode) || status.st_uid != geteuid() || (status.st_mode & 022))
		return error_set(error, -EPERM, "%s is not a folder that only this user may write to", folder);
	return 0;
}

/* ---- taking a place ---- */

static pid_t lock_owner(const char *path)
{
	CLEANUP(freep) char *text = NULL;
	size_t length;
	return fd_read_file(path, 64, &text, &length) < 0 ? 0 : (pid_t)atoi(text);
}

/* Locks PATH.lock and writes our pid into it: whoever holds it is alive. */
static int lock_place(const char *path, int *ret_fd, struct error *error)
{
	CLEANUP(freep) char *lock = NULL;
	if (asprintf(&lock, "%s.lock", path) < 0)
		return error_set(error, -ENOMEM, "out of memory");
	CLEANUP(fd_closep) int fd = flopen(lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW, 0600);
	if (fd < 0 && errno == EWOULDBLOCK)
		return error_set(error, -EADDRINUSE, "the control socket %s belongs to a supervisor that runs (pid %d)",
				 path, lock_owner(lock));
	if (fd < 0)
		return error_set(error, -errno, "cannot lock %s: %s", lock, strerror(errno));
	if (ftruncate(fd, 0) < 0 || dprintf(fd, "%d\n", getpid()) < 0)
		return error_set(error, -errno, "cannot write %s: %s", lock, strerror(errno));
	*ret_fd = fd_steal(&fd);
	return 0;
}

/* With the lock ours, a socket that is still there is of somebody who died. */
static int clear_path(const char *path, struct error *error)
{
	struct stat status;
	if (lstat(path, &status) < 0)
		return errno == ENOENT ? 0 : error_set(error, -errno, "cannot look at %s: %s", path, strerror(errno));
	/* The registration of a supervisor whose socket lies elsewhere: the name is its as long as that is there. */
	if (S_ISLNK(status.st_mode) && stat(path, &status) == 0)
		return error_set(error, -EADDRINUSE, "the name of the control socket %s belongs to another supervisor",
				 path);
	if (!S_ISSOCK(status.st_mode) && !S_ISLNK(status.st_mode))
		return error_set(error, -EEXIST, "the control socket's path %s is taken by something else", path);
	if (unlink(path) < 0)
		return error_set(error, -errno, "cannot remove the old socket %s: %s", path, strerror(errno));
	return 0;
}

static int take_path(char *path, struct control_place *place, struct error *error)
{
	int r = lock_place(path, &place->lock_fd, error);
	if (r < 0)
		return r;
	r = clear_path(path, error);
	if (r < 0) {
		place->lock_fd = fd_close(place->lock_fd);
		return r;
	}
	place->path = path;
	return 0;
}

/* NAME, or NAME-2, NAME-3 … where it is derived and taken. */
static int take_name(const char *folder, const char *name, bool name_explicit, struct control_place *place,
		     struct error *error)
{
	int r = make_folder(folder, error);
	for (int i = 1; r >= 0 && i < NAMES_MAX; i++) {
		char *path = NULL, *tried = NULL;
		if ((i == 1 ? asprintf(&tried, "%s", name) : asprintf(&tried, "%s-%d", name, i)) < 0 ||
		    asprintf(&path, "%s/%s", folder, tried) < 0) {
			free(tried);
			return error_set(error, -ENOMEM, "out of memory");
		}
		r = take_path(path, place, error);
		if (r >= 0) {
			place->name = tried;
			return 0;
		}
		free(path);
		free(tried);
		if (r == -EADDRINUSE && !name_explicit)
			r = 0;
	}
	return r < 0 ? r : error_set(error, -EADDRINUSE, "%d supervisors are called %s already", NAMES_MAX, name);
}

/* So that a client finds us where it looks, whatever --control says. Best effort: only where we may. */
void control_place_publish(struct control_place *place)
{
	CLEANUP(freep) char *absolute = realpath(place->path, NULL);
	char *link = NULL;
	if (asprintf(&link, PUBLIC_FOLDER "/%s", place->name) < 0)
		return;
	(void)!mkdir(PUBLIC_FOLDER, 0755);
	if (!absolute || strcmp(absolute, link) == 0) {
		free(link);
		return;
	}
	/* A dangling link is of somebody who died. */
	struct stat status;
	if (stat(link, &status) < 0 && errno == ENOENT)
		(void)!unlink(link);
	if (symlink(absolute, link) < 0)
		free(link);
	else
		place->registration = link;
}

static int take_given(const char *given, const char *name, struct control_place *place, struct error *error)
{
	char *path = strdup(given);
	place->name = strdup(name);
	int r = path && place->name ? take_path(path, place, error) : error_set(error, -ENOMEM, "out of memory");
	if (r < 0) {
		free(path);
		free(place->name);
		place->name = NULL;
	}
	return r;
}

/* systemd gives a list with colons where the unit has several. */
static int take_runtime(const char *folders, const char *name, struct control_place *place, struct error *error)
{
	CLEANUP(freep) char *path = NULL;
	if (asprintf(&path, "%.*s/control", (int)strcspn(folders, ":"), folders) < 0)
		return error_set(error, -ENOMEM, "out of memory");
	return take_given(path, name, place, error);
}

static int take_default(const char *name, bool name_explicit, struct control_place *place, struct error *error)
{
	CLEANUP(freep) char *folder = default_folder();
	return folder ? take_name(folder, name, name_explicit, place, error)
		      : error_set(error, -ENOMEM, "out of memory");
}

int control_place_take(const struct control_option *option, const char *name, bool name_explicit,
		       struct control_place *ret_place, struct error *error)
{
	struct control_place place = {.lock_fd = -1,
				      .mode = option->mode == (mode_t)-1 ? 0600 : option->mode,
				      .gid = option->gid,
				      .check_peer = option->mode == (mode_t)-1};
	const char *runtime = getenv("RUNTIME_DIRECTORY");
	int r = -EADDRINUSE;
	if (option->path)
		r = take_given(option->path, name, &place, error);
	else if (runtime && runtime[0] == '/')
		r = take_runtime(runtime, name, &place, error);
	/* Inside another supervisor's unit its folder is taken: then as without one. */
	if (!option->path && r == -EADDRINUSE)
		r = take_default(name, name_explicit, &place, error);
	if (r >= 0)
		*ret_place = place;
	return r;
}

void control_place_release(struct control_place *place)
{
	if (!place->path)
		return;
	if (place->registration)
		unlink(place->registration);
	unlink(place->path);
	CLEANUP(freep) char *lock = NULL;
	if (asprintf(&lock, "%s.lock", place->path) >= 0)
		unlink(lock);
	fd_close(place->lock_fd);
	free(place->registration);
	free(place->path);
	free(place->name);
	*place = (struct control_place){.lock_fd = -1};
}

/* ---- finding ---- */

struct finding {
	struct control_found *items;
	size_t count;
	dev_t *devices; /* of the sockets found, against finding one twice */
	ino_t *inodes;
};

static bool can_connect(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	CLEANUP(fd_closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || strlcpy(address.sun_path, path, sizeof(address.sun_path)) >= sizeof(address.sun_path))
		return false;
	return connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 || errno == EAGAIN;
}

static int add_found(struct finding *finding, const char *path, const char *name)
{
	struct stat status;
	if (stat(path, &status) < 0 || !S_ISSOCK(status.st_mode))
		return 0;
	for (size_t i = 0; i < finding->count; i++)
		if (finding->devices[i] == status.st_dev && finding->inodes[i] == status.st_ino)
			return 0;
	if (!can_connect(path))
		return 0;
	size_t count = finding->count + 1;
	struct control_found *items = reallocarray(finding->items, count, sizeof(*items));
	finding->items = items ? items : finding->items;
	dev_t *devices = reallocarray(finding->devices, count, sizeof(*devices));
	finding->devices = devices ? devices : finding->devices;
	ino_t *inodes = reallocarray(finding->inodes, count, sizeof(*inodes));
	finding->inodes = inodes ? inodes : finding->inodes;
	if (!items || !devices || !inodes)
		return -ENOMEM;
	items[finding->count] = (struct control_found){.path = strdup(path), .name = strdup(name)};
	devices[finding->count] = status.st_dev;
	inodes[finding->count] = status.st_ino;
	if (!items[finding->count].path || !items[finding->count].name)
		return -ENOMEM;
	finding->count = count;
	return 0;
}

static int find_in(struct finding *finding, const char *folder)
{
	DIR *directory = opendir(folder);
	if (!directory)
		return 0;
	int r = 0;
	for (struct dirent *entry; r >= 0 && (entry = readdir(directory));) {
		CLEANUP(freep) char *path = NULL;
		if (entry->d_name[0] == '.')
			continue;
		r = asprintf(&path, "%s/%s", folder, entry->d_name) < 0 ? -ENOMEM
									: add_found(finding, path, entry->d_name);
	}
	closedir(directory);
	return r;
}

void control_found_free(struct control_found *found, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		free(found[i].path);
		free(found[i].name);
	}
	free(found);
}

int control_place_find(struct control_found **ret_found, size_t *ret_count)
{
	struct finding finding = {.items = NULL};
	CLEANUP(freep) char *folder = default_folder();
	const char *runtime = getenv("RUNTIME_DIRECTORY");
	CLEANUP(freep) char *control = NULL;
	int r = folder ? find_in(&finding, PUBLIC_FOLDER) : -ENOMEM;
	if (r >= 0)
		r = find_in(&finding, folder);
	if (r >= 0 && runtime && runtime[0] == '/') {
		r = asprintf(&control, "%.*s/control", (int)strcspn(runtime, ":"), runtime) < 0
			    ? -ENOMEM
			    : add_found(&finding, control, "control");
	}
	free(finding.devices);
	free(finding.inodes);
	if (r < 0) {
		control_found_free(finding.items, finding.count);
		return r;
	}
	*ret_found = finding.items;
	*ret_count = finding.count;
	return 0;
}
