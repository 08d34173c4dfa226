/* SPDX-License-Identifier: MIT */
/* What the parts of ts, the test server, share: settings, one connection, and the way from request to answer. */
#ifndef HANDOFF_TS_H
#define HANDOFF_TS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum ts_mode { TS_EPOLL, TS_POLL, TS_SELECT, TS_THREADS };
enum ts_ready { TS_READY_PIPE, TS_READY_NOTIFY, TS_READY_NONE, TS_READY_SIGNAL };

#define TS_LISTENERS_MAX 128
/* While draining, a connection that was answered before is closed after this silence… */
#define TS_IDLE_MS 300
/* …and one that never said anything after this longer one: its first request may still be on its way. */
#define TS_FRESH_MS 3000

struct ts_settings {
	enum ts_mode mode;
	enum ts_ready ready;
	int ready_signal;
	bool set_nonblock, strict_pid;
	bool never_ready, ignore_int, ignore_term, term_exits;
	bool stop_self, close_fds, leave_daemon, background, unlink_path;
	bool leave_helper, stubborn_helper;
	bool ready_then_garbage;
	int ready_gap_ms;      /* -1: the word is written at once */
	long long ready_bytes; /* -1: no stray bytes */
	int exit_at_once;      /* status, -1: it does not */
	int exit_after_ms;     /* after ready, -1: it does not */
	int exit_after_status;
	int slow_boot_ms;
	int crash_signal;
	int cpu_us;
	const char *count_int;
	int listen_fds[TS_LISTENERS_MAX];
	size_t listeners;
};

extern struct ts_settings ts;
/* Set once, by the thread that reads signals, before it stops listening. */
extern atomic_bool ts_draining;
/* signalfd of INT and TERM, and the timerfd of --exit-after-ready (-1 without it). */
extern int ts_signal_fd, ts_exit_fd;

/* Ends the process on a wrong command line. */
void ts_parse_options(int argc, char **argv);
/* Fills ts.listen_fds: LISTEN_FDS, --fd, then --bind. */
void ts_open_listeners(void);

/* What it was born with: descriptors and signal state, as text; taken before it touched any of them. */
const char *ts_born(void);
/* Says that it is ready, in the way asked for; starts the --exit-after-ready clock. */
void ts_say_ready(void);
/* Reads the pending signals; true when one of them asks to drain. Ends the process at once under --term-exits. */
bool ts_take_signals(void);
/* CLOCK_MONOTONIC in milliseconds. */
int64_t ts_now_ms(void);
/* Waits without ending on a signal; the signalfd keeps what arrived. */
void ts_nap(int ms);

struct ts_conn {
	int fd, listen_fd;
	char in[8192];
	size_t in_len;
	bool in_body; /* the head was read, body_left bytes of the body are still to come */
	uint64_t body_left;
	int status; /* of the request at hand: 200 until it is found bad */
	bool last;  /* the client wants no further request on this connection */
	char path[1024];
	int sleep_ms; /* what /sleep asked for */
	char *out;    /* the answer being written, owned */
	size_t out_len, out_sent;
	bool closing; /* the answer said Connection: close */
	unsigned answered;
};

/* 1: a whole request was taken off the front of the buffer (a bad one too), 0: more bytes are needed. */
int ts_http_parse(struct ts_conn *conn);
/* Puts the answer to the request at hand into conn->out. Ends the process when memory ends. */
void ts_http_answer(struct ts_conn *conn);
/* Answer body of `/`: "gen=… pid=… fd=…\n"; returns its length. */
int ts_http_identity(char *text, size_t size, int listen_fd);

/* Both serve until drained. */
void ts_serve_events(void);
void ts_serve_threads(void);

#endif
