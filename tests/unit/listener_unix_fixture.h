/* SPDX-License-Identifier: MIT */
/* Helpers for tests of unix listeners: a folder of their own, what lies in it, and a start line for races. */
#ifndef HANDOFF_LISTENER_UNIX_FIXTURE_H
#define HANDOFF_LISTENER_UNIX_FIXTURE_H

#include <stdatomic.h>
#include <sys/mman.h>
#include <time.h>

#include "listener_fixture.h"

static char folder[32], path[64], guard[64], spec[80];

static inline void make_folder(void)
{
	snprintf(folder, sizeof(folder), "/tmp/listener-test-XXXXXX");
	check(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/a.sock", folder);
	snprintf(guard, sizeof(guard), "%s/.a.sock.handoff", folder);
	snprintf(spec, sizeof(spec), "unix:%s", path);
}

/* Nothing of ours may be left in it. */
static inline void remove_folder(void)
{
	check_int(rmdir(folder), 0);
}

static inline void make_dead_socket(const char *at)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strlcpy(address.sun_path, at, sizeof(address.sun_path));
	check_int(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	close(fd);
}

static inline void make_file(const char *at)
{
	int fd = open(at, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	check(fd >= 0);
	close(fd);
}

static inline struct stat status_of(const char *at)
{
	struct stat status;

	check_int(lstat(at, &status), 0);
	return status;
}

static inline bool exists(const char *at)
{
	struct stat status;

	return lstat(at, &status) == 0;
}

static inline bool is_ours(const struct listener *listener, const char *at)
{
	struct stat status = status_of(at);

	return status.st_dev == listener->path_dev && status.st_ino == listener->path_ino;
}

/* What the racing processes share: spinning on it starts them closer together than any wake-up. */
struct race {
	atomic_int waiting, results[2], finished;
};

static inline struct race *make_race(void)
{
	struct race *race = mmap(NULL, sizeof(*race), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	check(race != MAP_FAILED);
	return race;
}

static inline void wait_for(atomic_int *value, int wanted)
{
	time_t deadline = time(NULL) + DEADLINE_MS / 1000;

	while (atomic_load(value) < wanted)
		check(time(NULL) < deadline);
}

#endif
