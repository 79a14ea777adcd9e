/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event loop, on libuv for file descriptors and wake-ups.
 *
 * Timers are our own: libuv's have milliseconds and one thread, ours have nanoseconds and are armed
 * from vCPU threads. They are a binary heap by deadline under the loop's lock, in front of one
 * timerfd. The timerfd is set anew only when the earliest deadline moves forward: one that moves
 * back (a guest that pushes its tick further) costs at most one wake-up for nothing. A deadline of 0
 * is a post: it goes by the loop's eventfd, which wakes it sooner than a timer would, and on the
 * loop's own thread by nothing but a note that is looked at when this turn's descriptors had theirs.
 *
 * The heap is an array in address space that is only touched as far as it is used, so that arming
 * a timer never fails.
 *
 * A watched descriptor becomes non-blocking (libuv sees to it), and stays so.
 *
 * What epoll cannot watch (plain files, /dev/null) is always ready, as poll(2) has it: such a
 * watcher hangs on an idle handle, which libuv calls on each turn.
 */
#include "base/loop.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include <uv.h>

#include "base/clock.h"
#include "base/log.h"

enum {
	TIMERS_MAX = 1 << 16,
	FIRE_MAX = 64, /* callbacks of timers in one turn, so that descriptors get theirs */
};

struct post {
	struct post *next;
	void (*fn)(void *opaque);
	void *opaque;
};

struct loop {
	uv_loop_t uv;
	uv_async_t async;
	uv_check_t check;
	uv_poll_t timer_poll;
	bool uv_ready, async_ready, check_ready, timer_ready;
	int timer_fd;
	atomic_bool stop;

	pthread_mutex_t lock; /* guards what follows; no other lock is taken under it */
	struct post *post_first, **post_last;
	struct timer **heap; /* from 1 on; heap[1] is the earliest */
	uint32_t timers;
	uint64_t set_ns; /* what timer_fd is set to; UINT64_MAX: not set */
	bool due;	 /* the earliest deadline is 0, and the loop was told */
};

/* The loop that this thread runs. */
static _Thread_local struct loop *running;

struct loop_fd {
	union {
		uv_handle_t handle;
		uv_poll_t poll;
		uv_idle_t idle; /* always ready */
	};
	int fd, events;
	bool always_ready;
	void (*fn)(void *opaque, int fd, int events);
	void *opaque;
};

/* ---- timers ---- */

static void heap_put(struct loop *l, uint32_t i, struct timer *t)
{
	l->heap[i] = t;
	t->heap_index = i;
}

/* Finds the place for t, starting from the free place i. */
static void heap_sift(struct loop *l, uint32_t i, struct timer *t)
{
	while (i > 1 && l->heap[i / 2]->deadline_ns > t->deadline_ns) {
		heap_put(l, i, l->heap[i / 2]);
		i /= 2;
	}
	for (;;) {
		uint32_t child = 2 * i;
		if (child > l->timers)
			break;
		if (child < l->timers &&
		    l->heap[child + 1]->deadline_ns < l->heap[child]->deadline_ns)
			child++;
		if (l->heap[child]->deadline_ns >= t->deadline_ns)
			break;
		heap_put(l, i, l->heap[child]);
		i = child;
	}
	heap_put(l, i, t);
}

static void heap_remove(struct loop *l, struct timer *t)
{
	uint32_t i = t->heap_index;
	struct timer *last = l->heap[l->timers--];

	t->heap_index = 0;
	if (last != t)
		heap_sift(l, i, last);
}

/* With the lock held. */
static void program_timer(struct loop *l)
{
	struct itimerspec its = {0};
	uint64_t ns = l->timers ? l->heap[1]->deadline_ns : UINT64_MAX;

	if (ns == 0) {
		if (!l->due && running != l)
			uv_async_send(&l->async);
		l->due = true;
		return;
	}
	if (ns >= l->set_ns)
		return;
	l->set_ns = ns;
	if (ns > INT64_MAX)
		ns = INT64_MAX;
	its.it_value.tv_sec = (time_t)(ns / 1000000000u);
	its.it_value.tv_nsec = (long)(ns % 1000000000u);
	timerfd_settime(l->timer_fd, TFD_TIMER_ABSTIME, &its, NULL);
}

void timer_init(struct timer *t, struct loop *loop, void (*fn)(void *opaque), void *opaque)
{
	*t = (struct timer){.loop = loop, .fn = fn, .opaque = opaque};
}

void timer_arm(struct timer *t, uint64_t deadline_ns)
{
	struct loop *l = t->loop;

	pthread_mutex_lock(&l->lock);
	if (!t->heap_index && l->timers == TIMERS_MAX - 1) {
		pthread_mutex_unlock(&l->lock);
		log_error("event loop: more than %d timers; one was not armed", TIMERS_MAX - 1);
		return;
	}
	uint32_t i = t->heap_index ? t->heap_index : ++l->timers;
	t->deadline_ns = deadline_ns;
	heap_sift(l, i, t);
	program_timer(l);
	pthread_mutex_unlock(&l->lock);
}

void timer_cancel(struct timer *t)
{
	struct loop *l = t->loop;

	pthread_mutex_lock(&l->lock);
	if (t->heap_index)
		heap_remove(l, t);
	pthread_mutex_unlock(&l->lock);
}

void timer_destroy(struct timer *t)
{
	if (t->loop)
		timer_cancel(t);
}

/* With the lock held, which is let go of meanwhile. */
static void fire(struct loop *l)
{
	uint64_t now = clock_ns();

	l->due = false;
	for (int n = 0; n < FIRE_MAX && l->timers; n++) {
		struct timer *t = l->heap[1];
		if (t->deadline_ns > now)
			break;
		heap_remove(l, t);
		/* t may be gone as soon as its callback runs. */
		void (*fn)(void *) = t->fn;
		void *opaque = t->opaque;
		pthread_mutex_unlock(&l->lock);
		fn(opaque);
		pthread_mutex_lock(&l->lock);
	}
	program_timer(l);
}

static void timers_due(uv_poll_t *poll, int status, int events)
{
	struct loop *l = poll->data;
	uint64_t expirations;

	(void)status, (void)events;
	(void)!read(l->timer_fd, &expirations, sizeof(expirations));
	pthread_mutex_lock(&l->lock);
	l->set_ns = UINT64_MAX;
	fire(l);
	pthread_mutex_unlock(&l->lock);
}

/* After the callbacks of a turn. */
static void turn_ends(uv_check_t *check)
{
	struct loop *l = check->data;

	pthread_mutex_lock(&l->lock);
	if (l->due)
		fire(l);
	/* The next turn must not wait. */
	if (l->due)
		uv_async_send(&l->async);
	pthread_mutex_unlock(&l->lock);
}

/* ---- posts and stopping ---- */

static void woken(uv_async_t *async)
{
	struct loop *l = async->data;

	pthread_mutex_lock(&l->lock);
	struct post *p = l->post_first;
	l->post_first = NULL;
	l->post_last = &l->post_first;
	pthread_mutex_unlock(&l->lock);
	while (p) {
		struct post *next = p->next;
		p->fn(p->opaque);
		free(p);
		p = next;
	}
	if (atomic_load(&l->stop))
		uv_stop(&l->uv);
}

int loop_post(struct loop *l, void (*fn)(void *opaque), void *opaque)
{
	struct post *p = malloc(sizeof(*p));

	if (!p)
		return -ENOMEM;
	*p = (struct post){.fn = fn, .opaque = opaque};
	pthread_mutex_lock(&l->lock);
	*l->post_last = p;
	l->post_last = &p->next;
	pthread_mutex_unlock(&l->lock);
	uv_async_send(&l->async);
	return 0;
}

/* Also from signal handlers. */
void loop_stop(struct loop *l)
{
	atomic_store(&l->stop, true);
	uv_async_send(&l->async);
}

void loop_run(struct loop *l)
{
	running = l;
	while (!atomic_load(&l->stop))
		uv_run(&l->uv, UV_RUN_DEFAULT);
	running = NULL;
	atomic_store(&l->stop, false);
}

/* ---- descriptors ---- */

static void fd_ready(uv_poll_t *poll, int status, int uv_events)
{
	struct loop_fd *w = poll->data;
	int events = 0;

	if (uv_events & UV_READABLE)
		events |= POLLIN;
	if (uv_events & UV_WRITABLE)
		events |= POLLOUT;
	if (status < 0) {
		/* libuv stops watching on POLLERR; the contract is that of poll(2): it comes as
		 * POLLIN until the owner does something about it. */
		events = POLLIN;
		loop_fd_set_events(w, w->events);
	}
	w->fn(w->opaque, w->fd, events);
}

static void always_ready(uv_idle_t *idle)
{
	struct loop_fd *w = idle->data;

	w->fn(w->opaque, w->fd, w->events);
}

int loop_fd_add(struct loop *l, int fd, int events, void (*fn)(void *opaque, int fd, int events),
		void *opaque, struct loop_fd **out)
{
	struct loop_fd *w = calloc(1, sizeof(*w));
	int r;

	*out = NULL;
	if (!w)
		return -ENOMEM;
	w->fd = fd;
	w->fn = fn;
	w->opaque = opaque;
	r = uv_poll_init(&l->uv, &w->poll, fd);
	if (r == UV_EPERM) {
		w->always_ready = true;
		r = uv_idle_init(&l->uv, &w->idle);
	}
	if (r < 0) {
		free(w);
		return r; /* libuv's codes are -errno */
	}
	w->handle.data = w;
	loop_fd_set_events(w, events);
	*out = w;
	return 0;
}

void loop_fd_set_events(struct loop_fd *w, int events)
{
	int uv_events = (events & POLLIN ? UV_READABLE : 0) | (events & POLLOUT ? UV_WRITABLE : 0);

	w->events = events & (POLLIN | POLLOUT);
	if (w->always_ready) {
		if (uv_events)
			uv_idle_start(&w->idle, always_ready);
		else
			uv_idle_stop(&w->idle);
	} else if (uv_events) {
		uv_poll_start(&w->poll, uv_events, fd_ready);
	} else {
		uv_poll_stop(&w->poll);
	}
}

static void fd_closed(uv_handle_t *handle)
{
	free(handle->data);
}

void loop_fd_remove(struct loop_fd *w)
{
	if (w)
		uv_close(&w->handle, fd_closed);
}

/* ---- life ---- */

static int start(struct loop *l)
{
	int r = uv_loop_init(&l->uv);

	if (r < 0)
		return r;
	l->uv_ready = true;
	l->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (l->timer_fd < 0)
		return -errno;
	r = uv_async_init(&l->uv, &l->async, woken);
	if (r < 0)
		return r;
	l->async_ready = true;
	l->async.data = l;
	r = uv_check_init(&l->uv, &l->check);
	if (r < 0)
		return r;
	l->check_ready = true;
	l->check.data = l;
	r = uv_check_start(&l->check, turn_ends);
	if (r < 0)
		return r;
	r = uv_poll_init(&l->uv, &l->timer_poll, l->timer_fd);
	if (r < 0)
		return r;
	l->timer_ready = true;
	l->timer_poll.data = l;
	r = uv_poll_start(&l->timer_poll, UV_READABLE, timers_due);
	if (r < 0)
		return r;
	void *p = mmap(NULL, TIMERS_MAX * sizeof(struct timer *), PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return -errno;
	l->heap = p;
	return 0;
}

int loop_create(struct loop **out, struct error *err)
{
	struct loop *l = calloc(1, sizeof(*l));
	int r;

	*out = NULL;
	if (!l)
		return error_set(err, -ENOMEM, "event loop: out of memory");
	l->timer_fd = -1;
	l->set_ns = UINT64_MAX;
	l->post_last = &l->post_first;
	pthread_mutex_init(&l->lock, NULL);
	r = start(l);
	if (r < 0) {
		loop_destroy(l);
		return error_set(err, r, "event loop: %s", strerror(-r));
	}
	*out = l;
	return 0;
}

void loop_destroy(struct loop *l)
{
	if (!l)
		return;
	if (l->async_ready)
		uv_close((uv_handle_t *)&l->async, NULL);
	if (l->check_ready)
		uv_close((uv_handle_t *)&l->check, NULL);
	if (l->timer_ready)
		uv_close((uv_handle_t *)&l->timer_poll, NULL);
	if (l->uv_ready) {
		/* Watchers that were removed are freed here; one that was not is the caller's bug,
		 * and shows as a leak. */
		uv_run(&l->uv, UV_RUN_NOWAIT);
		if (uv_loop_close(&l->uv) < 0)
			log_warn("event loop: destroyed while descriptors were watched");
	}
	/* Posts that the loop did not live to see. */
	for (struct post *p = l->post_first, *next; p; p = next) {
		next = p->next;
		free(p);
	}
	if (l->heap)
		munmap(l->heap, TIMERS_MAX * sizeof(struct timer *));
	if (l->timer_fd >= 0)
		close(l->timer_fd);
	pthread_mutex_destroy(&l->lock);
	free(l);
}
