/* SPDX-License-Identifier: MIT */
/* Tests of what is parsed for readiness: values of --ready, and notify datagrams. */
#include <errno.h>

#include "ready_private.h"
#include "../lib/test.h"

static void test_ready_how_parses(void)
{
	static const struct {
		const char *text;
		enum ready_kind kind;
	} good[] = {{"auto", READY_AUTO},           {"pipe", READY_PIPE},     {"notify", READY_NOTIFY},
		    {"accepting", READY_ACCEPTING}, {"listen", READY_LISTEN}, {"delay:2s", READY_DELAY},
		    {"exec:true", READY_EXEC},      {"signal", READY_SIGNAL}, {"now", READY_NOW}};
	struct ready_how how;
	struct error error;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		check_int(ready_how_parse(good[i].text, &how, &error), 0);
		check_int(how.kind, good[i].kind);
		check_int(strncmp(good[i].text, ready_kind_name(how.kind), strlen(ready_kind_name(how.kind))), 0);
		if (how.kind == READY_DELAY)
			check_int(how.delay_ms, 2000);
		if (how.kind == READY_EXEC)
			check_str(how.command, "true");
		ready_how_finish(&how);
	}
	check_int(ready_how_parse("exec:test a:b", &how, &error), 0);
	check_str(how.command, "test a:b");
	ready_how_finish(&how);
}

static void test_ready_how_refuses(void)
{
	static const char *const bad[] = {"",      "x",      "Auto", "auto:", "pipe:4",  "delay",      "delay:",
					  "exec:", "exec: ", "exec", "nowx",  "delay:5", "delay:none", "delay:-1s"};
	struct ready_how how = {.kind = READY_SIGNAL};
	struct error error;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		error.text[0] = '\0';
		check_int(ready_how_parse(bad[i], &how, &error), -EINVAL);
		check_contains(error.text, "--ready");
		check_int(how.kind, READY_SIGNAL);
	}
	check_int(ready_how_parse("lisen", &how, &error), -EINVAL);
	check_contains(error.text, "\"lisen\"");
}

static int parse(const char *text, struct ready_message *message)
{
	return ready_message_parse(text, strlen(text), message);
}

static void test_ready_message_parses(void)
{
	struct ready_message message;
	check_int(parse("READY=1\nSTATUS=a=b c\nMAINPID=71\nEXTEND_TIMEOUT_USEC=5000000\nX=1", &message), 0);
	check(message.ready && !message.stopping && message.has_extend && message.has_main_pid);
	check_int(message.extend_usec, 5000000);
	check_int(message.main_pid, 71);
	check_int(message.status_length, 5);
	check_int(strncmp(message.status, "a=b c", 5), 0);
	check_int(parse("\n\nSTOPPING=1\nREADY=0\nREADY=11\nXREADY=1\nready=1\n", &message), 0);
	check(message.stopping && !message.ready && !message.status && !message.has_extend && !message.has_main_pid);
	check_int(parse("STATUS=\nMAINPID=99999999999\nEXTEND_TIMEOUT_USEC=99999999999999999999", &message), 0);
	check(message.status && message.status_length == 0 && message.main_pid == 0 && !message.has_extend);
	check_int(parse("EXTEND_TIMEOUT_USEC=18446744073709551615", &message), 0);
	check(message.extend_usec == UINT64_MAX);
	check_int(parse("MAINPID=-1", &message), 0);
	check_int(message.main_pid, 0);
	check_int(ready_message_parse("READY=1", 8, &message), 0);
	check(message.ready);
}

static void test_ready_message_refuses_what_is_no_text(void)
{
	struct ready_message message = {.main_pid = 7};
	check_int(ready_message_parse("", 0, &message), -EBADMSG);
	check_int(ready_message_parse("", 1, &message), -EBADMSG);
	check_int(ready_message_parse("READY=1\0X=1", 11, &message), -EBADMSG);
	check_int(message.main_pid, 7);
}

TEST_MAIN(TEST(test_ready_how_parses), TEST(test_ready_how_refuses), TEST(test_ready_message_parses),
	  TEST(test_ready_message_refuses_what_is_no_text))
