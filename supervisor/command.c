/* SPDX-License-Identifier: MIT */
/* What a server is started with: its arguments with the {fd} words replaced, its environment, its folder. */
#include "command.h"

#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "child.h"
#include "fd.h"

/* The number that `{fd}`, `{fd:NAME}` or `{ready-fd}` stands for; 0 when the word is none of these; -ENOENT. */
static int placeholder_fd(const char *word, size_t length, char *const *names, size_t count)
{
	if (length == strlen("{ready-fd}") && strncmp(word, "{ready-fd}", length) == 0)
		return COMMAND_FIRST_FD + (int)count;
	if (length == strlen("{fd}") && strncmp(word, "{fd}", length) == 0)
		return count > 0 ? COMMAND_FIRST_FD : -ENOENT;
	if (length <= strlen("{fd:}") || strncmp(word, "{fd:", strlen("{fd:")) != 0)
		return 0;
	const char *name = word + strlen("{fd:");
	size_t name_length = length - strlen("{fd:}");
	for (size_t i = 0; i < count; i++)
		if (names[i] && strlen(names[i]) == name_length && strncmp(names[i], name, name_length) == 0)
			return COMMAND_FIRST_FD + (int)i;
	return -ENOENT;
}

/* One argument with its placeholders replaced, on the heap; NULL with the sentence in `error`. */
static char *expand_argument(const char *argument, char *const *names, size_t count, struct error *error)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);
	int missing = 0;
	while (out && *argument) {
		const char *end = *argument == '{' ? strchr(argument, '}') : NULL;
		size_t length = end ? (size_t)(end - argument) + 1 : 1;
		int fd = end ? placeholder_fd(argument, length, names, count) : 0;
		if (fd < 0) {
			missing = error_set(error, -EINVAL, "the argument word %.*s names no listener", (int)length,
					    argument);
			break;
		}
		if (fd > 0)
			fprintf(out, "%d", fd);
		else
			fwrite(argument, 1, length = 1, out);
		argument += length;
	}
	if (!out || (fclose(out) == EOF && missing == 0))
		missing = error_set(error, -ENOMEM, "out of memory");
	if (missing == 0)
		return text;
	free(text);
	return NULL;
}

void command_free(char **argv)
{
	for (char **argument = argv; argument && *argument; argument++)
		free(*argument);
	free(argv);
}

int command_expand(char *const *command, char *const *names, size_t count, char ***ret_argv, struct error *error)
{
	size_t length = 0;
	while (command[length])
		length++;
	char **argv = calloc(length + 1, sizeof(char *));
	if (!argv)
		return error_set(error, -ENOMEM, "out of memory");
	for (size_t i = 0; i < length; i++) {
		argv[i] = expand_argument(command[i], names, count, error);
		if (!argv[i]) {
			command_free(argv);
			return -EINVAL;
		}
	}
	*ret_argv = argv;
	return 0;
}

char *command_directory(const struct options *options, const char *start_directory)
{
	const char *wanted = options->chdir;
	char *path = NULL;
	if (!wanted || wanted[0] == '/')
		return strdup(wanted ? wanted : start_directory);
	return asprintf(&path, "%s/%s", start_directory, wanted) < 0 ? NULL : path;
}

char *command_start_directory(char *const *environment)
{
	struct stat here, named;
	for (; *environment; environment++) {
		if (strncmp(*environment, "PWD=", 4) != 0)
			continue;
		const char *pwd = *environment + 4;
		if (pwd[0] == '/' && stat(pwd, &named) == 0 && stat(".", &here) == 0 && named.st_dev == here.st_dev &&
		    named.st_ino == here.st_ino)
			return strdup(pwd);
	}
	return getcwd(NULL, 0);
}

static int set_user_variables(struct env *env, const struct options *options)
{
	if (!options->user_name)
		return 0;
	int r = env_set(env, "USER", options->user_name);
	if (r >= 0)
		r = env_set(env, "LOGNAME", options->user_name);
	const struct passwd *entry = getpwnam(options->user_name);
	if (r >= 0 && entry)
		r = env_set(env, "HOME", entry->pw_dir);
	return r;
}

static int apply_sources(const struct options *options, struct env *env, struct error *error)
{
	int r = 0;
	for (size_t i = 0; i < options->env_dirs.count && r >= 0; i++)
		r = env_read_dir(env, "--env-dir", options->env_dirs.items[i], error);
	for (size_t i = 0; i < options->env_files.count && r >= 0; i++)
		r = env_read_file(env, "--env-file", options->env_files.items[i], error);
	for (size_t i = 0; i < options->env.count && r >= 0; i++) {
		const char *pair = options->env.items[i];
		const char *equals = strchr(pair, '=');
		CLEANUP(freep) char *name = strndup(pair, (size_t)(equals - pair));
		r = name ? env_set(env, name, equals + 1) : -ENOMEM;
		if (r < 0)
			error_set(error, r, "out of memory");
	}
	return r;
}

int command_environment(const struct options *options, char *const *base, struct env *ret_env, struct error *error)
{
	struct env env = {.items = NULL};
	int r = env_copy(&env, base);
	if (r >= 0)
		r = set_user_variables(&env, options);
	if (r < 0)
		error_set(error, r, "out of memory");
	else
		r = apply_sources(options, &env, error);
	if (r < 0)
		env_finish(&env);
	else
		*ret_env = env;
	return r;
}

int command_add_listeners(struct env *env, char *const *names, size_t count)
{
	if (count == 0)
		return 0;
	char *joined = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&joined, &size);
	for (size_t i = 0; out && i < count; i++)
		fprintf(out, "%s%s", i ? ":" : "", names[i] ? names[i] : "unknown");
	int r = out && fclose(out) == 0 ? env_set(env, "LISTEN_FDNAMES", joined) : -ENOMEM;
	free(joined);
	if (r >= 0)
		r = env_set_number(env, "LISTEN_FDS", (long long)count);
	char room[LISTEN_PID_ROOM + 1];
	memset(room, ' ', sizeof(room) - 1);
	room[sizeof(room) - 1] = '\0';
	return r < 0 ? r : env_set(env, "LISTEN_PID", room);
}
