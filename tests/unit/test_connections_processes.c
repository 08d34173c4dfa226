/* SPDX-License-Identifier: MIT */
/* Tests of the count of open connections: processes that go away or may not be read, what nobody sees, and many. */
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <time.h>

#include "connections_fixture.h"

#define NOBODY 65534
#define MANY 10000
#define MANY_LIMIT_MS 100
/* The text of all sockets of the machine, the clients' ends among them, is the kernel's to write. */
#define MANY_PROC_LIMIT_MS 250
#define MANY_ROUNDS 5

/* --- Processes that come and go, and that may not be read --- */

static void end(void)
{
	_exit(0);
}

static void await_exit(pid_t pid)
{
	siginfo_t info;

	check_int(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
}

/* Becomes somebody who may not read everything; the process stays root's in /proc until it has run something. */
static void drop_privileges(void)
{
	if (getuid() == 0)
		check_int(setresuid(NOBODY, NOBODY, NOBODY), 0);
}

static void prober_of_gone(void)
{
	drop_privileges();
	prctl(PR_SET_DUMPABLE, 1);
	pid_t pids[] = {start(end), getpid()};
	await_exit(pids[0]);
	check_int(count_all(pids, 2), 1);
	check_int(waitpid(pids[0], NULL, 0), pids[0]);
	check_int(count_all(pids, 2), 1);
	_exit(0);
}

static void check_child(pid_t pid)
{
	int status;

	check_int(waitpid(pid, &status, 0), pid);
	if (status != 0)
		test_fail("the child failed (status %#x), see above", (unsigned)status);
}

static void test_connections_of_gone_processes(void)
{
	add_listener(listen_v4(SOCK_STREAM, 0));
	struct pair pair = pair_of(items[0].fd, true);
	check_child(start(prober_of_gone));
	close_pair(&pair);
	close_listeners();
}

/* Counts while a child with descriptors exits, and is right at any moment of that. */
static void prober_of_exiting(void)
{
	drop_privileges();
	prctl(PR_SET_DUMPABLE, 1);
	for (int round = 0; round < 20; round++) {
		siginfo_t info = {.si_pid = 0};
		pid_t child = start(end);
		while (info.si_pid == 0) {
			int64_t counted = connections_count(&child, 1, &set);
			if (counted < 0 || counted > 1)
				test_fail("counted %d", (int)counted);
			check_int(waitid(P_PID, (id_t)child, &info, WEXITED | WNOHANG), 0);
		}
	}
	_exit(0);
}

static void test_connections_of_exiting_processes(void)
{
	add_listener(listen_v4(SOCK_STREAM, 0));
	struct pair pair = pair_of(items[0].fd, true);
	check_child(start(prober_of_exiting));
	close_pair(&pair);
	close_listeners();
}

static pid_t secret_pid;
static int tell_fd;

static void secret(void)
{
	prctl(PR_SET_DUMPABLE, 0);
	check_int(write(tell_fd, "x", 1), 1);
	hold();
}

static void prober_of_secret(void)
{
	pid_t pids[] = {getpid(), secret_pid};

	drop_privileges();
	prctl(PR_SET_DUMPABLE, 1);
	check_int(connections_count(pids, 1, &set), 1);
	check_int(connections_count(pids, 2, &set), -1);
	_exit(0);
}

static void test_connections_of_unreadable_processes(void)
{
	int pipe_fds[2];

	check_int(pipe2(pipe_fds, O_CLOEXEC), 0);
	tell_fd = pipe_fds[1];
	add_listener(listen_v4(SOCK_STREAM, 0));
	struct pair pair = pair_of(items[0].fd, true);
	secret_pid = start(secret);
	wait_readable(pipe_fds[0]);
	check_child(start(prober_of_secret));
	stop(secret_pid);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
	close_pair(&pair);
	close_listeners();
}

static void *tell_and_hold(void *leader)
{
	/* Only the first thread's end is waited for: it shows as a zombie while others live. */
	pthread_join(*(pthread_t *)leader, NULL);
	check_int(write(tell_fd, "x", 1), 1);
	hold();
	return NULL;
}

static void leave_a_thread(void)
{
	static pthread_t leader;
	pthread_t thread;

	leader = pthread_self();
	check_int(pthread_create(&thread, NULL, tell_and_hold, &leader), 0);
	pthread_exit(NULL);
}

static char state_of(pid_t pid)
{
	char path[32], state = '?';

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	FILE *file = fopen(path, "re");
	check(file);
	check_int(fscanf(file, "%*d (%*[^)]) %c", &state), 1);
	fclose(file);
	return state;
}

static void test_connections_after_the_first_thread_exited(void)
{
	int pipe_fds[2];

	check_int(pipe2(pipe_fds, O_CLOEXEC), 0);
	tell_fd = pipe_fds[1];
	add_listener(listen_v4(SOCK_STREAM, 0));
	struct pair pair = pair_of(items[0].fd, true);
	pid_t child = start(leave_a_thread);
	wait_readable(pipe_fds[0]);
	/* The kernel tells those who join a little before. */
	while (state_of(child) != 'Z')
		sched_yield();
	check_int(count_all(&child, 1), 1);
	stop(child);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
	close_pair(&pair);
	close_listeners();
}

/* --- Listeners whose connections nobody sees --- */

static void prober_of_other_network(void)
{
#ifdef SO_NETNS_COOKIE
	uint64_t cookie;
	socklen_t length = sizeof(cookie);
	pid_t self = getpid();

	check_int(connections_count(&self, 1, &set), 1);
	/* Neither is there everywhere; then there is nothing to see. */
	if (getsockopt(items[0].fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &length) == 0 &&
	    unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0)
		check_int(connections_count(&self, 1, &set), -1);
#endif
	_exit(0);
}

static void test_connections_of_another_network(void)
{
	add_listener(listen_v4(SOCK_STREAM, 0));
	struct pair pair = pair_of(items[0].fd, true);
	check_child(start(prober_of_other_network));
	close_pair(&pair);
	close_listeners();
}

static void test_connections_of_other_protocols(void)
{
	int probe_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_MPTCP);

	if (probe_fd < 0) /* not in this kernel */
		return;
	close(probe_fd);
	add_listener(listen_v4(SOCK_STREAM, IPPROTO_MPTCP));
	pid_t self = getpid();
	check_int(connections_count(&self, 1, &set), -1);
	close_listeners();
}

/* --- Many --- */

static struct pair *many;
static size_t many_count;

static int64_t cpu_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Instrumented code is slower, however good it is. */
static int64_t slowness(void)
{
	const char *preload = getenv("LD_PRELOAD");
	int64_t slower = preload && strstr(preload, "vgpreload") ? 50 : 1;

#ifdef __SANITIZE_ADDRESS__
	slower = 4;
#endif
	return slower;
}

/* The best of some rounds, since the machine has other things to do. */
static void check_fast(int (*way)(struct connections *), pid_t pid, int64_t limit_ms)
{
	int64_t best = INT64_MAX;

	for (int round = 0; round < MANY_ROUNDS && best > limit_ms / 2; round++) {
		int64_t before = cpu_ms();
		check_int(count_of_way(way, &pid, 1), many_count);
		int64_t taken = cpu_ms() - before;
		best = taken < best ? taken : best;
	}
	if (best > limit_ms * slowness())
		test_fail("%zu connections took %d ms", many_count, (int)best);
	printf("# %zu connections in %d ms\n", many_count, (int)best);
}

/* The server, which has its own ends only. */
static void hold_many(void)
{
	for (size_t i = 0; i < many_count; i++)
		close(many[i].client_fd);
	check_int(write(tell_fd, "x", 1), 1);
	hold();
}

/* As many as there may be descriptors, at most MANY. */
static void open_many(int listen_fd)
{
	struct rlimit limit;

	check_int(getrlimit(RLIMIT_NOFILE, &limit), 0);
	size_t room = limit.rlim_cur > 2 * MANY + 100 ? MANY : limit.rlim_cur / 2 - 50;
	many = calloc(room, sizeof(*many));
	check(many);
	for (many_count = 0; many_count < room; many_count++)
		many[many_count] = pair_of(listen_fd, true);
}

static void test_connections_many_are_counted_fast(void)
{
	struct rlimit limit, old_limit;
	int pipe_fds[2];

	check_int(getrlimit(RLIMIT_NOFILE, &old_limit), 0);
	limit = old_limit;
	limit.rlim_cur = limit.rlim_max;
	check_int(setrlimit(RLIMIT_NOFILE, &limit), 0);
	check_int(pipe2(pipe_fds, O_CLOEXEC), 0);
	tell_fd = pipe_fds[1];
	add_listener(listen_v4(SOCK_STREAM, 0));
	open_many(items[0].fd);
	pid_t server = start(hold_many);
	wait_readable(pipe_fds[0]);
	check_fast(connections_proc, server, MANY_PROC_LIMIT_MS);
#ifdef HAVE_LIBMNL
	check_fast(connections_diag, server, MANY_LIMIT_MS);
#endif
	stop(server);
	for (size_t i = 0; i < many_count; i++)
		close_pair(&many[i]);
	free(many);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
	close_listeners();
	check_int(setrlimit(RLIMIT_NOFILE, &old_limit), 0);
}

TEST_MAIN(TEST(test_connections_of_gone_processes), TEST(test_connections_of_exiting_processes),
	  TEST(test_connections_of_unreadable_processes), TEST(test_connections_after_the_first_thread_exited),
	  TEST(test_connections_of_another_network), TEST(test_connections_of_other_protocols),
	  TEST(test_connections_many_are_counted_fast))
