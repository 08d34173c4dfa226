/* SPDX-License-Identifier: MIT */
/* The small values that options and the config file share: durations, signals, numbers, modes, users, words. */
#include "spec.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define DIGITS "0123456789"
#define DURATION_MAX_MS (INT64_C(10) * 365 * 24 * 3600 * 1000)

/* Longer words are compared by their beginnings only; no word of ours comes near. */
#define CLOSEST_MAX 32

static bool all_digits(const char *text)
{
	return *text && strspn(text, DIGITS) == strlen(text);
}

/* Digits to a number; false where there are none, something else follows, or it does not fit. */
static bool parse_digits(const char *text, int64_t *ret_number)
{
	if (!all_digits(text))
		return false;
	errno = 0;
	long long number = strtoll(text, NULL, 10);
	if (errno)
		return false;
	*ret_number = number;
	return true;
}

static size_t smaller(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* Optimal string alignment: letters changed, left out, added, or swapped with their neighbour. */
static size_t edit_distance(const char *a, const char *b)
{
	size_t a_length = strnlen(a, CLOSEST_MAX), b_length = strnlen(b, CLOSEST_MAX);
	size_t cost[CLOSEST_MAX + 1][CLOSEST_MAX + 1];
	for (size_t i = 0; i <= a_length; i++)
		cost[i][0] = i;
	for (size_t j = 0; j <= b_length; j++)
		cost[0][j] = j;
	for (size_t i = 1; i <= a_length; i++) {
		for (size_t j = 1; j <= b_length; j++) {
			size_t best = smaller(cost[i - 1][j], cost[i][j - 1]) + 1;
			best = smaller(best, cost[i - 1][j - 1] + (a[i - 1] != b[j - 1]));
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				best = smaller(best, cost[i - 2][j - 2] + 1);
			cost[i][j] = best;
		}
	}
	return cost[a_length][b_length];
}

const char *spec_closest(const char *text, const char *const *words)
{
	size_t length = strlen(text);
	const char *closest = NULL;
	/* A third of the letters may be wrong: beyond that a suggestion puzzles more than it helps. */
	size_t best = length / 3 + 2;
	for (; *words; words++) {
		size_t distance = edit_distance(text, *words);
		if (length >= 2 && strncmp(text, *words, length) == 0)
			distance = 1;
		if (distance < best && distance < length) {
			best = distance;
			closest = *words;
		}
	}
	return closest;
}

int spec_word(const char *what, const char *text, const char *const *words, unsigned *ret_index, struct error *error)
{
	char list[256] = "";
	size_t used = 0;
	for (unsigned i = 0; words[i]; i++) {
		if (strcmp(text, words[i]) == 0) {
			*ret_index = i;
			return 0;
		}
		if (used < sizeof(list))
			used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s",
						 i == 0 ? "" : (words[i + 1] ? ", " : " or "), words[i]);
	}
	const char *closest = spec_closest(text, words);
	if (closest)
		return error_set(error, -EINVAL, "%s \"%.200s\": must be %s; did you mean %s?", what, text, list,
				 closest);
	return error_set(error, -EINVAL, "%s \"%.200s\": must be %s", what, text, list);
}

static int64_t duration_unit_ms(const char *unit)
{
	static const struct {
		const char *name;
		int64_t ms;
	} units[] = {{"ms", 1}, {"s", 1000}, {"m", 60 * 1000}, {"h", 3600 * 1000}};
	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		if (strcmp(unit, units[i].name) == 0)
			return units[i].ms;
	}
	return 0;
}

/* Says what is wrong with a text that is no duration. */
static int duration_refuse(const char *what, const char *text, struct error *error)
{
	const char *unit = text + strspn(text, DIGITS);
	if (*text == '-')
		return error_set(error, -EINVAL, "%s \"%.200s\": a duration cannot be negative", what, text);
	if (*text && unit == text + strlen(text))
		return error_set(error, -EINVAL,
				 "%s \"%.200s\": a number alone is no duration: add a unit, as in %.20ss", what, text,
				 text);
	if (*unit == '.' || *unit == ',')
		return error_set(error, -EINVAL,
				 "%s \"%.200s\": must be a whole number: take a smaller unit, as in 1500ms", what,
				 text);
	if (unit != text)
		return error_set(error, -EINVAL,
				 "%s \"%.200s\": the unit must be ms, s, m or h, and nothing may follow it", what,
				 text);
	return error_set(error, -EINVAL, "%s \"%.200s\": must be a duration such as 500ms, 30s, 5m, 1h, 0 or none",
			 what, text);
}

int spec_duration(const char *what, const char *text, int64_t *ret_ms, struct error *error)
{
	if (strcmp(text, "none") == 0) {
		*ret_ms = DURATION_NONE;
		return 0;
	}
	size_t digits = strspn(text, DIGITS);
	int64_t unit_ms = duration_unit_ms(text + digits);
	if (digits > 0 && strspn(text, "0") == strlen(text))
		unit_ms = 1;
	if (digits == 0 || unit_ms == 0)
		return duration_refuse(what, text, error);

	errno = 0;
	long long count = strtoll(text, NULL, 10);
	if (errno || count > DURATION_MAX_MS / unit_ms)
		return error_set(error, -EINVAL, "%s \"%.200s\": must not be longer than 10 years; none is for ever",
				 what, text);
	*ret_ms = count * unit_ms;
	return 0;
}

/* A table of our own, because sigabbrev_np(3) is glibc's alone; an alias comes after the usual name. The numbers of
 * real-time signals depend on the C library, so they are computed. */
static const struct {
	const char *name;
	int number;
} signal_table[] = {
	{"HUP", SIGHUP},       {"INT", SIGINT},   {"QUIT", SIGQUIT}, {"ILL", SIGILL},   {"TRAP", SIGTRAP},
	{"ABRT", SIGABRT},     {"IOT", SIGIOT},   {"BUS", SIGBUS},   {"FPE", SIGFPE},   {"KILL", SIGKILL},
	{"USR1", SIGUSR1},     {"SEGV", SIGSEGV}, {"USR2", SIGUSR2}, {"PIPE", SIGPIPE}, {"ALRM", SIGALRM},
	{"TERM", SIGTERM},     {"CHLD", SIGCHLD}, {"CONT", SIGCONT}, {"STOP", SIGSTOP}, {"TSTP", SIGTSTP},
	{"TTIN", SIGTTIN},     {"TTOU", SIGTTOU}, {"URG", SIGURG},   {"XCPU", SIGXCPU}, {"XFSZ", SIGXFSZ},
	{"VTALRM", SIGVTALRM}, {"PROF", SIGPROF}, {"IO", SIGIO},     {"POLL", SIGPOLL}, {"PWR", SIGPWR},
	{"SYS", SIGSYS},
#ifdef SIGSTKFLT
	{"STKFLT", SIGSTKFLT},
#endif
	{"WINCH", SIGWINCH},
};

static int signal_by_number(int64_t number)
{
	if (number >= SIGRTMIN && number <= SIGRTMAX)
		return (int)number;
	for (size_t i = 0; i < ARRAY_SIZE(signal_table); i++) {
		if (signal_table[i].number == number)
			return signal_table[i].number;
	}
	return 0;
}

static int signal_by_name(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(signal_table); i++) {
		if (strcasecmp(name, signal_table[i].name) == 0)
			return signal_table[i].number;
	}
	bool from_top = strncasecmp(name, "RTMAX", 5) == 0;
	if (!from_top && strncasecmp(name, "RTMIN", 5) != 0)
		return 0;
	const char *rest = name + 5;
	int64_t offset = 0;
	if (*rest && (*rest != (from_top ? '-' : '+') || !parse_digits(rest + 1, &offset)))
		return 0;
	if (offset > SIGRTMAX - SIGRTMIN)
		return 0;
	return from_top ? SIGRTMAX - (int)offset : SIGRTMIN + (int)offset;
}

static const char *signal_closest(const char *text)
{
	const char *names[ARRAY_SIZE(signal_table) + 1];
	for (size_t i = 0; i < ARRAY_SIZE(signal_table); i++)
		names[i] = signal_table[i].name;
	names[ARRAY_SIZE(signal_table)] = NULL;

	char upper[16];
	size_t length = strnlen(text, sizeof(upper) - 1);
	for (size_t i = 0; i < length; i++)
		upper[i] = (char)(text[i] >= 'a' && text[i] <= 'z' ? text[i] - 'a' + 'A' : text[i]);
	upper[length] = '\0';
	return spec_closest(upper, names);
}

int spec_signal(const char *what, const char *text, int *ret_signal, struct error *error)
{
	int64_t number;
	const char *name = strncasecmp(text, "SIG", 3) == 0 ? text + 3 : text;
	int found = parse_digits(text, &number) ? signal_by_number(number) : signal_by_name(name);
	if (found) {
		*ret_signal = found;
		return 0;
	}
	const char *closest = signal_closest(name);
	if (closest)
		return error_set(error, -EINVAL, "%s \"%.200s\": there is no such signal; did you mean %s?", what, text,
				 closest);
	return error_set(error, -EINVAL, "%s \"%.200s\": must be a signal, by name (INT, RTMIN+3) or number", what,
			 text);
}

const char *spec_signal_name(int signal, char *buffer, size_t size)
{
	for (size_t i = 0; i < ARRAY_SIZE(signal_table); i++) {
		if (signal_table[i].number == signal)
			return signal_table[i].name;
	}
	if (signal == SIGRTMIN)
		return "RTMIN";
	if (signal > SIGRTMIN && signal <= SIGRTMAX)
		snprintf(buffer, size, "RTMIN+%d", signal - SIGRTMIN);
	else
		snprintf(buffer, size, "%d", signal);
	return buffer;
}

int spec_number(const char *what, const char *text, int64_t minimum, int64_t maximum, int64_t *ret_number,
		struct error *error)
{
	int64_t number;
	bool negative = *text == '-';
	bool fits = parse_digits(text + negative, &number);
	if (fits && negative)
		number = -number;
	if (!fits || number < minimum || number > maximum)
		return error_set(error, -EINVAL, "%s \"%.200s\": must be a whole number from %lld to %lld", what, text,
				 (long long)minimum, (long long)maximum);
	*ret_number = number;
	return 0;
}

int spec_mode(const char *what, const char *text, mode_t *ret_mode, struct error *error)
{
	size_t length = strlen(text);
	unsigned long mode =
		length > 0 && length <= 8 && strspn(text, "01234567") == length ? strtoul(text, NULL, 8) : 010000;
	if (mode > 07777)
		return error_set(error, -EINVAL, "%s \"%.200s\": must be an octal mode such as 0660", what, text);
	*ret_mode = (mode_t)mode;
	return 0;
}

/* getpwnam(3) leaves it open which errno "no such entry" gives: only these say that the look-up itself failed. */
static bool lookup_failed(int code)
{
	return code == EINTR || code == EIO || code == EMFILE || code == ENFILE || code == ENOMEM || code == ERANGE;
}

/* (uid_t)-1 means "leave it" to every call that takes one, so it is no id. */
static bool parse_id(const char *text, uint32_t *ret_id)
{
	int64_t number;
	if (!parse_digits(text, &number) || number >= UINT32_MAX)
		return false;
	*ret_id = (uint32_t)number;
	return true;
}

int spec_user(const char *what, const char *text, uid_t *ret_uid, gid_t *ret_gid, struct error *error)
{
	uint32_t id = 0;
	bool is_number = parse_id(text, &id);
	errno = 0;
	const struct passwd *entry = is_number ? getpwuid((uid_t)id) : getpwnam(text);
	int code = errno;
	if (!entry && lookup_failed(code))
		return error_set(error, -code, "%s \"%.200s\": cannot look up the user: %s", what, text,
				 strerror(code));
	if (!entry && !is_number) {
		if (strchr(text, ':'))
			return error_set(error, -EINVAL,
					 "%s \"%.200s\": must be a user alone; the group has an option of "
					 "its own",
					 what, text);
		return error_set(error, -EINVAL, "%s \"%.200s\": there is no such user", what, text);
	}
	*ret_uid = entry ? entry->pw_uid : (uid_t)id;
	*ret_gid = entry ? entry->pw_gid : (gid_t)-1;
	return 0;
}

int spec_group(const char *what, const char *text, gid_t *ret_gid, struct error *error)
{
	uint32_t id;
	if (parse_id(text, &id)) {
		*ret_gid = (gid_t)id;
		return 0;
	}
	errno = 0;
	const struct group *entry = getgrnam(text);
	int code = errno;
	if (!entry && lookup_failed(code))
		return error_set(error, -code, "%s \"%.200s\": cannot look up the group: %s", what, text,
				 strerror(code));
	if (!entry)
		return error_set(error, -EINVAL, "%s \"%.200s\": there is no such group", what, text);
	*ret_gid = entry->gr_gid;
	return 0;
}
