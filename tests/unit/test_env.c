/* SPDX-License-Identifier: MIT */
/* The environment of a generation: the clean copy, files, folders, and the sentences about bad ones. */
#include <bsd/string.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "env.h"
#include "../lib/test.h"

static char folder[64];

static void make_folder(void)
{
	strlcpy(folder, "/tmp/handoff-test-XXXXXX", sizeof(folder));
	check(mkdtemp(folder));
}

static const char *path_of(const char *name)
{
	static char path[512];
	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return path;
}

static void write_bytes(const char *name, const char *bytes, size_t length)
{
	int fd = open(path_of(name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	check(fd >= 0);
	check_int(write(fd, bytes, length), length);
	close(fd);
}

static void write_text(const char *name, const char *text)
{
	write_bytes(name, text, strlen(text));
}

static void remove_folder(void)
{
	DIR *dir = opendir(folder);
	for (const struct dirent *entry; (entry = readdir(dir));)
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			check_int(remove(path_of(entry->d_name)), 0);
	closedir(dir);
	check_int(rmdir(folder), 0);
}

/* All items, in order, each in <>. */
static const char *dump(const struct env *env)
{
	static char text[8192];
	*text = '\0';
	for (size_t i = 0; i < env->count; i++) {
		strlcat(text, "<", sizeof(text));
		strlcat(text, env->items[i], sizeof(text));
		strlcat(text, ">", sizeof(text));
	}
	check(!env->items || !env->items[env->count]);
	return text;
}

static void test_env_copy_drops_activation(void)
{
	char *source[] = {(char[]){"A=1"},
			  (char[]){"LISTEN_PID=1"},
			  (char[]){"LISTEN_FDS=2"},
			  (char[]){"LISTEN_FDNAMES=x:y"},
			  (char[]){"LISTEN_PIDFDID=9"},
			  (char[]){"NOTIFY_SOCKET=@x"},
			  (char[]){"NOTIFY_SOCKETS=kept"},
			  (char[]){"WATCHDOG_PID=1"},
			  (char[]){"WATCHDOG_USEC=1"},
			  (char[]){"SERVER_STARTER_PORT=80=3"},
			  (char[]){"SERVER_STARTER_GENERATION=1"},
			  (char[]){"EINHORN_FD_COUNT=1"},
			  (char[]){"HANDOFF_GENERATION=4"},
			  (char[]){"FORKED_SERVER=1"},
			  (char[]){"MY_LISTEN_FDS=kept"},
			  (char[]){"LISTEN=kept"},
			  (char[]){"A=2"},
			  (char[]){"no equals sign"},
			  (char[]){"=empty name"},
			  (char[]){"BASH_FUNC_f%%=() { :; }"},
			  (char[]){"EMPTY="},
			  NULL};
	struct env env = {0};

	check_int(env_copy_clean(&env, source), 0);
	check_str(dump(&env), "<A=1><NOTIFY_SOCKETS=kept><MY_LISTEN_FDS=kept><LISTEN=kept>"
			      "<BASH_FUNC_f%%=() { :; }><EMPTY=>");
	env_finish(&env);
}

static void test_env_copy_of_nothing_can_go_to_exec(void)
{
	char *source[] = {NULL};
	struct env env = {0};

	check_int(env_copy_clean(&env, source), 0);
	check(env.items && !env.items[0]);
	check_int(env.count, 0);
	env_finish(&env);
	check(!env.items);
}

static void test_env_set_replaces_and_unset_removes(void)
{
	struct env env = {0};

	check(!env_get(&env, "A"));
	check_int(env_set(&env, "A", "1"), 0);
	check_int(env_set(&env, "AB", "2"), 0);
	check_int(env_set_number(&env, "C", -9223372036854775807LL - 1), 0);
	check_int(env_set(&env, "A", "x=y"), 0);
	check_str(dump(&env), "<A=x=y><AB=2><C=-9223372036854775808>");
	check_str(env_get(&env, "A"), "x=y");
	check_int(env_index(&env, "AB"), 1);
	check_int(env_index(&env, "B"), -1);
	env_unset(&env, "AB");
	env_unset(&env, "AB");
	check_str(dump(&env), "<A=x=y><C=-9223372036854775808>");
	env_unset(&env, "C");
	env_unset(&env, "A");
	check_str(dump(&env), "");
	env_finish(&env);
}

static void test_env_grows(void)
{
	struct env env = {0};
	char name[32];

	for (int i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "N%d", i);
		check_int(env_set_number(&env, name, i), 0);
		check(!env.items[env.count]);
	}
	for (int i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "N%d", i);
		check_int(atoi(env_get(&env, name)), i);
	}
	check_int(env.count, 1000);
	env_finish(&env);
}

static void test_env_check_pair_names_what_is_wrong(void)
{
	struct error error = {""};

	check_int(env_check_pair("--env", "A=1", &error), 0);
	check_int(env_check_pair("--env", "_a9=", &error), 0);
	check_int(env_check_pair("--env", "A=b=c", &error), 0);
	check_int(env_check_pair("--env", "FOO", &error), -EINVAL);
	check_str(error.text, "--env FOO: must be NAME=VALUE");
	static const char *const bad[] = {"=1", "9A=1", "A B=1", "A-B=1", "\xc3\xa4=1", " A=1"};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		check_int(env_check_pair("--env", bad[i], &error), -EINVAL);
		check_contains(error.text, "is not a name of letters");
	}
	static const char *const reserved[] = {"LISTEN_FDS=1", "NOTIFY_SOCKET=x", "HANDOFF_NAME=x", "WATCHDOG_USEC=1"};
	for (size_t i = 0; i < ARRAY_SIZE(reserved); i++) {
		check_int(env_check_pair("--env", reserved[i], &error), -EINVAL);
		check_contains(error.text, "is reserved");
	}
	/* A value may be a secret. */
	check_int(env_check_pair("--env", "9KEY=hunter2", &error), -EINVAL);
	check(!strstr(error.text, "hunter2"));
}

static void check_file(const char *text, const char *want)
{
	struct env env = {0};
	struct error error = {""};

	write_text("file", text);
	if (env_read_file(&env, "--env-file", path_of("file"), &error) < 0)
		test_fail("%s", error.text);
	check_str(dump(&env), want);
	env_finish(&env);
}

static void test_env_file_skips_blanks_and_comments(void)
{
	make_folder();
	check_file("", "");
	check_file("\n\n  \n# A=1\n ; B=2\n\t#\n", "");
	check_file("A=1\nB=2", "<A=1><B=2>");
	remove_folder();
}

static void test_env_file_values(void)
{
	make_folder();
	check_file("A=1\r\nB=2\r\n", "<A=1><B=2>");
	check_file("  A  =  a b  \n\texport\tB\t=\tc\t\nexport C=d\nexported=e\n", "<A=a b><B=c><C=d><exported=e>");
	check_file("A=\nB=  \nC=''\nG=\"\"\n", "<A=><B=><C=><G=>");
	check_file("A=x # no comment\nB=a=b=c\nC=$HOME `x` \\n\nG=it's\nE=x\"y\"\n",
		   "<A=x # no comment><B=a=b=c><C=$HOME `x` \\n><G=it's><E=x\"y\">");
	check_file("A=' a \\n \"b\" '  \nB=2\n", "<A= a \\n \"b\" ><B=2>");
	check_file("A=\"\\\"\\\\\\n\\$\\`\\t\\'$x\"\n", "<A=\"\\\n$`\\t\\'$x>");
	check_file("A=\"one\ntwo\n\"\nB='three\nfour' \nC=5\n", "<A=one\ntwo\n><B=three\nfour><C=5>");
	check_file("A=1\nB=2\nA=3\n", "<A=3><B=2>");
	check_file("A=1\n#B='\nC=\"#;\"\n", "<A=1><C=#;>");
	remove_folder();
}

static void check_bad_file(const char *bytes, size_t length, const char *where)
{
	struct env env = {0};
	struct error error = {""};
	char want[1024];

	write_bytes("file", bytes, length);
	check_int(env_read_file(&env, "--env-file", path_of("file"), &error), -EINVAL);
	snprintf(want, sizeof(want), "--env-file %s, %s", path_of("file"), where);
	check_str(error.text, want);
	env_finish(&env);
}

#define CHECK_BAD_FILE(text, where) check_bad_file(text, sizeof(text) - 1, where)

static void test_env_file_names_the_bad_line(void)
{
	static const char name[] =
		"what is before the = is not a name of letters, digits and _ that begins with no digit";
	char want[256];

	make_folder();
	CHECK_BAD_FILE("A=1\n\nsecret\nB=2\n", "line 3: must be NAME=VALUE");
	CHECK_BAD_FILE("export A", "line 1: must be NAME=VALUE");
	CHECK_BAD_FILE("A=\"1\n2\n3\"\nB\n", "line 4: must be NAME=VALUE");
	snprintf(want, sizeof(want), "line 2: %s", name);
	CHECK_BAD_FILE("A=1\n9=1\n", want);
	CHECK_BAD_FILE("A=1\n=1\n", want);
	CHECK_BAD_FILE("A=1\nA B=1\n", want);
	CHECK_BAD_FILE("A=1\nexport =1\n", want);
	CHECK_BAD_FILE("A=1\nA.B=1\n", want);
	CHECK_BAD_FILE("A=1\nB='\n\n", "line 2: the quote is never closed");
	CHECK_BAD_FILE("A=1\nB=\"x\\\"\n\n", "line 2: the quote is never closed");
	CHECK_BAD_FILE("A=\"x\\", "line 1: the quote is never closed");
	CHECK_BAD_FILE("A=\"x\ny\" # z\n", "line 2: there is text behind the closing quote");
	CHECK_BAD_FILE("A='x'y\n", "line 1: there is text behind the closing quote");
	CHECK_BAD_FILE("A=1\nB=\0\n", "line 2: there is a NUL byte");
	CHECK_BAD_FILE("LISTEN_FDS=1\n", "line 1: LISTEN_FDS is reserved, handoff sets or removes it itself");
	remove_folder();
}

static void test_env_file_that_cannot_be_read(void)
{
	struct env env = {0};
	struct error error = {""};

	make_folder();
	check_int(env_read_file(&env, "--env-file", path_of("missing"), &error), -ENOENT);
	check_contains(error.text, "/missing: No such file or directory");
	check_int(env_read_file(&env, "--env-file", folder, &error), -EISDIR);
	check_int(mkfifo(path_of("fifo"), 0600), 0);
	check_int(env_read_file(&env, "--env-file", path_of("fifo"), &error), -EINVAL);
	check_contains(error.text, "/fifo: not a regular file");

	size_t size = 1024 * 1024;
	char *large = malloc(size + 1);
	memset(large, 'x', size + 1);
	memcpy(large, "A=", 2);
	write_bytes("large", large, size);
	check_int(env_read_file(&env, "--env-file", path_of("large"), &error), 0);
	check_int(strlen(env_get(&env, "A")), size - 2);
	write_bytes("large", large, size + 1);
	check_int(env_read_file(&env, "--env-file", path_of("large"), &error), -EFBIG);
	check_contains(error.text, "/large: larger than 1 MiB");
	free(large);
	env_finish(&env);
	remove_folder();
}

/* Read anew on a clean copy: what was removed from the file is gone from the next generation. */
static void test_env_file_is_read_anew(void)
{
	char *start[] = {(char[]){"HOME=/root"}, NULL};
	static const char *const texts[] = {"A=1\nB=1\n", "A=2\n", "C=1"};
	static const char *const wants[] = {"<HOME=/root><A=1><B=1>", "<HOME=/root><A=2>", "<HOME=/root><C=1>"};

	make_folder();
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		struct env env = {0};
		write_text("file", texts[i]);
		check_int(env_copy_clean(&env, start), 0);
		check_int(env_read_file(&env, "--env-file", path_of("file"), NULL), 0);
		check_str(dump(&env), wants[i]);
		env_finish(&env);
	}
	remove_folder();
}

static void test_env_dir_in_the_way_of_envdir(void)
{
	struct env env = {0};
	struct error error = {""};

	make_folder();
	check_int(env_set(&env, "GONE", "1"), 0);
	check_int(env_set(&env, "KEPT", "1"), 0);
	write_text("PLAIN", "value \t\nsecond line\n");
	write_text("NOEND", " value");
	write_text("EMPTY", "\n");
	write_text("GONE", "");
	write_text("NEVER", "");
	write_text(".hidden", "x");
	write_text("odd-name", "x");
	write_bytes("LINES", "a\0b\0 \nc", 7);
	if (env_read_dir(&env, "--env-dir", folder, &error) < 0)
		test_fail("%s", error.text);
	check_int(env.count, 6);
	check_str(env_get(&env, "KEPT"), "1");
	check_str(env_get(&env, "PLAIN"), "value");
	check_str(env_get(&env, "NOEND"), " value");
	check_str(env_get(&env, "EMPTY"), "");
	check_str(env_get(&env, "LINES"), "a\nb\n");
	check_str(env_get(&env, "odd-name"), "x");
	check(!env_get(&env, "GONE"));
	env_finish(&env);
	remove_folder();
}

static void test_env_dir_errors_name_folder_and_file(void)
{
	struct env env = {0};
	struct error error = {""};
	char want[512];

	make_folder();
	write_text("A=B", "x");
	check_int(env_read_dir(&env, "--env-dir", folder, &error), -EINVAL);
	snprintf(want, sizeof(want), "--env-dir %s: the file name \"A=B\" has a =", folder);
	check_str(error.text, want);
	check_int(unlink(path_of("A=B")), 0);

	write_text("LISTEN_PID", "x");
	check_int(env_read_dir(&env, "--env-dir", folder, &error), -EINVAL);
	check_contains(error.text, ": LISTEN_PID is reserved");
	check_int(unlink(path_of("LISTEN_PID")), 0);

	check_int(mkdir(path_of("SUB"), 0700), 0);
	check_int(env_read_dir(&env, "--env-dir", folder, &error), -EISDIR);
	check_contains(error.text, "/SUB: Is a directory");
	check_int(rmdir(path_of("SUB")), 0);

	check_int(env_read_dir(&env, "--env-dir", path_of("missing"), &error), -ENOENT);
	check_contains(error.text, "/missing: No such file or directory");
	write_text("file", "x");
	check_int(env_read_dir(&env, "--env-dir", path_of("file"), &error), -ENOTDIR);
	check_int(env.count, 0);
	env_finish(&env);
	remove_folder();
}

TEST_MAIN(TEST(test_env_copy_drops_activation), TEST(test_env_copy_of_nothing_can_go_to_exec),
	  TEST(test_env_set_replaces_and_unset_removes), TEST(test_env_grows),
	  TEST(test_env_check_pair_names_what_is_wrong), TEST(test_env_file_skips_blanks_and_comments),
	  TEST(test_env_file_values), TEST(test_env_file_names_the_bad_line), TEST(test_env_file_that_cannot_be_read),
	  TEST(test_env_file_is_read_anew), TEST(test_env_dir_in_the_way_of_envdir),
	  TEST(test_env_dir_errors_name_folder_and_file))
