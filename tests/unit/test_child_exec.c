/* SPDX-License-Identifier: MIT */
/* Finding the command, what is said of failures, and that nothing touches the heap before exec. */
#include <pthread.h>

#include "child.h"
#include "child_exec.h"
#include "child_fixture.h"

/* --- Finding the command, and failures. --- */

static struct run *run_named(char *name, const char *path_format, const char *in_folder)
{
	static char path[512];
	char *argv[] = {name, (char[]){"one"}, NULL}, *envp[] = {path, NULL};
	struct child_plan plan = make_plan(argv);

	plan.envp = envp;
	plan.chdir = in_folder;
	snprintf(path, sizeof(path), "PATH=");
	for (; *path_format; path_format++) {
		size_t length = strlen(path);
		if (*path_format == '%')
			strlcat(path, folder, sizeof(path));
		else
			snprintf(path + length, sizeof(path) - length, "%c", *path_format);
	}
	return run_plan(&plan);
}

static void test_child_searches_the_path_of_its_environment(void)
{
	static char tool[] = "tool", option[] = "-c";

	make_folder();
	write_file("b/tool", "#!/bin/sh\necho b $1 >&2\n", 0700);
	write_file("tool", "#!/bin/sh\necho here $1 >&2\n", 0700);
	check_str(run_named(tool, "%/a:%/b", NULL)->output, "b one\n");
	/* One that is denied, a folder that is none: the search goes on. */
	write_file("a/tool", "", 0600);
	check_str(run_named(tool, "/dev/null:%/nothing:%/a:%/b", NULL)->output, "b one\n");
	/* Only the denied one. */
	struct run *run = run_named(tool, "%/a:%/nothing", NULL);
	check_int(run->exec_result, -EACCES);
	check_str(run->error.text, "cannot exec tool: Permission denied");
	check_int(child_exit_code(run->status), 126);
	/* Empty elements are the working folder, which is the one that --chdir names. */
	check_str(run_named(tool, ":%/b", folder)->output, "here one\n");
	check_str(run_named(tool, "%/nothing::%/b", folder)->output, "here one\n");
	check_str(run_named(tool, "", folder)->output, "here one\n");
	/* Without #!, and with a name that sh could take for an option. */
	write_file("-c", "echo \"sh $0 $1\" >&2\n", 0700);
	check_str(run_named(option, "", folder)->output, "sh ./-c one\n");

	run = run_named(tool, "/dev/null:%/nothing:/dev/null", NULL);
	check_int(run->exec_result, -ENOENT);
	check_str(run->error.text, "cannot exec tool: No such file or directory in the folders of PATH");
	check_int(child_exit_code(run->status), 127);
	remove_folder();
}

static void test_child_has_a_default_path(void)
{
	static char program[] = "sh", option[] = "-c", script[] = "exit 5";
	char *argv[] = {program, option, script, NULL};
	struct child_plan plan = make_plan(argv);

	check_int(child_exit_code(run_plan(&plan)->status), 5);
}

static void test_child_gives_plain_files_to_the_shell(void)
{
	char path[256];

	make_folder();
	snprintf(path, sizeof(path), "%s/plain", folder);
	write_file("plain", "echo \"$0 $1 $#\" >&2\nexit 3\n", 0700);
	struct run *run = run_named(path, "/nowhere", NULL);
	char want[512];
	snprintf(want, sizeof(want), "%s one 1\n", path);
	check_str(run->output, want);
	check_int(run->exec_result, 1);
	check_int(child_exit_code(run->status), 3);
	remove_folder();
}

static void test_child_says_what_failed(void)
{
	static char missing[] = "/nonexistent/server", nothing[] = "";
	char path[256], want[512];

	make_folder();
	struct run *run = run_named(missing, "", NULL);
	check_int(run->exec_result, -ENOENT);
	check_str(run->error.text, "cannot exec /nonexistent/server: No such file or directory");
	check_int(child_exit_code(run->status), 127);
	check_int(run_named(nothing, "/bin", NULL)->exec_result, -ENOENT);

	snprintf(path, sizeof(path), "%s/lost", folder);
	write_file("lost", "#!/nonexistent/interpreter\n", 0700);
	run = run_named(path, "", NULL);
	check_int(run->exec_result, -ENOENT);
	snprintf(want, sizeof(want), "cannot exec %s: the file is there, but its interpreter is not", path);
	check_contains(run->error.text, want);
	check_int(child_exit_code(run->status), 127);

	write_file("lost", "#!/bin/sh\n", 0600);
	run = run_named(path, "", NULL);
	check_int(run->exec_result, -EACCES);
	check_int(child_exit_code(run->status), 126);
	check_int(run_named(folder, "", NULL)->exec_result, -EACCES);

	run = run_named(path, "", "/nonexistent/folder");
	check_int(run->exec_result, -ENOENT);
	check_str(run->error.text, "cannot change to /nonexistent/folder: No such file or directory");
	check_int(child_exit_code(run->status), 126);
	remove_folder();
}

static void test_child_changes_folder_with_the_new_credentials(void)
{
	static char program[] = "/bin/true";
	char *argv[] = {program, NULL};
	struct child_limits limits = {.set_user = true, .uid = NOBODY, .gid = NOBODY};
	struct child_plan plan = make_plan(argv);

	if (!is_root())
		return;
	make_folder(); /* 0700 and ours */
	plan.limits = &limits;
	plan.chdir = folder;
	check_int(run_plan(&plan)->exec_result, -EACCES);
	plan.limits = NULL;
	check_int(run_plan(&plan)->exec_result, 1);
	remove_folder();
}

static void test_child_exec_result_waits(void)
{
	static char program[] = "server";
	char *argv[] = {program, NULL};
	struct child_plan plan = make_plan(argv);
	struct child_report report = {.step = CHILD_STEP_EXEC, .error = E2BIG};
	struct child child = {.pidfd = -1};
	struct error error;
	int ends[2];

	check_int(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
	child.exec_fd = ends[0];
	check_int(child_exec_result(&child, &plan, &error), 0);
	check_int(write(ends[1], &report, sizeof(report)), sizeof(report));
	check_int(child_exec_result(&child, &plan, &error), -E2BIG);
	check_str(error.text, "cannot exec server: Argument list too long");
	close(ends[1]);
	check_int(child_exec_result(&child, &plan, &error), 1);
	child_finish(&child);
}

/* --- Nothing allocates between fork and exec. --- */

static bool armed;              /* the next fork's child must not touch the heap */
static volatile bool forbidden; /* we are that child */

#define TOUCHED 99

static void heap_touched(void)
{
	if (forbidden)
		_exit(TOUCHED);
}

static void in_forked_child(void)
{
	forbidden = armed;
}

#if defined(__SANITIZE_ADDRESS__)
#define HAVE_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(memory_sanitizer)
#define HAVE_SANITIZER 1
#endif
#endif

#ifdef HAVE_SANITIZER
/* As <sanitizer/allocator_interface.h> has it, which gcc does not bring along. */
int __sanitizer_install_malloc_and_free_hooks(void (*malloc_hook)(const volatile void *, size_t),
					      void (*free_hook)(const volatile void *));

static void on_malloc(const volatile void *pointer, size_t size)
{
	(void)pointer;
	(void)size;
	heap_touched();
}

static void on_free(const volatile void *pointer)
{
	(void)pointer;
	heap_touched();
}

static void watch_heap(void)
{
	static bool done;
	if (!done)
		check(__sanitizer_install_malloc_and_free_hooks(on_malloc, on_free) != 0);
	done = true;
}
#else
#include <dlfcn.h>

/* In front of the C library's (or valgrind's) own. */
static void *next_symbol(const char *name)
{
	return dlsym(RTLD_NEXT, name);
}

void *malloc(size_t size)
{
	static void *(*next)(size_t);
	heap_touched();
	if (!next)
		*(void **)&next = next_symbol("malloc");
	return next(size);
}

void *realloc(void *pointer, size_t size)
{
	static void *(*next)(void *, size_t);
	heap_touched();
	if (!next)
		*(void **)&next = next_symbol("realloc");
	return next(pointer, size);
}

void *calloc(size_t count, size_t size)
{
	static void *(*next)(size_t, size_t);
	heap_touched();
	if (!next)
		*(void **)&next = next_symbol("calloc");
	return next(count, size);
}

void free(void *pointer)
{
	static void (*next)(void *);
	heap_touched();
	if (!next)
		*(void **)&next = next_symbol("free");
	next(pointer);
}

static void watch_heap(void)
{
}
#endif

static void spawn_with_everything(char *program, const char *in_folder, int want_exec, int want_code)
{
	char slot[] = "LISTEN_PID=            ";
	char *argv[] = {program, NULL}, *envp[] = {slot, (char[]){"PATH=/nonexistent:/dev/null:/bin"}, NULL};
	gid_t groups[] = {7};
	struct child_rlimit rlimit = {.resource = RLIMIT_CORE, .limit = {0, 0}};
	struct child_limits limits = {.set_user = geteuid() == 0,
				      .uid = NOBODY,
				      .gid = NOBODY,
				      .groups = groups,
				      .group_count = 1,
				      .set_umask = true,
				      .umask = 022,
				      .rlimits = &rlimit,
				      .rlimit_count = 1,
				      .no_new_privs = true,
				      .die_with_supervisor = true};
	struct child_plan plan = make_plan(argv);
	int fds[] = {2, 1, 2};
	struct child child;
	struct error error = {""};

	plan.envp = envp;
	plan.listen_pid_index = 0;
	plan.chdir = in_folder;
	plan.fds = fds;
	plan.fd_count = 3;
	plan.limits = &limits;
	plan.quiet = true;
	plan.keep_hup_ignored = true;
	armed = true;
	int spawned = child_spawn(&plan, &child, &error);
	armed = false;
	check_int(spawned, 0);
	check_int(await_exec(&child, &plan, &error), want_exec);
	check_int(child_exit_code(await_exit(&child)), want_code);
}

static void test_child_touches_no_heap_before_exec(void)
{
	static char found[] = "true", missing[] = "nosuchcommand", plain[512];

	watch_heap();
	check_int(pthread_atfork(NULL, NULL, in_forked_child), 0);
	/* The watch itself works. */
	armed = true;
	pid_t pid = fork();
	if (pid == 0) {
		void *volatile memory = malloc(10);
		free(memory);
		_exit(0);
	}
	armed = false;
	int status;
	check_int(waitpid(pid, &status, 0), pid);
	check_int(status, W_EXITCODE(TOUCHED, 0));

	spawn_with_everything(found, "/", 1, 0);
	spawn_with_everything(missing, "/", -ENOENT, 127);
	spawn_with_everything(found, "/nonexistent", -ENOENT, 126);
	make_folder();
	check_int(chmod(folder, 0755), 0);
	write_file("plain", "exit 4\n", 0755);
	snprintf(plain, sizeof(plain), "%s/plain", folder);
	spawn_with_everything(plain, NULL, 1, 4);
	remove_folder();
}

TEST_MAIN(TEST(test_child_searches_the_path_of_its_environment), TEST(test_child_has_a_default_path),
	  TEST(test_child_gives_plain_files_to_the_shell), TEST(test_child_says_what_failed),
	  TEST(test_child_changes_folder_with_the_new_credentials), TEST(test_child_exec_result_waits),
	  TEST(test_child_touches_no_heap_before_exec))
