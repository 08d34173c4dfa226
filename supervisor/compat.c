/* SPDX-License-Identifier: MIT */
/* --compat: the variables of other supervisors, for servers that were written for those. */
#include "compat.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "fd.h"
#include "options.h"

/* Server::Starter names a socket as its --port or --path did: a wildcard by its port alone. */
static const char *starter_name(const struct listener *listener)
{
	static const char wildcard[] = "[::]:";
	bool is_wildcard = strncmp(listener->address, wildcard, strlen(wildcard)) == 0;
	return is_wildcard ? listener->address + strlen(wildcard) : listener->address;
}

static int add_server_starter(struct env *env, const struct listener_set *listeners, int first_fd, uint32_t generation)
{
	CLEANUP(freep) char *ports = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&ports, &size);
	for (size_t i = 0; out && i < listeners->count; i++)
		fprintf(out, "%s%s=%d", i > 0 ? ";" : "", starter_name(&listeners->items[i]), first_fd + (int)i);
	if (!out || fclose(out) != 0)
		return -ENOMEM;
	int r = env_set(env, "SERVER_STARTER_PORT", ports);
	return r < 0 ? r : env_set_number(env, "SERVER_STARTER_GENERATION", generation);
}

static int add_einhorn(struct env *env, const struct listener_set *listeners, int first_fd, const char *path)
{
	int r = env_set_number(env, "EINHORN_FD_COUNT", (long long)listeners->count);
	for (size_t i = 0; r >= 0 && i < listeners->count; i++) {
		char name[48];
		snprintf(name, sizeof(name), "EINHORN_FD_%zu", i);
		r = env_set_number(env, name, first_fd + (long long)i);
	}
	return r < 0 || !path ? r : env_set(env, "EINHORN_SOCK_PATH", path);
}

int compat_environment(struct env *env, unsigned compat, const struct listener_set *listeners, int first_fd,
		       uint32_t generation, const char *einhorn_path)
{
	int r = 0;
	if (compat & COMPAT_SERVER_STARTER)
		r = add_server_starter(env, listeners, first_fd, generation);
	if (r >= 0 && (compat & COMPAT_EINHORN))
		r = add_einhorn(env, listeners, first_fd, einhorn_path);
	if (r >= 0 && (compat & COMPAT_FORKED_SERVER))
		r = env_set(env, "FORKED_SERVER", "1");
	if (compat & COMPAT_NO_LISTEN_PID)
		env_unset(env, "LISTEN_PID");
	return r;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* %0A and the like, in place. */
static void unescape(char *text)
{
	char *out = text;
	for (; *text; text++) {
		int high = *text == '%' ? hex_digit(text[1]) : -1;
		int low = high >= 0 ? hex_digit(text[2]) : -1;
		if (low >= 0) {
			*out++ = (char)(16 * high + low);
			text += 2;
		} else {
			*out++ = *text;
		}
	}
	*out = '\0';
}

bool compat_is_ack(const char *line)
{
	CLEANUP(freep) char *text = strdup(line);
	if (!text)
		return false;
	unescape(text);
	cJSON *message = cJSON_Parse(text);
	if (message) {
		const char *command = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(message, "command"));
		bool ack = command && strcmp(command, "worker:ack") == 0;
		cJSON_Delete(message);
		return ack;
	}
	/* A mapping of two scalars; no more YAML than that is needed. */
	for (char *rest = text, *row; (row = strsep(&rest, "\n"));) {
		char key[16], value[32];
		if (sscanf(row, " %15[^: ] : %31s", key, value) == 2 || sscanf(row, " %15[^: ]: %31s", key, value) == 2)
			if (strcmp(strcmp(key, ":command") == 0 ? "command" : key, "command") == 0 &&
			    strstr(value, "worker:ack"))
				return true;
	}
	return false;
}
