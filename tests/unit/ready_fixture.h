/* SPDX-License-Identifier: MIT */
/* Shared by the tests of ready.c: one start of this program as the server, and everything that the handler heard. */
#ifndef HANDOFF_TEST_READY_FIXTURE_H
#define HANDOFF_TEST_READY_FIXTURE_H

#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/stat.h>

#include "ready_private.h"
#include "../lib/test.h"
#include "ready_server.h"

#define DEADLINE_MS 15000
/* Long enough for a dozen looks: what has not come by then does not come. */
#define NEVER_MS 300

struct fixture {
	struct loop *loop;
	struct ready *ready;
	struct child leader;
	struct child_plan plan;
	struct ready_how hows[3];
	char *argv[16];
	char *envp[8];
	char pipe_text[32], notify_text[80], pid_text[32];
	int listen_fd;
	ino_t inode;
	bool timed_out;
	/* What the handler heard. */
	int ready_count, failed_count, note_count, stopping_count;
	char by[32], why[512], reason[256], status[2048], note[1024];
	uint64_t extend_usec;
	pid_t main_pid;
	bool destroy_at_ready, destroy_at_status;
};

static inline void heard_ready(void *data, const char *by, const char *why)
{
	struct fixture *f = data;
	f->ready_count++;
	snprintf(f->by, sizeof(f->by), "%s", by);
	snprintf(f->why, sizeof(f->why), "%s", why);
	if (f->destroy_at_ready) {
		ready_destroy(f->ready);
		f->ready = NULL;
	}
}

static inline void heard_failed(void *data, const char *reason)
{
	struct fixture *f = data;
	f->failed_count++;
	snprintf(f->reason, sizeof(f->reason), "%s", reason);
}

static inline void heard_status(void *data, const char *text)
{
	struct fixture *f = data;
	snprintf(f->status, sizeof(f->status), "%s", text);
	if (f->destroy_at_status) {
		ready_destroy(f->ready);
		f->ready = NULL;
	}
}

static inline void heard_extend(void *data, uint64_t usec)
{
	((struct fixture *)data)->extend_usec = usec;
}

static inline void heard_stopping(void *data)
{
	((struct fixture *)data)->stopping_count++;
}

static inline void heard_main_pid(void *data, pid_t pid)
{
	((struct fixture *)data)->main_pid = pid;
}

static inline void heard_note(void *data, const char *text)
{
	struct fixture *f = data;
	f->note_count++;
	snprintf(f->note, sizeof(f->note), "%s", text);
}

static const struct ready_handler handler = {.on_ready = heard_ready,
					     .on_failed = heard_failed,
					     .on_status = heard_status,
					     .on_extend = heard_extend,
					     .on_stopping = heard_stopping,
					     .on_main_pid = heard_main_pid,
					     .on_note = heard_note};

static inline void on_deadline(struct loop_source *source, void *data)
{
	(void)source;
	((struct fixture *)data)->timed_out = true;
}

/* Runs the loop until the flag or counter is not 0, or the time is over. */
static inline void run(struct fixture *f, const int *until, int limit_ms)
{
	struct loop_source *timer;
	check_int(loop_add_timer(f->loop, on_deadline, f, &timer), 0);
	loop_timer_set(timer, limit_ms);
	f->timed_out = false;
	while (!f->timed_out && !(until && *until))
		check(loop_run_once(f->loop, -1) >= 0);
	loop_remove(timer);
}

static inline void run_until(struct fixture *f, const int *until)
{
	run(f, until, DEADLINE_MS);
	check(!f->timed_out);
}

static inline void open_listener(struct fixture *f)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct stat stat;
	f->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	check(f->listen_fd >= 0);
	check_int(bind(f->listen_fd, (struct sockaddr *)&address, sizeof(address)), 0);
	check_int(listen(f->listen_fd, 8), 0);
	check_int(fstat(f->listen_fd, &stat), 0);
	f->inode = stat.st_ino;
}

/* Makes the struct ready for `how` (more are added by a test that sets f->hows itself), without a start. */
static inline void setup(struct fixture *f, const char *how, const struct ready_options *extra)
{
	struct error error;
	*f = (struct fixture){0};
	open_listener(f);
	check_int(loop_create(&f->loop), 0);
	check_int(ready_how_parse(how, &f->hows[0], &error), 0);
	struct ready_options options = {.hows = f->hows, .how_count = 1, .inodes = &f->inode, .inode_count = 1};
	if (extra) {
		options.own_word_only = extra->own_word_only;
		options.inode_count = extra->inode_count;
	}
	check_int(ready_create(f->loop, &options, &handler, f, &f->ready, &error), 0);
}

/* Starts this program as the server that does the words of `script`, up to NULL. */
static inline void start(struct fixture *f, const char *const *script)
{
	struct error error;
	int fds[2] = {f->listen_fd, ready_pipe_fd(f->ready)};
	/* Not its path, which another user may not be able to walk. */
	f->argv[0] = strdup("/proc/self/exe");
	for (size_t i = 0; script[i]; i++)
		f->argv[i + 1] = strdup(script[i]);
	snprintf(f->pipe_text, sizeof(f->pipe_text), "HANDOFF_READY_FD=4");
	snprintf(f->notify_text, sizeof(f->notify_text), "NOTIFY_SOCKET=%s", ready_notify_socket(f->ready));
	f->envp[0] = f->pipe_text;
	f->envp[1] = f->notify_text;
	f->plan = (struct child_plan){
		.argv = f->argv, .envp = f->envp, .listen_pid_index = -1, .fds = fds, .fd_count = 2, .stderr_fd = -1};
	check_int(child_spawn(&f->plan, &f->leader, &error), 0);
	/* Readiness commands must not get it. */
	f->plan.fds = &f->listen_fd;
	f->plan.fd_count = 1;
	snprintf(f->pid_text, sizeof(f->pid_text), "HANDOFF_PID=%d", f->leader.pid);
	f->envp[2] = f->pid_text;
	check_int(ready_start(f->ready, &f->leader, &f->plan), 0);
	check_int(ready_pipe_fd(f->ready), -1);
	struct pollfd exec_pipe = {.fd = f->leader.exec_fd, .events = POLLIN};
	check_int(poll(&exec_pipe, 1, DEADLINE_MS), 1);
	check_int(child_exec_result(&f->leader, &f->plan, &error), 1);
	ready_exec_done(f->ready);
}

/* NULL-terminated words for the server. */
#define SCRIPT(...)                                                                                                    \
	(const char *const[])                                                                                          \
	{                                                                                                              \
		__VA_ARGS__, NULL                                                                                      \
	}

static inline void begin(struct fixture *f, const char *how, const char *const *script)
{
	setup(f, how, NULL);
	start(f, script);
}

/* Waits until the server has stopped itself, as its script says: all before that is done. */
static inline void wait_stopped(struct fixture *f)
{
	siginfo_t info;
	check_int(waitid(P_PID, (id_t)f->leader.pid, &info, WSTOPPED | WEXITED | WNOWAIT), 0);
	check_int(info.si_code, CLD_STOPPED);
}

static inline void finish(struct fixture *f)
{
	if (f->ready)
		ready_settle(f->ready);
	ready_destroy(f->ready);
	ready_how_finish(&f->hows[0]);
	child_signal_group(&f->leader, SIGKILL);
	while (waitpid(-1, NULL, 0) > 0)
		;
	for (size_t i = 0; f->argv[i]; i++)
		free(f->argv[i]);
	child_finish(&f->leader);
	loop_destroy(f->loop);
	close(f->listen_fd);
}

/* main() of these programs: with arguments it is the server. */
#define READY_TEST_MAIN(...)                                                                                           \
	int main(int argc, char **argv)                                                                                \
	{                                                                                                              \
		static const struct test_case cases[] = {__VA_ARGS__};                                                 \
		if (argc > 1)                                                                                          \
			return server_main(argv + 1);                                                                  \
		return test_run(cases, sizeof(cases) / sizeof(cases[0]));                                              \
	}

#endif
