/* SPDX-License-Identifier: MIT */
/* Fuzzes the environment file of --env-file, and the NAME=VALUE of --env. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "env.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_file(const uint8_t *data, size_t size)
{
	int fd = memfd_create("env", MFD_CLOEXEC);
	if (fd < 0)
		abort();
	if (write(fd, data, size) != (ssize_t)size)
		abort();
	char path[64];
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	struct env env = {0};
	struct error error = {0};
	int r = env_read_file(&env, "--env-file", path, &error);
	assert(r >= 0 || error.text[0]);
	for (size_t i = 0; i < env.count; i++) {
		char *equals = strchr(env.items[i], '=');
		assert(equals && env_is_name(env.items[i], (size_t)(equals - env.items[i])));
		*equals = '\0';
		/* A name stands there once, and none of ours. */
		assert(!env_is_reserved(env.items[i]));
		*equals = '=';
		for (size_t j = 0; j < i; j++)
			assert(strncmp(env.items[j], env.items[i], (size_t)(equals - env.items[i]) + 1) != 0);
	}
	assert(env.count == 0 || env.items[env.count] == NULL);
	env_finish(&env);
	close(fd);
}

static void try_pair(const uint8_t *data, size_t size)
{
	char *pair = malloc(size + 1);
	if (!pair)
		return;
	memcpy(pair, data, size);
	pair[size] = '\0';
	struct error error = {0};
	int r = env_check_pair("--env", pair, &error);
	assert(r >= 0 ? strchr(pair, '=') != NULL : error.text[0] != '\0');
	free(pair);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	try_file(data, size);
	try_pair(data, size);
	return 0;
}
