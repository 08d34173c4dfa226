/* SPDX-License-Identifier: MIT */
/* What the options do that say as whom, with which limits and in which environment the server runs. */
#include <errno.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <bsd/stdlib.h>

#include "env.h"
#include "fd.h"
#include "options_private.h"

int options_apply_env(const struct option_row *row, const char *value, struct options *options, struct error *error)
{
	int code = env_check_pair(row->option, value, error);
	return code < 0 ? code : options_apply_list(row, value, options, error);
}

/* Without root nobody can become another user, but naming oneself is no mistake: the same command line then works in
 * both cases. */
int options_apply_user(const struct option_row *row, const char *value, struct options *options, struct error *error)
{
	uid_t uid;
	gid_t gid;
	int code = spec_user(row->option, value, &uid, &gid, error);
	if (code < 0)
		return code;
	if (geteuid() != 0 && uid != geteuid())
		return error_set(error, -EINVAL, "%s \"%.200s\": only root may run the server as another user",
				 row->option, value);
	const struct passwd *entry = getpwuid(uid);
	char *name = entry ? strdup(entry->pw_name) : NULL;
	if (entry && !name)
		return options_out_of_memory(row, error);
	options->user_name = name;
	options->uid = uid;
	options->set_user = geteuid() == 0;
	if (!options->set_group)
		options->gid = gid;
	return 0;
}

int options_apply_group(const struct option_row *row, const char *value, struct options *options, struct error *error)
{
	gid_t gid;
	int code = spec_group(row->option, value, &gid, error);
	if (code < 0)
		return code;
	if (geteuid() != 0 && gid != getegid())
		return error_set(error, -EINVAL, "%s \"%.200s\": only root may run the server as another group",
				 row->option, value);
	options->gid = gid;
	options->set_group = geteuid() == 0;
	return 0;
}

int options_apply_umask(const struct option_row *row, const char *value, struct options *options, struct error *error)
{
	mode_t mask;
	int code = spec_mode(row->option, value, &mask, error);
	if (code < 0)
		return code;
	if (mask > 0777)
		return error_set(error, -EINVAL, "%s \"%.200s\": must be from 0000 to 0777", row->option, value);
	options->umask = mask;
	options->set_umask = true;
	return 0;
}

static const char *const rlimit_names[] = {
	"as",     "core",  "cpu", "data",   "fsize",  "locks",      "memlock", "msgqueue", "nice",
	"nofile", "nproc", "rss", "rtprio", "rttime", "sigpending", "stack",   NULL,
};
static const int rlimit_resources[] = {
	RLIMIT_AS,      RLIMIT_CORE,     RLIMIT_CPU,        RLIMIT_DATA,   RLIMIT_FSIZE, RLIMIT_LOCKS,
	RLIMIT_MEMLOCK, RLIMIT_MSGQUEUE, RLIMIT_NICE,       RLIMIT_NOFILE, RLIMIT_NPROC, RLIMIT_RSS,
	RLIMIT_RTPRIO,  RLIMIT_RTTIME,   RLIMIT_SIGPENDING, RLIMIT_STACK,
};
_Static_assert(ARRAY_SIZE(rlimit_names) == ARRAY_SIZE(rlimit_resources) + 1, "a resource for every name");

static int parse_rlimit_bound(const char *what, const char *text, rlim_t *ret_bound, struct error *error)
{
	if (strcmp(text, "unlimited") == 0) {
		*ret_bound = RLIM_INFINITY;
		return 0;
	}
	int64_t number;
	if (spec_number(what, text, 0, INT64_MAX, &number, NULL) < 0)
		return error_set(error, -EINVAL, "%s \"%.200s\": a limit must be a number, or unlimited, or SOFT:HARD",
				 what, text);
	*ret_bound = (rlim_t)number;
	return 0;
}

/* `words` holds NAME=N or NAME=SOFT:HARD and is cut up. */
static int parse_rlimit(const char *what, const char *value, char *words, struct child_rlimit *rlimit,
			struct error *error)
{
	unsigned index;
	char *bound = strchr(words, '=');
	if (!bound)
		return error_set(error, -EINVAL, "%s \"%.200s\": must be NAME=N, as in nofile=65536", what, value);
	*bound++ = '\0';
	int code = spec_word(what, words, rlimit_names, &index, error);
	if (code < 0)
		return code;

	char *hard = strchr(bound, ':');
	if (hard)
		*hard++ = '\0';
	code = parse_rlimit_bound(what, bound, &rlimit->limit.rlim_cur, error);
	if (code == 0)
		code = parse_rlimit_bound(what, hard ? hard : bound, &rlimit->limit.rlim_max, error);
	if (code < 0)
		return code;
	if (rlimit->limit.rlim_cur > rlimit->limit.rlim_max)
		return error_set(error, -EINVAL, "%s \"%.200s\": the soft limit is above the hard one", what, value);
	rlimit->resource = rlimit_resources[index];
	return 0;
}

int options_apply_rlimit(const struct option_row *row, const char *value, struct options *options, struct error *error)
{
	struct child_rlimit rlimit;
	CLEANUP(freep) char *words = strdup(value);
	struct child_rlimit *rlimits = reallocarray(options->rlimits, options->rlimit_count + 1, sizeof(*rlimits));
	if (rlimits)
		options->rlimits = rlimits;
	if (!words || !rlimits)
		return options_out_of_memory(row, error);
	int code = parse_rlimit(row->option, value, words, &rlimit, error);
	if (code < 0)
		return code;
	for (size_t i = 0; i < options->rlimit_count; i++) {
		if (rlimits[i].resource == rlimit.resource)
			return error_set(error, -EINVAL, "%s \"%.200s\": that limit was given before", row->option,
					 value);
	}
	rlimits[options->rlimit_count++] = rlimit;
	return 0;
}
