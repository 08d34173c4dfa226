/* SPDX-License-Identifier: MIT */
/* Unix paths after the bind: restored when a server removes them, watched, and removed only while they are ours. */
#include "listener_unix_fixture.h"

#define CLOSES 400

/* Field report B2: a server unlinks what getsockname tells it. */
static void test_listener_repair_restores_a_removed_path(void)
{
	struct sockaddr_un address;
	struct listener_set set;

	make_folder();
	must_open(&set, spec);
	struct listener *listener = &set.items[0];
	check_int(listener_repair(listener, &failure), LISTENER_PATH_FINE);
	for (int i = 0; i < 20; i++) {
		socklen_t length = sizeof(address);
		check_int(getsockname(listener->fd, (struct sockaddr *)&address, &length), 0);
		check_int(unlink(address.sun_path), 0);
		check_int(reach_unix(path), -ENOENT);
		check_int(listener_repair(listener, &failure), LISTENER_PATH_RESTORED);
		check(is_ours(listener, path) && is_ours(listener, guard));
		check_int(reach_unix(path), 0);
		check_int(listener_repair(listener, &failure), LISTENER_PATH_FINE);
	}
	check_int(unlink(guard), 0);
	check_int(listener_repair(listener, &failure), LISTENER_PATH_FINE);
	check(is_ours(listener, guard));
	check_int(unlink(guard), 0);
	check_int(unlink(path), 0);
	check_int(listener_repair(listener, &failure), LISTENER_PATH_LOST);
	listener_set_close(&set);
	remove_folder();
}

static void test_listener_repair_leaves_a_foreign_path_alone(void)
{
	struct listener_set set;
	char elsewhere[80];

	make_folder();
	must_open(&set, spec);
	snprintf(elsewhere, sizeof(elsewhere), "%s/elsewhere", folder);
	check_int(rename(path, elsewhere), 0);
	make_file(path);
	check_int(listener_repair(&set.items[0], &failure), LISTENER_PATH_FOREIGN);
	check(S_ISREG(status_of(path).st_mode));
	check_int(unlink(path), 0);
	make_dead_socket(path);
	check_int(listener_repair(&set.items[0], &failure), LISTENER_PATH_FOREIGN);
	check_int(reach_unix(path), -ECONNREFUSED);
	check_int(unlink(path), 0);
	check_int(listener_repair(&set.items[0], &failure), LISTENER_PATH_RESTORED);
	check_int(reach_unix(path), 0);
	check_int(unlink(elsewhere), 0);
	listener_set_close(&set);
	remove_folder();
}

static void test_listener_close_leaves_what_is_not_ours(void)
{
	struct listener_set set, other;

	make_folder();
	/* Another server took the path, and is live. */
	must_open(&set, spec);
	check_int(unlink(path), 0);
	check_int(unlink(guard), 0);
	must_open(&other, spec);
	listener_set_close(&set);
	check_int(reach_unix(path), 0);
	check(is_ours(&other.items[0], path) && is_ours(&other.items[0], guard));
	listener_set_close(&other);
	/* Files in both places. */
	must_open(&set, spec);
	check_int(unlink(path), 0);
	check_int(unlink(guard), 0);
	make_file(path);
	make_file(guard);
	listener_set_close(&set);
	check(S_ISREG(status_of(path).st_mode) && S_ISREG(status_of(guard).st_mode));
	check_int(unlink(path), 0);
	check_int(unlink(guard), 0);
	/* Nothing at all. */
	must_open(&set, spec);
	check_int(unlink(path), 0);
	listener_set_close(&set);
	remove_folder();
}

static void spin_ns(int64_t duration)
{
	struct timespec start, now;

	clock_gettime(CLOCK_MONOTONIC, &start);
	do
		clock_gettime(CLOCK_MONOTONIC, &now);
	while ((int64_t)(now.tv_sec - start.tv_sec) * 1000000000 + now.tv_nsec - start.tv_nsec < duration);
}

/* Another server puts its file in place of our path just as we close: whichever comes first, its file must be there
 * afterwards. Its instant is moved through the time that a close takes. */
static void test_listener_close_races_with_a_newcomer(void)
{
	struct race *race = make_race();
	struct listener_set set;
	char newcomer[80];
	int status = 0;

	make_folder();
	snprintf(newcomer, sizeof(newcomer), "%s/newcomer", folder);
	for (int i = 0; i < CLOSES; i++) {
		*race = (struct race){.waiting = 0};
		must_open(&set, spec);
		make_file(newcomer);
		ino_t inode = status_of(newcomer).st_ino;
		pid_t pid = fork_bound();
		if (pid == 0) {
			atomic_fetch_add(&race->waiting, 1);
			wait_for(&race->waiting, 2);
			spin_ns(i % 100 * 500);
			_exit(rename(newcomer, path) != 0);
		}
		wait_for(&race->waiting, 1);
		atomic_fetch_add(&race->waiting, 1);
		listener_set_close(&set);
		check_int(waitpid(pid, &status, 0), pid);
		check_int(status, 0);
		check_int(status_of(path).st_ino, inode);
		check_int(unlink(path), 0);
	}
	munmap(race, sizeof(*race));
	remove_folder();
}

static void drain(int fd)
{
	char buffer[4096];

	while (read(fd, buffer, sizeof(buffer)) > 0)
		continue;
}

static void test_listener_watch_sees_the_path_and_nothing_else(void)
{
	struct listener_set set;
	char other[80], moved[64];

	make_folder();
	snprintf(other, sizeof(other), "%s/other", folder);
	must_open(&set, "127.0.0.1:0", spec);
	int fd = listener_watch_paths(&set);
	check(fd >= 0 && (fcntl(fd, F_GETFD) & FD_CLOEXEC) && (fcntl(fd, F_GETFL) & O_NONBLOCK));
	make_file(other);
	check_int(unlink(other), 0);
	check_int(reach_unix(path), 0);
	check(!is_readable(fd, 0));
	check_int(unlink(path), 0);
	check(is_readable(fd, DEADLINE_MS));
	drain(fd);
	check_int(listener_repair(&set.items[1], &failure), LISTENER_PATH_RESTORED);
	/* Our own link shows once more; after that there is peace. */
	drain(fd);
	check_int(listener_repair(&set.items[1], &failure), LISTENER_PATH_FINE);
	check(!is_readable(fd, 0));
	check_int(rename(path, other), 0);
	check(is_readable(fd, DEADLINE_MS));
	drain(fd);
	check_int(rename(other, path), 0);
	drain(fd);
	/* Something is renamed over it, as an atomic start of another server does. */
	make_file(other);
	check_int(rename(other, path), 0);
	check(is_readable(fd, DEADLINE_MS));
	close(fd);
	check_int(listener_repair(&set.items[1], &failure), LISTENER_PATH_FOREIGN);
	fd = listener_watch_paths(&set);
	check(fd >= 0);
	check_int(unlink(path), 0);
	check(is_readable(fd, DEADLINE_MS));
	check_int(listener_repair(&set.items[1], &failure), LISTENER_PATH_RESTORED);
	close(fd);
	fd = listener_watch_paths(&set);
	snprintf(moved, sizeof(moved), "%s-moved", folder);
	check_int(rename(folder, moved), 0);
	check(is_readable(fd, DEADLINE_MS));
	close(fd);
	check_int(listener_repair(&set.items[1], &failure), LISTENER_PATH_LOST);
	fd = listener_watch_paths(&set);
	check(fd >= 0);
	close(fd);
	check_int(rename(moved, folder), 0);
	check_int(listener_repair(&set.items[1], &failure), LISTENER_PATH_FINE);
	listener_set_close(&set);
	remove_folder();
}

TEST_MAIN(TEST(test_listener_repair_restores_a_removed_path), TEST(test_listener_repair_leaves_a_foreign_path_alone),
	  TEST(test_listener_close_leaves_what_is_not_ours), TEST(test_listener_close_races_with_a_newcomer),
	  TEST(test_listener_watch_sees_the_path_and_nothing_else))
