/* SPDX-License-Identifier: MIT */
/* The capture relay: what reaches stderr, what is kept, and what happens when one of the processes dies. */
#include "../lib/test.h"

#include "capture_fixture.h"

static void test_capture_relays_lines_and_ends_at_end_of_file(void)
{
	struct stderr_pipe stream;
	struct loop *loop;
	struct capture *capture;
	begin(&stream, &loop, &capture);
	int fd = open_pipe(capture, 1);
	say(fd, "first\nsecond\nno newline");
	check_stderr(&stream, loop, "first\nsecond\n");
	close(fd);
	check_stderr(&stream, loop, "no newline");
	capture_forget(capture, 1);
	capture_destroy(capture, DEADLINE_MS);
	check_stderr_ends(&stream);
	loop_destroy(loop);
	stderr_end(&stream);
}

static void test_capture_writes_whole_lines_of_two_generations(void)
{
	struct stderr_pipe stream;
	struct loop *loop;
	struct capture *capture;
	begin(&stream, &loop, &capture);
	int old_fd = open_pipe(capture, 1), new_fd = open_pipe(capture, 2);
	say(old_fd, "the ");
	say(new_fd, "new\n");
	check_stderr(&stream, loop, "new\n");
	say(old_fd, "old\n");
	check_stderr(&stream, loop, "the old\n");
	close(old_fd);
	close(new_fd);
	end(&stream, loop, capture);
}

static void test_capture_keeps_the_last_lines_in_order(void)
{
	struct stderr_pipe stream;
	struct loop *loop;
	struct capture *capture;
	struct answer answer;
	char line[32];
	begin(&stream, &loop, &capture);
	int fd = open_pipe(capture, 7), other_fd = open_pipe(capture, 8);
	say(other_fd, "of another\n");
	for (int i = 1; i <= 50; i++) {
		snprintf(line, sizeof(line), "line %d\n", i);
		say(fd, line);
	}
	ask(loop, capture, 7, CAPTURE_LINES, &answer);
	for (int i = 0; i < CAPTURE_LINES; i++) {
		snprintf(line, sizeof(line), "line %d", 31 + i);
		check_str(answer.lines[i], line);
	}
	say(fd, "\nunfinished");
	ask(loop, capture, 7, CAPTURE_LINES, &answer);
	check_str(answer.lines[0], "line 33");
	check_str(answer.lines[17], "line 50");
	check_str(answer.lines[18], "");
	check_str(answer.lines[19], "unfinished");
	close(fd);
	ask(loop, capture, 7, CAPTURE_LINES, &answer);
	check_str(answer.lines[19], "unfinished");
	ask(loop, capture, 8, 1, &answer);
	check_str(answer.lines[0], "of another");
	close(other_fd);
	end(&stream, loop, capture);
}

static void test_capture_knows_no_lines_of_a_forgotten_or_unknown_generation(void)
{
	struct stderr_pipe stream;
	struct loop *loop;
	struct capture *capture;
	struct answer answer;
	struct error error;
	begin(&stream, &loop, &capture);
	int fd = open_pipe(capture, 1);
	say(fd, "a\n");
	ask(loop, capture, 1, 1, &answer);
	check_int(capture_open(capture, 1, &error), -EEXIST);
	check_contains(error.text, "generation 1");
	capture_forget(capture, 1);
	capture_forget(capture, 99);
	int again_fd = open_pipe(capture, 1);
	ask(loop, capture, 1, 0, &answer);
	say(again_fd, "b\n");
	ask(loop, capture, 1, 1, &answer);
	check_str(answer.lines[0], "b");
	ask(loop, capture, 99, 0, &answer);
	say(fd, "still written\n");
	check_stderr(&stream, loop, "a\nb\nstill written\n");
	close(fd);
	close(again_fd);
	end(&stream, loop, capture);
}

static void test_capture_passes_binary_bytes_and_keeps_them_printable(void)
{
	struct stderr_pipe stream;
	struct loop *loop;
	struct capture *capture;
	struct answer answer;
	char all[257], got[257];
	begin(&stream, &loop, &capture);
	int fd = open_pipe(capture, 1);
	for (int i = 0; i < 256; i++)
		all[i] = (char)i;
	all[256] = '\n';
	write_all(fd, all, sizeof(all));
	check_int(stderr_read(&stream, loop, got, sizeof(got)), sizeof(got));
	check(memcmp(all, got, sizeof(got)) == 0);
	ask(loop, capture, 1, 2, &answer);
	check_contains(answer.lines[0], "\\x00\\x01");
	check_contains(answer.lines[1], " !\"#");
	check_contains(answer.lines[1], "\\xff");
	say(fd, "\ttab, gr\xc3\xbc\xc3\x9f\x65, carriage return\r\n");
	ask(loop, capture, 1, 3, &answer);
	check_str(answer.lines[2], " tab, gr\xc3\xbc\xc3\x9f\x65, carriage return");
	close(fd);
	end(&stream, loop, capture);
}

/* A server of its own process, because the pipe takes much less than a megabyte. */
static pid_t fork_writer(int fd, char fill, size_t length)
{
	static char block[4096];
	pid_t pid = fork();
	if (pid)
		return pid;
	memset(block, fill, sizeof(block));
	for (; length > sizeof(block); length -= sizeof(block))
		if (write(fd, block, sizeof(block)) < 0)
			_exit(1);
	block[length - 1] = '\n';
	_exit(write(fd, block, length) < 0);
}

static void reap_exit(pid_t pid, int want)
{
	int status;
	check_int(waitpid(pid, &status, 0), pid);
	check(WIFEXITED(status));
	check_int(WEXITSTATUS(status), want);
}

static void test_capture_passes_a_line_of_a_megabyte(void)
{
	struct stderr_pipe stream;
	struct loop *loop;
	struct capture *capture;
	struct answer answer;
	const size_t length = 1 << 20;
	char *got = malloc(length + 1);
	begin(&stream, &loop, &capture);
	int fd = open_pipe(capture, 1);
	pid_t writer = fork_writer(fd, 'x', length);
	check_int(stderr_read(&stream, loop, got, length), length);
	reap_exit(writer, 0);
	for (size_t i = 0; i < length - 1; i++)
		check(got[i] == 'x');
	check(got[length - 1] == '\n');
	free(got);
	ask(loop, capture, 1, 1, &answer);
	check_int(strlen(answer.lines[0]), CAPTURE_LINE_MAX);
	close(fd);
	end(&stream, loop, capture);
}

static void test_capture_goes_on_without_the_supervisor(void)
{
	struct stderr_pipe stream;
	int go[2], pids[2];
	stderr_begin(&stream);
	check(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
	check(pipe2(go, O_CLOEXEC) == 0 && pipe2(pids, O_CLOEXEC) == 0);
	pid_t supervisor = fork();
	if (supervisor == 0) {
		struct loop *loop;
		struct capture *capture;
		check_int(loop_create(&loop), 0);
		check_int(capture_create(loop, &capture, NULL), 0);
		pid_t both[2] = {relay_pid(capture), 0};
		int fd = open_pipe(capture, 1);
		both[1] = fork();
		if (both[1] == 0) { /* the server */
			char byte;
			close(go[1]);
			say(fd, "before\n");
			check_int(read(go[0], &byte, 1), 1);
			say(fd, "after\n");
			check_int(read(go[0], &byte, 1), 0);
			say(fd, "last word");
			_exit(0);
		}
		close(fd);
		check(write(pids[1], both, sizeof(both)) == (ssize_t)sizeof(both));
		loop_run(loop);
		_exit(1);
	}
	pid_t both[2];
	check_int(read(pids[0], both, sizeof(both)), sizeof(both));
	check(both[0] > 0);
	check_stderr(&stream, NULL, "before\n");
	kill(supervisor, SIGKILL);
	check_int(waitpid(supervisor, NULL, 0), supervisor);
	check_int(write(go[1], "g", 1), 1);
	check_stderr(&stream, NULL, "after\n");
	check_int(waitpid(both[0], NULL, WNOHANG), 0);
	close(go[1]);
	check_stderr(&stream, NULL, "last word");
	reap_exit(both[1], 0);
	reap_exit(both[0], 0);
	check_stderr_ends(&stream);
	close(go[0]);
	close(pids[0]);
	close(pids[1]);
	prctl(PR_SET_CHILD_SUBREAPER, 0);
	stderr_end(&stream);
}

static pid_t wait_new_relay(struct loop *loop, struct capture *capture, pid_t old)
{
	int64_t deadline = loop_now_ms() + DEADLINE_MS;
	pid_t pid;
	while ((pid = relay_pid(capture)) < 0 || pid == old) {
		check(loop_now_ms() < deadline);
		check_int(loop_run_once(loop, 10), 0);
	}
	return pid;
}

static void test_capture_replaces_a_killed_relay(void)
{
	struct stderr_pipe stream;
	struct loop *loop;
	struct capture *capture;
	struct answer answer = {0};
	begin(&stream, &loop, &capture);
	int fd = open_pipe(capture, 1);
	pid_t relay = relay_pid(capture);
	check(relay > 0);
	say(fd, "one\n");
	check_stderr(&stream, loop, "one\n");
	/* Three times, so that the wait between two starts is seen to end. */
	for (int i = 0; i < 3; i++) {
		kill(relay, SIGKILL);
		say(fd, "nobody reads now\n"); /* SIGPIPE would end this test */
		int other_fd = open_pipe(capture, 2);
		say(other_fd, "opened meanwhile\n");
		memset(&answer, 0, sizeof(answer));
		check_int(capture_ask(capture, 2, on_lines, &answer), 0);
		relay = wait_new_relay(loop, capture, relay);
		say(fd, "read again\n");
		wait_answer(loop, &answer);
		char got[128] = "";
		const char *want = "nobody reads now\nread again\nopened meanwhile\n";
		check_int(stderr_read(&stream, loop, got, strlen(want)), strlen(want));
		check_contains(got, "nobody reads now\n");
		check_contains(got, "read again\n");
		check_contains(got, "opened meanwhile\n");
		ask(loop, capture, 2, 1, &answer);
		check_str(answer.lines[0], "opened meanwhile");
		close(other_fd);
		capture_forget(capture, 2);
	}
	close(fd);
	end(&stream, loop, capture);
}

/* Fills the pipe behind fd 2 up to the last byte. Returns how much it took. */
static size_t fill_stderr(void)
{
	static const char block[4096] = {0};
	size_t total = 0;
	check(fd_set_nonblock(2, true) == 0);
	for (size_t size = sizeof(block); size > 0; size /= 2) {
		ssize_t count;
		while ((count = write(2, block, size)) > 0)
			total += (size_t)count;
	}
	check(fd_set_nonblock(2, false) == 0);
	return total;
}

static void drain_filling(struct stderr_pipe *stream, size_t length)
{
	char block[4096];
	while (length > 0) {
		size_t want = length < sizeof(block) ? length : sizeof(block);
		check_int(stderr_read(stream, NULL, block, want), want);
		length -= want;
	}
}

static void test_capture_answers_with_a_full_stderr(void)
{
	struct stderr_pipe stream;
	struct loop *loop;
	struct capture *capture;
	struct answer answer;
	char line[32];
	begin(&stream, &loop, &capture);
	size_t filling = fill_stderr();
	int fd = open_pipe(capture, 1);
	for (int i = 1; i <= 3000; i++) {
		snprintf(line, sizeof(line), "line %d\n", i);
		say(fd, line);
	}
	ask(loop, capture, 1, CAPTURE_LINES, &answer);
	check_str(answer.lines[0], "line 2981");
	check_str(answer.lines[19], "line 3000");
	/* The server feels it: what is taken has an end. */
	int flags = fcntl(fd, F_GETFL);
	check(fd_set_nonblock(fd, true) == 0);
	int count = 3000;
	do
		snprintf(line, sizeof(line), "line %d\n", ++count);
	while (count < 100000 && write(fd, line, strlen(line)) > 0);
	check(count < 100000);
	check(fcntl(fd, F_SETFL, flags) == 0);
	/* And nothing was lost. */
	drain_filling(&stream, filling);
	for (int i = 1; i < count; i++) {
		snprintf(line, sizeof(line), "line %d\n", i);
		check_stderr(&stream, loop, line);
	}
	close(fd);
	end(&stream, loop, capture);
}

static void test_capture_never_waits_for_a_stopped_relay(void)
{
	struct stderr_pipe stream;
	struct loop *loop;
	struct capture *capture;
	struct answer answer = {0};
	begin(&stream, &loop, &capture);
	int fd = open_pipe(capture, 1);
	say(fd, "a line\n");
	ask(loop, capture, 1, 1, &answer);
	pid_t relay = relay_pid(capture);
	int before = test_open_fds(), relay_before = count_fds(relay);
	kill(relay, SIGSTOP);
	int64_t begun = loop_now_ms();
	memset(&answer, 0, sizeof(answer));
	check_int(capture_ask(capture, 1, on_lines, &answer), 0);
	for (unsigned i = 100; i < 600; i++) { /* more than the socket holds */
		close(open_pipe(capture, i));
		capture_forget(capture, i);
	}
	check(loop_now_ms() - begun < 5000);
	wait_answer(loop, &answer);
	check_int(answer.count, 0);
	check(loop_now_ms() - begun >= 500);
	kill(relay, SIGCONT);
	ask(loop, capture, 1, 1, &answer);
	check_int(relay_pid(capture), relay);
	int64_t deadline = loop_now_ms() + DEADLINE_MS;
	while (test_open_fds() != before || count_fds(relay) != relay_before) {
		check(loop_now_ms() < deadline);
		loop_run_once(loop, 10);
	}
	close(fd);
	end(&stream, loop, capture);
}

static void test_capture_leaves_no_descriptor_behind(void)
{
	struct stderr_pipe stream;
	struct loop *loop;
	struct capture *capture;
	struct answer answer;
	char line[32];
	begin(&stream, &loop, &capture);
	ask(loop, capture, 0, 0, &answer);
	pid_t relay = relay_pid(capture);
	int before = test_open_fds(), relay_before = count_fds(relay);
	for (unsigned i = 1; i <= 100; i++) {
		int fd = open_pipe(capture, i);
		snprintf(line, sizeof(line), "generation %u\n", i);
		say(fd, line);
		close(fd);
		check_stderr(&stream, loop, line);
		capture_forget(capture, i);
		check_int(test_open_fds(), before);
	}
	ask(loop, capture, 0, 0, &answer);
	int64_t deadline = loop_now_ms() + DEADLINE_MS;
	while (count_fds(relay) != relay_before) {
		check(loop_now_ms() < deadline);
		loop_run_once(loop, 10);
	}
	end(&stream, loop, capture);
}

static void test_capture_relay_holds_nothing_of_the_supervisor(void)
{
	struct stderr_pipe stream;
	struct loop *loop;
	struct capture *capture;
	struct answer answer;
	int listen_fd = socket(AF_INET, SOCK_STREAM, 0), out[2];
	check(listen_fd >= 0 && listen(listen_fd, 1) == 0);
	int saved_out = fcntl(1, F_DUPFD_CLOEXEC, 3);
	check(pipe2(out, O_CLOEXEC) == 0);
	fflush(stdout);
	check(dup2(out[1], 1) == 1);
	begin(&stream, &loop, &capture);
	check(dup2(saved_out, 1) == 1);
	close(saved_out);
	pid_t relay = relay_pid(capture);
	ask(loop, capture, 0, 0, &answer);
	check_int(find_fd(relay, listen_fd), -1);
	check_int(find_fd(relay, out[1]), -1);
	check_int(find_fd(relay, stream.read_fd), 2); /* both ends of a pipe have one number: this is its stderr */
	check_int(getsid(relay), relay);
	char path[64], *title;
	size_t length;
	snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)relay);
	check_int(fd_read_file(path, 4096, &title, &length), 0);
	if (!strstr(title, "valgrind")) /* which has a command line of its own */
		check_contains(title, "capture relay");
	free(title);
	close(out[0]);
	close(out[1]);
	close(listen_fd);
	end(&stream, loop, capture);
}

static void test_capture_relay_ignores_the_signals_of_a_stop(void)
{
	static const int signals[] = {SIGINT,  SIGTERM, SIGHUP,  SIGQUIT, SIGUSR1, SIGUSR2,
				      SIGPIPE, SIGALRM, SIGTTOU, SIGIO,   SIGPWR,  SIGWINCH};
	struct stderr_pipe stream;
	struct loop *loop;
	struct capture *capture;
	begin(&stream, &loop, &capture);
	pid_t relay = relay_pid(capture);
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		check(kill(relay, signals[i]) == 0);
	check(kill(relay, SIGRTMIN) == 0);
	int fd = open_pipe(capture, 1);
	say(fd, "alive\n");
	check_stderr(&stream, loop, "alive\n");
	check_int(relay_pid(capture), relay);
	close(fd);
	end(&stream, loop, capture);
}

static void test_capture_survives_a_closed_stderr(void)
{
	struct stderr_pipe stream;
	struct loop *loop;
	struct capture *capture;
	struct answer answer;
	begin(&stream, &loop, &capture);
	close(stream.read_fd);
	int fd = open_pipe(capture, 1);
	pid_t writer = fork_writer(fd, 'y', 300000); /* dropped, so that the server does not hang */
	reap_exit(writer, 0);
	say(fd, "kept all the same\n");
	ask(loop, capture, 1, 2, &answer);
	check_str(answer.lines[1], "kept all the same");
	close(fd);
	stream.read_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	end(&stream, loop, capture);
}

static void on_lines_destroy(unsigned generation, const char *const *lines, size_t count, void *data)
{
	struct capture **capture = data;
	(void)generation;
	(void)lines;
	(void)count;
	capture_destroy(*capture, DEADLINE_MS);
	*capture = NULL;
}

static void test_capture_may_be_destroyed_by_who_asked(void)
{
	struct stderr_pipe stream;
	struct loop *loop;
	struct capture *capture;
	struct answer unanswered = {0};
	begin(&stream, &loop, &capture);
	check_int(capture_ask(capture, 1, on_lines_destroy, &capture), 0);
	check_int(capture_ask(capture, 1, on_lines, &unanswered), 0);
	int64_t deadline = loop_now_ms() + DEADLINE_MS;
	while (capture) {
		check(loop_now_ms() < deadline);
		check_int(loop_run_once(loop, 100), 0);
	}
	check_int(loop_run_once(loop, 0), 0);
	check(!unanswered.came);
	end(&stream, loop, NULL);
}

static void test_capture_destroy_waits_no_longer_than_told(void)
{
	struct stderr_pipe stream;
	struct loop *loop;
	struct capture *capture;
	begin(&stream, &loop, &capture);
	int fd = open_pipe(capture, 1);
	pid_t relay = relay_pid(capture);
	int64_t begun = loop_now_ms();
	capture_destroy(capture, 50);
	check(loop_now_ms() - begun >= 50);
	say(fd, "left to itself\n");
	check_stderr(&stream, NULL, "left to itself\n");
	close(fd);
	reap_exit(relay, 0);
	end(&stream, loop, NULL);
}

TEST_MAIN(TEST(test_capture_relays_lines_and_ends_at_end_of_file),
	  TEST(test_capture_writes_whole_lines_of_two_generations), TEST(test_capture_keeps_the_last_lines_in_order),
	  TEST(test_capture_knows_no_lines_of_a_forgotten_or_unknown_generation),
	  TEST(test_capture_passes_binary_bytes_and_keeps_them_printable),
	  TEST(test_capture_passes_a_line_of_a_megabyte), TEST(test_capture_goes_on_without_the_supervisor),
	  TEST(test_capture_replaces_a_killed_relay), TEST(test_capture_answers_with_a_full_stderr),
	  TEST(test_capture_never_waits_for_a_stopped_relay), TEST(test_capture_leaves_no_descriptor_behind),
	  TEST(test_capture_relay_holds_nothing_of_the_supervisor),
	  TEST(test_capture_relay_ignores_the_signals_of_a_stop), TEST(test_capture_survives_a_closed_stderr),
	  TEST(test_capture_may_be_destroyed_by_who_asked), TEST(test_capture_destroy_waits_no_longer_than_told))
