/* SPDX-License-Identifier: MIT */
/* Who holds an address: the sockets in /proc/net, then the process that has one of them open in /proc/PID/fd. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bsd/string.h>

#include "fd.h"
#include "listener_private.h"
#include "process.h"

#define CANDIDATES_MAX 64

/* The states and flags that /proc/net shows: TCP_LISTEN of the kernel's tcp_states.h, __SO_ACCEPTCON of its net.h. */
#define STATE_LISTEN 0x0a
#define FLAG_ACCEPTS 0x10000

/* How well a socket explains that the address is taken. */
enum fit { FIT_NONE, FIT_OVERLAPS, FIT_SAME, FIT_LISTENS_OVERLAPPING, FIT_LISTENS_SAME };

struct candidate {
	ino_t inode;
	enum fit fit;
};

struct search {
	enum listen_type type;
	const struct listener_address *address; /* borrowed */
	struct candidate candidates[CANDIDATES_MAX];
	size_t count;
};

static void search_add(struct search *search, ino_t inode, enum fit fit)
{
	size_t worst = 0;

	/* A socket without an owner (TIME_WAIT, or closed with data to send) has inode 0: nobody to be named. */
	if (inode == 0 || fit == FIT_NONE)
		return;
	if (search->count < CANDIDATES_MAX) {
		search->candidates[search->count++] = (struct candidate){.inode = inode, .fit = fit};
		return;
	}
	for (size_t i = 1; i < search->count; i++)
		if (search->candidates[i].fit < search->candidates[worst].fit)
			worst = i;
	if (search->candidates[worst].fit < fit)
		search->candidates[worst] = (struct candidate){.inode = inode, .fit = fit};
}

/* --- Inet --- */

/* IPv4 addresses as v4-mapped ones, so that both families compare. */
static struct in6_addr common_form(const struct listener_address *address)
{
	struct in6_addr common = {.s6_addr = {[10] = 0xff, [11] = 0xff}};

	if (address->any.sa_family == AF_INET6)
		return address->in6.sin6_addr;
	memcpy(&common.s6_addr[12], &address->in.sin_addr, 4);
	return common;
}

static bool covers(const struct in6_addr *a, const struct in6_addr *b)
{
	static const struct in6_addr any_v4 = {.s6_addr = {[10] = 0xff, [11] = 0xff}};

	return IN6_IS_ADDR_UNSPECIFIED(a) || (IN6_ARE_ADDR_EQUAL(a, &any_v4) && IN6_IS_ADDR_V4MAPPED(b));
}

static in_port_t port_of(const struct listener_address *address)
{
	return address->any.sa_family == AF_INET6 ? address->in6.sin6_port : address->in.sin_port;
}

bool listener_address_overlaps(const struct listener_address *a, const struct listener_address *b)
{
	struct in6_addr common_a = common_form(a), common_b = common_form(b);

	return port_of(a) == port_of(b) && (IN6_ARE_ADDR_EQUAL(&common_a, &common_b) || covers(&common_a, &common_b) ||
					    covers(&common_b, &common_a));
}

/* "0100007F" or 32 digits: the address in 32-bit words as the host reads them. */
static bool parse_hex_address(const char *hex, unsigned port, struct listener_address *ret_address)
{
	uint32_t words[4] = {0, 0, 0, 0};
	size_t digits = strlen(hex);

	if (digits != 8 && digits != 32)
		return false;
	for (size_t i = 0; i < digits / 8; i++) {
		char word[9];
		strlcpy(word, hex + 8 * i, sizeof(word));
		words[i] = (uint32_t)strtoul(word, NULL, 16);
	}
	*ret_address = (struct listener_address){.length = sizeof(struct sockaddr_in6)};
	if (digits == 8) {
		ret_address->in.sin_family = AF_INET;
		ret_address->in.sin_port = htons((uint16_t)port);
		ret_address->in.sin_addr.s_addr = words[0];
	} else {
		ret_address->in6.sin6_family = AF_INET6;
		ret_address->in6.sin6_port = htons((uint16_t)port);
		memcpy(&ret_address->in6.sin6_addr, words, sizeof(words));
	}
	return true;
}

static void search_inet_line(struct search *search, const char *line)
{
	char hex[33];
	unsigned port = 0, state = 0;
	unsigned long inode = 0;
	struct listener_address held;

	if (sscanf(line, " %*u: %32[0-9A-Fa-f]:%x %*s %x %*s %*s %*s %*s %*s %lu", hex, &port, &state, &inode) != 4)
		return;
	if (!parse_hex_address(hex, port, &held) || !listener_address_overlaps(&held, search->address))
		return;
	struct in6_addr here = common_form(&held), wanted = common_form(search->address);
	bool same = IN6_ARE_ADDR_EQUAL(&here, &wanted);
	if (search->type == LISTEN_UDP || state == STATE_LISTEN)
		search_add(search, inode, same ? FIT_LISTENS_SAME : FIT_LISTENS_OVERLAPPING);
	else
		search_add(search, inode, same ? FIT_SAME : FIT_OVERLAPS);
}

/* --- Unix --- */

/* The same path by another name, as /var/run and /run. */
static bool is_same_path(const char *a, const char *b)
{
	struct stat status_a, status_b;

	return a[0] == '/' && b[0] == '/' && lstat(a, &status_a) == 0 && lstat(b, &status_b) == 0 &&
	       status_a.st_dev == status_b.st_dev && status_a.st_ino == status_b.st_ino;
}

static void search_unix_line(struct search *search, char *line)
{
	char wanted[LISTENER_TEXT_MAX];
	unsigned flags = 0, type = 0;
	unsigned long inode = 0;
	int path_at = 0;

	line[strcspn(line, "\n")] = '\0';
	if (sscanf(line, "%*s %*s %*s %x %x %*s %lu %n", &flags, &type, &inode, &path_at) != 3 || path_at == 0)
		return;
	/* Accepted sockets show the path of their listener. */
	if (type != SOCK_DGRAM && !(flags & FLAG_ACCEPTS))
		return;
	listener_address_text(search->address, wanted);
	if (strcmp(line + path_at, wanted) == 0)
		search_add(search, inode, FIT_LISTENS_SAME);
	else if (is_same_path(line + path_at, wanted))
		search_add(search, inode, FIT_LISTENS_OVERLAPPING);
}

/* --- Tables and processes --- */

static void search_table(struct search *search, const char *path)
{
	FILE *file = fopen(path, "re");
	char *line = NULL;
	size_t size = 0;

	if (!file)
		return;
	while (getline(&line, &size, file) >= 0) {
		if (search->address->any.sa_family == AF_UNIX)
			search_unix_line(search, line);
		else
			search_inet_line(search, line);
	}
	free(line);
	fclose(file);
}

/* The best of the candidates that the process has open. */
static enum fit process_fit(const struct search *search, const char *pid)
{
	char path[32], target[64];
	enum fit best = FIT_NONE;
	const struct dirent *entry;

	snprintf(path, sizeof(path), "/proc/%.10s/fd", pid);
	DIR *folder = opendir(path);
	if (!folder)
		return FIT_NONE;
	while ((entry = readdir(folder))) {
		ssize_t length = readlinkat(dirfd(folder), entry->d_name, target, sizeof(target) - 1);
		if (length < 0)
			continue;
		target[length] = '\0';
		if (strncmp(target, "socket:[", 8) != 0)
			continue;
		ino_t inode = strtoul(target + 8, NULL, 10);
		for (size_t i = 0; i < search->count; i++)
			if (search->candidates[i].inode == inode && search->candidates[i].fit > best)
				best = search->candidates[i].fit;
	}
	closedir(folder);
	return best;
}

int listener_holder_find(enum listen_type type, const struct listener_address *address, pid_t *ret_pid,
			 char ret_comm[static 17])
{
	struct search search = {.type = type, .address = address};
	struct process_stat found = {.start_time = 0};
	enum fit found_fit = FIT_NONE;
	const struct dirent *entry;

	if (address->any.sa_family == AF_UNIX) {
		search_table(&search, "/proc/net/unix");
	} else {
		search_table(&search, type == LISTEN_UDP ? "/proc/net/udp" : "/proc/net/tcp");
		search_table(&search, type == LISTEN_UDP ? "/proc/net/udp6" : "/proc/net/tcp6");
	}
	DIR *proc = search.count > 0 ? opendir("/proc") : NULL;
	if (!proc)
		return -ENOENT;
	while ((entry = readdir(proc))) {
		struct process_stat process;
		if (entry->d_name[0] < '1' || entry->d_name[0] > '9')
			continue;
		enum fit fit = process_fit(&search, entry->d_name);
		pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
		if (fit == FIT_NONE || fit < found_fit || process_stat(pid, &process) < 0 ||
		    (fit == found_fit && process.start_time >= found.start_time))
			continue;
		found_fit = fit;
		found = process;
		*ret_pid = pid;
		strlcpy(ret_comm, process.comm, 17);
	}
	closedir(proc);
	return found_fit == FIT_NONE ? -ENOENT : 0;
}

int listener_find_holder(const struct listen_spec *spec, pid_t *ret_pid, char ret_comm[static 17])
{
	struct listener_addresses addresses = {.items = NULL};
	struct listener_address address;
	int r = -ENOENT;

	switch (spec->type) {
	case LISTEN_TCP:
	case LISTEN_UDP:
		if (spec->port == 0 || listener_resolve(spec, &addresses, NULL) < 0)
			return -ENOENT;
		for (size_t i = 0; i < addresses.count && r < 0; i++)
			r = listener_holder_find(spec->type, &addresses.items[i], ret_pid, ret_comm);
		free(addresses.items);
		return r;
	case LISTEN_UNIX:
	case LISTEN_UNIXGRAM:
		if (listener_unix_address(spec, &address, NULL) < 0)
			return -ENOENT;
		return listener_holder_find(spec->type, &address, ret_pid, ret_comm);
	case LISTEN_FD:
	case LISTEN_SYSTEMD:
		break;
	}
	return -ENOENT;
}
