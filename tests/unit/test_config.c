/* SPDX-License-Identifier: MIT */
/* Tests of config*.c: every key, what goes before what, and the sentences about a file that is wrong. */
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cjson/cJSON.h>

#include "config.h"
#include "config_json.h"
#include "fd.h"
#include "test.h"

#define WORDS_MAX 20

/* ---- A file, and a command line over it ---- */

static int file_fd = -1;
static char file_path[64];
static char *words[WORDS_MAX + 4];
static struct options options;
static struct error error;

/* What a file holds from now on, with bytes that are not text too. */
static void write_bytes(const char *text, size_t length)
{
	fd_close(file_fd);
	file_fd = memfd_create("config", MFD_CLOEXEC);
	check(file_fd >= 0);
	check(write(file_fd, text, length) == (ssize_t)length);
	snprintf(file_path, sizeof(file_path), "/proc/self/fd/%d", file_fd);
}

static void write_text(const char *text)
{
	write_bytes(text, strlen(text));
}

static int parse_words(const char *text, const char *const *list)
{
	static char program[] = "handoff", option[] = "-c";
	int argc = 0;
	write_text(text);
	words[argc++] = program;
	words[argc++] = option;
	words[argc++] = file_path;
	for (; *list; list++) {
		check(argc < WORDS_MAX);
		words[argc++] = strdup(*list);
	}
	words[argc] = NULL;
	error.text[0] = '\0';
	return options_parse(argc, words, &options, &error);
}

static void free_words(void)
{
	for (int i = 3; words[i]; i++)
		free(words[i]);
	file_fd = fd_close(file_fd);
}

static void done(void)
{
	options_finish(&options);
	free_words();
}

static void load_list(const char *text, const char *const *list)
{
	if (parse_words(text, list) < 0)
		test_fail("refused: %s", error.text);
}

/* The sentence, after the file's name. */
static void refuses_list(const char *part, const char *text, const char *const *list)
{
	struct options untouched;
	char whole[512];
	memset(&options, 0x55, sizeof(options));
	untouched = options;
	int code = parse_words(text, list);
	snprintf(whole, sizeof(whole), "%s: %s", file_path, part);
	free_words();
	if (code != -EINVAL)
		test_fail("%s was not refused (%d)", text, code);
	check(memcmp(&options, &untouched, sizeof(options)) == 0);
	check_contains(error.text, whole);
	check(!strchr(error.text, '\n'));
}

#define load(text, ...) load_list(text, (const char *const[]){__VA_ARGS__, NULL})
#define load_alone(text) load_list(text, (const char *const[]){NULL})
#define refuses(part, text) refuses_list(part, text, (const char *const[]){NULL})

#define COMMAND "\"command\": [\"x\"]"

/* ---- Values ---- */

static void test_config_values_land(void)
{
	load_alone("{\"listen\": [\":80\", \"b=unix:/b\"], \"name\": \"web\", \"ready\": [\"pipe\", \"delay:2s\"],\n"
		   " \"ready-timeout\": \"none\", \"settle\": \"0\", \"workers\": 8, \"rolling\": true,\n"
		   " \"order\": \"start-first\", \"drain-signal\": \"quit\", \"drain-to\": \"group\",\n"
		   " \"drain-timeout\": \"30s\", \"max-draining\": 64, \"kill-timeout\": \"none\",\n"
		   " \"restart\": \"always\", \"restart-delay\": \"1s\", \"restart-delay-max\": \"1m\",\n"
		   " \"max-restarts\": 5e0, \"command\": [\"./server\", \"--port\", \"\"]}");
	check_int(options.listen_count, 2);
	check_int(options.listens[0].port, 80);
	check_str(options.listens[1].name, "b");
	check_str(options.name, "web");
	check_int(options.ready_count, 2);
	check_int(options.readies[1].delay_ms, 2000);
	check_int(options.ready_timeout_ms, DURATION_NONE);
	check_int(options.settle_ms, 0);
	check_int(options.workers, 8);
	check(options.rolling);
	check_int(options.order, ORDER_START_FIRST);
	check_int(options.drain_signal, SIGQUIT);
	check_int(options.drain_to, DRAIN_TO_GROUP);
	check_int(options.drain_timeout_ms, 30000);
	check_int(options.max_draining, 64);
	check_int(options.kill_timeout_ms, DURATION_NONE);
	check_int(options.restart, RESTART_ALWAYS);
	check_int(options.restart_delay_ms, 1000);
	check_int(options.restart_delay_max_ms, 60000);
	check_int(options.max_restarts, 5);
	check_str(options.command[0], "./server");
	check_str(options.command[2], "");
	check(!options.command[3]);
	check(options.command_is_files);
	check_str(options.config_path, file_path);
	done();
}

static void test_config_values_land_for_server_and_supervisor(void)
{
	load_alone("{\"chdir\": \"/\", \"env\": [\"A=1\", \"B=\\u00e4\\n\"], \"env-file\": [\"f\"],\n"
		   " \"env-dir\": [\"d\"], \"umask\": \"027\", \"rlimit\": [\"nofile=5\"], \"no-new-privs\": true,\n"
		   " \"die-with-supervisor\": false, \"signal\": [\"TERM=stop\"], \"notify-fd\": 4,\n"
		   " \"control\": \"/run/c?mode=0660&group=0\", \"compat\": [\"einhorn\", \"no-listen-pid\"],\n"
		   " \"pid-file\": \"/run/p\", \"capture\": true, \"log-format\": \"json\",\n"
		   " \"log-level\": \"debug\", \"$schema\": \"x\", " COMMAND "}");
	check_str(options.chdir, "/");
	check_int(options.env.count, 2);
	check_str(options.env.items[1], "B=\xc3\xa4\n");
	check_str(options.env_files.items[0], "f");
	check_str(options.env_dirs.items[0], "d");
	check(options.set_umask);
	check_int(options.umask, 027);
	check_int(options.rlimits[0].limit.rlim_cur, 5);
	check(options.no_new_privs && !options.die_with_supervisor && options.capture);
	check_int(options.signals[SIGTERM].action, SIGNAL_ACTION_STOP);
	check_int(options.notify_fd, 4);
	check_str(options.control.path, "/run/c");
	check_int(options.control.mode, 0660);
	check_int(options.control.gid, 0);
	check_int(options.compat, COMPAT_EINHORN | COMPAT_NO_LISTEN_PID);
	check_str(options.pid_file, "/run/p");
	check_int(options.log_format, LOG_FORMAT_JSON);
	check_int(options.log_level, LOG_LEVEL_DEBUG);
	done();
}

static void test_config_silence_leaves_the_defaults(void)
{
	load("{}", "x");
	check_int(options.workers, 1);
	check_int(options.ready_count, 1);
	check_int(options.readies[0].kind, READY_AUTO);
	check_int(options.settle_ms, 250);
	check_int(options.restart_delay_max_ms, 30000);
	check(!options.name && !options.capture && !options.control.path);
	done();
	load("{\"listen\": [], \"ready\": [], \"capture\": false}", "x");
	check_int(options.listen_count, 0);
	check_int(options.ready_count, 1);
	check(!options.capture);
	done();
	load_alone("{\"restart-delay\": \"1m\", " COMMAND "}");
	check_int(options.restart_delay_max_ms, 60000);
	done();
}

static void test_config_comments(void)
{
	load_alone("// first\n/* {\n \"name\": \"no\" */ {\"name\": /* ; */ \"a\", // \"name\": \"b\"\n"
		   "\"pid-file\": \"/*//*/\" /**/, \"chdir\": \"\\\"//\\\\\", " COMMAND "}//");
	check_str(options.name, "a");
	check_str(options.pid_file, "/*//*/");
	check_str(options.chdir, "\"//\\");
	done();
	/* Windows' line ends, and the mark that its editors put first. */
	load_alone("\xef\xbb\xbf{\r\n// x\r\n\"name\": \"a\",\r\n" COMMAND "\r\n}\r\n");
	check_str(options.name, "a");
	done();
}

/* ---- What goes before what ---- */

static void test_config_command_line_goes_first(void)
{
	load("{\"listen\": [\":1\", \":2\"], \"name\": \"file\", \"env\": [\"A=file\"], \"workers\": 3,\n"
	     " \"settle\": \"1s\", \"env-file\": [\"file\"], " COMMAND "}",
	     "-l:9", "--name=line", "--env=B=line", "--", "line", "word");
	check_int(options.listen_count, 1);
	check_int(options.listens[0].port, 9);
	check_str(options.name, "line");
	check_int(options.env.count, 1);
	check_str(options.env.items[0], "B=line");
	check_int(options.workers, 3);
	check_int(options.settle_ms, 1000);
	check_str(options.env_files.items[0], "file");
	check_str(options.command[0], "line");
	check_str(options.command[1], "word");
	check(!options.command_is_files);
	done();
	/* Its value is not used, so it need not hold on this machine; its type is a mistake in any case. */
	load("{\"user\": \"nobody-of-that-name\"}", "--user=root", "--group=root", "x");
	done();
	refuses_list("line 1: key \"name\": must be a string", "{\"name\": 1}",
		     (const char *const[]){"--name=a", "x", NULL});
	refuses_list("line 1: key \"command\": must be an array", "{\"command\": 1}", (const char *const[]){"x", NULL});
}

static void test_config_is_read_again(void)
{
	struct options again, third;
	load("{\"settle\": \"1s\", \"workers\": 2, \"restart-delay\": \"1m\", \"command\": [\"a\", \"b\"]}",
	     "--signal=TERM=stop", "--workers=4", "-l:9", "--capture");
	write_text("{\"kill-timeout\": \"1s\", \"workers\": 9, \"listen\": [\":1\"], \"command\": [\"c\"]}");
	check_int(config_load(file_path, &options, &again, &error), 0);
	check_int(options.settle_ms, 1000);
	check_str(options.command[0], "a");
	check_int(again.settle_ms, 250);
	check_int(again.restart_delay_max_ms, 30000);
	check_int(again.kill_timeout_ms, 1000);
	check_int(again.workers, 4);
	check_int(again.listens[0].port, 9);
	check(again.capture);
	check_str(again.command[0], "c");
	check_int(again.signals[SIGTERM].action, SIGNAL_ACTION_STOP);

	/* From what was read before, as from the first; nothing of it is borrowed. */
	write_text("{\"command\": [\"d\"]}");
	check_int(config_load(file_path, &again, &third, &error), 0);
	options_finish(&again);
	check_int(third.workers, 4);
	check_str(third.command[0], "d");
	check_int(third.listens[0].port, 9);
	check_str(third.config_path, file_path);
	options_finish(&third);

	write_text("{\"settle\": \"1s\"}");
	memset(&again, 0x55, sizeof(again));
	third = again;
	check_int(config_load(file_path, &options, &again, &error), -EINVAL);
	check_contains(error.text, "the key \"command\" is missing");
	check(memcmp(&third, &again, sizeof(again)) == 0);
	done();
}

static void test_config_fixed_options_that_change(void)
{
	static const struct {
		const char *text, *option;
	} changes[] = {
		{"{\"name\": \"b\"}", "--name"},
		{"{\"name\": \"a\", \"control\": \"/c\"}", "--control"},
		{"{\"name\": \"a\", \"pid-file\": \"/p\"}", "--pid-file"},
		{"{\"name\": \"a\", \"notify-fd\": 3}", "--notify-fd"},
		{"{\"name\": \"a\", \"capture\": true}", "--capture"},
		{"{\"name\": \"a\", \"signal\": [\"TERM=stop\"]}", "--signal"},
		{"{\"name\": \"a\", \"log-format\": \"json\"}", "--log-format"},
		{"{\"name\": \"a\", \"log-level\": \"error\"}", "--log-level"},
	};
	struct options again;
	load("{\"name\": \"a\"}", "x");
	for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
		write_text(changes[i].text);
		check_int(config_load(file_path, &options, &again, &error), 0);
		check_int(options_fixed_difference(&options, &again, &error), 1);
		check(strncmp(error.text, changes[i].option, strlen(changes[i].option)) == 0);
		check_contains(error.text, "only at the next start");
		check_int(options_fixed_difference(&again, &again, &error), 0);
		options_finish(&again);
	}
	/* The rest may change, and a default may be said. */
	static const char free_ones[] = "{\"name\": \"a\", \"settle\": \"1s\", \"listen\": [\":1\"], \"workers\": 4,\n"
					" \"chdir\": \"/\", \"log-format\": \"text\", \"capture\": false}";
	write_text(free_ones);
	check_int(config_load(file_path, &options, &again, &error), 0);
	check_int(options_fixed_difference(&options, &again, &error), 0);
	options_finish(&again);
	done();
}

/* ---- Refusals ---- */

static void test_config_unknown_keys(void)
{
	refuses("line 3: key \"lisen\": there is no such key; did you mean \"listen\"?",
		"{\"name\": \"a\",\n\n\"lisen\": [\":80\"]}");
	refuses("line 1: key \"--listen\": there is no such key; did you mean \"listen\"?", "{\"--listen\": 1}");
	refuses("line 1: key \"drain_timeout\": there is no such key; did you mean \"drain-timeout\"?",
		"{\"drain_timeout\": \"1s\"}");
	refuses("line 1: key \"drainTimeout\": there is no such key; did you mean \"drain-timeout\"?",
		"{\"drainTimeout\": \"1s\"}");
	refuses("line 1: key \"commands\": there is no such key; did you mean \"command\"?", "{\"commands\": []}");
	refuses("line 1: key \"bananas\": there is no such key; the options", "{\"bananas\": 1}");
	refuses("line 1: key \"\": there is no such key", "{\"\": 1}");
	refuses("line 1: key \"config\": is for the command line only", "{\"config\": \"x\"}");
	refuses("line 1: key \"help\": is for the command line only", "{\"help\": true}");
	refuses("line 1: key \"\\x1b[31m\": there is no such key", "{\"\\u001b[31m\": true}");
	refuses("line 4: key \"name\": stands in line 2 already", "{\n\"name\": \"a\",\n\n\"name\": \"b\"}");
	refuses("line 2: key \"command\": stands in line 1 already", "{" COMMAND ",\n" COMMAND "}");
}

static void test_config_wrong_types(void)
{
	refuses("line 1: key \"listen\": must be an array of strings: [\"SPEC\", ...]", "{\"listen\": \":80\"}");
	refuses("line 4: key \"listen[1]\": must be a string, SPEC", "{\"listen\": [\n\":80\",\n// x\n8080]}");
	refuses("line 3: key \"listen[0]\": must be a string", "{\"name\": \"a\", \"listen\": [\n\n{\"a\": [1,2]}]}");
	refuses("line 1: key \"env\": must be an array of strings: [\"K=V\", ...]", "{\"env\": {\"A\": \"1\"}}");
	refuses("line 1: key \"capture\": must be true or false", "{\"capture\": \"yes\"}");
	refuses("line 1: key \"capture\": must be true or false", "{\"capture\": null}");
	refuses("line 1: key \"workers\": must be a number, from 1 to 256", "{\"workers\": \"4\"}");
	refuses("line 1: key \"settle\": must be a time in a string, such as \"30s\"", "{\"settle\": 30}");
	refuses("line 1: key \"umask\": must be a string, M", "{\"umask\": 27}");
	refuses("line 1: key \"name\": must be a string", "{\"name\": [\"a\"]}");
	refuses("line 1: key \"name\": must be a string", "{\"name\": null}");
	refuses("line 1: key \"$schema\": must be a string", "{\"$schema\": {}}");
	refuses("line 1: key \"command\": must be an array of strings", "{\"command\": \"./server\"}");
	refuses("line 1: key \"command\": must be an array of strings", "{\"command\": []}");
	refuses("line 2: key \"command[1]\": must be a string", "{\"command\": [\"x\",\n8080]}");
	refuses("line 1: key \"command[0]\": the program is an empty string", "{\"command\": [\"\"]}");
	refuses("line 1: must be one object", "[]");
	refuses("line 1: must be one object", "\"listen\"");
}

static void test_config_wrong_values(void)
{
	refuses("line 2: key \"listen[1]\": \":99999\": the port", "{\"listen\": [\":80\",\n\":99999\"]}");
	refuses("line 1: key \"max-draining\": \"65\": must be a whole number from 1 to 64", "{\"max-draining\": 65}");
	refuses("line 1: key \"workers\": \"257\": must be a whole", "{\"workers\": 257}");
	refuses("line 1: key \"workers\": \"0\": must be a whole", "{\"workers\": 0}");
	refuses("line 1: key \"workers\": \"1.5\": must be a whole", "{\"workers\": 1.5}");
	refuses("line 1: key \"workers\": \"1e+300\": must be a whole", "{\"workers\": 1e300}");
	refuses("line 1: key \"workers\": \"-1\": must be a whole", "{\"workers\": -1}");
	refuses("line 1: key \"settle\": \"5\": a number alone", "{\"settle\": \"5\"}");
	refuses("line 1: key \"restart\": \"onfailure\": must be always, on-failure or never; did you mean",
		"{\"restart\": \"onfailure\"}");
	refuses("line 1: key \"name\": the string is empty", "{\"name\": \"\"}");
	refuses("line 1: key \"env[1]\": ", "{\"env\": [\"A=1\", \"A\"]}");
	refuses("line 1: key \"signal[1]\": \"15=kill\": that signal was given", "{\"signal\": [\"TERM=stop\", "
										 "\"15=kill\"]}");
	refuses("line 1: key \"control\": \"/c?x=1\": \"x=1\" is neither", "{\"control\": \"/c?x=1\"}");
	refuses("line 1: key \"compat[0]\": \"unicorn\": must be", "{\"compat\": [\"unicorn\"]}");
	refuses("--restart-delay-max is 50ms, below", "{\"restart-delay-max\": \"50ms\", " COMMAND "}");
	refuses("--rolling starts a new worker", "{\"order\": \"stop-first\", \"rolling\": true, " COMMAND "}");
	refuses("the key \"command\" is missing", "{}");
}

static void test_config_no_json(void)
{
	refuses("line 3: the comma after the last item is too much", "{\n\"a\": [1,\n2, // two\n]}");
	refuses("line 2: the comma after the last item is too much", "{\n" COMMAND ",\n}");
	refuses("line 2: a comma or a colon is missing", "{\n\"name\": \"a\" // here\n\n\"chdir\": \"/\"}");
	refuses("line 2: a comma or a colon is missing", "{\n\"name\" \"a\"}");
	refuses("line 2: strings stand in double quotes", "{\n'name': 'a'}");
	refuses("line 2: a comment begins with //", "{\n# x\n}");
	refuses("line 2: the comment that begins here is not closed", "{\n/* \n\n}");
	refuses("line 2: a comma or a colon is missing", "{\n\"name: \"a\",\n\"b\": \"c\"}");
	refuses("line 1: a string is not closed at the end of its line", "{\"name");
	refuses("line 1: a string is not closed at the end of its line", "{\"name\\");
	refuses("line 1: a string holds a control character", "{\"na\tme\"}");
	refuses("line 1: a string holds a NUL character", "{\"name\": \"a\\u0000b\"}");
	refuses("line 3: the text ends too early", "{\n\"listen\":\n[\":80\"\n\n");
	refuses("line 2: this is no JSON, from here on: name:", "{\nname: \"a\"}");
	refuses("line 2: this is no JSON, from here on: yes}", "{\"capture\":\nyes}");
	refuses("line 2: this is no JSON, from here on: }", "{}\n}");
	refuses("line 1: this is no JSON", "{\"a\": \"\\ud800\"}");
	refuses("line 1: there is nothing", "");
	refuses("line 1: there is nothing", " // x\n");
}

static void test_config_nul_byte(void)
{
	struct options given, again;
	static const char bytes[] = "{\n\"name\":\0 \"a\"}";
	load("{}", "x");
	given = options;
	write_bytes(bytes, sizeof(bytes) - 1);
	check_int(config_load(file_path, &given, &again, &error), -EINVAL);
	check_contains(error.text, "line 2: a NUL byte");
	done();
}

static void test_config_file_that_cannot_be_read(void)
{
	static const struct options nothing;
	struct options again;
	char folder[] = "/tmp/test_config.XXXXXX", fifo[64];
	check_int(config_load("/nowhere/at/all.json", &nothing, &again, &error), -ENOENT);
	check_str(error.text, "cannot read the config file /nowhere/at/all.json: No such file or directory");
	check(mkdtemp(folder));
	check_int(config_load(folder, &nothing, &again, &error), -EISDIR);
	check_contains(error.text, "Is a directory");
	snprintf(fifo, sizeof(fifo), "%s/fifo", folder);
	check_int(mkfifo(fifo, 0600), 0);
	check_int(config_load(fifo, &nothing, &again, &error), -EINVAL);
	check_contains(error.text, "it is not a regular file");
	check_int(unlink(fifo), 0);
	check_int(rmdir(folder), 0);

	char *large = malloc((1 << 20) + 1);
	check(large != NULL);
	memset(large, ' ', (1 << 20) + 1);
	memcpy(large, "{" COMMAND "}", strlen("{" COMMAND "}"));
	write_bytes(large, (1 << 20) + 1);
	check_int(config_load(file_path, &nothing, &again, &error), -EFBIG);
	check_contains(error.text, "it is larger than 1 MiB");
	write_bytes(large, 1 << 20);
	check_int(config_load(file_path, &nothing, &again, &error), 0);
	options_finish(&again);
	free(large);
	file_fd = fd_close(file_fd);
}

/* The link that leads to the working directory may move later. */
static void test_config_relative_path_follows_pwd(void)
{
	char folder[] = "/tmp/test_config.XXXXXX", release[80], link[80], wanted[96], before[PATH_MAX];
	static char program[] = "handoff", option[] = "-c", name[] = "a.json", command[] = "x";
	char *argv[] = {program, option, name, command, NULL};
	check(mkdtemp(folder) && getcwd(before, sizeof(before)));
	snprintf(release, sizeof(release), "%s/1", folder);
	snprintf(link, sizeof(link), "%s/current", folder);
	snprintf(wanted, sizeof(wanted), "%s/a.json", link);
	check_int(mkdir(release, 0700), 0);
	check_int(symlink("1", link), 0);
	check_int(chdir(link), 0);
	check_int(setenv("PWD", link, 1), 0);
	int fd = open("a.json", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	check(fd >= 0 && write(fd, "{}", 2) == 2);
	fd_close(fd);
	check_int(options_parse(4, argv, &options, &error), 0);
	check_str(options.config_path, wanted);
	options_finish(&options);
	check_int(unlink("a.json"), 0);
	check_int(options_parse(4, argv, &options, &error), -ENOENT);
	check_contains(error.text, wanted);
	check_int(chdir(before), 0);
	check(unlink(link) == 0 && rmdir(release) == 0 && rmdir(folder) == 0);
}

/* ---- Where things stand ---- */

static void test_config_lines(void)
{
	char text[] = "\n{ // {\n\"a\": [1, [2,\n3],\n{\"x\": \"]\"}, \"\\\"]\",\n 4],\n\"b\": {\"c\": 1,\n\"d\": 2},"
		      "\n\n\"e\": 5}";
	cJSON *root;
	check_int(config_json_parse(text, strlen(text), &root, &error), 0);
	cJSON_Delete(root);
	check_int(config_json_line(text, 0, -1), 3);
	check_int(config_json_line(text, 0, 0), 3);
	check_int(config_json_line(text, 0, 1), 3);
	check_int(config_json_line(text, 0, 2), 5);
	check_int(config_json_line(text, 0, 3), 5);
	check_int(config_json_line(text, 0, 4), 6);
	check_int(config_json_line(text, 1, -1), 7);
	check_int(config_json_line(text, 2, -1), 10);
}

TEST_MAIN(TEST(test_config_values_land), TEST(test_config_values_land_for_server_and_supervisor),
	  TEST(test_config_silence_leaves_the_defaults), TEST(test_config_comments),
	  TEST(test_config_command_line_goes_first), TEST(test_config_is_read_again),
	  TEST(test_config_fixed_options_that_change), TEST(test_config_unknown_keys), TEST(test_config_wrong_types),
	  TEST(test_config_wrong_values), TEST(test_config_no_json), TEST(test_config_nul_byte),
	  TEST(test_config_file_that_cannot_be_read), TEST(test_config_relative_path_follows_pwd),
	  TEST(test_config_lines))
