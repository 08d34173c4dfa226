/* SPDX-License-Identifier: MIT */
/* What the supervisor's side and the relay process of --capture say to each other. */
#ifndef HANDOFF_CAPTURE_PRIVATE_H
#define HANDOFF_CAPTURE_PRIVATE_H

#include "capture.h"

/* The socket between them is a SOCK_SEQPACKET pair, one message each way at a time; both ends are the same binary, so
 * the structs go as they are. Pipes have a number of their own, because a generation may be forgotten on our side while
 * the relay still holds text of it. */
enum capture_request_kind {
	CAPTURE_OPEN = 1, /* with the read end by SCM_RIGHTS */
	CAPTURE_FORGET,   /* keep no more lines; the pipe itself is read to its end */
	CAPTURE_ASK,
};

struct capture_request {
	uint32_t kind;
	uint32_t pipe;  /* from 1; 0 in an ASK for a generation that nobody knows, which is answered with no lines */
	uint32_t token; /* ASK: comes back in the reply */
};

/* `count` zero-terminated strings follow in `text`, oldest first: printable, at most CAPTURE_LINE_MAX bytes each. */
struct capture_reply {
	uint32_t token;
	uint32_t count;
	char text[CAPTURE_LINES * (CAPTURE_LINE_MAX + 1)];
};
#define CAPTURE_REPLY_HEAD offsetof(struct capture_reply, text)

/* The life of the relay, in a process just forked for it. It owns nothing but fd 2 and `control_fd` (3 or above): all
 * other descriptors, the session, and the signal dispositions and mask of the supervisor are left behind first. Ends at
 * end-of-file of the control socket and of all pipes with status 0, or with 1 when it cannot take a pipe (the
 * supervisor then starts another one). */
_Noreturn void capture_relay_run(int control_fd);

#endif
