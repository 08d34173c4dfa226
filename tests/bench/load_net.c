/* SPDX-License-Identifier: MIT */
/* Where load connects to and from, and its one-request mode. */
#include "load.h"

#include <arpa/inet.h>
#include <bsd/string.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int load_target_parse(const char *text, struct load_target *ret_target)
{
	struct load_target target = {.text = text};
	struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM}, *found;
	struct sockaddr_un *local = (struct sockaddr_un *)&target.address;
	char host[80], *colon, *name = host;

	if (strncmp(text, "unix:", 5) == 0) {
		local->sun_family = AF_UNIX;
		if (strlcpy(local->sun_path, text + 5, sizeof(local->sun_path)) >= sizeof(local->sun_path))
			return -ENAMETOOLONG;
		target.length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(local->sun_path));
		if (local->sun_path[0] == '@')
			local->sun_path[0] = '\0';
		else
			target.length++;
		*ret_target = target;
		return 0;
	}
	if (strncmp(text, "tcp:", 4) == 0)
		text += 4;
	strlcpy(host, text, sizeof(host));
	colon = strrchr(host, ':');
	if (!colon || colon == host)
		return -EINVAL;
	*colon = '\0';
	if (host[0] == '[' && colon[-1] == ']') {
		colon[-1] = '\0';
		name++;
	}
	if (getaddrinfo(name, colon + 1, &hints, &found) != 0)
		return -EINVAL;
	memcpy(&target.address, found->ai_addr, found->ai_addrlen);
	target.length = found->ai_addrlen;
	freeaddrinfo(found);
	*ret_target = target;
	return 0;
}

static bool is_loopback4(const struct load_target *target)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)&target->address;

	return in->sin_family == AF_INET && ntohl(in->sin_addr.s_addr) >> 24 == 127;
}

static void bind_next_source(int fd)
{
	static unsigned next;
	const int on = 1;
	struct sockaddr_in source = {.sin_family = AF_INET};
	unsigned number = next++ % load.sources;

	source.sin_addr.s_addr = htonl((127U << 24) + ((1 + number / 250) << 8) + 1 + number % 250);
	/* The port is then chosen at connect, when the whole four-tuple is known, and may be in use towards others. */
	setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
	/* A failure only means the default source address. */
	(void)!bind(fd, (struct sockaddr *)&source, sizeof(source));
}

int load_connect(const struct load_target *target, int *ret_fd, bool *ret_connected)
{
	int fd = socket(target->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), error;

	if (fd < 0)
		return -errno;
	if (load.sources > 0 && is_loopback4(target))
		bind_next_source(fd);
	if (connect(fd, (const struct sockaddr *)&target->address, target->length) == 0) {
		*ret_fd = fd;
		*ret_connected = true;
		return 0;
	}
	if (errno == EINPROGRESS) {
		*ret_fd = fd;
		*ret_connected = false;
		return 0;
	}
	/* On TCP, EAGAIN is no full queue but a want of ports. */
	error = errno == EAGAIN && target->address.ss_family != AF_UNIX ? EADDRNOTAVAIL : errno;
	close(fd);
	return -error;
}

enum load_result load_result_of(int error)
{
	switch (error) {
	case ECONNREFUSED:
	case ENOENT:
		return LOAD_REFUSED;
	case ECONNRESET:
	case EPIPE:
	case ECONNABORTED:
	case ENOTCONN:
		return LOAD_RESET;
	case ETIMEDOUT:
		return LOAD_TIMEOUT;
	default:
		return LOAD_ERROR;
	}
}

int load_print_free_port(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    getsockname(fd, (struct sockaddr *)&address, &length) < 0) {
		perror("load");
		return 1;
	}
	printf("%u\n", (unsigned)ntohs(address.sin_port));
	close(fd);
	return 0;
}

/* Sends, waiting for the connect and for room; false on failure, with errno set. */
static bool one_send(int fd, const char *text, size_t size)
{
	struct pollfd fds = {.fd = fd, .events = POLLOUT};
	int timeout = (int)(load.timeout_ns / 1000000);

	while (size > 0) {
		ssize_t put;
		if (poll(&fds, 1, timeout) == 0) {
			errno = ETIMEDOUT;
			return false;
		}
		put = send(fd, text, size, MSG_NOSIGNAL);
		if (put < 0 && errno != EAGAIN)
			return false;
		if (put > 0) {
			text += put;
			size -= (size_t)put;
		}
	}
	return true;
}

static enum load_result one_receive(int fd)
{
	static char text[1 << 20];
	struct pollfd fds = {.fd = fd, .events = POLLIN};
	struct load_answer answer;
	size_t used = 0;
	ssize_t got;

	for (;;) {
		if (poll(&fds, 1, (int)(load.timeout_ns / 1000000)) == 0)
			return LOAD_TIMEOUT;
		got = recv(fd, text + used, sizeof(text) - used - 1, 0);
		if (got < 0 && errno != EAGAIN)
			return load_result_of(errno);
		used += got > 0 ? (size_t)got : 0;
		text[used] = '\0';
		if (load_answer_parse(text, used, got == 0, &answer))
			break;
		if (got == 0)
			return used ? LOAD_TRUNCATED : LOAD_EMPTY;
	}
	fwrite(answer.body, 1, answer.body_length, stdout);
	return answer.status == 200 && answer.expected ? LOAD_OK : LOAD_WRONG;
}

static enum load_result one(int hold_ms)
{
	enum load_result result;
	bool connected;
	char text[2048];
	int fd, r = load_connect(&load.target, &fd, &connected);
	size_t size = load_request(text, sizeof(text), false);

	if (r < 0)
		return load_result_of(-r);
	/* Held in the middle of the request: the server has a connection that it must not close for being idle. */
	if (!one_send(fd, text, size - 2))
		result = load_result_of(errno);
	else {
		struct pollfd fds = {.fd = fd};
		poll(&fds, hold_ms > 0, hold_ms);
		result = one_send(fd, text + size - 2, 2) ? one_receive(fd) : load_result_of(errno);
	}
	close(fd);
	return result;
}

int load_one(int hold_ms)
{
	enum load_result result = one(hold_ms);

	if (result == LOAD_OK)
		return 0;
	fflush(stdout);
	fprintf(stderr, "load: %s\n", load_result_names[result]);
	return 1;
}
