/* SPDX-License-Identifier: MIT */
/* Fuzzes the parsers of single values: listen SPECs, readiness, durations, signals, numbers, modes, printable text. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "ready.h"
#include "spec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What a failed parser owes: an errno, and a sentence. */
static void check_failure(int r, const struct error *error)
{
	assert(r >= 0 || error->text[0]);
}

static void try_listen_spec(const char *text)
{
	struct error error = {0};
	struct listen_spec spec;
	int r = listen_spec_parse(text, &spec, &error);
	check_failure(r, &error);
	if (r < 0)
		return;
	assert(strcmp(spec.text, text) == 0);
	listen_spec_finish(&spec);
}

static void try_ready_how(const char *text)
{
	struct error error = {0};
	struct ready_how how;
	int r = ready_how_parse(text, &how, &error);
	check_failure(r, &error);
	if (r >= 0)
		ready_how_finish(&how);
}

static void try_values(const char *text)
{
	struct error error = {0};
	int64_t number;
	int signal_number;
	mode_t mode;
	int r = spec_duration("--settle", text, &number, &error);
	check_failure(r, &error);
	assert(r < 0 || number >= DURATION_NONE);
	error.text[0] = '\0';
	r = spec_number("--max-draining", text, 1, 64, &number, &error);
	check_failure(r, &error);
	assert(r < 0 || (number >= 1 && number <= 64));
	error.text[0] = '\0';
	r = spec_signal("--drain-signal", text, &signal_number, &error);
	check_failure(r, &error);
	assert(r < 0 || (signal_number >= 1 && signal_number <= 64));
	error.text[0] = '\0';
	r = spec_mode("--umask", text, &mode, &error);
	check_failure(r, &error);
	assert(r < 0 || mode <= 07777);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);
	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	try_listen_spec(text);
	try_ready_how(text);
	try_values(text);
	/* Small, so that the cut falls anywhere. */
	char shown[16];
	error_printable(shown, sizeof(shown), text, size);
	assert(strlen(shown) < sizeof(shown));
	free(text);
	return 0;
}
