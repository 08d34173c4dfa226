/* SPDX-License-Identifier: MIT */
/* The states of sockets from /proc/net, where sock_diag(7) is not to be had. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "connections_private.h"
#include "fd.h"

/* SS_CONNECTED of the kernel's <linux/net.h>. */
#define UNIX_CONNECTED 3

static void fclosep(FILE **file)
{
	if (*file)
		fclose(*file);
}

static void see_tcp_line(struct connections *connections, char *line)
{
	unsigned port = 0, state = 0;
	unsigned long inode = 0;

	/* Number, local address and port are set apart by colons; the line that names the columns has none. */
	const char *colon = strchr(line, ':');
	colon = colon ? strchr(colon + 1, ':') : NULL;
	/* The ports of others first: this table has all sockets of the machine, and sscanf takes its time. */
	if (!colon || !connections_has_port(connections, (uint16_t)strtoul(colon + 1, NULL, 16)))
		return;
	if (sscanf(colon + 1, "%x %*s %x %*s %*s %*s %*s %*s %lu", &port, &state, &inode) != 3)
		return;
	if (state < 32 && !((1U << state) & CONNECTIONS_TCP_NOT))
		connections_see_tcp(connections, (uint16_t)port, inode);
}

/* The name that is shown as `text`: '@' stands for the NUL of an abstract one (and for any within it, which is why they
 * are not compared the other way round). */
static bool is_shown_as(const struct connections_name *name, const char *text)
{
	bool abstract = name->bytes[0] == '\0';
	size_t length = strlen(text);

	if (length != name->length - (abstract ? 0 : 1))
		return false;
	for (size_t i = 0; i < length; i++)
		if (text[i] != (name->bytes[i] ? name->bytes[i] : '@'))
			return false;
	return true;
}

static void see_unix_line(struct connections *connections, char *line)
{
	unsigned type = 0, state = 0;
	unsigned long inode = 0;
	int name_at = 0;

	line[strcspn(line, "\n")] = '\0';
	/* One blank before the name, which may begin with more of them. */
	if (sscanf(line, "%*s %*s %*s %*s %x %x %lu%n", &type, &state, &inode, &name_at) != 3 ||
	    state != UNIX_CONNECTED || line[name_at] != ' ')
		return;
	for (size_t i = 0; i < connections->name_count; i++) {
		const struct connections_name *name = &connections->names[i];
		if ((int)type == name->type && is_shown_as(name, line + name_at + 1))
			connections_see_unix(connections, name, inode);
	}
}

static int see_table(struct connections *connections, const char *path,
		     void (*see_line)(struct connections *connections, char *line))
{
	CLEANUP(fclosep) FILE *file = fopen(path, "re");
	CLEANUP(freep) char *line = NULL;
	size_t size = 0;

	if (!file)
		return -errno;
	errno = 0;
	while (getline(&line, &size, file) >= 0)
		see_line(connections, line);
	return feof(file) ? 0 : errno ? -errno : -EIO;
}

int connections_proc(struct connections *connections)
{
	int result = 0;

	/* A name over two lines would never be found. */
	for (size_t i = 0; i < connections->name_count; i++)
		if (memchr(connections->names[i].bytes, '\n', connections->names[i].length))
			return -EBADMSG;
	if (connections->ipv4)
		result = see_table(connections, "/proc/net/tcp", see_tcp_line);
	if (result == 0 && connections->ipv6)
		result = see_table(connections, "/proc/net/tcp6", see_tcp_line);
	if (result == 0 && connections->name_count > 0)
		result = see_table(connections, "/proc/net/unix", see_unix_line);
	return result;
}
