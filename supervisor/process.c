/* SPDX-License-Identifier: MIT */
/* What /proc says of other processes: our direct children, the tree below one, group, parent, environment. */
#include <bsd/stdlib.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fd.h"
#include "process.h"

/* Bounds for what the kernel writes: 7 digits a child with the blank, at 4 million pids; arguments and environment
 * together are limited to a quarter of the stack limit, 6 MiB at most (execve(2)). */
#define CHILDREN_MAX (64 * 1024 * 1024)
#define STAT_MAX 4096
#define ENVIRON_MAX (16 * 1024 * 1024)

/* A chain of parents that is longer than this is going round in circles, because numbers were reused under the look. */
#define DEPTH_MAX 65536

static void closedirp(DIR **dir)
{
	if (*dir)
		closedir(*dir);
}

void process_list_finish(struct process_list *list)
{
	free(list->pids);
	*list = (struct process_list){0};
}

static int add(struct process_list *list, pid_t pid)
{
	if (list->count == list->capacity) {
		size_t capacity = list->capacity ? list->capacity * 2 : 16;
		pid_t *pids = reallocarray(list->pids, capacity, sizeof(*pids));
		if (!pids)
			return -ENOMEM;
		list->pids = pids;
		list->capacity = capacity;
	}
	list->pids[list->count++] = pid;
	return 0;
}

/* The number that `text` is as a whole, or 0. */
static pid_t parse_pid(const char *text)
{
	char *end;
	long number = strtol(text, &end, 10);

	return end == text || *end || number < 1 || number > INT32_MAX ? 0 : (pid_t)number;
}

/* fd_read_file, where a process that went away between open and read is ESRCH as well. */
static int read_proc(const char *path, size_t limit, char **ret_text, size_t *ret_length)
{
	int result = fd_read_file(path, limit, ret_text, ret_length);

	return result == -ENOENT ? -ESRCH : result;
}

/* Appends the pids of one `children` file. */
static int add_children_file(struct process_list *list, const char *path)
{
	CLEANUP(freep) char *text = NULL;
	size_t length;
	int result = read_proc(path, CHILDREN_MAX, &text, &length);

	if (result < 0)
		return result;
	char *rest = text;
	for (const char *word = strsep(&rest, " "); word; word = strsep(&rest, " ")) {
		pid_t pid = parse_pid(word);
		if (pid == 0)
			continue;
		result = add(list, pid);
		if (result < 0)
			return result;
	}
	return 0;
}

/* Whether the kernel has `children` files (CONFIG_PROC_CHILDREN) and /proc is there. */
static bool have_children_files(void)
{
	return access("/proc/thread-self/children", R_OK) == 0;
}

/* Appends every process whose parent is `parent`, by its stat. */
static int add_by_parent(struct process_list *list, pid_t parent)
{
	CLEANUP(closedirp) DIR *dir = opendir("/proc");

	if (!dir)
		return -errno;
	for (;;) {
		struct process_stat stat;

		errno = 0;
		const struct dirent *entry = readdir(dir);
		if (!entry)
			return -errno;
		pid_t pid = parse_pid(entry->d_name);
		if (pid == 0 || process_stat(pid, &stat) < 0 || stat.parent != parent)
			continue;
		int result = add(list, pid);
		if (result < 0)
			return result;
	}
}

int process_children(struct process_list *list)
{
	list->count = 0;
	if (have_children_files())
		return add_children_file(list, "/proc/thread-self/children");
	return add_by_parent(list, getpid());
}

/* Appends the children of all threads of `pid`; one that is gone has none. */
static int add_children_of(struct process_list *list, pid_t pid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	CLEANUP(closedirp) DIR *dir = opendir(path);
	if (!dir)
		return errno == ENOENT || errno == ESRCH ? 0 : -errno;
	for (;;) {
		errno = 0;
		const struct dirent *entry = readdir(dir);
		if (!entry)
			return errno == ENOENT || errno == ESRCH ? 0 : -errno;
		pid_t thread = parse_pid(entry->d_name);
		if (thread == 0)
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)pid, (int)thread);
		int result = add_children_file(list, path);
		if (result < 0 && result != -ESRCH)
			return result;
	}
}

/* Drops what from `first` on stands in the list twice: a process whose parent exits under the look shows up again under
 * its new one. */
static void drop_doubles(struct process_list *list, size_t first)
{
	size_t kept = first;

	for (size_t i = first; i < list->count; i++) {
		bool known = false;
		for (size_t j = 0; j < kept && !known; j++)
			known = list->pids[j] == list->pids[i];
		if (!known)
			list->pids[kept++] = list->pids[i];
	}
	list->count = kept;
}

int process_tree(pid_t root, struct process_list *list)
{
	bool by_files = have_children_files();
	struct process_stat stat;
	int result = process_stat(root, &stat);

	list->count = 0;
	if (result < 0)
		return result;
	result = add(list, root);
	for (size_t i = 0; result == 0 && i < list->count; i++) {
		size_t first = list->count;
		result = by_files ? add_children_of(list, list->pids[i]) : add_by_parent(list, list->pids[i]);
		drop_doubles(list, first);
	}
	return result;
}

int process_stat(pid_t pid, struct process_stat *ret_stat)
{
	CLEANUP(freep) char *text = NULL;
	struct process_stat stat = {0};
	char path[64];
	size_t length;
	int parent, group, session;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	int result = read_proc(path, STAT_MAX, &text, &length);
	if (result < 0)
		return result;
	/* The name may hold parentheses, blanks and newlines; the last parenthesis is always the kernel's. */
	const char *open = strchr(text, '('), *close = strrchr(text, ')');
	if (!open || !close || close < open)
		return -EBADMSG;
	/* Fields 3 to 6 and 22 (proc_pid_stat(5)). */
	int fields =
		sscanf(close + 1, " %c %d %d %d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %" SCNu64,
		       &stat.state, &parent, &group, &session, &stat.start_time);
	if (fields != 5)
		return -EBADMSG;
	stat.parent = parent;
	stat.group = group;
	stat.session = session;
	size_t name_length = (size_t)(close - open - 1);
	if (name_length >= sizeof(stat.comm))
		name_length = sizeof(stat.comm) - 1;
	memcpy(stat.comm, open + 1, name_length);
	*ret_stat = stat;
	return 0;
}

bool process_is_below(pid_t pid, pid_t root)
{
	for (int depth = 0; depth < DEPTH_MAX; depth++) {
		struct process_stat stat;

		if (pid == root)
			return true;
		if (pid <= 1 || process_stat(pid, &stat) < 0)
			return false;
		pid = stat.parent;
	}
	return false;
}

int process_environ(pid_t pid, const char *name, char *buffer, size_t size)
{
	CLEANUP(freep) char *text = NULL;
	size_t length, name_length = strlen(name);
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/environ", (int)pid);
	int result = read_proc(path, ENVIRON_MAX, &text, &length);
	if (result < 0)
		return result;
	/* fd_read_file put a NUL behind the last one. */
	for (const char *at = text; at < text + length; at += strlen(at) + 1) {
		if (strncmp(at, name, name_length) != 0 || at[name_length] != '=')
			continue;
		const char *value = at + name_length + 1;
		size_t value_length = strlen(value);
		if (value_length >= size)
			return -ERANGE;
		memcpy(buffer, value, value_length + 1);
		return 0;
	}
	return -ENOENT;
}
