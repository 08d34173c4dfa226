/* SPDX-License-Identifier: MIT */
/* Tests of fd.c: descriptor flags, and files that are read whole. */
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include "fd.h"
#include "../lib/test.h"

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

static bool is_cloexec(int fd)
{
	return fcntl(fd, F_GETFD) & FD_CLOEXEC;
}

/* Runs `function` in a child, which may ruin its own descriptors; it returns 0 or a number that says what failed. */
static void check_in_child(int (*function)(void))
{
	int status;
	pid_t pid = fork();

	check(pid >= 0);
	if (pid == 0)
		_exit(function());
	check_int(waitpid(pid, &status, 0), pid);
	check(WIFEXITED(status));
	check_int(WEXITSTATUS(status), 0);
}

static void test_fd_close_keeps_errno_and_takes_minus_one(void)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	errno = EDOM;
	check_int(fd_close(fd), -1);
	check(!is_open(fd));
	errno = EDOM;
	check_int(fd_close(-1), -1);
	check_int(errno, EDOM);
}

static void test_fd_steal_leaves_nothing_to_clean_up(void)
{
	int kept;
	int closed;
	{
		CLEANUP(fd_closep) int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
		CLEANUP(fd_closep) int other_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
		closed = other_fd;
		kept = fd_steal(&fd);
		check_int(fd, -1);
	}
	check(is_open(kept));
	check(!is_open(closed));
	fd_close(kept);
}

static void test_fd_flags_are_set_and_cleared(void)
{
	int fds[2];

	check_int(pipe2(fds, O_CLOEXEC), 0);
	check_int(fd_set_cloexec(fds[0], false), 0);
	check(!is_cloexec(fds[0]));
	check_int(fd_set_cloexec(fds[0], true), 0);
	check(is_cloexec(fds[0]));
	check_int(fd_set_nonblock(fds[0], true), 0);
	check(fcntl(fds[0], F_GETFL) & O_NONBLOCK);
	check_int(fd_set_nonblock(fds[0], false), 0);
	check(!(fcntl(fds[0], F_GETFL) & O_NONBLOCK));
	fd_close(fds[0]);
	fd_close(fds[1]);
	check_int(fd_set_cloexec(fds[0], true), -EBADF);
	check_int(fd_set_nonblock(fds[0], true), -EBADF);
}

static int guard_closed_stdio(void)
{
	struct stat null_status, status;

	close(0);
	close(2);
	if (fd_guard_stdio() != 0)
		return 1;
	if (stat("/dev/null", &null_status) < 0)
		return 2;
	for (int fd = 0; fd <= 2; fd += 2) {
		if (fstat(fd, &status) < 0 || status.st_rdev != null_status.st_rdev)
			return 3;
		if (is_cloexec(fd))
			return 4;
	}
	int next = open("/", O_RDONLY | O_CLOEXEC);
	return next > 2 ? 0 : 5;
}

static void test_fd_guard_stdio_fills_the_holes(void)
{
	check_in_child(guard_closed_stdio);
}

static int cloexec_from_ten(void)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	if (dup2(fd, 9) != 9 || dup2(fd, 10) != 10 || dup2(fd, 200) != 200)
		return 1;
	if (fd_cloexec_from(10) != 0)
		return 2;
	if (is_cloexec(9) || !is_cloexec(10) || !is_cloexec(200))
		return 3;
	return 0;
}

static void test_fd_cloexec_from_marks_from_first_up(void)
{
	check_in_child(cloexec_from_ten);
}

/* As an old kernel or an old container runtime answers. */
static int cloexec_without_close_range(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_close_range, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = ARRAY_SIZE(code), .filter = code};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
		return 100;
	if (syscall(SYS_close_range, 1000U, 1000U, 0) != -1 || errno != EPERM)
		return 101;
	return cloexec_from_ten();
}

static void test_fd_cloexec_from_works_without_close_range(void)
{
	check_in_child(cloexec_without_close_range);
}

static void test_fd_count_open_counts_without_itself(void)
{
	int before = fd_count_open();

	check(before >= 3);
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	check_int(fd_count_open(), before + 1);
	fd_close(fd);
	check_int(fd_count_open(), before);
}

/* A file of `size` bytes 'x' in a fresh folder. */
static void make_file(char *folder, char *path, size_t path_size, size_t size)
{
	strcpy(folder, "/tmp/test_fd.XXXXXX");
	check(mkdtemp(folder));
	snprintf(path, path_size, "%s/file", folder);
	FILE *file = fopen(path, "we");
	check(file);
	for (size_t i = 0; i < size; i++)
		putc('x', file);
	check_int(fclose(file), 0);
}

static void test_fd_read_file_reads_whole_files(void)
{
	static const size_t sizes[] = {0, 1, 4094, 4095, 4096, 4097, 100000};
	char folder[32], path[64];

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		CLEANUP(freep) char *text = NULL;
		size_t length = 12345;
		make_file(folder, path, sizeof(path), sizes[i]);
		check_int(fd_read_file(path, sizes[i], &text, &length), 0);
		check_int(length, sizes[i]);
		check_int(strlen(text), sizes[i]);
		if (sizes[i] > 0) {
			char *untouched = NULL;
			check_int(fd_read_file(path, sizes[i] - 1, &untouched, &length), -EFBIG);
			check(!untouched);
			check_int(length, sizes[i]);
		}
		unlink(path);
		rmdir(folder);
	}
}

static void test_fd_read_file_reads_proc(void)
{
	CLEANUP(freep) char *text = NULL;
	size_t length;

	check_int(fd_read_file("/proc/self/status", 100000, &text, &length), 0);
	check_int(strlen(text), length);
	check_contains(text, "Pid:");
}

static void test_fd_read_file_refuses_what_is_no_file(void)
{
	char folder[32], path[64], other[64];
	char *text = NULL;
	size_t length = 7;

	make_file(folder, path, sizeof(path), 0);
	check_int(fd_read_file(folder, 100, &text, &length), -EISDIR);
	check_int(fd_read_file("/dev/zero", 100, &text, &length), -EINVAL);
	snprintf(other, sizeof(other), "%s/fifo", folder);
	check_int(mkfifo(other, 0600), 0);
	check_int(fd_read_file(other, 100, &text, &length), -EINVAL); /* and did not wait for a writer */
	unlink(other);
	check_int(fd_read_file(other, 100, &text, &length), -ENOENT);

	struct sockaddr_un address = {.sun_family = AF_UNIX};
	memcpy(address.sun_path, other, strlen(other));
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	check_int(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
	check_int(fd_read_file(other, 100, &text, &length), -EINVAL);
	fd_close(fd);
	unlink(other);
	check(!text);
	check_int(length, 7);
	unlink(path);
	rmdir(folder);
}

TEST_MAIN(TEST(test_fd_close_keeps_errno_and_takes_minus_one), TEST(test_fd_steal_leaves_nothing_to_clean_up),
	  TEST(test_fd_flags_are_set_and_cleared), TEST(test_fd_guard_stdio_fills_the_holes),
	  TEST(test_fd_cloexec_from_marks_from_first_up), TEST(test_fd_cloexec_from_works_without_close_range),
	  TEST(test_fd_count_open_counts_without_itself), TEST(test_fd_read_file_reads_whole_files),
	  TEST(test_fd_read_file_reads_proc), TEST(test_fd_read_file_refuses_what_is_no_file))
