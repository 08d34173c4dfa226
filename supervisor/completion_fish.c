/* SPDX-License-Identifier: MIT */
/* The completion script for fish. */
#include <string.h>

#include "completion_private.h"

static const char head[] =
	"# fish completion for handoff, made by: handoff completion fish\n"
	"function __handoff_names\n"
	"	handoff list 2>/dev/null | string match -v -r '^NAME ' | string replace -r ' .*' ''\n"
	"end\n"
	"\n"
	"# Whether the command word is the given one (run, where there is none), and the server's line has not begun.\n"
	"function __handoff_in\n"
	"	set -l words (commandline -opc)\n"
	"	contains -- -- $words; and return 1\n"
	"	set -l word run\n"
	"	contains -- \"$words[2]\" $__handoff_words; and set word $words[2]\n"
	"	test $word = $argv[1]\n"
	"end\n"
	"\n"
	"function __handoff_first\n"
	"	test (count (commandline -opc)) -eq 1\n"
	"end\n"
	"\n"
	"function __handoff_after_hyphens\n"
	"	contains -- -- (commandline -opc)\n"
	"end\n"
	"\n"
	"function __handoff_server_line\n"
	"	set -l words (commandline -opc)\n"
	"	set -l at (contains -i -- -- $words)\n"
	"	set -l rest $words[(math $at + 1)..-1]\n"
	"	test $at -lt (count $words); or set rest\n"
	"	complete -C (string join ' ' -- (string escape -- $rest) (commandline -ct))\n"
	"end\n"
	"\n"
	"complete -c handoff -f\n"
	"complete -c handoff -n __handoff_after_hyphens -xa '(__handoff_server_line)'\n";

/* In single quotes only these two are special. */
static void write_text(FILE *out, const char *text)
{
	completion_help(out, text, "\\'");
}

static void write_value(FILE *out, const char *value, const char *const *words)
{
	static const char *const sources[] = {
		[COMPLETION_NOTHING] = " -x",
		[COMPLETION_FILE] = " -r -F",
		[COMPLETION_FOLDER] = " -xa '(__fish_complete_directories (commandline -ct))'",
		[COMPLETION_USER] = " -xa '(__fish_complete_users)'",
		[COMPLETION_GROUP] = " -xa '(__fish_complete_groups)'",
		[COMPLETION_SIGNAL] = " -xa '(kill -l | string split \" \")'",
		[COMPLETION_READY] = NULL,
	};
	enum completion_kind kind = completion_kind(value);
	if (!words && kind != COMPLETION_READY) {
		fputs(sources[kind], out);
		return;
	}
	fputs(" -xa '", out);
	if (words)
		completion_list(out, words, " ");
	else
		completion_ready_words(out, " ");
	fputc('\'', out);
}

static void write_option(FILE *out, const char *command, const char *option, char letter, const char *help)
{
	fprintf(out, "complete -c handoff -n '__handoff_in %s' -l %s", command, option + 2);
	if (letter)
		fprintf(out, " -s %c", letter);
	fputs(" -d '", out);
	write_text(out, help);
	fputc('\'', out);
}

static void write_word(FILE *out, const char *word, const char *help)
{
	fprintf(out, "complete -c handoff -n __handoff_first -a %s -d '", word);
	write_text(out, help);
	fputs("'\n", out);
}

static void write_server_options(FILE *out, const char *command)
{
	for (size_t i = 0; i < options_table_count; i++) {
		const struct option_row *row = &options_table[i];
		write_option(out, command, row->option, row->letter, row->help);
		if (row->value)
			write_value(out, row->value, row->words);
		fputc('\n', out);
	}
}

static void write_client(FILE *out, const struct ctl_command *command)
{
	for (const struct ctl_option *option = command->options; option->option; option++) {
		write_option(out, command->word, option->option, 0, option->help);
		if (option->value)
			write_value(out, option->value, NULL);
		fputc('\n', out);
	}
	if (!command->operand)
		return;
	fprintf(out, "complete -c handoff -n '__handoff_in %s' -a '", command->word);
	if (command->operand_words)
		completion_list(out, command->operand_words, " ");
	else
		fputs("(__handoff_names)", out);
	fputs("'\n", out);
}

void completion_fish(FILE *out)
{
	fputs(head, out);
	fputs("set -g __handoff_words", out);
	for (size_t i = 0; completion_words[i].word; i++)
		fprintf(out, " %s", completion_words[i].word);
	for (size_t i = 0; i < ctl_command_count; i++)
		fprintf(out, " %s", ctl_commands[i].word);
	fputc('\n', out);
	for (size_t i = 0; completion_words[i].word; i++) {
		write_word(out, completion_words[i].word, completion_words[i].help);
		if (completion_words[i].takes_options)
			write_server_options(out, completion_words[i].word);
	}
	for (size_t i = 0; i < ctl_command_count; i++) {
		write_word(out, ctl_commands[i].word, ctl_commands[i].help);
		write_client(out, &ctl_commands[i]);
	}
}
