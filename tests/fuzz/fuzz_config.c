/* SPDX-License-Identifier: MIT */
/* Fuzzes the config file: the input is the whole of it. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char *command[] = {NULL, NULL};
	static char program[] = "x";
	int fd = memfd_create("config", MFD_CLOEXEC);
	if (fd < 0)
		abort();
	if (write(fd, data, size) != (ssize_t)size)
		abort();
	char path[64];
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);

	/* With and without a command of the command line, which a file need not repeat. */
	command[0] = program;
	struct options given = {.command = command}, fresh, again;
	struct error error = {0};
	int code = config_load(path, &given, &fresh, &error);
	assert(code == 0 || (code < 0 && error.text[0]));
	if (code == 0) {
		assert(fresh.command == command && !fresh.command_is_files);
		assert(fresh.ready_count > 0 && fresh.workers >= 1 && fresh.workers <= WORKERS_MAX);
		/* What was read once can be read over itself. */
		assert(config_load(path, &fresh, &again, &error) == 0);
		assert(options_fixed_difference(&fresh, &again, &error) == 0);
		options_finish(&again);
		options_finish(&fresh);
	}
	given.command = NULL;
	code = config_load(path, &given, &fresh, &error);
	if (code == 0) {
		assert(fresh.command_is_files && fresh.command[0] && fresh.command[0][0]);
		options_finish(&fresh);
	}
	close(fd);
	return 0;
}
