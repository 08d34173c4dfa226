/* SPDX-License-Identifier: MIT */
/* A page of test harness: TAP out, one program a module, descriptors and children counted around every test. */
#ifndef HANDOFF_TEST_H
#define HANDOFF_TEST_H

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct test_case {
	const char *name;
	void (*run)(void);
};

static const char *test_current;
static int test_number;

#define test_fail(...)                                                                                                 \
	do {                                                                                                           \
		printf("not ok %d - %s\n# %s:%d: ", test_number, test_current, __FILE__, __LINE__);                    \
		printf(__VA_ARGS__);                                                                                   \
		printf("\n");                                                                                          \
		fflush(stdout);                                                                                        \
		_exit(1);                                                                                              \
	} while (0)

#define check(condition)                                                                                               \
	do {                                                                                                           \
		if (!(condition))                                                                                      \
			test_fail("not so: " #condition);                                                              \
	} while (0)

#define check_int(got, want)                                                                                           \
	do {                                                                                                           \
		long long got_ = (long long)(got), want_ = (long long)(want);                                          \
		if (got_ != want_)                                                                                     \
			test_fail("%s is %lld, not %lld (%s)", #got, got_, want_, #want);                              \
	} while (0)

#define check_str(got, want)                                                                                           \
	do {                                                                                                           \
		const char *got_ = (got), *want_ = (want);                                                             \
		if (!got_ || strcmp(got_, want_) != 0)                                                                 \
			test_fail("%s is \"%s\", not \"%s\"", #got, got_ ? got_ : "(null)", want_);                    \
	} while (0)

#define check_contains(got, part)                                                                                      \
	do {                                                                                                           \
		const char *got_ = (got), *part_ = (part);                                                             \
		if (!got_ || !strstr(got_, part_))                                                                     \
			test_fail("%s is \"%s\", without \"%s\"", #got, got_ ? got_ : "(null)", part_);                \
	} while (0)

static inline int test_open_fds(void)
{
	int count = 0;
	DIR *dir = opendir("/proc/self/fd");
	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

/* Runs all tests in this process; a failing one ends it (the plan line then tells TAP readers that tests are missing).
 */
static inline int test_run(const struct test_case *cases, size_t count)
{
	printf("1..%zu\n", count);
	for (size_t i = 0; i < count; i++) {
		test_number = (int)i + 1;
		test_current = cases[i].name;
		int before = test_open_fds();
		cases[i].run();
		if (test_open_fds() != before)
			test_fail("descriptors leaked: %d before, %d after", before, test_open_fds());
		if (waitpid(-1, NULL, WNOHANG) != -1 || errno != ECHILD)
			test_fail("a child process was left behind");
		printf("ok %d - %s\n", test_number, test_current);
		fflush(stdout);
	}
	return 0;
}

#define TEST(function)                                                                                                 \
	{                                                                                                              \
#function, function                                                                                    \
	}
#define TEST_MAIN(...)                                                                                                 \
	int main(void)                                                                                                 \
	{                                                                                                              \
		static const struct test_case cases[] = {__VA_ARGS__};                                                 \
		return test_run(cases, sizeof(cases) / sizeof(cases[0]));                                              \
	}

#endif
