/* SPDX-License-Identifier: MIT */
/* One sentence about what went wrong, made safe to print. */
#include <assert.h>
#include <bsd/string.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "error.h"

/* The length of the printable character that starts `bytes`, 0 where there is none. Overlong forms, surrogates and
 * what lies above U+10FFFF are broken UTF-8 (RFC 3629); U+0080 to U+009F are control characters that terminals obey. */
static size_t character_length(const unsigned char *bytes, size_t left)
{
	static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
	unsigned char first = bytes[0];
	size_t length = first < 0x80 ? 1 : first >> 5 == 0x6 ? 2 : first >> 4 == 0xe ? 3 : first >> 3 == 0x1e ? 4 : 0;

	if (length == 1)
		return first >= 0x20 && first != 0x7f;
	if (length == 0 || length > left)
		return 0;
	uint32_t code = first & (0xffu >> (length + 1));
	for (size_t i = 1; i < length; i++) {
		if (bytes[i] >> 6 != 0x2)
			return 0;
		code = code << 6 | (bytes[i] & 0x3fu);
	}
	if (code < smallest[length] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff) || code < 0xa0)
		return 0;
	return length;
}

char *error_printable(char *ret, size_t size, const char *text, size_t length)
{
	static const char digits[] = "0123456789abcdef";
	const unsigned char *bytes = (const unsigned char *)text;
	size_t out = 0;

	assert(size > 0);
	for (size_t i = 0; i < length;) {
		size_t taken = character_length(bytes + i, length - i);
		size_t needed = taken > 0 ? taken : strlen("\\xNN");

		if (needed >= size - out)
			break;
		if (taken > 0) {
			memcpy(ret + out, bytes + i, taken);
			i += taken;
		} else {
			ret[out] = '\\';
			ret[out + 1] = 'x';
			ret[out + 2] = digits[bytes[i] >> 4];
			ret[out + 3] = digits[bytes[i] & 0xf];
			i++;
		}
		out += needed;
	}
	ret[out] = '\0';
	return ret;
}

int error_set(struct error *error, int code, const char *format, ...)
{
	/* Formatted aside, because a sentence may be wrapped into a longer one that names it as an argument. Four bytes
	 * more than the result can hold, so that the cut is made at a character's end and not shown as a broken one. */
	char raw[sizeof(error->text) + 4];
	int saved_errno = errno;
	va_list arguments;

	if (!error)
		return code;
	va_start(arguments, format);
	int length = vsnprintf(raw, sizeof(raw), format, arguments);
	va_end(arguments);
	if (length < 0)
		length = (int)strlcpy(raw, "error text could not be formatted", sizeof(raw));
	if ((size_t)length >= sizeof(raw))
		length = sizeof(raw) - 1;
	error_printable(error->text, sizeof(error->text), raw, (size_t)length);
	errno = saved_errno;
	return code;
}
