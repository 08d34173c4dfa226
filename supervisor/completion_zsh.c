/* SPDX-License-Identifier: MIT */
/* The completion script for zsh, for its _arguments. */
#include <string.h>

#include "completion_private.h"

static const char head[] = "#compdef handoff\n"
			   "# zsh completion for handoff, made by: handoff completion zsh\n"
			   "_handoff_names() {\n"
			   "	local -a names\n"
			   "	names=(${${(f)\"$(handoff list 2>/dev/null)\"}%% *})\n"
			   "	names=(${names:#NAME})\n"
			   "	compadd -a names\n"
			   "}\n"
			   "\n"
			   "_handoff() {\n"
			   "	local command=run\n"
			   "	local -a command_words\n"
			   "	local -i hyphens=${words[(i)--]}\n"
			   "	# After -- comes the server's own command line.\n"
			   "	if ((hyphens < CURRENT)); then\n"
			   "		shift $hyphens words\n"
			   "		((CURRENT -= hyphens))\n"
			   "		_normal\n"
			   "		return\n"
			   "	fi\n";

static const char middle[] = "	if ((CURRENT == 2)) && [[ $words[2] != -* ]]; then\n"
			     "		_describe command command_words\n"
			     "		return\n"
			     "	fi\n"
			     "	if ((${command_words[(I)$words[2]:*]})); then\n"
			     "		command=$words[2]\n"
			     "		shift words\n"
			     "		((CURRENT--))\n"
			     "	fi\n"
			     "	case $command in\n";

/* Sourced, it registers itself; in a folder of $fpath, zsh calls the file itself as the function. */
static const char tail[] = "	esac\n"
			   "}\n"
			   "\n"
			   "if [[ $funcstack[1] == _handoff ]]; then\n"
			   "	_handoff \"$@\"\n"
			   "else\n"
			   "	compdef _handoff handoff\n"
			   "fi\n";

/* A quoted _arguments spec. Help texts have no quote that could end it: an apostrophe is written as '\''. */
static void write_text(FILE *out, const char *text)
{
	for (; *text; text++) {
		if (*text == '\'')
			fputs("'\\''", out);
		else if (strchr("[]:\\", *text))
			fprintf(out, "\\%c", *text);
		else
			fputc(*text == '\n' ? ' ' : *text, out);
	}
}

static void write_action(FILE *out, const char *value, const char *const *words)
{
	static const char *const actions[] = {
		[COMPLETION_NOTHING] = " ",   [COMPLETION_FILE] = "_files",   [COMPLETION_FOLDER] = "_files -/",
		[COMPLETION_USER] = "_users", [COMPLETION_GROUP] = "_groups", [COMPLETION_SIGNAL] = "_signals",
		[COMPLETION_READY] = NULL,
	};
	enum completion_kind kind = completion_kind(value);
	if (!words && kind != COMPLETION_READY) {
		fputs(actions[kind], out);
		return;
	}
	fputc('(', out);
	if (words)
		completion_list(out, words, " ");
	else
		completion_ready_words(out, " ");
	fputc(')', out);
}

static void write_option(FILE *out, const char *option, const char *letter, bool repeatable, const char *help)
{
	fputs("			'", out);
	if (repeatable)
		fputc('*', out);
	else if (*letter)
		fprintf(out, "(%s -%s)", option, letter);
	if (*letter)
		fprintf(out, "'{%s,-%s}'", option, letter);
	else
		fputs(option, out);
	fputc('[', out);
	write_text(out, help);
	fputc(']', out);
}

static void write_value(FILE *out, const char *value, const char *const *words)
{
	fputc(':', out);
	write_text(out, value);
	fputc(':', out);
	write_action(out, value, words);
}

static void write_command(FILE *out, const char *word, const char *help)
{
	fprintf(out, "		'%s:", word);
	write_text(out, help);
	fputs("'\n", out);
}

/* Not called `commands`: that is zsh's own table of programs, which _normal reads. */
static void write_commands(FILE *out)
{
	fputs("	command_words=(\n", out);
	for (size_t i = 0; completion_words[i].word; i++)
		write_command(out, completion_words[i].word, completion_words[i].help);
	for (size_t i = 0; i < ctl_command_count; i++)
		write_command(out, ctl_commands[i].word, ctl_commands[i].help);
	fputs("	)\n", out);
}

static void write_client(FILE *out, const struct ctl_command *command)
{
	fprintf(out, "	%s)\n		_arguments -S \\\n", command->word);
	for (const struct ctl_option *option = command->options; option->option; option++) {
		write_option(out, option->option, "", false, option->help);
		if (option->value)
			write_value(out, option->value, NULL);
		fputs("' \\\n", out);
	}
	if (command->operand_words) {
		fprintf(out, "			':%s:(", command->operand);
		completion_list(out, command->operand_words, " ");
		fputs(")'\n", out);
	} else {
		fputs(command->operand ? "			'::name:_handoff_names'\n"
				       : "			':: : '\n",
		      out);
	}
	fputs("		;;\n", out);
}

void completion_zsh(FILE *out)
{
	fputs(head, out);
	write_commands(out);
	fputs(middle, out);
	for (size_t i = 0; i < ctl_command_count; i++)
		write_client(out, &ctl_commands[i]);
	for (size_t i = 0; completion_words[i].word; i++)
		if (!completion_words[i].takes_options)
			fprintf(out, "	%s) ;;\n", completion_words[i].word);
	fputs("	*)\n		_arguments -s -S \\\n", out);
	for (size_t i = 0; i < options_table_count; i++) {
		const struct option_row *row = &options_table[i];
		const char letter[2] = {row->letter, '\0'};
		write_option(out, row->option, letter, row->repeatable, row->help);
		if (row->value)
			write_value(out, row->value, row->words);
		fputs("' \\\n", out);
	}
	fputs("			'*::command:_normal'\n		;;\n", out);
	fputs(tail, out);
}
