/* SPDX-License-Identifier: MIT */
/* The set as a whole, its inet sockets, and the search for the process that holds an address. */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>

#include "listener_fixture.h"

/* What a helper process opened, before the fork chose the address. */
static char shared_spec[128];
static struct listener_set helper_set;

static void hold_shared_spec(void)
{
	must_open(&helper_set, shared_spec);
}

/* A port that is free now, kept by nobody. */
static unsigned free_port(void)
{
	struct listener_set set;

	must_open(&set, ":0");
	unsigned port = port_of(&set.items[0]);
	listener_set_close(&set);
	return port;
}

static void test_listener_wildcard_is_one_dual_stack_socket(void)
{
	struct listener_set set;
	struct stat status;

	must_open(&set, "http=:0");
	check_int(set.count, 1);
	const struct listener *listener = &set.items[0];
	check_contains(listener->address, "[::]:");
	check(port_of(listener) != 0);
	check_str(listener->name, "http");
	check_str(listener->type, "tcp");
	check(listener->stream && !listener->inherited && !listener->path && !listener->guard_path);
	check(fcntl(listener->fd, F_GETFD) & FD_CLOEXEC);
	check_int(fcntl(listener->fd, F_GETFL) & O_NONBLOCK, 0);
	check_int(option_of(listener->fd, SOL_SOCKET, SO_REUSEADDR), 1);
	check_int(fstat(listener->fd, &status), 0);
	check(listener->socket_ino == status.st_ino && listener->socket_dev == status.st_dev);
	check_int(reach_inet("127.0.0.1", port_of(listener)), 0);
	check_int(reach_inet("::1", port_of(listener)), 0);
	unsigned port = port_of(listener);
	listener_set_close(&set);
	check(!set.items && set.count == 0);
	check_int(reach_inet("127.0.0.1", port), -ECONNREFUSED);
}

static void test_listener_v6only_leaves_ipv4_alone(void)
{
	struct listener_set set, other;
	char text[64];

	must_open(&set, "[::]:0?v6only=yes");
	unsigned port = port_of(&set.items[0]);
	check_int(reach_inet("::1", port), 0);
	check_int(reach_inet("127.0.0.1", port), -ECONNREFUSED);
	snprintf(text, sizeof(text), "0.0.0.0:%u", port);
	must_open(&other, text);
	listener_set_close(&other);
	listener_set_close(&set);
}

static void test_listener_nonblock_is_set_at_bind_only_when_asked(void)
{
	struct listener_set set;
	char name[64];

	snprintf(name, sizeof(name), "unix:@listener-test-%d?nonblock=yes", (int)getpid());
	must_open(&set, "127.0.0.1:0?nonblock=yes", "127.0.0.1:0", name);
	check(fcntl(set.items[0].fd, F_GETFL) & O_NONBLOCK);
	check(!(fcntl(set.items[1].fd, F_GETFL) & O_NONBLOCK));
	check(fcntl(set.items[2].fd, F_GETFL) & O_NONBLOCK);
	listener_set_close(&set);
}

static int kernel_backlog(int fd)
{
	struct tcp_info info;
	socklen_t length = sizeof(info);

	check_int(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length), 0);
	return (int)info.tcpi_sacked;
}

static void test_listener_backlog_is_the_effective_one(void)
{
	struct listener_set set;
	char text[32] = "";
	int fd = open("/proc/sys/net/core/somaxconn", O_RDONLY | O_CLOEXEC);

	check(fd >= 0 && read(fd, text, sizeof(text) - 1) > 0);
	close(fd);
	must_open(&set, "127.0.0.1:0?backlog=7", "127.0.0.1:0?backlog=1000000", "127.0.0.1:0");
	check_int(set.items[0].backlog, 7);
	check_int(set.items[1].backlog, atoi(text));
	for (size_t i = 0; i < set.count; i++)
		check_int(set.items[i].backlog, kernel_backlog(set.items[i].fd));
	listener_set_close(&set);
}

static void test_listener_options_reach_the_socket(void)
{
	struct listener_set set;

	must_open(&set, "127.0.0.1:0?nodelay&keepalive&reuseport&defer-accept=3s&rcvbuf=65536&sndbuf=65536&freebind",
		  "127.0.0.1:0");
	int fd = set.items[0].fd, plain = set.items[1].fd;
	check(option_of(fd, IPPROTO_TCP, TCP_NODELAY) && !option_of(plain, IPPROTO_TCP, TCP_NODELAY));
	check(option_of(fd, SOL_SOCKET, SO_KEEPALIVE) && !option_of(plain, SOL_SOCKET, SO_KEEPALIVE));
	check(option_of(fd, SOL_SOCKET, SO_REUSEPORT) && !option_of(plain, SOL_SOCKET, SO_REUSEPORT));
	check(option_of(fd, IPPROTO_IP, IP_FREEBIND) && !option_of(plain, IPPROTO_IP, IP_FREEBIND));
	check(option_of(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT) >= 3 && !option_of(plain, IPPROTO_TCP, TCP_DEFER_ACCEPT));
	/* The kernel doubles what is asked, for its own bookkeeping (socket(7)). */
	check_int(option_of(fd, SOL_SOCKET, SO_RCVBUF), 2 * 65536);
	check_int(option_of(fd, SOL_SOCKET, SO_SNDBUF), 2 * 65536);
	listener_set_close(&set);
}

static void test_listener_freebind_takes_an_address_that_is_not_here(void)
{
	struct listener_set set;

	check_int(open_these(&set, "192.0.2.1:0"), -EADDRNOTAVAIL);
	check_contains(failure.text, "192.0.2.1:0 is no address of this host (freebind");
	must_open(&set, "192.0.2.1:0?freebind", "[2001:db8::1]:0?freebind");
	check_contains(set.items[0].address, "192.0.2.1:");
	check_contains(set.items[1].address, "[2001:db8::1]:");
	listener_set_close(&set);
}

static void test_listener_udp_is_exclusive_and_has_no_backlog(void)
{
	struct listener_set set, other;
	char text[64];

	must_open(&set, "udp:127.0.0.1:0");
	check_str(set.items[0].type, "udp");
	check(!set.items[0].stream);
	check_int(set.items[0].backlog, 0);
	snprintf(text, sizeof(text), "udp:127.0.0.1:%u", port_of(&set.items[0]));
	check_int(open_these(&other, text), -EADDRINUSE);
	check_contains(failure.text, "is in use by another of our listeners");
	listener_set_close(&set);
}

static void check_names_holder(const char *held, const char *asked)
{
	unsigned port = free_port();
	struct listener_set set;
	struct listen_spec spec;
	char text[128], want[64], comm[17] = "";
	pid_t found = 0;

	snprintf(shared_spec, sizeof(shared_spec), "%s:%u", held, port);
	pid_t pid = start_helper("some holder)", hold_shared_spec);
	snprintf(text, sizeof(text), "%s:%u", asked, port);
	check_int(open_these(&set, text), -EADDRINUSE);
	snprintf(want, sizeof(want), " is in use by some holder) (pid %d)", (int)pid);
	check_contains(failure.text, want);
	check_contains(failure.text, text);
	check_int(check_these(text), -EADDRINUSE);
	check_contains(failure.text, want);
	check_int(listen_spec_parse(text, &spec, NULL), 0);
	check_int(listener_find_holder(&spec, &found, comm), 0);
	check_int(found, pid);
	check_str(comm, "some holder)");
	stop_helper(pid);
	check_int(listener_find_holder(&spec, &found, comm), -ENOENT);
	listen_spec_finish(&spec);
	must_open(&set, text);
	listener_set_close(&set);
}

static void test_listener_in_use_names_the_holder(void)
{
	check_names_holder("127.0.0.1", "127.0.0.1");
	check_names_holder("[::1]", "[::1]");
	check_names_holder("", "127.0.0.1"); /* a dual-stack wildcard under an IPv4 address */
	check_names_holder("127.0.0.1", "");
	check_names_holder("0.0.0.0", "");
	check_names_holder("udp:127.0.0.1", "udp:127.0.0.1");
	check_names_holder("udp:[::1]", "udp:");
}

static void hold_with_a_child(void)
{
	/* Start times are told in ticks of 10 ms: the two must differ. */
	const struct timespec two_ticks = {.tv_nsec = 20 * 1000 * 1000};

	must_open(&helper_set, shared_spec);
	nanosleep(&two_ticks, NULL);
	if (fork_bound() == 0) {
		prctl(PR_SET_NAME, "inheritor");
		for (;;)
			pause();
	}
}

static void test_listener_of_several_holders_the_first_is_named(void)
{
	struct listener_set set;
	char want[64];

	snprintf(shared_spec, sizeof(shared_spec), "127.0.0.1:%u", free_port());
	pid_t pid = start_helper("parent", hold_with_a_child);
	check_int(open_these(&set, shared_spec), -EADDRINUSE);
	snprintf(want, sizeof(want), "is in use by parent (pid %d)", (int)pid);
	check_contains(failure.text, want);
	stop_helper(pid);
}

/* Field report A5: everything was stopped, but a helper that inherited the listener lives on. */
static void test_listener_orphan_that_kept_the_port_is_named(void)
{
	struct listener_set set;
	char want[64];
	int alive[2];

	must_open(&set, "127.0.0.1:0");
	snprintf(shared_spec, sizeof(shared_spec), "127.0.0.1:%u", port_of(&set.items[0]));
	check_int(pipe2(alive, O_CLOEXEC), 0);
	pid_t pid = fork_bound();
	if (pid == 0) {
		prctl(PR_SET_NAME, "leftover");
		check_int(write(alive[1], "x", 1), 1);
		for (;;)
			pause();
	}
	check(is_readable(alive[0], DEADLINE_MS));
	listener_set_close(&set);
	check_int(open_these(&set, shared_spec), -EADDRINUSE);
	snprintf(want, sizeof(want), "is in use by leftover (pid %d)", (int)pid);
	check_contains(failure.text, want);
	stop_helper(pid);
	close(alive[0]);
	close(alive[1]);
	must_open(&set, shared_spec);
	listener_set_close(&set);
}

static void test_listener_same_address_twice_is_said(void)
{
	struct listener_set set;
	char first[64], second[64];
	unsigned port = free_port();

	snprintf(first, sizeof(first), "0.0.0.0:%u", port);
	snprintf(second, sizeof(second), "[::]:%u", port);
	check_int(open_these(&set, first, second), -EADDRINUSE);
	check_contains(failure.text, "is in use by another of our listeners (with v6only=yes");
	check_int(check_these(first, second), -EADDRINUSE);
	check_contains(failure.text, "is in use by another of our listeners");
	check_int(check_these(second, first), -EADDRINUSE);
	snprintf(second, sizeof(second), "[::]:%u?v6only=yes", port);
	check_int(check_these(first, second), 0);
	check_int(check_these(second, first), 0);
	must_open(&set, first, second);
	check_int(set.count, 2);
	listener_set_close(&set);
	snprintf(first, sizeof(first), "127.0.0.1:%u?reuseport", port);
	check_int(check_these(first, first), 0);
	must_open(&set, first, first);
	listener_set_close(&set);
}

static void test_listener_failure_takes_everything_back(void)
{
	struct listener_set set = {.count = 77};
	char first[64], folder[] = "/tmp/listener-test-XXXXXX", path[64], guard[64];

	check(mkdtemp(folder));
	snprintf(first, sizeof(first), "127.0.0.1:%u", free_port());
	snprintf(path, sizeof(path), "unix:%s/a", folder);
	snprintf(guard, sizeof(guard), "%s/.a.handoff", folder);
	check_int(open_these(&set, first, path, "192.0.2.1:80"), -EADDRNOTAVAIL);
	check_contains(failure.text, "192.0.2.1:80");
	check_int(set.count, 77);
	check_int(access(path + 5, F_OK), -1);
	check_int(access(guard, F_OK), -1);
	check_int(reach_inet("127.0.0.1", (unsigned)atoi(strrchr(first, ':') + 1)), -ECONNREFUSED);
	check_int(rmdir(folder), 0);
}

static void test_listener_check_leaves_nothing(void)
{
	struct listener_set set;
	char text[64], name[64];

	snprintf(name, sizeof(name), "unix:@listener-test-%d", (int)getpid());
	snprintf(text, sizeof(text), "127.0.0.1:%u", free_port());
	check_int(check_these(text, "udp:127.0.0.1:0", ":0", name), 0);
	must_open(&set, text, name);
	check_int(check_these(name), -EADDRINUSE);
	check_int(check_these(text), -EADDRINUSE);
	listener_set_close(&set);
}

static void without_capabilities(void)
{
	struct listener_set set;

	check_int(setgid(65534), 0);
	check_int(setuid(65534), 0);
	check_int(open_these(&set, "127.0.0.1:80"), -EACCES);
	check_contains(failure.text, "permission denied for 127.0.0.1:80");
	check_contains(failure.text, "CAP_NET_BIND_SERVICE");
	check_contains(failure.text, "net.ipv4.ip_unprivileged_port_start");
	check_int(check_these("127.0.0.1:80"), -EACCES);
}

static void test_listener_low_port_without_the_capability_says_what_is_needed(void)
{
	char text[32] = "";
	int fd = open("/proc/sys/net/ipv4/ip_unprivileged_port_start", O_RDONLY | O_CLOEXEC);

	check(fd >= 0 && read(fd, text, sizeof(text) - 1) > 0);
	close(fd);
	if (geteuid() != 0 || atoi(text) <= 80) {
		printf("# not tried: needs root, and ports below 80 that are not free for all\n");
		return;
	}
	in_child(without_capabilities);
}

static void at_the_descriptor_limit(void)
{
	struct listener_set set = {.count = 77};
	char path[64];
	int first_free = dup(0);

	snprintf(path, sizeof(path), "unix:/tmp/listener-test-%d", (int)getpid());
	check(first_free > 0);
	close(first_free);
	/* Room for one more descriptor, so that the first spec has its socket and the second has not. */
	struct rlimit limit;
	check_int(getrlimit(RLIMIT_NOFILE, &limit), 0);
	limit.rlim_cur = (rlim_t)first_free + 1;
	check_int(setrlimit(RLIMIT_NOFILE, &limit), 0);
	check_int(open_these(&set, "127.0.0.1:0", "127.0.0.1:0"), -EMFILE);
	check_contains(failure.text, "Too many open files");
	check_int(set.count, 77);
	check_int(open_these(&set, path), -EMFILE);
	check_int(access(path + 5, F_OK), -1);
	check_int(open_these(&set, "127.0.0.1:0"), 0);
	listener_set_close(&set);
}

static void test_listener_descriptor_limit_is_a_clean_failure(void)
{
	in_child(at_the_descriptor_limit);
}

/* From now on socket(AF_INET6, …) fails as on a kernel without IPv6. */
static void take_ipv6_away(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_INET6, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EAFNOSUPPORT),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	const struct sock_fprog program = {.len = ARRAY_SIZE(code), .filter = code};

	check_int(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	check_int(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

static void without_ipv6(void)
{
	struct listener_set set;

	take_ipv6_away();
	must_open(&set, ":0");
	check_int(set.count, 1);
	check_contains(set.items[0].address, "0.0.0.0:");
	listener_set_close(&set);
	check_int(check_these(":0"), 0);
	check_int(open_these(&set, "[::1]:0"), -EAFNOSUPPORT);
	check_contains(failure.text, "IPv6 is not available");
	check_int(open_these(&set, ":0?v6only=yes"), -EAFNOSUPPORT);
	must_open(&set, "localhost:0");
	for (size_t i = 0; i < set.count; i++)
		check_contains(set.items[i].address, "127.0.0.1:");
	listener_set_close(&set);
}

static void test_listener_without_ipv6_the_wildcard_is_ipv4(void)
{
	in_child(without_ipv6);
}

/* --- In a network of our own, with our own /etc/hosts --- */

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	check(fd >= 0);
	check_int(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static void enter_own_network(const char *hosts)
{
	struct ifreq loopback = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	char path[] = "/tmp/listener-test-hosts-XXXXXX";

	check_int(unshare(CLONE_NEWNET | CLONE_NEWNS), 0);
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	check_int(ioctl(fd, SIOCSIFFLAGS, &loopback), 0);
	close(fd);
	check_int(mount("none", "/", "none", MS_REC | MS_PRIVATE, ""), 0);
	fd = mkostemp(path, O_CLOEXEC);
	check(fd >= 0);
	close(fd);
	write_file(path, hosts);
	check_int(mount(path, "/etc/hosts", "none", MS_BIND, ""), 0);
	check_int(unlink(path), 0);
}

static void names_in_own_network(void)
{
	struct listener_set set;

	enter_own_network("127.0.0.1 both one\n::1 both\n127.0.0.1 both\n127.0.0.2 two\n127.0.0.3 two\n"
			  "127.0.0.4 partly\n192.0.2.1 partly\n192.0.2.1 away\n");
	must_open(&set, "web=both:0");
	check_int(set.count, 2);
	check(strstr(set.items[0].address, "[::1]:") || strstr(set.items[1].address, "[::1]:"));
	check(strstr(set.items[0].address, "127.0.0.1:") || strstr(set.items[1].address, "127.0.0.1:"));
	check_int(port_of(&set.items[0]), port_of(&set.items[1]));
	check_str(set.items[0].name, "web");
	check_str(set.items[1].name, "web");
	listener_set_close(&set);
	must_open(&set, "two:0");
	check_int(set.count, 2);
	check_int(port_of(&set.items[0]), port_of(&set.items[1]));
	listener_set_close(&set);
	/* A family that is missing is left out; an address that is missing is not. */
	check_int(open_these(&set, "partly:0"), -EADDRNOTAVAIL);
	check_contains(failure.text, "192.0.2.1");
	check_int(open_these(&set, "away:80"), -EADDRNOTAVAIL);
	check_int(open_these(&set, "nowhere.example:80"), -EADDRNOTAVAIL);
	check_contains(failure.text, "cannot resolve \"nowhere.example\"");
	write_file("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
	must_open(&set, "both:0");
	check_int(set.count, 1);
	check_contains(set.items[0].address, "127.0.0.1:");
	listener_set_close(&set);
	check_int(open_these(&set, "[::1]:0"), -EADDRNOTAVAIL);
	must_open(&set, ":0");
	check_int(reach_inet("127.0.0.1", port_of(&set.items[0])), 0);
	listener_set_close(&set);
	write_file("/proc/sys/net/core/somaxconn", "5");
	must_open(&set, "one:0");
	check_int(set.items[0].backlog, 5);
	listener_set_close(&set);
}

/* Only one port is left for port 0, and one of the name's addresses has it taken. */
static void shared_port_taken(void)
{
	struct listener_set held, odd, set;

	enter_own_network("127.0.0.2 two\n127.0.0.3 two\n");
	write_file("/proc/sys/net/ipv4/ip_local_port_range", "40000 40000");
	must_open(&held, "127.0.0.3:40000");
	check_int(open_these(&set, "two:0"), -EADDRINUSE);
	check_contains(failure.text, "127.0.0.3:40000 is in use by another of our listeners");
	/* The kernel prefers one half of the range, the odd or the even ports. */
	write_file("/proc/sys/net/ipv4/ip_local_port_range", "40000 40007");
	must_open(&odd, "127.0.0.3:40001");
	for (int i = 0; i < 20; i++) {
		must_open(&set, "two:0");
		check_int(set.count, 2);
		check_int(port_of(&set.items[0]), port_of(&set.items[1]));
		listener_set_close(&set);
	}
	listener_set_close(&odd);
	listener_set_close(&held);
}

static void test_listener_name_gives_every_address_and_one_port(void)
{
	if (geteuid() != 0) {
		printf("# not tried: needs root for a network of its own\n");
		return;
	}
	in_child(names_in_own_network);
	in_child(shared_port_taken);
}

TEST_MAIN(TEST(test_listener_wildcard_is_one_dual_stack_socket), TEST(test_listener_v6only_leaves_ipv4_alone),
	  TEST(test_listener_nonblock_is_set_at_bind_only_when_asked), TEST(test_listener_backlog_is_the_effective_one),
	  TEST(test_listener_options_reach_the_socket), TEST(test_listener_freebind_takes_an_address_that_is_not_here),
	  TEST(test_listener_udp_is_exclusive_and_has_no_backlog), TEST(test_listener_in_use_names_the_holder),
	  TEST(test_listener_of_several_holders_the_first_is_named),
	  TEST(test_listener_orphan_that_kept_the_port_is_named), TEST(test_listener_same_address_twice_is_said),
	  TEST(test_listener_failure_takes_everything_back), TEST(test_listener_check_leaves_nothing),
	  TEST(test_listener_low_port_without_the_capability_says_what_is_needed),
	  TEST(test_listener_descriptor_limit_is_a_clean_failure),
	  TEST(test_listener_without_ipv6_the_wildcard_is_ipv4),
	  TEST(test_listener_name_gives_every_address_and_one_port))
