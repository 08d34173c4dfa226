/* SPDX-License-Identifier: MIT */
/* The command line: command words, the walk over the options, and what must hold between them. */
#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "options_table.h"

#define OPTIONS_MAX 128

/* getopt_long(3) returns this plus the row's number for every option, so that letters need no second look-up. */
#define ROW_CODE 256

#define RESTART_DELAY_MAX_DEFAULT_MS 30000

/* The words that may come first. A word with a `refusal` is known, so that it is not run as a program, but not built
 * yet. */
static const struct command_word {
	const char *word;
	enum options_command command;
	const char *refusal;
} command_words[] = {
	{"run", COMMAND_RUN, NULL},
	{"check", COMMAND_CHECK, NULL},
	{"help", COMMAND_HELP, NULL},
	{"version", COMMAND_VERSION, NULL},
	{"reload", COMMAND_RUN, "comes with the control socket, which this version lacks; SIGUSR1 hands off"},
	{"status", COMMAND_RUN, "comes with the control socket, which this version lacks"},
	{"stop", COMMAND_RUN, "comes with the control socket, which this version lacks; SIGINT stops gracefully"},
	{"list", COMMAND_RUN, "comes with the control socket, which this version lacks"},
};

static const struct command_word *find_command_word(const char *word)
{
	for (size_t i = 0; i < ARRAY_SIZE(command_words); i++) {
		if (strcmp(word, command_words[i].word) == 0)
			return &command_words[i];
	}
	return NULL;
}

static void default_signals(struct signal_rule *signals)
{
	/* Everything that a process outside, a limit or a timer may send, and that would end us by default. What is
	 * left out is never ours to catch (KILL, STOP), is waited for in another way (CHLD), reports a fault (SEGV,
	 * BUS, FPE, ILL, ABRT, SYS, TRAP), does no harm (URG), or is job control (TSTP, TTIN, TTOU, CONT). */
	static const int ignored[] = {
		SIGUSR2,   SIGWINCH, SIGALRM, SIGPIPE, SIGIO, SIGPWR, SIGXCPU, SIGVTALRM, SIGPROF, SIGXFSZ,
#ifdef SIGSTKFLT
		SIGSTKFLT,
#endif
	};
	for (size_t i = 0; i < ARRAY_SIZE(ignored); i++)
		signals[ignored[i]].action = SIGNAL_ACTION_IGNORE;
	for (int signal = SIGRTMIN; signal <= SIGRTMAX; signal++)
		signals[signal].action = SIGNAL_ACTION_IGNORE;
	signals[SIGUSR1].action = SIGNAL_ACTION_RELOAD;
	signals[SIGHUP].action = SIGNAL_ACTION_HANGUP;
	signals[SIGINT].action = SIGNAL_ACTION_STOP;
	signals[SIGTERM].action = SIGNAL_ACTION_KILL;
	signals[SIGQUIT].action = SIGNAL_ACTION_QUIT;
}

static void set_defaults(struct options *options)
{
	*options = (struct options){
		.ready_timeout_ms = 30000,
		.settle_ms = 250,
		.drain_signal = SIGINT,
		.drain_to = DRAIN_TO_AUTO,
		.drain_timeout_ms = DURATION_NONE,
		.max_draining = 16,
		.kill_timeout_ms = 8000,
		.restart = RESTART_ON_FAILURE,
		.restart_delay_ms = 100,
		.restart_delay_max_ms = 0, /* not given: see check_restart_delays */
		.uid = (uid_t)-1,
		.gid = (gid_t)-1,
		.notify_fd = -1,
		.log_format = LOG_FORMAT_TEXT,
		.log_level = LOG_LEVEL_INFO,
	};
	default_signals(options->signals);
}

/* ---- The walk ---- */

struct walk {
	struct option longs[OPTIONS_MAX + 1];
	char shorts[2 * OPTIONS_MAX + 3];
	bool seen[OPTIONS_MAX];
};

static void walk_init(struct walk *walk)
{
	memset(walk, 0, sizeof(*walk));
	/* '+': the first word that is no option ends them, the rest is the server's. ':': we speak ourselves. */
	char *letter = walk->shorts;
	*letter++ = '+';
	*letter++ = ':';
	for (size_t i = 0; i < options_table_count && i < OPTIONS_MAX; i++) {
		const struct option_row *row = &options_table[i];
		walk->longs[i] = (struct option){
			.name = option_row_name(row),
			.has_arg = row->value ? required_argument : no_argument,
			.val = ROW_CODE + (int)i,
		};
		if (row->letter)
			*letter++ = row->letter;
		if (row->letter && row->value)
			*letter++ = ':';
	}
}

/* The row of a long name of `length` bytes, or NULL. */
static const struct option_row *row_by_name(const char *name, size_t length)
{
	for (size_t i = 0; i < options_table_count; i++) {
		const char *known = option_row_name(&options_table[i]);
		if (strncmp(known, name, length) == 0 && known[length] == '\0')
			return &options_table[i];
	}
	return NULL;
}

/* The row for a code that getopt_long returned or left in optopt, or NULL. */
static const struct option_row *row_by_code(int code)
{
	if (code >= ROW_CODE && (size_t)(code - ROW_CODE) < options_table_count)
		return &options_table[code - ROW_CODE];
	for (size_t i = 0; code != 0 && i < options_table_count; i++) {
		if (options_table[i].letter == code)
			return &options_table[i];
	}
	return NULL;
}

/* Whether a word is one of our options as it stands, so that it is hardly meant as another option's value. */
static bool is_option_word(const char *word)
{
	if (strcmp(word, "--") == 0)
		return true;
	if (strncmp(word, "--", 2) == 0)
		return row_by_name(word + 2, strcspn(word + 2, "="));
	return word[0] == '-' && word[1] && !word[2] && row_by_code(word[1]);
}

static int refuse_unknown(const char *word, struct error *error)
{
	char name[64];
	size_t length = strcspn(word, "=");
	snprintf(name, sizeof(name), "%.*s", (int)(length < sizeof(name) ? length : sizeof(name) - 1), word);
	const char *closest = spec_closest(name + strspn(name, "-"), options_long_names());
	if (closest)
		return error_set(error, -EINVAL, "unknown option %.*s; did you mean --%s?", (int)length, word, closest);
	return error_set(error, -EINVAL, "unknown option %.*s; handoff --help lists them", (int)length, word);
}

/* Looks at the next word before getopt_long does, which would take abbreviations (they would change their meaning when
 * an option is added) and would read "-listen" as -l with the value "isten". */
static int check_word(const char *word, struct error *error)
{
	if (word[0] != '-' || word[1] == '\0' || strcmp(word, "--") == 0)
		return 0;
	const char *name = word + strspn(word, "-");
	size_t length = strcspn(name, "=");
	if (strncmp(word, "--", 2) == 0 && row_by_name(word + 2, strcspn(word + 2, "=")))
		return 0;
	if (length > 1 && row_by_name(name, length))
		return error_set(error, -EINVAL, "unknown option %.*s; write --%.*s", (int)(name + length - word), word,
				 (int)length, name);
	return strncmp(word, "--", 2) == 0 ? refuse_unknown(word, error) : 0;
}

/* What getopt_long complains about: ':' for a missing value, else '?'. `word` is the one it was in. */
static int refuse_code(int code, const char *word, struct error *error)
{
	const struct option_row *row = row_by_code(optopt);
	if (code == ':' && row)
		return error_set(error, -EINVAL, "%s needs a value: %s %s", row->option, row->option, row->value);
	if (row)
		return error_set(error, -EINVAL, "%s takes no value, but was written %.200s", row->option, word);
	return error_set(error, -EINVAL, "unknown option -%c; handoff --help lists them", optopt);
}

static int apply(struct walk *walk, const struct option_row *row, char **argv, struct options *options,
		 struct error *error)
{
	bool *seen = &walk->seen[row - options_table];
	if (row->value && *optarg == '\0')
		return error_set(error, -EINVAL, "%s \"\": the value is empty; write %s %s", row->option, row->option,
				 row->value);
	if (row->value && optarg == argv[optind - 1] && is_option_word(optarg))
		return error_set(error, -EINVAL, "%s needs a value, but the next word is %.200s", row->option, optarg);
	if (*seen && row->value && !row->repeatable)
		return error_set(error, -EINVAL, "%s \"%.200s\": %s was given before, and it takes one value",
				 row->option, optarg, row->option);
	*seen = true;
	return row->apply(row, row->value ? optarg : NULL, options, error);
}

/* Applies the options of argv, from argv[1] on, up to `--`, the first other word, or --help or --version. The index of
 * what follows them or a negative errno. */
static int walk_options(int argc, char **argv, struct options *options, struct error *error)
{
	struct walk walk;
	walk_init(&walk);
	opterr = 0;
	optind = 0; /* glibc and musl start anew */
	for (;;) {
		int at = optind ? optind : 1;
		const char *word = at < argc ? argv[at] : "";
		int result = check_word(word, error);
		if (result < 0)
			return result;
		int code = getopt_long(argc, argv, walk.shorts, walk.longs, NULL);
		if (code == -1)
			return optind;
		if (code == ':' || code == '?')
			return refuse_code(code, word, error);
		result = apply(&walk, row_by_code(code), argv, options, error);
		if (result < 0)
			return result;
		if (options->command_kind == COMMAND_HELP || options->command_kind == COMMAND_VERSION)
			return optind;
	}
}

/* ---- What must hold between options ---- */

static int check_restart_delays(struct options *options, struct error *error)
{
	/* Not given, it is never below the delay: who sets only a long --restart-delay means just that. */
	if (options->restart_delay_max_ms == 0)
		options->restart_delay_max_ms = options->restart_delay_ms > RESTART_DELAY_MAX_DEFAULT_MS
							? options->restart_delay_ms
							: RESTART_DELAY_MAX_DEFAULT_MS;
	if (options->restart_delay_max_ms < options->restart_delay_ms)
		return error_set(error, -EINVAL,
				 "--restart-delay-max is %lldms, below --restart-delay, which is %lldms",
				 (long long)options->restart_delay_max_ms, (long long)options->restart_delay_ms);
	return 0;
}

static int check_ready(const struct options *options, struct error *error)
{
	bool stream = false;
	for (size_t i = 0; i < options->listen_count; i++)
		stream |= options->listens[i].type != LISTEN_UDP && options->listens[i].type != LISTEN_UNIXGRAM;
	for (size_t i = 0; i < options->ready_count; i++) {
		if (options->readies[i].kind == READY_LISTEN)
			return error_set(error, -EINVAL,
					 "--ready \"listen\": comes with adoption, which this version lacks");
		if (options->readies[i].kind == READY_ACCEPTING && !stream)
			return error_set(error, -EINVAL,
					 "--ready \"accepting\": needs a --listen that connections can be accepted on");
	}
	return 0;
}

static int check_together(struct options *options, struct error *error)
{
	int code = check_restart_delays(options, error);
	if (code == 0)
		code = check_ready(options, error);
	if (code < 0)
		return code;

	for (size_t i = 0; i < options->listen_count; i++) {
		const struct listen_spec *spec = &options->listens[i];
		if (spec->type == LISTEN_FD && spec->fd == options->notify_fd)
			return error_set(error, -EINVAL, "--notify-fd \"%d\": --listen %s names the same descriptor",
					 options->notify_fd, spec->text);
	}
	/* Left alone, the server would run with our own group, which is root's. */
	if (options->set_user && options->gid == (gid_t)-1)
		return error_set(error, -EINVAL,
				 "--user \"%lu\": is not in the user database, so its group is needed: add --group",
				 (unsigned long)options->uid);
	return 0;
}

static int take_command(char **words, bool after_hyphens, bool word_given, struct options *options, struct error *error)
{
	if (!words[0]) {
		if (options->command_kind == COMMAND_CHECK)
			return 0;
		return error_set(error, -EINVAL,
				 "the command to run is missing: handoff run [OPTIONS] -- COMMAND [ARG...]");
	}
	if (words[0][0] == '\0')
		return error_set(error, -EINVAL, "the command to run is an empty word");
	if (!after_hyphens && !word_given && find_command_word(words[0]))
		return error_set(error, -EINVAL,
				 "\"%s\" is a word of handoff's own and comes before the options; to run a program of "
				 "that name: handoff [OPTIONS] -- %s",
				 words[0], words[0]);
	options->command = words;
	return 0;
}

/* ---- The whole ---- */

static int default_ready(struct options *options, struct error *error)
{
	if (options->ready_count > 0)
		return 0;
	struct ready_how *readies = calloc(1, sizeof(*readies));
	if (!readies)
		return error_set(error, -ENOMEM, "out of memory");
	free(options->readies);
	readies->kind = READY_AUTO;
	options->readies = readies;
	options->ready_count = 1;
	return 0;
}

static int parse_into(int argc, char **argv, const struct command_word *word, struct options *options,
		      struct error *error)
{
	/* getopt_long skips argv[0], be it our name or the command word. */
	if (word) {
		options->command_kind = word->command;
		argc--;
		argv++;
	}
	int end = walk_options(argc, argv, options, error);
	if (end < 0)
		return end;
	if (options->command_kind == COMMAND_HELP || options->command_kind == COMMAND_VERSION)
		return 0;
	bool after_hyphens = end > 1 && strcmp(argv[end - 1], "--") == 0;
	int code = take_command(argv + end, after_hyphens, word, options, error);
	if (code == 0)
		code = default_ready(options, error);
	if (code == 0)
		code = check_together(options, error);
	return code;
}

int options_parse(int argc, char **argv, struct options *ret_options, struct error *error)
{
	struct options options;
	const struct command_word *word = argc > 1 ? find_command_word(argv[1]) : NULL;
	if (argc < 1)
		return error_set(error, -EINVAL, "the argument list is empty");
	if (word && word->refusal)
		return error_set(error, -EINVAL, "handoff %s %s (to run a program of that name: handoff -- %s)",
				 word->word, word->refusal, word->word);
	set_defaults(&options);
	int code = 0;
	if (word && (word->command == COMMAND_HELP || word->command == COMMAND_VERSION))
		options.command_kind = word->command;
	else
		code = parse_into(argc, argv, word, &options, error);

	enum options_command kind = options.command_kind;
	if (code < 0 || kind == COMMAND_HELP || kind == COMMAND_VERSION)
		options_finish(&options);
	if (code < 0)
		return code;
	options.command_kind = kind;
	*ret_options = options;
	return 0;
}

static void string_list_finish(struct string_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		free(list->items[i]);
	free(list->items);
}

void options_finish(struct options *options)
{
	for (size_t i = 0; i < options->listen_count; i++)
		listen_spec_finish(&options->listens[i]);
	for (size_t i = 0; i < options->ready_count; i++)
		ready_how_finish(&options->readies[i]);
	free(options->listens);
	free(options->readies);
	free(options->name);
	free(options->chdir);
	string_list_finish(&options->env);
	string_list_finish(&options->env_files);
	string_list_finish(&options->env_dirs);
	free(options->user_name);
	free(options->rlimits);
	free(options->pid_file);
	memset(options, 0, sizeof(*options));
}

const char *options_name(const struct options *options)
{
	if (options->name)
		return options->name;
	if (!options->command)
		return "handoff";
	const char *slash = strrchr(options->command[0], '/');
	return slash && slash[1] ? slash + 1 : options->command[0];
}
