/* SPDX-License-Identifier: MIT */
/* The states of sockets through sock_diag(7): the kernel picks those with our ports, and writes no text. */
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <string.h>
#include <sys/socket.h>

#include "connections_private.h"

/* Beyond that the kernel names the sockets of all ports; which are ours is compared here in any case. */
#define PORTS_MAX 64

/* Room for a message of the kernel's largest dump (32 KiB), and for our requests. */
#define BUFFER_SIZE 32768

struct query {
	struct mnl_socket *socket; /* owned; never blocks: each part of a dump is ready before the one before is read */
	unsigned sequence;
	union {
		struct nlmsghdr header;
		char bytes[BUFFER_SIZE];
	} buffer;
};

static void close_socket(struct mnl_socket **socket)
{
	if (*socket)
		mnl_socket_close(*socket);
}

static int see_tcp_message(const struct nlmsghdr *header, void *data)
{
	const struct inet_diag_msg *message = mnl_nlmsg_get_payload(header);

	if (mnl_nlmsg_get_payload_len(header) >= sizeof(*message))
		connections_see_tcp(data, ntohs(message->id.idiag_sport), message->idiag_inode);
	return MNL_CB_OK;
}

static int see_unix_message(const struct nlmsghdr *header, void *data)
{
	const struct unix_diag_msg *message = mnl_nlmsg_get_payload(header);
	struct nlattr *attribute;

	if (mnl_nlmsg_get_payload_len(header) < sizeof(*message))
		return MNL_CB_OK;
	mnl_attr_for_each(attribute, header, sizeof(*message))
	{
		struct connections_name name = {.type = message->udiag_type};
		name.length = mnl_attr_get_payload_len(attribute);
		if (mnl_attr_get_type(attribute) != UNIX_DIAG_NAME || name.length > sizeof(name.bytes))
			continue;
		memcpy(name.bytes, mnl_attr_get_payload(attribute), name.length);
		connections_see_unix(data, &name, message->udiag_ino);
	}
	return MNL_CB_OK;
}

/* The end of a dump may carry an error: a kernel without tcp_diag says so here. */
static int see_done(const struct nlmsghdr *header, void *data)
{
	int result = 0;

	(void)data;
	if (mnl_nlmsg_get_payload_len(header) >= sizeof(result))
		memcpy(&result, mnl_nlmsg_get_payload(header), sizeof(result));
	if (result >= 0)
		return MNL_CB_STOP;
	errno = -result;
	return MNL_CB_ERROR;
}

static struct nlmsghdr *start_request(struct query *query)
{
	struct nlmsghdr *header = mnl_nlmsg_put_header(query->buffer.bytes);

	header->nlmsg_type = SOCK_DIAG_BY_FAMILY;
	header->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	header->nlmsg_seq = ++query->sequence;
	return header;
}

/* Sends the request in the buffer and takes the whole answer. */
static int run(struct query *query, mnl_cb_t see, struct connections *connections)
{
	mnl_cb_t control[] = {[NLMSG_DONE] = see_done};
	unsigned port = mnl_socket_get_portid(query->socket);
	int result = MNL_CB_OK;

	if (mnl_socket_sendto(query->socket, &query->buffer.header, query->buffer.header.nlmsg_len) < 0)
		return -errno;
	while (result > MNL_CB_STOP) {
		ssize_t length = mnl_socket_recvfrom(query->socket, query->buffer.bytes, sizeof(query->buffer.bytes));
		if (length < 0 && errno == EINTR)
			continue;
		if (length < 0)
			return -errno;
		result = mnl_cb_run2(query->buffer.bytes, (size_t)length, query->sequence, port, see, connections,
				     control, ARRAY_SIZE(control));
	}
	return result < 0 ? -errno : 0;
}

/* Adds a program that lets sockets with one of our ports pass: for each port a comparison, its operand, and a jump to
 * the end if they are equal. To pass is to arrive exactly at the end; where the last one fails it jumps beyond. */
static void put_ports(struct nlmsghdr *header, const struct connections *connections)
{
	struct inet_diag_bc_op operations[3 * PORTS_MAX];
	const size_t size = sizeof(operations[0]);
	size_t count = 3 * connections->port_count - 1;

	if (connections->port_count > PORTS_MAX)
		return;
	for (size_t i = 0; i < connections->port_count; i++) {
		struct inet_diag_bc_op *at = &operations[3 * i];
		at[0] = (struct inet_diag_bc_op){
			.code = INET_DIAG_BC_S_EQ, .yes = (unsigned char)(2 * size), .no = (unsigned short)(3 * size)};
		at[1] = (struct inet_diag_bc_op){.no = connections->ports[i]};
		at[2] = (struct inet_diag_bc_op){.code = INET_DIAG_BC_JMP,
						 .yes = (unsigned char)size,
						 .no = (unsigned short)((count - 3 * i - 2) * size)};
	}
	mnl_attr_put(header, INET_DIAG_REQ_BYTECODE, count * size, operations);
}

static int see_tcp(struct query *query, unsigned char family, struct connections *connections)
{
	struct nlmsghdr *header = start_request(query);
	struct inet_diag_req_v2 *request = mnl_nlmsg_put_extra_header(header, sizeof(*request));

	request->sdiag_family = family;
	request->sdiag_protocol = IPPROTO_TCP;
	request->idiag_states = ~CONNECTIONS_TCP_NOT;
	put_ports(header, connections);
	return run(query, see_tcp_message, connections);
}

static int see_unix(struct query *query, struct connections *connections)
{
	struct nlmsghdr *header = start_request(query);
	struct unix_diag_req *request = mnl_nlmsg_put_extra_header(header, sizeof(*request));

	request->sdiag_family = AF_UNIX;
	request->udiag_states = 1U << TCP_ESTABLISHED; /* unix sockets use TCP's numbers */
	request->udiag_show = UDIAG_SHOW_NAME;
	return run(query, see_unix_message, connections);
}

int connections_diag(struct connections *connections)
{
	struct query query = {.sequence = 0};
	CLEANUP(close_socket)
	struct mnl_socket *netlink = mnl_socket_open2(NETLINK_SOCK_DIAG, SOCK_CLOEXEC | SOCK_NONBLOCK);
	int result = 0;

	if (!netlink || mnl_socket_bind(netlink, 0, MNL_SOCKET_AUTOPID) < 0)
		return -errno;
	query.socket = netlink;
	if (connections->ipv4)
		result = see_tcp(&query, AF_INET, connections);
	if (result == 0 && connections->ipv6)
		result = see_tcp(&query, AF_INET6, connections);
	if (result == 0 && connections->name_count > 0)
		result = see_unix(&query, connections);
	return result;
}
