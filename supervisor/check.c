/* SPDX-License-Identifier: MIT */
/* `handoff check`: would `handoff run` with these options begin? Starts nothing and leaves nothing behind. */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "command.h"
#include "fd.h"
#include "pidfile.h"

/* As a start takes it (child.c). */
#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/* The words {fd:NAME} against the names that the SPECs give. Where systemd's sockets are taken, names come with them.
 */
static int check_words(const struct options *options, struct error *error)
{
	CLEANUP(freep) char **names = calloc(options->listen_count + 1, sizeof(char *));
	if (!names)
		return error_set(error, -ENOMEM, "out of memory");
	for (size_t i = 0; i < options->listen_count; i++) {
		if (options->listens[i].type == LISTEN_SYSTEMD)
			return 0;
		names[i] = options->listens[i].name;
	}
	char **argv = NULL;
	int r = command_expand(options->command, names, options->listen_count, &argv, error);
	if (r >= 0)
		command_free(argv);
	return r;
}

static int check_executable(const char *path)
{
	struct stat status;
	if (stat(path, &status) < 0)
		return -errno;
	if (!S_ISREG(status.st_mode))
		return -EACCES;
	return access(path, X_OK) < 0 ? -errno : 0;
}

/* As execvp(3) looks: a name with a slash is a path, else the first executable file in PATH. */
static int find_command(const char *command, const char *directory, const char *path, struct error *error)
{
	int r = -ENOENT;
	CLEANUP(freep) char *copy = strdup(strchr(command, '/') ? "" : path ? path : DEFAULT_PATH);
	char *rest = copy;
	for (const char *folder; r < 0 && copy && (folder = strsep(&rest, ":"));) {
		CLEANUP(freep) char *name = NULL;
		bool absolute = (*folder ? folder : command)[0] == '/';
		if (asprintf(&name, "%s%s%s%s%s", absolute ? "" : directory, absolute ? "" : "/", folder,
			     *folder ? "/" : "", command) < 0)
			return error_set(error, -ENOMEM, "out of memory");
		int tried = check_executable(name);
		if (tried != -ENOENT || r == -ENOENT)
			r = tried;
	}
	return r < 0 ? error_set(error, r, "cannot exec %s: %s%s", command, strerror(-r),
				 r == -ENOENT && !strchr(command, '/') ? " in the folders of PATH" : "")
		     : 0;
}

static int check_command(const struct options *options, struct error *error)
{
	CLEANUP(env_finish) struct env env = {.items = NULL};
	CLEANUP(freep) char *start = command_start_directory(environ);
	CLEANUP(freep) char *directory = start ? command_directory(options, start) : NULL;
	struct stat status;
	if (!directory)
		return error_set(error, -errno, "cannot find the working directory: %s", strerror(errno));
	CLEANUP(env_finish) struct env base = {.items = NULL};
	if (env_copy_clean(&base, environ) < 0)
		return error_set(error, -ENOMEM, "out of memory");
	int r = command_environment(options, base.items, &env, error);
	if (r < 0)
		return r;
	if (stat(directory, &status) < 0)
		return error_set(error, -errno, "cannot change to %s: %s", directory, strerror(errno));
	if (!S_ISDIR(status.st_mode))
		return error_set(error, -ENOTDIR, "cannot change to %s: %s", directory, strerror(ENOTDIR));
	if (!options->command)
		return 0;
	r = check_words(options, error);
	return r < 0 ? r : find_command(options->command[0], directory, env_get(&env, "PATH"), error);
}

int check_options(const struct options *options, const struct listener_inherited *inherited, struct error *error)
{
	int r = options->pid_file ? pidfile_check(options->pid_file, error) : 0;
	if (r >= 0 && options->notify_fd >= 0 && fcntl(options->notify_fd, F_GETFD) < 0)
		r = error_set(error, -EBADF, "--notify-fd: descriptor %d is not open", options->notify_fd);
	if (r >= 0)
		r = listener_set_check(options->listens, options->listen_count, inherited, error);
	return r < 0 ? r : check_command(options, error);
}
