/* SPDX-License-Identifier: MIT */
/* Tests of error.c: sentences that are safe to print, whatever they quote. */
#include <string.h>

#include "error.h"
#include "../lib/test.h"

static const char *printable(const char *text, size_t length)
{
	static char result[256];

	check(error_printable(result, sizeof(result), text, length) == result);
	return result;
}

static void test_error_set_returns_the_code_and_keeps_errno(void)
{
	struct error error;

	errno = EDOM;
	check_int(error_set(&error, -EINVAL, "bad port %d", 70000), -EINVAL);
	check_str(error.text, "bad port 70000");
	check_int(error_set(NULL, -EPERM, "lost"), -EPERM);
	check_int(errno, EDOM);
}

static void test_error_set_wraps_its_own_text(void)
{
	struct error error;

	error_set(&error, -EINVAL, "port %d", 1);
	error_set(&error, -EINVAL, "option --listen: %s", error.text);
	check_str(error.text, "option --listen: port 1");
}

static void test_error_set_shows_bad_bytes(void)
{
	struct error error;

	error_set(&error, -EINVAL, "name %s", "a\nb\x1b[31m\xff");
	check_str(error.text, "name a\\x0ab\\x1b[31m\\xff");
}

static void test_error_set_cuts_at_a_characters_end(void)
{
	struct error error;
	char text[2 * sizeof(error.text)];

	/* Every alignment of two-byte characters against the end. */
	for (size_t skip = 0; skip < 2; skip++) {
		size_t used = 0;
		if (skip)
			text[used++] = 'x';
		while (used + 2 < sizeof(text)) {
			text[used++] = '\xc3';
			text[used++] = '\xa4';
		}
		text[used] = '\0';
		error_set(&error, -EINVAL, "%s", text);
		size_t length = strlen(error.text);
		check(length == sizeof(error.text) - 1 || length == sizeof(error.text) - 2);
		check(!strchr(error.text, '\\'));
		check_int((unsigned char)error.text[length - 1], 0xa4);
	}
}

static void test_error_printable_keeps_utf8(void)
{
	const char *text = "\xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80 \xc2\xa0 \xf4\x8f\xbf\xbf \\ ~";

	check_str(printable(text, strlen(text)), text);
}

static void test_error_printable_shows_control_characters(void)
{
	check_str(printable("a\0b\t\x7f", 5), "a\\x00b\\x09\\x7f");
	check_str(printable("\xc2\x9b", 2), "\\xc2\\x9b"); /* U+009B is CSI, as good as ESC [ */
}

static void test_error_printable_shows_broken_utf8(void)
{
	check_str(printable("\xc3", 1), "\\xc3");
	check_str(printable("\xc3(", 2), "\\xc3(");
	check_str(printable("\xa4", 1), "\\xa4");
	check_str(printable("\xc0\xaf", 2), "\\xc0\\xaf");                   /* overlong '/' */
	check_str(printable("\xe0\x80\xaf", 3), "\\xe0\\x80\\xaf");          /* overlong '/' */
	check_str(printable("\xed\xa0\x80", 3), "\\xed\\xa0\\x80");          /* surrogate */
	check_str(printable("\xf4\x90\x80\x80", 4), "\\xf4\\x90\\x80\\x80"); /* above U+10FFFF */
	check_str(printable("\xf8\x88\x80\x80\x80", 5), "\\xf8\\x88\\x80\\x80\\x80");
	check_str(printable("\xe2\x82\xac", 2), "\\xe2\\x82");
}

static void test_error_printable_never_splits_a_unit(void)
{
	char small[16];

	for (size_t size = 1; size <= 5; size++) {
		memset(small, 'z', sizeof(small));
		check_str(error_printable(small, size, "\x01", 1), size < 5 ? "" : "\\x01");
		check_int(small[5], 'z');
	}
	check_str(error_printable(small, 4, "a\xe2\x82\xac", 4), "a");
	check_str(error_printable(small, 5, "a\xe2\x82\xac", 4), "a\xe2\x82\xac");
}

TEST_MAIN(TEST(test_error_set_returns_the_code_and_keeps_errno), TEST(test_error_set_wraps_its_own_text),
	  TEST(test_error_set_shows_bad_bytes), TEST(test_error_set_cuts_at_a_characters_end),
	  TEST(test_error_printable_keeps_utf8), TEST(test_error_printable_shows_control_characters),
	  TEST(test_error_printable_shows_broken_utf8), TEST(test_error_printable_never_splits_a_unit))
