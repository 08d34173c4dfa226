/* SPDX-License-Identifier: MIT */
/* What signals to the supervisor mean. */
#include "driver_private.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "fd.h"
#include "log.h"
#include "spec.h"

/* Opening /dev/tty fails (ENXIO, EIO) once there is no controlling terminal (tty(4)). */
bool driver_has_terminal(void)
{
	CLEANUP(fd_closep) int fd = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	return fd >= 0;
}

int driver_block_signals(struct options *options, struct error *error)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	for (int signal = 1; signal < (int)ARRAY_SIZE(options->signals); signal++) {
		struct signal_rule *rule = &options->signals[signal];
		if (rule->action == SIGNAL_ACTION_UNUSED)
			continue;
		struct sigaction old;
		/* nohup: whoever started us wants HUP to have no effect. */
		if (rule->action == SIGNAL_ACTION_HANGUP && sigaction(signal, NULL, &old) == 0 &&
		    old.sa_handler == SIG_IGN) {
			rule->action = SIGNAL_ACTION_UNUSED;
			continue;
		}
		sigaddset(&set, signal);
	}
	/* Exactly these: whoever started us may have blocked others, such as TSTP. */
	if (sigprocmask(SIG_SETMASK, &set, NULL) < 0)
		return error_set(error, -errno, "cannot block signals: %s", strerror(errno));
	/* An ignored SIGCHLD would make the kernel reap our children (sigaction(2)). */
	struct sigaction chld = {.sa_handler = SIG_DFL};
	if (sigaction(SIGCHLD, &chld, NULL) < 0)
		return error_set(error, -errno, "cannot reset SIGCHLD: %s", strerror(errno));
	return 0;
}

/* Go's fork-and-signal restart code tells its parent that it is ready by TERM or USR1. */
static bool is_readiness(struct driver *driver, const struct signalfd_siginfo *info)
{
	if (info->ssi_signo != SIGTERM && info->ssi_signo != SIGUSR1)
		return false;
	const struct handoff_generation *starting = handoff_starting(&driver->machine);
	struct generation *generation = starting ? driver_find(driver, starting->number) : NULL;
	if (!generation)
		return false;
	for (size_t i = 0; i < generation->worker_count; i++)
		if (generation->workers[i]->ready &&
		    ready_signal(generation->workers[i]->ready, (pid_t)info->ssi_pid) == 1)
			return true;
	return false;
}

static void post(struct driver *driver, enum handoff_event_kind kind, const char *verb, const char *name,
		 const struct signalfd_siginfo *info)
{
	log_info("%s by SIG%s from pid %u (uid %u)", verb, name, info->ssi_pid, info->ssi_uid);
	driver_post(driver, &(struct handoff_event){.kind = kind});
}

/* Nothing starts any more once a stop has begun, and who asked should read so. */
static const char *reload_verb(const struct driver *driver)
{
	enum handoff_state state = driver->machine.state;
	return state == HANDOFF_STOPPING || state == HANDOFF_KILLING ? "no hand-off, since we are stopping: asked"
								     : "hand-off asked";
}

static const char *stop_verb(const struct driver *driver)
{
	return driver->machine.state == HANDOFF_STOPPING && driver->machine.stop_asked ? "immediate stop asked again"
										       : "graceful stop asked";
}

static void take(struct driver *driver, const struct signal_rule *rule, const char *name,
		 const struct signalfd_siginfo *info)
{
	switch (rule->action) {
	case SIGNAL_ACTION_UNUSED:
		break;
	case SIGNAL_ACTION_RELOAD:
		post(driver, HANDOFF_RELOAD, reload_verb(driver), name, info);
		break;
	case SIGNAL_ACTION_HANGUP:
		if (driver->had_terminal && !driver_has_terminal())
			post(driver, HANDOFF_STOP, "our terminal is gone: graceful stop asked", name, info);
		else
			post(driver, HANDOFF_RELOAD, reload_verb(driver), name, info);
		break;
	case SIGNAL_ACTION_STOP:
		post(driver, HANDOFF_STOP, stop_verb(driver), name, info);
		break;
	case SIGNAL_ACTION_KILL:
		post(driver, HANDOFF_KILL, "immediate stop asked", name, info);
		break;
	case SIGNAL_ACTION_QUIT:
		if (driver_has_terminal())
			post(driver, HANDOFF_KILL, "immediate stop asked", name, info);
		else
			log_info("ignored SIG%s from pid %u (uid %u)", name, info->ssi_pid, info->ssi_uid);
		break;
	case SIGNAL_ACTION_FORWARD:
		driver_forward(driver, rule->forward_to ? rule->forward_to : (int)info->ssi_signo);
		break;
	case SIGNAL_ACTION_IGNORE:
		log_info("ignored SIG%s from pid %u (uid %u)", name, info->ssi_pid, info->ssi_uid);
		break;
	}
}

void driver_on_signal(struct loop_source *source, const struct signalfd_siginfo *info, void *data)
{
	(void)source;
	struct driver *driver = data;
	char name[16];
	/* Raised by our own write to a broken stderr, or to a log at its size limit: to log it would raise the next. */
	bool own = (info->ssi_signo == SIGPIPE || info->ssi_signo == SIGXFSZ) && (pid_t)info->ssi_pid == getpid();
	if (info->ssi_signo == SIGCHLD)
		driver_reap(driver);
	else if (!own && !is_readiness(driver, info) && info->ssi_signo < ARRAY_SIZE(driver->options->signals))
		take(driver, &driver->options->signals[info->ssi_signo],
		     spec_signal_name((int)info->ssi_signo, name, sizeof(name)), info);
	driver_pump(driver);
}
