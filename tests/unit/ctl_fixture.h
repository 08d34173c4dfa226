/* SPDX-License-Identifier: MIT */
/* What the tests of the client share: command lines, and a status. */
#ifndef HANDOFF_TEST_CTL_FIXTURE_H
#define HANDOFF_TEST_CTL_FIXTURE_H

#include "ctl_private.h"
#include "spec.h"
#include "../lib/test.h"

/* A command line with its program name, of words that may be written to. */
#define ARGV(...)                                                                                                      \
	(char *[])                                                                                                     \
	{                                                                                                              \
		(char[]){"handoff"}, __VA_ARGS__, NULL                                                                 \
	}
#define W(word) ((char[]){word})

static inline int count_words(char **argv)
{
	int count = 0;
	while (argv[count])
		count++;
	return count;
}

static const char status_json[] =
	"{\"name\":\"web\",\"pid\":4711,\"version\":\"0.1.0\",\"state\":\"handing-off\",\"generation\":7,"
	"\"started\":\"2026-01-31T11:59:00.000Z\",\"command\":[\"./server\"],\"command_from\":\"options\","
	"\"listeners\":[{\"name\":\"http\",\"address\":\"[::]:8080\",\"type\":\"tcp\",\"fd\":3,\"backlog\":4096}],"
	"\"generations\":[{\"generation\":7,\"state\":\"active\",\"pids\":[4802],"
	"\"started\":\"2026-01-31T12:00:00.000Z\",\"ready_ms\":212,\"ready_by\":\"notify\"},"
	"{\"generation\":6,\"state\":\"draining\",\"pids\":[4790],\"draining_ms\":5321,\"connections\":12}],"
	"\"last_reload\":{\"generation\":8,\"result\":\"failed\",\"reason\":\"exited with status 3\","
	"\"duration_ms\":214},\"restarts\":2,\"next_restart_ms\":200}";

#endif
