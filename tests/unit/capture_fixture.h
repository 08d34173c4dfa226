/* SPDX-License-Identifier: MIT */
/* What the tests of the capture relay share: a pipe as stderr, questions with a deadline, a look at the relay. */
#ifndef HANDOFF_CAPTURE_FIXTURE_H
#define HANDOFF_CAPTURE_FIXTURE_H

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <bsd/unistd.h>

#include "capture.h"
#include "fd.h"
#include "loop.h"

#define DEADLINE_MS 20000

/* setproctitle(3bsd) says on stderr when this was left out, which is the very stream looked at here. */
__attribute__((constructor)) static void prepare_title(int argc, char **argv, char **envp)
{
	setproctitle_init(argc, argv, envp);
}

/* A pipe in the place of fd 2, so that the relay that is forked meanwhile writes there. */
struct stderr_pipe {
	int saved_fd;
	int read_fd;
};

static void stderr_begin(struct stderr_pipe *stream)
{
	int ends[2];
	check(pipe2(ends, O_CLOEXEC) == 0);
	stream->saved_fd = fcntl(2, F_DUPFD_CLOEXEC, 3);
	check(stream->saved_fd >= 0);
	check(dup2(ends[1], 2) == 2);
	close(ends[1]);
	stream->read_fd = ends[0];
	check(fd_set_nonblock(stream->read_fd, true) == 0);
}

static void stderr_end(struct stderr_pipe *stream)
{
	dup2(stream->saved_fd, 2);
	close(stream->saved_fd);
	close(stream->read_fd);
}

/* Reads until `length` bytes are there or end-of-file; runs the loop meanwhile, where there is one. */
static size_t stderr_read(struct stderr_pipe *stream, struct loop *loop, char *buffer, size_t length)
{
	int64_t deadline = loop_now_ms() + DEADLINE_MS;
	size_t have = 0;
	while (have < length) {
		ssize_t count = read(stream->read_fd, buffer + have, length - have);
		if (count == 0)
			break;
		if (count > 0) {
			have += (size_t)count;
			continue;
		}
		check(errno == EAGAIN);
		if (loop_now_ms() > deadline)
			test_fail("stderr has %zu bytes, not %zu", have, length);
		struct pollfd wait = {.fd = stream->read_fd, .events = POLLIN};
		if (loop)
			loop_run_once(loop, 10);
		else
			poll(&wait, 1, 100);
	}
	return have;
}

static void check_stderr(struct stderr_pipe *stream, struct loop *loop, const char *want)
{
	char got[4096] = "";
	check(strlen(want) < sizeof(got));
	got[stderr_read(stream, loop, got, strlen(want))] = '\0';
	check_str(got, want);
}

static void check_stderr_ends(struct stderr_pipe *stream)
{
	char more;
	close(2); /* ours; stderr_end puts the old one back */
	check_int(stderr_read(stream, NULL, &more, 1), 0);
}

/* The pid that capture_owns, among the children of this process. */
static pid_t relay_pid(const struct capture *capture)
{
	char *text;
	size_t length;
	pid_t found = -1;
	if (fd_read_file("/proc/thread-self/children", 65536, &text, &length) < 0)
		return -1;
	for (char *at = text, *end;; at = end) {
		pid_t pid = (pid_t)strtol(at, &end, 10);
		if (end == at)
			break;
		if (capture_owns(capture, pid))
			found = pid;
	}
	free(text);
	return found;
}

static int count_fds(pid_t pid)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	int count = 0;
	DIR *dir = opendir(path);
	check(dir != NULL);
	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

/* Which descriptor of `pid` is the file behind ours, or -1. */
static int find_fd(pid_t pid, int fd)
{
	char path[64];
	struct stat want, got;
	check(fstat(fd, &want) == 0);
	for (int i = 0; i < 4096; i++) {
		snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)pid, i);
		if (stat(path, &got) == 0 && got.st_ino == want.st_ino && got.st_dev == want.st_dev)
			return i;
	}
	return -1;
}

struct answer {
	bool came;
	unsigned generation;
	size_t count;
	char lines[CAPTURE_LINES][CAPTURE_LINE_MAX + 1];
};

static void on_lines(unsigned generation, const char *const *lines, size_t count, void *data)
{
	struct answer *answer = data;
	check(!answer->came);
	check(count <= CAPTURE_LINES);
	answer->came = true;
	answer->generation = generation;
	answer->count = count;
	for (size_t i = 0; i < count; i++) {
		check(strlen(lines[i]) <= CAPTURE_LINE_MAX);
		strcpy(answer->lines[i], lines[i]);
	}
}

static void wait_answer(struct loop *loop, struct answer *answer)
{
	int64_t deadline = loop_now_ms() + DEADLINE_MS;
	while (!answer->came) {
		check(loop_now_ms() < deadline);
		check_int(loop_run_once(loop, 100), 0);
	}
}

/* Asks until the wanted number of lines is there: under valgrind an answer may miss its 500 ms. */
static void ask(struct loop *loop, struct capture *capture, unsigned generation, size_t want, struct answer *answer)
{
	int64_t deadline = loop_now_ms() + DEADLINE_MS;
	do {
		check(loop_now_ms() < deadline);
		memset(answer, 0, sizeof(*answer));
		check_int(capture_ask(capture, generation, on_lines, answer), 0);
		wait_answer(loop, answer);
		check_int(answer->generation, generation);
	} while (answer->count != want);
}

static void write_all(int fd, const char *text, size_t length)
{
	while (length > 0) {
		ssize_t count = write(fd, text, length);
		check(count > 0);
		text += count;
		length -= (size_t)count;
	}
}

static void say(int fd, const char *text)
{
	write_all(fd, text, strlen(text));
}

static void begin(struct stderr_pipe *stream, struct loop **loop, struct capture **capture)
{
	struct error error = {0};
	stderr_begin(stream);
	check_int(loop_create(loop), 0);
	int result = capture_create(*loop, capture, &error);
	if (result < 0)
		test_fail("capture_create: %s", error.text);
}

static int open_pipe(struct capture *capture, unsigned generation)
{
	struct error error = {0};
	int fd = capture_open(capture, generation, &error);
	if (fd < 0)
		test_fail("capture_open: %s", error.text);
	check(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	check(!(fcntl(fd, F_GETFL) & O_NONBLOCK));
	return fd;
}

static void end(struct stderr_pipe *stream, struct loop *loop, struct capture *capture)
{
	capture_destroy(capture, DEADLINE_MS);
	loop_destroy(loop);
	stderr_end(stream);
}

#endif
