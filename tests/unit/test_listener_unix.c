/* SPDX-License-Identifier: MIT */
/* Unix listeners: dead and live paths, two starters at once, permissions, the guard link, names without a path. */
#include <sys/file.h>

#include "listener_unix_fixture.h"

#define STARTS 50
#define REBINDS 200

static struct listener_set helper_set;

static void hold_spec(void)
{
	must_open(&helper_set, spec);
}

static void test_listener_unix_path_and_guard_come_and_go(void)
{
	struct listener_set set;

	make_folder();
	mode_t umask_before = umask(0027);
	must_open(&set, spec);
	check_int(umask(umask_before), 0027);
	const struct listener *listener = &set.items[0];
	check_str(listener->address, path);
	check_str(listener->path, path);
	check_str(listener->guard_path, guard);
	check_str(listener->type, "unix");
	check(listener->stream && listener->backlog > 0);
	check(fcntl(listener->fd, F_GETFD) & FD_CLOEXEC);
	check(is_ours(listener, path) && is_ours(listener, guard));
	check_int(status_of(path).st_mode, S_IFSOCK | 0750);
	check_int(reach_unix(path), 0);
	listener_set_close(&set);
	remove_folder();
}

static void from_inside_the_folder(void)
{
	struct listener_set set;

	check_int(chdir(folder), 0);
	must_open(&set, "unix:.//a.sock");
	check_str(set.items[0].path, path);
	check_str(set.items[0].address, path);
	check_int(chdir("/"), 0);
	check_int(reach_unix(path), 0);
	listener_set_close(&set);
	check_int(chdir(folder), 0);
	must_open(&set, "unix:a.sock");
	check_str(set.items[0].path, path);
	listener_set_close(&set);
	char long_name[128] = "unix:";
	memset(long_name + 5, 'x', 95);
	check_int(open_these(&set, long_name), -ENAMETOOLONG);
	check_contains(failure.text, "with the current folder before it");
}

static void test_listener_unix_relative_path_is_made_absolute(void)
{
	make_folder();
	in_child(from_inside_the_folder);
	remove_folder();
}

static void test_listener_unix_longest_path_works_and_one_more_is_refused(void)
{
	struct listener_set set;
	char longest[128];

	make_folder();
	size_t start = (size_t)snprintf(longest, sizeof(longest), "unix:%s/", folder);
	memset(longest + start, 'x', 5 + 107 - start);
	longest[5 + 107] = '\0';
	must_open(&set, longest);
	check_str(set.items[0].path, longest + 5);
	check(set.items[0].guard_path);
	check_int(reach_unix(longest + 5), 0);
	check_int(open_these(&set, longest), -EADDRINUSE);
	check_int(unlink(longest + 5), 0);
	check_int(listener_repair(&set.items[0], &failure), LISTENER_PATH_RESTORED);
	/* The guard's name is longer than any address, and is asked all the same whether it is live. */
	check_int(unlink(longest + 5), 0);
	struct listener_set other;
	check_int(open_these(&other, longest), -EADDRINUSE);
	listener_set_close(&set);
	struct listen_spec by_hand = {.text = longest, .type = LISTEN_UNIX, .path = longest + 4, .backlog = 1};
	memmove(longest + 4, longest + 5, 108);
	longest[4 + 107] = 'x';
	longest[4 + 108] = '\0';
	by_hand.mode = (mode_t)-1;
	check_int(listener_set_open(&set, &by_hand, 1, NULL, &failure), -ENAMETOOLONG);
	check_contains(failure.text, "108 bytes");
	by_hand.abstract = true;
	check_int(listener_set_open(&set, &by_hand, 1, NULL, &failure), -ENAMETOOLONG);
	remove_folder();
}

static void test_listener_unix_mode_and_owner_are_set(void)
{
	struct listener_set set;
	char text[128];

	make_folder();
	snprintf(text, sizeof(text), "%s?mode=0604", spec);
	must_open(&set, text);
	check_int(status_of(path).st_mode, S_IFSOCK | 0604);
	listener_set_close(&set);
	snprintf(text, sizeof(text), "%s?group=%d", spec, (int)getgid());
	mode_t umask_before = umask(0022);
	must_open(&set, text);
	check_int(umask(umask_before), 0022);
	check_int(status_of(path).st_mode, S_IFSOCK | 0755);
	listener_set_close(&set);
	if (geteuid() == 0) {
		snprintf(text, sizeof(text), "%s?mode=0660&user=12345&group=54321", spec);
		must_open(&set, text);
		check_int(status_of(path).st_mode, S_IFSOCK | 0660);
		check_int(status_of(path).st_uid, 12345);
		check_int(status_of(path).st_gid, 54321);
		check(set.items[0].guard_path && is_ours(&set.items[0], guard));
		listener_set_close(&set);
	} else {
		snprintf(text, sizeof(text), "%s?user=0", spec);
		check_int(open_these(&set, text), -EPERM);
		check_contains(failure.text, "cannot set user and group");
	}
	remove_folder();
}

/* Looks at the path all the time; ends with 1 if it ever allows more than mode 0600. */
static pid_t start_onlooker(void)
{
	struct stat status;
	pid_t pid = fork_bound();

	while (pid == 0)
		if (lstat(path, &status) == 0 && (status.st_mode & 07177) != 0)
			_exit(1);
	return pid;
}

static void test_listener_unix_is_never_wider_than_asked(void)
{
	struct listener_set set;
	char text[128];
	int status = 0;

	make_folder();
	snprintf(text, sizeof(text), "%s?mode=0600", spec);
	mode_t umask_before = umask(0);
	pid_t pid = start_onlooker();
	for (int i = 0; i < REBINDS; i++) {
		must_open(&set, text);
		listener_set_close(&set);
	}
	umask(umask_before);
	check_int(waitpid(pid, &status, WNOHANG), 0);
	stop_helper(pid);
	remove_folder();
}

static void check_names_holder_and_serves(const char *asked)
{
	struct listener_set set;
	char want[128];

	pid_t pid = start_helper("holder", hold_spec);
	snprintf(want, sizeof(want), "%s is in use by holder (pid %d)", path, (int)pid);
	check_int(open_these(&set, asked), -EADDRINUSE);
	check_contains(failure.text, want);
	check_int(check_these(asked), -EADDRINUSE);
	check_contains(failure.text, want);
	check(exists(path));
	check(exists(guard));
	stop_helper(pid);
	/* Killed, it left both behind (field report B3a): the next start takes them over. */
	check_int(reach_unix(path), -ECONNREFUSED);
	check_int(check_these(asked), 0);
	check(exists(path));
	must_open(&set, asked);
	check(is_ours(&set.items[0], path) && is_ours(&set.items[0], guard));
	listener_set_close(&set);
}

static void test_listener_unix_live_path_is_refused_and_dead_one_replaced(void)
{
	char link[64], asked[96];

	make_folder();
	check_names_holder_and_serves(spec);
	/* The same path by way of a symbolic link to its folder. */
	snprintf(link, sizeof(link), "%s-link", folder);
	check_int(symlink(folder, link), 0);
	snprintf(asked, sizeof(asked), "unix:%s/a.sock", link);
	pid_t pid = start_helper("holder", hold_spec);
	struct listener_set set;
	check_int(open_these(&set, asked), -EADDRINUSE);
	check_contains(failure.text, "is in use by holder (pid ");
	check_int(reach_unix(path), 0);
	stop_helper(pid);
	check_int(unlink(link), 0);
	check_int(unlink(path), 0);
	check_int(unlink(guard), 0);
	remove_folder();
}

static void test_listener_unixgram_live_and_wrong_kind_are_refused(void)
{
	struct listener_set set, other;
	char gram[96];

	make_folder();
	snprintf(gram, sizeof(gram), "unixgram:%s", path);
	must_open(&set, gram);
	check_str(set.items[0].type, "unixgram");
	check(!set.items[0].stream && set.items[0].backlog == 0);
	check_int(open_these(&other, gram), -EADDRINUSE);
	check_contains(failure.text, "is in use by another of our listeners");
	check_int(open_these(&other, spec), -EADDRINUSE);
	int fd = connect_unix(path, SOCK_DGRAM);
	check(fd >= 0);
	check_int(send(fd, "x", 1, 0), 1);
	close(fd);
	listener_set_close(&set);
	make_dead_socket(path);
	must_open(&set, gram);
	listener_set_close(&set);
	remove_folder();
}

static void test_listener_unix_full_queue_is_live(void)
{
	struct listener_set set, other;
	char text[96];
	int clients[16], count = 0;

	make_folder();
	snprintf(text, sizeof(text), "%s?backlog=1", spec);
	must_open(&set, text);
	while (count < 16 && (clients[count] = connect_unix(path, SOCK_STREAM)) >= 0)
		count++;
	check(count < 16);
	check_int(clients[count], -EAGAIN);
	check_int(open_these(&other, text), -EADDRINUSE);
	while (count > 0)
		close(clients[--count]);
	listener_set_close(&set);
	remove_folder();
}

static void check_left_alone(const char *what)
{
	struct listener_set set;
	struct stat before = status_of(path);

	check_int(open_these(&set, spec), -EEXIST);
	check_contains(failure.text, what);
	check_contains(failure.text, path);
	check_int(check_these(spec), -EEXIST);
	check_int(status_of(path).st_ino, before.st_ino);
	check(!exists(guard));
}

static void test_listener_unix_what_is_no_socket_is_left_alone(void)
{
	char target[80];

	make_folder();
	make_file(path);
	check_left_alone("is a file, not a socket");
	check_int(unlink(path), 0);
	check_int(mkdir(path, 0700), 0);
	check_left_alone("is a folder, not a socket");
	check_int(rmdir(path), 0);
	snprintf(target, sizeof(target), "%s/target", folder);
	check_int(symlink(target, path), 0);
	check_left_alone("is a symbolic link, not a socket");
	check(!exists(target));
	make_dead_socket(target);
	check_left_alone("is a symbolic link, not a socket");
	check(exists(target));
	check_int(unlink(target), 0);
	check_int(unlink(path), 0);
	check_int(mkfifo(path, 0600), 0);
	check_left_alone("not a socket");
	check_int(unlink(path), 0);
	remove_folder();
}

/* One of two starters, let go at the same instant; 1 in its result is "I hold the path", 2 "I was refused". The holder
 * stays until both have a result. */
static pid_t start_starter(struct race *race, int number)
{
	pid_t pid = fork_bound();

	if (pid > 0)
		return pid;
	struct listener_set set;
	atomic_fetch_add(&race->waiting, 1);
	wait_for(&race->waiting, 2);
	int r = open_these(&set, spec);
	bool good = r == 0 ? reach_unix(path) == 0 && is_ours(&set.items[0], path) && set.items[0].guard_path
			   : r == -EADDRINUSE && strstr(failure.text, "is in use by");
	atomic_store(&race->results[number], r == 0 ? 1 : 2);
	atomic_fetch_add(&race->finished, 1);
	wait_for(&race->finished, 2);
	good = good && reach_unix(path) == 0;
	atomic_fetch_add(&race->finished, 1);
	wait_for(&race->finished, 4);
	if (r == 0)
		listener_set_close(&set);
	_exit(!good);
}

/* Field report B3e. */
static void test_listener_unix_of_two_starters_on_a_dead_path_one_wins(void)
{
	struct race *race = make_race();
	int status = 0;

	make_folder();
	for (int i = 0; i < STARTS; i++) {
		*race = (struct race){.waiting = 0};
		make_dead_socket(path);
		if (i % 2 == 0)
			make_dead_socket(guard);
		pid_t pids[2] = {start_starter(race, 0), start_starter(race, 1)};
		for (int j = 0; j < 2; j++) {
			check_int(waitpid(pids[j], &status, 0), pids[j]);
			check_int(status, 0);
		}
		check_int(race->results[0] + race->results[1], 3);
		check(!exists(path) && !exists(guard));
	}
	munmap(race, sizeof(*race));
	remove_folder();
}

/* The server of a live supervisor has just removed the path: a second start must not take the name. */
static void test_listener_unix_live_guard_is_refused(void)
{
	struct listener_set set, other;

	make_folder();
	must_open(&set, spec);
	check_int(unlink(path), 0);
	check_int(open_these(&other, spec), -EADDRINUSE);
	check_contains(failure.text, "is in use by another of our listeners");
	check_int(check_these(spec), -EADDRINUSE);
	check_int(listener_repair(&set.items[0], &failure), LISTENER_PATH_RESTORED);
	check_int(reach_unix(path), 0);
	listener_set_close(&set);
	remove_folder();
}

static void test_listener_unix_foreign_file_in_the_guards_place_is_left_alone(void)
{
	struct listener_set set;

	make_folder();
	make_file(guard);
	must_open(&set, spec);
	check(!set.items[0].guard_path);
	check_int(unlink(path), 0);
	check_int(listener_repair(&set.items[0], &failure), LISTENER_PATH_LOST);
	check_contains(failure.text, "no hard link");
	listener_set_close(&set);
	check_int(unlink(guard), 0);
	remove_folder();
}

static void as_nobody(void)
{
	struct listener_set set;
	char text[96];

	check_int(setgid(65534), 0);
	check_int(setuid(65534), 0);
	check_int(open_these(&set, spec), -EACCES);
	check_contains(failure.text, "Permission denied");
	check_contains(failure.text, path);
	check_int(check_these(spec), -EACCES);
	/* A folder that can be written but not read, so not locked. */
	snprintf(text, sizeof(text), "unix:%s/blind/a", folder);
	must_open(&set, text);
	check_int(reach_unix(text + 5), 0);
	listener_set_close(&set);
	check(!exists(text + 5));
	make_dead_socket(text + 5);
	check_int(open_these(&set, text), -EADDRINUSE);
	check_contains(failure.text, "remove it by hand");
	check_int(unlink(text + 5), 0);
	/* Somebody else's dead socket in a sticky folder. */
	snprintf(text, sizeof(text), "unix:%s/sticky/a", folder);
	check_int(open_these(&set, text), -EPERM);
	check_contains(failure.text, "cannot remove the dead socket");
	snprintf(text, sizeof(text), "unix:%s/closed/a", folder);
	check_int(open_these(&set, text), -EACCES);
	check_contains(failure.text, "cannot tell whether somebody uses");
}

static void test_listener_unix_missing_or_closed_folder_is_said(void)
{
	struct listener_set set;
	char text[96], blind[64], sticky[64], dead[80], closed[64], secret[80];

	make_folder();
	snprintf(text, sizeof(text), "unix:%s/missing/a", folder);
	check_int(open_these(&set, text), -ENOENT);
	snprintf(text, sizeof(text), "/missing: No such file or directory");
	check_contains(failure.text, text);
	snprintf(text, sizeof(text), "unix:%s/..", folder);
	check_int(open_these(&set, text), -EISDIR);
	check_contains(failure.text, "names a folder");
	make_file(path);
	snprintf(text, sizeof(text), "unix:%s/a", path);
	check_int(open_these(&set, text), -ENOTDIR);
	check_int(unlink(path), 0);
	if (geteuid() == 0) {
		snprintf(blind, sizeof(blind), "%s/blind", folder);
		check_int(mkdir(blind, 0700), 0);
		check_int(chmod(blind, 0333), 0);
		snprintf(sticky, sizeof(sticky), "%s/sticky", folder);
		check_int(mkdir(sticky, 0700), 0);
		check_int(chmod(sticky, 01777), 0);
		snprintf(dead, sizeof(dead), "%s/a", sticky);
		make_dead_socket(dead);
		check_int(chmod(dead, 0777), 0);
		snprintf(closed, sizeof(closed), "%s/closed", folder);
		check_int(mkdir(closed, 0755), 0);
		snprintf(secret, sizeof(secret), "%s/a", closed);
		make_dead_socket(secret);
		check_int(chmod(secret, 0700), 0);
		check_int(chmod(folder, 0755), 0);
		in_child(as_nobody);
		check_int(unlink(dead), 0);
		check_int(unlink(secret), 0);
		check_int(rmdir(blind), 0);
		check_int(rmdir(sticky), 0);
		check_int(rmdir(closed), 0);
	}
	remove_folder();
}

static void test_listener_unix_folder_locked_by_another_is_not_waited_for_long(void)
{
	struct listener_set set;

	make_folder();
	int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	check_int(flock(fd, LOCK_SH), 0);
	check_int(open_these(&set, spec), -EBUSY);
	check_contains(failure.text, folder);
	check(!exists(path));
	close(fd);
	must_open(&set, spec);
	/* The lock is not kept. */
	fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	check_int(flock(fd, LOCK_EX | LOCK_NB), 0);
	close(fd);
	listener_set_close(&set);
	remove_folder();
}

static void test_listener_abstract_name_has_no_path(void)
{
	struct listener_set set, other;
	char text[64], name[48], want[128];

	snprintf(name, sizeof(name), "@listener-test-%d", (int)getpid());
	snprintf(text, sizeof(text), "unix:%s", name);
	must_open(&set, text);
	check_str(set.items[0].address, name);
	check_str(set.items[0].type, "unix");
	check(!set.items[0].path && !set.items[0].guard_path && set.items[0].backlog > 0);
	check_int(listener_watch_paths(&set), -ENOENT);
	check_int(open_these(&other, text), -EADDRINUSE);
	snprintf(want, sizeof(want), "%s is in use by another of our listeners", name);
	check_contains(failure.text, want);
	listener_set_close(&set);
	snprintf(spec, sizeof(spec), "%s", text);
	pid_t pid = start_helper("holder", hold_spec);
	check_int(open_these(&set, text), -EADDRINUSE);
	snprintf(want, sizeof(want), "%s is in use by holder (pid %d)", name, (int)pid);
	check_contains(failure.text, want);
	stop_helper(pid);
	must_open(&set, text);
	listener_set_close(&set);
}

TEST_MAIN(TEST(test_listener_unix_path_and_guard_come_and_go), TEST(test_listener_unix_relative_path_is_made_absolute),
	  TEST(test_listener_unix_longest_path_works_and_one_more_is_refused),
	  TEST(test_listener_unix_mode_and_owner_are_set), TEST(test_listener_unix_is_never_wider_than_asked),
	  TEST(test_listener_unix_live_path_is_refused_and_dead_one_replaced),
	  TEST(test_listener_unixgram_live_and_wrong_kind_are_refused), TEST(test_listener_unix_full_queue_is_live),
	  TEST(test_listener_unix_what_is_no_socket_is_left_alone),
	  TEST(test_listener_unix_of_two_starters_on_a_dead_path_one_wins),
	  TEST(test_listener_unix_live_guard_is_refused),
	  TEST(test_listener_unix_foreign_file_in_the_guards_place_is_left_alone),
	  TEST(test_listener_unix_missing_or_closed_folder_is_said),
	  TEST(test_listener_unix_folder_locked_by_another_is_not_waited_for_long),
	  TEST(test_listener_abstract_name_has_no_path))
