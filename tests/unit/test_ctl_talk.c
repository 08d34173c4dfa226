/* SPDX-License-Identifier: MIT */
/* Tests of the client's talking: lines and deadlines, and exit statuses against a supervisor that is played. */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "ctl_fixture.h"
#include "fd.h"
#include "loop.h"

#define DEADLINE_MS 20000

/* ---- lines ---- */

static struct ctl_stream stream_pair(int *ret_other)
{
	int fds[2];
	check_int(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	*ret_other = fds[1];
	return (struct ctl_stream){.fd = fds[0], .heard_ms = loop_now_ms(), .probed_ms = -1};
}

static void put(int fd, const char *text)
{
	check_int(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static int next(struct ctl_stream *stream, int64_t ms, char *ret, size_t size)
{
	struct ctl_message message = {.text = NULL};
	int code = ctl_stream_next(stream, loop_now_ms() + ms, &message);
	snprintf(ret, size, "%s", code == 1 ? message.text : "");
	ctl_message_finish(&message);
	return code;
}

static void test_ctl_puts_lines_together_and_takes_them_apart(void)
{
	int other;
	char line[64];
	struct ctl_stream stream = stream_pair(&other);
	put(other, "{\"a\":");
	check_int(next(&stream, 0, line, sizeof(line)), -ETIMEDOUT);
	put(other, "1}\n{\"b\":2}\n{\"c\"");
	check_int(next(&stream, DEADLINE_MS, line, sizeof(line)), 1);
	check_str(line, "{\"a\":1}");
	check_int(next(&stream, DEADLINE_MS, line, sizeof(line)), 1);
	check_str(line, "{\"b\":2}");
	fd_close(other);
	check_int(next(&stream, DEADLINE_MS, line, sizeof(line)), 0);
	ctl_stream_finish(&stream);
}

static void test_ctl_refuses_what_is_no_object(void)
{
	static const char *const lines[] = {"[]\n", "1\n", "\n", "{\n", "nonsense\n", "{\"a\":\"\xff\"\n"};
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		int other;
		char line[64];
		struct ctl_stream stream = stream_pair(&other);
		put(other, lines[i]);
		check_int(next(&stream, DEADLINE_MS, line, sizeof(line)), -EPROTO);
		fd_close(other);
		ctl_stream_finish(&stream);
	}
}

/* Sends a line of `length` bytes from a child, and returns what the client makes of it. */
static int with_long_line(size_t length)
{
	int other;
	struct ctl_stream stream = stream_pair(&other);
	pid_t pid = fork();
	if (pid == 0) {
		char *line = malloc(length);
		memset(line, 'x', length);
		memcpy(line, "{\"a\":\"", 6);
		memcpy(line + length - 3, "\"}\n", 3);
		for (size_t sent = 0; sent < length;) {
			ssize_t r = send(other, line + sent, length - sent, MSG_NOSIGNAL);
			if (r < 0)
				break;
			sent += (size_t)r;
		}
		free(line);
		_exit(0);
	}
	fd_close(other);
	struct ctl_message message = {.text = NULL};
	int code = ctl_stream_next(&stream, loop_now_ms() + DEADLINE_MS, &message);
	if (code == 1)
		check_int(strlen(message.text), length - 1);
	ctl_message_finish(&message);
	ctl_stream_finish(&stream);
	check_int(waitpid(pid, NULL, 0), pid);
	return code;
}

static void test_ctl_copes_with_lines_up_to_a_mebibyte(void)
{
	check_int(with_long_line(CTL_LINE_MAX), 1);
	check_int(with_long_line(CTL_LINE_MAX + 1), 1); /* the newline is not counted */
	check_int(with_long_line(CTL_LINE_MAX + 2), -EPROTO);
}

static void test_ctl_probes_a_silent_supervisor(void)
{
	int other;
	char line[64] = "";
	struct ctl_stream stream = stream_pair(&other);
	int64_t now_ms = loop_now_ms();
	check_int(ctl_stream_probe(&stream, now_ms), 0);
	check_int(stream.probed_ms, -1);
	now_ms = ctl_stream_probe_at(&stream);
	check_int(ctl_stream_probe(&stream, now_ms), 0);
	check(recv(other, line, sizeof(line) - 1, 0) > 0);
	check_contains(line, "\"command\":\"ping\"");
	check_int(ctl_stream_probe(&stream, now_ms + CTL_ANSWER_MS - 1), 0);
	check_int(ctl_stream_probe(&stream, now_ms + CTL_ANSWER_MS), -ETIMEDOUT);

	/* Its answer is nobody else's, and a sign of life. */
	put(other, "{\"result\":\"ok\",\"id\":\"handoff-ping\"}\n{\"event\":\"active\",\"generation\":8}\n");
	check_int(next(&stream, DEADLINE_MS, line, sizeof(line)), 1);
	check_contains(line, "active");
	check_int(stream.probed_ms, -1);
	fd_close(other);
	ctl_stream_finish(&stream);
}

static void test_ctl_refuses_to_send_a_line_that_is_too_long(void)
{
	int other;
	struct ctl_stream stream = stream_pair(&other);
	char *word = malloc(70000);
	memset(word, 'x', 69999);
	word[69999] = '\0';
	cJSON *request = cJSON_CreateObject();
	cJSON_AddStringToObject(request, "command", word);
	check_int(ctl_stream_send(&stream, request), -EMSGSIZE);
	cJSON_Delete(request);
	free(word);
	fd_close(other);
	ctl_stream_finish(&stream);
}

/* ---- against a supervisor that is played ---- */

struct play {
	char folder[32], path[48];
	int listen_fd, fd; /* fd: the client's connection */
	int out_fd;        /* what it prints, read from here */
	int err_fd;        /* a memfd */
	pid_t pid;
	char request[4096];
	char out[8192], err[8192];
};

static void await_input(int fd)
{
	struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
	if (poll(&poll_fd, 1, DEADLINE_MS) != 1)
		test_fail("nothing came within %d ms", DEADLINE_MS);
}

/* Starts the client on our socket, and takes its request. argv has "PATH" where the socket's path goes. */
static void play_start(struct play *play, char **argv)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int pipe_fds[2];
	memset(play, 0, sizeof(*play));
	strcpy(play->folder, "/tmp/test_ctl.XXXXXX");
	check(mkdtemp(play->folder));
	snprintf(play->path, sizeof(play->path), "%s/control", play->folder);
	strcpy(address.sun_path, play->path);
	play->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	check_int(bind(play->listen_fd, (struct sockaddr *)&address, sizeof(address)), 0);
	check_int(listen(play->listen_fd, 8), 0);
	check_int(pipe2(pipe_fds, O_CLOEXEC), 0);
	play->err_fd = memfd_create("err", MFD_CLOEXEC);
	fflush(stdout);
	play->pid = fork();
	if (play->pid == 0) {
		dup2(pipe_fds[1], STDOUT_FILENO);
		dup2(play->err_fd, STDERR_FILENO);
		fd_close(pipe_fds[1]);
		for (char **word = argv; *word; word++)
			if (strcmp(*word, "PATH") == 0)
				*word = play->path;
		int status = ctl_main(count_words(argv), argv);
		fflush(stdout);
		_exit(status);
	}
	fd_close(pipe_fds[1]);
	play->out_fd = pipe_fds[0];
	await_input(play->listen_fd);
	play->fd = accept4(play->listen_fd, NULL, NULL, SOCK_CLOEXEC);
	check(play->fd >= 0);
	for (size_t length = 0; length == 0 || play->request[length - 1] != '\n';) {
		await_input(play->fd);
		ssize_t r = recv(play->fd, play->request + length, sizeof(play->request) - 1 - length, 0);
		check(r > 0);
		length += (size_t)r;
	}
}

/* Takes further requests until all of them are these. */
static void await_request(struct play *play, const char *want)
{
	for (size_t length = strlen(play->request); length < strlen(want);) {
		await_input(play->fd);
		ssize_t r = recv(play->fd, play->request + length, sizeof(play->request) - 1 - length, 0);
		check(r > 0);
		length += (size_t)r;
	}
	check_str(play->request, want);
}

/* Reads what the client prints until its end, or until `part` is there. */
static void play_read(struct play *play, const char *part)
{
	size_t length = strlen(play->out);
	ssize_t r = 1;
	while (r > 0 && !(part && strstr(play->out, part))) {
		await_input(play->out_fd);
		r = read(play->out_fd, play->out + length, sizeof(play->out) - 1 - length);
		check(r >= 0);
		length += (size_t)r;
	}
	check(!part || strstr(play->out, part));
}

/* Waits for the client's end; its exit status. */
static int play_end(struct play *play)
{
	int status;
	play_read(play, NULL);
	check_int(waitpid(play->pid, &status, 0), play->pid);
	check(WIFEXITED(status));
	check(pread(play->err_fd, play->err, sizeof(play->err) - 1, 0) >= 0);
	fd_close(play->out_fd);
	fd_close(play->err_fd);
	fd_close(play->fd);
	fd_close(play->listen_fd);
	unlink(play->path);
	rmdir(play->folder);
	return WEXITSTATUS(status);
}

static int play_lines(struct play *play, const char *lines, char **argv)
{
	play_start(play, argv);
	put(play->fd, lines);
	return play_end(play);
}

static void test_ctl_reload_asks_for_what_it_was_told(void)
{
	struct play play;
	check_int(play_lines(&play, "{\"result\":\"accepted\",\"generation\":7}\n",
			     ARGV(W("reload"), W("--control"), W("PATH"), W("--if-generation"), W("7"), W("--"),
				  W("./new"), W("a b"))),
		  CTL_OK);
	check_str(play.request, "{\"command\":\"reload\",\"if_generation\":7,\"argv\":[\"./new\",\"a b\"]}\n");
	check_contains(play.out, "generation 7 serves until the new one is ready\n");
	check_str(play.err, "");
}

static const char ok_lines[] = "{\"event\":\"starting\",\"generation\":8,\"pids\":[11]}\n"
			       "{\"event\":\"ready\",\"generation\":8,\"ready_ms\":190,\"by\":\"notify\"}\n"
			       "{\"event\":\"active\",\"generation\":8}\n"
			       "{\"event\":\"draining\",\"generation\":7,\"connections\":12,\"draining_ms\":0}\n"
			       "{\"event\":\"draining\",\"generation\":7,\"connections\":9,\"draining_ms\":1000}\n"
			       "{\"result\":\"ok\",\"generation\":8,\"duration_ms\":214,\"ready_ms\":190,"
			       "\"ready_by\":\"notify\",\"unknown\":[{}]}\n";

static void test_ctl_reload_waits_and_tells_each_step(void)
{
	struct play play;
	char want[512];
	check_int(play_lines(&play, ok_lines, ARGV(W("reload"), W("--wait"), W("--control"), W("PATH"))), CTL_OK);
	check_str(play.request, "{\"command\":\"reload\",\"wait\":true}\n");
	snprintf(want, sizeof(want),
		 "%s: generation 8 starts (pid 11)\n%s: generation 8 is ready after 190 ms (notify)\n"
		 "%s: generation 7 drains, 12 connections left\n"
		 "%s: generation 8 is active; ready after 190 ms (notify); 214 ms in all\n",
		 play.path, play.path, play.path, play.path);
	check_str(play.out, want);
	check_str(play.err, "");
}

static void test_ctl_json_is_printed_as_received(void)
{
	struct play play;
	check_int(play_lines(&play, ok_lines, ARGV(W("reload"), W("--wait"), W("--json"), W("--control"), W("PATH"))),
		  CTL_OK);
	check_str(play.out, ok_lines);
	check_str(play.err, "");
}

static void test_ctl_reload_tells_why_it_failed(void)
{
	static const char lines[] =
		"{\"result\":\"failed\",\"generation\":8,\"reason\":\"exited with status 3 after 20 ms, before it was "
		"ready\",\"status\":3,\"stderr\":[\"bind: in use\",\"\\u001b[2Jbye\"],\"active\":7}\n";
	struct play play;
	check_int(play_lines(&play, lines, ARGV(W("reload"), W("--wait"), W("--control"), W("PATH"))), CTL_FAILED);
	check_str(play.out, "");
	check_contains(play.err, "generation 8 failed: exited with status 3 after 20 ms, before it was ready\n");
	check_contains(play.err, "exit status: 3\n");
	check_contains(play.err, "        bind: in use\n        \\x1b[2Jbye\n");
	check_contains(play.err, "generation 7 still serves\n");

	check_int(play_lines(&play, lines, ARGV(W("reload"), W("--wait"), W("--json"), W("--control"), W("PATH"))),
		  CTL_FAILED);
	check_str(play.out, lines);
	check_str(play.err, "");
}

static void test_ctl_refusals_have_their_exit_status(void)
{
	struct play play;
	check_int(play_lines(&play, "{\"result\":\"refused\",\"reason\":\"it stops\",\"active\":7}\n",
			     ARGV(W("reload"), W("--control"), W("PATH"))),
		  CTL_REFUSED);
	check_contains(play.err, "refused: it stops; generation 7 still serves\n");
	check_int(play_lines(&play, "{\"result\":\"superseded\",\"reason\":\"a newer one\"}\n",
			     ARGV(W("reload"), W("--wait"), W("--control"), W("PATH"))),
		  CTL_REFUSED);
	check_contains(play.err, "superseded: a newer one\n");
	check_int(play_lines(&play, "{\"result\":\"error\",\"reason\":\"too many clients\"}\n",
			     ARGV(W("reload"), W("--control"), W("PATH"))),
		  CTL_REFUSED);
	check_contains(play.err, "too many clients\n");
	check_int(play_lines(&play, "{\"result\":\"error\",\"reason\":\"too many clients\"}\n",
			     ARGV(W("status"), W("--control"), W("PATH"))),
		  CTL_ABSENT);
	check_contains(play.err, "too many clients\n");
}

static void test_ctl_says_when_the_supervisor_ends_in_the_middle(void)
{
	struct play play;
	play_start(&play, ARGV(W("reload"), W("--wait"), W("--control"), W("PATH")));
	put(play.fd, "{\"event\":\"starting\",\"generation\":8,\"pids\":[11]}\n{\"resu");
	shutdown(play.fd, SHUT_RDWR);
	check_int(play_end(&play), CTL_ABSENT);
	check_contains(play.err, "closed the connection before it answered");
	check_int(play_lines(&play, "garbage\n", ARGV(W("status"), W("--control"), W("PATH"))), CTL_ABSENT);
	check_contains(play.err, "does not speak the protocol");
}

static void test_ctl_timeout_leaves_the_hand_off_alone(void)
{
	struct play play;
	play_start(&play, ARGV(W("reload"), W("--wait"), W("--timeout"), W("50ms"), W("--control"), W("PATH")));
	check_int(play_end(&play), CTL_TIMEOUT);
	check_contains(play.err, "no result after 50 ms; the hand-off goes on\n");
}

static void test_ctl_interrupt_leaves_the_hand_off_alone(void)
{
	struct play play;
	play_start(&play, ARGV(W("reload"), W("--wait"), W("--control"), W("PATH")));
	put(play.fd, "{\"event\":\"starting\",\"generation\":8,\"pids\":[11]}\n");
	play_read(&play, "starts");
	check_int(kill(play.pid, SIGINT), 0);
	check_int(play_end(&play), CTL_INTERRUPTED);
	check_contains(play.err, "interrupted; the hand-off goes on\n");
}

static void test_ctl_stop_waits_for_the_end_of_the_supervisor(void)
{
	struct play play;
	play_start(&play, ARGV(W("stop"), W("--wait"), W("--now"), W("--control"), W("PATH")));
	await_request(&play, "{\"command\":\"subscribe\"}\n{\"command\":\"stop\",\"now\":true,\"wait\":true}\n");
	put(play.fd, "{\"event\":\"stopping\"}\n{\"result\":\"ok\",\"forced\":true,\"status\":3}\n");
	play_read(&play, "the supervisor stops\n");
	struct pollfd poll_fd = {.fd = play.out_fd, .events = POLLIN};
	check_int(poll(&poll_fd, 1, 50), 0);
	shutdown(play.fd, SHUT_RDWR);
	check_int(play_end(&play), CTL_OK);
	check_contains(play.out, ": stopped\n");
	check_contains(play.err, "had to be killed");
}

static void test_ctl_status_is_printed_in_each_form(void)
{
	struct play play;
	char answer[2048], line[2048];
	snprintf(answer, sizeof(answer), "{\"result\":\"ok\",\"status\":%s}\n", status_json);
	check_int(play_lines(&play, answer, ARGV(W("status"), W("--control"), W("PATH"))), CTL_OK);
	check_contains(play.out, "web: handing-off, generation 7");
	check_int(play_lines(&play, answer, ARGV(W("status"), W("--json"), W("--control"), W("PATH"))), CTL_OK);
	snprintf(line, sizeof(line), "%s\n", status_json);
	check_str(play.out, line);
	check_int(play_lines(&play, "{\"result\":\"ok\",\"text\":\"# HELP x\\nx 1\\n\"}\n",
			     ARGV(W("status"), W("--prometheus"), W("--control"), W("PATH"))),
		  CTL_OK);
	check_str(play.out, "# HELP x\nx 1\n");
	check_contains(play.request, "\"format\":\"prometheus\"");
	check_int(play_lines(&play, "{\"result\":\"ok\"}\n", ARGV(W("status"), W("--control"), W("PATH"))), CTL_ABSENT);
	check_contains(play.err, "holds no status");
}

static void test_ctl_watch_adds_a_block_for_a_change_only(void)
{
	struct play play;
	char first[2048], second[2048], third[2048];
	snprintf(first, sizeof(first),
		 "{\"event\":\"status\",\"status\":%s}\n{\"event\":\"draining\",\"generation\":6}\n", status_json);
	snprintf(second, sizeof(second), "{\"result\":\"ok\",\"status\":%s}\n{\"event\":\"stopping\"}\n", status_json);
	snprintf(third, sizeof(third), "{\"result\":\"ok\",\"status\":%s}\n", status_json);
	/* Only a clock went on, then the state changed. */
	memcpy(strstr(second, "5321"), "9321", 4);
	memcpy(strstr(third, "handing-off"), "stopping   ", 11);

	play_start(&play, ARGV(W("status"), W("--watch"), W("--control"), W("PATH")));
	check_str(play.request, "{\"command\":\"subscribe\"}\n");
	put(play.fd, first);
	char line[128] = "";
	await_input(play.fd);
	check(recv(play.fd, line, sizeof(line) - 1, 0) > 0);
	check_contains(line, "{\"command\":\"status\"}\n");
	put(play.fd, second);
	await_input(play.fd);
	check(recv(play.fd, line, sizeof(line) - 1, 0) > 0);
	put(play.fd, third);
	play_read(&play, "web: stopping");
	shutdown(play.fd, SHUT_RDWR);
	check_int(play_end(&play), CTL_OK);
	check_contains(play.out, "web: handing-off");
	check(!strstr(strstr(play.out, "web: handing-off") + 1, "web: handing-off"));
	check_contains(play.out, "the supervisor has ended\n");
}

static void test_ctl_list_shows_a_supervisor_a_line(void)
{
	struct play play;
	char answer[2048];
	snprintf(answer, sizeof(answer), "{\"result\":\"ok\",\"status\":%s}\n", status_json);
	check_int(play_lines(&play, answer, ARGV(W("list"), W("--control"), W("PATH"))), CTL_OK);
	check_contains(play.out, "4711     handing-off  7           ./server\n");
}

static void test_ctl_tells_a_missing_supervisor_from_a_stopped_one(void)
{
	struct ctl_stream stream = {.fd = -1};
	struct error error = {.text = ""};
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	char folder[] = "/tmp/test_ctl.XXXXXX", path[64];
	check(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/control", folder);
	check_int(ctl_stream_open(path, 50, &stream, &error), -ENOENT);

	strcpy(address.sun_path, path);
	CLEANUP(fd_closep) int listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	check_int(bind(listen_fd, (struct sockaddr *)&address, sizeof(address)), 0);
	check_int(ctl_stream_open(path, 50, &stream, &error), -ECONNREFUSED);
	check_int(listen(listen_fd, 0), 0);
	struct ctl_stream first = {.fd = -1};
	check_int(ctl_stream_open(path, 50, &first, &error), 0);
	check_int(ctl_stream_open(path, 50, &stream, &error), -ETIMEDOUT);
	ctl_stream_finish(&first);
	check_int(stream.fd, -1);
	unlink(path);
	rmdir(folder);

	char longer[200];
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	check_int(ctl_stream_open(longer, 50, &stream, &error), -ENAMETOOLONG);
	check_contains(error.text, "107 bytes");
}

TEST_MAIN(TEST(test_ctl_puts_lines_together_and_takes_them_apart), TEST(test_ctl_refuses_what_is_no_object),
	  TEST(test_ctl_copes_with_lines_up_to_a_mebibyte), TEST(test_ctl_probes_a_silent_supervisor),
	  TEST(test_ctl_refuses_to_send_a_line_that_is_too_long), TEST(test_ctl_reload_asks_for_what_it_was_told),
	  TEST(test_ctl_reload_waits_and_tells_each_step), TEST(test_ctl_json_is_printed_as_received),
	  TEST(test_ctl_reload_tells_why_it_failed), TEST(test_ctl_refusals_have_their_exit_status),
	  TEST(test_ctl_says_when_the_supervisor_ends_in_the_middle), TEST(test_ctl_timeout_leaves_the_hand_off_alone),
	  TEST(test_ctl_interrupt_leaves_the_hand_off_alone), TEST(test_ctl_stop_waits_for_the_end_of_the_supervisor),
	  TEST(test_ctl_status_is_printed_in_each_form), TEST(test_ctl_watch_adds_a_block_for_a_change_only),
	  TEST(test_ctl_list_shows_a_supervisor_a_line), TEST(test_ctl_tells_a_missing_supervisor_from_a_stopped_one))
