/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads start when work is waiting and none is idle, up to a few, and stay. What is over is
 * handed to the loop in batches: as many as have gathered when it wakes.
 */
#include "disk/work.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { THREADS_MAX = 4 };

struct work_list {
	struct work *first, **last;
};

struct work_pool {
	int event; /* tells the loop that `over` is no longer empty */
	struct loop_fd *watch;
	pthread_mutex_t lock; /* guards what follows; no other lock is taken under it */
	pthread_cond_t wake, done;
	struct work_list todo, over;
	pthread_t threads[THREADS_MAX];
	unsigned started, idle, waiting; /* waiting: in todo */
	unsigned unfinished;		 /* in todo or being run */
	bool stop;
};

static void list_init(struct work_list *l)
{
	l->first = NULL;
	l->last = &l->first;
}

static void list_add(struct work_list *l, struct work *w)
{
	w->next = NULL;
	*l->last = w;
	l->last = &w->next;
}

static struct work *list_take(struct work_list *l)
{
	struct work *w = l->first;

	if (w) {
		l->first = w->next;
		if (!l->first)
			l->last = &l->first;
	}
	return w;
}

static void tell(struct work_pool *p)
{
	pthread_mutex_lock(&p->lock);
	struct work *w = p->over.first;
	list_init(&p->over);
	pthread_mutex_unlock(&p->lock);
	while (w) {
		struct work *next = w->next;
		w->over(w);
		w = next;
	}
}

static void woken(void *opaque, int fd, int events)
{
	uint64_t count;

	(void)events;
	(void)!read(fd, &count, sizeof(count));
	tell(opaque);
}

static void *thread_main(void *opaque)
{
	static const uint64_t one = 1;
	struct work_pool *p = opaque;
	struct work *w;

	pthread_mutex_lock(&p->lock);
	for (;;) {
		while (!(w = list_take(&p->todo)) && !p->stop) {
			p->idle++;
			pthread_cond_wait(&p->wake, &p->lock);
			p->idle--;
		}
		if (!w)
			break;
		p->waiting--;
		pthread_mutex_unlock(&p->lock);
		w->run(w);
		pthread_mutex_lock(&p->lock);
		bool first = !p->over.first;
		list_add(&p->over, w);
		if (!--p->unfinished)
			pthread_cond_broadcast(&p->done);
		if (first)
			(void)!write(p->event, &one, sizeof(one));
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

/* Signals are for the threads that wait for them. */
static int start_thread(struct work_pool *p)
{
	sigset_t all, before;
	int rc;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = pthread_create(&p->threads[p->started], NULL, thread_main, p);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (!rc)
		p->started++;
	return -rc;
}

int work_queue(struct work_pool *p, struct work *w)
{
	int rc = 0;

	pthread_mutex_lock(&p->lock);
	if (p->waiting >= p->idle && p->started < THREADS_MAX)
		rc = start_thread(p);
	if (rc && !p->started) {
		pthread_mutex_unlock(&p->lock);
		return -EAGAIN;
	}
	list_add(&p->todo, w);
	p->waiting++;
	p->unfinished++;
	pthread_cond_signal(&p->wake);
	pthread_mutex_unlock(&p->lock);
	return 0;
}

void work_pool_wait(struct work_pool *p)
{
	pthread_mutex_lock(&p->lock);
	while (p->unfinished)
		pthread_cond_wait(&p->done, &p->lock);
	pthread_mutex_unlock(&p->lock);
	tell(p);
}

int work_pool_create(struct work_pool **out, struct loop *loop)
{
	struct work_pool *p = calloc(1, sizeof(*p));
	int rc;

	*out = NULL;
	if (!p)
		return -ENOMEM;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->wake, NULL);
	pthread_cond_init(&p->done, NULL);
	list_init(&p->todo);
	list_init(&p->over);
	p->event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	rc = p->event < 0 ? -errno : loop_fd_add(loop, p->event, POLLIN, woken, p, &p->watch);
	if (rc)
		work_pool_destroy(p);
	else
		*out = p;
	return rc;
}

void work_pool_destroy(struct work_pool *p)
{
	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	p->stop = true;
	pthread_cond_broadcast(&p->wake);
	pthread_mutex_unlock(&p->lock);
	for (unsigned i = 0; i < p->started; i++)
		pthread_join(p->threads[i], NULL);
	tell(p);
	loop_fd_remove(p->watch);
	if (p->event >= 0)
		close(p->event);
	pthread_cond_destroy(&p->wake);
	pthread_cond_destroy(&p->done);
	pthread_mutex_destroy(&p->lock);
	free(p);
}
