/* SPDX-License-Identifier: MIT */
/* `handoff completion SHELL`: what the shells' scripts share; nothing is listed here that a table lists already. */
#include "completion.h"

#include <string.h>

#include "completion_private.h"
#include "ctl_private.h"
#include "spec.h"

const char *const completion_shells[] = {"bash", "zsh", "fish", NULL};

/* The words of the command line's own parser (options.c). Without options they take nothing. */
const struct completion_word completion_words[] = {
	{"run", "supervise a server", true},
	{"check", "say what is wrong with the options and addresses", true},
	{"help", "show the options", false},
	{"version", "show the version", false},
	{NULL, NULL, false},
};

enum completion_kind completion_kind(const char *value)
{
	static const struct {
		const char *value;
		enum completion_kind kind;
	} kinds[] = {{"FILE", COMPLETION_FILE}, {"PATH", COMPLETION_FILE},   {"DIR", COMPLETION_FOLDER},
		     {"U", COMPLETION_USER},    {"G", COMPLETION_GROUP},     {"SIG", COMPLETION_SIGNAL},
		     {"HOW", COMPLETION_READY}, {"NAME", COMPLETION_NOTHING}};
	/* "PATH[?mode=]" is a path too. */
	size_t length = strcspn(value, "[?");
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (strlen(kinds[i].value) == length && strncmp(kinds[i].value, value, length) == 0)
			return kinds[i].kind;
	return COMPLETION_NOTHING;
}

void completion_ready_words(FILE *out, const char *between)
{
	for (int kind = READY_AUTO; kind <= READY_NOW; kind++) {
		const char *name = ready_kind_name((enum ready_kind)kind);
		bool takes_value = kind == READY_DELAY || kind == READY_EXEC;
		fprintf(out, "%s%s%s", kind == READY_AUTO ? "" : between, name, takes_value ? ":" : "");
	}
}

void completion_list(FILE *out, const char *const *words, const char *between)
{
	for (size_t i = 0; words[i]; i++)
		fprintf(out, "%s%s", i == 0 ? "" : between, words[i]);
}

void completion_help(FILE *out, const char *help, const char *specials)
{
	for (; *help; help++) {
		if (strchr(specials, *help))
			fputc('\\', out);
		fputc(*help == '\n' ? ' ' : *help, out);
	}
}

void completion_write(FILE *out, unsigned shell)
{
	static void (*const writers[])(FILE *) = {completion_bash, completion_zsh, completion_fish};
	writers[shell](out);
}

int completion_print(const struct ctl_request *request)
{
	unsigned shell = 0;
	(void)spec_word("SHELL", request->operand, completion_shells, &shell, NULL);
	completion_write(stdout, shell);
	return ctl_flush();
}
