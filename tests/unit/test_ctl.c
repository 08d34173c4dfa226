/* SPDX-License-Identifier: MIT */
/* Tests of the client: its command lines, how messages and tables read, and the completion scripts. */
#include "completion_private.h"
#include "ctl_fixture.h"

/* ---- command lines ---- */

static struct ctl_request parsed(char **argv)
{
	struct ctl_request request;
	struct error error = {.text = ""};
	if (ctl_parse(count_words(argv), argv, &request, &error) < 0)
		test_fail("refused: %s", error.text);
	return request;
}

/* Refused with a sentence that has this part. */
static void refused(char **argv, const char *part)
{
	struct ctl_request request = {.operand = "untouched"};
	struct error error = {.text = ""};
	check_int(ctl_parse(count_words(argv), argv, &request, &error), -EINVAL);
	check_contains(error.text, part);
	check_str(request.operand, "untouched");
}

static void test_ctl_knows_its_words(void)
{
	check(ctl_is_command("reload") && ctl_is_command("status") && ctl_is_command("stop"));
	check(ctl_is_command("list") && ctl_is_command("completion"));
	check(!ctl_is_command("run") && !ctl_is_command("") && !ctl_is_command(NULL) && !ctl_is_command("reloa"));
}

static void test_ctl_parses_a_reload(void)
{
	struct ctl_request request =
		parsed(ARGV(W("reload"), W("web"), W("--wait"), W("--timeout"), W("90s"), W("--if-generation=7"),
			    W("--json"), W("--"), W("./server"), W("--wait"), W("--")));
	check_str(request.operand, "web");
	check(request.wait && request.json && request.timeout_given && !request.control.path);
	check_int(request.timeout_ms, 90000);
	check_int(request.if_generation, 7);
	check_str(request.argv[0], "./server");
	check_str(request.argv[1], "--wait");
	check_str(request.argv[2], "--");
	check(!request.argv[3]);
	ctl_request_finish(&request);

	request = parsed(ARGV(W("reload")));
	check(!request.wait && !request.operand && !request.argv && request.timeout_ms == DURATION_NONE);
	ctl_request_finish(&request);
}

static void test_ctl_takes_the_control_option_as_run_does(void)
{
	struct ctl_request request = parsed(ARGV(W("stop"), W("--now"), W("--control"), W("/run/x/control?mode=0660")));
	check_str(request.control.path, "/run/x/control");
	check(request.now && !request.wait);
	ctl_request_finish(&request);
	request = parsed(ARGV(W("list"), W("--control=a"), W("--control=b")));
	check_str(request.control.path, "b");
	ctl_request_finish(&request);
	refused(ARGV(W("list"), W("--control"), W("x?colour=red")), "colour=red");
}

static void test_ctl_shows_help_whatever_else_is_wrong_after_it(void)
{
	struct ctl_request request = parsed(ARGV(W("reload"), W("-h"), W("--nonsense")));
	check(request.help);
	ctl_request_finish(&request);
}

static void test_ctl_refuses_wrong_usage_with_a_sentence(void)
{
	refused(ARGV(W("reload"), W("--timeout"), W("3s")), "--timeout is for waiting: it needs --wait");
	refused(ARGV(W("reload"), W("--timeout=none")), "needs --wait");
	refused(ARGV(W("reload"), W("--wait"), W("--timeout"), W("3")), "add a unit");
	refused(ARGV(W("reload"), W("--wait"), W("--timeout"), W("0")), "no time");
	refused(ARGV(W("reload"), W("--wait"), W("--timeout")), "--timeout needs a value");
	refused(ARGV(W("reload"), W("--timeout"), W("--wait")), "--timeout needs a value");
	refused(ARGV(W("reload"), W("--if-generation"), W("0")), "--if-generation");
	refused(ARGV(W("reload"), W("--wiat")), "did you mean --wait?");
	refused(ARGV(W("reload"), W("-w")), "unknown option -w");
	refused(ARGV(W("reload"), W("--now")), "unknown option --now");
	refused(ARGV(W("reload"), W("--wait=yes")), "takes no value");
	refused(ARGV(W("reload"), W("web"), W("./server")), "after --");
	refused(ARGV(W("reload"), W("--")), "missing");
	refused(ARGV(W("reload"), W("--"), W("")), "empty");
	refused(ARGV(W("reload"), W("")), "empty");
	refused(ARGV(W("stop"), W("--"), W("x")), "no command line");
	refused(ARGV(W("list"), W("web")), "takes no name");
	refused(ARGV(W("status"), W("--json"), W("--prometheus")), "exclude");
	refused(ARGV(W("status"), W("--watch"), W("--prometheus")), "exclude");
	refused(ARGV(W("status"), W("/run/x")), "--control /run/x");
	refused(ARGV(W("status"), W("--control"), W("/run/x"), W("web")), "leave \"web\" out");
	refused(ARGV(W("completion")), "which shell");
	refused(ARGV(W("completion"), W("tcsh")), "bash, zsh or fish");
}

/* ---- sentences ---- */

static void event_reads(const char *event, const char *want)
{
	char text[256] = "";
	cJSON *json = cJSON_Parse(event);
	check(json);
	check_int(ctl_event_text(json, text, sizeof(text)), want != NULL);
	check_str(text, want ? want : "");
	cJSON_Delete(json);
}

static void test_ctl_events_read_as_sentences(void)
{
	event_reads("{\"event\":\"starting\",\"generation\":8,\"pids\":[11]}", "generation 8 starts (pid 11)");
	event_reads("{\"event\":\"starting\",\"generation\":8,\"pids\":[11,12]}", "generation 8 starts (2 processes)");
	event_reads("{\"event\":\"ready\",\"generation\":8,\"ready_ms\":190,\"by\":\"notify\"}",
		    "generation 8 is ready after 190 ms (notify)");
	event_reads("{\"event\":\"ready\",\"generation\":8,\"ready_ms\":1900,\"by\":\"pipe\",\"pid\":11}",
		    "generation 8: pid 11 is ready after 1 s (pipe)");
	event_reads("{\"event\":\"draining\",\"generation\":7,\"connections\":1,\"draining_ms\":0}",
		    "generation 7 drains, 1 connection left");
	event_reads("{\"event\":\"draining\",\"generation\":7,\"connections\":null,\"draining_ms\":61000}",
		    "generation 7 drains, since 1 m 1 s");
	event_reads("{\"event\":\"restarting\",\"in_ms\":200}",
		    "the active generation died; a new one starts in 200 ms");
	event_reads("{\"event\":\"status\",\"status\":{}}", NULL);
	event_reads("{\"event\":17}", NULL);
	event_reads("{\"event\":\"starting\",\"pids\":\"x\",\"generation\":1e300}", "generation 0 starts");
}

static void test_ctl_durations_read_in_two_units(void)
{
	char text[32];
	check_str(ctl_duration(999, text, sizeof(text)), "999 ms");
	check_str(ctl_duration(59999, text, sizeof(text)), "59 s");
	check_str(ctl_duration(312000, text, sizeof(text)), "5 m 12 s");
	check_str(ctl_duration(3 * 3600000 + 60000, text, sizeof(text)), "3 h 1 m");
	check_str(ctl_duration(INT64_C(100) * 3600000, text, sizeof(text)), "4 d 4 h");
	check_str(ctl_duration(-5, text, sizeof(text)), "0 ms");
}

static void test_ctl_text_from_elsewhere_cannot_drive_a_terminal(void)
{
	char *text = ctl_safe("a\tb\x1b[2J\xff");
	check_str(text, "a    b\\x1b[2J\\xff");
	free(text);
	cJSON *words = cJSON_Parse("[\"./server\",\"a b\",\"it's\",\"\",3]");
	text = ctl_command_line(words);
	check_str(text, "./server 'a b' 'it'\\''s' '' '?'");
	free(text);
	cJSON_Delete(words);
}

static void test_ctl_table_says_what_matters(void)
{
	cJSON *status = cJSON_Parse(status_json);
	/* 2026-01-31T12:00:05.500Z */
	char *table = ctl_table(status, INT64_C(1769860805500));
	check_contains(table, "web: handing-off, generation 7 (pid 4711, handoff 0.1.0, up 1 m 5 s)\n");
	check_contains(table, "7   active     pid 4802, started 5 s ago, ready after 212 ms (notify)\n");
	check_contains(table, "6   draining   pid 4790, drains for 5 s, 12 connections left\n");
	check_contains(table, "last reload  generation 8: failed after 214 ms: exited with status 3\n");
	check_contains(table, "restarts     2, the next one in 200 ms\n");
	check_contains(table, "command      ./server  (from options)\n");
	check_contains(table, "fd 3   tcp [::]:8080  name http  backlog 4096\n");
	free(table);
	cJSON_Delete(status);
}

static void test_ctl_table_survives_any_object(void)
{
	static const char *const objects[] = {
		"{}", "{\"generations\":[1,null,{}],\"listeners\":{\"a\":1},\"command\":\"x\",\"last_reload\":[]}",
		"{\"generation\":-1e308,\"started\":\"never\",\"generations\":[{\"pids\":[\"x\",{}],\"started\":3}]}"};
	for (size_t i = 0; i < ARRAY_SIZE(objects); i++) {
		cJSON *status = cJSON_Parse(objects[i]);
		check(status);
		char *table = ctl_table(status, 0);
		check_contains(table, "generations");
		free(table);
		cJSON_Delete(status);
	}
}

/* ---- completion ---- */

static char *script_for(unsigned shell)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);
	completion_write(out, shell);
	check_int(fclose(out), 0);
	return text;
}

static void test_completion_has_every_option_and_word(void)
{
	for (unsigned shell = 0; completion_shells[shell]; shell++) {
		char *script = script_for(shell), name[64];
		bool fish = strcmp(completion_shells[shell], "fish") == 0;
		for (const char *const *option = options_long_names(); *option; option++) {
			snprintf(name, sizeof(name), fish ? " -l %s " : "--%s", *option);
			check_contains(script, name);
		}
		for (size_t i = 0; i < ctl_command_count; i++)
			check_contains(script, ctl_commands[i].word);
		check_contains(script, "on-failure");
		check_contains(script, "exec:");
		free(script);
	}
}

/* Those words are the parser's: one that it does not know would be run as a program. */
static void test_completion_words_are_commands(void)
{
	for (size_t i = 0; completion_words[i].word; i++) {
		struct options options;
		struct error error = {.text = ""};
		char word[32];
		snprintf(word, sizeof(word), "%s", completion_words[i].word);
		char *argv[] = {W("handoff"), word, NULL};
		int code = options_parse(2, argv, &options, &error);
		check(code < 0 || options.command_kind != COMMAND_RUN);
		if (code == 0 && options.command_kind == COMMAND_CHECK)
			options_finish(&options);
	}
}

TEST_MAIN(TEST(test_ctl_knows_its_words), TEST(test_ctl_parses_a_reload),
	  TEST(test_ctl_takes_the_control_option_as_run_does),
	  TEST(test_ctl_shows_help_whatever_else_is_wrong_after_it), TEST(test_ctl_refuses_wrong_usage_with_a_sentence),
	  TEST(test_ctl_events_read_as_sentences), TEST(test_ctl_durations_read_in_two_units),
	  TEST(test_ctl_text_from_elsewhere_cannot_drive_a_terminal), TEST(test_ctl_table_says_what_matters),
	  TEST(test_ctl_table_survives_any_object), TEST(test_completion_has_every_option_and_word),
	  TEST(test_completion_words_are_commands))
