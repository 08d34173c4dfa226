/* SPDX-License-Identifier: MIT */
/* Fuzzes the parser of notify datagrams: whatever comes in, its results stay inside the datagram. */
#include <stdlib.h>
#include <string.h>

#include "ready_private.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size > READY_DATAGRAM_MAX)
		return 0;
	/* Its exact size, so that a read beyond the end is seen. */
	char *text = malloc(size ? size : 1);
	struct ready_message message;
	if (!text)
		abort();
	if (size > 0)
		memcpy(text, data, size);
	if (ready_message_parse(text, size, &message) < 0) {
		free(text);
		return 0;
	}
	if (message.main_pid < 0 || (!message.has_main_pid && message.main_pid != 0))
		abort();
	if (message.status) {
		char printable[READY_TEXT_MAX];
		if (message.status < text || message.status_length > size ||
		    message.status + message.status_length > text + size)
			abort();
		error_printable(printable, sizeof(printable), message.status, message.status_length);
		for (const char *c = printable; *c; c++) {
			if ((unsigned char)*c < ' ' || *c == 0x7f)
				abort();
		}
	}
	free(text);
	return 0;
}
