/* SPDX-License-Identifier: MIT */
/* Fuzzes the command line: each line of the input is one argument. */
#include <assert.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "options.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ARGUMENTS_MAX 32

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char program[] = "handoff";
	char *argv[ARGUMENTS_MAX + 1] = {program};
	int argc = 1;
	char *text = malloc(size + 1);
	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	for (char *rest = text, *argument; argc < ARGUMENTS_MAX && (argument = strsep(&rest, "\n"));)
		argv[argc++] = argument;
	/* getopt_long(3): 0 starts anew, also inside. */
	optind = 0;
	struct options options;
	struct error error = {0};
	int r = options_parse(argc, argv, &options, &error);
	if (r < 0) {
		assert(error.text[0]);
	} else {
		assert(options.command_kind != COMMAND_RUN || options.ready_count > 0);
		options_finish(&options);
	}
	free(text);
	return 0;
}
