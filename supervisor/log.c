/* SPDX-License-Identifier: MIT */
/* The log on stderr: lines that are written whole or not at all, and never waited for. */
#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "error.h"
#include "fd.h"
#include "log.h"

static const struct {
	const char *name, *mark, *priority;
} levels[] = {
	[LOG_LEVEL_ERROR] = {"error", "error: ", "<3>"},
	[LOG_LEVEL_WARNING] = {"warning", "warning: ", "<4>"},
	[LOG_LEVEL_INFO] = {"info", "", "<6>"},
	[LOG_LEVEL_DEBUG] = {"debug", "", "<7>"},
};

static struct {
	enum log_format format;
	enum log_level level;
	char name[256];        /* printable; empty before log_init */
	bool journal;          /* stderr is the journal's stream */
	bool inside_line;      /* a terminal took only the beginning of the last line */
	unsigned long dropped; /* lines since the last one that went out */
} logger = {.format = LOG_FORMAT_TEXT, .level = LOG_LEVEL_INFO};

/* Whether JOURNAL_STREAM names what fd 2 is now: it is inherited, also by those whose stderr was redirected. */
static bool stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	struct stat status;
	char expected[64];

	if (!stream || fstat(STDERR_FILENO, &status) < 0)
		return false;
	snprintf(expected, sizeof(expected), "%ju:%ju", (uintmax_t)status.st_dev, (uintmax_t)status.st_ino);
	return strcmp(stream, expected) == 0;
}

void log_init(enum log_format format, enum log_level level, const char *name)
{
	logger.format = format;
	logger.level = level;
	logger.journal = stderr_is_journal();
	log_set_name(name);
}

void log_set_name(const char *name)
{
	error_printable(logger.name, sizeof(logger.name), name ? name : "", name ? strlen(name) : 0);
}

bool log_enabled(enum log_level level)
{
	return level <= logger.level;
}

/* Writes to a terminal through a file description of our own, so that O_NONBLOCK is set for nobody else. poll(2) says
 * no more than that some bytes fit, and a longer line would wait for a reader that may be stopped. -1 with errno as
 * write(2). */
static ssize_t write_terminal(const char *line, size_t length)
{
	CLEANUP(fd_closep)
	int fd = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

	/* Another user's terminal (after su) cannot be opened anew. */
	return write(fd < 0 ? STDERR_FILENO : fd, line, length);
}

static ssize_t write_pipe(const char *line, size_t length)
{
#ifdef RWF_NOWAIT
	/* Others write to the same pipe, and may have filled it since poll(2); pipes know the flag since Linux 6.4. */
	union {
		const char *line;
		void *base;
	} text = {.line = line};
	struct iovec vector = {.iov_base = text.base, .iov_len = length};
	ssize_t written = pwritev2(STDERR_FILENO, &vector, 1, -1, RWF_NOWAIT);
	if (written >= 0 || (errno != EOPNOTSUPP && errno != ENOSYS && errno != EINVAL))
		return written;
#endif
	return write(STDERR_FILENO, line, length);
}

/* One write without waiting. 0, -EAGAIN where stderr takes nothing now or took only a part, or another -errno. */
static int write_now(const char *line, size_t length)
{
	struct pollfd poll_fd = {.fd = STDERR_FILENO, .events = POLLOUT};
	struct stat status;
	ssize_t written;

	if (poll(&poll_fd, 1, 0) < 0 || fstat(STDERR_FILENO, &status) < 0)
		return -errno;
	/* No write where nobody reads any more: it would raise SIGPIPE, and a SIGPIPE is itself worth a log line. */
	if (poll_fd.revents & (POLLERR | POLLHUP | POLLNVAL))
		return -EPIPE;
	if (!(poll_fd.revents & POLLOUT))
		return -EAGAIN;
	if (S_ISFIFO(status.st_mode))
		written = write_pipe(line, length);
	else if (S_ISSOCK(status.st_mode))
		written = send(STDERR_FILENO, line, length, MSG_DONTWAIT | MSG_NOSIGNAL);
	else if (S_ISCHR(status.st_mode) && isatty(STDERR_FILENO))
		written = write_terminal(line, length);
	else
		written = write(STDERR_FILENO, line, length);
	if (written < 0)
		return -errno;
	logger.inside_line = (size_t)written < length;
	return logger.inside_line ? -EAGAIN : 0;
}

/* Fills `line`, which has PIPE_BUF + 1 bytes; returns the length without the newline, at most PIPE_BUF - 1. */
static size_t format_text(char *line, enum log_level level, unsigned generation, const char *message, size_t length)
{
	char generation_text[32] = "";

	if (generation > 0)
		snprintf(generation_text, sizeof(generation_text), "[gen %u] ", generation);
	int used = snprintf(line, PIPE_BUF, "%s%shandoff: %s%s%s%s", logger.inside_line ? "\n" : "",
			    logger.journal ? levels[level].priority : "", logger.name, *logger.name ? ": " : "",
			    generation_text, levels[level].mark);
	error_printable(line + used, PIPE_BUF - (size_t)used, message, length);
	return strlen(line);
}

/* Cuts printable text, at a character's end, to what takes at most `room` bytes inside a JSON string. */
static void cut_for_json(char *text, size_t room)
{
	size_t cost = 0, end = 0;

	while (text[end]) {
		cost += text[end] == '"' || text[end] == '\\' ? 2 : 1;
		if (cost > room)
			break;
		end++;
	}
	while (end > 0 && (text[end] & 0xc0) == 0x80)
		end--;
	text[end] = '\0';
}

static void format_time(char *text, size_t size)
{
	struct timespec now;
	struct tm parts;
	char seconds[32];

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &parts);
	strftime(seconds, sizeof(seconds), "%Y-%m-%dT%H:%M:%S", &parts);
	snprintf(text, size, "%s.%03dZ", seconds, (int)(now.tv_nsec / 1000000));
}

static void delete_json(cJSON **object)
{
	cJSON_Delete(*object);
}

/* As format_text; 0 when there is no memory. */
static size_t format_json(char *line, enum log_level level, unsigned generation, const char *message, size_t length)
{
	CLEANUP(delete_json) cJSON *object = cJSON_CreateObject();
	CLEANUP(freep) char *frame = NULL;
	CLEANUP(freep) char *whole = NULL;
	char text[PIPE_BUF], time_text[48];

	format_time(time_text, sizeof(time_text));
	error_printable(text, sizeof(text), message, length);
	if (!cJSON_AddStringToObject(object, "time", time_text) ||
	    !cJSON_AddStringToObject(object, "level", levels[level].name) ||
	    !cJSON_AddStringToObject(object, "name", logger.name) ||
	    (generation > 0 && !cJSON_AddNumberToObject(object, "generation", generation)))
		return 0;
	/* How much is left for the message is known once all else is printed. */
	frame = cJSON_PrintUnformatted(object);
	if (!frame)
		return 0;
	cut_for_json(text, PIPE_BUF - 2 - strlen(frame) - strlen(",\"message\":\"\""));
	if (!cJSON_AddStringToObject(object, "message", text))
		return 0;
	whole = cJSON_PrintUnformatted(object);
	if (!whole)
		return 0;
	return (size_t)snprintf(line, PIPE_BUF, "%s%s", logger.inside_line ? "\n" : "", whole);
}

/* Formats and writes one line. As write_now. */
static int emit(enum log_level level, unsigned generation, const char *message, size_t message_length)
{
	char line[PIPE_BUF + 1];
	size_t length = logger.format == LOG_FORMAT_JSON
				? format_json(line, level, generation, message, message_length)
				: format_text(line, level, generation, message, message_length);

	if (length == 0)
		return -ENOMEM;
	line[length] = '\n';
	return write_now(line, length + 1);
}

/* Says how many lines were lost since the last one that went out. As emit. */
static int emit_dropped(void)
{
	char text[96];
	int length = snprintf(text, sizeof(text), "%lu log line%s dropped: stderr was full", logger.dropped,
			      logger.dropped == 1 ? " was" : "s were");

	return emit(LOG_LEVEL_WARNING, 0, text, (size_t)length);
}

void log_line(enum log_level level, unsigned generation, const char *format, ...)
{
	char message[PIPE_BUF + 4]; /* more than fits, so that the cut is seen to be at a character's end */
	int saved_errno = errno;
	va_list arguments;

	if (!log_enabled(level))
		return;
	va_start(arguments, format);
	int length = vsnprintf(message, sizeof(message), format, arguments);
	va_end(arguments);
	if ((size_t)length >= sizeof(message))
		length = length < 0 ? 0 : (int)sizeof(message) - 1;
	if (logger.dropped > 0 && emit_dropped() != -EAGAIN)
		logger.dropped = 0;
	if (logger.dropped > 0 || emit(level, generation, message, (size_t)length) == -EAGAIN)
		logger.dropped++;
	errno = saved_errno;
}
