/* SPDX-License-Identifier: MIT */
/* The text of `handoff --help` and the list of option names, both made from the table of options. */
#include <bsd/string.h>
#include <stdio.h>
#include <string.h>

#include "options_table.h"

/* Where the explanations begin. */
#define HELP_COLUMN 29

/* Longer than the table will be; a text that did not fit would end in the middle of a line, which a test sees. */
#define HELP_SIZE 8192
#define NAMES_MAX 128

static const char help_head[] = "Usage: handoff [run] [OPTIONS] -- COMMAND [ARG...]\n"
				"       handoff check [OPTIONS] [-- COMMAND [ARG...]]\n"
				"       handoff reload | status | stop | list [...]\n"
				"       handoff completion bash | zsh | fish\n"
				"       handoff help | version\n"
				"\n"
				"handoff owns a server's listening sockets, so that the server behind them can be\n"
				"replaced without one lost connection. \"run\" binds the addresses and starts COMMAND\n"
				"with the listeners as descriptors 3, 4, ...; on \"reload\" or SIGUSR1 it starts a\n"
				"new one, waits until it is ready, and asks the old one to drain. \"check\" says what\n"
				"is wrong with the options, the config file and the addresses, and starts nothing.\n";

static const char help_tail[] = "\n"
				"T is a time: 500ms, 30s, 5m, 1h, 0, or none. Options after -- or after COMMAND\n"
				"belong to the server. A config file has the same options as keys, and \"command\".\n"
				"\n"
				"Signals: USR1 and HUP hand off, INT drains and exits (twice: at once), TERM stops\n"
				"at once. The manual page handoff(1) has everything else.\n";

static char help_text[HELP_SIZE];

static void help_row(const struct option_row *row)
{
	char line[128];
	int width;
	if (row->letter)
		width = snprintf(line, sizeof(line), "  -%c, %s", row->letter, row->option);
	else
		width = snprintf(line, sizeof(line), "      %s", row->option);
	if (row->value)
		width += snprintf(line + width, sizeof(line) - (size_t)width, " %s", row->value);
	strlcat(help_text, line, sizeof(help_text));

	/* A name that reaches into the explanations has a line of its own. */
	bool fits = width + 1 < HELP_COLUMN;
	if (!fits)
		strlcat(help_text, "\n", sizeof(help_text));
	int indent = fits ? HELP_COLUMN - width : HELP_COLUMN;
	for (const char *help = row->help; *help;) {
		int length = (int)strcspn(help, "\n");
		snprintf(line, sizeof(line), "%*s%.*s\n", indent, "", length, help);
		strlcat(help_text, line, sizeof(help_text));
		help += length + (help[length] == '\n');
		indent = HELP_COLUMN;
	}
}

const char *options_help(void)
{
	strlcpy(help_text, help_head, sizeof(help_text));
	for (size_t i = 0; i < options_table_count; i++) {
		if (options_table[i].section) {
			strlcat(help_text, "\n", sizeof(help_text));
			strlcat(help_text, options_table[i].section, sizeof(help_text));
			strlcat(help_text, ":\n", sizeof(help_text));
		}
		help_row(&options_table[i]);
	}
	strlcat(help_text, help_tail, sizeof(help_text));
	return help_text;
}

const char *const *options_long_names(void)
{
	static const char *names[NAMES_MAX + 1];
	for (size_t i = 0; i < options_table_count && i < NAMES_MAX; i++)
		names[i] = option_row_name(&options_table[i]);
	return names;
}
