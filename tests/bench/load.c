/* SPDX-License-Identifier: MIT */
/* An open-loop load generator that counts every way in which a connection can be lost. */
#include "load.h"

#include <bsd/stdlib.h>
#include <err.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

struct load_settings load = {
	.path = "/",
	.expect = "gen=",
	.rate = 100,
	.keepalive_rate = 50,
	.sources = 64,
	.duration_ns = 10LL * 1000000000,
	.timeout_ns = 5LL * 1000000000,
	.mark_window_ns = 1000000000,
	.mark_fd = -1,
};
struct load_counts load_counts;

static const char usage_text[] =
	"Usage: load --target tcp:HOST:PORT|unix:/path [OPTIONS]\n"
	"       load --target T --one [--path P] [--hold MS]   one request, its body on stdout\n"
	"       load --free-port                               a TCP port that nobody uses\n"
	"       load --now                                     CLOCK_MONOTONIC in ns, for marks\n"
	"  --rate N             new connections a second, one request each (100)\n"
	"  --keepalive N        keep-alive clients (0)\n"
	"  --keepalive-rate N   requests a second of each of them (50)\n"
	"  --duration T         10s, 500ms, 2m (10s); INT or TERM end it earlier\n"
	"  --timeout T          of one request, from its start (5s)\n"
	"  --path P             (/)\n"
	"  --expect TEXT        a good answer holds it (gen=)\n"
	"  --sources N          source addresses from 127.0.1.1 on, for loopback targets (64; 0: the default one)\n"
	"  --records FILE       every request as CSV\n"
	"  --marks FILE         read at the end: lines \"start NS\", \"end NS\" (CLOCK_MONOTONIC) around hand-offs\n"
	"  --mark-fd N          the same lines while it runs, NS left out meaning now; \"mark\" is a start with an "
	"end\n"
	"  --mark-window T      that long after it (1s)\n"
	"Prints one JSON object. Exit status: 0 no failure, 1 failures, 2 usage or cannot run.\n";

int64_t load_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

enum option_code {
	OPT_TARGET = 256,
	OPT_RATE,
	OPT_KEEPALIVE,
	OPT_KEEPALIVE_RATE,
	OPT_DURATION,
	OPT_TIMEOUT,
	OPT_PATH,
	OPT_EXPECT,
	OPT_SOURCES,
	OPT_RECORDS,
	OPT_MARKS,
	OPT_MARK_FD,
	OPT_MARK_WINDOW,
	OPT_ONE,
	OPT_HOLD,
	OPT_FREE_PORT,
	OPT_NOW,
	OPT_HELP,
};

static const struct option options[] = {
	{"target", required_argument, NULL, OPT_TARGET},
	{"rate", required_argument, NULL, OPT_RATE},
	{"keepalive", required_argument, NULL, OPT_KEEPALIVE},
	{"keepalive-rate", required_argument, NULL, OPT_KEEPALIVE_RATE},
	{"duration", required_argument, NULL, OPT_DURATION},
	{"timeout", required_argument, NULL, OPT_TIMEOUT},
	{"path", required_argument, NULL, OPT_PATH},
	{"expect", required_argument, NULL, OPT_EXPECT},
	{"sources", required_argument, NULL, OPT_SOURCES},
	{"records", required_argument, NULL, OPT_RECORDS},
	{"marks", required_argument, NULL, OPT_MARKS},
	{"mark-fd", required_argument, NULL, OPT_MARK_FD},
	{"mark-window", required_argument, NULL, OPT_MARK_WINDOW},
	{"one", no_argument, NULL, OPT_ONE},
	{"hold", required_argument, NULL, OPT_HOLD},
	{"free-port", no_argument, NULL, OPT_FREE_PORT},
	{"now", no_argument, NULL, OPT_NOW},
	{"help", no_argument, NULL, OPT_HELP},
	{0},
};

static double real(const char *text)
{
	char *end;
	double value = strtod(text, &end);

	if (end == text || *end || value < 0 || value > 1e6)
		errx(2, "not a rate: \"%s\"", text);
	return value;
}

static int64_t duration(const char *text)
{
	static const struct {
		const char *unit;
		double ns;
	} units[] = {{"ms", 1e6}, {"s", 1e9}, {"m", 60e9}, {"h", 3600e9}};
	char *end;
	double value = strtod(text, &end);

	for (size_t i = 0; end != text && value >= 0 && i < sizeof(units) / sizeof(units[0]); i++)
		if (strcmp(end, units[i].unit) == 0)
			return (int64_t)(value * units[i].ns);
	errx(2, "not a duration: \"%s\"", text);
}

static int number(const char *text, int max)
{
	const char *problem;
	int value = (int)strtonum(text, 0, max, &problem);

	if (problem)
		errx(2, "\"%s\" is %s", text, problem);
	return value;
}

static bool take_text(int code, const char *value)
{
	switch (code) {
	case OPT_TARGET:
		if (load_target_parse(value, &load.target) < 0)
			errx(2, "not a target: \"%s\"", value);
		return true;
	case OPT_PATH:
		load.path = value;
		return true;
	case OPT_EXPECT:
		load.expect = value;
		return true;
	case OPT_RECORDS:
		load.records_file = value;
		return true;
	case OPT_MARKS:
		load.marks_file = value;
		return true;
	default:
		return false;
	}
}

static void take_number(int code, const char *value)
{
	switch (code) {
	case OPT_RATE:
		load.rate = real(value);
		break;
	case OPT_KEEPALIVE_RATE:
		load.keepalive_rate = real(value);
		break;
	case OPT_KEEPALIVE:
		load.keepalive = (unsigned)number(value, 100000);
		break;
	case OPT_SOURCES:
		load.sources = (unsigned)number(value, 50000);
		break;
	case OPT_MARK_FD:
		load.mark_fd = number(value, 1 << 20);
		break;
	case OPT_DURATION:
		load.duration_ns = duration(value);
		break;
	case OPT_TIMEOUT:
		load.timeout_ns = duration(value);
		break;
	case OPT_MARK_WINDOW:
		load.mark_window_ns = duration(value);
		break;
	default:
		exit(2);
	}
}

static int run(void)
{
	struct rlimit files;
	int64_t begin_ns, failures;
	int r;

	/* A stalled server may leave thousands of connections open at once. */
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	r = load_run(&begin_ns);
	if (r < 0)
		errx(2, "cannot run: %s", strerror(-r));
	failures = load_report(begin_ns);
	if (failures < 0)
		errx(2, "cannot report: %s", strerror((int)-failures));
	return failures > 0;
}

int main(int argc, char **argv)
{
	bool single = false;
	int code, hold_ms = 0;

	while ((code = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (code == OPT_HELP) {
			fputs(usage_text, stdout);
			return 0;
		} else if (code == OPT_FREE_PORT) {
			return load_print_free_port();
		} else if (code == OPT_NOW) {
			printf("%lld\n", (long long)load_now_ns());
			return 0;
		} else if (code == OPT_ONE) {
			single = true;
		} else if (code == OPT_HOLD) {
			hold_ms = number(optarg, 3600 * 1000);
		} else if (!take_text(code, optarg)) {
			take_number(code, optarg);
		}
	}
	if (!load.target.text || optind < argc)
		errx(2, "%s (see --help)", load.target.text ? "an argument too many" : "no --target");
	if (single)
		load.expect = "";
	return single ? load_one(hold_ms) : run();
}
