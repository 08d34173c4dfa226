/* SPDX-License-Identifier: MIT */
/* Says what a process that is not ready yet has not done, for the message at the ready timeout. */
#include <arpa/inet.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <bsd/string.h>

#include "ready_private.h"

/* Addresses named in one message; the others are counted. */
#define ADDRESSES_MAX 4

static void format_address(char *text, size_t size, const struct sockaddr_storage *storage, socklen_t length)
{
	char host[INET6_ADDRSTRLEN];
	if (storage->ss_family == AF_INET) {
		const struct sockaddr_in *address = (const struct sockaddr_in *)storage;
		inet_ntop(AF_INET, &address->sin_addr, host, sizeof(host));
		snprintf(text, size, "%s:%d", host, ntohs(address->sin_port));
	} else if (storage->ss_family == AF_INET6) {
		const struct sockaddr_in6 *address = (const struct sockaddr_in6 *)storage;
		inet_ntop(AF_INET6, &address->sin6_addr, host, sizeof(host));
		snprintf(text, size, "[%s]:%d", host, ntohs(address->sin6_port));
	} else if (storage->ss_family == AF_UNIX && length > offsetof(struct sockaddr_un, sun_path)) {
		const struct sockaddr_un *address = (const struct sockaddr_un *)storage;
		char path[sizeof(address->sun_path) + 1];
		size_t path_length = length - offsetof(struct sockaddr_un, sun_path);
		memcpy(path, address->sun_path, path_length);
		path[path_length] = '\0';
		bool abstract = path[0] == '\0';
		if (abstract)
			path[0] = '@';
		error_printable(text, size, path, abstract ? path_length : strlen(path));
	}
}

/* The address of a listener that we hold, found by its inode: only this message needs it, so nobody keeps it for us. */
static void name_listener(char *text, size_t size, ino_t inode)
{
	snprintf(text, size, "socket:[%lu]", (unsigned long)inode);
	DIR *folder = opendir("/proc/self/fd");
	if (!folder)
		return;
	const struct dirent *entry;
	while ((entry = readdir(folder))) {
		struct stat stat;
		struct sockaddr_storage address = {.ss_family = AF_UNSPEC};
		socklen_t length = sizeof(address);
		int fd = atoi(entry->d_name);
		if (fstat(fd, &stat) < 0 || !S_ISSOCK(stat.st_mode) || stat.st_ino != inode)
			continue;
		if (getsockname(fd, (struct sockaddr *)&address, &length) == 0)
			format_address(text, size, &address, length);
		break;
	}
	closedir(folder);
}

static void missing_accepting(const struct ready *ready, char *text, size_t size)
{
	const struct accepting *accepting = &ready->accepting;
	unsigned named = 0, unnamed = 0;
	if (accepting->count == 0) {
		strlcpy(text, "there is no stream listener to wait on", size);
		return;
	}
	if (ready->last_look == ACCEPTING_UNREADABLE) {
		snprintf(text, size, "cannot look into pid %d (%s)", accepting->unreadable_pid,
			 accepting->unreadable_why);
		return;
	}
	if (ready->last_look == ACCEPTING_URING) {
		snprintf(text, size, "pid %d has an io_uring, which does not show what it waits on",
			 accepting->uring_pid);
		return;
	}
	strlcpy(text, "nobody waits on ", size);
	for (size_t i = 0; i < accepting->count; i++) {
		char address[128];
		if (!(accepting->wanted & ~accepting->seen & UINT64_C(1) << i))
			continue;
		if (named == ADDRESSES_MAX) {
			unnamed++;
			continue;
		}
		name_listener(address, sizeof(address), accepting->inodes[i]);
		if (named++ > 0)
			strlcat(text, ", ", size);
		strlcat(text, address, size);
	}
	if (unnamed > 0) {
		size_t length = strlen(text);
		snprintf(text + length, size - length, " and %u more", unnamed);
	}
	strlcat(text, " yet", size);
}

static void missing_auto(const struct ready *ready, char *text, size_t size)
{
	if (ready_own_word(ready))
		snprintf(text, size, "it spoke on %s, but there was no newline on the ready pipe and no READY=1",
			 ready->spoke_by_datagram ? "the notify socket" : "the ready pipe");
	else if (ready->options.own_word_only)
		strlcpy(text,
			"no newline on the ready pipe and no READY=1 (an earlier start said ready by itself, so this "
			"one must too)",
			size);
	else
		missing_accepting(ready, text, size);
}

static void missing_exec(const struct ready_how *how, char *text, size_t size)
{
	char command[READY_WHY_ROOM / 2];
	error_printable(command, sizeof(command), how->command, strlen(how->command));
	snprintf(text, size, "\"%s\" has not exited with 0", command);
}

static void missing_one(const struct ready *ready, const struct ready_how *how, char *text, size_t size)
{
	switch (how->kind) {
	case READY_AUTO:
		missing_auto(ready, text, size);
		break;
	case READY_PIPE:
		snprintf(text, size, "no newline on the ready pipe%s",
			 ready->pipe_read < 0 ? ", which was closed" : "");
		break;
	case READY_NOTIFY:
		strlcpy(text, "no READY=1", size);
		break;
	case READY_ACCEPTING:
		missing_accepting(ready, text, size);
		break;
	case READY_LISTEN:
		strlcpy(text, "it did not call listen on every held address", size);
		break;
	case READY_DELAY:
		snprintf(text, size, "it has not been alive for %lldms", (long long)how->delay_ms);
		break;
	case READY_EXEC:
		missing_exec(how, text, size);
		break;
	case READY_SIGNAL:
		strlcpy(text, "no signal from it", size);
		break;
	case READY_NOW:
		strlcpy(text, "its exec has not been seen", size);
		break;
	}
}

const char *ready_missing(const struct ready *ready, char *buffer, size_t size)
{
	buffer[0] = '\0';
	for (size_t i = 0; i < ready->options.how_count; i++) {
		char text[1024];
		missing_one(ready, &ready->options.hows[i], text, sizeof(text));
		if (i > 0)
			strlcat(buffer, "; ", size);
		strlcat(buffer, text, size);
	}
	return buffer;
}
