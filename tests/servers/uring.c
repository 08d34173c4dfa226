/* SPDX-License-Identifier: MIT */
/* A server that waits for connections through io_uring, where nobody outside can see what it waits on. It takes
 * descriptor 3, answers one request a connection, and ends on INT. With an argument it says that it is ready: uring
 * [WORD]. Bare system calls, so that liburing is not needed. */
#include <err.h>
#include <errno.h>
#include <linux/io_uring.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LISTEN_FD 3
#define ENTRIES 4

static struct ring {
	int fd;
	unsigned *sq_tail, *sq_mask, *sq_array, *cq_head, *cq_tail, *cq_mask;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
} ring;

static char *map(size_t size, off_t offset)
{
	char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring.fd, offset);

	if (memory == MAP_FAILED)
		err(1, "mmap");
	return memory;
}

static unsigned *word(char *memory, unsigned offset)
{
	return (unsigned *)(void *)(memory + offset);
}

static void open_ring(void)
{
	struct io_uring_params params = {0};

	ring.fd = (int)syscall(SYS_io_uring_setup, ENTRIES, &params);
	if (ring.fd < 0)
		err(1, "io_uring_setup");
	char *sq = map(params.sq_off.array + params.sq_entries * sizeof(unsigned), IORING_OFF_SQ_RING);
	char *cq = map(params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe), IORING_OFF_CQ_RING);
	ring.sqes = (void *)map(params.sq_entries * sizeof(struct io_uring_sqe), IORING_OFF_SQES);
	ring.cqes = (void *)(cq + params.cq_off.cqes);
	ring.sq_tail = word(sq, params.sq_off.tail);
	ring.sq_mask = word(sq, params.sq_off.ring_mask);
	ring.sq_array = word(sq, params.sq_off.array);
	ring.cq_head = word(cq, params.cq_off.head);
	ring.cq_tail = word(cq, params.cq_off.tail);
	ring.cq_mask = word(cq, params.cq_off.ring_mask);
}

/* One accept(2), waited for in the ring. The connection or -errno. */
static int accept_one(void)
{
	unsigned tail = *ring.sq_tail, index = tail & *ring.sq_mask;

	memset(&ring.sqes[index], 0, sizeof(ring.sqes[index]));
	ring.sqes[index].opcode = IORING_OP_ACCEPT;
	ring.sqes[index].fd = LISTEN_FD;
	ring.sq_array[index] = index;
	__atomic_store_n(ring.sq_tail, tail + 1, __ATOMIC_RELEASE);
	for (unsigned submit = 1; __atomic_load_n(ring.cq_tail, __ATOMIC_ACQUIRE) == *ring.cq_head; submit = 0)
		if (syscall(SYS_io_uring_enter, ring.fd, submit, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0 &&
		    errno != EINTR)
			err(1, "io_uring_enter");
	int connection = ring.cqes[*ring.cq_head & *ring.cq_mask].res;
	__atomic_store_n(ring.cq_head, *ring.cq_head + 1, __ATOMIC_RELEASE);
	return connection;
}

static void answer(int connection)
{
	const char *generation = getenv("HANDOFF_GENERATION");
	char request[4096], body[64], text[256];

	if (recv(connection, request, sizeof(request), 0) > 0) {
		snprintf(body, sizeof(body), "gen=%.16s pid=%d\n", generation ? generation : "", (int)getpid());
		int length = snprintf(text, sizeof(text),
				      "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s",
				      strlen(body), body);
		send(connection, text, (size_t)length, MSG_NOSIGNAL);
	}
	close(connection);
}

int main(int argc, char **argv)
{
	const char *ready_fd = getenv("HANDOFF_READY_FD");

	(void)argv;
	open_ring();
	if (argc > 1 && ready_fd && write(atoi(ready_fd), "\n", 1) != 1)
		err(1, "HANDOFF_READY_FD");
	for (;;) {
		int connection = accept_one();
		if (connection >= 0)
			answer(connection);
		else if (connection != -EINTR && connection != -EAGAIN)
			errx(1, "accept: %s", strerror(-connection));
	}
}
