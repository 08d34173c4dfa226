/* SPDX-License-Identifier: MIT */
/* The completion script for bash. It needs nothing but bash; with bash-completion it completes the server's line too.
 */
#include <string.h>

#include "completion_private.h"

static const char head[] = "# bash completion for handoff, made by: handoff completion bash\n"
			   "_handoff_names()\n"
			   "{\n"
			   "	handoff list 2>/dev/null | while read -r name _; do [ \"$name\" = NAME ] || printf "
			   "'%s\\n' \"$name\"; done\n"
			   "}\n"
			   "\n"
			   "_handoff()\n"
			   "{\n"
			   "	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} command=run i "
			   "options='' operands=''\n"
			   "	local IFS=$' \\t\\n'\n"
			   "	COMPREPLY=()\n"
			   "	# --option=value comes as three words.\n"
			   "	if [ \"$cur\" = = ]; then\n"
			   "		cur=''\n"
			   "	elif [ \"$prev\" = = ]; then\n"
			   "		prev=${COMP_WORDS[COMP_CWORD - 2]}\n"
			   "	fi\n"
			   "	for ((i = 1; i < COMP_CWORD; i++)); do\n"
			   "		if [ \"${COMP_WORDS[i]}\" = -- ]; then\n"
			   "			if declare -F _command_offset >/dev/null; then\n"
			   "				_command_offset $((i + 1))\n"
			   "			elif ((i + 1 == COMP_CWORD)); then\n"
			   "				mapfile -t COMPREPLY < <(compgen -c -- \"$cur\")\n"
			   "			else\n"
			   "				compopt -o filenames\n"
			   "				mapfile -t COMPREPLY < <(compgen -f -- \"$cur\")\n"
			   "			fi\n"
			   "			return\n"
			   "		fi\n"
			   "	done\n";

static const char words_head[] = "	case $prev in\n";
static const char words_tail[] = "	esac\n";

static const char tail[] = "	if [[ $cur == -* ]]; then\n"
			   "		operands=''\n"
			   "	else\n"
			   "		options=''\n"
			   "	fi\n"
			   "	mapfile -t COMPREPLY < <(compgen -W \"$options $operands\" -- \"$cur\")\n"
			   "}\n"
			   "complete -F _handoff handoff\n";

/* A branch for an option's value: `--order) …`. */
static void write_value(FILE *out, const char *option, char letter, const char *value, const char *const *words)
{
	static const char *const generators[] = {
		[COMPLETION_NOTHING] = NULL, [COMPLETION_FILE] = "-f",  [COMPLETION_FOLDER] = "-d",
		[COMPLETION_USER] = "-u",    [COMPLETION_GROUP] = "-g", [COMPLETION_SIGNAL] = "-A signal",
		[COMPLETION_READY] = NULL,
	};
	enum completion_kind kind = completion_kind(value);
	fprintf(out, "	%s", option);
	if (letter)
		fprintf(out, " | -%c", letter);
	fputs(")\n", out);
	if (kind == COMPLETION_FILE || kind == COMPLETION_FOLDER)
		fputs("		compopt -o filenames\n", out);
	if (words || kind == COMPLETION_READY) {
		fputs("		mapfile -t COMPREPLY < <(compgen -W '", out);
		if (words)
			completion_list(out, words, " ");
		else
			completion_ready_words(out, " ");
		fputs("' -- \"$cur\")\n", out);
	} else if (generators[kind]) {
		fprintf(out, "		mapfile -t COMPREPLY < <(compgen %s -- \"$cur\")\n", generators[kind]);
	}
	fputs("		return\n		;;\n", out);
}

/* Whether `run`, or a client command before this one, has an option of that name: it takes the same there. */
static bool written(const char *name, size_t command)
{
	for (size_t i = 0; i < options_table_count; i++)
		if (strcmp(options_table[i].option, name) == 0)
			return true;
	for (size_t i = 0; i < command; i++)
		for (const struct ctl_option *option = ctl_commands[i].options; option->option; option++)
			if (strcmp(option->option, name) == 0)
				return true;
	return false;
}

static void write_values(FILE *out)
{
	fputs(words_head, out);
	for (size_t i = 0; i < options_table_count; i++)
		if (options_table[i].value)
			write_value(out, options_table[i].option, options_table[i].letter, options_table[i].value,
				    options_table[i].words);
	for (size_t i = 0; i < ctl_command_count; i++)
		for (const struct ctl_option *option = ctl_commands[i].options; option->option; option++)
			if (option->value && !written(option->option, i))
				write_value(out, option->option, 0, option->value, NULL);
	fputs(words_tail, out);
}

/* Which command it is, and what may follow the word. */
static void write_commands(FILE *out)
{
	fputs("	if ((COMP_CWORD > 1)); then\n		command=${COMP_WORDS[1]}\n	else\n		operands='",
	      out);
	for (size_t i = 0; completion_words[i].word; i++)
		fprintf(out, "%s ", completion_words[i].word);
	for (size_t i = 0; i < ctl_command_count; i++)
		fprintf(out, "%s ", ctl_commands[i].word);
	fputs("'\n	fi\n	case $command in\n", out);
	for (size_t i = 0; i < ctl_command_count; i++) {
		const struct ctl_command *command = &ctl_commands[i];
		fprintf(out, "	%s)\n		options='", command->word);
		for (const struct ctl_option *option = command->options; option->option; option++)
			fprintf(out, "%s ", option->option);
		fprintf(out, "%s'\n", command->takes_command ? "--" : "");
		if (command->operand_words) {
			fputs("		operands='", out);
			completion_list(out, command->operand_words, " ");
			fputs("'\n", out);
		} else if (command->operand) {
			fputs("		[[ $cur == -* ]] || operands=$(_handoff_names)\n", out);
		}
		fputs("		;;\n", out);
	}
	for (size_t i = 0; completion_words[i].word; i++)
		if (!completion_words[i].takes_options)
			fprintf(out, "	%s) ;;\n", completion_words[i].word);
	fputs("	*)\n		options='", out);
	for (const char *const *name = options_long_names(); *name; name++)
		fprintf(out, "--%s ", *name);
	/* A word that is no option begins the server's own line: a program. */
	fputs("--'\n"
	      "		if ((COMP_CWORD > 1)) && [[ $cur != -* ]]; then\n"
	      "			compopt -o filenames\n"
	      "			mapfile -t COMPREPLY < <(compgen -f -- \"$cur\")\n"
	      "			return\n"
	      "		fi\n"
	      "		;;\n"
	      "	esac\n",
	      out);
}

void completion_bash(FILE *out)
{
	fputs(head, out);
	write_values(out);
	write_commands(out);
	fputs(tail, out);
}
