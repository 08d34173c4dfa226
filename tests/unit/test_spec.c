/* SPDX-License-Identifier: MIT */
/* Tests of spec.c and listen_spec.c: what is taken, what is refused, and what the refusal says. */
#include <limits.h>
#include <signal.h>

#include "spec.h"
#include "test.h"

/* ---- Small values ---- */

static int64_t duration(const char *text)
{
	struct error error;
	int64_t ms = -77;
	int code = spec_duration("--settle", text, &ms, &error);
	if (code < 0)
		test_fail("%s: %s", text, error.text);
	return ms;
}

static void refuses_duration(const char *text, const char *part)
{
	struct error error = {""};
	int64_t ms = -77;
	check_int(spec_duration("--settle", text, &ms, &error), -EINVAL);
	check_int(ms, -77);
	check_contains(error.text, "--settle");
	check_contains(error.text, part);
}

static void test_spec_duration_takes_units(void)
{
	check_int(duration("500ms"), 500);
	check_int(duration("30s"), 30000);
	check_int(duration("5m"), 300000);
	check_int(duration("1h"), 3600000);
	check_int(duration("0"), 0);
	check_int(duration("0s"), 0);
	check_int(duration("none"), DURATION_NONE);
	check_int(duration("87600h"), INT64_C(315360000000));
}

static void test_spec_duration_refuses_the_rest(void)
{
	refuses_duration("5", "\"5\": a number alone is no duration: add a unit, as in 5s");
	refuses_duration("-1s", "negative");
	refuses_duration("1.5s", "whole number");
	refuses_duration("5sec", "unit");
	refuses_duration("5S", "unit");
	refuses_duration("1m30s", "unit");
	refuses_duration("5 s", "unit");
	refuses_duration("", "must be a duration");
	refuses_duration("never", "must be a duration");
	refuses_duration(" 5s", "must be a duration");
	refuses_duration("+5s", "must be a duration");
	refuses_duration("87601h", "10 years");
	refuses_duration("99999999999999999999ms", "10 years");
	refuses_duration("9223372036854775807h", "10 years");
}

static void takes_signal(const char *text, int want)
{
	struct error error;
	int got = -77;
	if (spec_signal("--drain-signal", text, &got, &error) < 0)
		test_fail("%s: %s", text, error.text);
	check_int(got, want);
}

static void refuses_signal(const char *text, const char *part)
{
	struct error error = {""};
	int got = -77;
	check_int(spec_signal("--drain-signal", text, &got, &error), -EINVAL);
	check_int(got, -77);
	check_contains(error.text, "--drain-signal");
	check_contains(error.text, part);
}

static void test_spec_signal_takes_names_and_numbers(void)
{
	takes_signal("INT", SIGINT);
	takes_signal("SIGINT", SIGINT);
	takes_signal("sigint", SIGINT);
	takes_signal("int", SIGINT);
	takes_signal("2", SIGINT);
	takes_signal("QUIT", SIGQUIT);
	takes_signal("WINCH", SIGWINCH);
	takes_signal("POLL", SIGIO);
	takes_signal("RTMIN", SIGRTMIN);
	takes_signal("SIGRTMIN+3", SIGRTMIN + 3);
	takes_signal("rtmax", SIGRTMAX);
	takes_signal("RTMAX-1", SIGRTMAX - 1);
	takes_signal("64", SIGRTMAX);
}

static void test_spec_signal_refuses_the_rest(void)
{
	refuses_signal("", "must be a signal");
	refuses_signal("0", "must be a signal");
	refuses_signal("65", "must be a signal");
	refuses_signal("32", "must be a signal");
	refuses_signal("-2", "must be a signal");
	refuses_signal("4294967298", "must be a signal");
	refuses_signal("SIG", "must be a signal");
	refuses_signal("TREM", "did you mean TERM?");
	refuses_signal("sigtrem", "did you mean TERM?");
	refuses_signal("RTMIN-1", "RTMIN-1");
	refuses_signal("RTMIN+31", "RTMIN+31");
	refuses_signal("RTMIN+", "RTMIN+");
	refuses_signal("RTMAX+0", "RTMAX+0");
}

static void test_spec_signal_name_comes_back(void)
{
	char buffer[16];
	struct error error;
	check_str(spec_signal_name(SIGINT, buffer, sizeof(buffer)), "INT");
	check_str(spec_signal_name(SIGIO, buffer, sizeof(buffer)), "IO");
	check_str(spec_signal_name(SIGRTMIN, buffer, sizeof(buffer)), "RTMIN");
	check_str(spec_signal_name(SIGRTMIN + 3, buffer, sizeof(buffer)), "RTMIN+3");
	check_str(spec_signal_name(99, buffer, sizeof(buffer)), "99");
	for (int signal = 1; signal <= SIGRTMAX; signal++) {
		int back = 0;
		if (signal >= 32 && signal < SIGRTMIN)
			continue;
		check_int(spec_signal("x", spec_signal_name(signal, buffer, sizeof(buffer)), &back, &error), 0);
		check_int(back, signal);
	}
}

static void test_spec_number_keeps_its_bounds(void)
{
	struct error error = {""};
	int64_t number = -77;
	static const char *const wrong[] = {"",    "-1",  "+1", " 1", "1 ",
					    "0x1", "1.0", "65", "0",  "18446744073709551617"};
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		check_int(spec_number("--max-draining", wrong[i], 1, 64, &number, &error), -EINVAL);
		check_contains(error.text, "--max-draining");
		check_contains(error.text, "from 1 to 64");
	}
	check_int(number, -77);
	check_int(spec_number("--max-draining", "64", 1, 64, &number, &error), 0);
	check_int(number, 64);
	check_int(spec_number("n", "-5", -5, 0, &number, &error), 0);
	check_int(number, -5);
}

static void test_spec_mode_is_octal(void)
{
	struct error error = {""};
	mode_t mode = 1;
	static const char *const wrong[] = {"", "8", "0o644", "u=rw", "10000", "-1", "000000000000000000000000000001"};
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		check_int(spec_mode("--umask", wrong[i], &mode, &error), -EINVAL);
		check_contains(error.text, "octal");
	}
	check_int(mode, 1);
	check_int(spec_mode("--umask", "0660", &mode, &error), 0);
	check_int(mode, 0660);
	check_int(spec_mode("--umask", "7777", &mode, &error), 0);
	check_int(mode, 07777);
}

static void test_spec_user_and_group_by_name_and_number(void)
{
	struct error error = {""};
	uid_t uid = 77;
	gid_t gid = 77;
	check_int(spec_user("--user", "no such user", &uid, &gid, &error), -EINVAL);
	check_contains(error.text, "--user \"no such user\": there is no such user");
	check_int(spec_user("--user", "root:root", &uid, &gid, &error), -EINVAL);
	check_contains(error.text, "user alone");
	check_int(spec_user("--user", "4294967295", &uid, &gid, &error), -EINVAL);
	check_int(uid, 77);
	check_int(spec_user("--user", "root", &uid, &gid, &error), 0);
	check_int(uid, 0);
	check_int(gid, 0);
	check_int(spec_user("--user", "0", &uid, &gid, &error), 0);
	check_int(gid, 0);
	check_int(spec_user("--user", "3999999999", &uid, &gid, &error), 0);
	check_int(uid, 3999999999);
	check_int(gid, (gid_t)-1);

	check_int(spec_group("--group", "no such group", &gid, &error), -EINVAL);
	check_contains(error.text, "--group \"no such group\": there is no such group");
	check_int(gid, (gid_t)-1);
	check_int(spec_group("--group", "root", &gid, &error), 0);
	check_int(gid, 0);
	check_int(spec_group("--group", "123456", &gid, &error), 0);
	check_int(gid, 123456);
}

static void test_spec_word_lists_and_suggests(void)
{
	static const char *const words[] = {"always", "on-failure", "never", NULL};
	struct error error = {""};
	unsigned index = 77;
	check_int(spec_word("--restart", "never", words, &index, &error), 0);
	check_int(index, 2);
	check_int(spec_word("--restart", "nevr", words, &index, &error), -EINVAL);
	check_str(error.text, "--restart \"nevr\": must be always, on-failure or never; did you mean never?");
	check_int(spec_word("--restart", "x", words, &index, &error), -EINVAL);
	check_str(error.text, "--restart \"x\": must be always, on-failure or never");
	check_int(index, 2);
}

static void test_spec_closest_is_near_or_nothing(void)
{
	static const char *const words[] = {"listen", "settle", "drain-signal", "drain-timeout", "env", NULL};
	check_str(spec_closest("lisen", words), "listen");
	check_str(spec_closest("lsiten", words), "listen");
	check_str(spec_closest("listenn", words), "listen");
	check_str(spec_closest("drain-time", words), "drain-timeout");
	check_str(spec_closest("li", words), "listen");
	check(!spec_closest("", words));
	check(!spec_closest("x", words));
	check(!spec_closest("bananas", words));
	/* Longer than what is compared. */
	check(!spec_closest("drain-signal-drain-signal-drain-signal-drain-signal", words));
}

/* ---- Listen SPECs ---- */

static struct listen_spec parsed(const char *text)
{
	struct error error;
	struct listen_spec spec;
	if (listen_spec_parse(text, &spec, &error) < 0)
		test_fail("%s", error.text);
	check_str(spec.text, text);
	return spec;
}

static void check_address(const char *text, enum listen_type type, const char *host, int port)
{
	struct listen_spec spec = parsed(text);
	check_int(spec.type, type);
	if (host)
		check_str(spec.host, host);
	else
		check(!spec.host);
	check_int(spec.port, port);
	check(!spec.name);
	listen_spec_finish(&spec);
}

static void test_spec_listen_addresses(void)
{
	check_address(":8080", LISTEN_TCP, NULL, 8080);
	check_address(":0", LISTEN_TCP, NULL, 0);
	check_address("127.0.0.1:65535", LISTEN_TCP, "127.0.0.1", 65535);
	check_address("[::1]:8080", LISTEN_TCP, "::1", 8080);
	check_address("[::]:8080", LISTEN_TCP, "::", 8080);
	check_address("[fe80::1%eth0]:8080", LISTEN_TCP, "fe80::1%eth0", 8080);
	check_address("[::ffff:127.0.0.1]:1", LISTEN_TCP, "::ffff:127.0.0.1", 1);
	check_address("localhost:8080", LISTEN_TCP, "localhost", 8080);
	check_address("my-host_1.example.com:8080", LISTEN_TCP, "my-host_1.example.com", 8080);
	check_address("udp::53", LISTEN_UDP, NULL, 53);
	check_address("udp:127.0.0.1:53", LISTEN_UDP, "127.0.0.1", 53);
	check_address("udp:[::1]:53", LISTEN_UDP, "::1", 53);
}

static void test_spec_listen_unix_fd_systemd(void)
{
	struct listen_spec spec = parsed("unix:/run/a=b.sock");
	check_int(spec.type, LISTEN_UNIX);
	check_str(spec.path, "/run/a=b.sock");
	check(!spec.abstract && !spec.name);
	listen_spec_finish(&spec);
	spec = parsed("a=unix:@one:two");
	check_str(spec.path, "one:two");
	check_str(spec.name, "a");
	check(spec.abstract);
	listen_spec_finish(&spec);
	spec = parsed("unixgram:log.sock");
	check_int(spec.type, LISTEN_UNIXGRAM);
	check_str(spec.path, "log.sock");
	listen_spec_finish(&spec);
	spec = parsed("fd:3");
	check_int(spec.type, LISTEN_FD);
	check_int(spec.fd, 3);
	check(!spec.nonblock_given);
	listen_spec_finish(&spec);
	spec = parsed("web=systemd?nonblock=no");
	check_int(spec.type, LISTEN_SYSTEMD);
	check(!spec.fd_name && !spec.nonblock && spec.nonblock_given);
	listen_spec_finish(&spec);
	spec = parsed("systemd:my-app.socket");
	check_str(spec.fd_name, "my-app.socket");
	listen_spec_finish(&spec);
}

static void test_spec_listen_options(void)
{
	struct listen_spec spec = parsed(":8080");
	check_int(spec.backlog, 4096);
	check_int(spec.v6only, -1);
	check_int(spec.mode, (mode_t)-1);
	check_int(spec.uid, (uid_t)-1);
	check_int(spec.gid, (gid_t)-1);
	check(!spec.reuseport && !spec.nonblock && !spec.nonblock_given && spec.fd == -1);
	listen_spec_finish(&spec);

	spec = parsed("http-1_a.b=[::1]:80?backlog=16&v6only=yes&reuseport&freebind=yes&nodelay&keepalive=no"
		      "&defer-accept=5s&nonblock=yes&rcvbuf=65536&sndbuf=1");
	check_str(spec.name, "http-1_a.b");
	check_int(spec.backlog, 16);
	check_int(spec.v6only, 1);
	check(spec.reuseport && spec.freebind && spec.nodelay && !spec.keepalive && spec.nonblock);
	check(spec.nonblock_given);
	check_int(spec.defer_accept, 5);
	check_int(spec.rcvbuf, 65536);
	check_int(spec.sndbuf, 1);
	listen_spec_finish(&spec);

	spec = parsed("unix:/run/a.sock?mode=0660&user=root&group=12345&backlog=1");
	check_str(spec.path, "/run/a.sock");
	check_int(spec.mode, 0660);
	check_int(spec.uid, 0);
	check_int(spec.gid, 12345);
	listen_spec_finish(&spec);

	spec = parsed(":80?v6only=no");
	check_int(spec.v6only, 0);
	listen_spec_finish(&spec);
}

static void refuses_listen(const char *text, const char *part)
{
	struct error error = {""};
	struct listen_spec spec;
	memset(&spec, 0x55, sizeof(spec));
	struct listen_spec before = spec;
	if (listen_spec_parse(text, &spec, &error) != -EINVAL)
		test_fail("%s was not refused", text);
	check(memcmp(&spec, &before, sizeof(spec)) == 0);
	check_contains(error.text, "listen \"");
	if (strlen(text) < 100)
		check_contains(error.text, text);
	check_contains(error.text, part);
}

static void test_spec_listen_refuses_addresses(void)
{
	refuses_listen("", "the address is missing");
	refuses_listen("web=", "the address is missing");
	refuses_listen(":", "the port is missing");
	refuses_listen("localhost:", "the port is missing");
	refuses_listen("8080", "write :8080");
	refuses_listen("udp:53", "write udp::53");
	refuses_listen("localhost", "write localhost:PORT");
	refuses_listen("/run/a.sock", "a unix socket is written unix:/run/a.sock");
	refuses_listen("unx:/run/a.sock", "unix:PATH");
	refuses_listen("http://localhost:80/", "URL");
	refuses_listen("tcp:127.0.0.1:80", "write 127.0.0.1:80");
	refuses_listen("*:80", ":8080");
	refuses_listen("::1:8080", "brackets");
	refuses_listen("::1", "write [::1]:PORT");
	refuses_listen("a:b:80", "too many colons");
	refuses_listen("[::1]", "write [::1]:PORT");
	refuses_listen("[::1:80", "closing bracket");
	refuses_listen("[127.0.0.1]:80", "not an IPv6 address");
	refuses_listen("[]:80", "not an IPv6 address");
	refuses_listen("[fe80::1%]:80", "interface is missing");
	refuses_listen("256.0.0.1:80", "not an IPv4 address");
	refuses_listen("127.1:80", "not an IPv4 address");
	refuses_listen("2130706433:80", "not an IPv4 address");
	refuses_listen("my host:80", "neither a host name nor an address");
	refuses_listen("-l:80", "neither a host name nor an address");
	refuses_listen(":65536", "0 to 65535");
	refuses_listen(":99999999999999999999", "0 to 65535");
	refuses_listen(":-1", "0 to 65535");
	refuses_listen(":http", "0 to 65535");
	refuses_listen(": 80", "0 to 65535");
	refuses_listen("fd:", "3 or above");
	refuses_listen("fd:2", "3 or above");
	refuses_listen("fd:x", "3 or above");
	refuses_listen("fd:4294967299", "3 or above");
	refuses_listen("systemd:", "name is missing");
	refuses_listen("systemd:a:b", "colons");
	refuses_listen("unix:", "path is missing");
	refuses_listen("unix:@", "path is missing");
	refuses_listen("unix:/run/", "folder");
	refuses_listen("=:80", "name before = is missing");
	refuses_listen("a b=:80", "a name is made of");
}

static void test_spec_listen_unix_path_length(void)
{
	char text[300];
	struct listen_spec spec;
	for (int abstract = 0; abstract <= 1; abstract++) {
		int length = snprintf(text, sizeof(text), "unix:%s%0*d", abstract ? "@" : "", 107, 0);
		spec = parsed(text);
		check_int(strlen(spec.path), 107);
		listen_spec_finish(&spec);
		snprintf(text + length, sizeof(text) - (size_t)length, "0");
		refuses_listen(text, "108 bytes, and the kernel takes 107");
	}
}

static void test_spec_listen_refuses_options(void)
{
	refuses_listen(":80?", "empty");
	refuses_listen(":80?nodelay&", "empty");
	refuses_listen(":80?nodely", "did you mean nodelay?");
	refuses_listen(":80?xyzzy=1", "no option \"xyzzy\"");
	refuses_listen(":80?nodelay&nodelay", "given twice");
	refuses_listen(":80?nodelay=1", "yes or no");
	refuses_listen(":80?nodelay=", "yes or no");
	refuses_listen(":80?backlog", "needs a value");
	refuses_listen(":80?backlog=", "from 1 to");
	refuses_listen(":80?backlog=0", "from 1 to");
	refuses_listen(":80?backlog=2147483648", "from 1 to 2147483647");
	refuses_listen(":80?rcvbuf=-1", "from 1 to");
	refuses_listen(":80?defer-accept=500ms", "whole seconds");
	refuses_listen(":80?defer-accept=none", "whole seconds");
	refuses_listen(":80?defer-accept=5", "add a unit");
	refuses_listen(":80?mode=0660", "mode is for unix: and unixgram: paths only");
	refuses_listen("127.0.0.1:80?v6only=yes", "IPv6");
	refuses_listen("unix:/a?v6only=yes", "TCP and UDP");
	refuses_listen("unix:/a?mode=0999", "octal");
	refuses_listen("unix:/a?user=no-such-user", "no such user");
	refuses_listen("unix:/a?group=no-such-group", "no such group");
	refuses_listen("unix:@a?mode=0660", "abstract");
	refuses_listen("udp::53?nodelay", "TCP addresses only");
	refuses_listen("udp::53?backlog=5", "only");
	refuses_listen("unixgram:/a?backlog=5", "only");
	refuses_listen("fd:3?backlog=5", "only");
	refuses_listen("systemd?rcvbuf=5", "bound here only");
}

static void test_spec_listen_long_text_keeps_the_reason(void)
{
	char text[3000];
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	refuses_listen(text, "the port is missing");
	memcpy(text, "unix:/", 6);
	refuses_listen(text, "kernel takes 107");
	memcpy(text, ":80?", 4);
	refuses_listen(text, "no option");
}

TEST_MAIN(TEST(test_spec_duration_takes_units), TEST(test_spec_duration_refuses_the_rest),
	  TEST(test_spec_signal_takes_names_and_numbers), TEST(test_spec_signal_refuses_the_rest),
	  TEST(test_spec_signal_name_comes_back), TEST(test_spec_number_keeps_its_bounds),
	  TEST(test_spec_mode_is_octal), TEST(test_spec_user_and_group_by_name_and_number),
	  TEST(test_spec_word_lists_and_suggests), TEST(test_spec_closest_is_near_or_nothing),
	  TEST(test_spec_listen_addresses), TEST(test_spec_listen_unix_fd_systemd), TEST(test_spec_listen_options),
	  TEST(test_spec_listen_refuses_addresses), TEST(test_spec_listen_unix_path_length),
	  TEST(test_spec_listen_refuses_options), TEST(test_spec_listen_long_text_keeps_the_reason))
