/* SPDX-License-Identifier: MIT */
/* Tests of pidfile.c: one owner, whoever else starts at the same instant, and a file that is never half there. */
#include <bsd/libutil.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "fd.h"
#include "pidfile.h"
#include "../lib/test.h"

static char folder[32];
static char path[64]; /* in the folder */

static void setup(void)
{
	strcpy(folder, "/tmp/test_pidfile.XXXXXX");
	check(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/web.pid", folder);
}

static int count_files(void)
{
	int count = 0;
	DIR *dir = opendir(folder);
	const struct dirent *entry;

	while ((entry = readdir(dir)))
		count += entry->d_name[0] != '.';
	closedir(dir);
	return count;
}

/* Fails where a test left more than `path`, such as a file that was to be renamed. */
static void teardown(void)
{
	unlink(path);
	check_int(rmdir(folder), 0);
}

static void write_file(const char *text, size_t length)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	check(fd >= 0);
	check_int(write(fd, text, length), length);
	fd_close(fd);
}

/* A pid that nobody has: that of a child which is gone. */
static pid_t dead_pid(void)
{
	pid_t pid = fork();

	check(pid >= 0);
	if (pid == 0)
		_exit(0);
	check_int(waitpid(pid, NULL, 0), pid);
	return pid;
}

static void write_stale(void)
{
	char text[16];
	int length = snprintf(text, sizeof(text), "%d\n", (int)dead_pid());

	write_file(text, (size_t)length);
}

static void check_holds(const char *want)
{
	CLEANUP(freep) char *text = NULL;
	size_t length;

	check_int(fd_read_file(path, 4096, &text, &length), 0);
	check_str(text, want);
}

static void check_holds_pid(pid_t pid)
{
	char want[16];

	snprintf(want, sizeof(want), "%d\n", (int)pid);
	check_holds(want);
}

static void test_pidfile_holds_our_pid_and_a_lock(void)
{
	struct pidfile pidfile;
	struct error error;

	setup();
	check_int(pidfile_create(&pidfile, path, &error), 0);
	check_str(pidfile.path, path);
	check_holds_pid(getpid());
	check(fcntl(pidfile.fd, F_GETFD) & FD_CLOEXEC);
	check_int(flopen(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC), -1);
	check_int(errno, EWOULDBLOCK);
	check_int(count_files(), 1);
	pidfile_finish(&pidfile);
	check(!pidfile.path);
	check_int(access(path, F_OK), -1);
	pidfile_finish(&pidfile);
	teardown();
}

static void test_pidfile_of_a_live_owner_is_refused(void)
{
	struct pidfile pidfile, other = {.path = NULL, .fd = 77};
	struct error error;
	char want[32];

	setup();
	check_int(pidfile_create(&pidfile, path, &error), 0);
	check_int(pidfile_create(&other, path, &error), -EEXIST);
	check(!other.path && other.fd == 77);
	check_contains(error.text, path);
	snprintf(want, sizeof(want), "pid %d", (int)getpid());
	check_contains(error.text, want);
	check_int(pidfile_check(path, &error), -EEXIST);
	check_contains(error.text, want);
	check_holds_pid(getpid());
	check_int(count_files(), 1);
	pidfile_finish(&pidfile);
	teardown();
}

/* Somebody who never gives way: waited for a moment only, and not taken for an owner with that pid. */
static void test_pidfile_locked_with_a_dead_pid_is_refused(void)
{
	struct pidfile pidfile;
	struct error error;

	setup();
	write_stale();
	int fd = flopen(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	check(fd >= 0);
	check_int(pidfile_create(&pidfile, path, &error), -EEXIST);
	check_contains(error.text, "not alive");
	check_int(pidfile_check(path, &error), -EEXIST);
	fd_close(fd);
	teardown();
}

static void test_pidfile_that_is_stale_is_replaced(void)
{
	struct pidfile pidfile;
	struct error error;

	setup();
	write_stale();
	check_int(pidfile_check(path, &error), 0);
	check_int(pidfile_create(&pidfile, path, &error), 0);
	check_holds_pid(getpid());
	check_int(count_files(), 1);
	pidfile_finish(&pidfile);
	check_int(access(path, F_OK), -1);
	/* Other writers leave the newline out. */
	write_file("4194304", 7);
	check_int(pidfile_create(&pidfile, path, &error), 0);
	pidfile_finish(&pidfile);
	teardown();
}

static void test_pidfile_with_other_content_is_left_alone(void)
{
	static const struct {
		const char *text;
		size_t length;
	} cases[] = {{"", 0},
		     {"\n", 1},
		     {"server {\n}\n", 11},
		     {"12 34\n", 6},
		     {"-5\n", 3},
		     {" 5\n", 3},
		     {"0\n", 2},
		     {"99999999999\n", 12},
		     {"12\0\n", 4},
		     {"1                                     \n", 39}};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct pidfile pidfile;
		struct error error;
		struct stat before, after;
		setup();
		write_file(cases[i].text, cases[i].length);
		check_int(stat(path, &before), 0);
		check_int(pidfile_create(&pidfile, path, &error), -EINVAL);
		check_contains(error.text, path);
		check_int(pidfile_check(path, &error), -EINVAL);
		check_int(stat(path, &after), 0);
		check_int(after.st_ino, before.st_ino);
		check_int(after.st_size, cases[i].length);
		teardown();
	}
}

static void check_kind_is_refused(void)
{
	struct pidfile pidfile;
	struct error error;
	struct stat before, after;

	check_int(lstat(path, &before), 0);
	check_int(pidfile_create(&pidfile, path, &error), -EINVAL);
	check_contains(error.text, "not a regular file");
	check_int(pidfile_check(path, &error), -EINVAL);
	check_int(lstat(path, &after), 0);
	check_int(after.st_ino, before.st_ino);
	check_int(count_files(), 1);
	unlink(path);
}

static void test_pidfile_that_is_no_file_is_left_alone(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	setup();
	check_int(mkfifo(path, 0600), 0);
	check_kind_is_refused();
	check_int(symlink("/nowhere/at/all", path), 0);
	check_kind_is_refused();
	check_int(symlink("/etc/hostname", path), 0);
	check_kind_is_refused();
	memcpy(address.sun_path, path, strlen(path));
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	check_int(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
	check_kind_is_refused();
	fd_close(fd);
	check_int(mkdir(path, 0700), 0);
	check_kind_is_refused();
	check_int(rmdir(path), 0);
	teardown();
}

static void test_pidfile_finish_leaves_what_is_not_ours(void)
{
	struct pidfile pidfile;

	setup();
	check_int(pidfile_create(&pidfile, path, NULL), 0);
	check_int(unlink(path), 0);
	pidfile_finish(&pidfile);
	check_int(pidfile_create(&pidfile, path, NULL), 0);
	check_int(unlink(path), 0);
	write_file("1\n", 2);
	pidfile_finish(&pidfile);
	check_holds("1\n");
	teardown();
}

static void test_pidfile_survives_a_change_of_directory(void)
{
	struct pidfile pidfile;
	char *cwd = getcwd(NULL, 0);

	setup();
	check_int(chdir(folder), 0);
	check_int(pidfile_check("web.pid", NULL), 0);
	check_int(pidfile_create(&pidfile, "web.pid", NULL), 0);
	check_str(pidfile.path, path);
	check_int(chdir(cwd), 0);
	check_holds_pid(getpid());
	pidfile_finish(&pidfile);
	check_int(access(path, F_OK), -1);
	free(cwd);
	teardown();
}

static void test_pidfile_check_creates_nothing(void)
{
	struct pidfile pidfile;
	struct error error;
	char lost[80];

	setup();
	check_int(pidfile_check(path, &error), 0);
	check_int(count_files(), 0);
	snprintf(lost, sizeof(lost), "%s/no/web.pid", folder);
	check_int(pidfile_check(lost, &error), -ENOENT);
	check_contains(error.text, lost);
	check_int(pidfile_create(&pidfile, lost, &error), -ENOENT);
	check_contains(error.text, lost);
	write_stale();
	struct stat before, after;
	check_int(stat(path, &before), 0);
	check_int(pidfile_check(path, &error), 0);
	check_int(stat(path, &after), 0);
	check_int(after.st_ino, before.st_ino);
	teardown();
}

/* Looks at the file until `*stop`: 0, or 1 where it was seen with anything but a pid and a newline. With `always`, it
 * must never be absent either (2). */
static int look_on(const atomic_int *stop, bool always)
{
	while (!atomic_load(stop)) {
		CLEANUP(freep) char *text = NULL;
		size_t length;
		int result = fd_read_file(path, 64, &text, &length);
		if (result == -ENOENT && !always)
			continue;
		if (result < 0)
			return 2;
		if (length < 2 || strspn(text, "0123456789") != length - 1 || text[length - 1] != '\n')
			return 1;
	}
	return 0;
}

struct shared {
	atomic_int stop;      /* for the onlooker */
	atomic_int owners;    /* who have it now */
	atomic_int successes; /* in all */
};

static struct shared *shared_memory(void)
{
	struct shared *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	check(shared != MAP_FAILED);
	memset(shared, 0, sizeof(*shared));
	return shared;
}

static pid_t start_onlooker(const struct shared *shared, bool always)
{
	pid_t pid = fork();

	check(pid >= 0);
	if (pid == 0) {
		alarm(60);
		_exit(look_on(&shared->stop, always));
	}
	return pid;
}

static void check_exits_with_zero(pid_t pid)
{
	int status;

	check_int(waitpid(pid, &status, 0), pid);
	check(WIFEXITED(status));
	check_int(WEXITSTATUS(status), 0);
}

struct report {
	pid_t pid;
	int result;
	char text[256];
};

/* One of many: starts when `start_fd` ends, reports, and keeps what it got until `hold_fd` ends. */
static void run_starter(int start_fd, int report_fd, int hold_fd)
{
	struct report report = {.pid = getpid()};
	struct pidfile pidfile;
	struct error error = {""};
	char byte;

	alarm(60);
	if (read(start_fd, &byte, 1) != 0)
		_exit(1);
	report.result = pidfile_create(&pidfile, path, &error);
	snprintf(report.text, sizeof(report.text), "%.255s", error.text);
	if (write(report_fd, &report, sizeof(report)) != sizeof(report) || read(hold_fd, &byte, 1) != 0)
		_exit(2);
	if (report.result == 0)
		pidfile_finish(&pidfile);
	_exit(0);
}

/* Fifty at the same instant. Their pipes end when this process closes its writing ends, as it does not leave any to
 * its children. */
static void race_once(void)
{
	enum { STARTERS = 50 };
	struct report reports[STARTERS];
	int start[2], report[2], hold[2], winners = 0;
	pid_t pids[STARTERS], winner = -1;
	char want[32];

	check(pipe2(start, O_CLOEXEC) == 0 && pipe2(report, O_CLOEXEC) == 0 && pipe2(hold, O_CLOEXEC) == 0);
	for (size_t i = 0; i < STARTERS; i++) {
		pids[i] = fork();
		check(pids[i] >= 0);
		if (pids[i] == 0) {
			close(start[1]);
			close(hold[1]);
			run_starter(start[0], report[1], hold[0]);
		}
	}
	fd_close(start[1]);
	for (size_t i = 0; i < STARTERS; i++) {
		check_int(read(report[0], &reports[i], sizeof(reports[i])), sizeof(reports[i]));
		if (reports[i].result == 0) {
			winner = reports[i].pid;
			winners++;
		}
	}
	check_int(winners, 1);
	check_holds_pid(winner);
	snprintf(want, sizeof(want), ", pid %d", (int)winner);
	for (size_t i = 0; i < STARTERS; i++) {
		if (reports[i].pid == winner)
			continue;
		check_int(reports[i].result, -EEXIST);
		check_contains(reports[i].text, want);
	}
	fd_close(hold[1]);
	for (size_t i = 0; i < STARTERS; i++)
		check_exits_with_zero(pids[i]);
	check_int(count_files(), 0);
	fd_close(start[0]);
	fd_close(hold[0]);
	fd_close(report[0]);
	fd_close(report[1]);
}

static void test_pidfile_one_of_fifty_wins_a_stale_file(void)
{
	for (int round = 0; round < 4; round++) {
		setup();
		write_stale();
		race_once();
		teardown();
	}
}

static void test_pidfile_one_of_fifty_wins_a_new_file(void)
{
	for (int round = 0; round < 4; round++) {
		setup();
		race_once();
		teardown();
	}
}

static bool is_at_path(int fd)
{
	struct stat ours, there;

	return fstat(fd, &ours) == 0 && lstat(path, &there) == 0 && ours.st_ino == there.st_ino;
}

/* Takes the file `count` times, and leaves it stale two times of three. 2 where another one had it too, 3 where it was
 * replaced under its owner: then two starts had found the same stale file. */
static int take_and_leave(struct shared *shared, int count)
{
	alarm(60);
	while (count > 0) {
		struct pidfile pidfile;
		int result = pidfile_create(&pidfile, path, NULL);
		if (result == -EEXIST)
			continue;
		if (result < 0)
			return 1;
		if (atomic_fetch_add(&shared->owners, 1) != 0)
			return 2;
		atomic_fetch_add(&shared->successes, 1);
		for (int i = 0; i < 3; i++) {
			sched_yield();
			if (!is_at_path(pidfile.fd))
				return 3;
		}
		atomic_fetch_sub(&shared->owners, 1);
		if (count-- % 3 != 0) {
			fd_close(pidfile.fd);
			free(pidfile.path);
		} else {
			pidfile_finish(&pidfile);
		}
	}
	return 0;
}

static void test_pidfile_never_has_two_owners_nor_half_a_pid(void)
{
	enum { TAKERS = 4, TIMES = 60 };
	struct shared *shared = shared_memory();
	pid_t takers[TAKERS];

	setup();
	pid_t onlooker = start_onlooker(shared, false);
	for (size_t i = 0; i < TAKERS; i++) {
		takers[i] = fork();
		check(takers[i] >= 0);
		if (takers[i] == 0)
			_exit(take_and_leave(shared, TIMES));
	}
	for (size_t i = 0; i < TAKERS; i++)
		check_exits_with_zero(takers[i]);
	atomic_store(&shared->stop, 1);
	check_exits_with_zero(onlooker);
	check_int(atomic_load(&shared->successes), TAKERS * TIMES);
	munmap(shared, sizeof(*shared));
	check(count_files() <= 1);
	teardown();
}

static void test_pidfile_that_is_replaced_is_never_absent(void)
{
	struct shared *shared = shared_memory();

	setup();
	write_stale();
	pid_t onlooker = start_onlooker(shared, true);
	for (int i = 0; i < 100; i++) {
		struct pidfile pidfile;
		check_int(pidfile_create(&pidfile, path, NULL), 0);
		fd_close(pidfile.fd); /* as one that was killed */
		free(pidfile.path);
	}
	atomic_store(&shared->stop, 1);
	check_exits_with_zero(onlooker);
	munmap(shared, sizeof(*shared));
	teardown();
}

TEST_MAIN(TEST(test_pidfile_holds_our_pid_and_a_lock), TEST(test_pidfile_of_a_live_owner_is_refused),
	  TEST(test_pidfile_locked_with_a_dead_pid_is_refused), TEST(test_pidfile_that_is_stale_is_replaced),
	  TEST(test_pidfile_with_other_content_is_left_alone), TEST(test_pidfile_that_is_no_file_is_left_alone),
	  TEST(test_pidfile_finish_leaves_what_is_not_ours), TEST(test_pidfile_survives_a_change_of_directory),
	  TEST(test_pidfile_check_creates_nothing), TEST(test_pidfile_one_of_fifty_wins_a_stale_file),
	  TEST(test_pidfile_one_of_fifty_wins_a_new_file), TEST(test_pidfile_never_has_two_owners_nor_half_a_pid),
	  TEST(test_pidfile_that_is_replaced_is_never_absent))
