/* SPDX-License-Identifier: MIT */
/* Tests of log.c: what a line looks like, and that no state of stderr holds us up, kills us or garbles a line. */
#include <cjson/cJSON.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "fd.h"
#include "log.h"
#include "../lib/test.h"

static int real_stderr = -1;

/* From here to stderr_back, stderr is `fd`, which is closed: then fd 2 is its only descriptor. A write that waits is
 * ended by SIGALRM. */
static void stderr_to(int fd)
{
	real_stderr = fcntl(2, F_DUPFD_CLOEXEC, 3);
	check(real_stderr >= 0);
	check_int(dup2(fd, 2), 2);
	fd_close(fd);
	alarm(20);
}

static void stderr_back(void)
{
	alarm(0);
	check_int(dup2(real_stderr, 2), 2);
	real_stderr = fd_close(real_stderr);
}

/* Stderr to a pipe with a writing end that blocks; returns the reading end, which does not. */
static int stderr_to_pipe(void)
{
	int fds[2];

	check_int(pipe2(fds, O_CLOEXEC), 0);
	check_int(fd_set_nonblock(fds[0], true), 0);
	stderr_to(fds[1]);
	return fds[0];
}

/* All that can be read now. */
static const char *drain(int fd)
{
	static char text[1 << 18];
	size_t used = 0;
	ssize_t count;

	while ((count = read(fd, text + used, sizeof(text) - 1 - used)) > 0)
		used += (size_t)count;
	text[used] = '\0';
	return text;
}

static void test_log_works_before_init(void)
{
	int fd = stderr_to_pipe();

	log_info("hello");
	log_debug("unseen");
	check_str(drain(fd), "handoff: hello\n");
	stderr_back();
	fd_close(fd);
}

static void test_log_text_lines(void)
{
	int fd = stderr_to_pipe();

	log_init(LOG_FORMAT_TEXT, LOG_LEVEL_DEBUG, "web");
	log_info("started %d", 7);
	check_str(drain(fd), "handoff: web: started 7\n");
	log_line(LOG_LEVEL_INFO, 7, "ready");
	check_str(drain(fd), "handoff: web: [gen 7] ready\n");
	log_line(LOG_LEVEL_ERROR, 7, "died");
	log_warning("slow");
	log_debug("detail");
	check_str(drain(fd), "handoff: web: [gen 7] error: died\nhandoff: web: warning: slow\nhandoff: web: detail\n");
	log_set_name("web-2");
	log_info("x");
	check_str(drain(fd), "handoff: web-2: x\n");
	stderr_back();
	fd_close(fd);
}

static void test_log_level_filters_and_errno_stays(void)
{
	static const enum log_level all[] = {LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG};
	int fd = stderr_to_pipe();

	for (size_t i = 0; i < 4; i++) {
		log_init(LOG_FORMAT_TEXT, all[i], "web");
		for (size_t j = 0; j < 4; j++) {
			errno = EDOM;
			log_line(all[j], 0, "x");
			check_int(errno, EDOM);
			check_int(log_enabled(all[j]), j <= i);
			check_int(*drain(fd) != '\0', j <= i);
		}
	}
	stderr_back();
	fd_close(fd);
}

static void test_log_shows_what_is_not_printable(void)
{
	int fd = stderr_to_pipe();

	log_init(LOG_FORMAT_TEXT, LOG_LEVEL_INFO, "a\nb");
	log_info("%s", "one\ntwo\x1b[2J \xc3\xa4 \xff");
	check_str(drain(fd), "handoff: a\\x0ab: one\\x0atwo\\x1b[2J \xc3\xa4 \\xff\n");
	stderr_back();
	fd_close(fd);
}

/* Parses one line with cJSON and returns a copy of a member's text, for the caller to free; NULL without the member. */
static char *member(const char *line, const char *key)
{
	const char *end = NULL;
	cJSON *object = cJSON_ParseWithOpts(line, &end, false);

	if (!object || *end != '\n' || end[1] != '\0')
		test_fail("not one line of JSON: %s", line);
	cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
	char *text = !item ? NULL : cJSON_IsString(item) ? strdup(item->valuestring) : cJSON_PrintUnformatted(item);
	cJSON_Delete(object);
	return text;
}

#define check_member(line, key, want)                                                                                  \
	do {                                                                                                           \
		CLEANUP(freep) char *member_text = member(line, key);                                                  \
		check_str(member_text, want);                                                                          \
	} while (0)

static void test_log_json_lines(void)
{
	int fd = stderr_to_pipe();

	log_init(LOG_FORMAT_JSON, LOG_LEVEL_INFO, "w\"eb");
	log_line(LOG_LEVEL_WARNING, 4000000000u, "%s", "say \"hi\" \\ C:\\new\n\x01\xff \xe2\x82\xac");
	const char *line = drain(fd);
	check_member(line, "level", "warning");
	check_member(line, "name", "w\"eb");
	check_member(line, "generation", "4000000000");
	check_member(line, "message", "say \"hi\" \\ C:\\new\\x0a\\x01\\xff \xe2\x82\xac");
	CLEANUP(freep) char *time_text = member(line, "time");
	check_int(strlen(time_text), strlen("2026-01-31T12:00:00.000Z"));
	for (size_t i = 0; i < strlen(time_text); i++) {
		char shape = "dddd-dd-ddTdd:dd:dd.dddZ"[i];
		check(shape == 'd' ? time_text[i] >= '0' && time_text[i] <= '9' : time_text[i] == shape);
	}
	log_error("x");
	line = drain(fd);
	check_member(line, "level", "error");
	check(!member(line, "generation"));
	stderr_back();
	fd_close(fd);
}

static void test_log_cuts_lines_to_pipe_buf(void)
{
	static const char *const units[] = {"x", "\"", "\\", "\xc3\xa4", "\xe2\x82\xac", "\x01", "a\"\xf0\x9f\x98\x80"};
	static char text[3 * PIPE_BUF];
	int fd = stderr_to_pipe();

	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		text[0] = '\0';
		for (size_t used = 0; used + strlen(units[i]) < sizeof(text); used += strlen(units[i]))
			memcpy(text + used, units[i], strlen(units[i]) + 1);
		log_init(LOG_FORMAT_TEXT, LOG_LEVEL_INFO, "web");
		log_line(LOG_LEVEL_WARNING, 7, "%s", text);
		const char *line = drain(fd);
		check(strlen(line) <= PIPE_BUF && strlen(line) > PIPE_BUF - 8);
		check(strchr(line, '\n') == line + strlen(line) - 1);
		log_init(LOG_FORMAT_JSON, LOG_LEVEL_INFO, "web");
		log_line(LOG_LEVEL_WARNING, 7, "%s", text);
		line = drain(fd);
		check(strlen(line) <= PIPE_BUF && strlen(line) > PIPE_BUF - 8);
		CLEANUP(freep) char *message = member(line, "message");
		check(strncmp(message, units[i][0] == 1 ? "\\x01" : units[i], strlen(units[i])) == 0);
		/* Cut at a character's end: only whole units, or whole characters of them. */
		check((message[strlen(message) - 1] & 0xc0) != 0xc0);
	}
	stderr_back();
	fd_close(fd);
}

/* Counts the lines of `text`, all of which have to end with a newline and begin as ours do. */
static int count_lines(const char *text, const char *start)
{
	int count = 0;

	while (*text) {
		const char *end = strchr(text, '\n');
		check(end && strncmp(text, start, strlen(start)) == 0);
		text = end + 1;
		count++;
	}
	return count;
}

static void test_log_full_pipe_drops_and_counts(void)
{
	enum { LINES = 3000 };
	char want[128];
	int fd = stderr_to_pipe();
	int flags = fcntl(2, F_GETFL);

	log_init(LOG_FORMAT_TEXT, LOG_LEVEL_INFO, "web");
	for (int i = 0; i < LINES; i++)
		log_info("%0100d", i);
	int kept = count_lines(drain(fd), "handoff: web: 0");
	check(kept > 0 && kept < LINES);
	log_info("again");
	snprintf(want, sizeof(want),
		 "handoff: web: warning: %d log lines were dropped: stderr was full\nhandoff: web: again\n",
		 LINES - kept);
	check_str(drain(fd), want);
	log_info("once only");
	check_str(drain(fd), "handoff: web: once only\n");
	check_int(fcntl(2, F_GETFL), flags);
	stderr_back();
	fd_close(fd);
}

static void test_log_full_pipe_in_json(void)
{
	char byte[4096] = "";
	int fd = stderr_to_pipe();

	log_init(LOG_FORMAT_JSON, LOG_LEVEL_INFO, "web");
	check_int(fd_set_nonblock(2, true), 0);
	while (write(2, byte, sizeof(byte)) > 0)
		;
	check_int(fd_set_nonblock(2, false), 0);
	log_info("lost");
	while (read(fd, byte, sizeof(byte)) > 0)
		;
	log_info("kept");
	const char *text = drain(fd);
	char *second = strchr(text, '\n') + 1;
	check_member(second, "message", "kept");
	*second = '\0';
	check_member(text, "message", "1 log line was dropped: stderr was full");
	check_member(text, "level", "warning");
	stderr_back();
	fd_close(fd);
}

static void test_log_full_device_is_ignored(void)
{
	stderr_to(open("/dev/full", O_WRONLY | O_CLOEXEC));
	log_init(LOG_FORMAT_TEXT, LOG_LEVEL_INFO, "web");
	for (int i = 0; i < 10; i++)
		log_info("nowhere");
	stderr_back();
	int fd = stderr_to_pipe();
	log_info("here");
	check_str(drain(fd), "handoff: web: here\n");
	stderr_back();
	fd_close(fd);
}

static void test_log_broken_pipe_raises_no_signal(void)
{
	int fds[2];

	signal(SIGPIPE, SIG_DFL);
	fd_close(stderr_to_pipe());
	log_info("nobody reads");
	stderr_back();
	check_int(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	fd_close(fds[0]);
	stderr_to(fds[1]);
	log_info("nobody reads");
	stderr_back();
	int fd = stderr_to_pipe();
	log_info("here");
	check_str(drain(fd), "handoff: web: here\n");
	/* No stderr at all. */
	close(2);
	log_info("nowhere");
	stderr_back();
	fd_close(fd);
}

static void test_log_full_socket_drops(void)
{
	int fds[2];

	check_int(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	check_int(fd_set_nonblock(fds[0], true), 0);
	stderr_to(fds[1]);
	log_init(LOG_FORMAT_TEXT, LOG_LEVEL_INFO, "web");
	for (int i = 0; i < 3000; i++)
		log_info("%01000d", i);
	int kept = count_lines(drain(fds[0]), "handoff: web: 0");
	check(kept > 0 && kept < 3000);
	log_info("again");
	check_contains(drain(fds[0]), "log lines were dropped: stderr was full\nhandoff: web: again\n");
	stderr_back();
	fd_close(fds[0]);
}

/* A terminal says that it can be written to when a byte fits, and would wait for the rest of the line. */
static void test_log_full_terminal_never_blocks(void)
{
	bool was_cut = false;

	/* Not every length of line meets the end of the terminal's buffer in the middle. */
	for (int width = 2000; width <= 4000; width += 250) {
		int master_fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
		check(master_fd >= 0);
		check(grantpt(master_fd) == 0 && unlockpt(master_fd) == 0);
		int terminal_fd = open(ptsname(master_fd), O_RDWR | O_NOCTTY | O_CLOEXEC);
		check(terminal_fd >= 0);
		int flags = fcntl(terminal_fd, F_GETFL);
		stderr_to(terminal_fd);
		log_init(LOG_FORMAT_TEXT, LOG_LEVEL_INFO, "web");
		for (int i = 0; i < 50; i++)
			log_info("%0*d", width, 0);
		check_int(fcntl(2, F_GETFL), flags);
		const char *text = drain(master_fd);
		check_contains(text, "handoff: web: 000");
		bool cut = text[strlen(text) - 1] != '\n';
		log_info("again");
		/* On a line of its own, even where the terminal has taken half a line before. */
		text = drain(master_fd);
		check_contains(text, "log lines were dropped: stderr was full\r\nhandoff: web: again\r\n");
		const char *start = cut ? "\r\nhandoff: web: warning: " : "handoff: web: warning: ";
		check(strncmp(text, start, strlen(start)) == 0);
		was_cut |= cut;
		stderr_back();
		fd_close(master_fd);
	}
	check(was_cut);
}

static void test_log_journal_gets_priorities(void)
{
	struct stat status;
	char stream[64];
	int fd = stderr_to_pipe();

	check_int(fstat(2, &status), 0);
	snprintf(stream, sizeof(stream), "%ju:%ju", (uintmax_t)status.st_dev, (uintmax_t)status.st_ino);
	setenv("JOURNAL_STREAM", stream, 1);
	log_init(LOG_FORMAT_TEXT, LOG_LEVEL_DEBUG, "web");
	log_error("e");
	log_warning("w");
	log_info("i");
	log_debug("d");
	check_str(drain(fd), "<3>handoff: web: error: e\n<4>handoff: web: warning: w\n<6>handoff: web: i\n"
			     "<7>handoff: web: d\n");
	log_init(LOG_FORMAT_JSON, LOG_LEVEL_DEBUG, "web");
	log_info("i");
	check_int(*drain(fd), '{');
	/* Inherited by somebody whose stderr goes elsewhere. */
	snprintf(stream, sizeof(stream), "%ju:%ju", (uintmax_t)status.st_dev, (uintmax_t)status.st_ino + 1);
	setenv("JOURNAL_STREAM", stream, 1);
	log_init(LOG_FORMAT_TEXT, LOG_LEVEL_DEBUG, "web");
	log_info("i");
	check_str(drain(fd), "handoff: web: i\n");
	setenv("JOURNAL_STREAM", "nonsense", 1);
	log_init(LOG_FORMAT_TEXT, LOG_LEVEL_DEBUG, "web");
	log_info("i");
	check_str(drain(fd), "handoff: web: i\n");
	unsetenv("JOURNAL_STREAM");
	stderr_back();
	fd_close(fd);
}

TEST_MAIN(TEST(test_log_works_before_init), TEST(test_log_text_lines), TEST(test_log_level_filters_and_errno_stays),
	  TEST(test_log_shows_what_is_not_printable), TEST(test_log_json_lines), TEST(test_log_cuts_lines_to_pipe_buf),
	  TEST(test_log_full_pipe_drops_and_counts), TEST(test_log_full_pipe_in_json),
	  TEST(test_log_full_device_is_ignored), TEST(test_log_broken_pipe_raises_no_signal),
	  TEST(test_log_full_socket_drops), TEST(test_log_full_terminal_never_blocks),
	  TEST(test_log_journal_gets_priorities))
