/* SPDX-License-Identifier: MIT */
/* The event loop: epoll over descriptors, signals, child exits and timers, delivered by class. */
#include <assert.h>
#include <bsd/stdlib.h>
#include <bsd/sys/queue.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "fd.h"
#include "loop.h"

#define NS_PER_MS INT64_C(1000000)
#define NS_PER_S INT64_C(1000000000)

/* More signals wait for the next round, where children and descriptors are looked at before them. */
#define SIGNALS_PER_ROUND 64

/* The classes in the order in which a round delivers them. */
enum source_class { SOURCE_CHILD, SOURCE_FD, SOURCE_SIGNAL, SOURCE_TIMER, SOURCE_CLASSES };

TAILQ_HEAD(source_list, loop_source);

struct loop_source {
	struct loop *loop; /* its owner */
	enum source_class class;
	bool watched;          /* `fd` is in the epoll set */
	bool removed;          /* waits in loop->removed for the end of the round */
	int fd;                /* the caller's, but for signals: the loop's signalfd; -1 for timers */
	uint32_t ready_events; /* what was fetched and not delivered yet */
	int64_t deadline_ns;   /* timers that run */
	union {
		loop_fd_fn fd;
		loop_signal_fn signal;
		loop_child_fn child;
		loop_timer_fn timer;
	} fn;
	void *data;
	TAILQ_ENTRY(loop_source) link;       /* in loop->sources or loop->removed */
	TAILQ_ENTRY(loop_source) queue_link; /* in *queue */
	struct source_list *queue;           /* loop->armed, one of loop->ready, or NULL */
};

struct loop {
	int epoll_fd;
	int timer_fd;
	int64_t timer_fd_ns; /* what timer_fd is set to, 0 when it is not armed */
	bool quit;
	unsigned depth; /* rounds that are running now: a callback may run a nested one */
	bool mask_saved;
	sigset_t saved_mask;
	struct loop_source *signal_source;        /* in sources too; NULL when there is none */
	struct epoll_event *events;               /* room for everything that epoll can report at once */
	size_t event_capacity;                    /* of events */
	size_t source_count;                      /* in sources */
	struct source_list sources;               /* owned */
	struct source_list removed;               /* owned, freed at the end of the outermost round */
	struct source_list armed;                 /* running timers, the earliest first */
	struct source_list ready[SOURCE_CLASSES]; /* fetched, to be delivered in this round */
};

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

int64_t loop_now_ms(void)
{
	return now_ns() / NS_PER_MS;
}

uint64_t loop_now_us(void)
{
	return (uint64_t)now_ns() / 1000;
}

static void enqueue(struct loop_source *source, struct source_list *queue)
{
	assert(!source->queue);
	TAILQ_INSERT_TAIL(queue, source, queue_link);
	source->queue = queue;
}

static void unqueue(struct loop_source *source)
{
	if (source->queue)
		TAILQ_REMOVE(source->queue, source, queue_link);
	source->queue = NULL;
}

/* The first of a ready class, no longer in its queue; NULL at the end. */
static struct loop_source *take_ready(struct loop *loop, enum source_class class)
{
	struct loop_source *source = TAILQ_FIRST(&loop->ready[class]);

	if (source)
		unqueue(source);
	return source;
}

int loop_create(struct loop **ret_loop)
{
	struct loop *loop = calloc(1, sizeof(*loop));
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};

	if (!loop)
		return -ENOMEM;
	TAILQ_INIT(&loop->sources);
	TAILQ_INIT(&loop->removed);
	TAILQ_INIT(&loop->armed);
	for (size_t i = 0; i < SOURCE_CLASSES; i++)
		TAILQ_INIT(&loop->ready[i]);
	loop->timer_fd = -1;
	loop->event_capacity = 64;
	loop->events = calloc(loop->event_capacity, sizeof(*loop->events));
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epoll_fd >= 0)
		loop->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	/* In the epoll set, the timerfd is the one without a source. */
	if (!loop->events || loop->epoll_fd < 0 || loop->timer_fd < 0 ||
	    epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->timer_fd, &event) < 0) {
		int result = -errno;
		loop_destroy(loop);
		return result;
	}
	*ret_loop = loop;
	return 0;
}

void loop_destroy(struct loop *loop)
{
	struct loop_source *source;

	if (!loop)
		return;
	assert(loop->depth == 0);
	if (loop->signal_source)
		fd_close(loop->signal_source->fd);
	/* The owners of the other descriptors may have closed them by now, and the epoll set goes as a whole. */
	while ((source = TAILQ_FIRST(&loop->sources))) {
		TAILQ_REMOVE(&loop->sources, source, link);
		free(source);
	}
	if (loop->mask_saved)
		sigprocmask(SIG_SETMASK, &loop->saved_mask, NULL);
	fd_close(loop->timer_fd);
	fd_close(loop->epoll_fd);
	free(loop->events);
	free(loop);
}

/* A new source in loop->sources. `fd` is -1 for a timer, otherwise it joins the epoll set. 0 or -errno. */
static int add_source(struct loop *loop, enum source_class class, int fd, uint32_t events, void *data,
		      struct loop_source **ret_source)
{
	/* One place more than there are sources, for the timerfd: then one epoll_wait fetches all that is ready, and
	 * the order of the classes holds however many are ready at once. */
	if (loop->source_count + 1 >= loop->event_capacity) {
		struct epoll_event *grown = reallocarray(loop->events, loop->event_capacity * 2, sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		loop->events = grown;
		loop->event_capacity *= 2;
	}
	struct loop_source *source = calloc(1, sizeof(*source));
	if (!source)
		return -ENOMEM;
	source->loop = loop;
	source->class = class;
	source->fd = fd;
	source->data = data;
	if (fd >= 0) {
		struct epoll_event event = {.events = events, .data.ptr = source};
		if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
			int result = -errno;
			free(source);
			return result;
		}
		source->watched = true;
	}
	TAILQ_INSERT_TAIL(&loop->sources, source, link);
	loop->source_count++;
	*ret_source = source;
	return 0;
}

int loop_add_fd(struct loop *loop, int fd, uint32_t events, loop_fd_fn fn, void *data, struct loop_source **ret_source)
{
	struct loop_source *source;

	if (fd < 0)
		return -EBADF;
	int result = add_source(loop, SOURCE_FD, fd, events, data, &source);
	if (result < 0)
		return result;
	source->fn.fd = fn;
	*ret_source = source;
	return 0;
}

int loop_fd_set_events(struct loop_source *source, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = source};

	assert(source->class == SOURCE_FD && !source->removed);
	if (epoll_ctl(source->loop->epoll_fd, EPOLL_CTL_MOD, source->fd, &event) < 0)
		return -errno;
	/* What was fetched for the old wish and is no longer wanted is not delivered. */
	source->ready_events &= events | EPOLLHUP | EPOLLERR;
	if (source->ready_events == 0)
		unqueue(source);
	return 0;
}

int loop_add_signals(struct loop *loop, const sigset_t *set, loop_signal_fn fn, void *data,
		     struct loop_source **ret_source)
{
	CLEANUP(fd_closep) int fd = -1;
	sigset_t previous_mask;
	struct loop_source *source;

	if (loop->signal_source)
		return -EBUSY;
	fd = signalfd(-1, set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		return -errno;
	int result = add_source(loop, SOURCE_SIGNAL, fd, EPOLLIN, data, &source);
	if (result < 0)
		return result;
	source->fn.signal = fn;
	loop->signal_source = source;
	fd_steal(&fd);
	/* Cannot fail: SIG_BLOCK is a valid request. Last, so that a failure above leaves the mask as it was. */
	sigprocmask(SIG_BLOCK, set, &previous_mask);
	if (!loop->mask_saved)
		loop->saved_mask = previous_mask;
	loop->mask_saved = true;
	*ret_source = source;
	return 0;
}

int loop_add_child(struct loop *loop, int pidfd, loop_child_fn fn, void *data, struct loop_source **ret_source)
{
	struct loop_source *source;

	if (pidfd < 0)
		return -EBADF;
	int result = add_source(loop, SOURCE_CHILD, pidfd, EPOLLIN, data, &source);
	if (result < 0)
		return result;
	source->fn.child = fn;
	*ret_source = source;
	return 0;
}

int loop_add_timer(struct loop *loop, loop_timer_fn fn, void *data, struct loop_source **ret_source)
{
	struct loop_source *source;
	int result = add_source(loop, SOURCE_TIMER, -1, 0, data, &source);

	if (result < 0)
		return result;
	source->fn.timer = fn;
	*ret_source = source;
	return 0;
}

void loop_timer_set(struct loop_source *source, int64_t after_ms)
{
	struct loop *loop = source->loop;
	int64_t now = now_ns();
	struct loop_source *later;

	assert(source->class == SOURCE_TIMER && !source->removed);
	unqueue(source);
	if (after_ms < 0)
		after_ms = 0;
	source->deadline_ns = after_ms > (INT64_MAX - now) / NS_PER_MS ? INT64_MAX : now + after_ms * NS_PER_MS;
	/* Behind those with the same deadline: equal timers fire in the order in which they were set. */
	TAILQ_FOREACH (later, &loop->armed, queue_link) {
		if (later->deadline_ns > source->deadline_ns)
			break;
	}
	if (later)
		TAILQ_INSERT_BEFORE(later, source, queue_link);
	else
		TAILQ_INSERT_TAIL(&loop->armed, source, queue_link);
	source->queue = &loop->armed;
}

void loop_timer_stop(struct loop_source *source)
{
	assert(source->class == SOURCE_TIMER && !source->removed);
	unqueue(source);
}

int64_t loop_timer_left_ms(const struct loop_source *source)
{
	assert(source->class == SOURCE_TIMER);
	if (!source->queue)
		return -1;
	int64_t left = source->deadline_ns - now_ns();
	/* Not (left + …) / …: a timer that never fires is at INT64_MAX. */
	return left <= 0 ? 0 : left / NS_PER_MS + (left % NS_PER_MS > 0);
}

void loop_remove(struct loop_source *source)
{
	if (!source)
		return;
	struct loop *loop = source->loop;

	assert(!source->removed);
	unqueue(source);
	if (source->watched) {
		int result = epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
		/* The owner closed it too early: a copy of it elsewhere would keep reporting to freed memory. */
		assert(result == 0);
		(void)result;
	}
	if (source == loop->signal_source) {
		/* The mask stays, so that a signal which comes now waits for the next source or the end of the loop. */
		fd_close(source->fd);
		loop->signal_source = NULL;
	}
	TAILQ_REMOVE(&loop->sources, source, link);
	loop->source_count--;
	source->removed = true;
	if (loop->depth > 0)
		TAILQ_INSERT_TAIL(&loop->removed, source, link);
	else
		free(source);
}

/* Sets the timerfd to the earliest deadline, if it is not there already. 0 or -errno. */
static int arm_timer_fd(struct loop *loop)
{
	const struct loop_source *earliest = TAILQ_FIRST(&loop->armed);
	int64_t wanted_ns = earliest ? earliest->deadline_ns : 0;

	if (wanted_ns == loop->timer_fd_ns)
		return 0;
	struct itimerspec spec = {.it_value = {.tv_sec = wanted_ns / NS_PER_S, .tv_nsec = wanted_ns % NS_PER_S}};
	if (timerfd_settime(loop->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL) < 0)
		return -errno;
	loop->timer_fd_ns = wanted_ns;
	return 0;
}

/* Queues what epoll reported, and the timers that are due at this moment. */
static void sort_into_classes(struct loop *loop, int event_count)
{
	struct loop_source *source, *next;

	for (int i = 0; i < event_count; i++) {
		source = loop->events[i].data.ptr;
		if (!source) {
			uint64_t expirations;
			/* -EAGAIN where it was set anew in between is as good: either way it is unarmed now. */
			if (read(loop->timer_fd, &expirations, sizeof(expirations)) < 0)
				assert(errno == EAGAIN);
			loop->timer_fd_ns = 0;
			continue;
		}
		/* A nested round may find one that the outer round has fetched already. */
		source->ready_events = loop->events[i].events;
		if (!source->queue)
			enqueue(source, &loop->ready[source->class]);
	}
	/* By the time of the fetch, not of the delivery: a timer that gets due while callbacks run waits for the next
	 * round, where an exit that came before it is seen first. */
	int64_t now = now_ns();
	for (source = TAILQ_FIRST(&loop->armed); source && source->deadline_ns <= now; source = next) {
		next = TAILQ_NEXT(source, queue_link);
		unqueue(source);
		enqueue(source, &loop->ready[SOURCE_TIMER]);
	}
}

static void deliver_signals(struct loop *loop)
{
	/* One at a time, so that those which a callback leaves behind by removing the source are not lost. */
	for (int i = 0; i < SIGNALS_PER_ROUND; i++) {
		struct loop_source *source = loop->signal_source;
		struct signalfd_siginfo info;
		if (!source || read(source->fd, &info, sizeof(info)) != sizeof(info))
			return;
		source->fn.signal(source, &info, source->data);
	}
}

static void deliver(struct loop *loop)
{
	struct loop_source *source;

	while ((source = take_ready(loop, SOURCE_CHILD))) {
		/* A pidfd stays readable; out of the set, so that the loop sleeps until the caller removes it. */
		if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL) < 0)
			assert(!"the owner of a pidfd closed it before its source was removed");
		source->watched = false;
		source->fn.child(source, source->data);
	}
	while ((source = take_ready(loop, SOURCE_FD))) {
		uint32_t events = source->ready_events;
		source->ready_events = 0;
		source->fn.fd(source, source->fd, events, source->data);
	}
	if (take_ready(loop, SOURCE_SIGNAL))
		deliver_signals(loop);
	while ((source = take_ready(loop, SOURCE_TIMER)))
		source->fn.timer(source, source->data);
}

int loop_run_once(struct loop *loop, int timeout_ms)
{
	struct loop_source *source;
	int result = arm_timer_fd(loop);

	if (result < 0)
		return result;
	int count = epoll_wait(loop->epoll_fd, loop->events, (int)loop->event_capacity, timeout_ms);
	/* EINTR comes without any handler too, after a stop and SIGCONT (signal(7)): an empty round. */
	if (count < 0 && errno != EINTR)
		return -errno;
	loop->depth++;
	sort_into_classes(loop, count > 0 ? count : 0);
	deliver(loop);
	loop->depth--;
	while (loop->depth == 0 && (source = TAILQ_FIRST(&loop->removed))) {
		TAILQ_REMOVE(&loop->removed, source, link);
		free(source);
	}
	return 0;
}

int loop_run(struct loop *loop)
{
	int result = 0;

	/* Not cleared before: a quit that was asked before the loop runs counts. */
	while (!loop->quit && result == 0)
		result = loop_run_once(loop, -1);
	loop->quit = false;
	return result;
}

void loop_quit(struct loop *loop)
{
	loop->quit = true;
}
